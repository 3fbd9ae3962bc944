/* A lane outlives its sender, and its receiver: what was published arrives, once and in order; what was looked at and
 * not released comes again and says so. What a dead owner left, and what its successor brings, is input. */
#include "harness.h"

#include <poll.h>

#include "multikernel/resume.h"

#define CAPACITY 4096u
#define SURVIVOR 600u
#define MORTAL 5u
#define LENGTH 24u
#define SIZE (sizeof(struct mk_record) + LENGTH) /* of each record here: an index then tells a number */

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* One incarnation's object: writable until it is claimed, and as others get it. */
struct object {
	int own, reader;
};

static struct object object_of(uint32_t kind, uint32_t owner, uint64_t epoch)
{
	struct object o;

	o.own = mk_lane_object(kind, "lane:test", CAPACITY, 0, owner, epoch);
	CHECK(o.own >= 0);
	o.reader = mk_object_reopen(o.own);
	CHECK(o.reader >= 0);
	return o;
}

static void drop(struct object *o)
{
	close_one(&o->own);
	close_one(&o->reader);
}

static struct mk_sender *claim_sender(const struct object *o)
{
	struct mk_sender *tx;

	CHECK_EQ(mk_sender_claim(&tx, o->own, NULL, NULL), 0);
	return tx;
}

static struct mk_receiver *claim_receiver(const struct object *o)
{
	struct mk_receiver *rx;

	CHECK_EQ(mk_receiver_claim(&rx, o->own, NULL, NULL), 0);
	return rx;
}

static int send_number(struct mk_sender *tx, uint64_t number)
{
	unsigned char bytes[LENGTH];

	fill_bytes(bytes, number, LENGTH);
	return mk_send(tx, MK_MSG_USER, 0, number, bytes, LENGTH);
}

static void check_number(struct mk_receiver *rx, uint64_t number)
{
	struct mk_message m = {0};

	CHECK_EQ(mk_peek(rx, &m), 0);
	CHECK_EQ(m.id, number);
	CHECK_EQ(m.length, LENGTH);
	CHECK(bytes_are(m.payload, number, LENGTH));
}

/* Both ends in this process; the mortal one is taken for dead when it is said to be. Who closes it later writes in a page
 * that nobody maps any more. */
struct lane {
	struct object producer, consumer;
	struct mk_sender *tx;
	struct mk_receiver *rx;
	int sockets[2];
	bool sender_dies;
};

static struct lane lane_new(bool sender_dies)
{
	struct lane l = {.sender_dies = sender_dies};

	l.producer = object_of(MK_KIND_PRODUCER, sender_dies ? MORTAL : SURVIVOR, sender_dies);
	l.consumer = object_of(MK_KIND_CONSUMER, sender_dies ? SURVIVOR : MORTAL, !sender_dies);
	l.tx = claim_sender(&l.producer);
	l.rx = claim_receiver(&l.consumer);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l.sockets), 0);
	CHECK_EQ(mk_sender_attach(l.tx, l.consumer.reader, 1, dup(l.sockets[0]), -1, NULL), 0);
	CHECK_EQ(mk_receiver_attach(l.rx, l.producer.reader, 1, dup(l.sockets[1]), -1, NULL), 0);
	return l;
}

static void lane_close(struct lane *l)
{
	mk_sender_close(l->tx);
	mk_receiver_close(l->rx);
	drop(&l->producer);
	drop(&l->consumer);
	close_one(&l->sockets[0]);
	close_one(&l->sockets[1]);
}

/* The mortal end's successor, made and attached; what came before it is closed once the survivor has gone on. */
struct succession {
	struct object object;
	struct mk_sender *tx;
	struct mk_receiver *rx;
};

static struct succession succeed(struct lane *l, uint64_t epoch)
{
	struct succession s = {0};

