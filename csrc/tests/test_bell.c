/* The sender's side of a bell, in the hands of a peer that wants it to hang: whatever the peer does with its end of the
 * socket pair, whose flags both share, a ring takes no longer than a system call. */
#include "harness.h"

#define CAPACITY 4096u

/* A receiver of ours that says it sleeps on the socket and never reads it; the sender rings for each record. */
static struct mk_consumer *sleep_for_ever(struct ring *ring)
{
	struct mk_consumer *c = NULL;
	void *map;

	CHECK_EQ(mk_object_map(ring->consumer, mk_page_size(), 1, &map), 0);
	c = map;
	mk_store_relaxed(&c->state, MK_END_OPEN);
	mk_store_relaxed(&c->parked, MK_PARKED_SOCKET);
	return c;
}

static void fill(int socket)
{
	char bytes[4096] = {0};

	while (send(socket, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	CHECK_EQ(errno, EAGAIN);
}

static void a_bell_that_is_full_and_set_to_block_holds_up_no_sender(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	int flags, theirs = dup(ring.sockets[1]), ours = dup(ring.sockets[0]);
	struct mk_consumer *c = sleep_for_ever(&ring);
	struct mk_sender *tx = ring_sender(&ring);
	uint64_t sent = 0, before = mk_load_relaxed(&tx->end.counters->wakes);

	fill(ours);
	flags = fcntl(ours, F_GETFL);
	CHECK_EQ(fcntl(ours, F_SETFL, flags & ~O_NONBLOCK), 0);
	CHECK_EQ(fcntl(theirs, F_SETFL, flags & ~O_NONBLOCK), 0);
	for (; sent < 100; sent++) {
		mk_store_relaxed(&c->parked, (uint32_t)(sent << 2) | MK_PARKED_SOCKET); /* it sleeps anew */
		mk_store_relaxed(&c->tail, tx->head);
		CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, sent, NULL, 0), 0);
		CHECK_EQ(mk_ipi_raise(tx, 5), 0);
	}
	CHECK(mk_load_relaxed(&tx->end.counters->wakes) - before >= sent / 2);
	close(theirs);
	close(ours);
	mk_sender_close(tx);
	munmap(c, mk_page_size());
	ring_drop(&ring);
}

static const struct test tests[] = {
	TEST(a_bell_that_is_full_and_set_to_block_holds_up_no_sender),
};

RUN_TESTS(tests)
