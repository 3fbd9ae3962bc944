/* doorbell.c: waiting and waking. The protocol (W1-W9) is in doorbell.h; what it pays to spin, in spin.h.
 *
 * Two ways to sleep: on the other side's bell word (futex, for at most 10 ms; one end, or two where futex_waitv
 * exists), and in poll or epoll on the socket pairs and pidfds, which has no limit, takes any number of ends,
 * and learns of a death at once.
 */
#include "waiting.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv /* headers before Linux 5.16 */
#define SYS_futex_waitv 449
#endif

#define LOOK_ON_NS 3000u /* W2: far longer than a store stays in a store buffer */
/* W6: the bounded first sleep. Not shorter than the ticks of a system are apart: a timer that is the next to expire has
 * to be programmed, which on a virtual machine costs microseconds at each sleep and wake-up. */
#define FIRST_SLEEP_NS 10000000u
#define SLICE_NS 10000000u     /* W9 without membarrier */
#define SPIN_SLICE_NS 5000000u /* a wait that never sleeps comes back this often, to look for signals */
#define GLANCE_NS 50000u       /* and looks at other descriptors this often */
#define FALLS_ASLEEP_NS 2000u  /* from the call to the sleep: who is rung earlier does not sleep yet */
#define LOOKS_PER_CLOCK 8u     /* ends looked at between two readings of the clock */

struct futex_waiter { /* struct futex_waitv of linux/futex.h, absent before 5.16 */
	uint64_t value, address;
	uint32_t flags, reserved;
};
#define FUTEX_WAITER_32_SHARED 2u

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

int mk_count_ready(const struct group *g)
{
	int ready = 0;

	for (unsigned i = 0; i < g->n; i++)
		ready += mk_end_ready(g->ends[i]);
	return ready;
}

/* Look until something is there or @until has come. */
static int spin(const struct group *g, uint64_t until)
{
	for (unsigned looked = g->n;; looked += g->n) {
		int ready = mk_count_ready(g);

		if (ready)
			return ready;
		if (looked >= LOOKS_PER_CLOCK) {
			if (mk_now() >= until)
				return 0;
			looked = 0;
		}
		mk_pause();
	}
}

/* --- saying so -------------------------------------------------------------------------------------------------- */

/* W1, W4, W7. Each park has a number, so that one ring answers one park. */
static void announce(const struct group *g, uint32_t mode)
{
	for (unsigned i = 0; i < g->n; i++)
		mk_announce(g->ends[i], mode);
}

void mk_announce(struct mk_end *end, uint32_t mode)
{
	end->asleep = false;
	if (mode != MK_AWAKE)
		end->parks++;
	/* Relaxed: what must come after it is ordered by the caller's fence; pairs with P1, P2. */
	mk_store_relaxed(end->parked, end->parks << 2 | mode);
}

/* Say where we run: a hint to the other side, is spinning of use? The line is one that it looks at when it publishes,
 * so it is left alone as long as nothing has changed. */
static uint32_t say_cpu(struct mk_end *end)
{
	uint32_t here = (uint32_t)sched_getcpu();

	if (mk_load_relaxed(end->cpu) != here)
		mk_store_relaxed(end->cpu, here);
	return here;
}

