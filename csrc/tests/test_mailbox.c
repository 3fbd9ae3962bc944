/* Mailboxes: whose turn it is, lanes that come and go, one wait for all, senders killed at moments that nobody chose. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>

#include "multikernel/mailbox.h"

#define CAPACITY 8192u
#define MANY 64u

static struct mk_mailbox *new_box(void)
{
	struct mk_mailbox *box = mk_mailbox_new(MK_WAIT_PARK, false);

	CHECK(box);
	return box;
}

/* A lane more: its sender. */
static struct mk_sender *join(struct mk_mailbox *box, uint32_t number)
{
	struct both both = both_new(CAPACITY, 0);

	CHECK_EQ(mk_mailbox_add(box, both.rx, number), 0);
	return both.tx;
}

static void send_number(struct mk_sender *tx, uint64_t number)
{
	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, number, &number, sizeof(number)), 0);
}

/* The next record, waiting for it. @return 1, or what ended the wait */
static int next(struct mk_mailbox *box, struct mk_message *m, uint32_t *number)
{
	int result;

	while ((result = mk_mailbox_peek(box, m, 1, number)) == -EAGAIN) {
		result = mk_mailbox_wait(box, -1, false);
		if (result && result != -EINTR)
			return result;
	}
	return result;
}

static void expect(struct mk_mailbox *box, uint32_t sender, uint64_t value)
{
	struct mk_message m = {0};
	uint32_t number = ~0u;
	uint64_t payload;

	CHECK_EQ(next(box, &m, &number), 1);
	memcpy(&payload, m.payload, sizeof(payload));
	CHECK_EQ(number, sender);
	CHECK_EQ(payload, value);
	mk_mailbox_release(box);
}

static void expect_nothing(struct mk_mailbox *box, int result)
{
	struct mk_message m;
	uint32_t number;

	CHECK_EQ(mk_mailbox_peek(box, &m, 1, &number), result);
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

static void records_come_with_the_number_of_their_sender(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 7), *b = join(box, 3);
	uint32_t numbers[4] = {0};

	send_number(b, 10);
	send_number(a, 1);
	send_number(a, 2);
	expect(box, 7, 1);
	expect(box, 7, 2);
	expect(box, 3, 10);
	expect_nothing(box, -EAGAIN);
	CHECK_EQ(mk_mailbox_numbers(box, numbers, 1), 2);
	CHECK_EQ(numbers[0], 7);
	CHECK_EQ(numbers[1], 0);
	mk_sender_close(a);
	mk_sender_close(b);
	mk_mailbox_free(box);
}

static void a_lane_that_is_never_empty_keeps_nobody_out(void)
{
	struct mk_mailbox *box = new_box();
	struct random r = random_from(6);
	struct mk_sender *senders[5];
	uint64_t total = 0, sent_at[5] = {0}, came[5] = {0};
	bool waits[5] = {false};

	for (uint32_t i = 0; i < 5; i++)
		senders[i] = join(box, i);
	while (total < 500000) {
		struct mk_message m[100];
		uint32_t number;
		int n;

		while (mk_send(senders[1], MK_MSG_USER, 0, 0, "full", 4) == 0)
			;
		for (uint32_t i = 0; i < 5; i++) {
			if (i == 1 || waits[i] || below(&r, 10))
				continue;
			send_number(senders[i], i);
			waits[i] = true;
			sent_at[i] = total;
		}
		n = mk_mailbox_peek(box, m, 1 + (unsigned)below(&r, 100), &number);
		CHECK(n >= 1 && n <= (int)MK_TURN_RECORDS);
		if (waits[number]) /* a turn of each of the others, at most */
			CHECK(total - sent_at[number] <= 4 * MK_TURN_RECORDS);
		waits[number] = false;
		came[number]++;
		total += (uint64_t)n;
		mk_mailbox_release(box);
	}
	for (uint32_t i = 0; i < 5; i++) {
		CHECK(came[i] > 100);
		mk_sender_close(senders[i]);
	}
	mk_mailbox_free(box);
}

