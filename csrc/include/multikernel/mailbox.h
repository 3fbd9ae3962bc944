/* mailbox.h: fan-in. One receiver, many senders, each with a lane of its own.
 *
 * A sender of a mailbox is the sender of a lane and knows of no other. What is here is the receiving side: whose
 * turn it is, and one wait for all. Lanes come at any time and go when their sender has gone and all that it had
 * sent was taken, so a sender that dies in the middle of a record costs the others nothing.
 *
 * Turns go round. A lane that has its turn is taken from until it is empty, MK_TURN_RECORDS records or
 * MK_TURN_BYTES bytes have come: with n lanes a record is taken after at most (n - 1) turns of others, whatever they
 * send.
 */
#ifndef MULTIKERNEL_MAILBOX_H
#define MULTIKERNEL_MAILBOX_H

#include "multikernel/lane.h"

#define MK_TURN_RECORDS 64u
#define MK_TURN_BYTES 65536u

struct mk_mailbox;

/* @param policy  enum mk_wait_policy, of every wait. @param interpreted  see mk_end.interpreted
 * @return a mailbox without lanes; NULL: errno says why */
MK_API struct mk_mailbox *mk_mailbox_new(uint8_t policy, bool interpreted);

/* Close every lane: their senders get -EPIPE. Idempotent. In a forked copy it only lets go of what the copy has. */
MK_API void mk_mailbox_close(struct mk_mailbox *box);
MK_API void mk_mailbox_free(struct mk_mailbox *box);

/* Add a lane: a receiver of records that is attached. It belongs to the mailbox from then on, its IPIs are masked.
 * @param number  what its sender is called. @return 0; -EEXIST: one is called so; -EINVAL; -errno */
MK_API int mk_mailbox_add(struct mk_mailbox *box, struct mk_receiver *rx, uint32_t number);

/* Watch a descriptor by which news of more lanes comes; it stays the caller's. @return 0 or -errno */
MK_API int mk_mailbox_watch(struct mk_mailbox *box, int fd);
MK_API void mk_mailbox_unwatch(struct mk_mailbox *box, int fd);

/* Look at the next records of the lane whose turn it is. mk_mailbox_release gives their space back,
 * mk_mailbox_unpeek makes them the next again; without either, the next peek does that.
 * @param limit   most records, >= 1
 * @param number  whose they are
 * @return how many; 0: look at the watched descriptors first; -EAGAIN: there is none; -EPIPE: and there will be
 *         none, since there is neither a lane nor a watched descriptor; -EBADMSG: the lane of *number was
 *         quarantined, and is closed now */
MK_API int mk_mailbox_peek(struct mk_mailbox *box, struct mk_message *messages, unsigned limit, uint32_t *number);
MK_API void mk_mailbox_release(struct mk_mailbox *box);

/* After 0 of a peek, for who did not look at the watched descriptors: the next peek says it again. */
MK_API void mk_mailbox_remind(struct mk_mailbox *box);
MK_API void mk_mailbox_unpeek(struct mk_mailbox *box);

/* Wait until a lane has something or has ended, or a watched descriptor is readable. Times as for mk_wait.
 * @param goes_on  it is the wait that came back with -EINTR, made again
 * @return 0; -ETIMEDOUT; -EINTR; -EPIPE: there is nothing to wait for */
MK_API int mk_mailbox_wait(struct mk_mailbox *box, int64_t timeout_ns, bool goes_on);

/* How many records wait, in all lanes, that were not peeked at. Walks over them. */
MK_API uint64_t mk_mailbox_waiting(const struct mk_mailbox *box);

/* Whether no more can be sent: there is no watched descriptor, and the sender of each lane has gone. */
MK_API bool mk_mailbox_over(const struct mk_mailbox *box);

/* The numbers of the lanes that there are, up to @room. @return how many there are */
MK_API unsigned mk_mailbox_numbers(const struct mk_mailbox *box, uint32_t *numbers, unsigned room);

/* Of the last lane that was quarantined: what was wrong with it (enum mk_bad), and the value. */
MK_API uint32_t mk_mailbox_bad(const struct mk_mailbox *box, uint64_t *value);

/* A descriptor that is readable while mk_mailbox_wait would return at once. The mailbox's. Every call on the mailbox
 * must be followed by mk_mailbox_settle from then on. @return descriptor or -errno */
MK_API int mk_mailbox_descriptor(struct mk_mailbox *box);
MK_API void mk_mailbox_settle(struct mk_mailbox *box);

#endif
