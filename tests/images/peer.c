/* peer.py in C: does what it is told by messages, and whoever talks to one of them cannot tell which it is. What only
 * this one knows (timers, an endless loop) is for tests of native images alone.
 */
#include <multikernel/kernel.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 8

static uint64_t counts[64];
static struct {
	char name[32];
	int link;
} links[MOST];

static void count(mk_kernel *k, unsigned vector, uint64_t times, void *context)
{
	uint64_t *all = context;

	(void)k;
	all[vector] += times;
}

/* A timer that ends itself after as many times as it still has to come. */
struct ticks {
	int left, timer;
	uint64_t due;
};

static void tick(mk_kernel *k, uint64_t times, void *context)
{
	struct ticks *ticks = context;

	ticks->due += times;
	if (--ticks->left == 0)
		mk_kernel_cancel(k, ticks->timer);
}

/* The link to an instance; made when it is asked for first. */
static int link_to(mk_kernel *k, const char *name)
{
	for (int i = 0; i < MOST; i++)
		if (strcmp(links[i].name, name) == 0)
			return links[i].link;
	for (int i = 0; i < MOST; i++) {
		if (links[i].name[0])
			continue;
		links[i].link = mk_kernel_connect(k, name, 65536, 10000);
		if (links[i].link > 0)
			snprintf(links[i].name, sizeof(links[i].name), "%s", name);
		return links[i].link;
	}
	return -1;
}

static void say(mk_kernel *k, const struct mk_message *to, const char *text)
{
	mk_kernel_reply(k, to, text, strlen(text));
}

static void say_error(mk_kernel *k, const struct mk_message *to)
{
	char text[1200];

	snprintf(text, sizeof(text), "error: %s", mk_kernel_error(k));
	say(k, to, text);
}

static void ask(mk_kernel *k, const struct mk_message *m, const char *name, const char *text)
{
	struct mk_message reply;
	int link = link_to(k, name);

	if (link < 0 || mk_kernel_request(k, link, MK_MSG_USER, 0, text, strlen(text), &reply, 10000))
		say_error(k, m);
	else
		mk_kernel_reply_as(k, m, reply.type, reply.subtype, reply.payload, reply.length);
}

static void wait_for_ticks(mk_kernel *k, const struct mk_message *m)
{
	struct ticks ticks = {.left = 3}, once = {.left = 1000};
	struct mk_message next;
	char text[64];
	struct mk_message to = *m; /* the reply goes by its numbers; its payload is gone by then */

	ticks.timer = mk_kernel_every(k, 1000000, tick, &ticks);
	once.timer = mk_kernel_after(k, 1000000, tick, &once);
	while (ticks.left > 0 && mk_kernel_next(k, &next, 10) == -ETIMEDOUT)
		;
	snprintf(text, sizeof(text), "%d %d %d", ticks.left, ticks.due >= 3, once.due == 1);
	say(k, &to, text);
}

/* What this process has of memory that is nobody else's. It may look when others of its user may not. */
static int private_kib(void)
{
	FILE *rollup = fopen("/proc/self/smaps_rollup", "r");
	char line[256];
	int clean = 0, dirty = 0;

	if (!rollup)
		return -1;
	while (fgets(line, sizeof(line), rollup)) {
		sscanf(line, "Private_Clean: %d", &clean);
		sscanf(line, "Private_Dirty: %d", &dirty);
	}
	fclose(rollup);
	return clean + dirty;
}

/* Both exported, so that a backtrace names them. */
size_t overflow(size_t n);
void crash(void);

__attribute__((visibility("default"), noinline)) size_t overflow(size_t n)
{
	volatile char room[4096];

	room[0] = (char)n;
	return n ? overflow(n + 1) + (size_t)room[0] : 0;
}

__attribute__((visibility("default"), noinline)) void crash(void)
{
	volatile int *volatile nowhere = NULL;

	*nowhere = 1;
}

