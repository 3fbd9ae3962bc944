/* Broadcasts: all get the same; who is slow is waited for, or told what it missed; who dies holds nobody up. */
#include "harness.h"

#include <pthread.h>

#include "multikernel/broadcast.h"

#define CAPACITY 8192u
#define LONGEST 300u

/* A broadcast as a binding makes it. */
struct cast {
	struct mk_roster *roster;
	int roster_fd, producer, reader;
	struct mk_broadcast *tx;
	uint32_t made;
	uint64_t number; /* where the last receiver begins */
};

static struct cast cast_new(uint64_t capacity, bool overwrites)
{
	struct cast c = {0};

	c.producer = mk_broadcast_object(capacity, overwrites);
	CHECK(c.producer >= 0);
	c.reader = mk_object_reopen(c.producer);
	c.roster_fd = mk_roster_create(&c.roster);
	CHECK(c.roster_fd >= 0);
	return c;
}

static void claim(struct cast *c)
{
	CHECK_EQ(mk_broadcast_claim(&c->tx, c->producer, c->roster_fd, -1, MK_WAIT_PARK, false, NULL), 0);
}

static struct cast claimed(bool overwrites)
{
	struct cast c = cast_new(CAPACITY, overwrites);

	claim(&c);
	return c;
}

/* What is on its way to the sender, and what the receiver is claimed with. */
struct seat {
	int consumer, reader, sockets[2]; /* sender's, receiver's */
	uint64_t number;
};

static struct seat seat_new(void)
{
	struct seat s = {.consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:test", CAPACITY, 0, 0, 0)};

	CHECK(s.consumer >= 0);
	s.reader = mk_object_reopen(s.consumer);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s.sockets), 0);
	return s;
}

static void count_in(struct cast *c, struct seat *s)
{
	CHECK_EQ(mk_roster_add(c->roster, c->reader, s->consumer, &s->number), 0);
}

static void take_in(struct mk_broadcast *tx, struct seat *s, uint32_t number)
{
	CHECK_EQ(mk_broadcast_add(tx, s->reader, s->sockets[0], number, NULL), 0);
	close_one(&s->reader);
	s->sockets[0] = -1;
}

static struct mk_receiver *sit(const struct cast *c, struct seat *s)
{
	struct mk_receiver *rx;

	CHECK_EQ(mk_receiver_claim(&rx, s->consumer, NULL, NULL), 0);
	CHECK_EQ(mk_receiver_attach(rx, c->reader, 0, s->sockets[1], -1, NULL), 0);
	close_one(&s->consumer);
	s->sockets[1] = -1;
	return rx;
}

static void leave_seat(struct seat *s)
{
	close_one(&s->consumer);
	close_one(&s->reader);
	close_one(&s->sockets[0]);
	close_one(&s->sockets[1]);
}

/* One more receiver, taken in at once. */
static struct seat seated(struct cast *c)
{
	struct seat s = seat_new();

	count_in(c, &s);
	CHECK_EQ(mk_broadcast_receivers(c->tx), -ENOTCONN);
	take_in(c->tx, &s, c->made++);
	mk_broadcast_caught_up(c->tx);
	return s;
}

static struct mk_receiver *receiver(struct cast *c)
{
	struct seat s = seated(c);

	return sit(c, &s);
}

static struct mk_follower *follower(struct cast *c)
{
	struct seat s = seated(c);
	struct mk_follower *f = mk_follower_new(sit(c, &s), s.number);

	CHECK(f);
	return f;
}

static void cast_close(struct cast *c)
{
	mk_broadcast_free(c->tx);
	mk_roster_close(c->roster);
	close_one(&c->producer);
	close_one(&c->reader);
	close_one(&c->roster_fd);
}

static uint64_t length_of(uint64_t number)
{
	return number * 2654435761u % (LONGEST + 1);
}

/* @return as mk_broadcast_put; the record follows from its number */
static int put(struct mk_broadcast *tx, uint64_t number)
{
	unsigned char bytes[LONGEST];

	fill_bytes(bytes, number, length_of(number));
	return mk_broadcast_put(tx, bytes, length_of(number));
}

static int cast_number(struct mk_broadcast *tx, uint64_t number)
{
	int result = put(tx, number);

	mk_broadcast_publish(tx);
	return result;
}

