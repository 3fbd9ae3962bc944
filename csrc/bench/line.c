/* line.c: the bare cache line, written by both sides in turn; and two of them, each written by one side only. */
#include "harness.h"
#include "multikernel/atomic.h"

struct lines {
	_Alignas(128) _Atomic uint64_t word;
	_Alignas(128) _Atomic uint64_t other;
};

static void *make_lines(void)
{
	return shared_memory(sizeof(struct lines));
}

static void drop_lines(void *lines)
{
	shared_memory_drop(lines, sizeof(struct lines));
}

static inline __attribute__((always_inline)) void await(_Atomic uint64_t *word, uint64_t value, bool pausing)
{
	while (atomic_load_explicit(word, memory_order_acquire) != value)
		if (pausing)
			mk_pause();
}

/* Left writes odd numbers and waits for even ones, right the other way round. */
static inline __attribute__((always_inline)) uint64_t left_of(struct trial *trial, _Atomic uint64_t *there,
							      _Atomic uint64_t *back, uint64_t n, bool pausing)
{
	bool timed = recording(trial);

	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t begin = timed ? clock_ns() : 0;

		atomic_store_explicit(there, 2 * i + 1, memory_order_release);
		await(back, 2 * i + 2, pausing);
		if (timed)
			record(trial, clock_ns() - begin);
	}
	finished(trial);
	return 0;
}

static inline __attribute__((always_inline)) uint64_t right_of(struct trial *trial, _Atomic uint64_t *there,
							       _Atomic uint64_t *back, uint64_t n, bool pausing)
{
	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		await(there, 2 * i + 1, pausing);
		atomic_store_explicit(back, 2 * i + 2, memory_order_release);
	}
	finished(trial);
	return 0;
}

#define CONTESTANT(title, text, back, pausing)                                   \
	static uint64_t left_##title(struct trial *trial, void *at, uint64_t n)  \
	{                                                                        \
		struct lines *lines = at;                                        \
		return left_of(trial, &lines->word, &lines->back, n, pausing);   \
	}                                                                        \
	static uint64_t right_##title(struct trial *trial, void *at, uint64_t n) \
	{                                                                        \
		struct lines *lines = at;                                        \
		return right_of(trial, &lines->word, &lines->back, n, pausing);  \
	}                                                                        \
	const struct contestant title = {text, make_lines, drop_lines, left_##title, right_##title};

CONTESTANT(bare_line, "bare cache line", word, false)
CONTESTANT(bare_line_pausing, "bare cache line, pausing", word, true)
CONTESTANT(bare_words, "bare word each way", other, false)
