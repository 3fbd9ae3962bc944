/* Peers that lie. Their objects are made by hand here, as a peer would make its own: mapped writable, sealed, handed
 * over read-only. Whatever stands in them, this side quarantines the lane and says what it saw, or goes on; it reads
 * nothing outside, does not loop and does not hang. */
#include "harness.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <time.h>

#define CAPACITY 4096u

/* The peer's object, which it can write. */
struct forged {
	int fd; /* read-only, what is handed over */
	void *map;
	uint64_t size;
};

static struct forged forge(uint32_t kind, uint32_t element, uint64_t position)
{
	int fd = mk_lane_object(kind, "lane:forged", CAPACITY, element, 0, 0);
	struct forged f = {.size = mk_page_size() + (kind == MK_KIND_PRODUCER ? CAPACITY : 0)};

	CHECK(fd >= 0);
	CHECK_EQ(mk_object_map(fd, f.size, 1, &f.map), 0);
	CHECK_EQ(mk_object_seal(fd), 0);
	f.fd = mk_object_reopen(fd);
	close(fd);
	if (kind == MK_KIND_PRODUCER) {
		struct mk_producer *p = f.map;

		mk_store_relaxed(&p->head, position);
		mk_store_relaxed(&p->state, MK_END_OPEN);
	} else {
		struct mk_consumer *c = f.map;

		mk_store_relaxed(&c->tail, position);
		mk_store_relaxed(&c->state, MK_END_OPEN);
	}
	return f;
}

static void unforge(struct forged *f)
{
	mk_object_unmap(f->map, f->size);
	close(f->fd);
}

/* A receiver of ours whose indices begin at @position, attached to a forged sender. */
static struct mk_receiver *victim_receiver(const struct forged *f, uint32_t element, uint64_t position, int socket)
{
	int fd = mk_lane_object(MK_KIND_CONSUMER, "lane:test", CAPACITY, element, 0, 0);
	struct mk_receiver *rx;

	CHECK_EQ(pwrite(fd, &position, 8, offsetof(struct mk_consumer, tail)), 8);
	CHECK_EQ(mk_receiver_claim(&rx, fd, NULL, NULL), 0);
	CHECK_EQ(mk_receiver_attach(rx, f->fd, 1, socket, -1, NULL), 0);
	close(fd);
	return rx;
}

static struct mk_sender *victim_sender(const struct forged *f, uint32_t element, uint64_t position)
{
	int fd = mk_lane_object(MK_KIND_PRODUCER, "lane:test", CAPACITY, element, 0, 0);
	struct mk_sender *tx;

	CHECK_EQ(pwrite(fd, &position, 8, offsetof(struct mk_producer, head)), 8);
	CHECK_EQ(mk_sender_claim(&tx, fd, NULL, NULL), 0);
	CHECK_EQ(mk_sender_attach(tx, f->fd, 1, -1, -1, NULL), 0);
	close(fd);
	return tx;
}

static struct mk_record *forged_record(const struct forged *f, uint64_t position)
{
	return (struct mk_record *)(void *)((char *)f->map + mk_page_size() + position % CAPACITY);
}

/* --- a sender that lies --------------------------------------------------------------------------------------------- */

