/* shim.h: what the binding adds to the core, compiled into the cffi module.
 *
 * Each call enters its end and leaves it again (ends.h). Deadlines are CLOCK_MONOTONIC nanoseconds; 0: do not wait;
 * < 0: none, and another number for each wait: a call that came back with -EINTR is made again with the same one.
 */
#include "ends.h"

#include "multikernel/cache_line.h"
#include "multikernel/console.h"
#include "multikernel/histogram.h"
#include "multikernel/memory.h"
#include "multikernel/probe.h"
#include "multikernel/process.h"
#include "multikernel/queue.h"
#include "multikernel/resume.h"
#include "multikernel/spawn.h"
#include "multikernel/status.h"

#include <poll.h>

/* Where the words of a lane lie in its objects, for who reads them by descriptor: multikernel/shm/lane_look.py. */
#define MK_PY_HEAD_AT offsetof(struct mk_producer, head)
#define MK_PY_TAIL_AT offsetof(struct mk_consumer, tail)
#define MK_PY_SEEN_AT offsetof(struct mk_consumer, seen)
#define MK_PY_RECEIVER_PARKED_AT offsetof(struct mk_consumer, parked)
#define MK_PY_RECEIVER_STATE_AT offsetof(struct mk_consumer, state)

/* Whether memory that was lent out is still to be given back: not in a process forked since, where it is not mapped. */
static int mk_py_lent(struct mk_end *end)
{
	return end->generation == mk_fork_generation() ? 0 : -ECHILD;
}

/* Whether this thread is in the end: its interpreter left a call by an exception between taking and giving back. */
static int mk_py_stranded(struct mk_end *end)
{
	if (end->generation != mk_fork_generation())
		return 0;
	return mk_load_relaxed(&end->busy) == mk_py_self() || (end->bias == mk_py_self() && mk_load_relaxed(&end->held));
}

/* Close an end for good. It stays taken, and its memory is there until mk_py_drop_*: a call that another thread was
 * about to make finds that. @return 0; -EBUSY: it is in use, nothing was done */
static int mk_py_close(struct mk_end *end)
{
	int result = mk_py_seize(end);

	if (result == -EBUSY)
		return result;
	if (!result && end->by_bias) { /* nobody enters by it any more; who tries to enter by busy at this moment finds us */
		uintptr_t nobody = 0;

		mk_store_relaxed(&end->shared, 2);
		while (!atomic_compare_exchange_weak_explicit(&end->busy, &nobody, MK_PY_CLOSED, memory_order_relaxed,
							      memory_order_relaxed)) {
			nobody = 0;
			sched_yield();
		}
	}
	mk_store_relaxed(&end->busy, MK_PY_CLOSED);
	mk_end_close(end);
	if (!result && end->by_bias)
		mk_store_release(&end->held, 0);
	return 0;
}

static void mk_py_drop_sender(struct mk_sender **tx)
{
	mk_sender_close(*tx);
}

static void mk_py_drop_receiver(struct mk_receiver **rx)
{
	mk_receiver_close(*rx);
}

static struct mk_end *mk_py_sender_end(struct mk_sender *tx)
{
	return &tx->end;
}

static struct mk_end *mk_py_receiver_end(struct mk_receiver *rx)
{
	return &rx->end;
}


/* Only the wait that has asked for a look for signals may take it for done: not the one after it, should a handler have
 * ended that one by an exception. */
static void mk_py_goes_on(struct mk_end *end, int64_t deadline)
{
	if (end->waits_until != deadline)
		end->signals_seen = false;
	end->waits_until = deadline;
}

/* @return 0: look again; -EAGAIN: it was not to wait; -ETIMEDOUT; -EINTR */
static int mk_py_wait_until(struct mk_end *end, int64_t deadline)
{
	int64_t left = -1;

	if (deadline == 0) {
		uint64_t now = mk_now();

		if (now - end->looked < MK_PY_LIFE_NS)
			return -EAGAIN;
		end->looked = now;
		return mk_end_gone(end, true) ? 0 : -EAGAIN;
	}
	mk_py_goes_on(end, deadline);
	if (deadline > 0) {
		left = deadline - (int64_t)mk_now();
		if (left < 0)
			left = 0;
	}
	return mk_wait(end, left);
}

/* As mk_py_enter, for what sends or receives: -ESTALE if the host has published something of the peer, at which the
 * caller looks first, and then says mk_py_watch_fate. */
static int mk_py_enter_lane(struct mk_end *end)
{
	int result = mk_py_enter(end);

	if (!result && mk_fate_changed(end)) {
		mk_py_leave(end);
		return -ESTALE;
	}
	return result;
}

/* --- either ------------------------------------------------------------------------------------------------------ */

static int mk_py_wait(struct mk_end *end, int64_t deadline)
{
	int result = mk_py_enter(end);

	if (result)
		return result;
	result = mk_py_wait_until(end, deadline);
	mk_py_leave(end);
	return result;
}

/* For the other end of the same link, whose socket pair this end's wait may have read. */
static int mk_py_settle(struct mk_end *end)
{
	int result = mk_py_enter(end);

	if (!result)
		mk_py_leave(end);
	return result;
}

/* Whether a wait would return at once. @return 1, 0; -ECHILD, -EBUSY */
static int mk_py_ready(struct mk_end *end)
{
	int result = mk_py_enter(end);

	if (result)
		return result;
	result = mk_end_ready(end);
	mk_py_unseize(end);
	return result;
}

/* Whether the peer closed its end itself; a dead one did not. */
static int mk_py_peer_closed(struct mk_end *end)
{
	int result = mk_py_enter(end);

	if (result)
		return result;
	result = mk_load_acquire(end->peer_state) == MK_END_CLOSED; /* pairs with the release in mk_end_close */
	mk_py_leave(end);
	return result;
}

