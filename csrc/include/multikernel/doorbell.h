/* doorbell.h: how a side that has nothing to do sleeps, and how the other wakes it.
 *
 * Publishing costs one load (P1, P2 in lane.h): is the other side parked? No fence stands between the store
 * that publishes and that load, so the hardware may take the load first. The one who sleeps pays for it:
 *
 *   waiter                                          the other side
 *   W1  store(parked, MAY_PARK)                     R   store-release(head)
 *   W2  looks on for some microseconds              P   load(parked)
 *   W3  bell = load-acquire(peer bell)                  MAY_PARK: fence, load again
 *   W4  store(parked, PARKED_FUTEX); fence              PARKED:   bell = now, wake
 *   W5  looks once more
 *   W6  sleeps on bell, for 10 ms at most
 *   W7  store(parked, PARKED_SOCKET); membarrier
 *   W8  looks once more
 *   W9  sleeps in poll on the socket and the peer's pidfd, without limit
 *
 * Who wakes at W6 for nothing begins at W1 again. More than two ends, or other descriptors beside them, sleep on
 * sockets from the beginning: W4-W6 with PARKED_SOCKET and poll, then W7. csrc/model/doorbell.pml is a model of it.
 *
 * The time between W1 and W4 is far longer than a store stays in a store buffer, so P sees at least MAY_PARK
 * when R comes after W5's look; should that ever fail, W6 ends after 10 ms. No memory model knows of time, so
 * before the sleep without a limit W7 makes the other side fence by membarrier(2): either R was visible to W8,
 * or P comes after W7 and rings. A sender that fences after each publish (MK_FENCES) needs no membarrier.
 * Where membarrier is refused, W9 sleeps in slices of 10 ms.
 *
 * A ring is one byte on a socket pair rather than an eventfd, because an eventfd's counter and blocking mode
 * belong to both who hold it: a peer could make a write block. Here each send says MSG_DONTWAIT for itself, and
 * the end of file says that the other side is gone.
 */
#ifndef MULTIKERNEL_DOORBELL_H
#define MULTIKERNEL_DOORBELL_H

#include "multikernel/lane.h"

/* Several ends waited for together; the second one on, or an event loop, is what it is for. */
struct mk_wait_set;

/* Wait until one end can go on: a receiver has a record, an element, an IPI, or its sender is gone; a sender
 * has the room that it last failed to get (mk_sender.wanted), or its receiver is gone.
 * @param timeout_ns  < 0: no limit; 0: only look
 * @return 0; -ETIMEDOUT; -EINTR: a signal came, or (spinning, or before a long sleep of an end that is
 *         `interpreted`) it is time to look for one: look, and call again */
MK_API int mk_wait(struct mk_end *end, int64_t timeout_ns);

/* @return a new set, NULL: errno says why */
MK_API struct mk_wait_set *mk_wait_set_new(void);
MK_API void mk_wait_set_free(struct mk_wait_set *set);

/* An end may be in several sets; one of them at a time is waited for. @return 0, -EEXIST, -ENOMEM, -ENOSPC ... */
MK_API int mk_wait_set_add(struct mk_wait_set *set, struct mk_end *end);

/* Take an end out; do it before closing the end. @return 0 or -ENOENT */
MK_API int mk_wait_set_remove(struct mk_wait_set *set, struct mk_end *end);

/* The set's ends, as long as none is added or removed. @return how many */
MK_API unsigned mk_wait_set_ends(const struct mk_wait_set *set, struct mk_end *const **ends);

/* Watch a descriptor that is no end's, too. It stays the caller's, who unwatches it before he closes it.
 * @return 0 or -errno */
MK_API int mk_wait_set_watch(struct mk_wait_set *set, int fd);
MK_API void mk_wait_set_unwatch(struct mk_wait_set *set, int fd);

/* As mk_wait, for all of the set. @return how many can go on, 0: none, but a watched descriptor is readable;
 *         -ETIMEDOUT; -EINTR; -EINVAL: the set is empty */
MK_API int mk_wait_set_wait(struct mk_wait_set *set, int64_t timeout_ns);

/* Ask the system, without waiting, what has become of the ends' peers. @return whether a watched descriptor is readable */
MK_API bool mk_wait_set_look(struct mk_wait_set *set);

/* A descriptor that becomes readable when a peer rings or ends, or a watched descriptor is; the set's. For event
 * loops: mk_wait_set_arm comes before each sleep on it. */
MK_API int mk_wait_set_descriptor(const struct mk_wait_set *set);

/* Say to all peers that we sleep on that descriptor. @return how many ends can go on already: then do not sleep */
MK_API int mk_wait_set_arm(struct mk_wait_set *set);

struct pollfd;

/* As mk_wait_set_wait, and for descriptors besides, which need not be watched: those that may be closed and opened again
 * between two waits. Their revents say which. As long as ends always have something they are looked at once in a
 * millisecond, so that this makes no system call each time.
 * @param fds    poll(2)'s, from fds[1] on; fds[0] is taken for the set's own
 * @param count  of them, without that one
 * @return how many ends and descriptors can go on; as mk_wait_set_wait */
MK_API int mk_wait_set_wait_beside(struct mk_wait_set *set, struct pollfd *fds, unsigned count, int64_t timeout_ns);

/* The same as long as ends have something: never waits, and finds descriptors once in a millisecond. */
MK_API int mk_wait_set_look_beside(struct mk_wait_set *set, struct pollfd *fds, unsigned count);

/* Whether an end can go on, by a look and without a system call. */
MK_API bool mk_end_ready(struct mk_end *end);

/* A descriptor that is readable while mk_end_ready: for event loops. Belongs to the end. From now on every call
 * on the end must be followed by mk_event_settle. @return descriptor or -errno */
MK_API int mk_event_descriptor(struct mk_end *end);

/* Bring that descriptor up to date after a call on the end. */
MK_API void mk_event_settle(struct mk_end *end);

/* CLOCK_MONOTONIC, ns. */
MK_API uint64_t mk_now(void);

#endif
