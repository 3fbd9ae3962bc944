/* waitset.c: many ends waited for by one thread, in an epoll of their sockets and pidfds; and one end in somebody
 * else's event loop. The protocol is doorbell.c's.
 *
 * Other descriptors of the caller's are polled beside the epoll and not in it: one that was closed and opened again
 * under the same number would have dropped out of an epoll without a word.
 */
#include "waiting.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct mk_wait_set {
	int epoll;
	unsigned count, room;
	unsigned watched;      /* descriptors that are no end's */
	bool watched_readable; /* one of them is, by the last look */
	struct mk_end **ends;
	bool *pidfd_watched; /* of each */
	struct mk_spin spin;
	uint64_t glanced; /* CLOCK_MONOTONIC, ns: when other descriptors were looked at last */
};

/* What an epoll says is readable: an end's socket, or (the lowest bit set) its peer's pidfd. */
#define PIDFD 1u

static int watch(int epoll, int fd, struct mk_end *end, uintptr_t what)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = (uintptr_t)end | what}};

	return fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static void unwatch(int epoll, int fd)
{
	if (fd >= 0)
		epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}

/* A ring's peer sends its pidfd when it claims its end, whoever then reads it: see that it is watched from then on. */
static int watch_pidfd(int epoll, struct mk_end *end, bool *watched)
{
	int result = 0;

	if (end->pidfd >= 0 && !*watched) {
		result = watch(epoll, end->pidfd, end, PIDFD);
		*watched = !result;
	}
	return result;
}

bool mk_group_watched_readable(const struct group *g)
{
	return g->set && g->set->watched_readable;
}

bool mk_group_watches(const struct group *g)
{
	return g->set && g->set->watched;
}

bool mk_watch_pidfds(struct group *g)
{
	bool all = true;

	for (unsigned i = 0; g->set && i < g->n; i++)
		if (watch_pidfd(g->set->epoll, g->ends[i], &g->set->pidfd_watched[i]))
			all = false;
	return all;
}

/* --- sleeping --------------------------------------------------------------------------------------------------- */

static int poll_fds(struct pollfd *fds, unsigned count, int64_t limit_ns)
{
	struct timespec limit = {.tv_sec = (time_t)(limit_ns / 1000000000), .tv_nsec = (long)(limit_ns % 1000000000)};
	int result = ppoll(fds, count, limit_ns < 0 ? NULL : &limit, NULL);

	return result < 0 ? -errno : result;
}

static int poll_one(struct mk_end *end, int64_t limit_ns)
{
	struct pollfd fds[2] = {{.fd = end->socket, .events = POLLIN}, {.fd = end->pidfd, .events = POLLIN}};
	int result = poll_fds(fds, 2, limit_ns);

	if (result > 0)
		mk_end_gone(end, true); /* takes the bytes as well */
	return result < 0 ? result : 0;
}

/* Only what was rung is touched, so it costs the same however many ends there are. @return how many of it can go on */
static int poll_set(struct group *g, int64_t limit_ns)
{
	int ready = 0;
	struct epoll_event events[32];
	int64_t milliseconds = limit_ns / 1000000 + (limit_ns % 1000000 != 0);
	int n = epoll_wait(g->set->epoll, events, 32,
			   limit_ns < 0 ? -1 : (int)(milliseconds < INT_MAX ? milliseconds : INT_MAX));

	g->set->watched_readable = false;
	for (int i = 0; i < n; i++) {
		uintptr_t what = (uintptr_t)events[i].data.u64;
		struct mk_end *end = (struct mk_end *)(what & ~(uintptr_t)PIDFD);

		if (!end) {
			g->set->watched_readable = true;
			continue;
		}
		if (what & PIDFD)
			mk_end_gone(end, true);
		else
			mk_end_drain(end);
		if (mk_end_ready(end) && end != g->woken) { /* both of one end may be there, and come in a row */
			g->woken = end;
			ready++;
		}
	}
	return n < 0 ? -errno : ready;
}

/* Of the others. An error or an end of file is something, too. */
static int count_fds(const struct group *g)
{
	int ready = 0;

	for (unsigned i = 1; i <= g->fd_count; i++)
		ready += g->fds[i].revents != 0;
	return ready;
}

int mk_group_poll(struct group *g, int64_t limit_ns)
{
	int result;

	if (!g->set)
		return poll_one(g->ends[0], limit_ns);
	g->woken = NULL;
	if (!g->fd_count)
		return poll_set(g, limit_ns);
	g->fds[0] = (struct pollfd){.fd = g->set->epoll, .events = POLLIN};
	result = poll_fds(g->fds, g->fd_count + 1, limit_ns);
	if (result < 0)
		return result;
	result = g->fds[0].revents ? poll_set(g, 0) : 0;
	return count_fds(g) + (result > 0 ? result : 0);
}

