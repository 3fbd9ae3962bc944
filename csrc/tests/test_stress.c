/* Two processes, as fast as they go: every message arrives once, in order, with every byte as it was sent. Each names its
 * number, and its contents follow from that. */
#include "harness.h"

#define LONGEST 6000u

/* What a process does on its two lanes. */
struct party {
	struct ring out, in;
	uint64_t out_number, in_number; /* stream of random lengths */
	uint64_t messages;
	uint64_t longest;
	uint64_t start;
	bool batches;
};

static uint64_t length_of(struct random *r, uint64_t longest)
{
	return below(r, 16) ? below(r, longest / 10 + 1) : below(r, longest + 1);
}

struct out {
	struct mk_sender *tx;
	struct random lengths, batch;
	uint64_t sent, next_length;
};

/* Send what there is room for, one a call or a batch that is published once. @return false when all is sent */
static bool send_some(struct out *o, const struct party *p)
{
	uint64_t limit = p->batches ? 1 + below(&o->batch, 32) : 1;
	void *slot = NULL;
	int result = 0;

	while (o->sent < p->messages && limit-- > 0) {
		result = mk_reserve(o->tx, o->next_length, &slot);
		if (result)
			break;
		fill_bytes(slot, o->sent, o->next_length);
		CHECK_EQ(mk_finish(o->tx, o->next_length, (uint16_t)(o->sent >> 16), (uint16_t)o->sent, o->sent), 0);
		o->sent++;
		o->next_length = length_of(&o->lengths, p->longest);
	}
	CHECK(result == 0 || result == -EAGAIN);
	CHECK_EQ(mk_publish(o->tx), 0);
	return o->sent < p->messages;
}

struct in {
	struct mk_receiver *rx;
	struct random lengths, batch;
	uint64_t received, seen; /* released, looked at */
};

static bool receive_some(struct in *i, const struct party *p)
{
	uint64_t limit = p->batches ? 1 + below(&i->batch, 32) : 1;
	struct mk_message m = {0};
	int result = 0;

	while (i->seen < p->messages && limit-- > 0 && (result = mk_peek(i->rx, &m)) == 0) {
		CHECK_EQ(m.id, i->seen);
		CHECK_EQ(m.type, (uint16_t)(i->seen >> 16));
		CHECK_EQ(m.subtype, (uint16_t)i->seen);
		CHECK_EQ(m.length, length_of(&i->lengths, p->longest));
		CHECK(bytes_are(m.payload, i->seen, m.length));
		i->seen++;
	}
	CHECK(result == 0 || result == -EAGAIN);
	mk_release(i->rx);
	return i->seen < p->messages;
}

/* Both directions in one thread, sleeping in a set when neither goes on. */
static void exchange(struct party *p)
{
	struct out o = {.lengths = random_from(p->out_number), .batch = random_from(p->out_number + 10)};
	struct in i = {.lengths = random_from(p->in_number), .batch = random_from(p->in_number + 20)};
	struct mk_wait_set *set = mk_wait_set_new();
	bool sending = true, receiving = true;
	struct mk_message m = {0};

	o.tx = child_sender(&p->out);
	i.rx = child_receiver(&p->in);
	o.next_length = length_of(&o.lengths, p->longest);
	CHECK_EQ(mk_wait_set_add(set, &o.tx->end), 0);
	CHECK_EQ(mk_wait_set_add(set, &i.rx->end), 0);
	while (sending || receiving) {
		uint64_t before = o.sent + i.seen;

		if (sending && !send_some(&o, p)) {
			sending = false; /* it would be ready for ever */
			CHECK_EQ(mk_wait_set_remove(set, &o.tx->end), 0);
		}
		if (receiving && !receive_some(&i, p)) {
			receiving = false;
			CHECK_EQ(mk_wait_set_remove(set, &i.rx->end), 0);
		}
		if (before == o.sent + i.seen && (sending || receiving)) {
			int ready = mk_wait_set_wait(set, -1);

			CHECK(ready > 0 || ready == -EINTR);
		}
	}
	CHECK_EQ(mk_load_relaxed(&o.tx->end.counters->sent), p->messages);
	CHECK_EQ(mk_load_relaxed(&i.rx->end.counters->received), p->messages);
	mk_wait_set_free(set);
	mk_sender_close(o.tx);
	CHECK_EQ(peek_waiting(i.rx, &m), -EPIPE); /* nothing more than was sent */
	mk_receiver_close(i.rx);
}

static void exchange_in_child(void *argument)
{
	exchange(argument);
}