	if (l->sender_dies) {
		s.object = object_of(MK_KIND_PRODUCER, MORTAL, epoch);
		s.tx = claim_sender(&s.object);
		CHECK_EQ(mk_sender_attach(s.tx, l->consumer.reader, 1, dup(l->sockets[0]), -1, NULL), 0);
		CHECK_EQ(mk_sender_succeed(s.tx, l->producer.reader, NULL), 0);
	} else {
		s.object = object_of(MK_KIND_CONSUMER, MORTAL, epoch);
		s.rx = claim_receiver(&s.object);
		CHECK_EQ(mk_receiver_attach(s.rx, l->producer.reader, 1, dup(l->sockets[1]), -1, NULL), 0);
		CHECK_EQ(mk_receiver_succeed(s.rx, l->consumer.reader, NULL), 0);
	}
	return s;
}

static void go_on(struct lane *l, const struct succession *s)
{
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

	CHECK(self >= 0);
	if (l->sender_dies) {
		CHECK_EQ(mk_receiver_resume(l->rx, s->object.reader, self, NULL), 0);
		mk_sender_close(l->tx);
		drop(&l->producer);
		l->producer = s->object;
		l->tx = s->tx;
	} else {
		CHECK_EQ(mk_sender_resume(l->tx, s->object.reader, self, NULL), 0);
		mk_receiver_close(l->rx);
		drop(&l->consumer);
		l->consumer = s->object;
		l->rx = s->rx;
	}
}

static void succeed_and_go_on(struct lane *l, uint64_t epoch)
{
	struct succession s = succeed(l, epoch);

	go_on(l, &s);
}

/* --- one process ------------------------------------------------------------------------------------------------ */

static void a_new_sender_begins_where_the_last_one_ended_and_brings_what_was_not_taken(void)
{
	struct lane l = lane_new(true);

	for (uint64_t i = 0; i < 70; i++)
		CHECK_EQ(send_number(l.tx, i), 0);
	for (uint64_t i = 0; i < 30; i++)
		check_number(l.rx, i);
	mk_release(l.rx);
	check_number(l.rx, 30); /* looked at, not released */
	succeed_and_go_on(&l, 2);
	CHECK_EQ(l.tx->head, 70 * SIZE);
	for (uint64_t i = 70; i < 130; i++)
		CHECK_EQ(send_number(l.tx, i), 0);
	CHECK_EQ(send_number(l.tx, 131), 0);
	CHECK_EQ(send_number(l.tx, 132), 0);
	CHECK_EQ(send_number(l.tx, 133), -EAGAIN); /* 102 fit, counted from 30: what was not released takes room */
	for (uint64_t i = 31; i < 130; i++)
		check_number(l.rx, i);
	mk_release(l.rx);
	CHECK_EQ(send_number(l.tx, 133), 0);
	lane_close(&l);
}

static void a_new_receiver_begins_at_what_was_not_released_and_knows_what_was_seen(void)
{
	struct lane l = lane_new(false);

	for (uint64_t i = 0; i < 40; i++)
		CHECK_EQ(send_number(l.tx, i), 0);
	for (uint64_t i = 0; i < 10; i++)
		check_number(l.rx, i);
	mk_say_seen(l.rx);
	mk_release(l.rx);
	check_number(l.rx, 10);
	check_number(l.rx, 11);
	mk_say_seen(l.rx);
	check_number(l.rx, 12); /* never said to be handed out */
	CHECK(!mk_redelivered(l.rx));
	mk_end_due(&l.tx->end);
	for (uint64_t i = 40; i < 112; i++) /* it is as one that is silent */
		CHECK_EQ(send_number(l.tx, i), 0);
	CHECK_EQ(send_number(l.tx, 112), -EAGAIN);
	succeed_and_go_on(&l, 2);
	for (uint64_t i = 10; i < 112; i++) {
		check_number(l.rx, i);
		CHECK_EQ(mk_redelivered(l.rx), i < 12);
	}
	mk_release(l.rx);
	succeed_and_go_on(&l, 3); /* seen lies before tail now: nothing comes again */
	CHECK_EQ(send_number(l.tx, 112), 0);
	check_number(l.rx, 112);
	CHECK(!mk_redelivered(l.rx));
	lane_close(&l);
}

