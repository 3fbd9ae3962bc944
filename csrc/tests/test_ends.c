/* Ends of a lane: who may have one, what the other side learns when it closes or dies, what a fork's copy may do. */
#include "harness.h"

#include <pthread.h>

#define CAPACITY 4096u

/* --- claiming ----------------------------------------------------------------------------------------------------- */

static void an_end_that_is_claimed_cannot_be_claimed_again(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	struct mk_sender *tx, *second_tx;
	struct mk_receiver *rx, *second_rx;

	CHECK_EQ(mk_sender_claim(&tx, ring.producer, NULL, NULL), 0);
	CHECK_EQ(mk_receiver_claim(&rx, ring.consumer, NULL, NULL), 0);
	CHECK_EQ(mk_sender_claim(&second_tx, ring.producer, NULL, NULL), -EPERM);
	CHECK_EQ(mk_receiver_claim(&second_rx, ring.consumer, NULL, NULL), -EPERM);
	mk_sender_close(tx);
	CHECK_EQ(mk_sender_claim(&second_tx, ring.producer, NULL, NULL), -EPERM); /* nor after its close */
	mk_receiver_close(rx);
	ring_drop(&ring);
}

struct race {
	struct ring ring;
	int start[2];
	_Atomic uint32_t *won;
};

static void claim_at_the_sign(void *argument)
{
	struct race *race = argument;
	struct mk_sender *tx;
	int result;

	close(race->start[1]);
	CHECK_EQ(read(race->start[0], &(char){0}, 1), 0); /* end of file: go */
	result = mk_sender_claim(&tx, race->ring.producer, NULL, NULL);
	CHECK(result == 0 || result == -EPERM);
	if (!result) {
		atomic_fetch_add(race->won, 1);
		mk_sender_close(tx);
	}
}

static void of_many_who_claim_at_once_one_gets_it(void)
{
	_Atomic uint32_t *won = shared(sizeof(*won));

	for (uint64_t round = 0; round < times(50); round++) {
		struct race race = {.ring = ring_new(CAPACITY, 0), .won = won};
		pid_t pids[4];

		CHECK_EQ(pipe(race.start), 0);
		atomic_store(won, 0);
		for (int i = 0; i < 4; i++)
			pids[i] = spawn(claim_at_the_sign, &race);
		close(race.start[0]);
		close(race.start[1]);
		for (int i = 0; i < 4; i++)
			reap_done(pids[i]);
		CHECK_EQ(atomic_load(won), 1);
		ring_drop(&race.ring);
	}
	munmap(won, sizeof(*won));
}

static void a_read_only_descriptor_claims_nothing(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	int reader = mk_object_reopen(ring.producer);
	struct mk_sender *tx;

	CHECK_EQ(mk_sender_claim(&tx, reader, NULL, NULL), -EACCES);
	CHECK_EQ(mk_sender_claim(&tx, ring.producer, NULL, NULL), 0); /* and left it as it was */
	mk_sender_close(tx);
	close(reader);
	ring_drop(&ring);
}

