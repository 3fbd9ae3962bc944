/* loops.h: the loops of both sides, the same for every contestant. They are inlined into each, with the calls of its
 * ring, so that nothing but the ring differs.
 */
#ifndef MULTIKERNEL_BENCH_LOOPS_H
#define MULTIKERNEL_BENCH_LOOPS_H

#include <string.h>

#include "harness.h"

#define INLINE static inline __attribute__((always_inline, unused))

struct message_64 {
	uint64_t words[8];
};

INLINE void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("isb");
#endif
}

INLINE bool differ(const void *one, const void *other, size_t size)
{
	uint64_t a, b, difference = 0;

	for (size_t i = 0; i < size; i += 8) {
		memcpy(&a, (const char *)one + i, 8);
		memcpy(&b, (const char *)other + i, 8);
		difference |= a ^ b;
	}
	return difference != 0;
}

typedef bool one_in(void *ring, const void *message);
typedef bool one_out(void *ring, void *message);
typedef size_t some_in(void *ring, const void *messages, size_t count); /* as many as fit; 0: full */
typedef size_t some_out(void *ring, void *messages, size_t count);      /* as many as are there; 0: empty */

INLINE uint64_t send_one_a_call(struct trial *trial, void *ring, one_in *push, size_t size, uint64_t n)
{
	const char *messages = (const char *)prepared(size);
	size_t at = 0;

	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		while (!push(ring, messages + at * size))
			relax();
		if (++at == PREPARED)
			at = 0;
	}
	finished(trial);
	return 0;
}

INLINE uint64_t receive_one_a_call(struct trial *trial, void *ring, one_out *pop, size_t size, uint64_t n)
{
	const char *messages = (const char *)prepared(size);
	struct message_64 got;
	uint64_t wrong = 0;
	size_t at = 0;

	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		while (!pop(ring, &got))
			relax();
		wrong += differ(&got, messages + at * size, size);
		if (++at == PREPARED)
			at = 0;
	}
	finished(trial);
	return wrong;
}

INLINE uint64_t send_batches(struct trial *trial, void *ring, some_in *push, size_t size, uint64_t n)
{
	const char *messages = (const char *)prepared(size);
	size_t at = 0;

	start_together(trial);
	while (n) {
		size_t sent = push(ring, messages + at * size, n < BATCH ? n : BATCH);

		if (!sent)
			relax();
		n -= sent;
		at += sent;
		if (at >= PREPARED)
			at -= PREPARED;
	}
	finished(trial);
	return 0;
}

INLINE uint64_t receive_batches(struct trial *trial, void *ring, some_out *pop, size_t size, uint64_t n)
{
	const char *messages = (const char *)prepared(size);
	struct message_64 got[BATCH];
	uint64_t wrong = 0;
	size_t at = 0;

	start_together(trial);
	while (n) {
		size_t count = pop(ring, got, n < BATCH ? n : BATCH);

		if (!count)
			relax();
		for (size_t i = 0; i < count; i++)
			wrong += differ((const char *)got + i * size, messages + (at + i) * size, size);
		n -= count;
		at += count;
		if (at >= PREPARED)
			at -= PREPARED;
	}
	finished(trial);
	return wrong;
}

/* There and back, one after the other: the left side asks and compares the answer, the right one sends back what it
 * got. Nobody pauses between two looks, as in the loop of the bare line. The time of each is only taken when it is to
 * be recorded: reading the clock takes as long as a near line. */
INLINE uint64_t ask(struct trial *trial, void *out, void *in, one_in *push, one_out *pop, size_t size, uint64_t n)
{
	const char *messages = (const char *)prepared(size);
	bool timed = recording(trial);
	struct message_64 got;
	uint64_t wrong = 0;
	size_t at = 0;

	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t begin = timed ? clock_ns() : 0;

		while (!push(out, messages + at * size))
			;
		while (!pop(in, &got))
			;
		if (timed)
			record(trial, clock_ns() - begin);
		wrong += differ(&got, messages + at * size, size);
		if (++at == PREPARED)
			at = 0;
	}
	finished(trial);
	return wrong;
}

INLINE uint64_t answer(struct trial *trial, void *in, void *out, one_in *push, one_out *pop, size_t size, uint64_t n)
{
	const char *messages = (const char *)prepared(size);
	struct message_64 got;
	uint64_t wrong = 0;
	size_t at = 0;

	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		while (!pop(in, &got))
			;
		while (!push(out, &got))
			;
		wrong += differ(&got, messages + at * size, size);
		if (++at == PREPARED)
			at = 0;
	}
	finished(trial);
	return wrong;
}

#endif