static void check(const struct mk_message *m, uint64_t number)
{
	CHECK_EQ(m->id, number);
	CHECK_EQ(m->length, length_of(number));
	CHECK(bytes_are(m->payload, number, m->length));
}

static void expect(struct mk_receiver *rx, uint64_t number)
{
	struct mk_message m = {0};

	CHECK_EQ(peek_waiting(rx, &m), 0);
	check(&m, number);
	mk_release(rx);
}

/* --- one that waits --------------------------------------------------------------------------------------------------- */

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

/* --- one that overwrites ------------------------------------------------------------------------------------------------ */

/* @return what take returned; checks what it gave, and that together with what was missed nothing is lacking */
static int follow(struct mk_follower *f, uint64_t *next, uint64_t *missed, unsigned limit)
{
	struct mk_message m[MK_FOLLOWER_AHEAD];
	uint64_t gap = 0;
	int n = mk_follower_take(f, m, limit, &gap);

	if (n > 0) {
		*missed += gap;
		*next += gap;
	}
	for (int i = 0; i < n; i++)
		check(&m[i], (*next)++);
	return n;
}

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

/* --- both, at once ------------------------------------------------------------------------------------------------------ */

#define RECEIVERS 4u

struct show {
	struct cast cast;
	struct seat seats[RECEIVERS];
	uint64_t count; /* records; ~0: until it is killed */
	_Atomic uint64_t *begun;
	uint64_t pace; /* the sender dawdles so long, at most */
};

static void perform(struct show *s)
{
	struct random r = random_from(9);

	for (uint64_t i = 0; i < s->count; i++) {
		int result;

		mk_store_relaxed(s->begun, i + 1);
		while ((result = put(s->cast.tx, i)) == -EAGAIN) {
			mk_broadcast_publish(s->cast.tx);
			CHECK_EQ(mk_broadcast_wait(s->cast.tx, -1, false), 0);
		}
		if (result == -EPIPE)
			return;
		CHECK_EQ(result, 0);
		if (below(&r, 3))
			mk_broadcast_publish(s->cast.tx);
		if (s->pace)
			dawdle(below(&r, s->pace));
	}
	mk_broadcast_publish(s->cast.tx);
}

static void perform_in_a_process(void *argument)
{
	struct show *s = argument;

	claim(&s->cast);
	for (uint32_t i = 0; i < RECEIVERS; i++)
		take_in(s->cast.tx, &s->seats[i], i);
	CHECK_EQ(put(s->cast.tx, 0), -ENOTCONN); /* all of them at once */
	mk_broadcast_caught_up(s->cast.tx);
	for (uint32_t i = 0; i < RECEIVERS; i++)
		leave_seat(&s->seats[i]);
	perform(s);
	mk_broadcast_free(s->cast.tx);
}

/* Receive until the end. @return the number behind the last one; *missed of them did not come */
static uint64_t attend(struct mk_receiver *rx, bool overwrites, uint64_t *missed, uint64_t pace, uint64_t leave_at)
{
	struct mk_follower *f = overwrites ? mk_follower_new(rx, 0) : NULL;
	struct random r = random_from(pace + 10);
	uint64_t next = 0;
	int result;

	rx->end.policy = below(&r, 2) ? MK_WAIT_PARK : MK_WAIT_ADAPTIVE; /* more of us than cores: nobody spins */
	for (;;) {
		if (overwrites) {
			result = follow(f, &next, missed, 1 + (unsigned)below(&r, MK_FOLLOWER_AHEAD));
		} else {
			struct mk_message m = {0};

			result = mk_peek(rx, &m);
			if (!result) {
				check(&m, next++);
				mk_release(rx);
			}
		}
		if (result == -EAGAIN)
			result = wait_on(&rx->end);
		if (result == -EPIPE || next >= leave_at)
			break;
		CHECK(result >= 0 || result == -EINTR);
		if (pace)
			dawdle(below(&r, pace));
	}
	if (overwrites)
		mk_follower_free(f);
	else
		mk_receiver_close(rx);
	return next;
}

struct guest {
	struct show *show;
	uint32_t number;
	bool overwrites;
};

static void attend_in_a_process(void *argument)
{
	struct guest *g = argument;
	struct seat *s = &g->show->seats[g->number];
	uint64_t missed = 0;
	struct mk_receiver *rx = sit(&g->show->cast, s);

	for (uint32_t i = 0; i < RECEIVERS; i++)
		leave_seat(&g->show->seats[i]);
	attend(rx, g->overwrites, &missed, g->number * 3000, ~0ull);
}

