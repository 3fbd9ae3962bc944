/* doorbell.c: waiting and waking. The protocol (W1-W9) is in doorbell.h.
 *
 * Two ways to sleep: on the other side's bell word (futex, for at most 10 ms; one end, or two where futex_waitv
 * exists), and in poll or epoll on the socket pairs and pidfds, which has no limit, takes any number of ends,
 * and learns of a death at once.
 */
#include "multikernel/doorbell.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv /* headers before Linux 5.16 */
#define SYS_futex_waitv 449
#endif

#define LOOK_ON_NS 3000u /* W2: far longer than a store stays in a store buffer */
/* W6: the bounded first sleep. Not shorter than the ticks of a system are apart: a timer that is the next to expire has to
 * be programmed, which on a virtual machine costs microseconds at each sleep and wake-up. */
#define FUTEX_NS 10000000u
#define SLICE_NS 10000000u     /* W9 without membarrier */
#define SPIN_SLICE_NS 5000000u /* a wait that never sleeps comes back this often, to look for signals */
#define SPIN_MAX_NS 60000u     /* no longer than a sleep and a wake-up cost */
#define SPIN_WORTH_NS 120000u  /* a wait this short, its wake-up included, should have been spun */
#define LOOKS_PER_CLOCK 8u     /* looks between two readings of the clock */

struct futex_waiter { /* struct futex_waitv of linux/futex.h, absent before 5.16 */
	uint64_t value, address;
	uint32_t flags, reserved;
};
#define FUTEX_WAITER_32_SHARED 2u

struct mk_wait_set {
	int epoll;
	unsigned count, room;
	struct mk_end **ends;
};

uint64_t mk_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- looking ---------------------------------------------------------------------------------------------------- */

bool mk_end_ready(struct mk_end *end)
{
	if (end->gone || end->stop)
		return true;
	/* Pairs with the release store of the state at close and at claim. */
	if (mk_load_acquire(end->peer_state) == MK_END_CLOSED)
		return true;
	if (end->sending) {
		struct mk_sender *tx = (struct mk_sender *)(void *)end;

		/* A hint: mk_room loads it again and checks it. */
		return end->mask + 1 - (tx->head - mk_load_relaxed(&tx->peer->tail)) >= tx->wanted;
	}
	struct mk_receiver *rx = (struct mk_receiver *)(void *)end;

	/* A hint as well: mk_filled loads it again and checks it. */
	return mk_load_relaxed(&rx->peer->head) != rx->next || mk_ipi_waiting(rx);
}

static int count_ready(struct mk_end **ends, unsigned n)
{
	int ready = 0;

	for (unsigned i = 0; i < n; i++)
		ready += mk_end_ready(ends[i]);
	return ready;
}

/* Look until something is there or @until has come. */
static int spin(struct mk_end **ends, unsigned n, uint64_t until)
{
	for (unsigned looks = 1;; looks++) {
		int ready = count_ready(ends, n);

		if (ready)
			return ready;
		if (looks % LOOKS_PER_CLOCK == 0 && mk_now() >= until)
			return 0;
		mk_pause();
	}
}

/* --- saying so -------------------------------------------------------------------------------------------------- */

/* W1, W4, W7. Each park has a number, so that one ring answers one park. */
static void announce(struct mk_end **ends, unsigned n, uint32_t mode)
{
	for (unsigned i = 0; i < n; i++) {
		ends[i]->asleep = false;
		if (mode != MK_AWAKE)
			ends[i]->parks++;
		/* Relaxed: what must come after it is ordered by the caller's fence; pairs with P1, P2. */
		mk_store_relaxed(ends[i]->parked, ends[i]->parks << 2 | mode);
	}
}