static void a_receiver_that_dies_twice_with_the_same_message_has_it_a_third_time(void)
{
	struct lane l = lane_new(false);

	CHECK_EQ(send_number(l.tx, 0), 0);
	CHECK_EQ(send_number(l.tx, 1), 0);
	for (uint64_t epoch = 2; epoch < 5; epoch++) {
		check_number(l.rx, 0);
		CHECK_EQ(mk_redelivered(l.rx), epoch > 2);
		mk_say_seen(l.rx);
		succeed_and_go_on(&l, epoch);
	}
	check_number(l.rx, 0);
	CHECK(mk_redelivered(l.rx));
	check_number(l.rx, 1);
	CHECK(!mk_redelivered(l.rx));
	lane_close(&l);
}

static void interrupts_are_neither_lost_nor_repeated(void)
{
	struct lane l = lane_new(true);
	unsigned vector = 0;
	uint64_t count = 0;

	CHECK_EQ(mk_ipi_raise(l.tx, 3), 0);
	CHECK_EQ(mk_ipi_take(l.rx, &vector, &count), 1);
	CHECK_EQ(mk_ipi_mask(l.rx, 9, true), 0);
	CHECK_EQ(mk_ipi_raise(l.tx, 9), 0); /* held back over the switch */
	CHECK_EQ(mk_ipi_raise(l.tx, 3), 0);
	succeed_and_go_on(&l, 2);
	CHECK_EQ(mk_ipi_raise(l.tx, 3), 0);
	CHECK_EQ(mk_ipi_take(l.rx, &vector, &count), 1);
	CHECK_EQ(vector, 3);
	CHECK_EQ(count, 2);
	CHECK_EQ(mk_ipi_take(l.rx, &vector, &count), 0);
	CHECK_EQ(mk_ipi_mask(l.rx, 9, false), 0);
	CHECK_EQ(mk_ipi_take(l.rx, &vector, &count), 1);
	CHECK_EQ(vector, 9);
	CHECK_EQ(count, 1);
	lane_close(&l);

	l = lane_new(false);
	CHECK_EQ(mk_ipi_raise(l.tx, 5), 0);
	CHECK_EQ(mk_ipi_raise(l.tx, 6), 0);
	CHECK_EQ(mk_ipi_take(l.rx, &vector, &count), 1);
	CHECK_EQ(vector, 5);
	CHECK_EQ(mk_ipi_raise(l.tx, 5), 0);
	CHECK_EQ(mk_ipi_raise(l.tx, 5), 0);
	succeed_and_go_on(&l, 2);
	CHECK_EQ(mk_ipi_take(l.rx, &vector, &count), 1);
	CHECK_EQ(vector, 5);
	CHECK_EQ(count, 2);
	CHECK_EQ(mk_ipi_take(l.rx, &vector, &count), 1);
	CHECK_EQ(vector, 6);
	CHECK_EQ(mk_ipi_take(l.rx, &vector, &count), 0);
	lane_close(&l);
}

static void a_due_end_waits_until_it_is_rung_or_hung_up(void)
{
	struct lane l = lane_new(true);
	struct mk_end *end = &l.rx->end;
	int event = mk_event_descriptor(end);
	struct pollfd readable = {.fd = event, .events = POLLIN};

	mk_end_due(end);
	mk_event_settle(end);
	CHECK_EQ(poll(&readable, 1, 0), 0);
	CHECK_EQ(mk_wait(end, 20000000), -ETIMEDOUT);
	CHECK_EQ(write(l.sockets[0], "!", 1), 1); /* the host: look whether there is a successor */
	mk_event_settle(end);
	CHECK_EQ(poll(&readable, 1, 0), 1);
	CHECK_EQ(wait_on(end), 0);
	CHECK(end->gone);
	mk_end_due(end); /* there was none */
	mk_event_settle(end);
	CHECK_EQ(poll(&readable, 1, 0), 0);
	CHECK_EQ(send_number(l.tx, 0), 0); /* what it had sent is received meanwhile */
	check_number(l.rx, 0);
	close_one(&l.tx->end.socket);
	close_one(&l.sockets[0]); /* the host: there will be none */
	CHECK_EQ(wait_on(end), 0);
	mk_end_due(end); /* a ring of the dead one's was under way */
	CHECK_EQ(wait_on(end), 0);
	CHECK(end->hung_up);
	mk_end_due(end);
	CHECK(end->gone);
	lane_close(&l);
}

