/* Histograms: where a value is counted, and what is read from the counts. */
#include "harness.h"

#include "multikernel/histogram.h"

static struct mk_histogram *new_histogram(void)
{
	struct mk_histogram *h = calloc(1, sizeof(*h));

	CHECK(h);
	return h;
}

static void every_value_lies_in_the_bucket_that_it_is_counted_in(void)
{
	struct random r = random_from(1);

	for (uint64_t value = 0; value < 100000; value++) {
		uint32_t i = mk_histogram_bucket(value);

		CHECK(mk_histogram_lowest(i) <= value && value <= mk_histogram_highest(i));
	}
	for (uint64_t n = 0; n < 1000000; n++) {
		uint64_t value = draw(&r) >> below(&r, 64);
		uint32_t i = mk_histogram_bucket(value);

		CHECK(i < MK_HISTOGRAM_BUCKETS);
		CHECK(mk_histogram_lowest(i) <= value && value <= mk_histogram_highest(i));
	}
	CHECK_EQ(mk_histogram_bucket(UINT64_MAX), MK_HISTOGRAM_BUCKETS - 1);
}

static void buckets_follow_each_other_and_none_is_wider_than_a_128th_of_its_values(void)
{
	CHECK_EQ(mk_histogram_lowest(0), 0);
	for (uint32_t i = 0; i + 1 < MK_HISTOGRAM_BUCKETS; i++) {
		uint64_t lowest = mk_histogram_lowest(i), highest = mk_histogram_highest(i);

		CHECK_EQ(mk_histogram_bucket(lowest), i);
		CHECK_EQ(mk_histogram_bucket(highest), i);
		CHECK_EQ(mk_histogram_lowest(i + 1), highest + 1);
		CHECK(highest - lowest <= lowest / 128);
	}
	CHECK_EQ(mk_histogram_highest(MK_HISTOGRAM_BUCKETS - 1), UINT64_MAX);
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void percentiles_are_those_of_the_sorted_values(void)
{
	enum {
		MOST = 5000
	};
	static uint64_t values[MOST];
	static const double percents[] = {0, 1, 25, 50, 75, 90, 99, 99.9, 99.99, 100};
	struct random r = random_from(2);

	for (uint64_t run = 0; run < times(60); run++) {
		struct mk_histogram *h = new_histogram();
		uint64_t count = 1 + below(&r, MOST);
		uint64_t scale = 24 + below(&r, 40);

		for (uint64_t i = 0; i < count; i++) {
			values[i] = draw(&r) >> scale;
			mk_histogram_record(h, values[i]);
		}
		qsort(values, count, sizeof(*values), ascending);
		CHECK_EQ(mk_histogram_count(h), count);
		CHECK_EQ(mk_load_relaxed(&h->maximum), values[count - 1]);
		for (size_t p = 0; p < sizeof(percents) / sizeof(*percents); p++) {
			uint64_t rank = (uint64_t)(percents[p] / 100 * (double)count + 0.5);
			uint64_t value = values[rank ? rank - 1 : 0];
			uint64_t found = mk_histogram_percentile(h, percents[p]);

			CHECK(found >= value && found - value <= value / 128);
		}
		CHECK_EQ(mk_histogram_percentile(h, 100), values[count - 1]);
		free(h);
	}
}

static void nothing_recorded_has_percentiles_of_0(void)
{
	struct mk_histogram *h = new_histogram();

	CHECK_EQ(mk_histogram_count(h), 0);
	CHECK_EQ(mk_histogram_percentile(h, 50), 0);
	CHECK_EQ(mk_histogram_percentile(h, 100), 0);
	free(h);
}

static void a_value_beyond_the_last_bucket_is_counted_and_is_the_maximum(void)
{
	struct mk_histogram *h = new_histogram();

	for (int i = 0; i < 3; i++)
		mk_histogram_record(h, 7);
	mk_histogram_record(h, UINT64_MAX - 5);
	CHECK_EQ(mk_histogram_count(h), 4);
	CHECK_EQ(mk_histogram_percentile(h, 75), 7);
	CHECK_EQ(mk_histogram_percentile(h, 99), UINT64_MAX - 5);
	free(h);
}

static void what_is_merged_is_as_if_it_had_been_recorded_in_one(void)
{
	struct mk_histogram *all = new_histogram(), *one = new_histogram(), *other = new_histogram();
	struct random r = random_from(3);

	for (int i = 0; i < 20000; i++) {
		uint64_t value = draw(&r) >> below(&r, 64);

		mk_histogram_record(all, value);
		mk_histogram_record(draw(&r) & 1 ? one : other, value);
	}
	mk_histogram_merge(one, other);
	CHECK_EQ(memcmp(one, all, sizeof(*all)), 0);
	free(all);
	free(one);
	free(other);
}

/* The counts may be somebody else's page: whatever stands there, an answer comes. */
static void wild_counts_lead_to_some_answer_and_nowhere_else(void)
{
	struct mk_histogram *h = new_histogram(), *mine = new_histogram();
	struct random r = random_from(4);

	for (int run = 0; run < 50; run++) {
		for (size_t i = 0; i < sizeof(*h) / 8; i++)
			((uint64_t *)(void *)h)[i] = draw(&r);
		mk_histogram_count(h);
		CHECK(mk_histogram_percentile(h, 50) <= mk_load_relaxed(&h->maximum));
		mk_histogram_percentile(h, 1e300);
		mk_histogram_merge(mine, h);
	}
	free(h);
	free(mine);
}

static const struct test tests[] = {
	TEST(every_value_lies_in_the_bucket_that_it_is_counted_in),
	TEST(buckets_follow_each_other_and_none_is_wider_than_a_128th_of_its_values),
	TEST(percentiles_are_those_of_the_sorted_values),
	TEST(nothing_recorded_has_percentiles_of_0),
	TEST(a_value_beyond_the_last_bucket_is_counted_and_is_the_maximum),
	TEST(what_is_merged_is_as_if_it_had_been_recorded_in_one),
	TEST(wild_counts_lead_to_some_answer_and_nowhere_else),
};

RUN_TESTS(tests)
