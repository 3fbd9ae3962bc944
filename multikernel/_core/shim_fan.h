/* shim_fan.h: how calls of mailboxes and broadcasts keep each other out. Compiled behind shim.h, whose deadlines these are.
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