static void an_object_of_the_wrong_kind_is_no_end(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	struct mk_receiver *rx;
	struct mk_sender *tx;
	uint32_t why;

	CHECK_EQ(mk_sender_claim(&tx, ring.consumer, NULL, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_KIND);
	CHECK_EQ(mk_receiver_claim(&rx, ring.producer, NULL, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_KIND);
	tx = ring_sender(&ring); /* neither was spoilt */
	rx = ring_receiver(&ring);
	mk_sender_close(tx);
	mk_receiver_close(rx);
	ring_drop(&ring);
}

static void a_claim_says_who_owns_the_page(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	struct mk_sender *tx = ring_sender(&ring);
	struct mk_object header;

	CHECK_EQ(mk_object_check(ring.producer, MK_KIND_PRODUCER, 1, &header, NULL), 0); /* it is sealed now */
	CHECK_EQ(header.owner_pid, getpid());
	mk_sender_close(tx);
	ring_drop(&ring);
}

/* --- attaching ---------------------------------------------------------------------------------------------------- */

static void an_object_that_does_not_fit_the_own_one_is_refused_and_another_may_be_tried(void)
{
	struct ring ring = ring_new(CAPACITY, 8), larger = ring_new(2 * CAPACITY, 8), other = ring_new(CAPACITY, 16);
	struct mk_sender *tx;
	uint32_t why;

	CHECK_EQ(mk_sender_claim(&tx, ring.producer, NULL, NULL), 0);
	CHECK_EQ(mk_sender_attach(tx, larger.consumer, 0, ring.sockets[0], -1, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_CAPACITY);
	CHECK_EQ(mk_sender_attach(tx, other.consumer, 0, ring.sockets[0], -1, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_ELEMENT);
	CHECK_EQ(mk_sender_attach(tx, larger.producer, 0, ring.sockets[0], -1, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_KIND);
	CHECK_EQ(mk_sender_attach(tx, ring.consumer, 1, ring.sockets[0], -1, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_SEALS);             /* a link wants it sealed by its owner */
	CHECK(fcntl(ring.sockets[0], F_GETFD) >= 0); /* still ours */
	CHECK_EQ(mk_sender_attach(tx, ring.consumer, 0, ring.sockets[0], -1, &why), 0);
	CHECK_EQ(why, MK_REFUSED_NOT);
	ring.sockets[0] = -1;
	CHECK_EQ(mk_sender_attach(tx, ring.consumer, 0, -1, -1, &why), -EINVAL); /* once only */
	mk_sender_close(tx);
	ring_drop(&ring);
	ring_drop(&larger);
	ring_drop(&other);
}

static void what_was_sent_before_the_receiver_existed_arrives(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	struct mk_sender *tx = ring_sender(&ring);
	struct mk_receiver *rx;
	struct mk_message m = {0};

	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 1, "early", 5), 0);
	CHECK_EQ(mk_ipi_raise(tx, 3), 0);
	rx = ring_receiver(&ring);
	CHECK(mk_end_ready(&rx->end));
	CHECK(mk_ipi_waiting(rx));
	CHECK_EQ(mk_peek(rx, &m), 0);
	CHECK_EQ(memcmp(m.payload, "early", 5), 0);
	mk_sender_close(tx);
	mk_receiver_close(rx);
	ring_drop(&ring);
}

static void counts_go_where_the_claimant_wants_them(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	struct mk_counters counters = {0};
	struct mk_sender *tx;

	CHECK_EQ(mk_sender_claim(&tx, ring.producer, &counters, NULL), 0);
	CHECK_EQ(mk_sender_attach(tx, ring.consumer, 0, -1, -1, NULL), 0);
	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 0, "abc", 3), 0);
	CHECK_EQ(mk_load_relaxed(&counters.sent), 1);
	CHECK_EQ(mk_load_relaxed(&counters.sent_bytes), 3);
	mk_sender_close(tx);
	ring_drop(&ring);
}

/* --- closing ------------------------------------------------------------------------------------------------------ */

static void all_that_was_published_is_taken_before_the_receiver_learns_of_the_close(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_message m = {0};
	void *slot = NULL;

	for (uint64_t i = 0; i < 3; i++)
		CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, i, &i, 8), 0);
	CHECK_EQ(mk_reserve(b.tx, 8, &slot), 0); /* finished, never published */
	CHECK_EQ(mk_finish(b.tx, 8, MK_MSG_USER, 0, 3), 0);
	mk_sender_close(b.tx);
	CHECK(mk_end_ready(&b.rx->end));
	for (uint64_t i = 0; i < 3; i++) {
		CHECK_EQ(mk_peek(b.rx, &m), 0);
		CHECK_EQ(m.id, i);
		mk_release(b.rx);
	}
	CHECK_EQ(mk_peek(b.rx, &m), -EPIPE);
	CHECK_EQ(mk_peek(b.rx, &m), -EPIPE);
	CHECK_EQ(mk_wait(&b.rx->end, -1), 0); /* there is something to learn: no sleep */
	mk_receiver_close(b.rx);
}