static void kill_receivers(uint64_t rounds)
{
	_Atomic uint64_t *begun = shared(sizeof(*begun));
	struct random r = random_from(11);

	for (uint64_t round = 0; round < rounds; round++) {
		struct show s = {.cast = cast_new(CAPACITY, false), .count = 3000, .begun = begun};
		struct guest guests[RECEIVERS];
		pid_t pids[RECEIVERS];

		for (uint32_t i = 0; i < RECEIVERS; i++) {
			s.seats[i] = seat_new();
			count_in(&s.cast, &s.seats[i]);
		}
		for (uint32_t i = 0; i < RECEIVERS; i++) {
			guests[i] = (struct guest){&s, i, false};
			pids[i] = spawn(attend_in_a_process, &guests[i]);
		}
		pid_t sender = spawn(perform_in_a_process, &s);

		for (uint32_t i = 0; i < RECEIVERS; i++)
			leave_seat(&s.seats[i]);
		for (uint32_t i = 1; i < RECEIVERS; i++) { /* all but one die somewhere */
			dawdle(below(&r, 1000000));
			kill(pids[i], SIGKILL);
		}
		reap_done(sender); /* so nobody held it up */
		reap_done(pids[0]);
		for (uint32_t i = 1; i < RECEIVERS; i++)
			reap(pids[i]);
		cast_close(&s.cast);
	}
	munmap(begun, sizeof(*begun));
}

static void killed_receivers_hold_nobody_up(void)
{
	kill_receivers(times(20));
}

static void kill_sender(bool overwrites, uint64_t rounds)
{
	_Atomic uint64_t *begun = shared(sizeof(*begun));
	struct random r = random_from(12);
	uint64_t total = 0, lacking = 0;

	for (uint64_t round = 0; round < rounds; round++) {
		struct show s = {.cast = cast_new(CAPACITY, overwrites), .count = ~0ull, .begun = begun};
		struct mk_receiver *rx;
		uint64_t missed = 0, next;

		mk_store_relaxed(begun, 0);
		for (uint32_t i = 0; i < RECEIVERS; i++) {
			s.seats[i] = seat_new();
			count_in(&s.cast, &s.seats[i]);
		}
		pid_t pid = spawn(perform_in_a_process, &s);

		rx = sit(&s.cast, &s.seats[0]);
		for (uint32_t i = 0; i < RECEIVERS; i++)
			leave_seat(&s.seats[i]);                   /* the others are dropped: nobody holds them */
		while (mk_load_relaxed(begun) < 500 * (round % 3)) /* the ring is as long as that */
			if (!overwrites)
				break;
		if (!overwrites) {
			for (uint64_t i = 0; i < 300 * (round % 3); i++)
				expect(rx, i);
		}
		dawdle(below(&r, 300000));
		kill(pid, SIGKILL);
		if (overwrites) {
			next = attend(rx, true, &missed, 0, ~0ull);
		} else {
			struct mk_message m = {0};
			int result;

			next = 300 * (round % 3);
			while ((result = peek_waiting(rx, &m)) == 0) {
				check(&m, next++);
				mk_release(rx);
			}
			CHECK_EQ(result, -EPIPE);
			mk_receiver_close(rx);
		}
		reap(pid);
		CHECK(next <= mk_load_relaxed(begun));
		CHECK(next + 60 >= mk_load_relaxed(begun)); /* what was not published: a batch ends somewhere */
		total += next - missed;
		lacking += missed;
		cast_close(&s.cast);
	}
	printf("      %" PRIu64 " killed: %" PRIu64 " records arrived, %" PRIu64 " were missed\n", rounds, total,
	       lacking);
	munmap(begun, sizeof(*begun));
}

static void of_a_killed_sender_what_it_published_arrives(void)
{
	kill_sender(false, times(60));
}

static void of_a_killed_sender_that_overwrites_what_is_left_arrives(void)
{
	kill_sender(true, times(60));
}

struct listener {
	struct show *show;
	uint32_t number;
	bool overwrites;
	uint64_t missed, next;
};

