/* histogram.c: reading histograms. Recording is inline in histogram.h. */
#include "multikernel/histogram.h"

uint64_t mk_histogram_lowest(uint32_t index)
{
	uint32_t shift = index < 2 * MK_HISTOGRAM_HALF ? 0 : index / MK_HISTOGRAM_HALF - 1;

	return (uint64_t)(index - shift * MK_HISTOGRAM_HALF) << shift;
}

uint64_t mk_histogram_highest(uint32_t index)
{
	return index + 1 < MK_HISTOGRAM_BUCKETS ? mk_histogram_lowest(index + 1) - 1 : UINT64_MAX;
}

uint64_t mk_histogram_count(const struct mk_histogram *histogram)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < MK_HISTOGRAM_BUCKETS; i++)
		count += mk_load_relaxed(&histogram->counts[i]);
	return count;
}

uint64_t mk_histogram_percentile(const struct mk_histogram *histogram, double percent)
{
	uint64_t count = mk_histogram_count(histogram);
	uint64_t maximum = mk_load_relaxed(&histogram->maximum);
	uint64_t wanted;
	uint64_t found = 0;

	if (!count)
		return 0;
	wanted = percent < 100 ? (uint64_t)(percent / 100 * (double)count + 0.5) : count;
	if (wanted < 1)
		wanted = 1;
	for (uint32_t i = 0; i < MK_HISTOGRAM_BUCKETS; i++) {
		found += mk_load_relaxed(&histogram->counts[i]);
		if (found >= wanted)
			return mk_histogram_highest(i) < maximum ? mk_histogram_highest(i) : maximum;
	}
	return maximum;
}

void mk_histogram_merge(struct mk_histogram *into, const struct mk_histogram *from)
{
	uint64_t maximum = mk_load_relaxed(&from->maximum);

	for (uint32_t i = 0; i < MK_HISTOGRAM_BUCKETS; i++)
		mk_count(&into->counts[i], mk_load_relaxed(&from->counts[i]));
	if (maximum > mk_load_relaxed(&into->maximum))
		mk_store_relaxed(&into->maximum, maximum);
}