void mk_ring_bell(struct mk_end *end)
{
	uint32_t word = mk_load_acquire(end->peer_parked); /* pairs with the release store in mk_end_close */

	if (end->gone || mk_load_acquire(end->peer_state) == MK_END_CLOSED) {
		mk_end_gone(end, false); /* nobody to wake; a sender learns it from end->stop */
		return;
	}
	if ((word & MK_PARKED_MODE) == MK_MAY_PARK) {
		/* Pairs with the fence after W4: either the waiter sees what we published, or we see it parked. */
		mk_fence();
		word = mk_load_relaxed(end->peer_parked);
	}
	if ((word & MK_PARKED_MODE) <= MK_MAY_PARK)
		return;
	if (word == end->rung) { /* on its way; or dead, so look at times */
		mk_end_gone(end, false);
		return;
	}
	end->rung = word;
	mk_store_relaxed(end->cpu, (uint32_t)sched_getcpu()); /* a hint to the one who wakes: is spinning of use? */
	mk_count(&end->counters->wakes, 1);
	if ((word & MK_PARKED_MODE) == MK_PARKED_FUTEX) {
		/* Pairs with the acquire load of the bell before W4, and with the kernel's look at W6. */
		mk_store_release(end->bell, mk_load_relaxed(end->bell) + 1);
		/* All: whoever may read the lane may sleep on this word too, and must not take the wake-up. */
		syscall(SYS_futex, end->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	} else if (end->socket >= 0) {
		char byte = 1;

		/* EAGAIN: bytes enough lie there already. EPIPE: nobody holds the other side. */
		if (send(end->socket, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE)
			mk_end_gone(end, true);
	}
}

/* --- sleeping --------------------------------------------------------------------------------------------------- */

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* W6 for one end or two. @return 0 or -errno (-EAGAIN: a bell had changed; -ETIMEDOUT; -EINTR) */
static int sleep_on_bells(struct mk_end **ends, unsigned n, const uint32_t *bells, uint64_t until)
{
	struct futex_waiter waiters[2];
	struct timespec limit;
	long result;

	if (n == 1) {
		uint64_t now = mk_now();

		limit = to_timespec(until > now ? until - now : 0);
		result = syscall(SYS_futex, ends[0]->peer_bell, FUTEX_WAIT, bells[0], &limit, NULL, 0);
		return result < 0 ? -errno : 0;
	}
	for (unsigned i = 0; i < 2; i++)
		waiters[i] = (struct futex_waiter){bells[i], (uint64_t)(uintptr_t)ends[i]->peer_bell,
						   FUTEX_WAITER_32_SHARED, 0};
	limit = to_timespec(until);
	result = syscall(SYS_futex_waitv, waiters, 2, 0, &limit, CLOCK_MONOTONIC);
	return result < 0 ? -errno : 0;
}

/* W4-W6. @return how many are ready; 0: time to sleep otherwise; -ETIMEDOUT, -EINTR */
static int park_on_bells(struct mk_end **ends, unsigned n, uint64_t deadline)
{
	uint64_t until = mk_now() + FUTEX_NS;

	if (until > deadline)
		until = deadline;
	for (;;) {
		uint32_t bells[2];
		int ready;
		int result;

		for (unsigned i = 0; i < n; i++)
			bells[i] = mk_load_acquire(ends[i]->peer_bell); /* before W4: a ring after it changes this */
		announce(ends, n, MK_PARKED_FUTEX);
		mk_fence(); /* pairs with the fence in mk_ring_bell, or in mk_notify of a side that fences */
		ready = count_ready(ends, n);
		if (ready)
			return ready;
		result = sleep_on_bells(ends, n, bells, until);
		ready = count_ready(ends, n);
		if (ready)
			return ready;
		if (result == -EINTR)
			return -EINTR;
		if (result == -ENOSYS || result == -EPERM || result == -EINVAL) /* no futex_waitv, or filtered */
			return 0;
		if (mk_now() >= until)
			return until == deadline ? -ETIMEDOUT : 0;
		mk_count(&ends[0]->wait_counters->spurious, 1);
	}
}

static int watch(int epoll, int fd, void *data)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = data}};

	return fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static int poll_ends(struct mk_end **ends, unsigned n, const struct timespec *limit)
{
	struct pollfd fds[4];

	for (unsigned i = 0; i < n; i++) {
		fds[2 * i] = (struct pollfd){.fd = ends[i]->socket, .events = POLLIN};
		fds[2 * i + 1] = (struct pollfd){.fd = ends[i]->pidfd, .events = POLLIN};
	}
	if (ppoll(fds, 2 * n, limit, NULL) < 0)
		return -errno;
	for (unsigned i = 0; i < n; i++)
		if (fds[2 * i].revents | fds[2 * i + 1].revents)
			mk_end_gone(ends[i], true); /* takes the bytes as well */
	return 0;
}