static void a_turn_is_no_longer_than_its_records_and_bytes(void)
{
	struct mk_mailbox *box = new_box();
	struct both big = both_new(1 << 20, 0);
	struct mk_sender *small = join(box, 1);
	static char bytes[40000];
	struct mk_message m[200];
	uint32_t number;
	int n = 0;

	CHECK_EQ(mk_mailbox_add(box, big.rx, 2), 0);
	for (uint64_t i = 0; i < 200; i++)
		send_number(small, i);
	for (int i = 0; i < 10; i++)
		CHECK_EQ(mk_send(big.tx, MK_MSG_USER, 0, 0, bytes, sizeof(bytes)), 0);
	for (int turn = 0; turn < 4; turn++) {
		n = mk_mailbox_peek(box, m, 200, &number);
		CHECK_EQ(number, turn % 2 ? 2 : 1);
		CHECK_EQ(n, turn % 2 ? 2 : (int)MK_TURN_RECORDS); /* 40,000 and 40,000 are more than MK_TURN_BYTES */
		mk_mailbox_release(box);
	}
	mk_sender_close(big.tx);
	mk_sender_close(small);
	mk_mailbox_free(box);
}

static void what_was_not_released_comes_again(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 0);
	struct mk_message m[2];
	uint32_t number;

	send_number(a, 1);
	send_number(a, 2);
	CHECK_EQ(mk_mailbox_peek(box, m, 2, &number), 2);
	mk_mailbox_unpeek(box);
	CHECK_EQ(mk_mailbox_peek(box, m, 1, &number), 1);
	expect(box, 0, 1); /* a peek undoes the one before */
	expect(box, 0, 2);
	mk_sender_close(a);
	mk_mailbox_free(box);
}

static void what_waits_is_counted_and_who_could_send(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 0), *b = join(box, 1);
	struct mk_message m[4];
	uint32_t number;
	int door[2];

	CHECK_EQ(pipe(door), 0);
	CHECK_EQ(mk_mailbox_watch(box, door[0]), 0);
	CHECK_EQ(mk_mailbox_waiting(box), 0);
	for (uint64_t i = 0; i < 5; i++)
		send_number(a, i);
	send_number(b, 5);
	CHECK_EQ(mk_mailbox_waiting(box), 6);
	CHECK_EQ(mk_mailbox_peek(box, m, 4, &number), 4);
	CHECK_EQ(mk_mailbox_waiting(box), 2);
	mk_mailbox_unpeek(box);
	CHECK_EQ(mk_mailbox_waiting(box), 6);
	mk_sender_close(a);
	mk_sender_close(b);
	CHECK(!mk_mailbox_over(box)); /* others may come by the door */
	mk_mailbox_unwatch(box, door[0]);
	CHECK(mk_mailbox_over(box));
	CHECK_EQ(mk_mailbox_waiting(box), 6); /* and are there still */
	close(door[0]);
	close(door[1]);
	mk_mailbox_free(box);
}

/* --- coming and going --------------------------------------------------------------------------------------------- */

static void a_lane_goes_when_its_sender_has_gone_and_all_was_taken(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 0), *b = join(box, 1);
	int door[2];

	CHECK_EQ(pipe(door), 0);
	CHECK_EQ(mk_mailbox_watch(box, door[0]), 0);
	send_number(a, 1);
	mk_sender_close(a);
	expect(box, 0, 1);
	expect_nothing(box, -EAGAIN);
	CHECK_EQ(mk_mailbox_numbers(box, NULL, 0), 1);
	send_number(b, 2);
	expect(box, 1, 2);
	mk_sender_close(b);
	expect_nothing(box, -EAGAIN); /* a watched descriptor may bring more */
	CHECK_EQ(mk_mailbox_numbers(box, NULL, 0), 0);
	mk_mailbox_unwatch(box, door[0]);
	expect_nothing(box, -EPIPE);
	CHECK_EQ(mk_mailbox_wait(box, -1, false), -EPIPE);
	a = join(box, 0); /* its number is free again */
	send_number(a, 3);
	expect(box, 0, 3);
	mk_sender_close(a);
	close(door[0]);
	close(door[1]);
	mk_mailbox_free(box);
}

static void only_lanes_of_records_with_a_number_of_their_own_are_taken(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 5);
	struct both elements = both_new(CAPACITY, 8), same = both_new(CAPACITY, 0);

	CHECK_EQ(mk_mailbox_add(box, elements.rx, 6), -EINVAL);
	CHECK_EQ(mk_mailbox_add(box, same.rx, 5), -EEXIST);
	both_close(&elements);
	both_close(&same);
	mk_sender_close(a);
	mk_mailbox_free(box);
}