static void an_event_loop_sees_what_a_successor_sends(void)
{
	struct lane l = lane_new(true);
	struct pollfd readable = {.fd = mk_event_descriptor(&l.rx->end), .events = POLLIN};

	mk_end_due(&l.rx->end);
	mk_event_settle(&l.rx->end);
	succeed_and_go_on(&l, 2);
	mk_event_settle(&l.rx->end);
	CHECK_EQ(poll(&readable, 1, 0), 0);
	CHECK_EQ(send_number(l.tx, 0), 0);
	CHECK_EQ(poll(&readable, 1, -1), 1);
	check_number(l.rx, 0);
	lane_close(&l);
}

static void a_successor_that_nobody_knows_yet_is_rung_all_the_same(void)
{
	struct lane l = lane_new(false);
	_Atomic uint32_t fate = 7;
	char byte;

	mk_watch_fate(&l.tx->end, &fate);
	CHECK_EQ(send_number(l.tx, 0), 0);
	mk_mind_fate(&l.tx->end);
	CHECK_EQ(recv(l.sockets[1], &byte, 1, MSG_DONTWAIT), -1); /* nobody sleeps, nothing has changed */
	struct succession s = succeed(&l, 2);

	mk_store_release(&fate, 9); /* the host: it begins */
	CHECK(mk_fate_changed(&l.tx->end));
	CHECK_EQ(send_number(l.tx, 1), 0); /* by the page of the dead one, who did not sleep */
	mk_mind_fate(&l.tx->end);
	CHECK_EQ(recv(l.sockets[1], &byte, 1, MSG_DONTWAIT), 1);
	mk_watch_fate(&l.tx->end, &fate); /* seen, and the host has not sent the successor yet */
	mk_end_due(&l.tx->end);
	CHECK_EQ(send_number(l.tx, 2), 0);
	mk_mind_fate(&l.tx->end);
	CHECK_EQ(recv(l.sockets[1], &byte, 1, MSG_DONTWAIT), 1);
	go_on(&l, &s);
	CHECK(!mk_fate_changed(&l.tx->end));
	check_number(l.rx, 0);
	check_number(l.rx, 1);
	check_number(l.rx, 2);
	lane_close(&l);
}

/* --- what others wrote is input ------------------------------------------------------------------------------------ */

/* An object of the mortal's whose indices are as given, sealed as its owner would. */
static struct object forged(uint32_t kind, uint32_t owner, uint64_t epoch, uint64_t position)
{
	struct object o = object_of(kind, owner, epoch);

	CHECK_EQ(pwrite(o.own, &position, 8,
			kind == MK_KIND_PRODUCER ? offsetof(struct mk_producer, head)
						 : offsetof(struct mk_consumer, tail)),
		 8);
	CHECK_EQ(mk_object_seal(o.own), 0);
	return o;
}

static const uint64_t wrong_heads[] = {0, 9 * SIZE, 11 * SIZE + 1, 5 * SIZE + CAPACITY + 8, 1ULL << 63, UINT64_MAX};

static void a_successor_whose_head_cannot_be_ends_the_lane(void)
{
	for (size_t i = 0; i < sizeof(wrong_heads) / sizeof(*wrong_heads); i++) {
		struct lane l = lane_new(true);
		struct object o = forged(MK_KIND_PRODUCER, MORTAL, 2, wrong_heads[i]);

		for (uint64_t n = 0; n < 10; n++)
			CHECK_EQ(send_number(l.tx, n), 0);
		for (uint64_t n = 0; n < 5; n++)
			check_number(l.rx, n);
		mk_release(l.rx);
		check_number(l.rx, 5); /* so that it knows of ten */
		CHECK_EQ(mk_receiver_resume(l.rx, o.reader, -1, NULL), -EBADMSG);
		CHECK_EQ(l.rx->end.bad, MK_BAD_HEAD);
		CHECK_EQ(l.rx->end.bad_value, wrong_heads[i]);
		drop(&o);
		lane_close(&l);
	}
}

