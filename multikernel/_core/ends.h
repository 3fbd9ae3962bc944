/* ends.h: one call at a time. What the two halves of the binding, the cffi module and the extension, share.
 *
 * An interpreter may call one end from two threads, or from a forked copy: each call enters the end and leaves it
 * again, and who finds it taken is told so (-EBUSY, -ECHILD). A call that hands out memory of the ring (a view) keeps
 * the end until it is given back.
 *
 * A locked instruction for each call would be a full fence on the fast path, and nearly every end is only ever used by
 * one thread. So an end is biased (the idea is that of biased locking, Russell and Detlefs 2006): the thread that
 * claimed it enters with plain stores, and the first other thread that comes takes that away for good, at the cost of
 * one membarrier.
 *
 *   the thread that claimed it                     another thread
 *   B1  store(held, 1)                             B3  store(shared, 1)
 *   B2  load(shared): 0, it is in; else it         B4  membarrier: either B1 is visible to B5, or B2 sees B3
 *       takes held back and goes the other way     B5  compare-exchange(busy, 0, me); load(held): taken, or it is in
 *
 * Once shared is 2 everybody goes by busy. Where membarrier is refused to this process, B1 is followed by a fence.
 */
#ifndef MULTIKERNEL_ENDS_H
#define MULTIKERNEL_ENDS_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "multikernel/doorbell.h"
#include "multikernel/lane.h"

#define MK_PY_CLOSED 1  /* busy: of an end that was closed; nobody is in it any more */
#define MK_PY_LOOKING 2 /* busy: of one that is being inspected */

#define MK_PY_LIFE_NS 1000000 /* a call that does not wait asks the system this often whether the peer lives */

static inline uintptr_t mk_py_self(void)
{
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__aarch64__)) && !defined(__clang__)
	return (uintptr_t)__builtin_thread_pointer(); /* a register; the call costs as much as the rest of an entry */
#else
	return (uintptr_t)pthread_self();
#endif
}

/* The end belongs to the calling thread, until another one wants it. Once, after the claim. */
static inline void mk_py_bias(struct mk_end *end)
{
	end->bias = mk_py_self();
}

/* B3-B4. @return 0; -EBUSY: it cannot be told whether the thread that claimed the end is in it */
static inline int mk_py_revoke(struct mk_end *end)
{
	uint32_t biased = 0;

	if (mk_load_acquire(&end->shared) == 2) /* pairs with the release below: the barrier has been */
		return 0;
	atomic_compare_exchange_strong_explicit(&end->shared, &biased, 1, memory_order_seq_cst, memory_order_relaxed);
	if (mk_membarrier_own() && !end->fence)
		return -EBUSY;
	mk_store_release(&end->shared, 2);
	return 0;
}

/* B5. @return 0, taken as @whose; -EBUSY */
static inline int mk_py_take(struct mk_end *end, uintptr_t whose)
{
	uintptr_t had;

	if (mk_py_revoke(end))
		return -EBUSY;
	do {
		had = 0;
		/* Acquire, pairs with the release in mk_py_leave: the next thread sees what the last one left in the end. */
		atomic_compare_exchange_strong_explicit(&end->busy, &had, whose, memory_order_acquire,
							memory_order_relaxed);
		if (had == MK_PY_LOOKING) /* anybody may look, for an instant: that is no second user */
			sched_yield();
	} while (had == MK_PY_LOOKING);
	if (had)
		return -EBUSY;
	if (mk_load_acquire(&end->held)) { /* pairs with the release in mk_py_leave */
		mk_store_release(&end->busy, 0);
		return -EBUSY;
	}
	end->by_bias = false;
	return 0;
}

/* Take an end for a call. @return 0; -ECHILD: this is a forked copy of it; -EBUSY: another call has it */
static inline int mk_py_seize(struct mk_end *end)
{
	uintptr_t self = mk_py_self();

	if (mk_unlikely(end->generation != mk_load_relaxed(end->generation_now))) /* changes in a fork alone */
		return -ECHILD;
	if (mk_likely(end->bias == self)) {
		if (mk_unlikely(mk_load_relaxed(&end->held))) /* only this thread stores it */
			return -EBUSY;
		mk_store_relaxed(&end->held, 1); /* B1; the order against B2 is B4's to make */
		if (mk_unlikely(end->fence))
			mk_fence();
		atomic_signal_fence(memory_order_seq_cst);       /* keeps the compiler from exchanging the two */
		if (mk_likely(!mk_load_relaxed(&end->shared))) { /* B2, pairs with B3 and B4 */
			end->by_bias = true;
			return 0;
		}
		mk_store_release(&end->held, 0);
	}
	return mk_py_take(end, self);
}

/* Leave it as it is: nothing was taken that an event loop would have to know of. */
static inline void mk_py_unseize(struct mk_end *end)
{
	/* Release, pairs with the acquire loads in mk_py_take. */
	if (mk_likely(end->by_bias))
		mk_store_release(&end->held, 0);
	else
		mk_store_release(&end->busy, 0);
}

static inline void mk_py_leave(struct mk_end *end)
{
	if (mk_unlikely(end->event >= 0))
		mk_event_settle(end);
	mk_py_unseize(end);
}

/* As mk_py_seize, for what needs the other side: -ENOTCONN before it was attached. */
static inline int mk_py_enter(struct mk_end *end)
{
	int result = mk_py_seize(end);

	if (mk_unlikely(!result && !end->peer_map)) {
		mk_py_unseize(end);
		return -ENOTCONN;
	}
	return result;
}

#endif
