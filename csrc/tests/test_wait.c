/* Waiting: nobody sleeps through what it waits for, alone, in sets and in event loops. What would be lost is a wake-up,
 * and the sign of it is a test that hangs: the ceiling is what fails. */
#include "harness.h"

#include <poll.h>

#define CAPACITY 4096u

/* --- alone -------------------------------------------------------------------------------------------------------- */

static void a_wait_ends_at_once_when_there_is_something(void)
{
	struct both b = both_new(CAPACITY, 0);
	const struct mk_counters *c = b.rx->end.counters;

	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0), 0);
	CHECK_EQ(mk_wait(&b.rx->end, -1), 0);
	CHECK_EQ(mk_wait(&b.rx->end, 0), 0);
	CHECK_EQ(mk_load_relaxed(&c->spins) + mk_load_relaxed(&c->parks), 0); /* that was no wait */
	both_close(&b);
}

static void a_wait_ends_at_its_time_and_not_before(void)
{
	const int64_t limits[] = {0, 1, 1000, 100000, 3000000, 13000000, 25000000}; /* of every phase one */

	for (int policy = MK_WAIT_ADAPTIVE; policy <= MK_WAIT_PARK; policy++) {
		struct both b = both_new(CAPACITY, 0);

		b.rx->end.policy = (uint8_t)policy;
		for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
			uint64_t begin = mk_now();
			int result;

			do
				result = mk_wait(&b.rx->end, limits[i]);
			while (result == -EINTR && policy == MK_WAIT_SPIN && mk_now() - begin < (uint64_t)limits[i]);
			CHECK(result == -ETIMEDOUT || (policy == MK_WAIT_SPIN && result == -EINTR));
			CHECK(mk_now() - begin >= (uint64_t)limits[i]);
		}
		CHECK_EQ(mk_load_relaxed(b.rx->end.parked) & MK_PARKED_MODE, MK_AWAKE);
		both_close(&b);
	}
}

static void note_signal(int number)
{
	(void)number;
}

static void a_signal_ends_a_wait(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct sigaction action = {.sa_handler = note_signal}; /* without SA_RESTART */
	pid_t parent = getpid(), pid;

	sigaction(SIGUSR1, &action, NULL);
	b.rx->end.policy = MK_WAIT_PARK;
	fflush(NULL);
	pid = fork();
	if (!pid)
		for (;;) /* until one of them comes while it sleeps */
			if (kill(parent, SIGUSR1) || getppid() != parent)
				_exit(0);
	CHECK_EQ(mk_wait(&b.rx->end, -1), -EINTR);
	kill(pid, SIGKILL);
	reap(pid);
	CHECK_EQ(mk_load_relaxed(b.rx->end.parked) & MK_PARKED_MODE, MK_AWAKE);
	both_close(&b);
}

static void who_never_sleeps_comes_back_to_look_for_signals(void)
{
	struct both b = both_new(CAPACITY, 0);

	b.rx->end.policy = MK_WAIT_SPIN;
	for (int i = 0; i < 3; i++)
		CHECK_EQ(mk_wait(&b.rx->end, -1), -EINTR);
	CHECK_EQ(mk_load_relaxed(&b.rx->end.counters->parks), 0);
	both_close(&b);
}

/* Act as soon as the other side says in its page that it sleeps as @mode says. Who was not rung within the bounded sleep
 * on the bell, or slept before the claim, has gone on to the socket: that will do as well. */
struct ringer {
	struct ring ring;
	uint32_t mode;
	uint64_t rounds;
};

static uint32_t until_parked(const _Atomic uint32_t *parked, uint32_t last, uint32_t mode)
{
	uint32_t word;

	do
		word = mk_load_relaxed(parked);
	while (word == last || (word & MK_PARKED_MODE) < mode);
	return word;
}

