/* cache_line.c: what one cache line costs from one cpu to another and back: the least that any message can cost.
 *
 * Two pinned threads and one word: this side writes an odd number and waits for the next even one, the other side the
 * other way round. No `pause` in the loops. Prints the nanoseconds of a round trip, of the best of several runs.
 *
 * cc -O2 -pthread cache_line.c -o cache_line && ./cache_line CPU CPU
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
	RUNS = 9,
	ROUNDS = 20000
};

static struct {
	_Alignas(128) _Atomic uint64_t word;
	char rest[120];
} line;

static int pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof set, &set);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void await(uint64_t value)
{
	while (atomic_load_explicit(&line.word, memory_order_acquire) != value)
		;
}

static void *other_side(void *cpu)
{
	if (pin(*(int *)cpu)) {
		perror("sched_setaffinity");
		exit(1);
	}
	for (uint64_t i = 1; i < 2ul * RUNS * ROUNDS; i += 2) {
		await(i);
		atomic_store_explicit(&line.word, i + 1, memory_order_release);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int near, far;
	uint64_t best = UINT64_MAX, word = 0;
	pthread_t thread;

	if (argc != 3)
		return 2;
	near = atoi(argv[1]);
	far = atoi(argv[2]);
	if (pin(near) || pthread_create(&thread, NULL, other_side, &far)) {
		perror("cache_line");
		return 1;
	}
	for (int run = 0; run < RUNS; run++) {
		uint64_t begin = now(), took;

		for (int i = 0; i < ROUNDS; i++, word += 2) {
			atomic_store_explicit(&line.word, word + 1, memory_order_release);
			await(word + 2);
		}
		took = now() - begin;
		if (took < best)
			best = took;
	}
	pthread_join(thread, NULL);
	printf("%.0f\n", (double)best / ROUNDS);
	return 0;
}
