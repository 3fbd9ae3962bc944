/* harness.h: what every test program here needs. A test is a function whose name is a sentence; a program is a table of
 * them. Each runs in a process of its own under a ceiling against hanging, and must leave no descriptor and no mapping
 * of a memory object behind.
 *
 *     build/plain/test_lane                 all of them
 *     build/plain/test_lane a_record_...    those that are named
 *     MK_SEED=7 MK_STRESS=20 ...            other random numbers; twenty times as long
 *     MK_CEILING=10 ...                     give up on a test that hangs after so many seconds
 */
#ifndef MULTIKERNEL_TESTS_HARNESS_H
#define MULTIKERNEL_TESTS_HARNESS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "multikernel/doorbell.h"
#include "multikernel/lane.h"

#define CEILING_SECONDS 180u /* for one test at its default length; only against hanging */
#define SKIPPED 77

#if defined(__SANITIZE_THREAD__)
#define SLOWNESS 10
#elif defined(__SANITIZE_ADDRESS__)
#define SLOWNESS 3
#else
#define SLOWNESS 1
#endif

#ifdef __SANITIZE_THREAD__
#define UNDER_TSAN true
#else
#define UNDER_TSAN false
#endif

#define UNUSED __attribute__((unused))

/* --- checking --------------------------------------------------------------------------------------------------- */

static UNUSED uint64_t test_seed; /* of the running test */

static UNUSED _Noreturn void fail(const char *file, int line, const char *what, int64_t left, int64_t right,
				  bool values)
{
	fprintf(stderr, "%s:%d: not so: %s", file, line, what);
	if (values)
		fprintf(stderr, " (%" PRId64 " and %" PRId64 ", %#" PRIx64 " and %#" PRIx64 ")", left, right,
			(uint64_t)left, (uint64_t)right);
	fprintf(stderr, "; MK_SEED=%" PRIu64 "\n", test_seed);
	_exit(1);
}