static void a_head_that_cannot_be_quarantines_the_lane_and_is_kept(void)
{
	const uint64_t base = 1ULL << 40;
	const uint64_t bad[] = {
		base - 8, /* backwards */
		base - CAPACITY,
		0,
		base + CAPACITY + 8, /* further than the ring is long */
		base + (1ULL << 63),
		UINT64_MAX & ~7ULL,
		base + 1,
		base + 12,
		base + 24 + 4, /* between records */
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct forged f = forge(MK_KIND_PRODUCER, 0, base);
		struct mk_receiver *rx = victim_receiver(&f, 0, base, -1);
		struct mk_producer *p = f.map;
		struct mk_message m = {0};

		CHECK_EQ(mk_peek(rx, &m), -EAGAIN);
		mk_store_relaxed(&p->head, bad[i]);
		CHECK(mk_end_ready(&rx->end));
		CHECK_EQ(mk_peek(rx, &m), -EBADMSG);
		CHECK_EQ(rx->end.bad, MK_BAD_HEAD);
		CHECK_EQ(rx->end.bad_value, bad[i]);
		mk_store_relaxed(&p->head, base + 24); /* to mend it is too late */
		CHECK_EQ(mk_peek(rx, &m), -EBADMSG);
		CHECK_EQ(rx->end.bad_value, bad[i]);
		CHECK_EQ(mk_wait(&rx->end, -1), 0);
		mk_receiver_close(rx);
		unforge(&f);
	}
}

static void a_head_shorter_than_a_header_quarantines_the_lane(void)
{
	struct forged f = forge(MK_KIND_PRODUCER, 0, 0);
	struct mk_receiver *rx = victim_receiver(&f, 0, 0, -1);
	struct mk_message m = {0};

	mk_store_relaxed(&((struct mk_producer *)f.map)->head, 8);
	CHECK_EQ(mk_peek(rx, &m), -EBADMSG);
	CHECK_EQ(rx->end.bad, MK_BAD_HEAD);
	CHECK_EQ(rx->end.bad_value, 8);
	mk_receiver_close(rx);
	unforge(&f);
}

static void a_head_that_goes_back_behind_what_was_seen_quarantines_the_lane(void)
{
	struct forged f = forge(MK_KIND_PRODUCER, 0, 0);
	struct mk_receiver *rx = victim_receiver(&f, 0, 0, -1);
	struct mk_producer *p = f.map;
	struct mk_message m = {0};

	mk_store_relaxed(&p->head, 48); /* two empty records and what is not there yet of a third */
	CHECK_EQ(mk_peek(rx, &m), 0);
	CHECK_EQ(mk_peek(rx, &m), 0);
	CHECK_EQ(mk_peek(rx, &m), 0);
	mk_store_relaxed(&p->head, 32); /* never before the tail, and yet backwards */
	CHECK_EQ(mk_peek(rx, &m), -EBADMSG);
	CHECK_EQ(rx->end.bad, MK_BAD_HEAD);
	CHECK_EQ(rx->end.bad_value, 32);
	mk_receiver_close(rx);
	unforge(&f);
}

static void a_length_beyond_what_was_published_quarantines_the_lane_and_is_kept(void)
{
	const uint32_t bad[] = {9, 16, CAPACITY - 16, CAPACITY, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (uint64_t base = 0; base < CAPACITY; base += CAPACITY - 24) {
			struct forged f = forge(MK_KIND_PRODUCER, 0, base);
			struct mk_receiver *rx = victim_receiver(&f, 0, base, -1);
			struct mk_message m = {0};

			forged_record(&f, base)->length = 8;
			forged_record(&f, base + 24)->length = bad[i];
			mk_store_release(&((struct mk_producer *)f.map)->head, base + 48);
			CHECK_EQ(mk_peek(rx, &m), 0);
			CHECK_EQ(m.length, 8);
			CHECK_EQ(mk_peek(rx, &m), -EBADMSG);
			CHECK_EQ(rx->end.bad, MK_BAD_LENGTH);
			CHECK_EQ(rx->end.bad_value, bad[i]);
			CHECK_EQ(mk_peek(rx, &m), -EBADMSG);
			mk_receiver_close(rx);
			unforge(&f);
		}
	}
}

