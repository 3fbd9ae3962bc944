/* The pauses of a stream: who pauses, who never does, and that a pause ends. How long they are is for the benches. */
#include "harness.h"

#include "multikernel/pace.h"

#define CAPACITY 4096u

/* A look at an index of this thread's own: it never takes long. */
static void look(struct mk_pace *pace, _Atomic uint64_t *index, uint64_t seen)
{
	CHECK_EQ(mk_pace_load(pace, index, seen), mk_load_relaxed(index));
}

static void a_pause_grows_to_eight_transfers_of_the_line_and_no_further(void)
{
	struct mk_pace pace = {.pause = 1};
	_Atomic uint64_t index = 0;

	for (uint64_t i = 0; i < 100; i++) {
		uint64_t before = pace.pause;

		mk_store_relaxed(&index, i + 1);
		look(&pace, &index, i);
		CHECK(pace.pause <= pace.full);
		CHECK(pace.pause <= before + pace.full / 8);
	}
#if defined(__x86_64__) || defined(__aarch64__)
	CHECK(pace.full > 0);
	CHECK_EQ(pace.pause, pace.full);
#endif
}

static void three_looks_that_find_nothing_end_a_stream(void)
{
	struct mk_pace pace = {.pause = 1000, .full = 1000};
	_Atomic uint64_t index = 5;

	look(&pace, &index, 5);
	look(&pace, &index, 5);
	CHECK_EQ(pace.pause, 1000);
	look(&pace, &index, 4); /* found something: the count begins anew */
	look(&pace, &index, 5);
	look(&pace, &index, 5);
	CHECK(pace.pause > 0);
	look(&pace, &index, 5);
	CHECK_EQ(pace.pause, 0);
}

/* One that was interrupted for long while it timed a transfer must not pause for long from then on. */
static void one_transfer_that_takes_for_ever_lengthens_the_pause_by_little(void)
{
	struct mk_pace pace = {.pause = 1, .full = 800};
	_Atomic uint64_t index = 0;

	/* 264 ticks are the most that counts of it: two mean ones and what an outlier may add. */
	for (uint64_t i = 0; i < 1000; i++) {
		uint64_t before = pace.full;

		mk_store_relaxed(&index, i + 1);
		look(&pace, &index, i);
		CHECK(pace.full <= before + before / 8 + 64);
	}
}

static void send_records(struct both *b, int count)
{
	for (int i = 0; i < count; i++)
		CHECK_EQ(mk_send(b->tx, MK_MSG_USER, 0, 0, "x", 1), 0);
}

static void receive_records(struct both *b, int count)
{
	struct mk_message m = {0};

	for (int i = 0; i < count; i++)
		CHECK_EQ(mk_peek(b->rx, &m), 0);
	mk_release(b->rx);
}

static void who_finds_one_record_at_a_time_never_pauses(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_message m = {0};

	for (int i = 0; i < 1000; i++) {
		send_records(&b, 1);
		receive_records(&b, 1);
		CHECK_EQ(b.rx->pace.pause, 0);
		CHECK_EQ(mk_peek(b.rx, &m), -EAGAIN);
		CHECK_EQ(b.rx->pace.pause, 0);
		CHECK_EQ(b.tx->pace.pause, 0);
	}
	both_close(&b);
}

static void who_finds_several_pauses_until_there_is_one_or_none(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_message m = {0};

	send_records(&b, 3);
	receive_records(&b, 3);
	CHECK(b.rx->pace.pause > 0);
	send_records(&b, 1); /* a question after the stream */
	receive_records(&b, 1);
	CHECK_EQ(b.rx->pace.pause, 0);
	send_records(&b, 3);
	receive_records(&b, 3);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(mk_peek(b.rx, &m), -EAGAIN);
	CHECK_EQ(b.rx->pace.pause, 0);
	both_close(&b);
}

static void who_finds_more_than_half_the_ring_does_not_pause(void)
{
	struct both b = both_new(CAPACITY, 0);

	send_records(&b, CAPACITY / 24 * 3 / 4);
	receive_records(&b, CAPACITY / 24 * 3 / 4);
	CHECK_EQ(b.rx->pace.pause, 0);
	both_close(&b);
}

static void elements_are_paced_as_records_are(void)
{
	struct both b = both_new(CAPACITY, 8);
	uint64_t numbers[3] = {1, 2, 3}, got = 0;

	CHECK_EQ(mk_send_element(b.tx, numbers, 8), 0);
	CHECK_EQ(mk_recv_element(b.rx, &got, 8), 0);
	CHECK_EQ(b.rx->pace.pause, 0);
	CHECK_EQ(mk_send_elements(b.tx, numbers, 3), 3);
	CHECK_EQ(mk_recv_element(b.rx, &got, 8), 0);
	CHECK(b.rx->pace.pause > 0);
	both_close(&b);
}

static void a_sender_pauses_only_while_the_ring_is_more_than_half_full(void)
{
	struct both b = both_new(CAPACITY, 8);
	uint64_t element = 7, got[CAPACITY / 8];

	for (uint64_t i = 0; i < CAPACITY / 8; i++)
		CHECK_EQ(mk_send_element(b.tx, &element, 8), 0);
	CHECK_EQ(b.tx->pace.pause, 0);
	CHECK_EQ(mk_send_element(b.tx, &element, 8), -EAGAIN);
	CHECK(b.tx->pace.pause > 0);
	CHECK_EQ(mk_recv_elements(b.rx, got, 2), 2);
	CHECK_EQ(mk_send_element(b.tx, &element, 8), 0);
	CHECK(b.tx->pace.pause > 0);
	CHECK_EQ(mk_recv_elements(b.rx, got, CAPACITY / 8), CAPACITY / 8 - 1);
	CHECK_EQ(mk_send_elements(b.tx, got, 10), 10);
	CHECK_EQ(b.tx->pace.pause, 0);
	both_close(&b);
}

static const struct test tests[] = {
	TEST(a_pause_grows_to_eight_transfers_of_the_line_and_no_further),
	TEST(three_looks_that_find_nothing_end_a_stream),
	TEST(one_transfer_that_takes_for_ever_lengthens_the_pause_by_little),
	TEST(who_finds_one_record_at_a_time_never_pauses),
	TEST(who_finds_several_pauses_until_there_is_one_or_none),
	TEST(who_finds_more_than_half_the_ring_does_not_pause),
	TEST(elements_are_paced_as_records_are),
	TEST(a_sender_pauses_only_while_the_ring_is_more_than_half_full),
};

RUN_TESTS(tests)