void mk_ring_bell(struct mk_end *end)
{
	uint32_t word = mk_load_acquire(end->peer_parked); /* pairs with the release store in mk_end_close */
	uint32_t bell;
	uint32_t time;

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
	say_cpu(end);
	mk_count(&end->counters->wakes, 1);
	bell = mk_load_relaxed(end->bell);
	time = (uint32_t)mk_now(); /* who wakes sees what the wake-up cost */
	/* Changes whatever the clock says. Pairs with the acquire load of the bell before W4, and with the kernel's
	 * look at W6. */
	mk_store_release(end->bell, time == bell ? time + 1 : time);
	if ((word & MK_PARKED_MODE) == MK_PARKED_FUTEX) {
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
static int sleep_on_bells(struct group *g, const uint32_t *bells, uint64_t until)
{
	struct futex_waiter waiters[2];
	struct timespec limit;
	long result;

	g->slept_at = mk_now();
	if (g->n == 1) {
		limit = to_timespec(until > g->slept_at ? until - g->slept_at : 0);
		result = syscall(SYS_futex, g->ends[0]->peer_bell, FUTEX_WAIT, bells[0], &limit, NULL, 0);
		return result < 0 ? -errno : 0;
	}
	for (unsigned i = 0; i < 2; i++)
		waiters[i] = (struct futex_waiter){bells[i], (uint64_t)(uintptr_t)g->ends[i]->peer_bell,
						   FUTEX_WAITER_32_SHARED, 0};
	limit = to_timespec(until);
	result = syscall(SYS_futex_waitv, waiters, 2, 0, &limit, CLOCK_MONOTONIC);
	return result < 0 ? -errno : 0;
}

/* W1, W2. @return how many are ready */
static int look_on(struct group *g)
{
	announce(g, MK_MAY_PARK);
	return spin(g, mk_now() + LOOK_ON_NS);
}

/* W4-W6. @return how many are ready; 0: time to sleep otherwise; -ETIMEDOUT, -EINTR */
static int park_on_bells(struct group *g, uint64_t deadline)
{
	uint64_t until = mk_now() + FIRST_SLEEP_NS;

	if (until > deadline)
		until = deadline;
	for (;;) {
		uint32_t bells[2];
		int ready;
		int result;

		for (unsigned i = 0; i < g->n; i++) /* before W4: a ring after it changes this */
			bells[i] = mk_load_acquire(g->ends[i]->peer_bell);
		announce(g, MK_PARKED_FUTEX);
		mk_fence(); /* pairs with the fence in mk_ring_bell, or in mk_notify of a side that fences */
		ready = mk_count_ready(g);
		if (ready)
			return ready;
		result = sleep_on_bells(g, bells, until);
		ready = mk_count_ready(g);
		if (ready)
			return ready;
		if (result == -EINTR)
			return -EINTR;
		if (result == -ENOSYS || result == -EPERM || result == -EINVAL) /* no futex_waitv, or filtered */
			return 0;
		if (mk_now() >= until)
			return until == deadline ? -ETIMEDOUT : 0;
		/* For nothing. Another sleep needs as long a look as the first. */
		mk_count(&g->ends[0]->wait_counters->spurious, 1);
		ready = look_on(g);
		if (ready)
			return ready;
	}
}

/* Whether the peer fences after each publish. It says so in its page before it is seen as open. */
static bool peer_fences(const struct mk_end *end)
{
	const volatile struct mk_object *page = end->peer_map;

	return mk_load_acquire(end->peer_state) != MK_END_UNCLAIMED && (page->flags & MK_FENCES);
}

/* W7: from here on, either the look at W8 sees what a peer published, or that peer sees us parked and rings.
 * @return whether that is certain */
bool mk_bring_to_order(const struct group *g)
{
	bool certain = true;

	mk_fence(); /* pairs with the fence of a peer that fences */
	for (unsigned i = 0; i < g->n; i++) {
		if (g->ends[i]->socket < 0) /* nothing to ring */
			return false;
		if (!peer_fences(g->ends[i]))
			certain = false;
	}
	return certain || mk_membarrier() == 0; /* pairs with R and P of every registered peer */
}

bool mk_park_for_long(struct mk_end *end)
{
	struct group g = {.ends = &end, .n = 1};

	mk_announce(end, MK_PARKED_SOCKET);
	return mk_bring_to_order(&g);
}

static int64_t until_then(uint64_t limit)
{
	return limit > INT64_MAX ? -1 : (int64_t)limit;
}

/* W4-W6 on sockets. @return how many are ready; 0: time to sleep for longer; -ETIMEDOUT, -EINTR, -errno */
static int park_at_first(struct group *g, uint64_t deadline)
{
	uint64_t until = mk_now() + FIRST_SLEEP_NS;

	if (until > deadline)
		until = deadline;
	for (;;) {
		int ready;
		int result;

		announce(g, MK_PARKED_SOCKET);
		mk_fence(); /* pairs with the fence in mk_ring_bell, or in mk_notify of a side that fences */
		ready = mk_count_ready(g);
		if (ready)
			return ready + mk_glance(g, 0);
		g->slept_at = mk_now();
		if (g->slept_at >= until)
			return until == deadline ? -ETIMEDOUT : 0;
		result = mk_group_poll(g, until_then(until - g->slept_at));
		ready = result > 0 ? result : mk_count_ready(g);
		if (ready || mk_group_watched_readable(g))
			return ready;
		if (result < 0)
			return result;
		if (mk_now() >= until)
			return until == deadline ? -ETIMEDOUT : 0;
		/* For nothing. Another sleep needs as long a look as the first. */
		mk_count(&g->ends[0]->wait_counters->spurious, 1);
		ready = look_on(g);
		if (ready)
			return ready;
	}
}

/* W7. @return whether that is certain, also of a peer's death */
static bool announce_sleep(struct group *g)
{
	announce(g, MK_PARKED_SOCKET);
	return mk_bring_to_order(g) & mk_watch_pidfds(g);
}

/* W7 is done: the caller looks for signals, and then it sleeps. Between the two there should be as little as can be, for
 * a signal that comes there interrupts nothing; above all no membarrier. */
static int look_for_signals(struct group *g, bool proven)
{
	for (unsigned i = 0; i < g->n; i++) {
		g->ends[i]->asleep = true;
		g->ends[i]->asleep_proven = proven;
		g->ends[i]->asleep_drains = mk_drains();
	}
	g->ends[0]->signals_seen = true;
	return -EINTR;
}

/* Whether W7 still holds after that. It does not for an end that a handler has used meanwhile, or has put into the set;
 * nor where bytes were taken off a socket, anywhere in this process: one park is rung once. */
static bool still_asleep(const struct group *g)
{
	for (unsigned i = 0; i < g->n; i++)
		if (!g->ends[i]->asleep || g->ends[i]->asleep_drains != mk_drains())
			return false;
	return true;
}

/* W7-W9. @return how many are ready; -ETIMEDOUT, -EINTR, -errno */
static int park_on_sockets(struct group *g, uint64_t deadline, bool looked)
{
	bool announced = looked && still_asleep(g);

	for (;;) {
		bool proven = announced ? g->ends[0]->asleep_proven : announce_sleep(g);
		int ready = mk_count_ready(g);
		int result;
		uint64_t limit = UINT64_MAX;

		if (ready)
			return ready + mk_glance(g, 0);
		/* Also after a wake-up without cause: who gives us many must not keep the caller from its signals. */
		if (g->ends[0]->interpreted && !looked)
			return look_for_signals(g, proven);
		looked = announced = false;
		g->slept_at = mk_now();
		if (g->slept_at >= deadline)
			return -ETIMEDOUT;
		if (deadline != UINT64_MAX)
			limit = deadline - g->slept_at;
		if (!proven && limit > SLICE_NS)
			limit = SLICE_NS;
		result = mk_group_poll(g, until_then(limit));
		for (unsigned i = 0; !proven && i < g->n; i++)
			mk_end_gone(g->ends[i], true); /* there may be no descriptor that tells us */
		ready = result > 0 ? result : mk_count_ready(g);
		if (ready || mk_group_watched_readable(g))
			return ready;
		if (result < 0)
			return result;
		if (mk_now() < deadline && limit != SLICE_NS)
			mk_count(&g->ends[0]->wait_counters->spurious, 1);
	}
}

static bool all_there(const struct group *g)
{
	for (unsigned i = 0; i < g->n; i++)
		if (g->ends[i]->due || mk_load_acquire(g->ends[i]->peer_state) == MK_END_UNCLAIMED)
			return false;
	return true;
}

static int park(struct group *g, uint64_t deadline)
{
	struct mk_end *end = g->ends[0];
	bool looked = end->signals_seen;
	int ready = 0;

	end->signals_seen = false;
	if (!looked) {
		ready = look_on(g);
		if (!ready) {
			mk_count(&end->wait_counters->parks, 1);
			for (unsigned i = 0; i < g->n; i++)
				mk_end_count(g->ends[i]); /* whoever watches has time to see it now */
			/* A claim rings the socket, not the bell: there may be nobody yet who could ring that. So does
			 * the host for a peer that is dead. */
			if (g->n <= 2 && !g->fd_count && !mk_group_watches(g) && all_there(g))
				ready = park_on_bells(g, deadline);
			else
				ready = park_at_first(g, deadline);
		}
	}
	if (!ready && !mk_group_watched_readable(g))
		ready = park_on_sockets(g, deadline, looked);
	if (!end->signals_seen)
		announce(g, MK_AWAKE);
	return ready;
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

/* How long this wait spins. Not at all for peers on the same core: they cannot answer while we look. What a peer says
 * may be old if it has neither waited nor rung since it moved; then this wait, or the next, sleeps and is rung. */
static uint64_t spin_budget(const struct group *g)
{
	uint64_t budget = 0;

	for (unsigned i = 0; i < g->n; i++) {
		uint32_t here = say_cpu(g->ends[i]);

		if (g->ends[i]->policy == MK_WAIT_SPIN)
			return UINT64_MAX;
		if (g->ends[i]->policy == MK_WAIT_ADAPTIVE && mk_load_relaxed(g->ends[i]->peer_cpu) != here)
			budget = g->spin->budget_ns;
	}
	return budget;
}

/* After a wait: when did it come, or how long did it not, and what did the wake-up cost? Who rang has left the time in
 * its bell. */
static void learn(const struct group *g, uint64_t begin, bool came)
{
	uint64_t now = mk_now();
	uint64_t waited = now - begin;
	struct mk_end *end = g->woken;

	for (unsigned i = 0; g->slept_at && !end && i < g->n; i++)
		if (mk_end_ready(g->ends[i]))
			end = g->ends[i];
	if (g->slept_at && end) {
		uint32_t ago = (uint32_t)now - mk_load_relaxed(end->peer_bell); /* input: any number at all */

		if (ago <= now - g->slept_at) { /* it was rung in this sleep */
			if (now - g->slept_at - ago > FALLS_ASLEEP_NS &&
			    mk_load_relaxed(end->peer_cpu) != mk_load_relaxed(end->cpu))
				mk_spin_woken(g->spin, ago);
			waited -= ago;
		}
	}
	if (came || waited > g->spin->wake_ns)
		mk_spin_learn(g->spin, waited);
}

/* Never sleeps: looks for signals and deaths by coming back. */
static int spin_on(struct group *g, uint64_t begin, uint64_t deadline)
{
	uint64_t slice = begin + SPIN_SLICE_NS < deadline ? begin + SPIN_SLICE_NS : deadline;
	int ready;

	do {
		uint64_t until = g->fd_count ? mk_now() + GLANCE_NS : slice;

		ready = spin(g, until < slice ? until : slice);
		if (!ready)
			ready = mk_glance(g, 0);
	} while (!ready && mk_now() < slice);
	if (!ready)
		ready = mk_group_ask(g);
	if (!ready && !mk_group_watched_readable(g))
		return mk_now() >= deadline ? -ETIMEDOUT : -EINTR;
	return ready;
}

/* The wait that the caller looked for signals in is over without another sleep. */
static void wake_up(struct group *g)
{
	if (g->ends[0]->signals_seen)
		announce(g, MK_AWAKE);
	g->ends[0]->signals_seen = false;
}

int mk_group_wait(struct group *g, int64_t timeout_ns)
{
	struct mk_end *end = g->ends[0];
	int ready = mk_count_ready(g);
	uint64_t begin;
	uint64_t deadline;
	uint64_t budget;
	bool goes_on; /* after the caller has looked for signals */

	if (ready) {
		wake_up(g);
		return ready + mk_glance(g, GLANCE_EVERY_NS);
	}
	ready = mk_glance(g, 0);
	if (!ready)
		ready = mk_group_gone(g, timeout_ns == 0);
	if (ready || timeout_ns == 0) {
		wake_up(g);
		return ready || mk_group_watched_readable(g) ? ready : -ETIMEDOUT;
	}
	begin = mk_now();
	deadline = timeout_ns < 0 ? UINT64_MAX : begin + (uint64_t)timeout_ns;
	goes_on = end->signals_seen;
	budget = spin_budget(g);
	g->slept_at = 0;
	if (budget == UINT64_MAX)
		ready = spin_on(g, begin, deadline);
	else if (budget && !goes_on)
		ready = spin(g, begin + budget < deadline ? begin + budget : deadline);
	if (budget == UINT64_MAX && ready <= 0)
		return ready;
	if (ready)
		mk_count(&end->wait_counters->spins, 1);
	else
		ready = park(g, deadline);
	if (goes_on)
		mk_spin_learn(g->spin, UINT64_MAX);
	else if (ready > 0 || ready == -ETIMEDOUT)
		learn(g, begin, ready > 0);
	return ready;
}

int mk_wait(struct mk_end *end, int64_t timeout_ns)
{
	struct group g = {.ends = &end, .n = 1, .spin = &end->spin};
	int ready = mk_group_wait(&g, timeout_ns);

	return ready > 0 ? 0 : ready;
}