int mk_glance(struct group *g, uint64_t every_ns)
{
	uint64_t now;

	if (!g->fd_count)
		return 0;
	now = mk_now();
	if (every_ns && now - g->set->glanced < every_ns)
		return 0;
	g->set->glanced = now;
	if (poll_fds(g->fds + 1, g->fd_count, 0) < 0)
		return 0; /* whoever sleeps meets the error again */
	return count_fds(g);
}

int mk_group_gone(struct group *g, bool now)
{
	if (now)
		return mk_group_ask(g);
	return g->set ? 0 : mk_end_gone(g->ends[0], false); /* who sleeps with a set is told */
}

int mk_group_ask(struct group *g)
{
	if (!g->set)
		return mk_end_gone(g->ends[0], true);
	if (!mk_watch_pidfds(g))
		for (unsigned i = 0; i < g->n; i++)
			mk_end_gone(g->ends[i], true);
	poll_set(g, 0);
	return mk_count_ready(g);
}

/* --- sets ------------------------------------------------------------------------------------------------------- */

struct mk_wait_set *mk_wait_set_new(void)
{
	struct mk_wait_set *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	set->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (set->epoll < 0) {
		free(set);
		return NULL;
	}
	set->spin = mk_spin_new();
	return set;
}

void mk_wait_set_free(struct mk_wait_set *set)
{
	if (!set)
		return;
	close(set->epoll);
	free(set->ends);
	free(set->pidfd_watched);
	free(set);
}

static int make_room(struct mk_wait_set *set)
{
	unsigned room = set->room ? 2 * set->room : 8;
	struct mk_end **ends;
	bool *watched;

	if (set->count < set->room)
		return 0;
	ends = realloc(set->ends, room * sizeof(*ends));
	if (!ends)
		return -ENOMEM;
	set->ends = ends;
	watched = realloc(set->pidfd_watched, room * sizeof(*watched));
	if (!watched)
		return -ENOMEM;
	set->pidfd_watched = watched;
	set->room = room;
	return 0;
}

int mk_wait_set_add(struct mk_wait_set *set, struct mk_end *end)
{
	bool watched = false;
	int result = make_room(set);

	if (result)
		return result;
	result = watch(set->epoll, end->socket, end, 0);
	if (result)
		return result;
	result = watch_pidfd(set->epoll, end, &watched);
	if (result) {
		unwatch(set->epoll, end->socket);
		return result;
	}
	set->ends[set->count] = end;
	set->pidfd_watched[set->count++] = watched;
	return 0;
}

int mk_wait_set_remove(struct mk_wait_set *set, struct mk_end *end)
{
	for (unsigned i = 0; i < set->count; i++) {
		if (set->ends[i] != end)
			continue;
		unwatch(set->epoll, end->socket);
		unwatch(set->epoll, end->pidfd);
		set->ends[i] = set->ends[--set->count];
		set->pidfd_watched[i] = set->pidfd_watched[set->count];
		return 0;
	}
	return -ENOENT;
}

unsigned mk_wait_set_ends(const struct mk_wait_set *set, struct mk_end *const **ends)
{
	*ends = set->ends;
	return set->count;
}

static struct group group_of(struct mk_wait_set *set, struct pollfd *fds, unsigned count)
{
	for (unsigned i = 1; i <= count; i++)
		fds[i].revents = 0;
	set->watched_readable = false;
	return (struct group){
		.ends = set->ends, .n = set->count, .spin = &set->spin, .set = set, .fds = fds, .fd_count = count};
}

int mk_wait_set_wait(struct mk_wait_set *set, int64_t timeout_ns)
{
	return mk_wait_set_wait_beside(set, NULL, 0, timeout_ns);
}

int mk_wait_set_watch(struct mk_wait_set *set, int fd)
{
	int result = watch(set->epoll, fd, NULL, 0);

	set->watched += !result;
	return result;
}

void mk_wait_set_unwatch(struct mk_wait_set *set, int fd)
{
	unwatch(set->epoll, fd);
	set->watched--;
}

bool mk_wait_set_look(struct mk_wait_set *set)
{
	struct group g = group_of(set, NULL, 0);

	mk_watch_pidfds(&g);
	poll_set(&g, 0);
	return set->watched_readable;
}