static void a_lane_that_is_quarantined_is_cut_off_and_the_others_go_on(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 0), *b = join(box, 1);
	struct mk_message m;
	uint32_t number = 9;
	uint64_t value;

	send_number(b, 1);
	mk_store_release(&a->own->head, 1ULL << 62);
	CHECK_EQ(mk_mailbox_peek(box, &m, 1, &number), -EBADMSG);
	CHECK_EQ(number, 0);
	CHECK_EQ(mk_mailbox_bad(box, &value), MK_BAD_HEAD);
	CHECK_EQ(value, 1ULL << 62);
	expect(box, 1, 1);
	expect_nothing(box, -EAGAIN);
	CHECK_EQ(mk_mailbox_numbers(box, NULL, 0), 1);
	CHECK_EQ(mk_send(a, MK_MSG_USER, 0, 0, NULL, 0), -EPIPE);
	mk_sender_close(a);
	mk_sender_close(b);
	mk_mailbox_free(box);
}

static void closing_it_ends_every_sender(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 0);

	mk_mailbox_close(box);
	mk_mailbox_close(box);
	CHECK(mk_end_gone(&a->end, true));
	mk_sender_close(a);
	mk_mailbox_free(box);
}

static void free_copy(void *box)
{
	mk_mailbox_free(box);
}

static void a_forked_copy_takes_nothing_from_the_owner(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 0);

	reap_done(spawn(free_copy, box));
	CHECK(!mk_end_gone(&a->end, true));
	send_number(a, 1);
	expect(box, 0, 1);
	CHECK_EQ(mk_mailbox_wait(box, 0, false), -ETIMEDOUT);
	mk_sender_close(a); /* it is still watched: the wait ends */
	CHECK_EQ(mk_mailbox_wait(box, -1, false), 0);
	mk_mailbox_free(box);
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

struct visitor {
	struct ring *rings;
	uint32_t busy;
	uint64_t rounds;
	int go;
};

/* Sends when it is told that the other sleeps, or is about to. */
static void visit(void *argument)
{
	struct visitor *v = argument;
	struct mk_sender *tx = child_sender(&v->rings[v->busy]);
	struct random r = random_from(3);

	for (uint64_t i = 0; i < v->rounds; i++) {
		hear(v->go);
		dawdle(below(&r, 3) ? below(&r, 20000) : 0);
		send_number(tx, i);
	}
	mk_sender_close(tx);
}

static void wait_on_lanes(uint32_t count, uint8_t policy, uint64_t rounds)
{
	struct mk_mailbox *box = mk_mailbox_new(policy, false);
	struct ring rings[MANY];
	int go[2];

	CHECK_EQ(pipe(go), 0);
	for (uint32_t i = 0; i < count; i++) {
		rings[i] = ring_new(CAPACITY, 0);
		CHECK_EQ(mk_mailbox_add(box, ring_receiver(&rings[i]), i), 0);
	}
	struct visitor v = {rings, count / 2, rounds, go[0]};
	pid_t pid = spawn(visit, &v);

	for (uint32_t i = 0; i < count; i++)
		if (i != v.busy)
			close_one(&rings[i].producer);
	close_one(&rings[v.busy].producer);
	for (uint64_t i = 0; i < rounds; i++) {
		say(go[1]);
		expect(box, v.busy, i);
	}
	for (uint32_t i = 0; i < count; i++)
		ring_drop(&rings[i]);
	reap_done(pid);
	struct mk_message m;
	uint32_t number;

	CHECK_EQ(next(box, &m, &number), -EPIPE); /* each of the others is noticed to be gone */
	close(go[0]);
	close(go[1]);
	mk_mailbox_free(box);
}

static void a_wait_ends_for_any_lane(void)
{
	wait_on_lanes(1, MK_WAIT_PARK, times(300));
	wait_on_lanes(2, MK_WAIT_ADAPTIVE, times(300));
	wait_on_lanes(MANY, MK_WAIT_PARK, times(300));
	wait_on_lanes(MANY, MK_WAIT_SPIN, times(100));
	wait_on_lanes(MANY, MK_WAIT_ADAPTIVE, times(300));
}

