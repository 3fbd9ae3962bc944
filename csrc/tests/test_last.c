/* The short record beside head: it is the one that was sent, or it is not taken at all. */
#include "harness.h"

#define CAPACITY 4096u

static void a_short_record_that_is_alone_is_taken_from_heads_line(void)
{
	for (uint64_t length = 0; length <= MK_LAST_PAYLOAD; length++) {
		struct both b = both_new(CAPACITY, 0);
		unsigned char payload[MK_LAST_PAYLOAD];
		uint64_t copy[MK_LAST_WORDS];
		struct mk_message m = {0};

		for (unsigned i = 0; i < sizeof(payload); i++)
			payload[i] = (unsigned char)(length + i);
		CHECK(!mk_peek_last(b.rx, &m, copy));
		CHECK_EQ(mk_send(b.tx, 7, 8, 9, payload, length), 0);
		CHECK(mk_peek_last(b.rx, &m, copy));
		CHECK_EQ(m.length, length);
		CHECK_EQ(m.type, 7);
		CHECK_EQ(m.subtype, 8);
		CHECK_EQ(m.id, 9);
		CHECK(!memcmp(m.payload, payload, length));
		CHECK(!mk_peek_last(b.rx, &m, copy));
		mk_release(b.rx);
		CHECK_EQ(mk_load_relaxed(&b.rx->own->tail), mk_record_size(length));
		CHECK_EQ(mk_load_relaxed(&b.rx->end.counters->received), 1);
		CHECK_EQ(mk_load_relaxed(&b.rx->end.counters->received_bytes), length);
		CHECK_EQ(mk_peek(b.rx, &m), -EAGAIN);
		both_close(&b);
	}
}

static void what_was_taken_from_there_and_not_released_comes_again_from_the_ring(void)
{
	struct both b = both_new(CAPACITY, 0);
	uint64_t copy[MK_LAST_WORDS];
	struct mk_message m = {0};

	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 1, "eight bt", 8), 0);
	CHECK(mk_peek_last(b.rx, &m, copy));
	mk_unpeek(b.rx);
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	CHECK(!memcmp(m.payload, "eight bt", 8));
	both_close(&b);
}

static void a_longer_one_and_more_than_one_are_not(void)
{
	struct both b = both_new(CAPACITY, 0);
	unsigned char payload[MK_LAST_PAYLOAD + 1] = {0};
	uint64_t copy[MK_LAST_WORDS];
	struct mk_message m = {0};

	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 1, payload, sizeof(payload)), 0);
	CHECK(!mk_peek_last(b.rx, &m, copy));
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	mk_release(b.rx);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 2, payload, 4), 0);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 3, payload, 4), 0);
	CHECK(!mk_peek_last(b.rx, &m, copy)); /* the last one, but not the next */
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	CHECK_EQ(m.id, 2);
	CHECK(!mk_peek_last(b.rx, &m, copy));
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	CHECK_EQ(m.id, 3);
	mk_release(b.rx);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 4, payload, 4), 0);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 5, payload, sizeof(payload)), 0);
	CHECK(!mk_peek_last(b.rx, &m, copy));
	both_close(&b);
}

static void words_that_cannot_be_are_left_to_the_ring(void)
{
	const struct mk_record wrong[] = {
		{.length = MK_LAST_PAYLOAD + 1}, {.length = ~0u}, {.length = 0}, {.length = 16}};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct both b = both_new(CAPACITY, 0);
		uint64_t copy[MK_LAST_WORDS], words[2];
		struct mk_message m = {0};

		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 1, "eight bt", 8), 0);
		memcpy(words, &wrong[i], sizeof(words));
		mk_store_relaxed(&b.tx->own->last[0], words[0]);
		CHECK(!mk_peek_last(b.rx, &m, copy)); /* not the length that lies between next and head */
		CHECK_EQ(mk_peek(b.rx, &m), 0);
		CHECK_EQ(m.length, 8);
		both_close(&b);
	}
}

/* Where the index wraps to 0 the end of a record is the same number as "no words". */
static void at_the_wrap_of_the_index_words_that_are_being_written_are_not_taken(void)
{
	struct both b = both_at(CAPACITY, 0, (uint64_t)0 - mk_record_size(8));
	uint64_t copy[MK_LAST_WORDS];
	struct mk_message m = {0};

	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 1, "eight bt", 8), 0);
	CHECK_EQ(mk_load_relaxed(&b.tx->own->head), 0);
	/* The next send has got as far as this, L1 and half of L2. */
	mk_store_relaxed(&b.tx->own->last_end, 0);
	mk_store_relaxed(&b.tx->own->last[1], 2);
	CHECK(!mk_peek_last(b.rx, &m, copy));
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	CHECK_EQ(m.id, 1);
	CHECK(!memcmp(m.payload, "eight bt", 8));
	both_close(&b);
}

/* A lane of records of which three in four are short, some so quickly after each other that the words change under who
 * reads them: each is numbered, and filled with its number. */
struct stream {
	struct ring ring;
	uint64_t count;
};

static uint64_t length_of(uint64_t number)
{
	return number % 4 == 3 ? 40 : 8 * (1 + number % 3);
}

static void send_stream(void *argument)
{
	struct stream *s = argument;
	struct mk_sender *tx = child_sender(&s->ring);
	struct random r = random_from(1);

	for (uint64_t i = 0; i < s->count; i++) {
		uint64_t payload[5] = {i, i, i, i, i};

		if (below(&r, 2))
			dawdle(below(&r, 400));
		check_sent(send_waiting(tx, i, payload, length_of(i)), i + 1 == s->count);
	}
	mk_sender_close(tx);
}

static void of_a_stream_each_record_comes_once_and_whole_wherever_it_is_taken_from(void)
{
	struct stream s = {.ring = ring_new(CAPACITY, 0), .count = times(300000)};
	pid_t pid = spawn(send_stream, &s);
	struct mk_receiver *rx = child_receiver(&s.ring);
	uint64_t copy[MK_LAST_WORDS], beside = 0;

	for (uint64_t i = 0; i < s.count; i++) {
		struct mk_message m = {0};
		const uint64_t *words;
		bool last = false;

		while (!(last = mk_peek_last(rx, &m, copy)) && mk_peek(rx, &m))
			CHECK_EQ(wait_on(&rx->end), 0);
		beside += last;
		words = m.payload;
		CHECK_EQ(m.id, i);
		CHECK_EQ(m.length, length_of(i));
		for (uint64_t w = 0; w < length_of(i) / 8; w++)
			CHECK_EQ(words[w], i);
		mk_release(rx);
	}
	printf("      %" PRIu64 " of %" PRIu64 " from beside head\n", beside, s.count);
	mk_receiver_close(rx);
	reap_done(pid);
}

static const struct test tests[] = {
	TEST(a_short_record_that_is_alone_is_taken_from_heads_line),
	TEST(what_was_taken_from_there_and_not_released_comes_again_from_the_ring),
	TEST(a_longer_one_and_more_than_one_are_not),
	TEST(words_that_cannot_be_are_left_to_the_ring),
	TEST(at_the_wrap_of_the_index_words_that_are_being_written_are_not_taken),
	TEST(of_a_stream_each_record_comes_once_and_whole_wherever_it_is_taken_from),
};

RUN_TESTS(tests)
