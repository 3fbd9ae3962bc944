/* No wake-up is lost, at whatever moment the other side comes: two processes and random delays. */
#include "harness.h"

#define CAPACITY 4096u

struct pair {
	struct ring there, back;
	uint64_t rounds;
	uint32_t policy;
	uint64_t longest_ns; /* of the delays before an answer */
};

static uint64_t some_delay(struct random *r, uint64_t longest)
{
	switch (below(r, 8)) {
	case 0:
		return 0;
	case 1: /* about as long as the look between the phases, and as the bounded sleep */
		return longest < 2500000 ? 0 : 1900000 + below(r, 600000);
	case 2:
	case 3:
		return 2000 + below(r, 3000);
	case 4:
		return below(r, 60000) % (longest + 1);
	default:
		return below(r, 10000);
	}
}

static void ping_pong(struct mk_sender *tx, struct mk_receiver *rx, const struct pair *p, bool serves)
{
	struct random r = random_from(serves ? 1 : 2);
	struct mk_message m = {0};

	tx->end.policy = rx->end.policy = (uint8_t)p->policy;
	for (uint64_t i = 0; i < p->rounds; i++) {
		if (serves) {
			dawdle(some_delay(&r, p->longest_ns));
			check_sent(send_waiting(tx, i, &i, 8), i + 1 == p->rounds);
		}
		CHECK_EQ(peek_waiting(rx, &m), 0);
		CHECK_EQ(m.id, i);
		mk_release(rx);
		if (!serves) {
			dawdle(some_delay(&r, p->longest_ns));
			check_sent(send_waiting(tx, i, &i, 8), i + 1 == p->rounds);
		}
	}
}

static void return_them(void *argument)
{
	struct pair *p = argument;
	struct mk_receiver *rx = child_receiver(&p->there);
	struct mk_sender *tx = child_sender(&p->back);

	ping_pong(tx, rx, p, false);
	mk_sender_close(tx);
	mk_receiver_close(rx);
}

static void play(uint32_t policy, uint64_t rounds, uint64_t longest_ns)
{
	struct pair p = {ring_new(CAPACITY, 0), ring_new(CAPACITY, 0), rounds, policy, longest_ns};
	pid_t pid = spawn(return_them, &p);
	struct mk_sender *tx = child_sender(&p.there);
	struct mk_receiver *rx = child_receiver(&p.back);

	ping_pong(tx, rx, &p, true);
	printf("      %" PRIu64 " round trips: %" PRIu64 " waits spun, %" PRIu64 " parked, rang %" PRIu64 " times\n",
	       rounds, mk_load_relaxed(&rx->end.counters->spins), mk_load_relaxed(&rx->end.counters->parks),
	       mk_load_relaxed(&tx->end.counters->wakes));
	mk_sender_close(tx);
	mk_receiver_close(rx);
	reap_done(pid);
}

static void no_wake_up_is_lost_at_random_delays_when_each_parks_at_once(void)
{
	play(MK_WAIT_PARK, times(25000), 60000);
}

static void no_wake_up_is_lost_where_the_bounded_sleep_ends_and_the_unbounded_begins(void)
{
	play(MK_WAIT_PARK, times(2000), 2500000);
}

static void no_wake_up_is_lost_by_who_spins_first(void)
{
	play(MK_WAIT_ADAPTIVE, times(25000), 60000);
}

static void those_who_never_sleep_need_no_bell(void)
{
	play(MK_WAIT_SPIN, times(400), 0);
}

static const struct test tests[] = {
	TEST(no_wake_up_is_lost_at_random_delays_when_each_parks_at_once),
	TEST(no_wake_up_is_lost_where_the_bounded_sleep_ends_and_the_unbounded_begins),
	TEST(no_wake_up_is_lost_by_who_spins_first),
	TEST(those_who_never_sleep_need_no_bell),
};

RUN_TESTS(tests)