static void a_successor_whose_tail_cannot_be_ends_the_lane(void)
{
	static const uint64_t wrong[] = {4 * SIZE, 5 * SIZE + 4, 11 * SIZE, 1ULL << 63, UINT64_MAX};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct lane l = lane_new(false);
		struct object o = forged(MK_KIND_CONSUMER, MORTAL, 2, wrong[i]);

		for (uint64_t n = 0; n < 10; n++)
			CHECK_EQ(send_number(l.tx, n), 0);
		for (uint64_t n = 0; n < 5; n++)
			check_number(l.rx, n);
		mk_release(l.rx);
		CHECK_EQ(mk_look_for_room(l.tx, 1), 0); /* so that it knows of five */
		CHECK_EQ(mk_sender_resume(l.tx, o.reader, -1, NULL), -EBADMSG);
		CHECK_EQ(l.tx->end.bad, MK_BAD_TAIL);
		CHECK_EQ(l.tx->end.bad_value, wrong[i]);
		CHECK_EQ(send_number(l.tx, 10), -EBADMSG);
		drop(&o);
		lane_close(&l);
	}
}

static void what_a_predecessor_left_is_checked_as_a_peer_is(void)
{
	static const uint64_t wrong[] = {4, CAPACITY + 8, 1ULL << 63, UINT64_MAX};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct lane l = lane_new(true);
		struct object old = forged(MK_KIND_PRODUCER, MORTAL, 2, wrong[i]);
		struct object o = object_of(MK_KIND_PRODUCER, MORTAL, 3);
		struct mk_sender *tx = claim_sender(&o);

		CHECK_EQ(mk_sender_attach(tx, l.consumer.reader, 1, -1, -1, NULL), 0);
		CHECK_EQ(mk_sender_succeed(tx, old.reader, NULL), -EBADMSG);
		CHECK_EQ(mk_load_relaxed(&tx->own->head), 0);
		mk_sender_close(tx);
		drop(&o);
		drop(&old);
		lane_close(&l);

		l = lane_new(false);
		old = forged(MK_KIND_CONSUMER, MORTAL, 2, wrong[i]);
		o = object_of(MK_KIND_CONSUMER, MORTAL, 3);
		struct mk_receiver *rx = claim_receiver(&o);

		CHECK_EQ(mk_receiver_attach(rx, l.producer.reader, 1, -1, -1, NULL), 0);
		CHECK_EQ(mk_receiver_succeed(rx, old.reader, NULL), -EBADMSG);
		mk_receiver_close(rx);
		drop(&o);
		drop(&old);
		lane_close(&l);
	}
}