static void ring_when_parked(void *argument)
{
	struct ringer *r = argument;
	struct mk_sender *tx = child_sender(&r->ring);
	uint32_t last = 0;

	for (uint64_t i = 0; i < r->rounds; i++) {
		last = until_parked(&tx->peer->parked, last, r->mode);
		if (i % 2)
			check_sent(mk_send(tx, MK_MSG_USER, 0, i, NULL, 0), i + 1 == r->rounds);
		else
			check_sent(mk_ipi_raise(tx, 1), i + 1 == r->rounds);
	}
	/* Once for a park at most; not at all where its last look found what we had published just before we looked. */
	CHECK(mk_load_relaxed(&tx->end.counters->wakes) <= r->rounds);
	mk_sender_close(tx);
}

static void sleep_and_be_rung(uint32_t mode, uint64_t rounds)
{
	struct ringer r = {.ring = ring_new(CAPACITY, 0), .mode = mode, .rounds = rounds};
	pid_t pid = spawn(ring_when_parked, &r);
	struct mk_receiver *rx = child_receiver(&r.ring);
	struct mk_message m = {0};
	unsigned vector;
	uint64_t count;

	rx->end.policy = MK_WAIT_PARK;
	for (uint64_t i = 0; i < rounds; i++) {
		CHECK_EQ(wait_on(&rx->end), 0);
		if (i % 2) {
			CHECK_EQ(mk_peek(rx, &m), 0);
			CHECK_EQ(m.id, i);
			mk_release(rx);
		} else {
			CHECK_EQ(mk_ipi_take(rx, &vector, &count), 1);
			CHECK_EQ(count, 1);
		}
	}
	mk_receiver_close(rx);
	reap_done(pid);
}

static void a_record_and_an_ipi_wake_who_sleeps_on_the_bell(void)
{
	sleep_and_be_rung(MK_PARKED_FUTEX, times(2000));
}

static void a_record_and_an_ipi_wake_who_sleeps_on_the_socket(void)
{
	sleep_and_be_rung(MK_PARKED_SOCKET, times(300));
}

static void release_when_parked(void *argument)
{
	struct ringer *r = argument;
	struct mk_receiver *rx = child_receiver(&r->ring);
	struct mk_message m = {0};
	uint32_t last = 0;

	for (uint64_t i = 0; i < r->rounds; i++) {
		last = until_parked(&rx->peer->parked, last, r->mode);
		CHECK_EQ(mk_peek(rx, &m), 0);
		CHECK_EQ(m.id, i);
		mk_release(rx);
	}
	mk_receiver_close(rx);
}

static void a_release_wakes_a_sender_that_waits_for_room(void)
{
	for (uint32_t mode = MK_PARKED_FUTEX; mode <= MK_PARKED_SOCKET; mode++) {
		struct ringer r = {.ring = ring_new(CAPACITY, 0), .mode = mode, .rounds = times(300)};
		unsigned char payload[CAPACITY - 16] = {0};
		pid_t pid = spawn(release_when_parked, &r);
		struct mk_sender *tx = child_sender(&r.ring);

		tx->end.policy = MK_WAIT_PARK;
		for (uint64_t i = 0; i < r.rounds; i++)
			CHECK_EQ(send_waiting(tx, i, payload, sizeof(payload)), 0);
		send_waiting(tx, 0, payload, sizeof(payload)); /* the last release woke us; it may have closed since */
		mk_sender_close(tx);
		reap_done(pid);
	}
}

static void close_when_parked(void *argument)
{
	struct ringer *r = argument;
	struct mk_sender *tx = child_sender(&r->ring);

	until_parked(&tx->peer->parked, 0, r->mode);
	mk_sender_close(tx);
}

static void hang_when_parked(void *argument)
{
	struct ringer *r = argument;
	struct mk_sender *tx = child_sender(&r->ring);

	until_parked(&tx->peer->parked, 0, r->mode);
	kill(getpid(), SIGKILL);
}

static void a_close_and_a_death_wake_who_sleeps(void)
{
	for (uint32_t mode = MK_PARKED_FUTEX; mode <= MK_PARKED_SOCKET; mode++) {
		for (uint64_t i = 0; i < times(40); i++) {
			struct ringer r = {.ring = ring_new(CAPACITY, 0), .mode = mode};
			pid_t pid = spawn(i % 2 ? close_when_parked : hang_when_parked, &r);
			struct mk_receiver *rx = child_receiver(&r.ring);
			struct mk_message m = {0};

			rx->end.policy = MK_WAIT_PARK;
			CHECK_EQ(peek_waiting(rx, &m), -EPIPE);
			mk_receiver_close(rx);
			reap(pid);
		}
	}
}

