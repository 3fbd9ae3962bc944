/* ours.h: the calls of our own lanes in the form that the loops take. */
#ifndef MULTIKERNEL_BENCH_OURS_H
#define MULTIKERNEL_BENCH_OURS_H

#include "lanes.h"

#define OURS_ELEMENT(size)                                       \
	INLINE bool push_##size(void *tx, const void *message)   \
	{                                                        \
		return done(mk_send_element(tx, message, size)); \
	}                                                        \
	INLINE bool pop_##size(void *rx, void *message)          \
	{                                                        \
		return done(mk_recv_element(rx, message, size)); \
	}

OURS_ELEMENT(8)
OURS_ELEMENT(64)

INLINE bool push_record(void *tx, const void *message)
{
	return done(mk_send(tx, MK_MSG_USER, 0, 0, message, 64));
}

/* A record is read where it lies; the copy is here because the loops of the peers' take one. */
INLINE bool take_record(struct mk_receiver *rx, struct message_64 *message)
{
	struct mk_message m;

	if (!done(mk_peek(rx, &m)))
		return false;
	memcpy(message, m.payload, 64);
	message->words[0] ^= m.length ^ 64; /* a wrong length makes a wrong message */
	return true;
}

INLINE bool pop_record(void *rx, void *message)
{
	if (!take_record(rx, message))
		return false;
	mk_release(rx);
	return true;
}

#endif
