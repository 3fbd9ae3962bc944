/* cast.h: broadcasts as a binding makes them, for the tests of both kinds. */
#ifndef MULTIKERNEL_TESTS_CAST_H
#define MULTIKERNEL_TESTS_CAST_H

#include "harness.h"

#include "multikernel/broadcast.h"

#define CAPACITY 8192u
#define LONGEST 300u

/* A broadcast as a binding makes it. */
struct cast {
	struct mk_roster *roster;
	int roster_fd, producer, reader;
	struct mk_broadcast *tx;
	uint32_t made;
	uint64_t number; /* where the last receiver begins */
};

static UNUSED struct cast cast_new(uint64_t capacity, bool overwrites)
{
	struct cast c = {0};

	c.producer = mk_broadcast_object(capacity, overwrites);
	CHECK(c.producer >= 0);
	c.reader = mk_object_reopen(c.producer);
	c.roster_fd = mk_roster_create(&c.roster);
	CHECK(c.roster_fd >= 0);
	return c;
}

static UNUSED void claim(struct cast *c)
{
	CHECK_EQ(mk_broadcast_claim(&c->tx, c->producer, c->roster_fd, -1, MK_WAIT_PARK, false, NULL), 0);
}

static UNUSED struct cast claimed(bool overwrites)
{
	struct cast c = cast_new(CAPACITY, overwrites);

	claim(&c);
	return c;
}

/* What is on its way to the sender, and what the receiver is claimed with. */
struct seat {
	int consumer, reader, sockets[2]; /* sender's, receiver's */
	uint64_t number;
};

static UNUSED struct seat seat_new(void)
{
	struct seat s = {.consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:test", CAPACITY, 0, 0, 0)};

	CHECK(s.consumer >= 0);
	s.reader = mk_object_reopen(s.consumer);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s.sockets), 0);
	return s;
}

static UNUSED void count_in(struct cast *c, struct seat *s)
{
	CHECK_EQ(mk_roster_add(c->roster, c->reader, s->consumer, &s->number), 0);
}

static UNUSED void take_in(struct mk_broadcast *tx, struct seat *s, uint32_t number)
{
	CHECK_EQ(mk_broadcast_add(tx, s->reader, s->sockets[0], number, NULL), 0);
	close_one(&s->reader);
	s->sockets[0] = -1;
}

static UNUSED struct mk_receiver *sit(const struct cast *c, struct seat *s)
{
	struct mk_receiver *rx;

	CHECK_EQ(mk_receiver_claim(&rx, s->consumer, NULL, NULL), 0);
	CHECK_EQ(mk_receiver_attach(rx, c->reader, 0, s->sockets[1], -1, NULL), 0);
	close_one(&s->consumer);
	s->sockets[1] = -1;
	return rx;
}

static UNUSED void leave_seat(struct seat *s)
{
	close_one(&s->consumer);
	close_one(&s->reader);
	close_one(&s->sockets[0]);
	close_one(&s->sockets[1]);
}

/* One more receiver, taken in at once. */
static UNUSED struct seat seated(struct cast *c)
{
	struct seat s = seat_new();

	count_in(c, &s);
	CHECK_EQ(mk_broadcast_receivers(c->tx), -ENOTCONN);
	take_in(c->tx, &s, c->made++);
	mk_broadcast_caught_up(c->tx);
	return s;
}

static UNUSED struct mk_receiver *receiver(struct cast *c)
{
	struct seat s = seated(c);

	return sit(c, &s);
}

static UNUSED struct mk_follower *follower(struct cast *c)
{
	struct seat s = seated(c);
	struct mk_follower *f = mk_follower_new(sit(c, &s), s.number);

	CHECK(f);
	return f;
}

static UNUSED void cast_close(struct cast *c)
{
	mk_broadcast_free(c->tx);
	mk_roster_close(c->roster);
	close_one(&c->producer);
	close_one(&c->reader);
	close_one(&c->roster_fd);
}

static UNUSED uint64_t length_of(uint64_t number)
{
	return number * 2654435761u % (LONGEST + 1);
}

/* @return as mk_broadcast_put; the record follows from its number */
static UNUSED int put(struct mk_broadcast *tx, uint64_t number)
{
	unsigned char bytes[LONGEST];

	fill_bytes(bytes, number, length_of(number));
	return mk_broadcast_put(tx, bytes, length_of(number));
}

static UNUSED int cast_number(struct mk_broadcast *tx, uint64_t number)
{
	int result = put(tx, number);

	mk_broadcast_publish(tx);
	return result;
}

static UNUSED void check(const struct mk_message *m, uint64_t number)
{
	CHECK_EQ(m->id, number);
	CHECK_EQ(m->length, length_of(number));
	CHECK(bytes_are(m->payload, number, m->length));
}

static UNUSED void expect(struct mk_receiver *rx, uint64_t number)
{
	struct mk_message m = {0};

	CHECK_EQ(peek_waiting(rx, &m), 0);
	check(&m, number);
	mk_release(rx);
}

/* @return what take returned; checks what it gave, and that together with what was missed nothing is lacking */
static UNUSED int follow(struct mk_follower *f, uint64_t *next, uint64_t *missed, unsigned limit)
{
	struct mk_message m[MK_FOLLOWER_AHEAD];
	uint64_t gap = 0;
	int n = mk_follower_take(f, m, limit, &gap);

	if (n > 0) {
		*missed += gap;
		*next += gap;
	}
	for (int i = 0; i < n; i++)
		check(&m[i], (*next)++);
	return n;
}

#endif