struct handled {
	struct ring ring;
	int asleep[2];
};

static void send_when_told_and_at_the_next_park(void *argument)
{
	struct handled *h = argument;
	struct mk_sender *tx = child_sender(&h->ring);
	uint32_t word;

	hear(h->asleep[0]);
	word = mk_load_relaxed(&tx->peer->parked);
	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 0, NULL, 0), 0);
	until_parked(&tx->peer->parked, word, MK_PARKED_SOCKET);
	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 1, NULL, 0), 0);
	for (;;) /* a close would wake the other side as well */
		pause();
}

/* A binding's wait has said that it sleeps and comes back to have signals looked for. A handler takes the record that comes
 * then, and the ring with it: the sleep after that is another one, and must say so, for a park is rung once. */
static void what_a_handler_takes_between_saying_and_sleeping_is_no_lost_wake_up(void)
{
	struct handled h = {.ring = ring_new(CAPACITY, 0)};
	struct mk_message m = {0};
	struct mk_receiver *rx;
	uint32_t drains;
	pid_t pid;

	CHECK_EQ(pipe2(h.asleep, O_CLOEXEC), 0);
	pid = spawn(send_when_told_and_at_the_next_park, &h);
	rx = child_receiver(&h.ring);
	rx->end.policy = MK_WAIT_PARK;
	rx->end.interpreted = true;
	while (!rx->end.asleep)
		CHECK_EQ(mk_wait(&rx->end, -1), -EINTR);
	CHECK_EQ(mk_load_relaxed(rx->end.parked) & MK_PARKED_MODE, MK_PARKED_SOCKET);
	drains = mk_drains();
	say(h.asleep[1]);
	while (mk_peek(rx, &m) == -EAGAIN)
		;
	CHECK_EQ(m.id, 0);
	mk_release(rx);
	while (mk_drains() == drains)
		mk_end_drain(&rx->end);
	CHECK_EQ(peek_waiting(rx, &m), 0); /* hangs if it is not said anew */
	CHECK_EQ(m.id, 1);
	CHECK_EQ(mk_load_relaxed(rx->end.parked) & MK_PARKED_MODE, MK_AWAKE);
	kill(pid, SIGKILL);
	reap(pid);
	mk_receiver_close(rx);
	close(h.asleep[0]);
	close(h.asleep[1]);
}

static void a_wait_that_a_handler_made_in_vain_says_that_it_is_awake(void)
{
	struct both b = both_new(CAPACITY, 0);

	b.rx->end.policy = MK_WAIT_PARK;
	b.rx->end.interpreted = true;
	for (int ready = 0; ready < 2; ready++) {
		while (!b.rx->end.asleep)
			CHECK_EQ(mk_wait(&b.rx->end, -1), -EINTR);
		if (ready)
			CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0), 0);
		CHECK_EQ(mk_wait(&b.rx->end, 0), ready ? 0 : -ETIMEDOUT);
		CHECK_EQ(mk_load_relaxed(b.rx->end.parked) & MK_PARKED_MODE, MK_AWAKE);
	}
	both_close(&b);
}

static void who_is_rung_without_cause_comes_back_to_look_for_signals(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	struct mk_receiver *rx = ring_receiver(&ring);

	rx->end.policy = MK_WAIT_PARK;
	rx->end.interpreted = true;
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(write(ring.sockets[0], "?", 1), 1);
		CHECK_EQ(mk_wait(&rx->end, -1), -EINTR); /* sleeps for ever if it looks only once */
	}
	mk_receiver_close(rx);
	ring_drop(&ring);
}

static void claim_late(void *argument)
{
	struct ringer *r = argument;
	struct mk_sender *tx;
	int parked_fd = mk_object_reopen(r->ring.consumer);
	void *map;

	/* Until the receiver sleeps without a limit, waiting for anybody to become the sender. */
	CHECK_EQ(mk_object_map(parked_fd, mk_page_size(), 0, &map), 0);
	until_parked(&((struct mk_consumer *)map)->parked, 0, MK_PARKED_SOCKET);
	tx = ring_sender(&r->ring);
	check_sent(mk_send(tx, MK_MSG_USER, 0, 42, NULL, 0), true);
	mk_sender_close(tx);
}

