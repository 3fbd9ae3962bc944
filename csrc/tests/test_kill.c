/* SIGKILL at moments that nobody chose. Of a sender all that it published arrives and nothing else, then the end; a
 * receiver's death ends its sender, and its own page says exactly what it released. */
#include "harness.h"

#define CAPACITY 8192u
#define LONGEST 1500u

static uint64_t length_of(uint64_t number)
{
	return number * 2654435761u % (LONGEST + 1);
}

struct victim {
	struct ring ring;
	_Atomic uint64_t *begun; /* shared: number of the record that it may be writing; it ends nowhere else */
	bool batches;
};

static void send_until_killed(void *argument)
{
	struct victim *v = argument;
	struct mk_sender *tx = child_sender(&v->ring);

	for (uint64_t i = 0;; i++) {
		void *slot = NULL;
		int result;

		mk_store_relaxed(v->begun, i + 1);
		while ((result = mk_reserve(tx, length_of(i), &slot)) == -EAGAIN) {
			CHECK_EQ(mk_publish(tx), 0);
			CHECK_EQ(wait_on(&tx->end), 0);
		}
		CHECK_EQ(result, 0);
		fill_bytes(slot, i, length_of(i));
		CHECK_EQ(mk_finish(tx, length_of(i), MK_MSG_USER, 0, i), 0);
		if (!v->batches || i % 7 == 0)
			CHECK_EQ(mk_publish(tx), 0);
	}
}

static void kill_senders(bool batches, uint64_t rounds)
{
	_Atomic uint64_t *begun = shared(sizeof(*begun));
	struct random r = random_from(1);
	uint64_t total = 0, unpublished = 0;

	for (uint64_t round = 0; round < rounds; round++) {
		struct victim v = {ring_new(CAPACITY, 0), begun, batches};
		struct mk_receiver *rx;
		uint64_t stop_at = below(&r, 400), received = 0;
		bool killed = false;
		pid_t pid;

		mk_store_relaxed(begun, 0);
		pid = spawn(send_until_killed, &v);
		rx = child_receiver(&v.ring);
		rx->end.policy = (uint8_t)below(&r, 3);
		for (;;) {
			struct mk_message m = {0};
			int result;

			if (!killed && received >= stop_at) { /* full, empty, asleep or in the middle: as it comes */
				dawdle(below(&r, 4) ? below(&r, 3000) : 0);
				kill(pid, SIGKILL);
				killed = true;
			}
			result = peek_waiting(rx, &m);
			if (result == -EPIPE)
				break;
			CHECK_EQ(result, 0);
			CHECK_EQ(m.id, received);
			CHECK_EQ(m.length, length_of(received));
			CHECK(bytes_are(m.payload, received, m.length));
			received++;
			mk_release(rx);
		}
		CHECK(killed); /* it never ends by itself */
		reap(pid);
		CHECK(received <= mk_load_relaxed(begun));
		CHECK(batches || received + 1 >= mk_load_relaxed(begun)); /* at most the one at hand is missing */
		CHECK_EQ(mk_load_relaxed(&rx->peer->head), rx->tail);
		total += received;
		unpublished += mk_load_relaxed(begun) - received;
		mk_receiver_close(rx);
	}
	printf("      %" PRIu64 " killed: %" PRIu64 " records arrived, %" PRIu64 " begun and never published\n", rounds,
	       total, unpublished);
	munmap(begun, sizeof(*begun));
}

static void of_a_killed_sender_exactly_what_it_published_arrives(void)
{
	kill_senders(false, times(150));
}

static void of_a_sender_killed_in_a_batch_too(void)
{
	kill_senders(true, times(150));
}

struct taker {
	struct ring ring;
	uint64_t hold; /* looks at so many before it releases */
};

static void take_until_killed(void *argument)
{
	struct taker *t = argument;
	struct mk_receiver *rx = child_receiver(&t->ring);

	for (uint64_t i = 0;; i++) {
		struct mk_message m = {0};
		int result;

		while ((result = mk_peek(rx, &m)) == -EAGAIN) {
			mk_release(rx);
			CHECK_EQ(wait_on(&rx->end), 0);
		}
		CHECK_EQ(result, 0);
		CHECK_EQ(m.id, i);
		CHECK(bytes_are(m.payload, i, length_of(i)));
		if (i % t->hold == 0)
			mk_release(rx);
	}
}

static void the_sender_to_a_killed_receiver_ends_and_knows_what_was_released(void)
{
	struct random r = random_from(2);
	unsigned char bytes[LONGEST];
	uint64_t total = 0, left = 0;

	for (uint64_t round = 0; round < times(150); round++) {
		struct taker t = {ring_new(CAPACITY, 0), 1 + below(&r, 5)};
		uint64_t ends[CAPACITY], sent = 0, stop_at = 1 + below(&r, 400), released, at = 0;
		pid_t pid = spawn(take_until_killed, &t);
		struct mk_sender *tx = child_sender(&t.ring);
		int result = 0;

		tx->end.policy = (uint8_t)below(&r, 3);
		while (!result) {
			if (sent == stop_at) {
				dawdle(below(&r, 4) ? below(&r, 3000) : 0);
				kill(pid, SIGKILL);
			}
			fill_bytes(bytes, sent, length_of(sent));
			result = send_waiting(tx, sent, bytes, length_of(sent));
			if (result)
				break;
			ends[sent++] = tx->head;
			CHECK(sent < CAPACITY);
		}
		CHECK_EQ(result, -EPIPE);
		CHECK(sent >= stop_at);
		reap(pid);
		/* Its tail is the end of a record that was sent: what lies behind it can be delivered to a successor. */
		released = mk_load_acquire(&tx->peer->tail);
		while (at < sent && ends[at] != released)
			at++;
		CHECK(released == 0 || at < sent);
		CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 0, NULL, 0), -EPIPE);
		total += sent;
		left += released ? sent - at - 1 : sent;
		mk_sender_close(tx);
	}
	printf("      %" PRIu64 " records sent, %" PRIu64 " of them never released\n", total, left);
}

static const struct test tests[] = {
	TEST(of_a_killed_sender_exactly_what_it_published_arrives),
	TEST(of_a_sender_killed_in_a_batch_too),
	TEST(the_sender_to_a_killed_receiver_ends_and_knows_what_was_released),
};

RUN_TESTS(tests)
