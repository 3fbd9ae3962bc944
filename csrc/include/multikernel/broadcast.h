/* broadcast.h: fan-out. One sender, many receivers, each at its own pace.
 *
 * The sender has one producer object, which all receivers map read-only; each receiver has a consumer object and a
 * socket pair of its own, so that rule 1 holds: one writer a page. There are two kinds.
 *
 * One that waits: every receiver is the receiver of a lane (mk_receiver), that happens to share the data with others.
 * The sender's room ends where the slowest receiver stands that lives; one that dies is dropped at once.
 *
 * One that overwrites (MK_OVERWRITES): the sender waits for nobody. A receiver is a follower: it copies, then looks
 * whether it was overtaken, and counts what it missed. The labels are those of the code:
 *
 *   sender                                        follower
 *   B1  store-release(oldest, past what goes)     F1  head = load-acquire(head); oldest = load-acquire(oldest)
 *   B2  fence-release; write the record           F2  copy records; fence-acquire
 *   B3  store-release(head)                       F3  load-relaxed(oldest): what begins before it is dropped
 *
 *   B3-F1 publishes a record. B2-F2: these are fences around relaxed accesses to the same words, so a follower that
 *   copied one word of a newer record than it meant to sees, at F3, the oldest that was stored before that word was
 *   written, or a later one: and that is past the record that lay there. So what begins at F3's oldest or behind it
 *   was copied whole. Only the sender's word says where records begin; a walk from record to record that has met an
 *   overwritten length is lost, so what it found counts only from a record on that begins exactly at F3's oldest (or
 *   all of it, where oldest has not passed the first).
 *
 *   Each record's id is its number. A follower knows the number that it expects, so the difference is what it missed.
 *
 * More receivers: whoever made the broadcast makes them. He passes the descriptors to the sender by other means, then
 * counts them in a page of his own, the roster, and only then reads where the new one begins:
 *
 *   maker                                         sender
 *   N1  passes the descriptors                    M1  load-acquire(count): more? take them before going on
 *   N2  store-release(count)                      M2  write a record; store-release(head)
 *   N3  membarrier
 *   N4  load-acquire(head): it begins here
 *
 *   N3 is a full fence in the sender as well (one that fences by itself needs none): either M1 comes after it and sees
 *   N2, or every head that was stored before that M1 is seen at N4. So a receiver begins where the sender stood at its
 *   last look that found nobody new (`looked`), or later; and from `looked` on nothing has been overwritten, since a
 *   sender looks before each record. Hence everything that is sent after the receiver was made reaches it.
 */
#ifndef MULTIKERNEL_BROADCAST_H
#define MULTIKERNEL_BROADCAST_H

#include "multikernel/lane.h"

/* --- the maker: roster.c ----------------------------------------------------------------------------------------- */

/* Make the sender's object. @return descriptor or -errno (-EINVAL: capacity is no power of two in range) */
MK_API int mk_broadcast_object(uint64_t capacity, bool overwrites);

/* Make, map and seal a roster. @return a read-only descriptor for the sender, or -errno */
MK_API int mk_roster_create(struct mk_roster **out);

/* N2-N4: count one more receiver, whose descriptors are on their way, and write where it begins into its object.
 * @param producer_fd  read-only, of the sender's object. @param consumer_fd  writable, not claimed
 * @param number       of the record where it begins
 * @return 0; -EBADMSG: the sender's page changes without a pause; -errno */
MK_API int mk_roster_add(struct mk_roster *roster, int producer_fd, int consumer_fd, uint64_t *number);

/* There will be no more. Unmaps it. Idempotent: NULL is none. */
MK_API void mk_roster_close(struct mk_roster *roster);

/* Unmap it without a word, in a forked copy or when it was not the maker's wish. */
MK_API void mk_roster_drop(struct mk_roster *roster);

/* --- the sender: broadcast.c --------------------------------------------------------------------------------------- */

struct mk_broadcast;

/* Claim the sender.
 * @param roster_fd  read-only. @param maker  pidfd of who made the broadcast; the broadcast's from then on
 * @return 0; -EPERM: claimed by somebody else; -EPROTO and *why; -errno. After an error the pidfd is the caller's. */