static int poll_set(struct mk_wait_set *set, uint64_t limit_ns)
{
	struct epoll_event events[32];
	uint64_t milliseconds = limit_ns / 1000000u + (limit_ns % 1000000u != 0);
	int limit = limit_ns == UINT64_MAX ? -1 : milliseconds < INT_MAX ? (int)milliseconds : INT_MAX;
	int n = epoll_wait(set->epoll, events, 32, limit);

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++)
		mk_end_gone(events[i].data.ptr, true);
	return 0;
}

/* Whether the peer fences after each publish. It says so in its page before it is seen as open. */
static bool peer_fences(const struct mk_end *end)
{
	const volatile struct mk_object *page = end->peer_map;

	return mk_load_acquire(end->peer_state) != MK_END_UNCLAIMED && (page->flags & MK_FENCES);
}

/* W7: from here on, either the look at W8 sees what a peer published, or that peer sees us parked and rings.
 * @return whether that is certain */
static bool bring_to_order(struct mk_end **ends, unsigned n)
{
	bool certain = true;

	mk_fence(); /* pairs with the fence of a peer that fences */
	for (unsigned i = 0; i < n; i++) {
		if (ends[i]->socket < 0) /* nothing to ring */
			return false;
		if (!peer_fences(ends[i]))
			certain = false;
	}
	return certain || mk_membarrier() == 0; /* pairs with R and P of every registered peer */
}

/* A ring's peer sends its pidfd when it claims its end, whoever then reads it: see that it is watched from then on.
 * @return 0 or -errno */
static int watch_pidfd(int epoll, struct mk_end *end, bool *watched)
{
	int result = 0;

	if (end->pidfd >= 0 && !*watched) {
		result = watch(epoll, end->pidfd, end);
		*watched = !result;
	}
	return result;
}

/* W7. @return whether that is certain, also of a peer's death */
static bool announce_sleep(struct mk_end **ends, unsigned n, struct mk_wait_set *set)
{
	bool proven;

	announce(ends, n, MK_PARKED_SOCKET);
	proven = bring_to_order(ends, n);
	for (unsigned i = 0; set && i < n; i++)
		if (watch_pidfd(set->epoll, ends[i], &ends[i]->pidfd_in_set))
			proven = false;
	return proven;
}

/* W7 is done: the caller looks for signals, and then it sleeps. Between the two there should be as little as can be, for a
 * signal that comes there interrupts nothing; above all no membarrier. */
static int look_for_signals(struct mk_end **ends, unsigned n, bool proven)
{
	for (unsigned i = 0; i < n; i++) {
		ends[i]->asleep = true;
		ends[i]->asleep_proven = proven;
		ends[i]->asleep_drains = mk_drains();
	}
	ends[0]->signals_seen = true;
	return -EINTR;
}

/* Whether W7 still holds after that. It does not for an end that a handler has used meanwhile, or has put into the set; nor
 * where bytes were taken off a socket, anywhere in this process: one park is rung once. */
static bool still_asleep(struct mk_end **ends, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!ends[i]->asleep || ends[i]->asleep_drains != mk_drains())
			return false;
	return true;
}

