/* Broadcasts that overwrite: who is slow is told exactly what it missed. */
#include "cast.h"

static void what_was_missed_is_counted(void)
{
	struct cast c = claimed(true);
	struct mk_follower *a = follower(&c), *b;
	uint64_t next = 0, missed = 0, other = 0, none = 0, got = 0;

	CHECK_EQ(follow(a, &next, &missed, 1), -EAGAIN);
	for (uint64_t i = 0; i < 20; i++)
		CHECK_EQ(cast_number(c.tx, i), 0);
	CHECK_EQ(follow(a, &next, &missed, 5), 5);
	for (uint64_t i = 20; i < 5000; i++)
		CHECK_EQ(cast_number(c.tx, i), 0); /* never waits */
	b = follower(&c);
	other = 5000;
	CHECK_EQ(cast_number(c.tx, 5000), 0);
	while (follow(a, &next, &missed, 7) > 0)
		got++;
	CHECK_EQ(next, 5001);
	CHECK(missed > 4000 && got > 1);
	CHECK_EQ(follow(b, &other, &none, 1), 1);
	CHECK_EQ(none, 0);
	mk_broadcast_close(c.tx);
	CHECK_EQ(follow(a, &next, &missed, 1), -EPIPE);
	CHECK_EQ(follow(b, &other, &none, 1), -EPIPE);
	mk_follower_free(a);
	mk_follower_free(b);
	cast_close(&c);
}

static void what_was_looked_at_and_not_released_comes_again(void)
{
	struct cast c = claimed(true);
	struct mk_follower *f = follower(&c);
	struct mk_message m[3];
	uint64_t missed = 0, first;

	for (uint64_t i = 0; i < 5000; i++)
		CHECK_EQ(cast_number(c.tx, i), 0);
	CHECK_EQ(mk_follower_look(f, m, 3, &missed), 3);
	first = missed;
	check(&m[0], first);
	for (uint64_t i = 5000; i < 10000; i++) /* what was copied is not overtaken */
		CHECK_EQ(cast_number(c.tx, i), 0);
	CHECK_EQ(mk_follower_look(f, m, 2, &missed), 2);
	CHECK_EQ(missed, first); /* nothing was received since */
	check(&m[1], first + 1);
	mk_follower_release(f);
	mk_follower_release(f); /* nothing more was looked at */
	CHECK_EQ(mk_follower_take(f, m, 1, &missed), 1);
	CHECK_EQ(missed, 0);
	check(&m[0], first + 2);
	mk_follower_free(f);
	cast_close(&c);
}

static void as_many_wait_as_can_be_taken(void)
{
	struct cast c = claimed(true);
	struct mk_follower *f = follower(&c);
	struct random r = random_from(3);
	static unsigned char bytes[CAPACITY];

	CHECK_EQ(mk_follower_waiting(f), 0);
	for (unsigned i = 0; i < 2000; i++) {
		struct mk_message m;
		uint64_t missed, waiting;

		for (uint64_t n = below(&r, 40); n > 0; n--) {
			CHECK_EQ(mk_broadcast_put(c.tx, bytes, below(&r, 300)), 0);
			mk_broadcast_publish(c.tx);
		}
		waiting = mk_follower_waiting(f);
		for (uint64_t n = below(&r, 20); n > 0 && waiting > 0; n--, waiting--)
			CHECK_EQ(mk_follower_take(f, &m, 1, &missed), 1);
		CHECK_EQ(mk_follower_waiting(f), waiting);
		CHECK_EQ(mk_follower_take(f, &m, 1, &missed), waiting ? 1 : -EAGAIN);
	}
	mk_follower_free(f);
	cast_close(&c);
}

static void a_receiver_made_late_counts_from_there(void)
{
	struct cast c = claimed(true);

	for (uint64_t i = 0; i < 777; i++)
		CHECK_EQ(cast_number(c.tx, i), 0);
	struct mk_follower *f = follower(&c);
	uint64_t next = 777, missed = 0;

	for (uint64_t i = 777; i < 3000; i++)
		CHECK_EQ(cast_number(c.tx, i), 0);
	while (follow(f, &next, &missed, 32) > 0)
		;
	CHECK_EQ(next, 3000);
	mk_follower_free(f);
	cast_close(&c);
}

static void records_of_every_size_up_to_half_the_ring_are_followed(void)
{
	struct cast c = claimed(true);
	struct mk_follower *f = follower(&c);
	static unsigned char bytes[CAPACITY];
	uint64_t longest = mk_broadcast_longest(c.tx), number = 0;
	struct random r = random_from(1);

	CHECK_EQ(longest, CAPACITY / 2 - 16);
	CHECK_EQ(mk_broadcast_put(c.tx, bytes, longest + 1), -EMSGSIZE);
	for (uint64_t i = 0; i < 3000; i++) {
		uint64_t length = i % 3 ? longest - below(&r, 20) : below(&r, longest + 1), missed = 9;
		struct mk_message m = {0};

		fill_bytes(bytes, i, length);
		CHECK_EQ(mk_broadcast_put(c.tx, bytes, length), 0);
		mk_broadcast_publish(c.tx);
		if (below(&r, 3))
			continue;
		CHECK_EQ(mk_follower_take(f, &m, 1, &missed), 1);
		CHECK_EQ(m.id, number + missed);
		if (m.id == i) {
			CHECK_EQ(m.length, length);
			CHECK(bytes_are(m.payload, i, length));
		}
		number = m.id + 1;
	}
	mk_follower_free(f);
	cast_close(&c);
}

static void a_batch_larger_than_the_ring_leaves_something_at_any_time(void)
{
	struct cast c = claimed(true);
	struct mk_follower *f = follower(&c);
	static unsigned char bytes[CAPACITY];
	struct random r = random_from(2);
	uint64_t longest = mk_broadcast_longest(c.tx), next = 0;

	for (uint64_t i = 0; i < 20000; i++) {
		uint64_t length = below(&r, 4) ? below(&r, 100) : longest - below(&r, below(&r, 2) ? 20 : longest);
		struct mk_message m[5];
		uint64_t missed;
		int n;

		CHECK_EQ(mk_broadcast_put(c.tx, bytes, length), 0);
		if (below(&r, 3))
			continue;
		while ((n = mk_follower_take(f, m, 5, &missed)) > 0) {
			CHECK_EQ(m[0].id, next + missed);
			next += missed + (uint64_t)n;
		}
		CHECK_EQ(n, -EAGAIN);
	}
	mk_broadcast_publish(c.tx);
	for (int n = 1; n > 0;) {
		struct mk_message m[5];
		uint64_t missed = 0;

		n = mk_follower_take(f, m, 5, &missed);
		next += n > 0 ? missed + (uint64_t)n : 0;
	}
	CHECK_EQ(next, 20000);
	mk_follower_free(f);
	cast_close(&c);
}

static const struct test tests[] = {
	TEST(what_was_missed_is_counted),
	TEST(what_was_looked_at_and_not_released_comes_again),
	TEST(as_many_wait_as_can_be_taken),
	TEST(a_receiver_made_late_counts_from_there),
	TEST(records_of_every_size_up_to_half_the_ring_are_followed),
	TEST(a_batch_larger_than_the_ring_leaves_something_at_any_time),
};

RUN_TESTS(tests)