static void *listen_in_a_thread(void *argument)
{
	struct listener *l = argument;
	struct mk_receiver *rx = sit(&l->show->cast, &l->show->seats[l->number]);

	l->next = attend(rx, l->overwrites, &l->missed, l->number * 700, ~0ull);
	return NULL;
}

static void in_threads(bool overwrites, uint64_t count, uint64_t pace)
{
	_Atomic uint64_t begun;
	struct show s = {.cast = claimed(overwrites), .count = count, .begun = &begun, .pace = pace};
	struct listener listeners[RECEIVERS];
	pthread_t threads[RECEIVERS];
	uint64_t missed = 0;

	for (uint32_t i = 0; i < RECEIVERS; i++)
		s.seats[i] = seated(&s.cast);
	for (uint32_t i = 0; i < RECEIVERS; i++) {
		listeners[i] = (struct listener){&s, i, overwrites, 0, 0};
		CHECK_EQ(pthread_create(&threads[i], NULL, listen_in_a_thread, &listeners[i]), 0);
	}
	perform(&s);
	mk_broadcast_close(s.cast.tx);
	for (uint32_t i = 0; i < RECEIVERS; i++) {
		pthread_join(threads[i], NULL);
		CHECK_EQ(listeners[i].next, count); /* what came and what was missed, together */
		missed += listeners[i].missed;
		leave_seat(&s.seats[i]);
	}
	CHECK(overwrites || !missed);
	printf("      %" PRIu64 " sent to %u, %" PRIu64 " missed\n", count, RECEIVERS, missed);
	cast_close(&s.cast);
}

static void all_of_it_reaches_every_thread(void)
{
	in_threads(false, times(20000), 0);
}

static void what_is_given_out_was_never_overwritten(void)
{
	in_threads(true, times(500000), 0);
	in_threads(true, times(50000), 2000);
}

/* The maker goes on making receivers while the sender sends; each gets all from its number on. */
struct latecomers {
	struct cast *cast;
	struct seat *queue;         /* of those that are on their way */
	_Atomic uint32_t put, done; /* put: by the maker, before he counts */
	uint32_t total;
};

static void *make_receivers(void *argument)
{
	struct latecomers *l = argument;
	struct random r = random_from(13);

	for (uint32_t i = 0; i < l->total; i++) {
		struct mk_receiver *rx;
		uint64_t next;

		l->queue[i] = seat_new();
		mk_store_release(&l->put, i + 1);
		count_in(l->cast, &l->queue[i]);
		while (mk_load_acquire(&l->done) <= i) /* the sender's own: claimed only when it was taken in */
			mk_pause();
		rx = sit(l->cast, &l->queue[i]);
		next = l->queue[i].number;
		for (uint64_t n = 0; n < 1 + below(&r, 200); n++)
			expect(rx, next++);
		mk_receiver_close(rx);
	}
	return NULL;
}

static void receivers_made_while_it_sends_miss_nothing(void)
{
	struct cast c = claimed(false);
	struct latecomers l = {.cast = &c, .total = (uint32_t)times(500)};
	pthread_t maker;
	uint64_t number = 0;

	l.queue = calloc(l.total, sizeof(*l.queue));
	CHECK_EQ(pthread_create(&maker, NULL, make_receivers, &l), 0);
	for (;;) {
		int result = cast_number(c.tx, number);

		if (result == 0)
			number++;
		if (result == -EAGAIN)
			mk_broadcast_wait(c.tx, 1000000, false);
		if (result == -ENOTCONN) {
			uint32_t done = mk_load_relaxed(&l.done);

			while (done < mk_load_acquire(&l.put)) {
				take_in(c.tx, &l.queue[done], done);
				mk_store_release(&l.done, ++done);
			}
			mk_broadcast_caught_up(c.tx);
		}
		if (mk_load_relaxed(&l.done) == l.total && mk_broadcast_receivers(c.tx) == 0)
			break;
	}
	pthread_join(maker, NULL);
	free(l.queue);
	cast_close(&c);
}

/* --- hostile ------------------------------------------------------------------------------------------------------------ */

/* A sender's object in the hands of somebody who writes what he likes. */
struct forged {
	struct mk_producer *page;
	unsigned char *data;
	uint64_t size;
	int fd;
};

static struct forged forge(void)
{
	struct forged f = {.size = mk_page_size() + CAPACITY};
	int fd = mk_broadcast_object(CAPACITY, true);
	void *base;

