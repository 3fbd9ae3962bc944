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
#include <string.h>

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

/* Order the relaxed accesses on either side of it: reads before it and all after it, all before it and writes after it. */
static inline void mk_fence_acquire(void)
{
#ifdef __SANITIZE_THREAD__
	mk_fence();
#else
	atomic_thread_fence(memory_order_acquire);
#endif
}

static inline void mk_fence_release(void)
{
#ifdef __SANITIZE_THREAD__
	mk_fence();
#else
	atomic_thread_fence(memory_order_release);
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

/* Copy to, or from, memory that somebody reads or overwrites meanwhile: word by word, relaxed. The shared side begins
 * on a word and is padded to one; of the private side exactly @size bytes are touched. */
static inline void mk_put_words(void *to, const void *from, uint64_t size)
{
	_Atomic uint64_t *words = (_Atomic uint64_t *)to;
	uint64_t word;

	for (; size >= 8; size -= 8, from = (const char *)from + 8) {
		memcpy(&word, from, 8);
		mk_store_relaxed(words++, word);
	}
	if (size) {
		word = 0;
		memcpy(&word, from, size);
		mk_store_relaxed(words, word);
	}
}

static inline void mk_get_words(void *to, const void *from, uint64_t size)
{
	const _Atomic uint64_t *words = (const _Atomic uint64_t *)from;
	uint64_t word;

	for (; size >= 8; size -= 8, to = (char *)to + 8) {
		word = mk_load_relaxed(words++);
		memcpy(to, &word, 8);
	}
	if (size) {
		word = mk_load_relaxed(words);
		memcpy(to, &word, size);
	}
}

/* Add to a counter that only this thread writes: no locked instruction. */
static inline void mk_count(_Atomic uint64_t *counter, uint64_t n)
{
	mk_store_relaxed(counter, mk_load_relaxed(counter) + n);
}

#endif
