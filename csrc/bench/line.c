/* line.c: the bare cache line. */
#include "harness.h"
#include "multikernel/atomic.h"

struct line {
	_Alignas(128) _Atomic uint64_t word;
};

static void *make_line(void)
{
	return shared_memory(sizeof(struct line));
}

static void drop_line(void *line)
{
	shared_memory_drop(line, sizeof(struct line));
}

static inline __attribute__((always_inline)) void await(struct line *line, uint64_t value, bool pausing)
{
	while (atomic_load_explicit(&line->word, memory_order_acquire) != value)
		if (pausing)
			mk_pause();
}

/* Left writes odd numbers and waits for even ones, right the other way round. */
static inline __attribute__((always_inline)) uint64_t left_of_line(struct trial *trial, struct line *line, uint64_t n,
								   bool pausing)
{
	bool timed = recording(trial);

	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t begin = timed ? clock_ns() : 0;

		atomic_store_explicit(&line->word, 2 * i + 1, memory_order_release);
		await(line, 2 * i + 2, pausing);
		if (timed)
			record(trial, clock_ns() - begin);
	}
	finished(trial);
	return 0;
}

static inline __attribute__((always_inline)) uint64_t right_of_line(struct trial *trial, struct line *line, uint64_t n,
								    bool pausing)
{
	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		await(line, 2 * i + 1, pausing);
		atomic_store_explicit(&line->word, 2 * i + 2, memory_order_release);
	}
	finished(trial);
	return 0;
}

static uint64_t left(struct trial *trial, void *line, uint64_t n)
{
	return left_of_line(trial, line, n, false);
}

static uint64_t right(struct trial *trial, void *line, uint64_t n)
{
	return right_of_line(trial, line, n, false);
}

static uint64_t left_pausing(struct trial *trial, void *line, uint64_t n)
{
	return left_of_line(trial, line, n, true);
}

static uint64_t right_pausing(struct trial *trial, void *line, uint64_t n)
{
	return right_of_line(trial, line, n, true);
}

const struct contestant bare_line = {"bare cache line", make_line, drop_line, left, right};
const struct contestant bare_line_pausing = {"bare cache line, pausing", make_line, drop_line, left_pausing,
					     right_pausing};
