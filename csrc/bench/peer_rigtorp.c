/* What Erik Rigtorp's SPSCQueue does (https://github.com/rigtorp/SPSCQueue), written anew in C and for memory that two
 * processes share: an index a side, each on a line of its own beside a copy of the other's, which is loaded again only
 * when it says full or empty; one slot stays free. Nothing pauses, nothing is fetched ahead. */
#include <stdatomic.h>

#include "peer_loops.h"
#include "peers.h"

static const char name[] = "rigtorp-like";

struct indices {
	_Alignas(128) _Atomic size_t write;
	size_t read_seen;
	_Alignas(128) _Atomic size_t read;
	size_t write_seen;
	_Alignas(128) char slots[];
};

INLINE bool push(struct indices *ring, const void *message, size_t size, size_t slots)
{
	size_t at = atomic_load_explicit(&ring->write, memory_order_relaxed);
	size_t next = at + 1 == slots ? 0 : at + 1;

	if (next == ring->read_seen) {
		/* Pairs with the release store in pop: the slot has been read. */
		ring->read_seen = atomic_load_explicit(&ring->read, memory_order_acquire);
		if (next == ring->read_seen)
			return false;
	}
	memcpy(ring->slots + at * size, message, size);
	atomic_store_explicit(&ring->write, next, memory_order_release);
	return true;
}

INLINE bool pop(struct indices *ring, void *message, size_t size, size_t slots)
{
	size_t at = atomic_load_explicit(&ring->read, memory_order_relaxed);

	if (at == ring->write_seen) {
		/* Pairs with the release store in push: the slot has been written. */
		ring->write_seen = atomic_load_explicit(&ring->write, memory_order_acquire);
		if (at == ring->write_seen)
			return false;
	}
	memcpy(message, ring->slots + at * size, size);
	atomic_store_explicit(&ring->read, at + 1 == slots ? 0 : at + 1, memory_order_release);
	return true;
}

#define RING(size)                                                                                                \
	static const size_t ring_size_##size = (sizeof(struct indices) + RING_BYTES + size + 4095) / 4096 * 4096; \
	static void *make_##size(void *at) /* zeros will do */                                                    \
	{                                                                                                         \
		return at;                                                                                        \
	}                                                                                                         \
	INLINE bool push_##size(void *ring, const void *message)                                                  \
	{                                                                                                         \
		return push(ring, message, size, RING_BYTES / size + 1);                                          \
	}                                                                                                         \
	INLINE bool pop_##size(void *ring, void *message)                                                         \
	{                                                                                                         \
		return pop(ring, message, size, RING_BYTES / size + 1);                                           \
	}                                                                                                         \
	PEER_SOME_BY_ONE(size)                                                                                    \
	PEER_CONTESTANTS(name, size)

RING(8)
RING(64)
PEER_ROUND_TRIP(name, 64)

const struct peer rigtorp_like = {name, NULL, &one_8, &one_64, &batch_8, &batch_64, &round_trip_64};