static void a_head_that_is_no_whole_number_of_elements_quarantines_the_lane(void)
{
	struct forged f = forge(MK_KIND_PRODUCER, 12, 0);
	struct mk_receiver *rx = victim_receiver(&f, 12, 0, -1);
	const void *there = NULL;

	mk_store_relaxed(&((struct mk_producer *)f.map)->head, 30);
	CHECK_EQ(mk_peek_elements(rx, 10, &there), 2);
	CHECK_EQ(mk_peek_elements(rx, 10, &there), -EBADMSG);
	CHECK_EQ(rx->end.bad, MK_BAD_HEAD);
	CHECK_EQ(rx->end.bad_value, 30);
	mk_receiver_close(rx);
	unforge(&f);
}

static void ipi_counters_that_run_backwards_or_wild_end_in_numbers_not_in_a_loop(void)
{
	struct forged f = forge(MK_KIND_PRODUCER, 0, 0);
	struct mk_receiver *rx = victim_receiver(&f, 0, 0, -1);
	struct mk_producer *p = f.map;
	struct random r = random_from(3);

	for (uint64_t i = 0; i < times(10000); i++) {
		unsigned vector = 99;
		uint64_t count = 0;
		int taken = 0;

		mk_store_relaxed(&p->ipi[below(&r, MK_VECTORS)], draw(&r));
		mk_store_relaxed(&p->ipi_sequence, (uint32_t)draw(&r));
		while (mk_ipi_take(rx, &vector, &count)) {
			CHECK(vector < MK_VECTORS && count != 0);
			CHECK(++taken <= (int)MK_VECTORS);
		}
	}
	mk_receiver_close(rx);
	unforge(&f);
}

/* --- a receiver that lies --------------------------------------------------------------------------------------------- */

static void a_tail_that_cannot_be_quarantines_the_lane_and_is_kept(void)
{
	const uint64_t base = (1ULL << 32) - 64;
	const uint64_t bad[] = {
		base - 8, /* backwards */
		base + CAPACITY + 8,
		base + 2 * CAPACITY,
		base + (1ULL << 63),
		0, /* beyond what was sent */
		base + 1,
		base + 20, /* between records */
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct forged f = forge(MK_KIND_CONSUMER, 0, base);
		struct mk_sender *tx = victim_sender(&f, 0, base);
		struct mk_consumer *c = f.map;

		while (mk_send(tx, MK_MSG_USER, 0, 0, "12345678", 8) == 0)
			;
		CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 0, "12345678", 8), -EAGAIN);
		mk_store_relaxed(&c->tail, bad[i]);
		CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 0, "12345678", 8), -EBADMSG);
		CHECK_EQ(tx->end.bad, MK_BAD_TAIL);
		CHECK_EQ(tx->end.bad_value, bad[i]);
		mk_store_relaxed(&c->tail, base + 24);
		CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 0, "12345678", 8), -EBADMSG);
		CHECK_EQ(mk_ipi_raise(tx, 0), -EBADMSG);
		CHECK_EQ(mk_wait(&tx->end, -1), 0);
		mk_sender_close(tx);
		unforge(&f);
	}
}

/* --- a peer that never stops lying ------------------------------------------------------------------------------------ */

struct liar {
	struct forged f;
	uint64_t seed;
	const _Atomic uint64_t *other; /* the victim's index */
	_Atomic uint32_t stop;
};