int main(void)
{
	struct mk_message m;
	mk_kernel *k = mk_kernel_attach();
	int result;

	if (!k) {
		fprintf(stderr, "peer: %s\n", mk_kernel_error(NULL));
		return 1;
	}
	for (unsigned vector = 0; vector < 64; vector++)
		mk_kernel_on_ipi(k, vector, count, counts);
	printf("%s is instance %u of %s\n", mk_kernel_name(k), mk_kernel_id(k), mk_kernel_machine(k));
	while ((result = mk_kernel_next(k, &m, -1)) > 0) {
		char *words = strndup(m.payload, m.length), *verb = words, *rest = strchr(words, ' '), text[4096] = "";

		if (rest)
			*rest++ = 0;
		else
			rest = verb + strlen(verb);
		if (strcmp(verb, "who") == 0) {
			snprintf(text, sizeof(text), "%u %s %" PRIu64 " %" PRIu64 " %s", mk_kernel_id(k),
				 mk_kernel_name(k), mk_kernel_epoch(k), mk_kernel_budget(k), mk_kernel_cmdline(k));
			say(k, &m, text);
		} else if (strcmp(verb, "counts") == 0) {
			for (unsigned v = 0; v < 64; v++)
				if (counts[v])
					snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%u:%" PRIu64,
						 text[0] ? " " : "", v, counts[v]);
			say(k, &m, text);
		} else if (strcmp(verb, "ask") == 0 || strcmp(verb, "tell") == 0) {
			char *what = strchr(rest, ' ');
			int link;

			*what++ = 0;
			if (strcmp(verb, "ask") == 0) {
				ask(k, &m, rest, what);
			} else {
				link = link_to(k, rest);
				mk_kernel_send(k, link, MK_MSG_NETWORK, 7, what, strlen(what), -1);
				say(k, &m, "told");
			}
		} else if (strcmp(verb, "poke") == 0) {
			char *what = strchr(rest, ' ');

			*what++ = 0;
			if (mk_kernel_ipi(k, link_to(k, rest), (unsigned)atoi(what)))
				say_error(k, &m);
			else
				say(k, &m, "poked");
		} else if (strcmp(verb, "interrupt") == 0) {
			mk_kernel_ipi(k, m.link, (unsigned)atoi(rest));
			say(k, &m, "done");
		} else if (strcmp(verb, "first") == 0) {
			mk_kernel_send(k, m.link, MK_MSG_USER, 0, "one", 3, -1);
			mk_kernel_send(k, m.link, MK_MSG_NETWORK, 3, "two", 3, -1);
			say(k, &m, "three");
		} else if (strcmp(verb, "print") == 0) {
			printf("%s\n", rest);
			say(k, &m, "printed");
		} else if (strcmp(verb, "exit") == 0) {
			result = atoi(rest);
			free(words);
			return mk_kernel_exit(k, result);
		} else if (strcmp(verb, "crash") == 0 && !m.redelivered) {
			crash();
		} else if (strcmp(verb, "memory") == 0) {
			void *memory;

			if (mk_kernel_memory(k, rest, 4096, &memory) < 0) {
				say_error(k, &m);
			} else {
				snprintf(text, sizeof(text), "%" PRIu64, ++*(uint64_t *)memory);
				say(k, &m, text);
			}
		} else if (strcmp(verb, "readlink") == 0) {
			if (readlink(rest, text, sizeof(text) - 1) < 0)
				say(k, &m, "(none)");
			else
				say(k, &m, text);
		} else if (strcmp(verb, "private") == 0) {
			snprintf(text, sizeof(text), "%d", private_kib());
			say(k, &m, text);
		} else if (strcmp(verb, "param") == 0) {
			const char *value = mk_kernel_param(k, rest);

			say(k, &m, value ? value : "(none)");
		} else if (strcmp(verb, "initrd") == 0) {
			size_t length;
			const void *data = mk_kernel_initrd(k, *rest ? rest : NULL, &length);

			if (data)
				mk_kernel_reply(k, &m, data, length);
			else
				say(k, &m, "(none)");
		} else if (strcmp(verb, "panic") == 0) {
			size_t length;
			const char *report = mk_kernel_panic(k, &length);

			if (report)
				mk_kernel_reply(k, &m, report, length);
			else
				say(k, &m, "(none)");
		} else if (strcmp(verb, "overflow") == 0) {
			overflow(m.length);
		} else if (strcmp(verb, "timers") == 0) {
			wait_for_ticks(k, &m);
		} else if (strcmp(verb, "refused") == 0) {
			mk_kernel_send(k, m.link, MK_MSG_SYSTEM, 0, "", 0, -1);
			say_error(k, &m);
		} else if (strcmp(verb, "nowhere") == 0) {
			mk_kernel_send(k, 1000000, MK_MSG_USER, 0, "", 0, -1);
			say_error(k, &m);
		} else if (strcmp(verb, "getenv") == 0) {
			const char *value = getenv(rest);

			say(k, &m, value ? value : "(none)");
		} else if (strcmp(verb, "spin") == 0) {
			say(k, &m, "spinning");
			for (volatile int on = 1; on;)
				;
		} else if (strcmp(verb, "silence") != 0) {
			mk_kernel_reply_as(k, &m, m.type, m.subtype, m.payload, m.length);
		}
		free(words);
	}
	if (result < 0)
		fprintf(stderr, "peer: %s\n", mk_kernel_error(k));
	return mk_kernel_exit(k, result < 0);
}
