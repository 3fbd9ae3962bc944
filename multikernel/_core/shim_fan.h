/* shim_fan.h: what the binding adds to mailboxes and broadcasts. Compiled behind shim.h, whose deadlines these are.
 *
 * As with ends, a call takes its object and gives it back, and who finds it taken is told so (-EBUSY); in a forked copy
 * everything is -ECHILD, after the close -EBADF. A call that says "keeps" has the object until another gives it back.
 */
#include "multikernel/broadcast.h"
#include "multikernel/mailbox.h"

#define MK_PY_OVER ((uintptr_t)1) /* whose a closed object is */

struct mk_py_guard {
	_Atomic uintptr_t whose; /* the thread that has it, 0: nobody */
	uint32_t generation;
	int64_t waits_until; /* the deadline of the wait that came back with -EINTR */
};

/* Acquire and, in mk_py_guard_leave, release: the next thread sees what this one left behind. */
static int mk_py_guard_enter(struct mk_py_guard *guard)
{
	uintptr_t had = 0;

	if (guard->generation != mk_fork_generation())
		return -ECHILD;
	if (atomic_compare_exchange_strong_explicit(&guard->whose, &had, mk_py_self(), memory_order_acquire,
						    memory_order_relaxed))
		return 0;
	return had == MK_PY_OVER ? -EBADF : -EBUSY;
}

static void mk_py_guard_leave(struct mk_py_guard *guard)
{
	mk_store_release(&guard->whose, 0);
}

/* Whether it is this thread that has it. */
static int mk_py_guard_held(struct mk_py_guard *guard)
{
	return guard->generation == mk_fork_generation() && mk_load_relaxed(&guard->whose) == mk_py_self();
}

/* @return whether a wait until @deadline is the one that came back with -EINTR */
static bool mk_py_guard_goes_on(struct mk_py_guard *guard, int64_t deadline)
{
	bool goes_on = guard->waits_until == deadline;

	guard->waits_until = deadline;
	return goes_on;
}

static int64_t mk_py_left(int64_t deadline)
{
	int64_t left;

	if (deadline <= 0)
		return deadline;
	left = deadline - (int64_t)mk_now();
	return left > 0 ? left : 0;
}

/* What a wait means to who has not found anything. @return 0: look again; -EAGAIN: it was not to wait */
static int mk_py_waited(int result, int64_t deadline)
{
	return result == -ETIMEDOUT && !deadline ? -EAGAIN : result;
}

/* --- mailbox ------------------------------------------------------------------------------------------------------ */

struct mk_py_mailbox {
	struct mk_py_guard guard;
	struct mk_mailbox *box;
	uint32_t number; /* whose lane was looked at last */
};

/* Keeps it: mk_py_mailbox_leave. */
static struct mk_py_mailbox *mk_py_mailbox_new(int policy)
{
	struct mk_py_mailbox *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->box = mk_mailbox_new((uint8_t)policy, true);
	if (!m->box) {
		free(m);
		return NULL;
	}
	m->guard.generation = mk_fork_generation();
	m->guard.whose = mk_py_self();
	return m;
}

static void mk_py_mailbox_drop(struct mk_py_mailbox *m)
{
	mk_mailbox_free(m->box);
	free(m);
}

/* @return 0; -EBUSY: it is in use, nothing was done */
static int mk_py_mailbox_close(struct mk_py_mailbox *m)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result == -EBUSY || result == -EBADF)
		return result == -EBUSY ? result : 0;
	mk_mailbox_close(m->box);
	mk_store_release(&m->guard.whose, MK_PY_OVER);
	return 0;
}

static void mk_py_mailbox_leave(struct mk_py_mailbox *m)
{
	if (!mk_py_guard_held(&m->guard))
		return;
	mk_mailbox_settle(m->box);
	mk_py_guard_leave(&m->guard);
}

/* For who has it. On success the receiver is the mailbox's and *rx is NULL. */
static int mk_py_mailbox_add(struct mk_py_mailbox *m, struct mk_receiver **rx, uint32_t number)
{
	int result = mk_py_guard_held(&m->guard) ? mk_mailbox_add(m->box, *rx, number) : -EBUSY;

	if (!result)
		*rx = NULL;
	return result;
}

static int mk_py_mailbox_watch(struct mk_py_mailbox *m, int fd)
{
	return mk_py_guard_held(&m->guard) ? mk_mailbox_watch(m->box, fd) : -EBUSY;
}

