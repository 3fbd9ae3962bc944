/* Lanes, both ends in one process and one thread: what goes in comes out, and the edges of the ring. */
#include "harness.h"

#define CAPACITY 4096u

static void send_number(struct mk_sender *tx, uint64_t number, uint64_t length)
{
	unsigned char bytes[2 * CAPACITY];

	fill_bytes(bytes, number, length);
	CHECK_EQ(mk_send(tx, MK_MSG_USER, (uint16_t)number, number, bytes, length), 0);
}

static void expect_number(struct mk_receiver *rx, uint64_t number, uint64_t length)
{
	struct mk_message m = {0};

	CHECK_EQ(mk_peek(rx, &m), 0);
	CHECK_EQ(m.id, number);
	CHECK_EQ(m.type, MK_MSG_USER);
	CHECK_EQ(m.subtype, (uint16_t)number);
	CHECK_EQ(m.length, length);
	CHECK_EQ((uintptr_t)m.payload % MK_RECORD_ALIGN, 0);
	CHECK(bytes_are(m.payload, number, length));
}

static void expect_nothing(struct mk_receiver *rx)
{
	struct mk_message m = {0};

	CHECK_EQ(mk_peek(rx, &m), -EAGAIN);
}

/* --- records ------------------------------------------------------------------------------------------------------ */

static void a_record_arrives_with_every_field_and_byte(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_message m = {0};

	CHECK_EQ(mk_send(b.tx, 0xabcd, 0x1234, MK_ID_REPLY | 77, "hello", 5), 0);
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	CHECK_EQ(m.type, 0xabcd);
	CHECK_EQ(m.subtype, 0x1234);
	CHECK_EQ(m.id, MK_ID_REPLY | 77);
	CHECK_EQ(m.length, 5);
	CHECK_EQ(memcmp(m.payload, "hello", 5), 0);
	mk_release(b.rx);
	expect_nothing(b.rx);
	both_close(&b);
}

static void an_empty_record_is_a_record(void)
{
	struct both b = both_new(CAPACITY, 0);

	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 9, 9, NULL, 0), 0);
	expect_number(b.rx, 9, 0);
	mk_release(b.rx);
	expect_nothing(b.rx);
	both_close(&b);
}

static void records_finished_are_seen_only_once_published_and_then_all(void)
{
	struct both b = both_new(CAPACITY, 0);
	void *slot = NULL;

	for (uint64_t i = 0; i < 5; i++) {
		CHECK_EQ(mk_reserve(b.tx, 10 * i, &slot), 0);
		fill_bytes(slot, i, 10 * i);
		CHECK_EQ(mk_finish(b.tx, 10 * i, MK_MSG_USER, (uint16_t)i, i), 0);
		expect_nothing(b.rx);
	}
	CHECK_EQ(mk_publish(b.tx), 0);
	for (uint64_t i = 0; i < 5; i++)
		expect_number(b.rx, i, 10 * i);
	expect_nothing(b.rx);
	mk_release(b.rx);
	both_close(&b);
}

static void a_record_may_be_shorter_than_what_was_reserved_but_not_longer(void)
{
	struct both b = both_new(CAPACITY, 0);
	void *slot = NULL;

	CHECK_EQ(mk_finish(b.tx, 0, MK_MSG_USER, 0, 0), -EINVAL); /* nothing reserved */
	CHECK_EQ(mk_reserve(b.tx, 1000, &slot), 0);
	CHECK_EQ(mk_finish(b.tx, 1001, MK_MSG_USER, 0, 0), -EINVAL);
	CHECK_EQ(mk_finish(b.tx, UINT64_MAX, MK_MSG_USER, 0, 0), -EINVAL);
	fill_bytes(slot, 3, 7);
	CHECK_EQ(mk_finish(b.tx, 7, MK_MSG_USER, 3, 3), 0);
	CHECK_EQ(mk_finish(b.tx, 7, MK_MSG_USER, 3, 3), -EINVAL); /* only once */
	mk_publish(b.tx);
	send_number(b.tx, 4, 20);
	expect_number(b.rx, 3, 7);
	expect_number(b.rx, 4, 20);
	both_close(&b);
}