static void both_ways(uint64_t capacity, uint64_t messages, uint64_t longest, bool batches, uint64_t start)
{
	struct ring there = ring_new(capacity, 0), back = ring_new(capacity, 0);
	struct party parent = {there, back, 1, 2, messages, longest, start, batches};
	struct party child = {back, there, 2, 1, messages, longest, start, batches};
	pid_t pid;

	ring_start_at(&there, start);
	ring_start_at(&back, start);
	pid = spawn(exchange_in_child, &child);
	exchange(&parent);
	reap_done(pid);
}

static void records_of_random_sizes_cross_both_ways_at_once(void)
{
	both_ways(1 << 16, times(60000), LONGEST, false, 0);
}

static void so_do_batches_of_them(void)
{
	both_ways(1 << 16, times(60000), LONGEST, true, 0);
}

static void so_they_do_through_the_smallest_ring(void)
{
	both_ways(4096, times(20000), 4096 - 16, true, 0);
}

static void so_they_do_while_the_indices_go_round(void)
{
	both_ways(1 << 14, times(20000), 4000, true, (1ULL << 32) - 4000000);
	both_ways(1 << 14, times(20000), 4000, false, UINT64_MAX - 3999999);
}

static void empty_records_cross_as_fast_as_they_can(void)
{
	both_ways(1 << 16, times(500000), 0, true, 0);
}

/* --- elements ------------------------------------------------------------------------------------------------------- */

struct stream {
	struct ring ring;
	uint64_t elements, capacity;
	uint32_t size;
};

static void send_stream(void *argument)
{
	struct stream *s = argument;
	struct mk_sender *tx = child_sender(&s->ring);
	struct random r = random_from(5);
	unsigned char *bytes = malloc(300 * s->size);
	uint64_t sent = 0;

	while (sent < s->elements) {
		uint64_t count = 1 + below(&r, 300);
		int64_t result;

		if (count > s->elements - sent)
			count = s->elements - sent;
		if (count > s->capacity / s->size)
			count = s->capacity / s->size;
		for (uint64_t i = 0; i < count; i++)
			fill_bytes(bytes + i * s->size, sent + i, s->size);
		if (below(&r, 2)) {
			result = mk_send_elements(tx, bytes, count);
		} else {
			void *slot = NULL;

			result = mk_reserve_elements(tx, count, &slot);
			if (!result) {
				memcpy(slot, bytes, count * s->size);
				CHECK_EQ(mk_finish_elements(tx, count), 0);
				CHECK_EQ(mk_publish(tx), 0);
				result = (int64_t)count;
			}
		}
		if (result == -EAGAIN) {
			CHECK_EQ(wait_on(&tx->end), 0);
			continue;
		}
		CHECK(result > 0);
		sent += (uint64_t)result;
	}
	free(bytes);
	mk_sender_close(tx);
}

static void elements_of(uint32_t size, uint64_t elements)
{
	struct stream s = {ring_new(1 << 14, size), elements, 1 << 14, size};
	pid_t pid = spawn(send_stream, &s);
	struct mk_receiver *rx = child_receiver(&s.ring);
	struct random r = random_from(6);
	uint64_t received = 0;

	for (;;) {
		const void *there = NULL;
		int64_t result = mk_peek_elements(rx, 1 + below(&r, 500), &there);

		if (result == -EAGAIN) {
			mk_release(rx); /* or the sender waits for what we keep */
			CHECK_EQ(wait_on(&rx->end), 0);
			continue;
		}
		if (result == -EPIPE)
			break;
		CHECK(result > 0);
		for (int64_t i = 0; i < result; i++)
			CHECK(bytes_are((const char *)there + i * size, received++, size));
		if (below(&r, 4))
			mk_release(rx);
	}
	mk_release(rx);
	CHECK_EQ(received, elements);
	mk_receiver_close(rx);
	reap_done(pid);
}

static void elements_of_every_size_cross_in_order(void)
{
	elements_of(1, times(1000000));
	elements_of(8, times(500000));
	elements_of(12, times(300000));
	elements_of(64, times(100000));
	elements_of(1000, times(10000));
}

static const struct test tests[] = {
	TEST(records_of_random_sizes_cross_both_ways_at_once),
	TEST(so_do_batches_of_them),
	TEST(so_they_do_through_the_smallest_ring),
	TEST(so_they_do_while_the_indices_go_round),
	TEST(empty_records_cross_as_fast_as_they_can),
	TEST(elements_of_every_size_cross_in_order),
};

RUN_TESTS(tests)