static void a_sender_learns_of_the_close_from_its_next_send_though_there_is_room(void)
{
	struct both b = both_new(CAPACITY, 0);

	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, "x", 1), 0);
	mk_receiver_close(b.rx);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 1, "x", 1), -EPIPE);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 2, "x", 1), -EPIPE);
	CHECK_EQ(mk_ipi_raise(b.tx, 1), -EPIPE);
	CHECK_EQ(mk_load_relaxed(&b.tx->own->head), b.tx->head);
	mk_sender_close(b.tx);
}

static void nor_does_it_matter_who_else_holds_the_receivers_socket(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	int copy = dup(ring.sockets[1]);
	struct mk_sender *tx = ring_sender(&ring);
	struct mk_receiver *rx = ring_receiver(&ring);

	mk_receiver_close(rx);
	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 1, "x", 1), -EPIPE);
	mk_sender_close(tx);
	close(copy);
	ring_drop(&ring);
}

#define AT_ONCE 64

static void *send_one_on_each_and_close(void *argument)
{
	struct both *b = argument;

	for (int i = 0; i < AT_ONCE; i++) {
		mk_send(b[i].tx, MK_MSG_USER, 0, 7, "last", 4);
		mk_sender_close(b[i].tx);
	}
	return NULL;
}

static void the_last_record_is_not_missed_by_who_looks_while_the_lane_closes(void)
{
	for (uint64_t round = 0; round < times(60); round++) {
		struct both b[AT_ONCE];
		pthread_t thread;

		for (int i = 0; i < AT_ONCE; i++)
			b[i] = both_new(CAPACITY, 0);
		CHECK_EQ(pthread_create(&thread, NULL, send_one_on_each_and_close, b), 0);
		for (int i = 0; i < AT_ONCE; i++) {
			struct mk_message m = {0};
			int result;

			while ((result = mk_peek(b[i].rx, &m)) == -EAGAIN)
				;
			CHECK_EQ(result, 0);
			CHECK_EQ(m.id, 7);
			mk_release(b[i].rx);
		}
		pthread_join(thread, NULL);
		for (int i = 0; i < AT_ONCE; i++) {
			struct mk_message m = {0};

			CHECK_EQ(mk_peek(b[i].rx, &m), -EPIPE);
			mk_receiver_close(b[i].rx);
		}
	}
}

static void so_does_one_that_sends_elements_raises_an_ipi_or_waits_for_room(void)
{
	struct both b = both_new(CAPACITY, 8);
	uint64_t elements[CAPACITY / 8] = {0};

	mk_receiver_close(b.rx);
	CHECK_EQ(mk_send_elements(b.tx, elements, 1), -EPIPE);
	mk_sender_close(b.tx);

	b = both_new(CAPACITY, 8);
	mk_receiver_close(b.rx);
	CHECK_EQ(mk_ipi_raise(b.tx, 1), -EPIPE);
	mk_sender_close(b.tx);

	b = both_new(CAPACITY, 8);
	CHECK_EQ(mk_send_elements(b.tx, elements, CAPACITY / 8), CAPACITY / 8);
	CHECK_EQ(mk_send_elements(b.tx, elements, 1), -EAGAIN);
	mk_receiver_close(b.rx);
	CHECK_EQ(mk_wait(&b.tx->end, -1), 0);
	CHECK_EQ(mk_send_elements(b.tx, elements, 1), -EPIPE);
	mk_sender_close(b.tx);
}

static void a_receiver_that_releases_to_a_closed_sender_comes_to_no_harm(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_message m = {0};

	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 0, "x", 1), 0);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 1, "x", 1), 0);
	mk_sender_close(b.tx);
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	mk_release(b.rx);
	CHECK_EQ(mk_peek(b.rx, &m), 0); /* the release found out, and yet the rest is delivered */
	CHECK_EQ(m.id, 1);
	mk_release(b.rx);
	CHECK_EQ(mk_peek(b.rx, &m), -EPIPE);
	mk_receiver_close(b.rx);
}

static void an_end_that_nobody_claimed_is_gone_when_nobody_holds_it(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	struct mk_receiver *rx = ring_receiver(&ring);
	int kept = dup(ring.sockets[0]);
	struct mk_message m = {0};

	close_one(&ring.sockets[0]);
	CHECK(!mk_end_gone(&rx->end, true)); /* a copy is left */
	CHECK_EQ(mk_peek(rx, &m), -EAGAIN);
	close(kept);
	CHECK_EQ(mk_wait(&rx->end, -1), 0);
	CHECK_EQ(mk_peek(rx, &m), -EPIPE);
	mk_receiver_close(rx);
	ring_drop(&ring);
}