/* Look, by system calls, whether the other side is gone: a sender that finds out says so from now on. */
static int mk_py_peer_gone(struct mk_end *end)
{
	int result = mk_py_enter(end);

	if (result)
		return result;
	result = mk_end_gone(end, true);
	mk_py_leave(end);
	return result;
}

static int mk_py_counters(struct mk_end *end, struct mk_counters *counters)
{
	int result = mk_py_seize(end);

	if (result)
		return result;
	end->counters = end->wait_counters = counters ? counters : &end->own_counters;
	mk_py_leave(end);
	return 0;
}

/* As mk_py_counters, for the waits alone: the waits of a host lane are the instance's, its messages are the host's. */
static int mk_py_wait_counters(struct mk_end *end, struct mk_counters *counters)
{
	int result = mk_py_seize(end);

	if (result)
		return result;
	end->wait_counters = counters;
	mk_py_leave(end);
	return 0;
}

/* Counters may lie in a page that a forked copy does not have. @return 0; -ECHILD */
static int mk_py_read_counters(struct mk_end *end, struct mk_counters_copy *copy)
{
	const _Atomic uint64_t *from = &end->counters->sent;
	uint64_t *to = &copy->sent;

	if (end->generation != mk_fork_generation())
		return -ECHILD;
	for (size_t i = 0; i < sizeof(*copy) / sizeof(uint64_t); i++)
		to[i] = mk_load_relaxed(&from[i]);
	return 0;
}

static int mk_py_event(struct mk_end *end)
{
	int result = mk_py_enter(end);

	if (result)
		return result;
	result = mk_event_descriptor(end); /* settles a new one */
	mk_py_unseize(end);
	return result;
}

/* Every end of the set is taken for the time of the wait, so that none is closed below it.
 * @param fds    descriptors besides, as for mk_wait_set_wait_beside
 * @param ready  gets which ends can go on, in the order in which they were added; NULL: it is not asked
 * @param found  whether the caller has found something already: then this only looks
 * @return how many can go on; -ETIMEDOUT, -EINTR; -EBUSY, -ECHILD */
static int mk_py_set_wait(struct mk_wait_set *set, struct pollfd *fds, int fd_count, unsigned char *ready, int found,
			  int64_t deadline)
{
	struct mk_end *const *ends;
	unsigned count = mk_wait_set_ends(set, &ends);
	unsigned entered = 0;
	int64_t left = deadline;
	int result = 0;

	while (entered < count && !(result = mk_py_enter(ends[entered])))
		entered++;
	if (!result && found) {
		result = mk_wait_set_look_beside(set, fds, (unsigned)fd_count);
	} else if (!result) {
		if (deadline > 0) {
			left = deadline - (int64_t)mk_now();
			if (left < 0)
				left = 0;
		}
		if (count)
			mk_py_goes_on(ends[0], deadline);
		result = mk_wait_set_wait_beside(set, fds, (unsigned)fd_count, left);
	}
	for (unsigned i = 0; ready && result > 0 && i < count; i++)
		ready[i] = mk_end_ready(ends[i]);
	while (entered)
		mk_py_leave(ends[--entered]);
	return result;
}

/* Which of several ends can go on. No system call. @return how many; -EBUSY, -ECHILD */
static int mk_py_look(struct mk_end **ends, int count, unsigned char *ready)
{
	int total = 0;

	for (int i = 0; i < count; i++) {
		int result = mk_py_ready(ends[i]);

		if (result < 0)
			return result;
		ready[i] = (unsigned char)result;
		total += result;
	}
	return total;
}

/* What an end knows, for messages to people. */
struct mk_py_view {
	uint64_t capacity, used, bad_value, epoch;
	uint32_t bad, peer_pid, peer_id, element;
	int gone, claimed_here, hung_up;
};

static void mk_py_inspect(struct mk_end *end, struct mk_py_view *view)
{
	bool mine = end->bias == mk_py_self();
	bool here = end->generation == mk_fork_generation() &&
		    !(mine ? mk_py_seize(end) : mk_py_take(end, MK_PY_LOOKING));

	memset(view, 0, sizeof(*view));
	view->capacity = end->shape.capacity;
	view->element = end->shape.element;
	view->bad = end->bad;
	view->bad_value = end->bad_value;
	view->claimed_here = end->generation == mk_fork_generation();
	view->gone = end->gone;
	view->hung_up = end->hung_up;
	if (!here) /* another call has it: what it knows by itself will do */
		return;
	if (!end->peer_map) {
		mk_py_unseize(end);
		return;
	}
	const volatile struct mk_object *peer = end->peer_map;
	view->peer_pid = peer->owner_pid;
	view->peer_id = peer->owner_id;
	view->gone = mk_end_gone(end, true);
	view->hung_up = end->hung_up;
	if (end->sending) {
		struct mk_sender *tx = (struct mk_sender *)(void *)end;
		view->used = tx->head - mk_load_relaxed(&tx->peer->tail);
	} else {
		struct mk_receiver *rx = (struct mk_receiver *)(void *)end;
		view->used = mk_load_relaxed(&rx->peer->head) - rx->tail;
	}
	if (view->used > view->capacity) /* the peer's word: not checked here, so not believed */
		view->used = view->capacity;
	mk_py_leave(end);
}

static int mk_py_policy(struct mk_end *end, int policy)
{
	if (policy < MK_WAIT_ADAPTIVE || policy > MK_WAIT_PARK)
		return -EINVAL;
	end->policy = (uint8_t)policy;
	end->interpreted = true;
	mk_py_bias(end);
	return 0;
}
