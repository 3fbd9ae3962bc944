/* filter: stands between those that send and an instance that should get only a part of it. Passes on the messages that
 * have a text in them, answers requests with what it has done, and says so on its console every second.
 *
 *     make && multikernel run build/filter --cmdline 'match=error to=log'
 */
#include <multikernel/kernel.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct filter {
	const char *match;
	int to; /* the link to the instance that gets the rest */
	unsigned long seen, passed, told;
};

static int report(const struct filter *f, char *text, size_t room)
{
	return snprintf(text, room, "%lu of %lu passed", f->passed, f->seen);
}

static void every_second(mk_kernel *k, uint64_t count, void *context)
{
	struct filter *f = context;
	char text[64];

	(void)count; /* more than one if the loop was busy for so long */
	if (f->told == f->seen)
		return;
	f->told = f->seen;
	report(f, text, sizeof(text));
	mk_kernel_log(k, 6, "%s", text);
}

/* Pass it on, or not. @return 0; -errno: there is nobody any more to pass it on to */
static int take(mk_kernel *k, struct filter *f, const struct mk_message *m)
{
	size_t length = strlen(f->match);
	const char *at = m->payload;

	f->seen++;
	for (size_t i = 0; i + length <= m->length; i++) {
		if (memcmp(at + i, f->match, length) != 0)
			continue;
		f->passed++;
		return mk_kernel_send(k, f->to, m->type, m->subtype, m->payload, m->length, -1);
	}
	return 0;
}

static int serve(mk_kernel *k, struct filter *f)
{
	struct mk_message m;
	char text[64];
	int result;

	while ((result = mk_kernel_next(k, &m, -1)) > 0) {
		if (m.link == f->to) /* what it answers is for nobody */
			continue;
		result = m.id & MK_ID_REQUEST ? mk_kernel_reply(k, &m, text, (size_t)report(f, text, sizeof(text)))
					      : take(k, f, &m);
		if (result < 0 && result != -EPIPE) /* who has asked may be gone */
			return result;
	}
	return result;
}

int main(void)
{
	struct filter f = {0};
	mk_kernel *k = mk_kernel_attach();
	const char *to;
	int result;

	if (!k) {
		fprintf(stderr, "filter: %s\n", mk_kernel_error(NULL));
		return 1;
	}
	f.match = mk_kernel_param(k, "match");
	to = mk_kernel_param(k, "to");
	if (!f.match || !to) {
		fprintf(stderr, "filter: what to match, and whom to pass it to? Load it with --cmdline 'match=TEXT to=NAME'\n");
		return mk_kernel_exit(k, 2);
	}
	result = f.to = mk_kernel_connect(k, to, 0, 10000);
	if (result > 0) {
		mk_kernel_every(k, 1000000000, every_second, &f);
		result = serve(k, &f);
	}
	if (result < 0)
		fprintf(stderr, "filter: %s\n", mk_kernel_error(k));
	return mk_kernel_exit(k, result < 0);
}
