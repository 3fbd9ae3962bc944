/* Histograms; see csrc/include/multikernel/histogram.h. */

#define MK_HISTOGRAM_BUCKETS ...

struct mk_histogram { uint64_t maximum; uint64_t counts[...]; };
void mk_histogram_record(struct mk_histogram *histogram, uint64_t value);
void mk_py_histogram_record_many(struct mk_histogram *histogram, const uint64_t *values, size_t count);
uint64_t mk_histogram_highest(uint32_t index);
uint64_t mk_histogram_count(const struct mk_histogram *histogram);
uint64_t mk_histogram_percentile(const struct mk_histogram *histogram, double percent);
void mk_histogram_merge(struct mk_histogram *into, const struct mk_histogram *from);
