/* echo: answers every message with itself, and every IPI with one of the same vector. The least that an image needs.
 *
 *     make && multikernel run build/echo
 */
#include <multikernel/kernel.h>
#include <stdio.h>

static int last; /* the link of the last message: whom to interrupt */

static void answer(mk_kernel *k, unsigned vector, uint64_t count, void *context)
{
	(void)context;
	mk_kernel_log(k, 6, "vector %u, %llu times", vector, (unsigned long long)count);
	if (last)
		mk_kernel_ipi(k, last, vector);
}

int main(void)
{
	struct mk_message m;
	mk_kernel *k = mk_kernel_attach();
	int result;

	if (!k) {
		fprintf(stderr, "echo: %s\n", mk_kernel_error(NULL));
		return 1;
	}
	for (unsigned vector = 0; vector < 64; vector++)
		mk_kernel_on_ipi(k, vector, answer, NULL);
	printf("%s is instance %u of %s\n", mk_kernel_name(k), mk_kernel_id(k), mk_kernel_machine(k));
	while ((result = mk_kernel_next(k, &m, -1)) > 0) {
		last = m.link;
		mk_kernel_reply_as(k, &m, m.type, m.subtype, m.payload, m.length);
	}
	if (result < 0)
		fprintf(stderr, "echo: %s\n", mk_kernel_error(k));
	return mk_kernel_exit(k, result < 0);
}