static void mk_py_mailbox_unwatch(struct mk_py_mailbox *m, int fd)
{
	if (mk_py_guard_held(&m->guard))
		mk_mailbox_unwatch(m->box, fd);
}

/* Keeps it when it finds something, and for 0 (look at what is watched), until mk_py_mailbox_give or _leave. */
static int mk_py_mailbox_peek(struct mk_py_mailbox *m, struct mk_message *messages, int limit, int64_t deadline)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result)
		return result;
	while ((result = mk_mailbox_peek(m->box, messages, (unsigned)limit, &m->number)) == -EAGAIN) {
		bool goes_on = deadline && mk_py_guard_goes_on(&m->guard, deadline);

		result = mk_py_waited(mk_mailbox_wait(m->box, mk_py_left(deadline), goes_on), deadline);
		if (result)
			break;
	}
	if (result < 0)
		mk_py_mailbox_leave(m);
	return result;
}

/* As mk_py_mailbox_peek, without waiting, for the extension. Keeps it for what it finds, and for 0; with @later that is
 * -EAGAIN now, and 0 the next time. */
static int mk_py_mailbox_look(struct mk_py_mailbox *m, struct mk_message *messages, int limit, uint32_t *number, bool later)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result)
		return result;
	result = mk_mailbox_peek(m->box, messages, (unsigned)limit, &m->number);
	*number = m->number;
	if (!result && later) {
		mk_mailbox_remind(m->box);
		result = -EAGAIN;
	}
	if (result < 0)
		mk_py_mailbox_leave(m);
	return result;
}

/* Give it back after a look, by whatever thread: with the space of what was seen, or that is next again. */
static int mk_py_mailbox_give(struct mk_py_mailbox *m, int ended_well)
{
	if (m->guard.generation != mk_fork_generation())
		return -ECHILD;
	if (ended_well)
		mk_mailbox_release(m->box);
	else
		mk_mailbox_unpeek(m->box);
	mk_mailbox_settle(m->box);
	mk_py_guard_leave(&m->guard);
	return 0;
}

/* After an exception in the middle of a call: what was looked at is next again, the mailbox is free. */
static void mk_py_mailbox_recover(struct mk_py_mailbox *m)
{
	if (!mk_py_guard_held(&m->guard))
		return;
	mk_mailbox_unpeek(m->box);
	mk_py_mailbox_leave(m);
}

/* Keeps it: mk_py_mailbox_leave. */
static int mk_py_mailbox_enter(struct mk_py_mailbox *m)
{
	return mk_py_guard_enter(&m->guard);
}

/* For who has it. */
static int64_t mk_py_mailbox_waiting(struct mk_py_mailbox *m)
{
	return mk_py_guard_held(&m->guard) ? (int64_t)mk_mailbox_waiting(m->box) : -EBUSY;
}

/* For who has it. @return whether no more can come */
static int mk_py_mailbox_over(struct mk_py_mailbox *m)
{
	return mk_py_guard_held(&m->guard) && mk_mailbox_over(m->box);
}

static int mk_py_mailbox_event(struct mk_py_mailbox *m)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result)
		return result;
	result = mk_mailbox_descriptor(m->box);
	mk_py_mailbox_leave(m);
	return result;
}

/* @return how many there are; up to @room of them are in @numbers */
static int mk_py_mailbox_numbers(struct mk_py_mailbox *m, uint32_t *numbers, int room)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result)
		return result;
	result = (int)mk_mailbox_numbers(m->box, numbers, (unsigned)room);
	mk_py_mailbox_leave(m);
	return result;
}

/* Whose lane was looked at last. */
static uint32_t mk_py_mailbox_number(struct mk_py_mailbox *m)
{
	return m->number;
}

static uint32_t mk_py_mailbox_bad(struct mk_py_mailbox *m, uint64_t *value)
{
	return mk_mailbox_bad(m->box, value);
}

/* --- the sender of a broadcast ------------------------------------------------------------------------------------- */

struct mk_py_broadcast {
	struct mk_py_guard guard;
	struct mk_broadcast *cast;
};