#define CHECK(condition)                                                   \
	do {                                                               \
		if (!(condition))                                          \
			fail(__FILE__, __LINE__, #condition, 0, 0, false); \
	} while (0)

#define CHECK_EQ(left, right)                                                                         \
	do {                                                                                          \
		int64_t left_value = (int64_t)(left), right_value = (int64_t)(right);                 \
		if (left_value != right_value)                                                        \
			fail(__FILE__, __LINE__, #left " == " #right, left_value, right_value, true); \
	} while (0)

/* The call failed with this errno. */
#define CHECK_ERRNO(call, expected)                                                                            \
	do {                                                                                                   \
		errno = 0;                                                                                     \
		int64_t got_result = (int64_t)(call);                                                          \
		int got_errno = errno;                                                                         \
		if (got_result != -1 || got_errno != (expected))                                               \
			fail(__FILE__, __LINE__, #call " fails with " #expected, got_result, got_errno, true); \
	} while (0)

#define SKIP_REASON_SIZE 256

static UNUSED char *skip_reason; /* shared with the process that runs the tests */

static UNUSED _Noreturn void skip(const char *why)
{
	if (skip_reason)
		snprintf(skip_reason, SKIP_REASON_SIZE, "%s", why);
	_exit(SKIPPED);
}

/* --- random numbers (splitmix64), amounts --------------------------------------------------------------------------- */

struct random {
	uint64_t state;
};

static UNUSED uint64_t draw(struct random *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static UNUSED uint64_t below(struct random *r, uint64_t limit)
{
	return draw(r) % limit;
}

static UNUSED struct random random_from(uint64_t stream)
{
	struct random r = {test_seed * 0x100000001b3u + stream};

	draw(&r);
	return r;
}

/* How often to repeat: less under a sanitizer, more by MK_STRESS. */
static UNUSED uint64_t times(uint64_t normal)
{
	const char *factor = getenv("MK_STRESS");
	uint64_t n = normal / SLOWNESS * (factor ? strtoull(factor, NULL, 10) : 1);

	return n ? n : 1;
}

/* Keep the core busy for about this long: it puts events at other distances, nothing waits for it. */
static UNUSED void dawdle(uint64_t ns)
{
	uint64_t until = mk_now() + ns;

	while (ns && mk_now() < until)
		mk_pause();
}

/* --- processes -------------------------------------------------------------------------------------------------- */

static UNUSED pid_t spawn(void (*run)(void *), void *argument)
{
	pid_t parent = getpid();

	fflush(NULL);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
	if (getppid() != parent)
		_exit(1);
	run(argument);
	_exit(0);
}

static UNUSED int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		CHECK_EQ(errno, EINTR);
	return status;
}

static UNUSED void reap_done(pid_t pid)
{
	int status = reap(pid);

	if (WIFSIGNALED(status))
		fprintf(stderr, "child ended by signal %d\n", WTERMSIG(status));
	CHECK_EQ(status, 0);
}

/* This process and its children take turns on one core: two that go step by step hand over far quicker so, since no
 * other core has to be woken. */
static UNUSED void stay_on_one_core(void)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET((unsigned)sched_getcpu(), &here);
	CHECK_EQ(sched_setaffinity(0, sizeof(here), &here), 0);
}

/* What a child says when it is where it should be: order comes from messages, not from sleeping. */
static UNUSED void say(int fd)
{
	CHECK_EQ(write(fd, "!", 1), 1);
}

static UNUSED void hear(int fd)
{
	char byte;
	ssize_t got;

	while ((got = read(fd, &byte, 1)) < 0)
		CHECK_EQ(errno, EINTR);
	CHECK_EQ(got, 1);
}

/* Memory that a child shares, for results. */
static UNUSED void *shared(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

/* Run it in a child with the sanitizers' handlers off. @return the signal that ended it, 0: none */
static UNUSED int signal_of(void (*run)(void *), void *argument)
{
	struct rlimit none = {0};

	fflush(NULL);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &none);
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		run(argument);
		_exit(0);
	}
	int status = reap(pid);

	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* --- lanes ------------------------------------------------------------------------------------------------------ */

/* A ring as a binding makes it: two unclaimed objects and a socket pair, whose ends may be taken by whoever has them. */
struct ring {
	int producer, consumer;
	int sockets[2]; /* the sender's, the receiver's */
};

static UNUSED struct ring ring_new(uint64_t capacity, uint32_t element)
{
	struct ring ring;

	ring.producer = mk_lane_object(MK_KIND_PRODUCER, "lane:test", capacity, element, 0, 0);
	ring.consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:test", capacity, element, 0, 0);
	CHECK(ring.producer >= 0 && ring.consumer >= 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ring.sockets), 0);
	return ring;
}

/* Both indices begin here. */
static UNUSED void ring_start_at(const struct ring *ring, uint64_t position)
{
	CHECK_EQ(pwrite(ring->producer, &position, 8, offsetof(struct mk_producer, head)), 8);
	CHECK_EQ(pwrite(ring->consumer, &position, 8, offsetof(struct mk_consumer, tail)), 8);
}

static UNUSED void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Drop what this process still holds. */
static UNUSED void ring_drop(struct ring *ring)
{
	close_one(&ring->producer);
	close_one(&ring->consumer);
	close_one(&ring->sockets[0]);
	close_one(&ring->sockets[1]);
}

static UNUSED struct mk_sender *ring_sender(struct ring *ring)
{
	struct mk_sender *tx;
	int reader = mk_object_reopen(ring->consumer);

	CHECK_EQ(mk_sender_claim(&tx, ring->producer, NULL, NULL), 0);
	CHECK_EQ(mk_sender_attach(tx, reader, 0, ring->sockets[0], -1, NULL), 0);
	ring->sockets[0] = -1;
	close(reader);
	return tx;
}

static UNUSED struct mk_receiver *ring_receiver(struct ring *ring)
{
	struct mk_receiver *rx;
	int reader = mk_object_reopen(ring->producer);

	CHECK_EQ(mk_receiver_claim(&rx, ring->consumer, NULL, NULL), 0);
	CHECK_EQ(mk_receiver_attach(rx, reader, 0, ring->sockets[1], -1, NULL), 0);
	ring->sockets[1] = -1;
	close(reader);
	return rx;
}

/* Take an end in a process that was forked for it: the other side's socket is closed there. */
static UNUSED struct mk_sender *child_sender(struct ring *ring)
{
	struct mk_sender *tx = ring_sender(ring);

	ring_drop(ring);
	return tx;
}

static UNUSED struct mk_receiver *child_receiver(struct ring *ring)
{
	struct mk_receiver *rx = ring_receiver(ring);

	ring_drop(ring);
	return rx;
}

/* Both ends in this process. */
struct both {
	struct mk_sender *tx;
	struct mk_receiver *rx;
};

static UNUSED struct both both_at(uint64_t capacity, uint32_t element, uint64_t position)
{
	struct ring ring = ring_new(capacity, element);
	struct both both;

	ring_start_at(&ring, position);
	both.tx = ring_sender(&ring);
	both.rx = ring_receiver(&ring);
	ring_drop(&ring);
	return both;
}

static UNUSED struct both both_new(uint64_t capacity, uint32_t element)
{
	return both_at(capacity, element, 0);
}

static UNUSED void both_close(struct both *both)
{
	mk_sender_close(both->tx);
	mk_receiver_close(both->rx);
	both->tx = NULL;
	both->rx = NULL;
}

/* A wait that a signal or a spinning policy interrupts goes on. */
static UNUSED int wait_on(struct mk_end *end)
{
	int result;

	while ((result = mk_wait(end, -1)) == -EINTR)
		;
	return result;
}

static UNUSED int send_waiting(struct mk_sender *tx, uint64_t id, const void *payload, uint64_t length)
{
	int result;

	while ((result = mk_send(tx, MK_MSG_USER, 0, id, payload, length)) == -EAGAIN)
		CHECK_EQ(wait_on(&tx->end), 0);
	return result;
}

/* Of a send: it is well if it is the last one that the other side waits for, and that has taken it and closed before we
 * looked whether it sleeps. */
static UNUSED void check_sent(int result, bool last)
{
	if (!last || result != -EPIPE)
		CHECK_EQ(result, 0);
}

static UNUSED int peek_waiting(struct mk_receiver *rx, struct mk_message *message)
{
	int result;

	while ((result = mk_peek(rx, message)) == -EAGAIN)
		CHECK_EQ(wait_on(&rx->end), 0);
	return result;
}

/* Contents that follow from a number, so that every byte of every message can be checked. */
static UNUSED unsigned char byte_of(uint64_t number, uint64_t at)
{
	return (unsigned char)((number * 0x9e3779b97f4a7c15u >> (at % 57)) + at * 31);
}

static UNUSED void fill_bytes(void *to, uint64_t number, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		((unsigned char *)to)[i] = byte_of(number, i);
}

static UNUSED bool bytes_are(const void *from, uint64_t number, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		if (((const unsigned char *)from)[i] != byte_of(number, i))
			return false;
	return true;
}

/* --- running ---------------------------------------------------------------------------------------------------- */

struct test {
	const char *name;
	void (*run)(void);
};

#define TEST(name) {#name, name}

static UNUSED int open_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int n = 0;

	CHECK(directory);
	while (readdir(directory))
		n++;
	closedir(directory);
	return n;
}