static void a_second_reserve_replaces_the_first(void)
{
	struct both b = both_new(CAPACITY, 0);
	void *first = NULL, *second = NULL;

	CHECK_EQ(mk_reserve(b.tx, 8, &first), 0);
	CHECK_EQ(mk_reserve(b.tx, 500, &second), 0);
	CHECK(first == second);
	fill_bytes(second, 1, 500);
	CHECK_EQ(mk_finish(b.tx, 500, MK_MSG_USER, 1, 1), 0);
	mk_publish(b.tx);
	expect_number(b.rx, 1, 500);
	both_close(&b);
}

static void the_longest_record_fits_and_a_longer_one_is_refused_at_once(void)
{
	struct both b = both_new(CAPACITY, 0);
	uint64_t longest = mk_longest(&b.tx->end);
	void *slot = NULL;

	CHECK_EQ(longest, CAPACITY - sizeof(struct mk_record));
	for (uint64_t i = 0; i < 3; i++) {
		send_number(b.tx, i, longest);
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0), -EAGAIN);
		expect_number(b.rx, i, longest);
		mk_release(b.rx);
	}
	CHECK_EQ(mk_reserve(b.tx, longest + 1, &slot), -EMSGSIZE);
	CHECK_EQ(mk_reserve(b.tx, UINT32_MAX, &slot), -EMSGSIZE);
	for (uint64_t less = 0; less < 32; less++) /* where the sum with a header would wrap */
		CHECK_EQ(mk_reserve(b.tx, UINT64_MAX - less, &slot), -EMSGSIZE);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, "x", UINT64_MAX), -EMSGSIZE);
	expect_nothing(b.rx);
	send_number(b.tx, 8, 8); /* and nothing was spoilt */
	expect_number(b.rx, 8, 8);
	both_close(&b);
}

static void a_ring_holds_exactly_its_capacity(void)
{
	struct both b = both_new(CAPACITY, 0);
	uint64_t fit = CAPACITY / 64;
	void *slot = NULL;

	for (uint64_t round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < fit; i++)
			send_number(b.tx, round * fit + i, 48); /* 64 bytes with its header */
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0), -EAGAIN);
		CHECK(!mk_end_ready(&b.tx->end));
		expect_number(b.rx, round * fit, 48);
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0), -EAGAIN); /* looked at is not released */
		mk_release(b.rx);
		CHECK(mk_end_ready(&b.tx->end));
		CHECK_EQ(mk_reserve(b.tx, 49, &slot), -EAGAIN); /* one byte too many */
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 7, 7, NULL, 0), 0);
		for (uint64_t i = 1; i < fit; i++)
			expect_number(b.rx, round * fit + i, 48);
		expect_number(b.rx, 7, 0);
		mk_release(b.rx);
		expect_nothing(b.rx);
	}
	both_close(&b);
}

static void a_record_is_contiguous_wherever_the_ring_goes_round(void)
{
	/* Every offset of the ring as a beginning, with records long enough to go round its end. */
	for (uint64_t at = 0; at < CAPACITY; at += MK_RECORD_ALIGN * SLOWNESS) {
		struct both b = both_at(CAPACITY, 0, at);

		send_number(b.tx, at, 2000);
		send_number(b.tx, at + 1, 2000);
		expect_number(b.rx, at, 2000);
		expect_number(b.rx, at + 1, 2000);
		mk_release(b.rx);
		both_close(&b);
	}
}

static void indices_may_begin_anywhere_and_go_round_2_to_the_32_and_2_to_the_64(void)
{
	const uint64_t starts[] = {(1ULL << 32) - 4096, (1ULL << 32) - 8,  1ULL << 32,    (1ULL << 63) - 8,
				   1ULL << 63,          UINT64_MAX - 4095, UINT64_MAX - 7};

	for (size_t s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
		struct both b = both_at(CAPACITY, 0, starts[s]);

		expect_nothing(b.rx);
		for (uint64_t i = 0; i < 40; i++) {
			send_number(b.tx, 2 * i, 100 + i);
			send_number(b.tx, 2 * i + 1, 1000 - i);
			expect_number(b.rx, 2 * i, 100 + i);
			expect_number(b.rx, 2 * i + 1, 1000 - i);
			expect_nothing(b.rx);
			mk_release(b.rx);
		}
		while (mk_send(b.tx, MK_MSG_USER, 5, 5, NULL, 0) == 0)
			;
		for (uint64_t i = 0; i < CAPACITY / 16; i++)
			expect_number(b.rx, 5, 0);
		expect_nothing(b.rx);
		both_close(&b);
	}
}