/* Keeps it: mk_py_broadcast_leave. After an error *out is NULL. */
static int mk_py_broadcast_claim(struct mk_py_broadcast **out, int producer_fd, int roster_fd, int maker, int policy,
				 uint32_t *why)
{
	struct mk_py_broadcast *b = calloc(1, sizeof(*b));
	int result;

	if (!b)
		return -ENOMEM;
	b->guard.generation = mk_fork_generation();
	b->guard.whose = mk_py_self();
	result = mk_broadcast_claim(&b->cast, producer_fd, roster_fd, maker, (uint8_t)policy, true, why);
	if (result)
		free(b);
	else
		*out = b;
	return result;
}

static void mk_py_broadcast_drop(struct mk_py_broadcast **b)
{
	if (!*b)
		return;
	mk_broadcast_free((*b)->cast);
	free(*b);
}

static int mk_py_broadcast_close(struct mk_py_broadcast *b)
{
	int result = mk_py_guard_enter(&b->guard);

	if (result == -EBUSY || result == -EBADF)
		return result == -EBUSY ? result : 0;
	mk_broadcast_close(b->cast);
	mk_store_release(&b->guard.whose, MK_PY_OVER);
	return 0;
}

/* For who has it: all that was on its way has been taken in. */
static void mk_py_broadcast_caught_up(struct mk_py_broadcast *b)
{
	if (mk_py_guard_held(&b->guard))
		mk_broadcast_caught_up(b->cast);
}

static void mk_py_broadcast_leave(struct mk_py_broadcast *b)
{
	if (mk_py_guard_held(&b->guard))
		mk_py_guard_leave(&b->guard);
}

static int mk_py_broadcast_add(struct mk_py_broadcast *b, int consumer_fd, int socket, uint32_t number, uint32_t *why)
{
	return mk_py_guard_held(&b->guard) ? mk_broadcast_add(b->cast, consumer_fd, socket, number, why) : -EBUSY;
}

/* Send @count records, published together; a full ring publishes what is there and waits. *done of them were put.
 * @return 0 or why it stopped. After -ENOTCONN it keeps the broadcast: take in, mk_py_broadcast_caught_up, _leave, and again. */
static int mk_py_broadcast_send(struct mk_py_broadcast *b, const void *const *payloads, const uint64_t *lengths,
				int64_t count, int64_t deadline, int64_t *done)
{
	int result = mk_py_guard_enter(&b->guard);

	if (result)
		return result;
	while (*done < count) {
		result = mk_broadcast_put(b->cast, payloads[*done], lengths[*done]);
		if (!result) {
			++*done;
			continue;
		}
		mk_broadcast_publish(b->cast);
		if (result == -EAGAIN) {
			bool goes_on = deadline && mk_py_guard_goes_on(&b->guard, deadline);

			result = mk_py_waited(mk_broadcast_wait(b->cast, mk_py_left(deadline), goes_on), deadline);
		}
		if (result)
			break;
	}
	mk_broadcast_publish(b->cast);
	if (result != -ENOTCONN)
		mk_py_guard_leave(&b->guard);
	return result;
}

static int mk_py_broadcast_send_one(struct mk_py_broadcast *b, const char *payload, uint64_t length, int64_t deadline)
{
	const void *payloads[1] = {payload};
	int64_t done = 0;

	return mk_py_broadcast_send(b, payloads, &length, 1, deadline, &done);
}

/* As mk_py_broadcast_send_one, without waiting, and whatever comes of it leaves the broadcast: for the extension. */
static int mk_py_broadcast_try(struct mk_py_broadcast *b, const void *payload, uint64_t length)
{
	int result = mk_py_guard_enter(&b->guard);

	if (result)
		return result;
	result = mk_broadcast_put(b->cast, payload, length);
	if (!result)
		mk_broadcast_publish(b->cast);
	mk_py_guard_leave(&b->guard);
	return result;
}

/* After -ENOTCONN as mk_py_broadcast_send. */
static int mk_py_broadcast_receivers(struct mk_py_broadcast *b)
{
	int result = mk_py_guard_enter(&b->guard);

	if (result)
		return result;
	result = mk_broadcast_receivers(b->cast);
	if (result != -ENOTCONN)
		mk_py_guard_leave(&b->guard);
	return result;
}

static uint64_t mk_py_broadcast_longest(struct mk_py_broadcast *b)
{
	return mk_broadcast_longest(b->cast);
}

static uint32_t mk_py_broadcast_bad(struct mk_py_broadcast *b, uint64_t *value)
{
	return mk_broadcast_bad(b->cast, value);
}

/* --- a receiver that may be overtaken -------------------------------------------------------------------------------- */

