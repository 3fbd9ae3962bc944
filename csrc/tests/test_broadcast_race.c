/* Broadcasts of both kinds, sent and received at once: by threads, and by processes that are killed. */
#include "cast.h"

#include <pthread.h>

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

static const struct test tests[] = {
	TEST(killed_receivers_hold_nobody_up),
	TEST(of_a_killed_sender_what_it_published_arrives),
	TEST(of_a_killed_sender_that_overwrites_what_is_left_arrives),
	TEST(all_of_it_reaches_every_thread),
	TEST(what_is_given_out_was_never_overwritten),
	TEST(receivers_made_while_it_sends_miss_nothing),
};

RUN_TESTS(tests)