static void a_wait_ends_for_a_watched_descriptor(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = NULL;
	struct mk_message m;
	uint32_t number;
	int door[2];

	CHECK_EQ(pipe(door), 0);
	CHECK_EQ(mk_mailbox_watch(box, door[0]), 0);
	for (int lanes = 0; lanes < 2; lanes++) {
		CHECK_EQ(mk_mailbox_wait(box, 0, false), -ETIMEDOUT);
		CHECK_EQ(mk_mailbox_wait(box, 3000000, false), -ETIMEDOUT);
		say(door[1]);
		CHECK_EQ(mk_mailbox_wait(box, -1, false), 0);
		CHECK_EQ(mk_mailbox_peek(box, &m, 1, &number), 0);
		mk_mailbox_remind(box);
		CHECK_EQ(mk_mailbox_peek(box, &m, 1, &number), 0); /* nobody had looked */
		hear(door[0]);
		CHECK_EQ(mk_mailbox_peek(box, &m, 1, &number), -EAGAIN);
		if (!a)
			a = join(box, 1);
	}
	mk_sender_close(a);
	mk_mailbox_free(box);
	close(door[0]);
	close(door[1]);
}

static void a_watched_descriptor_is_seen_though_a_lane_is_never_empty(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 1);
	struct mk_message m;
	uint32_t number;
	uint64_t until = mk_now() + 10000000000u;
	int door[2];
	int result;

	CHECK_EQ(pipe(door), 0);
	CHECK_EQ(mk_mailbox_watch(box, door[0]), 0);
	say(door[1]);
	do {
		send_number(a, 0);
		result = mk_mailbox_peek(box, &m, 1, &number);
		mk_mailbox_release(box);
	} while (result > 0 && mk_now() < until);
	CHECK_EQ(result, 0);
	mk_sender_close(a);
	mk_mailbox_free(box);
	close(door[0]);
	close(door[1]);
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

static void wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, -1) < 1)
		CHECK_EQ(errno, EINTR);
}

static void its_descriptor_is_readable_while_there_is_something(void)
{
	struct mk_mailbox *box = new_box();
	struct mk_sender *a = join(box, 1), *b = join(box, 2);
	int fd = mk_mailbox_descriptor(box);

	CHECK(fd >= 0);
	CHECK_EQ(mk_mailbox_descriptor(box), fd);
	CHECK(!readable(fd));
	for (uint64_t i = 0; i < 100; i++) {
		send_number(i % 3 ? a : b, i);
		wait_readable(fd);
		mk_mailbox_settle(box);
		CHECK(readable(fd));
		expect(box, i % 3 ? 1 : 2, i);
		mk_mailbox_settle(box);
		CHECK(!readable(fd));
	}
	mk_sender_close(a);
	wait_readable(fd);
	expect_nothing(box, -EAGAIN);
	mk_mailbox_settle(box);
	CHECK(!readable(fd));
	mk_sender_close(b);
	expect_nothing(box, -EPIPE);
	mk_mailbox_settle(box);
	CHECK(readable(fd));
	mk_mailbox_free(box);
}

/* --- many at once --------------------------------------------------------------------------------------------------- */

#define SENDERS 6u

static uint64_t length_of(uint64_t number)
{
	return number * 2654435761u % 300;
}

struct party {
	struct ring ring;
	_Atomic uint64_t *begun;
	uint32_t number;
	uint64_t count; /* ~0: until it is killed */
};

static void stream(struct mk_sender *tx, const struct party *p)
{
	unsigned char bytes[300];

	for (uint64_t i = 0; i < p->count; i++) {
		uint64_t seed = i * SENDERS + p->number;

		fill_bytes(bytes, seed, length_of(seed));
		mk_store_relaxed(p->begun, i + 1);
		check_sent(send_waiting(tx, i, bytes, length_of(seed)), i + 1 == p->count);
	}
	mk_sender_close(tx);
}

static void stream_in_a_process(void *argument)
{
	struct party *p = argument;

	stream(child_sender(&p->ring), p);
}

static void *stream_in_a_thread(void *argument)
{
	struct party *p = argument;

	stream(ring_sender(&p->ring), p);
	return NULL;
}