/* --- dying -------------------------------------------------------------------------------------------------------- */

struct life {
	struct ring ring;
	int ready[2];
};

static void send_two_and_stay(void *argument)
{
	struct life *life = argument;
	struct mk_sender *tx = ring_sender(&life->ring);
	void *slot = NULL;

	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 0, "whole", 5), 0);
	CHECK_EQ(mk_reserve(tx, 100, &slot), 0);
	memset(slot, 'x', 50); /* in the middle of the second */
	say(life->ready[1]);
	for (;;)
		pause();
}

/* The peer is killed while somebody else still holds its side of the socket: only its pidfd, which it sent over the
 * socket when it claimed its end, can tell. */
static void a_killed_sender_is_noticed_though_a_copy_of_its_socket_is_open(void)
{
	struct life life = {.ring = ring_new(CAPACITY, 0)};
	struct mk_receiver *rx;
	struct mk_message m = {0};
	pid_t pid;

	CHECK_EQ(pipe(life.ready), 0);
	rx = ring_receiver(&life.ring);
	pid = spawn(send_two_and_stay, &life);
	hear(life.ready[0]);
	CHECK_EQ(peek_waiting(rx, &m), 0);
	CHECK_EQ(m.length, 5);
	mk_release(rx);
	CHECK_EQ(mk_peek(rx, &m), -EAGAIN);
	CHECK(!mk_end_gone(&rx->end, true));
	kill(pid, SIGKILL);
	CHECK_EQ(peek_waiting(rx, &m), -EPIPE); /* nothing of the half record */
	reap(pid);
	mk_receiver_close(rx);
	ring_drop(&life.ring);
	close(life.ready[0]);
	close(life.ready[1]);
}

/* Most looks read two words and are over: but not all. */
static void who_only_looks_learns_of_a_killed_sender_as_well(void)
{
	struct life life = {.ring = ring_new(CAPACITY, 0)};
	struct mk_receiver *rx;
	struct mk_message m = {0};
	int result;
	pid_t pid;

	CHECK_EQ(pipe(life.ready), 0);
	rx = ring_receiver(&life.ring);
	pid = spawn(send_two_and_stay, &life);
	hear(life.ready[0]);
	CHECK_EQ(mk_peek(rx, &m), 0);
	mk_release(rx);
	kill(pid, SIGKILL);
	while ((result = mk_peek(rx, &m)) == -EAGAIN)
		mk_pause();
	CHECK_EQ(result, -EPIPE);
	reap(pid);
	mk_receiver_close(rx);
	ring_drop(&life.ring);
	close(life.ready[0]);
	close(life.ready[1]);
}

static void take_one_and_stay(void *argument)
{
	struct life *life = argument;
	struct mk_receiver *rx = ring_receiver(&life->ring);
	struct mk_message m = {0};

	CHECK_EQ(peek_waiting(rx, &m), 0);
	mk_release(rx);
	CHECK_EQ(peek_waiting(rx, &m), 0); /* looked at, not released */
	say(life->ready[1]);
	for (;;)
		pause();
}

static void a_killed_receiver_is_noticed_and_what_it_did_not_release_is_known(void)
{
	struct life life = {.ring = ring_new(CAPACITY, 0)};
	struct mk_sender *tx;
	uint64_t sent = 0;
	pid_t pid;

	CHECK_EQ(pipe(life.ready), 0);
	tx = ring_sender(&life.ring);
	pid = spawn(take_one_and_stay, &life);
	while (sent < 2)
		CHECK_EQ(send_waiting(tx, sent++, "12345678", 8), 0);
	hear(life.ready[0]);
	kill(pid, SIGKILL);
	while (send_waiting(tx, sent, "12345678", 8) == 0)
		sent++;
	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 0, NULL, 0), -EPIPE);
	CHECK_EQ(mk_load_relaxed(&tx->peer->tail), 24); /* one record was released */
	CHECK(sent >= CAPACITY / 24);                   /* it was taken for full, and not for ever */
	reap(pid);
	mk_sender_close(tx);
	ring_drop(&life.ring);
	close(life.ready[0]);
	close(life.ready[1]);
}

