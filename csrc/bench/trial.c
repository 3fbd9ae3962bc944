/* trial.c: see trial.h, and harness.h for what a side calls. */
#include "trial.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CEILING_SECONDS 20u /* for one run; only against hanging */

struct trial { /* shared by both sides */
	_Alignas(128) _Atomic unsigned here;
	_Alignas(128) _Atomic uint64_t begun[2], ended[2];
	_Alignas(128) _Atomic uint64_t sent; /* when the message was that is on its way */
	uint64_t ways[2];                    /* ns, of all that a side got */
	uint64_t wrong[2];
	bool recording;
	struct mk_histogram histogram;
};

static int this_side; /* 0 left, 1 right: set in each side's process */

void give_up(const char *what)
{
	fprintf(stderr, "bench: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
	_exit(1);
}

uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void *shared_memory(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (at == MAP_FAILED)
		give_up("shared memory");
	return at;
}

void shared_memory_drop(void *at, size_t size)
{
	munmap(at, size);
}

const void *prepared(size_t size)
{
	static _Alignas(64) uint64_t words[2][(PREPARED + BATCH) * 8];
	uint64_t *messages = words[size == 64];

	if (!messages[0])
		for (size_t i = 0; i < (PREPARED + BATCH) * size / 8; i++)
			messages[i] = (i % (PREPARED * size / 8) + 1) * 0x9e3779b97f4a7c15u;
	return messages;
}

void start_together(struct trial *trial)
{
	atomic_fetch_add(&trial->here, 1);
	while (atomic_load(&trial->here) < 2)
		;
	atomic_store(&trial->begun[this_side], clock_ns());
}

void finished(struct trial *trial)
{
	atomic_store(&trial->ended[this_side], clock_ns());
}

bool recording(const struct trial *trial)
{
	return trial->recording;
}

void record(struct trial *trial, uint64_t ns)
{
	mk_histogram_record(&trial->histogram, ns);
}

void on_its_way(struct trial *trial)
{
	mk_store_relaxed(&trial->sent, clock_ns());
}

void arrived(struct trial *trial)
{
	uint64_t ns = clock_ns() - mk_load_relaxed(&trial->sent);

	trial->ways[this_side] += ns;
	if (trial->recording) /* one at a time is on its way, so the sides take turns */
		mk_histogram_record(&trial->histogram, ns);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		give_up("pinning to a cpu");
}

static pid_t start_side(int side, int cpu, struct trial *trial, const struct contestant *c, void *lane, uint64_t n)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid < 0)
		give_up("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	alarm(CEILING_SECONDS);
	pin(cpu);
	this_side = side;
	trial->wrong[side] = (side ? c->right : c->left)(trial, lane, n);
	_exit(0);
}

uint64_t run(const struct contestant *c, const int *cpus, uint64_t n, struct mk_histogram *histogram)
{
	struct trial *trial = shared_memory(sizeof(*trial));
	void *lane = c->make ? c->make() : NULL;
	uint64_t result = 0;
	pid_t pids[2];
	bool failed = false;

	trial->recording = histogram != NULL;
	for (int side = 0; side < 2; side++)
		pids[side] = start_side(side, cpus[side], trial, c, lane, n);
	for (int i = 0; i < 2; i++) {
		int status;
		pid_t ended = waitpid(-1, &status, 0);

		if (ended < 0)
			give_up("waiting for a side");
		if (!status || failed)
			continue;
		failed = true; /* the other one would wait for it for ever */
		fprintf(stderr, "bench: %s: a side ended with %s %d\n", c->name,
			WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		kill(pids[ended == pids[0]], SIGKILL);
	}
	if (!failed && !trial->wrong[0] && !trial->wrong[1]) {
		uint64_t begin = trial->begun[trial->begun[1] > trial->begun[0]];

		result = trial->ways[0] + trial->ways[1];
		if (!result)
			result = trial->ended[trial->ended[1] > trial->ended[0]] - begin;
		if (histogram)
			mk_histogram_merge(histogram, &trial->histogram);
	}
	if (c->drop)
		c->drop(lane);
	shared_memory_drop(trial, sizeof(*trial));
	return result;
}
