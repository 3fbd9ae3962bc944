/* Waiting for one lane: it ends when there is something, at its time, by a signal, by a close and by a death; and who
 * sleeps is woken. What would be lost is a wake-up, and the sign of it is a test that hangs: the ceiling is what fails. */
#include "harness.h"

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
};

RUN_TESTS(tests)