struct mk_py_follower {
	struct mk_py_guard guard;
	struct mk_follower *follower;
	_Atomic uint64_t missed; /* in all, before what was given out last */
	uint64_t gap;            /* before what was looked at */
};

/* On success the receiver is the follower's and *rx is NULL. NULL: errno says why. */
static struct mk_py_follower *mk_py_follower_new(struct mk_receiver **rx, uint64_t number, int policy)
{
	struct mk_py_follower *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->follower = mk_follower_new(*rx, number);
	if (!f->follower) {
		free(f);
		return NULL;
	}
	(*rx)->end.policy = (uint8_t)policy;
	(*rx)->end.interpreted = true;
	*rx = NULL;
	f->guard.generation = mk_fork_generation();
	return f;
}

static void mk_py_follower_drop(struct mk_py_follower *f)
{
	mk_follower_free(f->follower);
	free(f);
}

static int mk_py_follower_close(struct mk_py_follower *f)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result == -EBUSY || result == -EBADF)
		return result == -EBUSY ? result : 0;
	mk_follower_close(f->follower);
	mk_store_release(&f->guard.whose, MK_PY_OVER);
	return 0;
}

static void mk_py_follower_leave(struct mk_py_follower *f)
{
	if (!mk_py_guard_held(&f->guard))
		return;
	mk_event_settle(&mk_follower_receiver(f->follower)->end);
	mk_py_guard_leave(&f->guard);
}

/* Keeps it when it finds something: mk_py_follower_give. */
static int mk_py_follower_peek(struct mk_py_follower *f, struct mk_message *messages, int limit, int64_t deadline)
{
	int result = mk_py_guard_enter(&f->guard);
	struct mk_end *end;

	if (result)
		return result;
	end = &mk_follower_receiver(f->follower)->end;
	while ((result = mk_follower_look(f->follower, messages, (unsigned)limit, &f->gap)) == -EAGAIN) {
		if (deadline && !mk_py_guard_goes_on(&f->guard, deadline))
			end->signals_seen = false;
		result = mk_py_waited(mk_wait(end, mk_py_left(deadline)), deadline);
		if (result)
			break;
	}
	/* Overtaken again and again is no reason to stay longer than was asked. */
	if (result == -EINTR && deadline > 0 && !mk_py_left(deadline))
		result = -ETIMEDOUT;
	if (result < 0)
		mk_py_follower_leave(f);
	return result;
}

/* As mk_py_follower_peek, without waiting, for the extension. */
static int mk_py_follower_look(struct mk_py_follower *f, struct mk_message *messages, int limit)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	result = mk_follower_look(f->follower, messages, (unsigned)limit, &f->gap);
	if (result < 0)
		mk_py_follower_leave(f);
	return result;
}

/* Give it back after a look, by whatever thread: without what was seen, or that is next again. */
static int mk_py_follower_give(struct mk_py_follower *f, int ended_well)
{
	if (f->guard.generation != mk_fork_generation())
		return -ECHILD;
	if (ended_well) {
		mk_count(&f->missed, f->gap);
		mk_follower_release(f->follower);
	}
	mk_event_settle(&mk_follower_receiver(f->follower)->end);
	mk_py_guard_leave(&f->guard);
	return 0;
}

static uint64_t mk_py_follower_missed(struct mk_py_follower *f)
{
	return mk_load_relaxed(&f->missed);
}

static uint64_t mk_py_follower_capacity(struct mk_py_follower *f)
{
	return mk_follower_receiver(f->follower)->end.mask + 1;
}

static int64_t mk_py_follower_waiting(struct mk_py_follower *f)
{
	int64_t result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	result = (int64_t)mk_follower_waiting(f->follower);
	mk_py_follower_leave(f);
	return result;
}

/* @return whether the sender is gone; -EBUSY ... */
static int mk_py_follower_over(struct mk_py_follower *f)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	result = mk_end_gone(&mk_follower_receiver(f->follower)->end, true);
	mk_py_follower_leave(f);
	return result;
}

static int mk_py_follower_event(struct mk_py_follower *f)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	result = mk_event_descriptor(&mk_follower_receiver(f->follower)->end);
	mk_py_follower_leave(f);
	return result;
}

/* @return 0, or why nothing was looked at */
static int mk_py_follower_inspect(struct mk_py_follower *f, struct mk_py_view *view)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	mk_py_inspect(&mk_follower_receiver(f->follower)->end, view);
	mk_py_follower_leave(f);
	return 0;
}