/* Nothing but watched descriptors: there is nobody to tell that we sleep. */
static int wait_for_watched(struct group *g, int64_t timeout_ns)
{
	uint64_t deadline = timeout_ns < 0 ? UINT64_MAX : mk_now() + (uint64_t)timeout_ns;
	int64_t left = timeout_ns;

	for (;;) {
		int result = poll_set(g, left);
		uint64_t now = mk_now();

		if (result || g->set->watched_readable)
			return result;
		if (now >= deadline)
			return -ETIMEDOUT;
		if (left >= 0)
			left = (int64_t)(deadline - now);
	}
}

int mk_wait_set_wait_beside(struct mk_wait_set *set, struct pollfd *fds, unsigned count, int64_t timeout_ns)
{
	struct group g = group_of(set, fds, count);

	if (set->count)
		return mk_group_wait(&g, timeout_ns);
	return set->watched && !count ? wait_for_watched(&g, timeout_ns) : -EINVAL;
}

int mk_wait_set_look_beside(struct mk_wait_set *set, struct pollfd *fds, unsigned count)
{
	struct group g = group_of(set, fds, count);

	return mk_count_ready(&g) + mk_glance(&g, GLANCE_EVERY_NS);
}

/* --- event loops ------------------------------------------------------------------------------------------------ */

int mk_event_descriptor(struct mk_end *end)
{
	int result;

	if (end->event >= 0)
		return end->event;
	if (end->socket < 0) /* nothing that could make it readable */
		return -ENOTSUP;
	end->event = epoll_create1(EPOLL_CLOEXEC);
	if (end->event < 0)
		return -errno;
	end->event_self = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	result = end->event_self < 0 ? -errno : 0;
	if (!result)
		result = watch(end->event, end->event_self, end, 0);
	if (!result)
		result = watch(end->event, end->socket, end, 0);
	if (!result)
		result = watch_pidfd(end->event, end, &end->pidfd_in_event);
	if (result) {
		close(end->event);
		if (end->event_self >= 0)
			close(end->event_self);
		end->event = end->event_self = -1;
		return result;
	}
	mk_event_settle(end);
	return end->event;
}

void mk_event_unwatch_pidfd(struct mk_end *end)
{
	if (end->pidfd_in_event)
		unwatch(end->event, end->pidfd);
	end->pidfd_in_event = false;
	end->event_word = 0; /* what was armed is no longer */
}

static void set_event(struct mk_end *end, bool readable)
{
	uint64_t one = 1;

	if (end->event_set == readable)
		return;
	end->event_set = readable;
	if (readable)
		(void)!write(end->event_self, &one, sizeof(one)); /* Cannot fail: the counter is 0 or 1. */
	else
		(void)!read(end->event_self, &one, sizeof(one));
}

/* Whether W7 and W8 were done for this end and nothing has happened since: no wait, no ring, no end of the peer. */
static bool still_armed(const struct mk_end *end)
{
	struct pollfd event = {.fd = end->event, .events = POLLIN};

	/* The bell as well: the byte of a ring may have been read already, by the other end of the same link too. */
	return end->event_word && mk_load_relaxed(end->parked) == end->event_word &&
	       mk_load_relaxed(end->peer_bell) == end->event_bell && !end->event_set &&
	       (end->pidfd < 0 || end->pidfd_in_event) && poll(&event, 1, 0) == 0;
}

void mk_event_settle(struct mk_end *end)
{
	if (end->event < 0)
		return;
	if (mk_end_ready(end)) {
		mk_announce(end, MK_AWAKE);
		set_event(end, true);
		return;
	}
	if (still_armed(end))
		return;
	set_event(end, false);
	mk_end_gone(end, true); /* takes the bytes */
	watch_pidfd(end->event, end, &end->pidfd_in_event);
	end->event_bell = mk_load_relaxed(end->peer_bell);
	mk_park_for_long(end); /* as W7, W8: the loop may sleep without a limit */
	end->event_word = mk_load_relaxed(end->parked);
	if (mk_end_ready(end))
		set_event(end, true);
}

int mk_wait_set_descriptor(const struct mk_wait_set *set)
{
	return set->epoll;
}

int mk_wait_set_arm(struct mk_wait_set *set)
{
	struct group g = group_of(set, NULL, 0);
	int ready = mk_count_ready(&g);

	if (!ready) {
		poll_set(&g, 0); /* takes the bytes */
		mk_watch_pidfds(&g);
		for (unsigned i = 0; i < set->count; i++)
			mk_announce(set->ends[i], MK_PARKED_SOCKET); /* as in mk_event_settle */
		mk_bring_to_order(&g);
		ready = mk_count_ready(&g);
	}
	for (unsigned i = 0; ready && i < set->count; i++)
		mk_announce(set->ends[i], MK_AWAKE);
	return ready;
}