/* Whose it must be, and of when. */
static void only_a_later_incarnation_of_the_same_owner_is_a_successor(void)
{
	struct lane l = lane_new(true);
	struct object others[] = {
		forged(MK_KIND_PRODUCER, MORTAL + 1, 2, 0), /* of somebody else */
		forged(MK_KIND_PRODUCER, MORTAL, 1, 0),     /* of the same incarnation */
		forged(MK_KIND_PRODUCER, MORTAL, 0, 0),     /* of an earlier one */
	};
	struct object unsealed = object_of(MK_KIND_PRODUCER, MORTAL, 2),
		      consumer = object_of(MK_KIND_CONSUMER, MORTAL, 2);
	uint32_t why = 0;

	CHECK_EQ(send_number(l.tx, 0), 0);
	for (size_t i = 0; i < 3; i++) {
		CHECK_EQ(mk_receiver_resume(l.rx, others[i].reader, -1, &why), -EPROTO);
		CHECK_EQ(why, MK_REFUSED_OWNER);
		drop(&others[i]);
	}
	CHECK_EQ(mk_receiver_resume(l.rx, unsealed.reader, -1, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_SEALS);
	CHECK_EQ(mk_object_seal(consumer.own), 0);
	CHECK_EQ(mk_receiver_resume(l.rx, consumer.reader, -1, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_KIND);
	check_number(l.rx, 0); /* and the end is as it was */
	drop(&unsealed);
	drop(&consumer);

	struct object own = object_of(MK_KIND_PRODUCER, MORTAL, 2), later = forged(MK_KIND_PRODUCER, MORTAL, 3, 0);
	struct mk_sender *tx = claim_sender(&own);

	CHECK_EQ(mk_sender_succeed(tx, l.producer.reader, NULL), -EINVAL); /* not attached */
	CHECK_EQ(mk_sender_attach(tx, l.consumer.reader, 1, -1, -1, NULL), 0);
	CHECK_EQ(mk_sender_succeed(tx, later.reader, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_OWNER);
	CHECK_EQ(mk_sender_succeed(tx, l.producer.reader, NULL), 0);
	CHECK_EQ(mk_sender_succeed(tx, l.producer.reader, NULL), -EINVAL); /* once */
	mk_sender_close(tx);
	drop(&own);
	drop(&later);
	lane_close(&l);
}

/* --- processes that are killed ---------------------------------------------------------------------------------------- */

struct life {
	struct lane *lane;
	struct object object, last; /* its own, its predecessor's: -1, there was none */
	uint64_t epoch;
	int ready; /* says so when it has taken over */
	uint32_t policy;
	struct log *log;
};

#define LOGGED 400000u /* of a stress twenty times as long, too */

struct log {
	_Atomic uint64_t count;
	struct {
		uint64_t number;
		bool again;
	} entries[LOGGED];
};

static void send_on(void *argument)
{
	struct life *life = argument;
	struct mk_sender *tx = claim_sender(&life->object);

	close_one(&life->lane->sockets[1]);
	tx->end.policy = (uint8_t)life->policy;
	CHECK_EQ(mk_sender_attach(tx, life->lane->consumer.reader, 1, dup(life->lane->sockets[0]), -1, NULL), 0);
	if (life->last.reader >= 0)
		CHECK_EQ(mk_sender_succeed(tx, life->last.reader, NULL), 0);
	say(life->ready);
	for (;;) {
		int result;

		while ((result = send_number(tx, tx->head / SIZE)) == -EAGAIN)
			CHECK_EQ(wait_on(&tx->end), 0);
		CHECK_EQ(result, 0);
	}
}

static void take_on(void *argument)
{
	struct life *life = argument;
	struct mk_receiver *rx = claim_receiver(&life->object);
	struct random r = random_from(life->epoch);

	close_one(&life->lane->sockets[0]);
	rx->end.policy = (uint8_t)life->policy;
	CHECK_EQ(mk_receiver_attach(rx, life->lane->producer.reader, 1, dup(life->lane->sockets[1]), -1, NULL), 0);
	if (life->last.reader >= 0)
		CHECK_EQ(mk_receiver_succeed(rx, life->last.reader, NULL), 0);
	say(life->ready);
	for (;;) {
		struct mk_message m = {0};
		uint64_t at = mk_load_relaxed(&life->log->count);

		CHECK_EQ(peek_waiting(rx, &m), 0);
		CHECK(bytes_are(m.payload, m.id, LENGTH));
		mk_say_seen(rx);
		life->log->entries[at].number = m.id;
		life->log->entries[at].again = mk_redelivered(rx);
		mk_store_release(&life->log->count, at + 1);
		CHECK(at + 1 < LOGGED);
		if (below(&r, 3))
			mk_release(rx);
		else if (rx->next - rx->tail > CAPACITY / 2)
			mk_release(rx);
	}
}

static pid_t begin_life(struct life *life, void (*run)(void *), int *pidfd)
{
	int ready[2];
	pid_t pid;

	CHECK_EQ(pipe2(ready, O_CLOEXEC), 0);
	life->ready = ready[1];
	pid = spawn(run, life);
	hear(ready[0]);
	close(ready[0]);
	close(ready[1]);
	*pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(*pidfd >= 0);
	return pid;
}

static void end_life(pid_t pid)
{
	kill(pid, SIGKILL);
	reap(pid);
}

/* A lane of which only the survivor's end is here. */
static struct lane survivor_of(bool sender_dies)
{
	struct lane l = {.sender_dies = sender_dies, .producer = {-1, -1}, .consumer = {-1, -1}};

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l.sockets), 0);
	if (sender_dies) {
		l.consumer = object_of(MK_KIND_CONSUMER, SURVIVOR, 0);
		l.rx = claim_receiver(&l.consumer);
	} else {
		l.producer = object_of(MK_KIND_PRODUCER, SURVIVOR, 0);
		l.tx = claim_sender(&l.producer);
	}
	return l;
}

static uint64_t final_number(const struct object *o)
{
	uint64_t head;

	CHECK_EQ(pread(o->reader, &head, 8, offsetof(struct mk_producer, head)), 8);
	return head / SIZE;
}

static void a_stream_goes_on_over_senders_that_are_killed(void)
{
	struct lane l = survivor_of(true);
	struct life life = {.lane = &l, .last = {-1, -1}};
	struct random r = random_from(1);
	uint64_t received = 0, rounds = times(100);

	for (life.epoch = 1; life.epoch <= rounds; life.epoch++) {
		uint64_t until = received + below(&r, 250);
		struct mk_message m = {0};
		int pidfd, result;
		pid_t pid;

		life.object = object_of(MK_KIND_PRODUCER, MORTAL, life.epoch);
		life.policy = (uint32_t)below(&r, 3);
		pid = begin_life(&life, send_on, &pidfd);
		if (life.epoch == 1)
			CHECK_EQ(mk_receiver_attach(l.rx, life.object.reader, 1, dup(l.sockets[1]), pidfd, NULL), 0);
		else
			CHECK_EQ(mk_receiver_resume(l.rx, life.object.reader, pidfd, NULL), 0);
		l.rx->end.policy = (uint8_t)below(&r, 3);
		for (; received < until; received++) {
			CHECK_EQ(peek_waiting(l.rx, &m), 0);
			CHECK_EQ(m.id, received);
			CHECK(bytes_are(m.payload, received, LENGTH));
			if (below(&r, 2))
				mk_release(l.rx);
		}
		mk_release(l.rx);
		dawdle(below(&r, 30000));
		end_life(pid);
		if (below(&r, 2)) { /* find out by itself, else the successor is there before that is noticed */
			for (; (result = peek_waiting(l.rx, &m)) == 0; received++)
				CHECK_EQ(m.id, received);
			CHECK_EQ(result, -EPIPE);
			mk_release(l.rx);
			mk_end_due(&l.rx->end);
		}
		drop(&life.last);
		life.last = life.object;
	}
	for (struct mk_message m = {0}; mk_peek(l.rx, &m) == 0; received++) {
		CHECK_EQ(m.id, received);
		CHECK(bytes_are(m.payload, received, LENGTH));
	}
	CHECK_EQ(received, final_number(&life.last));
	printf("      %" PRIu64 " killed: %" PRIu64 " records arrived, in order\n", rounds, received);
	drop(&life.last);
	lane_close(&l);
}

static void check_log(const struct log *log, uint64_t sent)
{
	uint64_t count = mk_load_acquire(&log->count), due = 0, again = 0;

	for (uint64_t i = 0; i < count; i++) {
		if (!log->entries[i].again || log->entries[i].number == due) {
			CHECK_EQ(log->entries[i].number, due); /* its first time: nothing was left out */
			due++;
		} else { /* at a seam: it goes back, and then from there on in order */
			CHECK(log->entries[i].number < due);
			CHECK(i && (log->entries[i - 1].number >= log->entries[i].number ||
				    log->entries[i - 1].number + 1 == log->entries[i].number));
		}
		again += log->entries[i].again;
	}
	CHECK_EQ(due, sent);
	printf("      %" PRIu64 " records arrived, in order, %" PRIu64 " of them again\n", due, again);
}

static void a_stream_goes_on_over_receivers_that_are_killed(void)
{
	struct lane l = survivor_of(false);
	struct log *log = shared(sizeof(*log));
	struct life life = {.lane = &l, .last = {-1, -1}, .log = log};
	struct random r = random_from(2);
	uint64_t rounds = times(100), sent = 0;
	int pidfd;
	pid_t pid = 0;

	for (life.epoch = 1; life.epoch <= rounds; life.epoch++) {
		uint64_t until = sent + below(&r, 250);

		life.object = object_of(MK_KIND_CONSUMER, MORTAL, life.epoch);
		life.policy = (uint32_t)below(&r, 3);
		pid = begin_life(&life, take_on, &pidfd);
		if (life.epoch == 1) {
			CHECK_EQ(mk_sender_attach(l.tx, life.object.reader, 1, dup(l.sockets[0]), pidfd, NULL), 0);
		} else {
			/* Into the dead one's account: the switch wakes for it. That nobody takes it may be found
			 * out just then, and it lies there all the same. */
			send_number(l.tx, sent);
			sent = l.tx->head / SIZE;
			CHECK_EQ(mk_sender_resume(l.tx, life.object.reader, pidfd, NULL), 0);
		}
		for (int result; sent < until; sent++) {
			while ((result = send_number(l.tx, sent)) == -EAGAIN)
				CHECK_EQ(wait_on(&l.tx->end), 0);
			CHECK_EQ(result, 0);
		}
		drop(&life.last);
		life.last = life.object;
		if (life.epoch == rounds)
			break;
		dawdle(below(&r, 30000));
		end_life(pid);
		if (below(&r, 2)) {
			mk_end_due(&l.tx->end);
			for (uint64_t n = below(&r, 150); n && send_number(l.tx, sent) == 0; n--)
				sent++;
			sent = l.tx->head / SIZE;
		}
	}
	while (!mk_load_acquire(&log->count) ||
	       log->entries[mk_load_acquire(&log->count) - 1].number + 1 != sent) /* it is alive, and takes all */
		dawdle(100000);
	end_life(pid);
	check_log(log, sent);
	drop(&life.last);
	lane_close(&l);
	munmap(log, sizeof(*log));
}

/* The one that N's protocol is about: a message that was published on the dead one's account, while the successor goes to
 * sleep. */
static void a_successor_that_sleeps_is_woken_for_what_came_before_the_switch(void)
{
	struct lane l = survivor_of(false);
	struct log *log = shared(sizeof(*log));
	struct life life = {.lane = &l, .last = {-1, -1}, .log = log};
	struct random r = random_from(3);
	uint64_t rounds = times(60);

	for (life.epoch = 1; life.epoch <= rounds; life.epoch++) {
		int pidfd;
		pid_t pid;

		life.object = object_of(MK_KIND_CONSUMER, MORTAL, life.epoch);
		life.policy = MK_WAIT_PARK;
		pid = begin_life(&life, take_on, &pidfd);
		if (life.epoch == 1)
			CHECK_EQ(mk_sender_attach(l.tx, life.object.reader, 1, dup(l.sockets[0]), pidfd, NULL), 0);
		dawdle(below(&r, 4) ? below(&r, 20000) : below(&r, 15000000)); /* in either of its two sleeps */
		CHECK_EQ(send_number(l.tx, life.epoch - 1), 0);
		if (life.epoch > 1)
			CHECK_EQ(mk_sender_resume(l.tx, life.object.reader, pidfd, NULL), 0);
		for (uint64_t count; !(count = mk_load_acquire(&log->count)) ||
				     log->entries[count - 1].number + 1 != life.epoch;) /* or the ceiling ends it */
			dawdle(1000);
		end_life(pid);
		drop(&life.last);
		life.last = life.object;
	}
	drop(&life.last);
	lane_close(&l);
	munmap(log, sizeof(*log));
}

static const struct test tests[] = {
	TEST(a_new_sender_begins_where_the_last_one_ended_and_brings_what_was_not_taken),
	TEST(a_new_receiver_begins_at_what_was_not_released_and_knows_what_was_seen),
	TEST(a_receiver_that_dies_twice_with_the_same_message_has_it_a_third_time),
	TEST(interrupts_are_neither_lost_nor_repeated),
	TEST(a_due_end_waits_until_it_is_rung_or_hung_up),
	TEST(an_event_loop_sees_what_a_successor_sends),
	TEST(a_successor_that_nobody_knows_yet_is_rung_all_the_same),
	TEST(a_successor_whose_head_cannot_be_ends_the_lane),
	TEST(a_successor_whose_tail_cannot_be_ends_the_lane),
	TEST(what_a_predecessor_left_is_checked_as_a_peer_is),
	TEST(only_a_later_incarnation_of_the_same_owner_is_a_successor),
	TEST(a_stream_goes_on_over_senders_that_are_killed),
	TEST(a_stream_goes_on_over_receivers_that_are_killed),
	TEST(a_successor_that_sleeps_is_woken_for_what_came_before_the_switch),
};

RUN_TESTS(tests)