	CHECK(fd >= 0);
	CHECK_EQ(mk_object_map(fd, f.size, 1, &base), 0);
	CHECK_EQ(mk_object_seal(fd), 0);
	f.fd = mk_object_reopen(fd);
	close(fd);
	f.page = base;
	f.data = (unsigned char *)base + mk_page_size();
	mk_store_release(&f.page->state, MK_END_OPEN);
	return f;
}

static void unforge(struct forged *f)
{
	mk_object_unmap(f->page, f->size);
	close(f->fd);
}

static struct mk_follower *victim(const struct forged *f)
{
	int fd = mk_lane_object(MK_KIND_CONSUMER, "lane:test", CAPACITY, 0, 0, 0);
	struct mk_receiver *rx;
	struct mk_follower *follower;

	CHECK_EQ(mk_receiver_claim(&rx, fd, NULL, NULL), 0);
	CHECK_EQ(mk_receiver_attach(rx, f->fd, 1, -1, -1, NULL), 0);
	close(fd);
	follower = mk_follower_new(rx, 0);
	CHECK(follower);
	return follower;
}

static void forge_record(const struct forged *f, uint64_t position, uint32_t length, uint64_t id)
{
	struct mk_record record = {.length = length, .id = id};

	memcpy(f->data + position % CAPACITY, &record, sizeof(record));
}

static int taken(struct mk_follower *f)
{
	struct mk_message m[MK_FOLLOWER_AHEAD];
	uint64_t missed, sum = 0;
	int n = mk_follower_take(f, m, MK_FOLLOWER_AHEAD, &missed);

	for (int i = 0; i < n; i++)
		for (uint32_t at = 0; at < m[i].length; at++)
			sum += ((const unsigned char *)m[i].payload)[at]; /* a sanitizer sees where that lies */
	return n > 0 && sum == ~0ull ? 0 : n;
}

static void words_that_cannot_be_quarantine_it(void)
{
	struct lie {
		uint64_t head, oldest, id;
		uint32_t length;
		uint32_t bad;
	} lies[] = {
		{4, 0, 0, 0, MK_BAD_HEAD},
		{CAPACITY + 8, 0, 0, 0, MK_BAD_HEAD},
		{1ULL << 63, 0, 0, 0, MK_BAD_HEAD},
		{~7ULL, ~7ULL, 0, 0, MK_BAD_HEAD}, /* before where it began */
		{32, 40, 0, 0, MK_BAD_HEAD},
		{32, 4, 0, 0, MK_BAD_HEAD},
		{32, 32, 0, 0, MK_BAD_HEAD}, /* nothing whole is left */
		{8, 0, 0, 0, MK_BAD_LENGTH},
		{32, 0, 0, 17, MK_BAD_LENGTH},
		{32, 0, 0, ~0u, MK_BAD_LENGTH},
		{32, 0, 1, 16, MK_BAD_NUMBER},                                           /* nothing was left out */
		{1 << 20, (1 << 20) - 32, 0, 16, MK_BAD_NUMBER},                         /* something was */
		{1 << 20, (1 << 20) - 32, ((1 << 20) - 32) / 16 + 1, 16, MK_BAD_NUMBER}, /* not that many records */
	};

	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct forged f = forge();
		struct mk_follower *follower = victim(&f);

		forge_record(&f, lies[i].oldest & ~7ULL, lies[i].length, lies[i].id);
		mk_store_release(&f.page->oldest, lies[i].oldest);
		mk_store_release(&f.page->head, lies[i].head);
		CHECK(mk_follower_waiting(follower) <= CAPACITY / sizeof(struct mk_record));
		CHECK_EQ(taken(follower), -EBADMSG);
		CHECK_EQ(mk_follower_waiting(follower), 0);
		CHECK_EQ(mk_follower_receiver(follower)->end.bad, lies[i].bad);
		mk_store_release(&f.page->oldest, 0);
		mk_store_release(&f.page->head, 0);
		CHECK_EQ(taken(follower), -EBADMSG); /* for ever */
		mk_follower_free(follower);
		unforge(&f);
	}
}