static void the_first_message_of_a_late_claimant_wakes_who_slept_before_the_claim(void)
{
	for (uint64_t i = 0; i < times(100); i++) {
		struct ringer r = {.ring = ring_new(CAPACITY, 0)};
		struct mk_receiver *rx = ring_receiver(&r.ring);
		pid_t pid = spawn(claim_late, &r);
		struct mk_message m = {0};

		ring_drop(&r.ring);
		CHECK_EQ(peek_waiting(rx, &m), 0);
		CHECK_EQ(m.id, 42);
		mk_receiver_close(rx);
		reap_done(pid);
	}
}

static void a_lane_without_a_socket_is_woken_all_the_same(void)
{
	/* Nothing can ring a sleeper in poll then, so it must not sleep there without a limit. */
	struct ringer r = {.ring = ring_new(CAPACITY, 0), .mode = MK_PARKED_SOCKET, .rounds = times(20)};
	pid_t pid;
	struct mk_receiver *rx;

	close_one(&r.ring.sockets[0]);
	close_one(&r.ring.sockets[1]);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		struct mk_sender *tx = ring_sender(&r.ring);

		uint32_t last = 0;

		for (uint64_t i = 0; i < r.rounds; i++) {
			last = until_parked(&tx->peer->parked, last, MK_PARKED_SOCKET);
			check_sent(mk_send(tx, MK_MSG_USER, 0, i, NULL, 0), i + 1 == r.rounds);
		}
		mk_sender_close(tx);
		_exit(0);
	}
	rx = ring_receiver(&r.ring);
	for (uint64_t i = 0; i < r.rounds; i++) {
		struct mk_message m = {0};

		CHECK_EQ(peek_waiting(rx, &m), 0);
		CHECK_EQ(m.id, i);
		mk_release(rx);
	}
	mk_receiver_close(rx);
	ring_drop(&r.ring);
	reap_done(pid);
}

/* --- lost wake-ups -------------------------------------------------------------------------------------------------- */

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

/* --- sets ------------------------------------------------------------------------------------------------------------ */

struct many {
	struct ring rings[64];
	unsigned count;
	uint64_t each;
	bool killed;
};

static void send_on_all(void *argument)
{
	struct many *many = argument;
	struct mk_sender *tx[64];
	uint64_t sent[64] = {0}, left = many->count * many->each;
	struct random r = random_from(many->count);

	for (unsigned i = 0; i < many->count; i++) {
		tx[i] = child_sender(&many->rings[i]);
		tx[i]->end.policy = MK_WAIT_PARK;
	}
	while (left) {
		unsigned lane = (unsigned)below(&r, many->count);

		if (sent[lane] == many->each)
			continue;
		CHECK_EQ(send_waiting(tx[lane], sent[lane], &lane, sizeof(lane)), 0);
		sent[lane]++;
		left--;
		if (!below(&r, 20))
			dawdle(below(&r, 100) ? below(&r, 20000)
					      : 2500000); /* at times until it sleeps without a limit */
	}
	if (many->killed)
		kill(getpid(), SIGKILL);
	for (unsigned i = 0; i < many->count; i++)
		mk_sender_close(tx[i]);
}

