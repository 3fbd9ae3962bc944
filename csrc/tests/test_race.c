/* Both ends in one process, in two threads, over one mapping: here ThreadSanitizer sees the accesses to the ring itself,
 * which it cannot between processes. Its twin publishes with a relaxed store, and TSan must say so: a test that cannot
 * fail shows nothing. Under another sanitizer, or none, the first is a stress test and the twin is skipped. */
#include "harness.h"

#include <pthread.h>

#define CAPACITY 8192u
#define LONGEST 3000u

struct lane {
	struct mk_sender tx;
	struct mk_receiver rx;
	uint64_t messages;
	uint64_t ipis; /* taken */
	bool relaxed;
	void *producer, *consumer;
	uint64_t producer_size, consumer_size;
};

static void begin(struct mk_end *end, const struct mk_object *shape)
{
	end->shape = *shape;
	end->mask = shape->capacity - 1;
	end->counters = end->wait_counters = &end->own_counters;
	end->socket = end->pidfd = end->event = end->event_self = -1;
	end->spin = mk_spin_new();
}

/* What claim and attach do, but both ends get the very same mapping. */
static void lane_make(struct lane *l, uint32_t element)
{
	int producer = mk_lane_object(MK_KIND_PRODUCER, "lane:test", CAPACITY, element, 0, 0);
	int consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:test", CAPACITY, element, 0, 0);
	struct mk_object shape, consumer_shape;
	struct mk_producer *p;
	struct mk_consumer *c;

	CHECK_EQ(mk_object_check(producer, MK_KIND_PRODUCER, 0, &shape, NULL), 0);
	CHECK_EQ(mk_object_check(consumer, MK_KIND_CONSUMER, 0, &consumer_shape, NULL), 0);
	CHECK_EQ(mk_object_map_twice(producer, &shape, 1, &l->producer), 0);
	CHECK_EQ(mk_object_map(consumer, consumer_shape.size, 1, &l->consumer), 0);
	l->producer_size = shape.data_offset + 2 * shape.capacity;
	l->consumer_size = consumer_shape.size;
	close(producer);
	close(consumer);
	p = l->producer;
	c = l->consumer;
	begin(&l->tx.end, &shape);
	begin(&l->rx.end, &consumer_shape);
	l->tx.own = p;
	l->tx.peer = c;
	l->tx.data = (unsigned char *)l->producer + shape.data_offset;
	l->rx.own = c;
	l->rx.peer = p;
	l->rx.data = l->tx.data;
	l->tx.end.sending = true;
	l->tx.end.own_map = l->rx.end.peer_map = p;
	l->rx.end.own_map = l->tx.end.peer_map = c;
	l->tx.end.parked = &p->parked, l->rx.end.peer_parked = &p->parked;
	l->tx.end.bell = &p->bell, l->rx.end.peer_bell = &p->bell;
	l->tx.end.state = &p->state, l->rx.end.peer_state = &p->state;
	l->tx.end.cpu = &p->cpu, l->rx.end.peer_cpu = &p->cpu;
	l->rx.end.parked = &c->parked, l->tx.end.peer_parked = &c->parked;
	l->rx.end.bell = &c->bell, l->tx.end.peer_bell = &c->bell;
	l->rx.end.state = &c->state, l->tx.end.peer_state = &c->state;
	l->rx.end.cpu = &c->cpu, l->tx.end.peer_cpu = &c->cpu;
	mk_store_release(&p->state, MK_END_OPEN);
	mk_store_release(&c->state, MK_END_OPEN);
}

static void lane_unmake(struct lane *l)
{
	mk_object_unmap(l->producer, l->producer_size);
	mk_object_unmap(l->consumer, l->consumer_size);
	free(l);
}

static struct lane *lane_new(uint32_t element, uint64_t messages)
{
	struct lane *l = calloc(1, sizeof(*l));

	CHECK(l);
	lane_make(l, element);
	l->messages = messages;
	return l;
}

static uint64_t length_of(uint64_t number)
{
	return number * 2654435761u % (number % 50 ? 200 : LONGEST);
}

static void *send_all(void *argument)
{
	struct lane *l = argument;
	struct random r = random_from(1);

	for (uint64_t i = 0; i < l->messages; i++) {
		void *slot = NULL;
		int result;

		while ((result = mk_reserve(&l->tx, length_of(i), &slot)) == -EAGAIN) {
			if (!l->relaxed)
				mk_publish(&l->tx);
			CHECK_EQ(wait_on(&l->tx.end), 0);
		}
		CHECK_EQ(result, 0);
		fill_bytes(slot, i, length_of(i));
		CHECK_EQ(mk_finish(&l->tx, length_of(i), MK_MSG_USER, 0, i), 0);
		if (l->relaxed)
			mk_store_relaxed(&l->tx.own->head, l->tx.head); /* R1 as it must not be */
		else if (below(&r, 4))
			CHECK_EQ(mk_publish(&l->tx), 0);
		if (!l->relaxed && !below(&r, 64)) /* an IPI would publish too */
			CHECK_EQ(mk_ipi_raise(&l->tx, (unsigned)below(&r, 4)), 0);
		if (!below(&r, 500))
			dawdle(below(&r, 30000));
	}
	mk_publish(&l->tx);
	return NULL;
}