static void a_head_that_is_half_of_all_numbers_on_is_no_way_round(void)
{
	struct forged f = forge();
	struct mk_follower *follower = victim(&f);

	for (uint64_t i = 0; i < 40; i++)
		forge_record(&f, 16 * i, 0, i);
	mk_store_release(&f.page->head, 40 * 16);
	CHECK_EQ(taken(follower), 32); /* 8 more are known of, so the head may be 2^63 on from here, and a little */
	mk_store_release(&f.page->head, 40 * 16 + (1ULL << 63) - 8);
	mk_store_release(&f.page->oldest, 40 * 16 + (1ULL << 63) - 16);
	CHECK_EQ(taken(follower), -EBADMSG);
	mk_follower_free(follower);
	unforge(&f);
}

static void only_broadcasts_that_overwrite_are_followed(void)
{
	struct cast c = claimed(false);
	struct mk_receiver *rx = receiver(&c);

	CHECK(!mk_follower_new(rx, 0));
	CHECK_EQ(errno, EINVAL);
	mk_receiver_close(rx);
	cast_close(&c);
}

struct scribbler {
	struct forged *forged;
	_Atomic bool stop;
};

static void *scribble(void *argument)
{
	struct scribbler *s = argument;
	struct random r = random_from(15);
	_Atomic uint64_t *words = (void *)s->forged->data;

	while (!mk_load_relaxed(&s->stop)) {
		uint64_t head = below(&r, 4) ? below(&r, 3 * CAPACITY) & ~7ULL : draw(&r);

		for (int i = 0; i < 200; i++) { /* lengths that are small often enough to be walked along */
			uint64_t word = below(&r, 3) ? below(&r, 64) : draw(&r);

			mk_store_relaxed(&words[below(&r, CAPACITY / 8)], word);
		}
		mk_store_relaxed(&s->forged->page->oldest,
				 below(&r, 4) ? head - (below(&r, CAPACITY + 16) & ~7ULL) : 0);
		mk_store_relaxed(&s->forged->page->head, head);
	}
	return NULL;
}

static void a_sender_that_scribbles_harms_nobody(void)
{
	struct forged f = forge();
	struct scribbler s = {.forged = &f};
	pthread_t thread;
	uint64_t given = 0, bad = 0;

	CHECK_EQ(pthread_create(&thread, NULL, scribble, &s), 0);
	for (uint64_t i = 0; i < times(30000); i++) {
		struct mk_follower *follower = victim(&f);
		int n;

		do {
			n = taken(follower);
			given += n > 0;
		} while (n > 0);
		CHECK(n == -EBADMSG || n == -EAGAIN || n == -EINTR);
		bad += n == -EBADMSG;
		mk_follower_free(follower);
	}
	mk_store_relaxed(&s.stop, true);
	pthread_join(thread, NULL);
	printf("      %" PRIu64 " quarantined, %" PRIu64 " times records were given out\n", bad, given);
	CHECK(bad);
	unforge(&f);
}

static void a_maker_that_reads_a_scribbled_page_does_not_stay(void)
{
	struct cast c = claimed(false);
	struct forged f = forge();
	struct seat s = seat_new();

	mk_store_release(&f.page->begun, 5); /* never that of what was published */
	CHECK_EQ(mk_roster_add(c.roster, f.fd, s.consumer, &s.number), -EBADMSG);
	leave_seat(&s);
	unforge(&f);
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
	TEST(what_was_missed_is_counted),
	TEST(what_was_looked_at_and_not_released_comes_again),
	TEST(as_many_wait_as_can_be_taken),
	TEST(a_receiver_made_late_counts_from_there),
	TEST(records_of_every_size_up_to_half_the_ring_are_followed),
	TEST(a_batch_larger_than_the_ring_leaves_something_at_any_time),
	TEST(killed_receivers_hold_nobody_up),
	TEST(of_a_killed_sender_what_it_published_arrives),
	TEST(of_a_killed_sender_that_overwrites_what_is_left_arrives),
	TEST(all_of_it_reaches_every_thread),
	TEST(what_is_given_out_was_never_overwritten),
	TEST(receivers_made_while_it_sends_miss_nothing),
	TEST(words_that_cannot_be_quarantine_it),
	TEST(a_head_that_is_half_of_all_numbers_on_is_no_way_round),
	TEST(only_broadcasts_that_overwrite_are_followed),
	TEST(a_sender_that_scribbles_harms_nobody),
	TEST(a_maker_that_reads_a_scribbled_page_does_not_stay),
};

RUN_TESTS(tests)
