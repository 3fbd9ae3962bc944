/* Broadcasts that wait for who is slow: all get the same, at their own pace; who dies holds nobody up. */
#include "cast.h"

static void all_get_the_same_at_their_own_pace(void)
{
	struct cast c = claimed(false);
	struct mk_receiver *a = receiver(&c), *b = receiver(&c);

	for (uint64_t i = 0; i < 10; i++)
		CHECK_EQ(cast_number(c.tx, i), 0);
	for (uint64_t i = 0; i < 10; i++)
		expect(a, i);
	for (uint64_t i = 0; i < 10; i++)
		expect(b, i);
	for (uint64_t i = 10; i < 5000; i++) {
		CHECK_EQ(cast_number(c.tx, i), 0);
		expect(i % 2 ? a : b, i);
		expect(i % 2 ? b : a, i);
	}
	mk_receiver_close(a);
	mk_receiver_close(b);
	CHECK_EQ(mk_broadcast_receivers(c.tx), 0);
	cast_close(&c);
}

static uint64_t fill(struct mk_broadcast *tx, uint64_t number)
{
	int result;

	while ((result = cast_number(tx, number)) == 0)
		number++;
	CHECK_EQ(result, -EAGAIN);
	return number;
}

static void its_room_ends_where_the_slowest_stands(void)
{
	struct cast c = claimed(false);
	struct mk_receiver *a = receiver(&c), *b = receiver(&c);
	uint64_t next = fill(c.tx, 0);

	for (uint64_t i = 0; i < next; i++)
		expect(a, i);
	CHECK_EQ(cast_number(c.tx, next), -EAGAIN);
	CHECK_EQ(mk_broadcast_wait(c.tx, 0, false), -ETIMEDOUT);
	CHECK_EQ(mk_broadcast_wait(c.tx, 3000000, false), -ETIMEDOUT);
	for (uint64_t i = 0; i < 20; i++)
		expect(b, i);
	CHECK_EQ(mk_broadcast_wait(c.tx, -1, false), 0);
	CHECK_EQ(cast_number(c.tx, next), 0);
	mk_receiver_close(b); /* holds nobody up any more */
	fill(c.tx, next + 1);
	CHECK_EQ(mk_broadcast_receivers(c.tx), 1);
	mk_receiver_close(a);
	CHECK_EQ(cast_number(c.tx, 0), 0);
	cast_close(&c);
}

static void one_that_nobody_holds_any_more_is_dropped(void)
{
	struct cast c = claimed(false);
	struct seat s = seated(&c);
	uint64_t next = fill(c.tx, 0);

	CHECK_EQ(mk_broadcast_wait(c.tx, 1000000, false), -ETIMEDOUT); /* it may still be claimed */
	CHECK_EQ(mk_broadcast_receivers(c.tx), 1);
	leave_seat(&s);
	CHECK_EQ(mk_broadcast_wait(c.tx, -1, false), 0);
	CHECK_EQ(cast_number(c.tx, next), 0);
	CHECK_EQ(mk_broadcast_receivers(c.tx), 0);
	cast_close(&c);
}

static void a_receiver_gets_all_from_where_it_was_made(void)
{
	struct cast c = claimed(false);
	struct mk_receiver *a = receiver(&c), *b;
	struct seat s = seat_new();

	for (uint64_t i = 0; i < 100; i++) {
		CHECK_EQ(cast_number(c.tx, i), 0);
		expect(a, i);
	}
	count_in(&c, &s);
	CHECK_EQ(s.number, 100);
	CHECK_EQ(put(c.tx, 100), -ENOTCONN);
	take_in(c.tx, &s, 1);
	mk_broadcast_caught_up(c.tx);
	uint64_t next = fill(c.tx, 100); /* not claimed yet, it holds the sender up all the same */

	b = sit(&c, &s);
	for (uint64_t i = 100; i < next; i++) {
		expect(a, i);
		expect(b, i);
	}
	mk_receiver_close(a);
	mk_receiver_close(b);
	cast_close(&c);
}

static void closed_receivers_get_the_rest(void)
{
	struct cast c = claimed(false);
	struct mk_receiver *a = receiver(&c), *b = receiver(&c);
	struct mk_message m;

	CHECK_EQ(cast_number(c.tx, 0), 0);
	mk_broadcast_close(c.tx);
	mk_broadcast_close(c.tx);
	for (int i = 0; i < 2; i++) {
		expect(i ? a : b, 0);
		CHECK_EQ(peek_waiting(i ? a : b, &m), -EPIPE);
	}
	mk_receiver_close(a);
	mk_receiver_close(b);
	cast_close(&c);
}

static void without_receivers_it_sends_to_nobody_and_ends_when_there_will_be_none(void)
{
	struct cast c = claimed(false);

	for (uint64_t i = 0; i < 1000; i++)
		CHECK_EQ(cast_number(c.tx, i), 0);
	struct mk_receiver *a = receiver(&c);

	mk_roster_close(c.roster);
	c.roster = NULL;
	CHECK_EQ(cast_number(c.tx, 1000), 0);
	expect(a, 1000);
	mk_receiver_close(a);
	CHECK_EQ(mk_broadcast_receivers(c.tx), 0);
	CHECK_EQ(cast_number(c.tx, 1001), -EPIPE);
	cast_close(&c);
}

static void a_receiver_that_lies_is_cut_off_and_the_others_go_on(void)
{
	uint64_t lies[] = {1ULL << 63, ~0ULL, 8, 4, 1 << 20};

	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct cast c = claimed(false);
		struct mk_receiver *a = receiver(&c), *b = receiver(&c);
		uint64_t value = 0, next;

		CHECK_EQ(cast_number(c.tx, 0), 0);
		CHECK_EQ(cast_number(c.tx, 1), 0);
		expect(a, 0);
		expect(a, 1);
		expect(b, 0);
		expect(b, 1);
		next = fill(c.tx, 2);
		mk_store_release(&a->own->tail, lies[i]); /* 8: backwards */
		CHECK_EQ(cast_number(c.tx, next), -EBADMSG);
		CHECK_EQ(mk_broadcast_bad(c.tx, &value), 0);
		CHECK_EQ(value, lies[i]);
		CHECK_EQ(mk_broadcast_receivers(c.tx), 1);
		for (uint64_t n = 2; n < next; n++)
			expect(b, n);
		CHECK_EQ(cast_number(c.tx, next), 0);
		expect(b, next);
		mk_receiver_close(a);
		mk_receiver_close(b);
		cast_close(&c);
	}
}

static void the_sender_is_one_processs(void)
{
	struct cast c = claimed(false);
	struct mk_broadcast *other;
	uint32_t why;

	CHECK_EQ(mk_broadcast_claim(&other, c.producer, c.roster_fd, -1, 0, false, &why), -EPERM);
	CHECK_EQ(mk_broadcast_claim(&other, c.producer, c.producer, -1, 0, false, &why), -EPROTO);
	CHECK_EQ(mk_broadcast_object(CAPACITY + 1, false), -EINVAL);
	cast_close(&c);
}

static const struct test tests[] = {
	TEST(all_get_the_same_at_their_own_pace),
	TEST(its_room_ends_where_the_slowest_stands),
	TEST(one_that_nobody_holds_any_more_is_dropped),
	TEST(a_receiver_gets_all_from_where_it_was_made),
	TEST(closed_receivers_get_the_rest),
	TEST(without_receivers_it_sends_to_nobody_and_ends_when_there_will_be_none),
	TEST(a_receiver_that_lies_is_cut_off_and_the_others_go_on),
	TEST(the_sender_is_one_processs),
};

RUN_TESTS(tests)
