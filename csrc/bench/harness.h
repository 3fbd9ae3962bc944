/* harness.h: two pinned processes, ours and the peers in turn, and what came of it.
 *
 * A contestant is one way to do a piece of work: what it needs (made before both sides are forked) and the two sides.
 * Every round runs each contestant of the work once, in turn; a ratio is taken between two of the same round. The
 * receiving side compares every message, and a contestant that got one wrong has no figure. No C of ours is in here,
 * so that a peer written in C++ can use it.
 */
#ifndef MULTIKERNEL_BENCH_HARNESS_H
#define MULTIKERNEL_BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 255, not 256: what stood in a slot of a ring of 2^n one time round ago is then never what should stand there now. */
#define PREPARED 255u
#define BATCH 32u
#define RING_BYTES (256u << 10) /* of every contestant's ring; records need a quarter more for the same number */

struct trial;

struct contestant {
	const char *name;
	void *(*make)(void);
	void (*drop)(void *lane);
	/* Each in its own process: get ready, start_together, do it @n times, finished. @return how many were wrong */
	uint64_t (*left)(struct trial *trial, void *lane, uint64_t n);
	uint64_t (*right)(struct trial *trial, void *lane, uint64_t n);
};

struct work {
	const char *name;
	const char *unit;                            /* "M/s": messages; "ns": of one round trip */
	const struct contestant *const *contestants; /* ours first; NULL: one that is not here */
	unsigned count;
};

void start_together(struct trial *trial);
void finished(struct trial *trial);

/* Whether this run is for the percentiles: its left side gives the time of each round trip. Such a run has no figure. */
bool recording(const struct trial *trial);
void record(struct trial *trial, uint64_t ns);

/* Where only the way of a message counts and not what was done before it: the one who sends says when, the one who has
 * got it says so, and the run's time is the sum of these ways. */
void on_its_way(struct trial *trial);
void arrived(struct trial *trial);
uint64_t clock_ns(void);

/* PREPARED messages of 8 or 64 bytes, and the first BATCH of them again, so that a batch may begin at any. */
const void *prepared(size_t size);

/* Zeroed memory that both sides share, at a page's beginning. */
void *shared_memory(size_t size);
void shared_memory_drop(void *at, size_t size);

/* A wrong use or a failed call: say so and leave. */
#ifdef __cplusplus
[[noreturn]]
#else
_Noreturn
#endif
void give_up(const char *what);

/* The bare cache line, without and with a pause in its loop. */
extern const struct contestant bare_line, bare_line_pausing, bare_words;

/* Run the works that the arguments name (all, if none) and print a table, or with --json a document.
 * @return the program's exit status: 77 when it has no work of such a name */
int bench(const char *name, const struct work *works, unsigned count, int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
