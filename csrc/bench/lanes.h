/* lanes.h: our own lanes for a bench: made before the sides are forked, claimed by them. */
#ifndef MULTIKERNEL_BENCH_LANES_H
#define MULTIKERNEL_BENCH_LANES_H

#include <sys/socket.h>
#include <unistd.h>

#include "loops.h"
#include "multikernel/doorbell.h"
#include "multikernel/lane.h"

struct lane {
	int producer, consumer, sockets[2];
};

/* One lane, or one each way: [0] from left to right, [1] back. */
struct lanes {
	unsigned count;
	struct lane lane[2];
};

INLINE struct lanes *lanes_make(unsigned count, uint64_t capacity, uint32_t element)
{
	struct lanes *lanes = shared_memory(4096);

	lanes->count = count;
	for (unsigned i = 0; i < count; i++) {
		struct lane *lane = &lanes->lane[i];

		lane->producer = mk_lane_object(MK_KIND_PRODUCER, "lane:bench", capacity, element, 0, 0);
		lane->consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:bench", capacity, element, 0, 0);
		if (lane->producer < 0 || lane->consumer < 0 ||
		    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lane->sockets))
			give_up("making a lane");
	}
	return lanes;
}

INLINE void lanes_drop(void *at)
{
	struct lanes *lanes = at;

	for (unsigned i = 0; i < lanes->count; i++) {
		close(lanes->lane[i].producer);
		close(lanes->lane[i].consumer);
		close(lanes->lane[i].sockets[0]);
		close(lanes->lane[i].sockets[1]);
	}
	shared_memory_drop(lanes, 4096);
}

INLINE struct mk_sender *take_sender(const struct lane *lane)
{
	struct mk_sender *tx;

	if (mk_sender_claim(&tx, lane->producer, NULL, NULL) ||
	    mk_sender_attach(tx, lane->consumer, 0, lane->sockets[0], -1, NULL))
		give_up("claiming a sender");
	return tx;
}

INLINE struct mk_receiver *take_receiver(const struct lane *lane)
{
	struct mk_receiver *rx;

	if (mk_receiver_claim(&rx, lane->consumer, NULL, NULL) ||
	    mk_receiver_attach(rx, lane->producer, 0, lane->sockets[1], -1, NULL))
		give_up("claiming a receiver");
	return rx;
}

/* Whether a call did it, or found the ring full or empty. Anything else ends the bench. */
INLINE bool done(int64_t result)
{
	if (result && result != -EAGAIN) {
		errno = (int)-result;
		give_up("a call on a lane");
	}
	return !result;
}

/* The same of a call that returns how many it did. */
INLINE size_t how_many(int64_t result)
{
	if (result > 0)
		return (size_t)result;
	done(result);
	return 0;
}

#endif
