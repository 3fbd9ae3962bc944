/* Waiting for many lanes at once. */
#include "harness.h"

#include <poll.h>

#define CAPACITY 4096u

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

static const struct test tests[] = {
	TEST(a_set_of_one_lane_is_waited_for),
	TEST(a_set_of_two_lanes_is_waited_for),
	TEST(a_set_of_three_lanes_is_waited_for),
	TEST(a_set_of_64_lanes_is_waited_for),
	TEST(a_set_ends_its_wait_at_its_time),
	TEST(the_death_of_a_peer_that_claimed_later_wakes_a_set_and_an_event_loop),
};

RUN_TESTS(tests)