static UNUSED int mapped_objects(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	int n = 0;

	CHECK(maps);
	while (fgets(line, sizeof(line), maps))
		n += strstr(line, "/memfd:") != NULL;
	fclose(maps);
	return n;
}

static UNUSED void run_one(void *argument)
{
	const struct test *test = argument;
	const char *factor = getenv("MK_STRESS");
	const char *ceiling = getenv("MK_CEILING");
	int descriptors = open_descriptors();
	int objects = mapped_objects();

	alarm((ceiling ? (unsigned)strtoul(ceiling, NULL, 10) : CEILING_SECONDS) *
	      (factor ? (unsigned)strtoul(factor, NULL, 10) + 1 : 1));
	test->run();
	CHECK_EQ(open_descriptors(), descriptors);
	CHECK_EQ(mapped_objects(), objects);
	fflush(NULL);
	exit(0); /* not _exit: a sanitizer looks for leaks on the way */
}

static UNUSED int run_tests(const struct test *tests, size_t count, int argc, char **argv)
{
	size_t passed = 0, skipped = 0, failed = 0;
	const char *seed = getenv("MK_SEED");

	skip_reason = shared(SKIP_REASON_SIZE);
	test_seed = seed ? strtoull(seed, NULL, 10) : 1;
	signal(SIGPIPE, SIG_DFL); /* whatever we inherited: the core must never raise it */
	for (size_t i = 0; i < count; i++) {
		bool wanted = argc < 2;

		for (int a = 1; a < argc; a++)
			wanted |= strcmp(argv[a], tests[i].name) == 0;
		if (!wanted)
			continue;
		int status = reap(spawn(run_one, (void *)(uintptr_t)&tests[i]));

		if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
			passed++;
			printf("ok    %s\n", tests[i].name);
		} else if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
			skipped++;
			printf("skip  %s: %s\n", tests[i].name, skip_reason);
		} else {
			failed++;
			printf("FAIL  %s: %s %d%s\n", tests[i].name, WIFSIGNALED(status) ? "signal" : "status",
			       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
			       WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? " (it hangs)" : "");
		}
	}
	if (skipped && !passed && !failed) { /* the last line says why */
		printf("%s\n", skip_reason);
		return SKIPPED;
	}
	printf("%zu passed, %zu failed, %zu skipped\n", passed, failed, skipped);
	return failed || !passed;
}

#define RUN_TESTS(tests)                                                                 \
	int main(int argc, char **argv)                                                  \
	{                                                                                \
		return run_tests(tests, sizeof(tests) / sizeof((tests)[0]), argc, argv); \
	}

#endif
