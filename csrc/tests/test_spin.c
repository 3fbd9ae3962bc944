/* How long a wait spins: what it learns, from times that are given to it. No clock is read here, but in the last. */
#include "harness.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>

#define WAITS 100

static void a_new_end_spins_as_long_as_a_wake_up_is_taken_to_cost(void)
{
	struct mk_spin s = mk_spin_new();

	CHECK_EQ(s.budget_ns, MK_WAKE_FIRST_NS);
	CHECK_EQ(s.wake_ns, MK_WAKE_FIRST_NS);
}

static void with_a_slow_peer_it_soon_stops_to_spin(void)
{
	struct mk_spin s = mk_spin_new();
	uint64_t spun = 0;

	for (int i = 0; i < WAITS; i++) {
		mk_spin_learn(&s, 1000000);
		spun += s.budget_ns;
	}
	CHECK_EQ(s.budget_ns, 0);
	CHECK(spun <= 4 * MK_WAKE_FIRST_NS); /* all that was ever spent on it */
}

static void when_the_peer_becomes_quick_the_next_wait_spins_again_and_the_other_way_round(void)
{
	struct mk_spin s = mk_spin_new();

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < WAITS; i++)
			mk_spin_learn(&s, 1000000);
		CHECK_EQ(s.budget_ns, 0);
		mk_spin_learn(&s, s.wake_ns); /* it slept, and need not have */
		CHECK_EQ(s.budget_ns, s.wake_ns);
		for (int i = 0; i < WAITS; i++)
			mk_spin_learn(&s, 500);
		CHECK_EQ(s.budget_ns, s.wake_ns);
	}
}

static void one_slow_answer_among_quick_ones_changes_little(void)
{
	struct mk_spin s = mk_spin_new();

	mk_spin_learn(&s, 5000000);
	CHECK(s.budget_ns >= s.wake_ns / 2);
	mk_spin_learn(&s, 500);
	CHECK_EQ(s.budget_ns, s.wake_ns);
}

static void it_never_spins_for_longer_than_a_wake_up_costs(void)
{
	struct mk_spin s = mk_spin_new();
	struct random r = random_from(1);

	for (int i = 0; i < 100000; i++) {
		uint64_t any = draw(&r) >> below(&r, 64);

		if (below(&r, 2))
			mk_spin_learn(&s, any);
		else
			mk_spin_woken(&s, any);
		CHECK(s.budget_ns <= s.wake_ns);
		CHECK(s.wake_ns >= MK_WAKE_LEAST_NS && s.wake_ns <= MK_WAKE_MOST_NS);
	}
}

static void what_a_wake_up_costs_is_learned_from_those_that_were_seen(void)
{
	const uint64_t costs[] = {5000, 45000, 2500, 100000, 7000};
	struct mk_spin s = mk_spin_new();

	for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
		for (int n = 0; n < WAITS; n++)
			mk_spin_woken(&s, costs[i]);
		CHECK(s.wake_ns >= costs[i] * 9 / 10 && s.wake_ns <= costs[i] * 11 / 10);
	}
}

static void a_wake_up_that_was_held_up_by_others_is_not_what_one_costs(void)
{
	struct mk_spin s = mk_spin_new();

	for (int n = 0; n < WAITS; n++)
		mk_spin_woken(&s, n % 10 ? 5000 : 90000000);
	CHECK(s.wake_ns < 20000);
}

/* --- what the doorbell makes of it ------------------------------------------------------------------------------- */

static void nobody_spins_for_a_peer_on_the_same_core(void)
{
	struct both b = both_new(4096, 0);
	const struct mk_counters *c = b.rx->end.counters;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
	mk_store_relaxed(b.tx->end.cpu, (uint32_t)sched_getcpu());
	for (int i = 0; i < WAITS; i++)
		CHECK_EQ(mk_wait(&b.rx->end, 1000), -ETIMEDOUT);
	CHECK_EQ(mk_load_relaxed(&c->spins), 0);
	CHECK_EQ(mk_load_relaxed(b.rx->end.cpu), sched_getcpu()); /* and says where it is itself */
	both_close(&b);
}

/* A producer that never waits and never rings says nothing of where it runs. What is believed of it may be wrong for
 * one wait: then that one sleeps, and is rung, and the ring says it. */