/* Store words at random, mostly near to what would be right, into everything that the other side reads. */
static void *lie_as_sender(void *argument)
{
	struct liar *l = argument;
	struct mk_producer *p = l->f.map;
	struct random r = {l->seed};
	uint64_t head = 0;

	while (!mk_load_relaxed(&l->stop)) {
		uint64_t at = below(&r, CAPACITY / 8) * 8;
		_Atomic uint64_t *word = (_Atomic uint64_t *)(void *)((char *)l->f.map + mk_page_size() + at);
		bool wild = below(&r, UNDER_TSAN ? 300 : 2000) == 0;

		switch (below(&r, 8)) {
		case 0: /* plausible, so that it is believed for a while */
		case 1:
			head += below(&r, 64) * (UNDER_TSAN ? 16 : 8); /* there all records are empty */
			if (head - mk_load_relaxed(l->other) > CAPACITY)
				head = mk_load_relaxed(l->other) + CAPACITY;
			mk_store_release(&p->head, wild ? draw(&r) >> below(&r, 64) : head);
			break;
		case 2:
		case 3:
		case 4:
			if (!UNDER_TSAN) /* it would rightly call that a race */
				mk_store_relaxed(word, wild ? draw(&r) : below(&r, 40));
			break;
		case 5:
			mk_store_relaxed(&p->ipi[below(&r, MK_VECTORS)], below(&r, 3));
			mk_store_release(&p->ipi_sequence, (uint32_t)draw(&r));
			break;
		case 6:
			mk_store_relaxed(&p->parked, (uint32_t)draw(&r));
			mk_store_relaxed(&p->bell, (uint32_t)draw(&r));
			mk_store_relaxed(&p->cpu, (uint32_t)draw(&r));
			break;
		default:
			mk_store_relaxed(&p->state, below(&r, 4000) ? (uint32_t)draw(&r) | 4 : MK_END_CLOSED);
		}
	}
	return NULL;
}

static void a_sender_that_writes_at_random_harms_nobody(void)
{
	uint64_t received = 0, quarantined = 0, closed = 0;

	for (uint64_t round = 0; round < times(300); round++) {
		struct liar l = {.f = forge(MK_KIND_PRODUCER, 0, 0), .seed = test_seed * 1000 + round};
		struct mk_receiver *rx = victim_receiver(&l.f, 0, 0, -1);
		pthread_t thread;

		l.other = &rx->own->tail;
		CHECK_EQ(pthread_create(&thread, NULL, lie_as_sender, &l), 0);
		for (;;) {
			struct mk_message m = {0};
			int taken = 0;
			unsigned vector;
			uint64_t count;
			int result = mk_peek(rx, &m);

			while (taken++ < 100 && mk_ipi_take(rx, &vector, &count))
				;
			if (result == -EAGAIN) {
				result = mk_wait(&rx->end, 20000);
				CHECK(result == 0 || result == -ETIMEDOUT);
				continue;
			}
			if (result) {
				CHECK(result == -EBADMSG || result == -EPIPE);
				quarantined += result == -EBADMSG;
				closed += result == -EPIPE;
				break;
			}
			/* The copy that was checked: the payload lies inside of the mapping, all of it. */
			CHECK((const unsigned char *)m.payload >= rx->data);
			CHECK((const unsigned char *)m.payload + m.length <= rx->data + 2 * CAPACITY);
			if (m.length) {
				(void)mk_load_relaxed((const _Atomic unsigned char *)m.payload);
				(void)mk_load_relaxed((const _Atomic unsigned char *)m.payload + m.length - 1);
			}
			received++;
			mk_release(rx);
		}
		mk_store_relaxed(&l.stop, 1);
		pthread_join(thread, NULL);
		mk_receiver_close(rx);
		unforge(&l.f);
	}
	CHECK(received > 0 && quarantined > 0);
	printf("      %" PRIu64 " records taken, %" PRIu64 " lanes quarantined, %" PRIu64 " closed\n", received,
	       quarantined, closed);
}

static void *lie_as_receiver(void *argument)
{
	struct liar *l = argument;
	struct mk_consumer *c = l->f.map;
	struct random r = {l->seed};
	uint64_t tail = 0;

	while (!mk_load_relaxed(&l->stop)) {
		switch (below(&r, 4)) {
		case 0:
			if (tail != mk_load_relaxed(l->other))
				tail += 24;
			mk_store_release(&c->tail, tail);
			break;
		case 1:
			if (below(&r, 1000))
				break;
			mk_store_relaxed(&c->tail, draw(&r) >> below(&r, 64));
			return NULL; /* and there it stays, or nobody would see it */
		case 2:
			mk_store_relaxed(&c->parked, (uint32_t)draw(&r));
			mk_store_relaxed(&c->bell, (uint32_t)draw(&r));
			break;
		default:
			mk_store_relaxed(&c->cpu, (uint32_t)draw(&r));
		}
	}
	return NULL;
}