static void what_was_peeked_at_and_not_released_comes_again(void)
{
	struct both b = both_new(CAPACITY, 0);

	for (uint64_t i = 0; i < 4; i++)
		send_number(b.tx, i, 10);
	expect_number(b.rx, 0, 10);
	mk_release(b.rx);
	expect_number(b.rx, 1, 10);
	expect_number(b.rx, 2, 10);
	mk_unpeek(b.rx);
	expect_number(b.rx, 1, 10);
	mk_release(b.rx);
	expect_number(b.rx, 2, 10);
	expect_number(b.rx, 3, 10);
	mk_release(b.rx);
	mk_release(b.rx); /* nothing to give back: no harm */
	expect_nothing(b.rx);
	both_close(&b);
}

static void counters_count_what_was_sent_and_what_was_released(void)
{
	struct both b = both_new(CAPACITY, 0);
	const struct mk_counters *out = b.tx->end.counters, *in = b.rx->end.counters;

	send_number(b.tx, 1, 100);
	send_number(b.tx, 2, 50);
	expect_number(b.rx, 1, 100);
	CHECK_EQ(mk_load_relaxed(&out->sent), 2);
	CHECK_EQ(mk_load_relaxed(&out->sent_bytes), 150);
	CHECK_EQ(mk_load_relaxed(&in->received), 0); /* not yet released */
	mk_release(b.rx);
	expect_number(b.rx, 2, 50);
	mk_unpeek(b.rx);
	mk_release(b.rx);
	CHECK_EQ(mk_load_relaxed(&in->received), 1);
	CHECK_EQ(mk_load_relaxed(&in->received_bytes), 100);
	both_close(&b);
}

/* --- elements ------------------------------------------------------------------------------------------------------ */

#define ELEMENT 12u /* divides no power of two */

static void fill_elements(unsigned char *to, uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		fill_bytes(to + i * ELEMENT, first + i, ELEMENT);
}

static void expect_elements(const void *from, uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		CHECK(bytes_are((const unsigned char *)from + i * ELEMENT, first + i, ELEMENT));
}

static void as_many_elements_are_sent_as_there_is_room_for(void)
{
	const uint64_t starts[] = {0, 4092, (1ULL << 32) - 12, UINT64_MAX - 11};
	uint64_t fit = CAPACITY / ELEMENT;
	unsigned char bytes[2 * CAPACITY];
	const void *there = NULL;

	for (size_t s = 0; s < 4; s++) {
		struct both b = both_at(CAPACITY, ELEMENT, starts[s]);

		CHECK_EQ(mk_peek_elements(b.rx, 5, &there), -EAGAIN);
		fill_elements(bytes, 0, fit + 10);
		CHECK_EQ(mk_send_elements(b.tx, bytes, fit + 10), fit);
		CHECK_EQ(mk_send_elements(b.tx, bytes, 1), -EAGAIN);
		CHECK_EQ(mk_peek_elements(b.rx, 5, &there), 5);
		expect_elements(there, 0, 5);
		CHECK_EQ(mk_peek_elements(b.rx, UINT64_MAX, &there), fit - 5);
		expect_elements(there, 5, fit - 5);
		mk_unpeek(b.rx);
		CHECK_EQ(mk_peek_elements(b.rx, 100, &there), 100);
		mk_release(b.rx);
		fill_elements(bytes, fit, 200);
		CHECK_EQ(mk_send_elements(b.tx, bytes, 200), 100);
		CHECK_EQ(mk_peek_elements(b.rx, 1000, &there), fit); /* in one piece, round the end */
		expect_elements(there, 100, fit);
		mk_release(b.rx);
		both_close(&b);
	}
}