static void move_and_ring(void *argument)
{
	struct ring *ring = argument;
	struct mk_sender *tx = child_sender(ring);
	uint32_t word;

	mk_store_relaxed(tx->end.cpu, 12345);  /* where it was once */
	while (!mk_end_gone(&tx->end, true)) { /* until the receiver has seen it; who has just woken is not rung */
		word = mk_load_relaxed(&tx->peer->parked);
		if ((word & MK_PARKED_MODE) >= MK_PARKED_FUTEX)
			(void)mk_send(tx, MK_MSG_USER, 0, 0, NULL, 0);
	}
	mk_sender_close(tx);
}

static void who_rings_says_where_it_runs(void)
{
	struct ring ring = ring_new(4096, 0);
	pid_t pid = spawn(move_and_ring, &ring);
	struct mk_receiver *rx = child_receiver(&ring);
	struct mk_message message;
	uint32_t cpu;

	do { /* it rings after it has published, if we sleep then */
		CHECK_EQ(wait_on(&rx->end), 0);
		while (mk_peek(rx, &message) == 0)
			mk_release(rx);
		cpu = mk_load_relaxed(rx->end.peer_cpu);
	} while (cpu == 12345 || cpu == ~0u);
	CHECK(cpu < 12345);
	mk_receiver_close(rx);
	reap_done(pid);
}

/* The time of the ring is the peer's word: whatever it says, nothing is learned that cannot be. */
static void ring_at_any_time(void *argument)
{
	struct ring *ring = argument;
	struct mk_sender *tx = child_sender(ring);
	struct random r = random_from(2);
	uint32_t last = 0, word;

	mk_store_relaxed(tx->end.cpu, 12345); /* no wake-up is disregarded for where we run */
	for (int i = 0; i < WAITS; i++) {
		do
			word = mk_load_relaxed(&tx->peer->parked);
		while (word == last || (word & MK_PARKED_MODE) < MK_PARKED_FUTEX);
		last = word;
		tx->head += MK_RECORD_ALIGN;
		mk_store_release(&tx->own->head, tx->head);
		mk_store_relaxed(tx->end.bell, (uint32_t)draw(&r) >> below(&r, 32));
		syscall(SYS_futex, tx->end.bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
		(void)!send(tx->end.socket, "", 1, MSG_NOSIGNAL); /* should it have gone on to the socket */
	}
	mk_sender_close(tx);
}

static void a_bell_that_lies_about_its_time_makes_no_wait_spin_for_long(void)
{
	struct ring ring = ring_new(4096, 0);
	pid_t pid = spawn(ring_at_any_time, &ring);
	struct mk_receiver *rx = child_receiver(&ring);

	rx->end.policy = MK_WAIT_PARK;
	for (int i = 0; i < WAITS; i++) {
		CHECK_EQ(wait_on(&rx->end), 0);
		rx->next = rx->tail = rx->head = mk_load_acquire(&rx->peer->head);
		CHECK(rx->end.spin.budget_ns <= rx->end.spin.wake_ns);
		CHECK(rx->end.spin.wake_ns >= MK_WAKE_LEAST_NS && rx->end.spin.wake_ns <= MK_WAKE_MOST_NS);
		if (mk_end_gone(&rx->end, false))
			break;
	}
	mk_receiver_close(rx);
	reap_done(pid);
}

static const struct test tests[] = {
	TEST(a_new_end_spins_as_long_as_a_wake_up_is_taken_to_cost),
	TEST(with_a_slow_peer_it_soon_stops_to_spin),
	TEST(when_the_peer_becomes_quick_the_next_wait_spins_again_and_the_other_way_round),
	TEST(one_slow_answer_among_quick_ones_changes_little),
	TEST(it_never_spins_for_longer_than_a_wake_up_costs),
	TEST(what_a_wake_up_costs_is_learned_from_those_that_were_seen),
	TEST(a_wake_up_that_was_held_up_by_others_is_not_what_one_costs),
	TEST(nobody_spins_for_a_peer_on_the_same_core),
	TEST(who_rings_says_where_it_runs),
	TEST(a_bell_that_lies_about_its_time_makes_no_wait_spin_for_long),
};

RUN_TESTS(tests)