static void a_receiver_that_writes_at_random_harms_nobody(void)
{
	uint64_t sent = 0, quarantined = 0;

	for (uint64_t round = 0; round < times(300); round++) {
		struct liar l = {.f = forge(MK_KIND_CONSUMER, 0, 0), .seed = test_seed * 1000 + round};
		struct mk_sender *tx = victim_sender(&l.f, 0, 0);
		pthread_t thread;

		l.other = &tx->own->head;
		CHECK_EQ(pthread_create(&thread, NULL, lie_as_receiver, &l), 0);
		for (int i = 0; i < 2000; i++) {
			int result = mk_send(tx, MK_MSG_USER, 0, 0, "12345678", 8);

			if (result == -EAGAIN) {
				result = mk_wait(&tx->end, 20000);
				CHECK(result == 0 || result == -ETIMEDOUT);
				continue;
			}
			if (result) {
				CHECK_EQ(result, -EBADMSG);
				quarantined++;
				break;
			}
			sent++;
			CHECK(tx->head - tx->tail <= CAPACITY);
		}
		mk_store_relaxed(&l.stop, 1);
		pthread_join(thread, NULL);
		mk_sender_close(tx);
		unforge(&l.f);
	}
	CHECK(quarantined > 0);
	printf("      %" PRIu64 " records sent, %" PRIu64 " lanes quarantined\n", sent, quarantined);
}

/* Two lengths in turn, one of which reaches beyond the head: a length read twice would pass the check as the one and be
 * used as the other. */
static void *flip_length(void *argument)
{
	struct liar *l = argument;
	_Atomic uint32_t *length = (_Atomic uint32_t *)&forged_record(&l->f, 0)->length;

	while (!mk_load_relaxed(&l->stop)) {
		mk_store_relaxed(length, 8);
		mk_store_relaxed(length, 0xffffff00);
	}
	return NULL;
}

static void a_length_that_changes_while_it_is_read_is_used_as_it_was_checked(void)
{
	struct liar l = {.f = forge(MK_KIND_PRODUCER, 0, 0)};
	struct mk_receiver *rx = victim_receiver(&l.f, 0, 0, -1);
	uint64_t good = 0, bad = 0;
	pthread_t thread;

	if (UNDER_TSAN)
		skip("the flipping is a race by design, and TSan would say so");
	forged_record(&l.f, 0)->length = 8;
	mk_store_relaxed(&((struct mk_producer *)l.f.map)->head, 24);
	CHECK_EQ(pthread_create(&thread, NULL, flip_length, &l), 0);
	for (uint64_t i = 0; i < times(3000000) || !good || !bad; i++) { /* on one cpu they take turns */
		struct mk_message m = {0};
		int result = mk_peek(rx, &m);

		if (result == 0) {
			CHECK_EQ(m.length, 8);
			good++;
			mk_unpeek(rx);
		} else {
			CHECK_EQ(result, -EBADMSG);
			CHECK_EQ(rx->end.bad_value, 0xffffff00);
			bad++;
			rx->end.bad = 0; /* let it out again, to go on */
			rx->end.stop = 0;
		}
	}
	mk_store_relaxed(&l.stop, 1);
	pthread_join(thread, NULL);
	CHECK(good > 0 && bad > 0);
	mk_receiver_close(rx);
	unforge(&l.f);
}

/* --- the bell -------------------------------------------------------------------------------------------------------- */