/* W7-W9. @return how many are ready; -ETIMEDOUT, -EINTR */
static int park_on_sockets(struct mk_end **ends, unsigned n, struct mk_wait_set *set, uint64_t deadline, bool looked)
{
	bool announced = looked && still_asleep(ends, n);

	for (;;) {
		bool proven = announced ? ends[0]->asleep_proven : announce_sleep(ends, n, set);
		int ready = count_ready(ends, n);
		int result;
		uint64_t now;
		uint64_t limit = UINT64_MAX;

		if (ready)
			return ready;
		/* Also after a wake-up without cause: who gives us many must not keep the caller from its signals. */
		if (ends[0]->interpreted && !looked)
			return look_for_signals(ends, n, proven);
		looked = announced = false;
		now = mk_now();
		if (now >= deadline)
			return -ETIMEDOUT;
		if (deadline != UINT64_MAX)
			limit = deadline - now;
		if (!proven && limit > SLICE_NS)
			limit = SLICE_NS;
		if (set) {
			result = poll_set(set, limit);
		} else {
			struct timespec bound = to_timespec(limit);

			result = poll_ends(ends, n, limit == UINT64_MAX ? NULL : &bound);
		}
		for (unsigned i = 0; !proven && i < n; i++)
			mk_end_gone(ends[i], true); /* there may be no descriptor that tells us */
		ready = count_ready(ends, n);
		if (ready)
			return ready;
		if (result == -EINTR)
			return -EINTR;
		if (mk_now() < deadline && limit != SLICE_NS)
			mk_count(&ends[0]->wait_counters->spurious, 1);
	}
}

static bool all_claimed(struct mk_end **ends, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (mk_load_acquire(ends[i]->peer_state) == MK_END_UNCLAIMED)
			return false;
	return true;
}

static int park(struct mk_end **ends, unsigned n, struct mk_wait_set *set, uint64_t deadline)
{
	bool looked = ends[0]->signals_seen;
	int ready = 0;

	ends[0]->signals_seen = false;
	if (!looked) {
		announce(ends, n, MK_MAY_PARK);
		ready = spin(ends, n, mk_now() + LOOK_ON_NS);
		if (!ready) {
			mk_count(&ends[0]->wait_counters->parks, 1);
			for (unsigned i = 0; i < n; i++)
				mk_end_count(ends[i]); /* whoever watches has time to see it now */
			/* A claim rings the socket, not the bell: there may be nobody yet who could ring that. */
			if (n <= 2 && all_claimed(ends, n))
				ready = park_on_bells(ends, n, deadline);
		}
	}
	if (!ready)
		ready = park_on_sockets(ends, n, set, deadline, looked);
	if (!ends[0]->signals_seen)
		announce(ends, n, MK_AWAKE);
	return ready;
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

/* How long this wait spins. Not at all for a peer on the same core: it cannot answer while we look. */
static uint64_t spin_budget(struct mk_end **ends, unsigned n)
{
	uint64_t longest = 0;
	uint32_t here = (uint32_t)sched_getcpu();

	for (unsigned i = 0; i < n; i++) {
		mk_store_relaxed(ends[i]->cpu, here); /* a hint to the other side */
		if (ends[i]->policy == MK_WAIT_SPIN)
			return UINT64_MAX;
		if (ends[i]->policy == MK_WAIT_ADAPTIVE && mk_load_relaxed(ends[i]->peer_cpu) != here &&
		    ends[i]->spin_ns > longest)
			longest = ends[i]->spin_ns;
	}
	return longest;
}

/* A wait that was short enough is worth spinning for; long ones make the next spin shorter. */
static void learn(struct mk_end **ends, unsigned n, uint64_t waited)
{
	for (unsigned i = 0; i < n; i++) {
		if (waited < SPIN_WORTH_NS)
			ends[i]->spin_ns = SPIN_MAX_NS;
		else
			ends[i]->spin_ns -= ends[i]->spin_ns / 4;
	}
}

/* The wait that the caller looked for signals in is over without another sleep. */
static void wake_up(struct mk_end **ends, unsigned n)
{
	if (ends[0]->signals_seen)
		announce(ends, n, MK_AWAKE);
	ends[0]->signals_seen = false;
}

static int wait_for(struct mk_end **ends, unsigned n, struct mk_wait_set *set, int64_t timeout_ns)
{
	uint64_t begin;
	uint64_t deadline;
	uint64_t budget;
	bool goes_on; /* after the caller has looked for signals */
	int ready = count_ready(ends, n);

	if (!ready)
		for (unsigned i = 0; i < n; i++)
			ready += mk_end_gone(ends[i], timeout_ns == 0);
	if (ready || timeout_ns == 0) {
		wake_up(ends, n);
		return ready ? ready : -ETIMEDOUT;
	}
	begin = mk_now();
	deadline = timeout_ns < 0 ? UINT64_MAX : begin + (uint64_t)timeout_ns;
	goes_on = ends[0]->signals_seen;
	budget = spin_budget(ends, n);
	if (goes_on && budget != UINT64_MAX)
		budget = 0;
	if (budget == UINT64_MAX) { /* never sleeps: looks for signals and deaths by coming back */
		uint64_t slice = begin + SPIN_SLICE_NS;

		ready = spin(ends, n, slice < deadline ? slice : deadline);
		for (unsigned i = 0; !ready && i < n; i++)
			ready += mk_end_gone(ends[i], true);
		if (!ready)
			return mk_now() >= deadline ? -ETIMEDOUT : -EINTR;
	} else if (budget) {
		ready = spin(ends, n, begin + budget < deadline ? begin + budget : deadline);
	}
	if (ready)
		mk_count(&ends[0]->wait_counters->spins, 1);
	else
		ready = park(ends, n, set, deadline);
	if (ready > 0)
		learn(ends, n, goes_on ? UINT64_MAX : mk_now() - begin);
	return ready;
}

int mk_wait(struct mk_end *end, int64_t timeout_ns)
{
	int ready = wait_for(&end, 1, NULL, timeout_ns);

	return ready > 0 ? 0 : ready;
}

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
	return set;
}