/* Take all that comes, until all are gone; kill one each time @kill_every records have come. */
static void take_all(struct mk_mailbox *box, uint64_t *received, const pid_t *pids, struct random *r)
{
	struct mk_message m[50];
	uint64_t total = 0, kill_at = pids ? below(r, 500) : ~0ull;
	unsigned killed = 0;

	for (;;) {
		uint32_t number;
		int n = mk_mailbox_peek(box, m, 1 + (unsigned)below(r, 50), &number);

		if (n == -EAGAIN) {
			n = mk_mailbox_wait(box, -1, false);
			CHECK(n == 0 || n == -EINTR);
			continue;
		}
		if (n == -EPIPE)
			return;
		CHECK(n > 0);
		for (int i = 0; i < n; i++) {
			uint64_t seed = received[number] * SENDERS + number;

			CHECK_EQ(m[i].id, received[number]);
			CHECK_EQ(m[i].length, length_of(seed));
			CHECK(bytes_are(m[i].payload, seed, m[i].length));
			received[number]++;
		}
		mk_mailbox_release(box);
		total += (uint64_t)n;
		if (total >= kill_at && killed < SENDERS) {
			kill(pids[killed++], SIGKILL);
			kill_at = total + below(r, 500);
		}
	}
}

static void of_each_killed_sender_exactly_what_it_published_arrives(void)
{
	_Atomic uint64_t *begun = shared(SENDERS * sizeof(*begun));
	struct random r = random_from(4);

	for (uint64_t round = 0; round < times(30); round++) {
		struct mk_mailbox *box = mk_mailbox_new((uint8_t)below(&r, 3), false);
		struct party parties[SENDERS];
		uint64_t received[SENDERS] = {0};
		pid_t pids[SENDERS];

		for (uint32_t i = 0; i < SENDERS; i++) {
			parties[i] = (struct party){ring_new(CAPACITY, 0), &begun[i], i, ~0ull};
			mk_store_relaxed(&begun[i], 0);
		}
		for (uint32_t i = 0; i < SENDERS; i++) {
			pids[i] = spawn(stream_in_a_process, &parties[i]);
			CHECK_EQ(mk_mailbox_add(box, ring_receiver(&parties[i].ring), i), 0);
			ring_drop(&parties[i].ring);
		}
		take_all(box, received, pids, &r);
		for (uint32_t i = 0; i < SENDERS; i++) {
			reap(pids[i]);
			CHECK(received[i] <= mk_load_relaxed(&begun[i]));
			CHECK(received[i] + 1 >= mk_load_relaxed(&begun[i])); /* at most the one at hand is missing */
		}
		mk_mailbox_free(box);
	}
	munmap(begun, SENDERS * sizeof(*begun));
}

static void of_many_threads_all_arrives(void)
{
	struct mk_mailbox *box = mk_mailbox_new(MK_WAIT_ADAPTIVE, false);
	struct random r = random_from(5);
	struct party parties[SENDERS];
	uint64_t received[SENDERS] = {0};
	_Atomic uint64_t begun[SENDERS];
	pthread_t threads[SENDERS];

	for (uint32_t i = 0; i < SENDERS; i++) {
		parties[i] = (struct party){ring_new(CAPACITY, 0), &begun[i], i, times(20000)};
		CHECK_EQ(mk_mailbox_add(box, ring_receiver(&parties[i].ring), i), 0);
	}
	for (uint32_t i = 0; i < SENDERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, stream_in_a_thread, &parties[i]), 0);
	take_all(box, received, NULL, &r);
	for (uint32_t i = 0; i < SENDERS; i++) {
		pthread_join(threads[i], NULL);
		CHECK_EQ(received[i], parties[i].count);
		ring_drop(&parties[i].ring);
	}
	mk_mailbox_free(box);
}

static const struct test tests[] = {
	TEST(records_come_with_the_number_of_their_sender),
	TEST(a_lane_that_is_never_empty_keeps_nobody_out),
	TEST(a_turn_is_no_longer_than_its_records_and_bytes),
	TEST(what_was_not_released_comes_again),
	TEST(what_waits_is_counted_and_who_could_send),
	TEST(a_lane_goes_when_its_sender_has_gone_and_all_was_taken),
	TEST(only_lanes_of_records_with_a_number_of_their_own_are_taken),
	TEST(a_lane_that_is_quarantined_is_cut_off_and_the_others_go_on),
	TEST(closing_it_ends_every_sender),
	TEST(a_forked_copy_takes_nothing_from_the_owner),
	TEST(a_wait_ends_for_any_lane),
	TEST(a_wait_ends_for_a_watched_descriptor),
	TEST(a_watched_descriptor_is_seen_though_a_lane_is_never_empty),
	TEST(its_descriptor_is_readable_while_there_is_something),
	TEST(of_each_killed_sender_exactly_what_it_published_arrives),
	TEST(of_many_threads_all_arrives),
};

RUN_TESTS(tests)
