// boost::lockfree::spsc_queue, of a fixed capacity: its memory holds no pointers.
#include <boost/lockfree/spsc_queue.hpp>

#include <new>

#include "peer_loops.h"
#include "peers.h"

static const char name[] = "boost::lockfree::spsc_queue";

struct message_8 {
	uint64_t word;
};

#define RING(size)                                                                                                     \
	typedef boost::lockfree::spsc_queue<message_##size, boost::lockfree::capacity<RING_BYTES / size>> queue_##size; \
	static const size_t ring_size_##size = (sizeof(queue_##size) + 4095) / 4096 * 4096;                            \
	static void *make_##size(void *at)                                                                             \
	{                                                                                                              \
		return new (at) queue_##size;                                                                          \
	}                                                                                                              \
	INLINE bool push_##size(void *ring, const void *message)                                                       \
	{                                                                                                              \
		return ((queue_##size *)ring)->push(*(const message_##size *)message);                                 \
	}                                                                                                              \
	INLINE bool pop_##size(void *ring, void *message)                                                              \
	{                                                                                                              \
		return ((queue_##size *)ring)->pop(*(message_##size *)message);                                        \
	}                                                                                                              \
	INLINE size_t push_some_##size(void *ring, const void *messages, size_t count)                                 \
	{                                                                                                              \
		return ((queue_##size *)ring)->push((const message_##size *)messages, count);                          \
	}                                                                                                              \
	INLINE size_t pop_some_##size(void *ring, void *messages, size_t count)                                        \
	{                                                                                                              \
		return ((queue_##size *)ring)->pop((message_##size *)messages, count);                                 \
	}                                                                                                              \
	PEER_CONTESTANTS(name, size)

RING(8)
RING(64)
PEER_ROUND_TRIP(name, 64)

extern "C" const struct peer boost_spsc_queue = {name,     "libboost-dev", &one_8,         &one_64,
						 &batch_8, &batch_64,      &round_trip_64};