void mk_wait_set_free(struct mk_wait_set *set)
{
	if (!set)
		return;
	close(set->epoll);
	free(set->ends);
	free(set);
}

static void unwatch(int epoll, int fd)
{
	if (fd >= 0)
		epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}

int mk_wait_set_add(struct mk_wait_set *set, struct mk_end *end)
{
	int result;

	if (set->count == set->room) {
		unsigned room = set->room ? 2 * set->room : 8;
		struct mk_end **ends = realloc(set->ends, room * sizeof(*ends));

		if (!ends)
			return -ENOMEM;
		set->ends = ends;
		set->room = room;
	}
	result = watch(set->epoll, end->socket, end);
	if (result)
		return result;
	end->pidfd_in_set = false;
	result = watch_pidfd(set->epoll, end, &end->pidfd_in_set);
	if (result) {
		unwatch(set->epoll, end->socket);
		return result;
	}
	set->ends[set->count++] = end;
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
		return 0;
	}
	return -ENOENT;
}

unsigned mk_wait_set_ends(const struct mk_wait_set *set, struct mk_end *const **ends)
{
	*ends = set->ends;
	return set->count;
}

int mk_wait_set_wait(struct mk_wait_set *set, int64_t timeout_ns)
{
	if (!set->count)
		return -EINVAL;
	return wait_for(set->ends, set->count, set, timeout_ns);
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
		result = watch(end->event, end->event_self, end);
	if (!result)
		result = watch(end->event, end->socket, end);
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

void mk_event_settle(struct mk_end *end)
{
	if (end->event < 0)
		return;
	if (mk_end_ready(end)) {
		announce(&end, 1, MK_AWAKE);
		set_event(end, true);
		return;
	}
	set_event(end, false);
	mk_end_gone(end, true); /* takes the bytes */
	watch_pidfd(end->event, end, &end->pidfd_in_event);
	announce(&end, 1, MK_PARKED_SOCKET); /* as W7, W8: the loop may sleep without a limit */
	bring_to_order(&end, 1);
	if (mk_end_ready(end))
		set_event(end, true);
}
