/* relay.py in C: one link of a chain. It answers who has none after it, and passes on what comes between the others. */
#include <multikernel/kernel.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define CLIENTS 512

/* A message: its number, and how many on its way have had it again. */
struct __attribute__((packed)) passed {
	uint64_t number;
	uint32_t again;
};

/* Whom to send it back to: whoever is no instance. */
static int client(mk_kernel *k)
{
	int link = 0;

	while ((link = mk_kernel_next_link(k, link)))
		if (mk_kernel_peer_id(k, link) >= CLIENTS)
			return link;
	return 0;
}

int main(void)
{
	struct mk_message m;
	mk_kernel *k = mk_kernel_attach();
	int onward = 0, result;

	if (!k)
		return 1;
	if (*mk_kernel_cmdline(k))
		onward = mk_kernel_connect(k, mk_kernel_cmdline(k), 65536, 30000);
	while (onward >= 0 && (result = mk_kernel_next(k, &m, -1)) > 0) {
		struct passed passed;
		char text[32];

		if (m.length == 5 && memcmp(m.payload, "epoch", 5) == 0) {
			snprintf(text, sizeof(text), "%" PRIu64, mk_kernel_epoch(k));
			mk_kernel_reply(k, &m, text, strlen(text));
			continue;
		}
		if (m.length == 4 && memcmp(m.payload, "drop", 4) == 0)
			raise(SIGKILL);
		memcpy(&passed, m.payload, sizeof(passed));
		passed.again += (uint32_t)m.redelivered;
		mk_kernel_send(k, m.link == onward ? client(k) : onward ? onward : m.link, MK_MSG_USER, 0, &passed,
			       sizeof(passed), -1);
	}
	if (onward < 0 || result < 0)
		fprintf(stderr, "relay: %s\n", mk_kernel_error(k));
	return mk_kernel_exit(k, onward < 0 || result < 0);
}
