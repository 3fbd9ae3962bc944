/* IPIs: they coalesce, the counts are exact, a mask holds them back, and they are seen before what was sent after. */
#include "harness.h"

#define CAPACITY 4096u

static void expect_ipi(struct mk_receiver *rx, unsigned expected_vector, uint64_t expected_count)
{
	unsigned vector = 99;
	uint64_t count = 0;

	CHECK_EQ(mk_ipi_take(rx, &vector, &count), 1);
	CHECK_EQ(vector, expected_vector);
	CHECK_EQ(count, expected_count);
}

static void expect_no_ipi(struct mk_receiver *rx)
{
	unsigned vector;
	uint64_t count;

	CHECK(!mk_ipi_waiting(rx));
	CHECK_EQ(mk_ipi_take(rx, &vector, &count), 0);
}

static void ipis_of_one_vector_coalesce_and_are_counted(void)
{
	struct both b = both_new(CAPACITY, 0);

	expect_no_ipi(b.rx);
	CHECK_EQ(mk_ipi_raise(b.tx, 5), 0);
	CHECK_EQ(mk_ipi_raise(b.tx, 5), 0);
	CHECK_EQ(mk_ipi_raise(b.tx, 5), 0);
	CHECK(mk_ipi_waiting(b.rx));
	expect_ipi(b.rx, 5, 3);
	expect_no_ipi(b.rx);
	CHECK_EQ(mk_ipi_raise(b.tx, 5), 0);
	expect_ipi(b.rx, 5, 1);
	expect_no_ipi(b.rx);
	CHECK_EQ(mk_load_relaxed(&b.tx->end.counters->ipis_sent), 4);
	CHECK_EQ(mk_load_relaxed(&b.rx->end.counters->ipis_received), 4);
	both_close(&b);
}

static void the_lowest_vector_comes_first(void)
{
	struct both b = both_new(CAPACITY, 0);

	for (unsigned v = MK_VECTORS; v-- > 0;)
		for (unsigned n = 0; n <= v; n++)
			CHECK_EQ(mk_ipi_raise(b.tx, v), 0);
	for (unsigned v = 0; v < MK_VECTORS; v++)
		expect_ipi(b.rx, v, v + 1);
	expect_no_ipi(b.rx);
	CHECK_EQ(mk_ipi_raise(b.tx, 9), 0);
	CHECK_EQ(mk_ipi_raise(b.tx, 7), 0);
	expect_ipi(b.rx, 7, 1);
	CHECK_EQ(mk_ipi_raise(b.tx, 8), 0); /* while 9 is pending */
	expect_ipi(b.rx, 8, 1);
	expect_ipi(b.rx, 9, 1);
	expect_no_ipi(b.rx);
	both_close(&b);
}

static void there_are_64_vectors(void)
{
	struct both b = both_new(CAPACITY, 0);

	CHECK_EQ(mk_ipi_raise(b.tx, 63), 0);
	CHECK_EQ(mk_ipi_raise(b.tx, 64), -EINVAL);
	CHECK_EQ(mk_ipi_raise(b.tx, UINT32_MAX), -EINVAL);
	CHECK_EQ(mk_ipi_mask(b.rx, 63, false), 0);
	CHECK_EQ(mk_ipi_mask(b.rx, 64, true), -EINVAL);
	expect_ipi(b.rx, 63, 1);
	expect_no_ipi(b.rx);
	both_close(&b);
}

static void a_masked_vector_waits_and_goes_on_counting(void)
{
	struct both b = both_new(CAPACITY, 0);

	CHECK_EQ(mk_ipi_mask(b.rx, 2, true), 0);
	CHECK_EQ(mk_ipi_raise(b.tx, 2), 0);
	CHECK_EQ(mk_ipi_raise(b.tx, 3), 0);
	CHECK(mk_ipi_waiting(b.rx));
	expect_ipi(b.rx, 3, 1);
	expect_no_ipi(b.rx);
	CHECK(!mk_end_ready(&b.rx->end)); /* nor does it keep the receiver from sleeping */
	CHECK_EQ(mk_ipi_raise(b.tx, 2), 0);
	expect_no_ipi(b.rx);
	CHECK_EQ(mk_ipi_mask(b.rx, 2, false), 0);
	CHECK(mk_end_ready(&b.rx->end));
	expect_ipi(b.rx, 2, 2);
	expect_no_ipi(b.rx);
	both_close(&b);
}

static void an_ipi_raised_before_a_record_is_seen_before_it(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_message m = {0};

	for (uint64_t i = 0; i < 100; i++) {
		CHECK_EQ(mk_ipi_raise(b.tx, (unsigned)i % 64), 0);
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, i, NULL, 0), 0);
		CHECK_EQ(mk_peek(b.rx, &m), 0);
		CHECK(mk_ipi_waiting(b.rx));
		expect_ipi(b.rx, (unsigned)i % 64, 1);
		mk_release(b.rx);
	}
	both_close(&b);
}

static void ipis_need_no_room_in_the_ring(void)
{
	struct both b = both_new(CAPACITY, 0);

	while (mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0) == 0)
		;
	CHECK_EQ(mk_ipi_raise(b.tx, 1), 0);
	expect_ipi(b.rx, 1, 1);
	both_close(&b);
}

