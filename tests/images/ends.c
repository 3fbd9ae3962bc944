/* ends: as ends.py, answers every message with itself, until one says how to end. */
#include <multikernel/kernel.h>

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool says(const struct mk_message *m, const char *word, int *code)
{
	char text[32];
	size_t length = m->length < sizeof(text) - 1 ? m->length : sizeof(text) - 1, size = strlen(word);

	memcpy(text, m->payload, length);
	text[length] = 0;
	*code = length > size ? atoi(text + size) : 0;
	return !strncmp(text, word, size);
}

int main(void)
{
	struct mk_message m;
	mk_kernel *k = mk_kernel_attach();
	int code;

	if (!k) {
		fprintf(stderr, "ends: %s\n", mk_kernel_error(NULL));
		return 1;
	}
	while (mk_kernel_next(k, &m, -1) > 0) {
		if (says(&m, "return", &code))
			return mk_kernel_exit(k, code);
		if (says(&m, "exit", &code))
			_exit(code);
		if (says(&m, "signal", &code))
			raise(SIGKILL);
		mk_kernel_reply(k, &m, m.payload, m.length);
	}
	return mk_kernel_exit(k, 0);
}
