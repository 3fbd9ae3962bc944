/* An end's descriptor in an event loop: readable while there is something, and only then. */
#include "harness.h"

#include <poll.h>

#define CAPACITY 4096u

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

struct stream {
	struct ring ring;
	uint64_t count;
};

static void send_and_close(void *argument)
{
	struct stream *stream = argument;
	struct mk_sender *tx = child_sender(&stream->ring);
	struct random r = random_from(1);

	for (uint64_t i = 0; i < stream->count; i++) {
		CHECK_EQ(send_waiting(tx, i, NULL, 0), 0);
		dawdle(below(&r, 10) ? below(&r, 3000) : below(&r, 100000));
	}
	mk_sender_close(tx);
}

static void an_event_loop_sleeps_through_nothing(void)
{
	struct stream stream = {ring_new(CAPACITY, 0), times(10000)};
	pid_t pid = spawn(send_and_close, &stream);
	struct mk_receiver *rx = child_receiver(&stream.ring);
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
	CHECK_EQ(next, stream.count);
	printf("      %" PRIu64 " records in %" PRIu64 " turns of the loop\n", next, sleeps);
	mk_receiver_close(rx);
	reap_done(pid);
}

static const struct test tests[] = {
	TEST(the_descriptor_is_readable_while_a_record_is_unread_and_only_then),
	TEST(what_was_there_before_the_descriptor_was_asked_for_makes_it_readable),
	TEST(a_senders_descriptor_is_readable_while_it_can_go_on),
	TEST(an_event_loop_sleeps_through_nothing),
};

RUN_TESTS(tests)