static void wait_for_many(unsigned lanes, uint64_t each, bool killed)
{
	struct many many = {.count = lanes, .each = each, .killed = killed};
	struct mk_receiver *rx[64];
	uint64_t next[64] = {0};
	struct mk_wait_set *set = mk_wait_set_new();
	unsigned open = lanes;
	pid_t pid;

	CHECK(set);
	CHECK_EQ(mk_wait_set_wait(set, -1), -EINVAL); /* empty */
	for (unsigned i = 0; i < lanes; i++)
		many.rings[i] = ring_new(CAPACITY, 0);
	pid = spawn(send_on_all, &many);
	for (unsigned i = 0; i < lanes; i++) {
		rx[i] = child_receiver(&many.rings[i]);
		rx[i]->end.policy = MK_WAIT_PARK;
		CHECK_EQ(mk_wait_set_add(set, &rx[i]->end), 0);
		CHECK_EQ(mk_wait_set_add(set, &rx[i]->end), -EEXIST);
	}
	while (open) {
		int ready = mk_wait_set_wait(set, -1);
		int found = 0;

		if (ready == -EINTR)
			continue;
		CHECK(ready > 0);
		for (unsigned i = 0; i < lanes; i++) {
			struct mk_message m = {0};
			int result;

			if (!rx[i])
				continue;
			while ((result = mk_peek(rx[i], &m)) == 0) {
				CHECK_EQ(m.id, next[i]);
				CHECK_EQ(memcmp(m.payload, &i, sizeof(i)), 0);
				next[i]++;
				found++;
			}
			mk_release(rx[i]);
			if (result == -EPIPE) {
				CHECK_EQ(next[i], each);
				CHECK_EQ(mk_wait_set_remove(set, &rx[i]->end), 0);
				CHECK_EQ(mk_wait_set_remove(set, &rx[i]->end), -ENOENT);
				mk_receiver_close(rx[i]);
				rx[i] = NULL;
				open--;
				found++;
			}
		}
		CHECK(found > 0); /* it did not say so for nothing */
	}
	mk_wait_set_free(set);
	if (killed)
		CHECK_EQ(WTERMSIG(reap(pid)), SIGKILL);
	else
		reap_done(pid);
}

static void a_set_of_one_lane_is_waited_for(void)
{
	wait_for_many(1, times(5000), false);
	wait_for_many(1, times(100), true);
}

static void a_set_of_two_lanes_is_waited_for(void)
{
	wait_for_many(2, times(5000), false);
	wait_for_many(2, times(100), true);
}

static void a_set_of_three_lanes_is_waited_for(void)
{
	wait_for_many(3, times(5000), false);
	wait_for_many(3, times(100), true);
}

static void a_set_of_64_lanes_is_waited_for(void)
{
	wait_for_many(64, times(300), false);
	wait_for_many(64, times(10), true);
}

static void a_set_ends_its_wait_at_its_time(void)
{
	struct both b[3];
	struct mk_wait_set *set = mk_wait_set_new();

	CHECK(set);
	for (int i = 0; i < 3; i++) {
		b[i] = both_new(CAPACITY, 0);
		CHECK_EQ(mk_wait_set_add(set, &b[i].rx->end), 0);
		for (int64_t limit = 0; limit <= 5000000; limit = limit ? limit * 50 : 2000) {
			uint64_t begin = mk_now();

			CHECK_EQ(mk_wait_set_wait(set, limit), -ETIMEDOUT);
			CHECK(mk_now() - begin >= (uint64_t)limit);
		}
	}
	CHECK_EQ(mk_send(b[1].tx, MK_MSG_USER, 0, 0, NULL, 0), 0);
	CHECK_EQ(mk_wait_set_wait(set, -1), 1);
	CHECK_EQ(mk_ipi_raise(b[2].tx, 0), 0);
	CHECK_EQ(mk_wait_set_wait(set, -1), 2);
	CHECK_EQ(mk_wait_set_wait(set, INT64_MAX), 2);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(mk_wait_set_remove(set, &b[i].rx->end), 0);
		both_close(&b[i]);
	}
	mk_wait_set_free(set);
}

struct late {
	struct ring ring;
	int ready[2], go[2];
};

static void claim_and_die_on_the_sign(void *argument)
{
	struct late *late = argument;
	struct mk_sender *tx = ring_sender(&late->ring);

	say(late->ready[1]);
	hear(late->go[0]);
	(void)tx;
	kill(getpid(), SIGKILL);
}

/* The claim, and with it the pidfd, comes after the end was put into the set or given a descriptor; the other copies of
 * the peer's socket stay open. */