static void elements_can_be_reserved_and_fewer_finished(void)
{
	struct both b = both_new(CAPACITY, ELEMENT);
	const void *there = NULL;
	void *slot = NULL;

	CHECK_EQ(mk_reserve_elements(b.tx, CAPACITY / ELEMENT + 1, &slot), -EMSGSIZE);
	CHECK_EQ(mk_reserve_elements(b.tx, UINT64_MAX / ELEMENT + 2, &slot), -EMSGSIZE); /* whose size would wrap */
	CHECK_EQ(mk_reserve_elements(b.tx, 0, &slot), -EINVAL);
	CHECK_EQ(mk_finish_elements(b.tx, 1), -EINVAL);
	CHECK_EQ(mk_reserve_elements(b.tx, 10, &slot), 0);
	CHECK_EQ(mk_finish_elements(b.tx, 11), -EINVAL);
	CHECK_EQ(mk_finish_elements(b.tx, UINT64_MAX / ELEMENT + 2), -EINVAL);
	fill_elements(slot, 0, 4);
	CHECK_EQ(mk_finish_elements(b.tx, 4), 0);
	CHECK_EQ(mk_peek_elements(b.rx, 10, &there), -EAGAIN);
	mk_publish(b.tx);
	CHECK_EQ(mk_peek_elements(b.rx, 10, &there), 4);
	expect_elements(there, 0, 4);
	both_close(&b);
}

/* What lies before and behind is left alone, whatever the size: a copy's moves may overlap but not reach out. */
static void an_element_of_any_size_goes_one_at_a_time(void)
{
	for (uint32_t size = 1; size <= 300; size++) {
		struct both b = both_at(CAPACITY, size, UINT64_MAX - 1000);
		unsigned char element[300], got[1 + 300 + 1];

		for (uint64_t n = 0; n < 40; n++) {
			fill_bytes(element, n, size);
			memset(got, 0xee, sizeof(got));
			CHECK_EQ(mk_recv_element(b.rx, got + 1, size), -EAGAIN);
			CHECK_EQ(mk_send_element(b.tx, element, size), 0);
			CHECK_EQ(mk_recv_element(b.rx, got + 1, size), 0);
			CHECK(bytes_are(got + 1, n, size));
			CHECK_EQ(got[0], 0xee);
			CHECK_EQ(got[1 + size], 0xee);
		}
		both_close(&b);
	}
}

static void a_record_of_any_length_is_copied_whole_and_nothing_else_is(void)
{
	struct both b = both_new(2 * CAPACITY, 0);
	unsigned char bytes[CAPACITY + 300];
	struct mk_message m = {0};

	for (uint64_t length = 0; length < sizeof(bytes); length += length < 300 || length > CAPACITY - 70 ? 1 : 61) {
		unsigned char *behind;

		fill_bytes(bytes, length, length);
		behind = b.tx->data + (b.tx->head & b.tx->end.mask) + 16 + length;
		*behind = 0xee;
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 1, length, bytes, length), 0);
		CHECK_EQ(*behind, 0xee);
		CHECK_EQ(mk_peek(b.rx, &m), 0);
		CHECK_EQ(m.length, length);
		CHECK(bytes_are(m.payload, length, length));
		mk_release(b.rx);
	}
	both_close(&b);
}

static void taking_an_element_gives_back_what_was_looked_at_before_it(void)
{
	struct both b = both_new(CAPACITY, 8);
	uint64_t numbers[5] = {1, 2, 3, 4, 5}, got[5] = {0};
	const void *there = NULL;

	CHECK_EQ(mk_send_elements(b.tx, numbers, 5), 5);
	CHECK_EQ(mk_peek_elements(b.rx, 2, &there), 2);
	CHECK_EQ(mk_load_relaxed(&b.rx->own->tail), 0);
	CHECK_EQ(mk_recv_element(b.rx, got, 8), 0);
	CHECK_EQ(got[0], 3);
	CHECK_EQ(mk_load_relaxed(&b.rx->own->tail), 24);
	mk_unpeek(b.rx); /* nothing is looked at any more */
	CHECK_EQ(mk_peek_elements(b.rx, 1, &there), 1);
	CHECK_EQ(mk_recv_elements(b.rx, got, 5), 1);
	CHECK_EQ(got[0], 5);
	CHECK_EQ(mk_load_relaxed(&b.rx->own->tail), 40);
	CHECK_EQ(mk_recv_elements(b.rx, got, 5), -EAGAIN);
	both_close(&b);
}

