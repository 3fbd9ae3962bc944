/* histogram.h: how often each value was seen, in buckets that are fine enough for percentiles.
 *
 * Values below 256 have a bucket each; above, every power of two is divided into 128, so a bucket is narrower than
 * 1/128 of its values (the idea and the division are HdrHistogram's, by Gil Tene). Recording is one count of leading
 * zeros and one increment: no allocation, no division, no loop. Values from 2^40 up (18 minutes, in ns) share the
 * last bucket; the maximum is exact whatever it is.
 *
 * One thread records. The structure may lie in a page that others only read: they see each count whole, and what
 * they find never leads them out of bounds. It begins as zeros.
 */
#ifndef MULTIKERNEL_HISTOGRAM_H
#define MULTIKERNEL_HISTOGRAM_H

#include "multikernel/atomic.h"
#include "multikernel/memory.h"

#define MK_HISTOGRAM_BITS 40u /* values with more share the last bucket */
#define MK_HISTOGRAM_HALF 128u
#define MK_HISTOGRAM_HALF_BITS 7u
#define MK_HISTOGRAM_BUCKETS ((MK_HISTOGRAM_BITS - MK_HISTOGRAM_HALF_BITS + 1) * MK_HISTOGRAM_HALF)

struct mk_histogram {
	_Atomic uint64_t maximum;
	_Atomic uint64_t counts[MK_HISTOGRAM_BUCKETS];
};

/* The bucket of @value. */
static inline uint32_t mk_histogram_bucket(uint64_t value)
{
	uint64_t most = (1ULL << MK_HISTOGRAM_BITS) - 1;
	uint32_t shift;

	if (value > most)
		value = most;
	/* How far it must be shifted to have no more than 8 bits: none for the values that have a bucket each. */
	shift = 63 - MK_HISTOGRAM_HALF_BITS - (uint32_t)__builtin_clzll(value | (2 * MK_HISTOGRAM_HALF - 1));
	return shift * MK_HISTOGRAM_HALF + (uint32_t)(value >> shift);
}

/* Count @value once. */
static inline void mk_histogram_record(struct mk_histogram *histogram, uint64_t value)
{
	mk_count(&histogram->counts[mk_histogram_bucket(value)], 1);
	if (value > mk_load_relaxed(&histogram->maximum))
		mk_store_relaxed(&histogram->maximum, value);
}

/* The lowest and the highest value of bucket @index < MK_HISTOGRAM_BUCKETS. */
MK_API uint64_t mk_histogram_lowest(uint32_t index);
MK_API uint64_t mk_histogram_highest(uint32_t index);

/* How many values were recorded. */
MK_API uint64_t mk_histogram_count(const struct mk_histogram *histogram);

/* The value that @percent of 100 of the recorded ones do not exceed: the highest of its bucket, and never more than
 * the maximum. 0 if there are none. Whoever asks while others record gets an answer for some moment in between. */
MK_API uint64_t mk_histogram_percentile(const struct mk_histogram *histogram, double percent);

/* Add what was recorded in @from to @into. */
MK_API void mk_histogram_merge(struct mk_histogram *into, const struct mk_histogram *from);

_Static_assert(MK_HISTOGRAM_HALF == 1u << MK_HISTOGRAM_HALF_BITS, "a power of two is divided into so many");
_Static_assert(sizeof(struct mk_histogram) == 8 + 8 * 4352, "histogram");

#endif