static void the_death_of_a_peer_that_claimed_later_wakes_a_set_and_an_event_loop(void)
{
	for (int as_set = 0; as_set < 2; as_set++) {
		struct late late = {.ring = ring_new(CAPACITY, 0)};
		struct both other = both_new(CAPACITY, 0), third = both_new(CAPACITY, 0);
		struct mk_wait_set *set = mk_wait_set_new();
		struct mk_receiver *rx = ring_receiver(&late.ring);
		struct mk_message m = {0};
		int event = -1;
		pid_t pid;

		CHECK_EQ(pipe2(late.ready, O_CLOEXEC) + pipe2(late.go, O_CLOEXEC), 0);
		if (as_set) {
			CHECK_EQ(mk_wait_set_add(set, &rx->end), 0);
			CHECK_EQ(mk_wait_set_add(set, &other.rx->end), 0);
			CHECK_EQ(mk_wait_set_add(set, &third.rx->end), 0);
		} else {
			event = mk_event_descriptor(&rx->end);
			CHECK(event >= 0);
		}
		pid = spawn(claim_and_die_on_the_sign, &late);
		hear(late.ready[0]);
		CHECK(!mk_end_gone(&rx->end, true)); /* takes the pidfd, behind the back of the set */
		CHECK(rx->end.pidfd >= 0);
		mk_event_settle(&rx->end);
		if (as_set)
			CHECK_EQ(mk_wait_set_wait(set, 1000000), -ETIMEDOUT);
		say(late.go[1]);
		if (as_set) {
			CHECK_EQ(mk_wait_set_wait(set, -1), 1);
		} else {
			struct pollfd readable = {.fd = event, .events = POLLIN};

			CHECK_EQ(poll(&readable, 1, -1), 1);
			mk_event_settle(&rx->end);
		}
		CHECK_EQ(mk_peek(rx, &m), -EPIPE);
		reap(pid);
		if (as_set) {
			CHECK_EQ(mk_wait_set_remove(set, &rx->end), 0);
			CHECK_EQ(mk_wait_set_remove(set, &other.rx->end), 0);
			CHECK_EQ(mk_wait_set_remove(set, &third.rx->end), 0);
		}
		mk_wait_set_free(set);
		mk_receiver_close(rx);
		both_close(&other);
		both_close(&third);
		ring_drop(&late.ring);
		for (int i = 0; i < 2; i++) {
			close(late.ready[i]);
			close(late.go[i]);
		}
	}
}

/* --- event loops ----------------------------------------------------------------------------------------------------- */

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

static void the_descriptor_is_readable_while_a_record_is_unread_and_only_then(void)
{
	struct both b = both_new(CAPACITY, 0);
	int fd = mk_event_descriptor(&b.rx->end);
	struct mk_message m = {0};

	CHECK(fd >= 0);
	CHECK_EQ(mk_event_descriptor(&b.rx->end), fd); /* the same again */
	for (int i = 0; i < 5; i++) {
		CHECK(!readable(fd));
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0), 0);
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 1, NULL, 0), 0);
		CHECK(readable(fd));
		CHECK(readable(fd)); /* level-triggered: to look at it takes nothing away */
		CHECK_EQ(mk_peek(b.rx, &m), 0);
		mk_release(b.rx);
		mk_event_settle(&b.rx->end);
		CHECK(readable(fd)); /* one is left */
		CHECK_EQ(mk_peek(b.rx, &m), 0);
		mk_release(b.rx);
		mk_event_settle(&b.rx->end);
		CHECK(!readable(fd));
		CHECK_EQ(mk_ipi_raise(b.tx, 5), 0);
		CHECK(readable(fd));
		CHECK_EQ(mk_ipi_take(b.rx, &(unsigned){0}, &(uint64_t){0}), 1);
		mk_event_settle(&b.rx->end);
	}
	mk_sender_close(b.tx);
	CHECK(readable(fd));
	CHECK_EQ(mk_peek(b.rx, &m), -EPIPE);
	mk_event_settle(&b.rx->end);
	CHECK(readable(fd)); /* and stays so */
	mk_receiver_close(b.rx);
}

static void what_was_there_before_the_descriptor_was_asked_for_makes_it_readable(void)
{
	struct both b = both_new(CAPACITY, 0);

	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0), 0);
	CHECK(readable(mk_event_descriptor(&b.rx->end)));
	both_close(&b);
}

