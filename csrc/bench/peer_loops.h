/* peer_loops.h: from a ring's four calls to its contestants. A ring of a peer lies in memory that both sides share.
 *
 * PEER_CONTESTANTS(size, make_one) defines one_SIZE and batch_SIZE from push_SIZE, pop_SIZE, push_some_SIZE and
 * pop_some_SIZE; PEER_ROUND_TRIP(size) round_trip_SIZE from the first two. make_SIZE makes one ring of ring_size_SIZE
 * bytes.
 */
#ifndef MULTIKERNEL_BENCH_PEER_LOOPS_H
#define MULTIKERNEL_BENCH_PEER_LOOPS_H

#include "loops.h"

/* No calls for many at once: one after the other. */
#define PEER_SOME_BY_ONE(size)                                                            \
	INLINE size_t push_some_##size(void *ring, const void *messages, size_t count)    \
	{                                                                                 \
		size_t i = 0;                                                             \
                                                                                          \
		while (i < count && push_##size(ring, (const char *)messages + i * size)) \
			i++;                                                              \
		return i;                                                                 \
	}                                                                                 \
	INLINE size_t pop_some_##size(void *ring, void *messages, size_t count)           \
	{                                                                                 \
		size_t i = 0;                                                             \
                                                                                          \
		while (i < count && pop_##size(ring, (char *)messages + i * size))        \
			i++;                                                              \
		return i;                                                                 \
	}

#define PEER_CONTESTANTS(peer, size)                                                                                   \
	static void *make_one_##size(void)                                                                             \
	{                                                                                                              \
		return make_##size(shared_memory(ring_size_##size));                                                   \
	}                                                                                                              \
	static void drop_##size(void *ring)                                                                            \
	{                                                                                                              \
		shared_memory_drop(ring, ring_size_##size);                                                            \
	}                                                                                                              \
	static uint64_t send_##size(struct trial *trial, void *ring, uint64_t n)                                       \
	{                                                                                                              \
		return send_one_a_call(trial, ring, push_##size, size, n);                                             \
	}                                                                                                              \
	static uint64_t receive_##size(struct trial *trial, void *ring, uint64_t n)                                    \
	{                                                                                                              \
		return receive_one_a_call(trial, ring, pop_##size, size, n);                                           \
	}                                                                                                              \
	static uint64_t send_batches_##size(struct trial *trial, void *ring, uint64_t n)                               \
	{                                                                                                              \
		return send_batches(trial, ring, push_some_##size, size, n);                                           \
	}                                                                                                              \
	static uint64_t receive_batches_##size(struct trial *trial, void *ring, uint64_t n)                            \
	{                                                                                                              \
		return receive_batches(trial, ring, pop_some_##size, size, n);                                         \
	}                                                                                                              \
	static const struct contestant one_##size = {peer, make_one_##size, drop_##size, send_##size, receive_##size}; \
	static const struct contestant batch_##size = {peer, make_one_##size, drop_##size, send_batches_##size,        \
						       receive_batches_##size};

#define PEER_ROUND_TRIP(peer, size)                                                                               \
	static void *make_pair_##size(void)                                                                       \
	{                                                                                                         \
		char *both = (char *)shared_memory(2 * ring_size_##size);                                         \
                                                                                                                  \
		make_##size(both);                                                                                \
		make_##size(both + ring_size_##size);                                                             \
		return both;                                                                                      \
	}                                                                                                         \
	static void drop_pair_##size(void *both)                                                                  \
	{                                                                                                         \
		shared_memory_drop(both, 2 * ring_size_##size);                                                   \
	}                                                                                                         \
	static uint64_t ask_##size(struct trial *trial, void *both, uint64_t n)                                   \
	{                                                                                                         \
		return ask(trial, both, (char *)both + ring_size_##size, push_##size, pop_##size, size, n);       \
	}                                                                                                         \
	static uint64_t answer_##size(struct trial *trial, void *both, uint64_t n)                                \
	{                                                                                                         \
		return answer(trial, both, (char *)both + ring_size_##size, push_##size, pop_##size, size, n);    \
	}                                                                                                         \
	static const struct contestant round_trip_##size = {peer, make_pair_##size, drop_pair_##size, ask_##size, \
							    answer_##size};

#endif