static void each_park_is_rung_once_and_who_only_may_park_not_at_all(void)
{
	struct forged f = forge(MK_KIND_CONSUMER, 0, 0);
	struct mk_consumer *c = f.map;
	struct mk_sender *tx = victim_sender(&f, 0, 0);
	const struct mk_counters *counters = tx->end.counters;
	const uint32_t words[] = {
		MK_AWAKE,          1 << 2 | MK_MAY_PARK,     2 << 2 | MK_PARKED_FUTEX, 2 << 2 | MK_PARKED_FUTEX,
		3 << 2 | MK_AWAKE, 4 << 2 | MK_PARKED_FUTEX, 5 << 2 | MK_PARKED_FUTEX, 6 << 2 | MK_PARKED_SOCKET,
		7 << 2 | MK_AWAKE};
	const uint32_t wakes[] = {0, 0, 1, 1, 1, 2, 3, 4, 4};
	uint32_t bell = mk_load_relaxed(&tx->own->bell), rung = 0;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		mk_store_relaxed(&c->parked, words[i]);
		CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, i, NULL, 0), 0);
		/* Whoever is about to sleep on it sees it change; by nothing else. */
		CHECK_EQ(mk_load_relaxed(&tx->own->bell) != bell, wakes[i] != rung);
		CHECK_EQ(mk_load_relaxed(&counters->wakes), wakes[i]);
		bell = mk_load_relaxed(&tx->own->bell);
		rung = wakes[i];
	}
	mk_sender_close(tx);
	unforge(&f);
}

/* --- storms --------------------------------------------------------------------------------------------------------- */