static void counts_and_the_sequence_may_go_round(void)
{
	/* As their maker left them: the counter just before 2^64, the sequence before 2^32. */
	struct ring ring = ring_new(CAPACITY, 0);
	const uint64_t count = UINT64_MAX - 1;
	const uint32_t sequence = UINT32_MAX - 1;
	unsigned vector;
	uint64_t taken;
	struct both b;

	CHECK_EQ(pwrite(ring.producer, &count, 8, offsetof(struct mk_producer, ipi) + 8 * 4), 8);
	CHECK_EQ(pwrite(ring.producer, &sequence, 4, offsetof(struct mk_producer, ipi_sequence)), 4);
	b = (struct both){ring_sender(&ring), ring_receiver(&ring)};
	CHECK_EQ(mk_ipi_take(b.rx, &vector, &taken), 1); /* those from before */
	CHECK_EQ(taken, count);
	for (int i = 0; i < 5; i++) {
		CHECK_EQ(mk_ipi_raise(b.tx, 4), 0);
		expect_ipi(b.rx, 4, 1);
		expect_no_ipi(b.rx);
	}
	both_close(&b);
	ring_drop(&ring);
}

/* --- from another process ------------------------------------------------------------------------------------------ */

#define RAISES 200000u

static void raise_at_random(void *argument)
{
	struct ring *ring = argument;
	struct mk_sender *tx = child_sender(ring);
	struct random r = random_from(1);
	uint64_t n = times(RAISES);

	for (uint64_t i = 0; i < n; i++) {
		check_sent(mk_ipi_raise(tx, (unsigned)below(&r, MK_VECTORS)), i + 1 == n);
		if (!below(&r, 200))
			dawdle(below(&r, 20000)); /* let the other side fall asleep */
	}
	mk_sender_close(tx);
}

static void every_ipi_of_another_process_is_counted_once(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	uint64_t expected[MK_VECTORS] = {0}, counted[MK_VECTORS] = {0};
	struct random r = random_from(1);
	uint64_t n = times(RAISES), takes = 0;
	pid_t pid = spawn(raise_at_random, &ring);
	struct mk_receiver *rx = child_receiver(&ring);
	struct mk_message m = {0};
	unsigned vector;
	uint64_t count;

	for (uint64_t i = 0; i < n; i++) {
		expected[below(&r, MK_VECTORS)]++;
		if (!below(&r, 200))
			below(&r, 20000);
	}
	rx->end.policy = MK_WAIT_PARK;
	for (;;) {
		int gone = mk_peek(rx, &m) == -EPIPE; /* asked first: what it raised before is then there */

		while (mk_ipi_take(rx, &vector, &count)) {
			counted[vector] += count;
			takes++;
		}
		if (gone)
			break;
		CHECK_EQ(wait_on(&rx->end), 0);
	}
	for (unsigned v = 0; v < MK_VECTORS; v++)
		CHECK_EQ(counted[v], expected[v]);
	CHECK_EQ(mk_load_relaxed(&rx->end.counters->ipis_received), n);
	printf("      %" PRIu64 " IPIs in %" PRIu64 " takes, %" PRIu64 " parks\n", n, takes,
	       mk_load_relaxed(&rx->end.counters->parks));
	mk_receiver_close(rx);
	reap_done(pid);
}

static void raise_then_send(void *argument)
{
	struct mk_sender *tx = child_sender(argument);
	struct random r = random_from(2);
	uint64_t n = times(50000);

	for (uint64_t i = 1; i <= n; i++) {
		for (uint64_t raise = below(&r, 3); raise > 0; raise--)
			CHECK_EQ(mk_ipi_raise(tx, 0), 0);
		/* The record says how many were raised before it. */
		uint64_t raised = mk_load_relaxed(&tx->end.counters->ipis_sent);

		check_sent(send_waiting(tx, i, &raised, 8), i == n);
	}
	mk_sender_close(tx);
}

static void ipis_of_another_process_are_seen_before_the_records_sent_after_them(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	pid_t pid = spawn(raise_then_send, &ring);
	struct mk_receiver *rx = child_receiver(&ring);
	uint64_t seen = 0, records = 0, count;
	struct mk_message m = {0};
	unsigned vector;

	for (;;) {
		int result = mk_peek(rx, &m);

		while (mk_ipi_waiting(rx)) {
			CHECK_EQ(mk_ipi_take(rx, &vector, &count), 1);
			seen += count;
		}
		if (result == -EPIPE)
			break;
		if (result == -EAGAIN) {
			CHECK_EQ(wait_on(&rx->end), 0);
			continue;
		}
		CHECK_EQ(result, 0);
		uint64_t raised;

		memcpy(&raised, m.payload, 8);
		CHECK(seen >= raised);
		mk_release(rx);
		records++;
	}
	CHECK_EQ(records, times(50000));
	mk_receiver_close(rx);
	reap_done(pid);
}

static const struct test tests[] = {
	TEST(ipis_of_one_vector_coalesce_and_are_counted),
	TEST(the_lowest_vector_comes_first),
	TEST(there_are_64_vectors),
	TEST(a_masked_vector_waits_and_goes_on_counting),
	TEST(an_ipi_raised_before_a_record_is_seen_before_it),
	TEST(ipis_need_no_room_in_the_ring),
	TEST(counts_and_the_sequence_may_go_round),
	TEST(every_ipi_of_another_process_is_counted_once),
	TEST(ipis_of_another_process_are_seen_before_the_records_sent_after_them),
};

RUN_TESTS(tests)
