/* waiting.h: what doorbell.c and waitset.c share. Ends that are waited for together, by one call. */
#ifndef MULTIKERNEL_WAITING_H
#define MULTIKERNEL_WAITING_H

#include <poll.h>

#include "multikernel/doorbell.h"

#define GLANCE_EVERY_NS 1000000u /* how often other descriptors are looked at while ends always have something */

struct group {
	struct mk_end **ends;
	unsigned n;
	struct mk_spin *spin;
	struct mk_wait_set *set; /* NULL: one end alone */
	struct pollfd *fds;      /* others, behind a free place for the set's own */
	unsigned fd_count;       /* without that place */
	uint64_t slept_at;       /* when the last sleep of this wait began; 0: it has not slept */
	struct mk_end *woken;    /* one that can go on, if the last sleep has told */
};

/* doorbell.c */
int mk_count_ready(const struct group *g);
void mk_announce(struct mk_end *end, uint32_t mode);
bool mk_park_for_long(struct mk_end *end); /* W7 for one end. @return as bring_to_order */
bool mk_bring_to_order(const struct group *g);
int mk_group_wait(struct group *g, int64_t timeout_ns);

/* waitset.c */

/* Sleep in poll or epoll on sockets, pidfds and other descriptors; < 0: without limit. Takes what was rung, and looks at
 * those ends. @return how many of them can go on, and of the others are ready; 0: look at all; -errno */
int mk_group_poll(struct group *g, int64_t limit_ns);

/* A look at the other descriptors, unless the last was less than @every_ns ago. @return how many are ready */
int mk_glance(struct group *g, uint64_t every_ns);

/* Whether a peer has ended; the system is asked only if @now, or at times. @return how many can go on for it */
int mk_group_gone(struct group *g, bool now);

/* Ask the system, without waiting, whether the peers live. A set asks for all at once. @return how many can go on */
int mk_group_ask(struct group *g);

/* Whether a descriptor that the set watches is readable, by the last look; whether there is one. */
bool mk_group_watched_readable(const struct group *g);
bool mk_group_watches(const struct group *g);

/* The pidfd of an end is about to be closed: it is watched no more where event loops sleep on it. */
void mk_event_unwatch_pidfd(struct mk_end *end);

/* See that each peer's pidfd that has come is watched. @return whether it is */
bool mk_watch_pidfds(struct group *g);

#endif