static void elements_are_counted_from_the_indices_when_somebody_asks(void)
{
	struct both b = both_at(CAPACITY, ELEMENT, UINT64_MAX - 100);
	const struct mk_counters *out = b.tx->end.counters, *in = b.rx->end.counters;
	unsigned char bytes[30 * ELEMENT];

	fill_elements(bytes, 0, 30);
	CHECK_EQ(mk_send_elements(b.tx, bytes, 30), 30);
	CHECK_EQ(mk_send_element(b.tx, bytes, ELEMENT), 0);
	CHECK_EQ(mk_recv_elements(b.rx, bytes, 10), 10);
	for (int twice = 0; twice < 2; twice++) {
		mk_end_count(&b.tx->end);
		mk_end_count(&b.rx->end);
		CHECK_EQ(mk_load_relaxed(&out->sent), 31);
		CHECK_EQ(mk_load_relaxed(&out->sent_bytes), 31 * ELEMENT);
		CHECK_EQ(mk_load_relaxed(&in->received), 10);
		CHECK_EQ(mk_load_relaxed(&in->received_bytes), 10 * ELEMENT);
	}
	both_close(&b);
}

/* Whoever watches an end that nobody asks sees no more of it missing than fits into the ring. */
static void elements_are_counted_without_asking_once_in_a_ring_length_and_at_the_close(void)
{
	struct ring ring = ring_new(CAPACITY, ELEMENT);
	struct mk_counters counters = {0};
	int reader = mk_object_reopen(ring.consumer);
	struct mk_receiver *rx = ring_receiver(&ring);
	struct mk_sender *tx;
	unsigned char element[ELEMENT] = {0};
	uint64_t sent = 0;

	CHECK_EQ(mk_sender_claim(&tx, ring.producer, &counters, NULL), 0);
	CHECK_EQ(mk_sender_attach(tx, reader, 0, ring.sockets[0], -1, NULL), 0);
	ring.sockets[0] = -1;
	close(reader);
	while (sent < 5000) {
		if (mk_send_element(tx, element, ELEMENT) == 0)
			sent++;
		else
			CHECK_EQ(mk_recv_element(rx, element, ELEMENT), 0);
		CHECK((sent - mk_load_relaxed(&counters.sent)) * ELEMENT <= 2 * CAPACITY);
	}
	mk_sender_close(tx);
	CHECK_EQ(mk_load_relaxed(&counters.sent), sent);
	CHECK_EQ(mk_load_relaxed(&counters.sent_bytes), sent * ELEMENT);
	mk_receiver_close(rx);
	ring_drop(&ring);
}

static void calls_for_elements_are_refused_on_a_lane_of_records(void)
{
	struct both b = both_new(CAPACITY, 0);
	const void *there = NULL;
	void *slot = NULL;

	CHECK_EQ(mk_send_elements(b.tx, "x", 1), -EINVAL);
	CHECK_EQ(mk_reserve_elements(b.tx, 1, &slot), -EINVAL);
	CHECK_EQ(mk_peek_elements(b.rx, 1, &there), -EINVAL);
	CHECK_EQ(mk_recv_elements(b.rx, &slot, 1), -EINVAL);
	for (uint64_t size = 0; size < 20; size++) {
		CHECK_EQ(mk_send_element(b.tx, "x", size), -EINVAL);
		CHECK_EQ(mk_recv_element(b.rx, &slot, size), -EINVAL);
	}
	both_close(&b);
}

static void an_element_of_another_size_than_the_lane_s_is_refused(void)
{
	struct both b = both_new(CAPACITY, 8);
	uint64_t element[2] = {1, 2};

	CHECK_EQ(mk_send_element(b.tx, element, 16), -EINVAL);
	CHECK_EQ(mk_send_element(b.tx, element, 4), -EINVAL);
	CHECK_EQ(mk_send_element(b.tx, element, (1ULL << 32) + 8), -EINVAL);
	CHECK_EQ(mk_send_element(b.tx, element, 8), 0);
	CHECK_EQ(mk_recv_element(b.rx, element, 16), -EINVAL);
	CHECK_EQ(mk_recv_element(b.rx, element, 0), -EINVAL);
	CHECK_EQ(mk_recv_element(b.rx, element, 8), 0);
	both_close(&b);
}