static void receive_all(struct lane *l)
{
	struct random r = random_from(2);
	uint64_t ipis = 0;

	for (uint64_t i = 0; i < l->messages; i++) {
		struct mk_message m = {0};
		unsigned vector;
		uint64_t count;
		int result;

		while (mk_ipi_take(&l->rx, &vector, &count))
			ipis += count;
		while ((result = mk_peek(&l->rx, &m)) == -EAGAIN) {
			mk_release(&l->rx);
			CHECK_EQ(wait_on(&l->rx.end), 0);
			while (mk_ipi_take(&l->rx, &vector, &count))
				ipis += count;
		}
		CHECK_EQ(result, 0);
		CHECK_EQ(m.id, i);
		CHECK_EQ(m.length, length_of(i));
		CHECK(bytes_are(m.payload, i, m.length));
		if (below(&r, 3))
			mk_release(&l->rx);
		if (!below(&r, 500))
			dawdle(below(&r, 30000));
	}
	mk_release(&l->rx);
	l->ipis += ipis;
}

static void run_threads(struct lane *l)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, send_all, l), 0);
	receive_all(l);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void two_threads_pass_records_and_ipis_without_a_data_race(void)
{
	for (int policy = MK_WAIT_ADAPTIVE; policy <= MK_WAIT_PARK; policy++) {
		struct lane *l = lane_new(0, times(60000));
		uint64_t count;

		l->tx.end.policy = l->rx.end.policy = (uint8_t)policy;
		run_threads(l);
		for (unsigned vector; mk_ipi_take(&l->rx, &vector, &count);)
			l->ipis += count;
		CHECK_EQ(l->ipis, mk_load_relaxed(&l->tx.end.counters->ipis_sent));
		lane_unmake(l);
	}
}

/* --- elements --------------------------------------------------------------------------------------------------------- */

static void *send_elements(void *argument)
{
	struct lane *l = argument;
	uint64_t sent = 0;

	while (sent < l->messages) {
		uint64_t numbers[64];
		int64_t result;

		for (uint64_t i = 0; i < 64; i++)
			numbers[i] = sent + i;
		result = mk_send_elements(&l->tx, numbers, l->messages - sent < 64 ? l->messages - sent : 64);
		if (result == -EAGAIN) {
			CHECK_EQ(wait_on(&l->tx.end), 0);
			continue;
		}
		CHECK(result > 0);
		sent += (uint64_t)result;
	}
	return NULL;
}

static void two_threads_pass_elements_without_a_data_race(void)
{
	struct lane *l = lane_new(8, times(1000000));
	uint64_t received = 0;
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, send_elements, l), 0);
	while (received < l->messages) {
		const void *there = NULL;
		int64_t result = mk_peek_elements(&l->rx, 100, &there);

		if (result == -EAGAIN) {
			CHECK_EQ(wait_on(&l->rx.end), 0);
			continue;
		}
		CHECK(result > 0);
		for (int64_t i = 0; i < result; i++)
			CHECK_EQ(((const uint64_t *)there)[i], received++);
		mk_release(&l->rx);
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	lane_unmake(l);
}

static void *send_one_by_one(void *argument)
{
	struct lane *l = argument;

	for (uint64_t number = 0; number < l->messages; number++)
		while (mk_send_element(&l->tx, &number, sizeof(number)) == -EAGAIN)
			CHECK_EQ(wait_on(&l->tx.end), 0);
	return NULL;
}

static void two_threads_pass_single_elements_without_a_data_race(void)
{
	struct lane *l = lane_new(8, times(1000000));
	pthread_t thread;
	uint64_t got = 0;

	CHECK_EQ(pthread_create(&thread, NULL, send_one_by_one, l), 0);
	for (uint64_t number = 0; number < l->messages; number++) {
		int result;

		while ((result = mk_recv_element(&l->rx, &got, sizeof(got))) == -EAGAIN)
			mk_pause();
		CHECK_EQ(result, 0);
		CHECK_EQ(got, number);
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	lane_unmake(l);
}

/* --- the twin ------------------------------------------------------------------------------------------------------- */

/* Run this program again for one test, its report in a pipe. @return whether TSan reported a data race */
static bool tsan_reports(const char *test)
{
	char output[65536];
	size_t length = 0;
	ssize_t got;
	int pipes[2];
	pid_t pid;

	CHECK_EQ(pipe(pipes), 0);
	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		dup2(pipes[1], 2);
		dup2(pipes[1], 1);
		close(pipes[0]);
		close(pipes[1]);
		setenv("MK_RACE_TWIN", "1", 1);
		execl("/proc/self/exe", "test_race", test, (char *)NULL);
		_exit(1);
	}
	close(pipes[1]);
	while ((got = read(pipes[0], output + length, sizeof(output) - 1 - length)) > 0)
		length += (size_t)got;
	output[length] = 0;
	close(pipes[0]);
	reap(pid);
	return strstr(output, "ThreadSanitizer: data race") != NULL;
}

static void relaxed_twin(void)
{
	if (!getenv("MK_RACE_TWIN"))
		skip("runs only from within the next test");
	struct lane *l = lane_new(0, times(60000));

	l->relaxed = true;
	l->tx.end.policy = l->rx.end.policy = MK_WAIT_SPIN; /* nothing else orders the two */
	run_threads(l);
	lane_unmake(l);
}

static void tsan_reports_a_publish_that_is_only_relaxed(void)
{
	if (!UNDER_TSAN)
		skip("only TSan can tell");
	CHECK(tsan_reports("relaxed_twin"));
}

static const struct test tests[] = {
	TEST(two_threads_pass_records_and_ipis_without_a_data_race),
	TEST(two_threads_pass_elements_without_a_data_race),
	TEST(two_threads_pass_single_elements_without_a_data_race),
	TEST(relaxed_twin),
	TEST(tsan_reports_a_publish_that_is_only_relaxed),
};

RUN_TESTS(tests)