static void *wake_for_nothing(void *argument)
{
	struct liar *l = argument;

	while (!mk_load_relaxed(&l->stop))
		syscall(SYS_futex, &((struct mk_producer *)l->f.map)->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	return NULL;
}

static void wake_ups_without_cause_bring_no_message_and_are_counted(void)
{
	struct liar l = {.f = forge(MK_KIND_PRODUCER, 0, 0)};
	struct mk_receiver *rx = victim_receiver(&l.f, 0, 0, -1);
	pthread_t thread;

	rx->end.policy = MK_WAIT_PARK;
	CHECK_EQ(pthread_create(&thread, NULL, wake_for_nothing, &l), 0);
	while (mk_load_relaxed(&rx->end.counters->spurious) < 100)
		CHECK_EQ(mk_wait(&rx->end, 1900000), -ETIMEDOUT);
	mk_store_relaxed(&l.stop, 1);
	pthread_join(thread, NULL);
	mk_receiver_close(rx);
	unforge(&l.f);
}

static void *flood(void *argument)
{
	int socket = *(int *)argument;
	char bytes[4096] = {0};

	while (send(socket, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
		;
	return NULL;
}

static void a_flood_on_the_socket_is_not_read_for_ever(void)
{
	struct forged f = forge(MK_KIND_PRODUCER, 0, 0);
	int sockets[2];
	struct mk_receiver *rx;
	pthread_t thread;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	rx = victim_receiver(&f, 0, 0, sockets[1]);
	CHECK_EQ(pthread_create(&thread, NULL, flood, &sockets[0]), 0);
	for (uint64_t i = 0; i < times(3000); i++)
		CHECK(!mk_end_gone(&rx->end, true)); /* empties it, and returns */
	for (int i = 0; i < 10; i++)
		CHECK_EQ(mk_wait(&rx->end, 15000000), -ETIMEDOUT); /* to where it sleeps on the socket */
	CHECK(mk_load_relaxed(&rx->end.counters->spurious) > 0);
	shutdown(sockets[0], SHUT_RDWR);
	pthread_join(thread, NULL);
	CHECK_EQ(mk_wait(&rx->end, -1), 0);
	CHECK(rx->end.gone);
	close(sockets[0]);
	mk_receiver_close(rx);
	unforge(&f);
}

static void a_look_empties_so_much_of_the_socket_and_no_more(void)
{
	struct forged f = forge(MK_KIND_PRODUCER, 0, 0);
	char bytes[32768] = {0};
	struct mk_receiver *rx;
	int sockets[2], before, after, looks = 0;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	rx = victim_receiver(&f, 0, 0, sockets[1]);
	CHECK_EQ(write(sockets[0], bytes, sizeof(bytes)), sizeof(bytes));
	do { /* each look takes a part */
		CHECK_EQ(ioctl(sockets[1], FIONREAD, &before), 0);
		CHECK(!mk_end_gone(&rx->end, true));
		CHECK_EQ(ioctl(sockets[1], FIONREAD, &after), 0);
		CHECK(after < before);
		looks++;
	} while (after);
	CHECK(looks > 1);
	close(sockets[0]);
	mk_receiver_close(rx);
	unforge(&f);
}

static void descriptors_sent_over_a_links_socket_are_not_taken(void)
{
	struct forged f = forge(MK_KIND_PRODUCER, 0, 0);
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char byte = 0;
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.room)};
	int sockets[2], before, self = 0;
	struct mk_receiver *rx;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	rx = victim_receiver(&f, 0, 0, sockets[1]);
	control.header = (struct cmsghdr){
		.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(&control.header), &self, sizeof(self));
	before = open_descriptors();
	for (int i = 0; i < 10; i++)
		CHECK_EQ(sendmsg(sockets[0], &message, 0), 1);
	for (int i = 0; i < 20; i++)
		CHECK(!mk_end_gone(&rx->end, true));
	CHECK_EQ(open_descriptors(), before);
	CHECK_EQ(rx->end.pidfd, -1);
	close(sockets[0]);
	mk_receiver_close(rx);
	unforge(&f);
}

static void of_the_descriptors_sent_over_a_rings_socket_one_is_kept(void)
{
	struct ring ring = ring_new(CAPACITY, 0);
	struct mk_receiver *rx = ring_receiver(&ring);
	int before = open_descriptors();
	struct mk_sender *tx = ring_sender(&ring); /* sends the pidfd */
	int claimed = open_descriptors();

	CHECK_EQ(claimed,
		 before); /* the sender has taken over its socket, and nothing is in flight any more after this: */
	CHECK(!mk_end_gone(&rx->end, true));
	CHECK_EQ(open_descriptors(), before + 1);
	CHECK(rx->end.pidfd >= 0);
	CHECK_EQ(fcntl(rx->end.pidfd, F_GETFD), FD_CLOEXEC);
	CHECK(!mk_end_gone(&rx->end, true));
	CHECK_EQ(open_descriptors(), before + 1);
	mk_sender_close(tx);
	mk_receiver_close(rx);
	ring_drop(&ring);
}

static const struct test tests[] = {
	TEST(a_head_that_cannot_be_quarantines_the_lane_and_is_kept),
	TEST(a_head_shorter_than_a_header_quarantines_the_lane),
	TEST(a_head_that_goes_back_behind_what_was_seen_quarantines_the_lane),
	TEST(a_length_beyond_what_was_published_quarantines_the_lane_and_is_kept),
	TEST(a_head_that_is_no_whole_number_of_elements_quarantines_the_lane),
	TEST(ipi_counters_that_run_backwards_or_wild_end_in_numbers_not_in_a_loop),
	TEST(a_tail_that_cannot_be_quarantines_the_lane_and_is_kept),
	TEST(a_sender_that_writes_at_random_harms_nobody),
	TEST(a_receiver_that_writes_at_random_harms_nobody),
	TEST(a_length_that_changes_while_it_is_read_is_used_as_it_was_checked),
	TEST(each_park_is_rung_once_and_who_only_may_park_not_at_all),
	TEST(wake_ups_without_cause_bring_no_message_and_are_counted),
	TEST(a_flood_on_the_socket_is_not_read_for_ever),
	TEST(a_look_empties_so_much_of_the_socket_and_no_more),
	TEST(descriptors_sent_over_a_links_socket_are_not_taken),
	TEST(of_the_descriptors_sent_over_a_rings_socket_one_is_kept),
};

RUN_TESTS(tests)