/* --- against a model ------------------------------------------------------------------------------------------------ */

/* Random calls on both ends, beside a queue that is plainly right: numbers and lengths, and how full the ring must be. */
static void random_calls_agree_with_a_plain_queue(void)
{
	enum {
		MOST = CAPACITY / 16 + 1
	};
	struct random r = random_from(1);
	uint64_t lengths[MOST];

	for (uint64_t run = 0; run < times(40); run++) {
		struct both b = both_at(CAPACITY, 0, draw(&r) & ~7ULL);
		uint64_t sent = 0, published = 0, looked = 0, released = 0; /* numbers of records */
		uint64_t used = 0;                                          /* bytes, to what is finished */
		uint64_t scale = 1 + below(&r, 400);

		for (int step = 0; step < 4000; step++) {
			uint64_t length = below(&r, 10) ? below(&r, scale) : below(&r, CAPACITY);
			uint64_t size = (16 + length + 7) / 8 * 8;
			void *slot = NULL;

			switch (below(&r, 6)) {
			case 0:
			case 1: /* finish one */
				CHECK_EQ(mk_reserve(b.tx, length, &slot), length > CAPACITY - 16   ? -EMSGSIZE
									  : size > CAPACITY - used ? -EAGAIN
												   : 0);
				if (length > CAPACITY - 16 || size > CAPACITY - used)
					break;
				fill_bytes(slot, sent, length);
				CHECK_EQ(mk_finish(b.tx, length, MK_MSG_USER, (uint16_t)sent, sent), 0);
				lengths[sent++ % MOST] = length;
				used += size;
				break;
			case 2: /* publish */
				CHECK_EQ(mk_publish(b.tx), 0);
				published = sent;
				break;
			case 3: /* look */
			case 4:
				if (looked == published) {
					expect_nothing(b.rx);
				} else {
					expect_number(b.rx, looked, lengths[looked % MOST]);
					looked++;
				}
				break;
			default: /* release, or look again */
				if (below(&r, 4)) {
					mk_release(b.rx);
					for (; released < looked; released++)
						used -= (16 + lengths[released % MOST] + 7) / 8 * 8;
				} else {
					mk_unpeek(b.rx);
					looked = released;
				}
			}
		}
		both_close(&b);
	}
}

static const struct test tests[] = {
	TEST(a_record_arrives_with_every_field_and_byte),
	TEST(an_empty_record_is_a_record),
	TEST(records_finished_are_seen_only_once_published_and_then_all),
	TEST(a_record_may_be_shorter_than_what_was_reserved_but_not_longer),
	TEST(a_second_reserve_replaces_the_first),
	TEST(the_longest_record_fits_and_a_longer_one_is_refused_at_once),
	TEST(a_ring_holds_exactly_its_capacity),
	TEST(a_record_is_contiguous_wherever_the_ring_goes_round),
	TEST(indices_may_begin_anywhere_and_go_round_2_to_the_32_and_2_to_the_64),
	TEST(what_was_peeked_at_and_not_released_comes_again),
	TEST(counters_count_what_was_sent_and_what_was_released),
	TEST(as_many_elements_are_sent_as_there_is_room_for),
	TEST(elements_can_be_reserved_and_fewer_finished),
	TEST(an_element_of_any_size_goes_one_at_a_time),
	TEST(a_record_of_any_length_is_copied_whole_and_nothing_else_is),
	TEST(taking_an_element_gives_back_what_was_looked_at_before_it),
	TEST(elements_are_counted_from_the_indices_when_somebody_asks),
	TEST(elements_are_counted_without_asking_once_in_a_ring_length_and_at_the_close),
	TEST(calls_for_elements_are_refused_on_a_lane_of_records),
	TEST(an_element_of_another_size_than_the_lane_s_is_refused),
	TEST(random_calls_agree_with_a_plain_queue),
};

RUN_TESTS(tests)
