/* rte_ring of DPDK: the inline calls of its header for one producer and one consumer. rte_ring_init is not inline and
 * would need DPDK's libraries, so what it sets for such a ring is set here. */
#include "peers.h"

#if __has_include(<rte_ring.h>)

#include <rte_config.h>

#include <rte_ring.h>

#include "peer_loops.h"

static const char name[] = "rte_ring";

#define RING(element)                                                                                  \
	static const size_t ring_size_##element = 4096 + RING_BYTES;                                   \
	static void *make_##element(void *at)                                                          \
	{                                                                                              \
		struct rte_ring *ring = at;                                                            \
                                                                                                       \
		ring->flags = RING_F_SP_ENQ | RING_F_SC_DEQ;                                           \
		ring->prod.sync_type = ring->cons.sync_type = RTE_RING_SYNC_ST;                        \
		ring->size = RING_BYTES / element;                                                     \
		ring->mask = ring->size - 1;                                                           \
		ring->capacity = ring->mask;                                                           \
		return ring;                                                                           \
	}                                                                                              \
	INLINE bool push_##element(void *ring, const void *message)                                    \
	{                                                                                              \
		return rte_ring_sp_enqueue_elem(ring, (void *)(uintptr_t)message, element) == 0;       \
	}                                                                                              \
	INLINE bool pop_##element(void *ring, void *message)                                           \
	{                                                                                              \
		return rte_ring_sc_dequeue_elem(ring, message, element) == 0;                          \
	}                                                                                              \
	INLINE size_t push_some_##element(void *ring, const void *messages, size_t count)              \
	{                                                                                              \
		return rte_ring_sp_enqueue_burst_elem(ring, messages, element, (unsigned)count, NULL); \
	}                                                                                              \
	INLINE size_t pop_some_##element(void *ring, void *messages, size_t count)                     \
	{                                                                                              \
		return rte_ring_sc_dequeue_burst_elem(ring, messages, element, (unsigned)count, NULL); \
	}                                                                                              \
	PEER_CONTESTANTS(name, element)

RING(8)
RING(64)
PEER_ROUND_TRIP(name, 64)

const struct peer rte_ring_peer = {name, "libdpdk-dev", &one_8, &one_64, &batch_8, &batch_64, &round_trip_64};

#else

const struct peer rte_ring_peer = {.name = "rte_ring", .package = "libdpdk-dev"};

#endif