/* --- forking ------------------------------------------------------------------------------------------------------ */

static void close_copies(void *argument)
{
	struct both *b = argument;

	CHECK(b->tx->end.generation != mk_fork_generation());
	both_close(b);
}

static void a_forks_copy_closes_nothing_but_itself(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_message m = {0};

	reap_done(spawn(close_copies, &b));
	CHECK(!mk_end_gone(&b.rx->end, true));
	CHECK(!mk_end_gone(&b.tx->end, true));
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 5, "x", 1), 0);
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	CHECK_EQ(m.id, 5);
	both_close(&b);
}

static void send_on_copy(void *argument)
{
	struct both *b = argument;

	mk_send(b->tx, MK_MSG_USER, 0, 1, "x", 1);
}

static void peek_on_copy(void *argument)
{
	struct both *b = argument;
	struct mk_message m = {0};

	mk_peek(b->rx, &m);
}

static void a_forks_copy_that_is_used_all_the_same_faults_and_the_lane_is_intact(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_message m = {0};

	CHECK_EQ(signal_of(send_on_copy, &b), SIGSEGV);
	CHECK_EQ(signal_of(peek_on_copy, &b), SIGSEGV);
	CHECK_EQ(mk_peek(b.rx, &m), -EAGAIN);
	CHECK_EQ(mk_send(b.tx, MK_MSG_USER, 0, 2, "x", 1), 0);
	CHECK_EQ(mk_peek(b.rx, &m), 0);
	CHECK_EQ(m.id, 2);
	both_close(&b);
}

static void unmap_nothing(void *argument)
{
	struct both *b = argument;
	/* Something of the child's own comes to lie where the lane was in its parent. */
	char *here = mmap(b->tx->end.own_map, b->tx->end.own_map_size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	CHECK(here == b->tx->end.own_map);
	mk_sender_close(b->tx);
	here[0] = 1;
}

static void a_forks_copy_unmaps_nothing_of_the_childs(void)
{
	struct both b = both_new(CAPACITY, 0);

	reap_done(spawn(unmap_nothing, &b));
	both_close(&b);
}

static const struct test tests[] = {
	TEST(an_end_that_is_claimed_cannot_be_claimed_again),
	TEST(of_many_who_claim_at_once_one_gets_it),
	TEST(a_read_only_descriptor_claims_nothing),
	TEST(an_object_of_the_wrong_kind_is_no_end),
	TEST(a_claim_says_who_owns_the_page),
	TEST(an_object_that_does_not_fit_the_own_one_is_refused_and_another_may_be_tried),
	TEST(what_was_sent_before_the_receiver_existed_arrives),
	TEST(counts_go_where_the_claimant_wants_them),
	TEST(all_that_was_published_is_taken_before_the_receiver_learns_of_the_close),
	TEST(a_sender_learns_of_the_close_from_its_next_send_though_there_is_room),
	TEST(nor_does_it_matter_who_else_holds_the_receivers_socket),
	TEST(the_last_record_is_not_missed_by_who_looks_while_the_lane_closes),
	TEST(so_does_one_that_sends_elements_raises_an_ipi_or_waits_for_room),
	TEST(a_receiver_that_releases_to_a_closed_sender_comes_to_no_harm),
	TEST(an_end_that_nobody_claimed_is_gone_when_nobody_holds_it),
	TEST(a_killed_sender_is_noticed_though_a_copy_of_its_socket_is_open),
	TEST(who_only_looks_learns_of_a_killed_sender_as_well),
	TEST(a_killed_receiver_is_noticed_and_what_it_did_not_release_is_known),
	TEST(a_forks_copy_closes_nothing_but_itself),
	TEST(a_forks_copy_that_is_used_all_the_same_faults_and_the_lane_is_intact),
	TEST(a_forks_copy_unmaps_nothing_of_the_childs),
};

RUN_TESTS(tests)
