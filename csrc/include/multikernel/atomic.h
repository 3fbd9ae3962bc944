/* atomic.h: the few orderings that the core uses, by name.
 *
 * load-acquire   what the other side wrote before its store-release of this word is seen after this load
 * store-release  what was written before this store is seen by whoever load-acquires its value
 * relaxed        the word alone matters: one's own index, a counter, a hint that is looked at again later
 * fence          store-load order: the one thing that acquire and release do not give. Only on the slow path,
 *                and on lanes whose sender is told to fence (MK_FENCES).
 *
 * Every use says what it pairs with. Words of a peer's page are input: read once through these, into a local.
 */
#ifndef MULTIKERNEL_ATOMIC_H
#define MULTIKERNEL_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

#define mk_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define mk_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define mk_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define mk_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)

#define mk_likely(x) __builtin_expect(!!(x), 1)
#define mk_unlikely(x) __builtin_expect(!!(x), 0)

/* Full fence. ThreadSanitizer does not model atomic_thread_fence, and none of its findings can depend on ours:
 * a fence here only ever orders atomics. */
static inline void mk_fence(void)
{
#ifdef __SANITIZE_THREAD__
	static _Atomic int line;
	atomic_fetch_add_explicit(&line, 0, memory_order_seq_cst);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Tell the core that this is a spin loop. */
static inline void mk_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("isb");
#endif
}

/* Add to a counter that only this thread writes: no locked instruction. */
static inline void mk_count(_Atomic uint64_t *counter, uint64_t n)
{
	mk_store_relaxed(counter, mk_load_relaxed(counter) + n);
}

#endif
