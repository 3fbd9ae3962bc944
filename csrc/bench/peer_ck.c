/* ck_ring of Concurrency Kit: its single-producer, single-consumer calls. */
#include "peers.h"

#if __has_include(<ck_ring.h>)

#include <ck_ring.h>

#include "peer_loops.h"

static const char name[] = "ck_ring";

struct message_8 {
	uint64_t word;
};

CK_RING_PROTOTYPE(of_8, message_8)
CK_RING_PROTOTYPE(of_64, message_64)

#define BUFFER 256 /* where the slots begin, behind the indices */

#define RING(size)                                                                                    \
	static const size_t ring_size_##size = 4096 + RING_BYTES;                                     \
	static void *make_##size(void *at)                                                            \
	{                                                                                             \
		ck_ring_init(at, RING_BYTES / size);                                                  \
		return at;                                                                            \
	}                                                                                             \
	INLINE bool push_##size(void *ring, const void *message)                                      \
	{                                                                                             \
		return CK_RING_ENQUEUE_SPSC(of_##size, (ck_ring_t *)ring,                             \
					    (struct message_##size *)(void *)((char *)ring + BUFFER), \
					    (struct message_##size *)(uintptr_t)message);             \
	}                                                                                             \
	INLINE bool pop_##size(void *ring, void *message)                                             \
	{                                                                                             \
		return CK_RING_DEQUEUE_SPSC(of_##size, (ck_ring_t *)ring,                             \
					    (struct message_##size *)(void *)((char *)ring + BUFFER), \
					    (struct message_##size *)message);                        \
	}                                                                                             \
	PEER_SOME_BY_ONE(size)                                                                        \
	PEER_CONTESTANTS(name, size)

RING(8)
RING(64)
PEER_ROUND_TRIP(name, 64)

const struct peer ck_ring_peer = {name, "libck-dev", &one_8, &one_64, &batch_8, &batch_64, &round_trip_64};

#else

const struct peer ck_ring_peer = {.name = "ck_ring", .package = "libck-dev"};

#endif