MK_API int mk_broadcast_claim(struct mk_broadcast **out, int producer_fd, int roster_fd, int maker, uint8_t policy,
			      bool interpreted, uint32_t *why);

/* Take a receiver in. @param socket  the sender's side of its socket pair, the broadcast's from then on
 * @return 0; -EPROTO and *why: the object was refused; -errno. After an error the socket is the caller's. */
MK_API int mk_broadcast_add(struct mk_broadcast *cast, int consumer_fd, int socket, uint32_t number, uint32_t *why);

/* After -ENOTCONN: all that was on its way has been taken in. */
MK_API void mk_broadcast_caught_up(struct mk_broadcast *cast);

/* Write one record, copied, and do not publish it yet: mk_broadcast_publish does, for one or for many.
 * @return 0; -EAGAIN: the slowest receiver has left no room (never when it overwrites); -EMSGSIZE;
 *         -ENOTCONN: there are more receivers, take them in first; -EPIPE: there is no receiver and will be none;
 *         -EBADMSG: a receiver wrote what cannot be and was dropped (mk_broadcast_bad) */
MK_API int mk_broadcast_put(struct mk_broadcast *cast, const void *payload, uint64_t length);
MK_API void mk_broadcast_publish(struct mk_broadcast *cast);

/* After -EAGAIN, and a publish: wait until the slowest receiver may have made room. Times and results as for mk_wait.
 * @param goes_on  it is the wait that came back with -EINTR, made again */
MK_API int mk_broadcast_wait(struct mk_broadcast *cast, int64_t timeout_ns, bool goes_on);

/* The longest payload: half the capacity when it overwrites, so that a whole record is there at any time, whatever
 * the sender is just doing: so what was missed can always be counted. */
MK_API uint64_t mk_broadcast_longest(const struct mk_broadcast *cast);

/* Ask which receivers live. @return how many there are, claimed or not; -ENOTCONN as above */
MK_API int mk_broadcast_receivers(struct mk_broadcast *cast);

/* Of the last receiver that was dropped for what it wrote. @return its number */
MK_API uint32_t mk_broadcast_bad(const struct mk_broadcast *cast, uint64_t *value);

/* Receivers get all that was published, then -EPIPE. Idempotent. In a forked copy it only lets go of what that has. */
MK_API void mk_broadcast_close(struct mk_broadcast *cast);
MK_API void mk_broadcast_free(struct mk_broadcast *cast);

/* --- a receiver of one that overwrites: follower.c ----------------------------------------------------------------- */

#define MK_FOLLOWER_AHEAD 32u /* records that are copied at once, at most */

struct mk_follower;

/* Follow. @param rx  attached to the object of a broadcast that overwrites, and belongs to the follower from then on
 * @param number  of the record where it begins. @return NULL: errno is EINVAL (it is none) or ENOMEM */
MK_API struct mk_follower *mk_follower_new(struct mk_receiver *rx, uint64_t number);

/* The next records, copied.
 * @param messages  their payloads are valid until the next call
 * @param missed    how many were overwritten between the last one given and messages[0]
 * @return how many, >= 1; -EAGAIN: none is there; -EPIPE: and none will be; -EINTR: overtaken again and again, call
 *         again; -ENOMEM; -EBADMSG: quarantined */
MK_API int mk_follower_take(struct mk_follower *f, struct mk_message *messages, unsigned limit, uint64_t *missed);

/* As mk_follower_take, but they stay the next ones until mk_follower_release. */
MK_API int mk_follower_look(struct mk_follower *f, struct mk_message *messages, unsigned limit, uint64_t *missed);
MK_API void mk_follower_release(struct mk_follower *f);

/* How many records there are to take. Walks over them; fewer than there are where the sender overtakes the walk again
 * and again. */
MK_API uint64_t mk_follower_waiting(const struct mk_follower *f);

/* For waiting (mk_wait, mk_event_descriptor) and for what is known of it; the follower's. */
MK_API struct mk_receiver *mk_follower_receiver(const struct mk_follower *f);

/* The first half of free: closes the receiver's end, but frees nothing. */
MK_API void mk_follower_close(struct mk_follower *f);
MK_API void mk_follower_free(struct mk_follower *f);

#endif