static void a_senders_descriptor_is_readable_while_it_can_go_on(void)
{
	struct both b = both_new(CAPACITY, 0);
	int fd = mk_event_descriptor(&b.tx->end);
	struct mk_message m = {0};

	CHECK(readable(fd));
	while (mk_send(b.tx, MK_MSG_USER, 0, 0, NULL, 0) == 0)
		;
	mk_event_settle(&b.tx->end);
	CHECK(!readable(fd));
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	CHECK(!readable(fd));
	mk_release(b.rx);
	CHECK(readable(fd));
	both_close(&b);
}

static void send_and_close(void *argument)
{
	struct many *many = argument;
	struct mk_sender *tx = child_sender(&many->rings[0]);
	struct random r = random_from(1);

	for (uint64_t i = 0; i < many->each; i++) {
		CHECK_EQ(send_waiting(tx, i, NULL, 0), 0);
		dawdle(below(&r, 10) ? below(&r, 3000) : below(&r, 100000));
	}
	mk_sender_close(tx);
}

static void an_event_loop_sleeps_through_nothing(void)
{
	struct many many = {.rings = {ring_new(CAPACITY, 0)}, .count = 1, .each = times(10000)};
	pid_t pid = spawn(send_and_close, &many);
	struct mk_receiver *rx = child_receiver(&many.rings[0]);
	struct pollfd p = {.fd = mk_event_descriptor(&rx->end), .events = POLLIN};
	uint64_t next = 0, sleeps = 0;
	int result = 0;

	while (result != -EPIPE) {
		struct mk_message m = {0};

		CHECK_EQ(poll(&p, 1, -1), 1);
		sleeps++;
		while ((result = mk_peek(rx, &m)) == 0)
			CHECK_EQ(m.id, next++);
		mk_release(rx);
		mk_event_settle(&rx->end);
	}
	CHECK_EQ(next, many.each);
	printf("      %" PRIu64 " records in %" PRIu64 " turns of the loop\n", next, sleeps);
	mk_receiver_close(rx);
	reap_done(pid);
}

static const struct test tests[] = {
	TEST(a_wait_ends_at_once_when_there_is_something),
	TEST(a_wait_ends_at_its_time_and_not_before),
	TEST(a_signal_ends_a_wait),
	TEST(who_never_sleeps_comes_back_to_look_for_signals),
	TEST(a_record_and_an_ipi_wake_who_sleeps_on_the_bell),
	TEST(a_record_and_an_ipi_wake_who_sleeps_on_the_socket),
	TEST(a_release_wakes_a_sender_that_waits_for_room),
	TEST(a_close_and_a_death_wake_who_sleeps),
	TEST(what_a_handler_takes_between_saying_and_sleeping_is_no_lost_wake_up),
	TEST(a_wait_that_a_handler_made_in_vain_says_that_it_is_awake),
	TEST(who_is_rung_without_cause_comes_back_to_look_for_signals),
	TEST(the_first_message_of_a_late_claimant_wakes_who_slept_before_the_claim),
	TEST(a_lane_without_a_socket_is_woken_all_the_same),
	TEST(no_wake_up_is_lost_at_random_delays_when_each_parks_at_once),
	TEST(no_wake_up_is_lost_where_the_bounded_sleep_ends_and_the_unbounded_begins),
	TEST(no_wake_up_is_lost_by_who_spins_first),
	TEST(those_who_never_sleep_need_no_bell),
	TEST(a_set_of_one_lane_is_waited_for),
	TEST(a_set_of_two_lanes_is_waited_for),
	TEST(a_set_of_three_lanes_is_waited_for),
	TEST(a_set_of_64_lanes_is_waited_for),
	TEST(a_set_ends_its_wait_at_its_time),
	TEST(the_death_of_a_peer_that_claimed_later_wakes_a_set_and_an_event_loop),
	TEST(the_descriptor_is_readable_while_a_record_is_unread_and_only_then),
	TEST(what_was_there_before_the_descriptor_was_asked_for_makes_it_readable),
	TEST(a_senders_descriptor_is_readable_while_it_can_go_on),
	TEST(an_event_loop_sleeps_through_nothing),
};

RUN_TESTS(tests)
