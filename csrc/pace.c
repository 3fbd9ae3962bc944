/* pace.c: see pace.h. */
#include "multikernel/pace.h"

#define EIGHTH \
	8u /* a stream's pause grows by an eighth of the full one with each look, and its mean is of about as many */
#define EMPTY 3u    /* looks that find nothing end a stream */
#define OUTLIER 64u /* ticks by which a transfer may be longer than two mean ones: the rest is an interruption */

/* Not before the loads that come before it are done. */
static uint64_t ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_lfence();
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t now;

	__asm__ __volatile__("isb; mrs %0, cntvct_el0" : "=r"(now)::"memory");
	return now;
#else
	return 0; /* no pause but a single look at the clock */
#endif
}

uint64_t mk_pace_load(struct mk_pace *pace, const _Atomic uint64_t *index, uint64_t seen)
{
	uint64_t begin = ticks();
	uint64_t most = 2 * (pace->full / EIGHTH) + OUTLIER;
	uint64_t value;
	uint64_t took;

	while (ticks() - begin < pace->pause)
		mk_pause();
	begin = ticks();
	value = mk_load_acquire(index); /* A1 or A2: pairs with R1 or R2, see lane.h */
	took = ticks() - begin;
	if (value == seen) {
		if (++pace->empty >= EMPTY)
			pace->pause = 0;
		return value;
	}
	pace->empty = 0;
	pace->full += (took < most ? took : most) - pace->full / EIGHTH;
	pace->pause += pace->full / EIGHTH;
	if (pace->pause > pace->full)
		pace->pause = pace->full;
	return value;
}
