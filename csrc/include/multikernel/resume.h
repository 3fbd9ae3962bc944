/* resume.h: a lane outlives an incarnation of its sender or its receiver.
 *
 * An owner that has died leaves two objects that nobody can ever write again: what it sent, and how far it had received.
 * Its successor makes new ones, which go on in the same index space, and the peer maps those in their place. The peer's
 * own objects stay, and so does the socket pair, whose dead side the host holds meanwhile.
 *
 *   the dead D            its successor N                              the peer S
 *   head, final           N1  head = D's head                          S1  due: D is as one that is silent
 *   data                  N2  copies what S has not taken              S2  maps N's objects, checks their indices
 *   tail, final           N3  tail = D's tail                          S3  fence; looks whether N sleeps: rings
 *   seen, taken           N4  hands out its objects, by the host
 *
 * N does not begin to work before the host has told S of it (S2 may be later), and has changed a word (fate) after that.
 * S looks at the word before it publishes, for S2, and once more after it (mk_mind_fate): either it has not changed yet,
 * and N, which begins later, sees what was published when it looks before it sleeps; or S rings the socket, whatever the
 * page of D says. So S does when it has seen the change and does not have N yet, for the host is slow: after S1.
 *
 * Calls are those of an end: for one thread at a time, and not while memory of the lane is lent out. An end that is in
 * wait sets is taken out of them before any of these, and put back after.
 */
#ifndef MULTIKERNEL_RESUME_H
#define MULTIKERNEL_RESUME_H

#include "multikernel/lane.h"

/* --- the successor ---------------------------------------------------------------------------------------------- */

/* Make a sender, new and attached to the peer's object, go on where its predecessor's producer object ends. What the
 * peer has not released is copied: up to the lane's capacity, in bytes.
 * @param predecessor  read-only; still the caller's afterwards
 * @return 0; -EINVAL: it has sent, or is not attached; -EPROTO and *why: not the object of an earlier incarnation of the
 *         same owner; -EBADMSG: indices that cannot be, the lane is quarantined; -errno */
MK_API int mk_sender_succeed(struct mk_sender *tx, int predecessor, uint32_t *why);

/* The same for a receiver: what its predecessor had not released is next, IPIs that it had taken are not pending. */
MK_API int mk_receiver_succeed(struct mk_receiver *rx, int predecessor, uint32_t *why);

/* Whether a predecessor had handed the record that was peeked at last to the program. */
static inline bool mk_redelivered(const struct mk_receiver *rx)
{
	return (int64_t)(rx->seen_before - rx->next) >= 0; /* a difference, since indices may wrap */
}

/* Say, before it is handed out, that all that was peeked at is in the program's hands. For who releases it later: should
 * he die before, his successor knows. */
static inline void mk_say_seen(struct mk_receiver *rx)
{
	if (mk_redelivered(rx)) /* that stands there already, and more */
		return;
	/* Release: nothing of what the program does with it comes before. Read when the writer is dead. */
	mk_store_release(&rx->own->seen, rx->next);
}

/* --- its peer ----------------------------------------------------------------------------------------------------- */

/* The peer is dead, and a successor is due: take it for one that is silent. Messages go on until the ring is full, what
 * it had sent is received, and waits sleep until the socket is rung or hung up: then the end says that the peer is gone,
 * as at first. Closes the pidfd. */
MK_API void mk_end_due(struct mk_end *end);

/* Go on with a successor of the peer, which may be alive or dead by now.
 * @param consumer, producer  the successor's object, read-only; still the caller's afterwards
 * @param pidfd               of the successor, owned by the end from now on; -1: it has ended, and another one is due
 * @return 0; -EPROTO and *why: not the object of a later incarnation of the same owner; -EBADMSG: indices that cannot be,
 *         the lane is quarantined; -errno. After an error the pidfd still belongs to the caller, and the end is as before. */
MK_API int mk_sender_resume(struct mk_sender *tx, int consumer, int pidfd, uint32_t *why);
MK_API int mk_receiver_resume(struct mk_receiver *rx, int producer, int pidfd, uint32_t *why);

/* Look at this word with each message, from now on. It must stay mapped for as long as the end is used. */
static inline void mk_watch_fate(struct mk_end *end, const _Atomic uint32_t *fate)
{
	end->fate = fate;
	end->fate_seen = fate ? mk_load_acquire(fate) : 0;
}

/* Ring the other side of the socket pair, parked or not. */
MK_API void mk_ring_socket(struct mk_end *end);

/* Whether the host has published something of the peer since the last mk_watch_fate. Pairs with the host's stores in
 * mk_latch_write. */
static inline bool mk_fate_changed(const struct mk_end *end)
{
	return mk_unlikely(end->fate && mk_load_acquire(end->fate) != end->fate_seen);
}

/* After publishing. The load may be satisfied before what was published is visible, as that of mk_notify may, and for the
 * same reason nothing is lost: N's W7 (doorbell.h) comes after the change of the word. */
static inline void mk_mind_fate(struct mk_end *end)
{
	atomic_signal_fence(memory_order_seq_cst); /* keeps the compiler from exchanging the two */
	if (mk_fate_changed(end) || mk_unlikely(end->due))
		mk_ring_socket(end);
}

#endif
