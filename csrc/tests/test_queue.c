/* A queue of one program: what it promises to one process, to many, and when some of them are killed. */
#include "harness.h"

#include <sys/stat.h>

#include "multikernel/queue.h"

static struct mk_queue *open_queue(int fd)
{
	struct mk_queue *q = NULL;

	CHECK_EQ(mk_queue_open(&q, fd), 0);
	return q;
}

static struct mk_queue *new_queue(uint64_t places, int *fd)
{
	*fd = mk_queue_create(places);
	CHECK(*fd >= 0);
	return open_queue(*fd);
}

static void drop_queue(struct mk_queue *q, int fd)
{
	mk_queue_close(q);
	close(fd);
}

/* The shared words, for a look at them or to do harm. */
static struct mk_queue_words *words_of(int fd)
{
	void *at = mmap(NULL, sizeof(struct mk_queue_words), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static int put_number(struct mk_queue *q, uint64_t number)
{
	return mk_queue_put_one(q, &number, sizeof(number));
}

static void put_waiting(struct mk_queue *q, uint64_t number)
{
	int result;

	while ((result = put_number(q, number)) == -EAGAIN)
		while (mk_queue_wait_room(q, mk_queue_tail(q), -1, false) == -EINTR)
			;
	CHECK_EQ(result, 0);
}

static int64_t take_number(struct mk_queue *q, uint64_t *number)
{
	struct mk_queue_taken taken;
	unsigned char bytes[16]; /* aligned to nothing */
	int64_t result = mk_queue_take(q, bytes, sizeof(bytes), &taken, 0);

	if (result == sizeof(*number))
		memcpy(number, bytes, sizeof(*number));
	return result;
}

static uint64_t take_waiting(struct mk_queue *q)
{
	uint64_t number = 0;
	int64_t result;

	while ((result = take_number(q, &number)) == -EAGAIN)
		while (mk_queue_wait_items(q, -1, false) == -EINTR)
			;
	CHECK_EQ(result, sizeof(number));
	return number;
}

/* --- one process ------------------------------------------------------------------------------------------------- */

static void records_of_one_process_come_out_whole_and_in_order(void)
{
	static unsigned char bytes[MK_QUEUE_LONGEST], found[MK_QUEUE_LONGEST];
	struct random r = random_from(1);
	uint64_t put = 0, taken_count = 0;
	int fd;
	struct mk_queue *q = new_queue(0, &fd);

	for (uint64_t i = 0; i < times(20000); i++) {
		uint64_t length = 1 + (put * 2654435761u) % (put % 50 ? 300 : MK_QUEUE_LONGEST);
		struct mk_queue_taken taken;
		int64_t got;

		if (below(&r, 2)) {
			uint64_t cut = below(&r, length);
			const void *pieces[] = {bytes, bytes + cut};
			uint64_t lengths[] = {cut, length - cut};
			int result;

			fill_bytes(bytes, put, length);
			result = mk_queue_put(q, MK_QUEUE_INSIDE, pieces, lengths, 2);
			CHECK(result == 0 || result == -EAGAIN);
			put += result == 0;
		} else {
			got = mk_queue_take(q, found, sizeof(found), &taken, 0);
			if (put == taken_count) {
				CHECK_EQ(got, -EAGAIN);
				continue;
			}
			CHECK_EQ(got, 1 + (taken_count * 2654435761u) % (taken_count % 50 ? 300 : MK_QUEUE_LONGEST));
			CHECK(bytes_are(found, taken_count, (uint64_t)got));
			taken_count++;
		}
		CHECK_EQ(mk_queue_count(q), put - taken_count);
		CHECK_EQ(mk_queue_ready(q), put != taken_count);
	}
	drop_queue(q, fd);
}

static void what_is_too_long_for_the_reader_stays(void)
{
	struct mk_queue_taken taken;
	char bytes[100] = {0};
	int fd;
	struct mk_queue *q = new_queue(0, &fd);

	CHECK_EQ(mk_queue_put_one(q, bytes, 100), 0);
	CHECK_EQ(mk_queue_take(q, bytes, 99, &taken, 0), 0);
	CHECK_EQ(taken.length, 100);
	CHECK_EQ(taken.large.length, 0);
	CHECK_EQ(mk_queue_count(q), 1);
	CHECK_EQ(mk_queue_take(q, bytes, 100, &taken, 0), 100);
	CHECK_EQ(mk_queue_put_one(q, bytes, 0), -EINVAL);
	CHECK_EQ(mk_queue_put_one(q, bytes, MK_QUEUE_LONGEST + 1), -EMSGSIZE);
	drop_queue(q, fd);
}

static void a_lane_is_full_by_records_and_by_bytes(void)
{
	static char bytes[MK_QUEUE_LONGEST];
	uint64_t number;
	int fd;
	struct mk_queue *q = new_queue(0, &fd);

	for (uint64_t i = 0; i < MK_QUEUE_ENTRIES; i++)
		CHECK_EQ(put_number(q, i), 0);
	CHECK_EQ(put_number(q, 0), -EAGAIN);
	CHECK_EQ(mk_queue_wait_room(q, mk_queue_tail(q), (int64_t)mk_now() + 1000000, true), -ETIMEDOUT);
	CHECK_EQ(take_number(q, &number), 8);
	CHECK_EQ(mk_queue_wait_room(q, mk_queue_tail(q), -1, true), 0);
	CHECK_EQ(put_number(q, 0), 0);
	while (take_number(q, &number) == 8)
		;
	for (uint64_t i = 0; i < MK_QUEUE_DATA / MK_QUEUE_LONGEST; i++)
		CHECK_EQ(mk_queue_put_one(q, bytes, MK_QUEUE_LONGEST), 0);
	CHECK_EQ(put_number(q, 0), -EAGAIN);
	drop_queue(q, fd);
}

static void put_large(struct mk_queue *q, int fd, uint64_t number, uint64_t length)
{
	unsigned char *bytes = malloc(length);
	struct mk_queue_large large;
	const void *piece = &large;
	uint64_t size = sizeof(large);

	fill_bytes(bytes, number, length);
	CHECK_EQ(mk_queue_outside(q, length, &large), 0);
	CHECK_EQ(pwrite(fd, bytes, length, (off_t)large.offset), (ssize_t)length);
	CHECK_EQ(mk_queue_put(q, MK_QUEUE_LARGE, &piece, &size, 1), 0);
	free(bytes);
}

static void large_records_lie_outside_and_their_memory_goes(void)
{
	struct mk_queue_taken taken;
	struct stat before, after;
	char small[16];
	void *view;
	int fd;
	struct mk_queue *q = new_queue(0, &fd);

	CHECK_EQ(put_number(q, 1), 0);
	CHECK_EQ(fstat(fd, &before), 0);
	put_large(q, fd, 2, 1000000);
	put_large(q, fd, 3, 100000);
	CHECK_EQ(mk_queue_take(q, small, sizeof(small), &taken, 0), 8);
	for (uint64_t number = 2; number <= 3; number++) {
		uint64_t length = number == 2 ? 1000000 : 100000;
		unsigned char *bytes = malloc(length);

		CHECK_EQ(mk_queue_take(q, small, sizeof(small), &taken, 0), 0);
		CHECK_EQ(taken.large.length, length);
		CHECK_EQ(mk_queue_map(q, &taken.large, &view), 0);
		CHECK(bytes_are(view, number, length));
		mk_object_unmap(view, length);
		CHECK_EQ(mk_queue_fetch(q, &taken.large, bytes), 0);
		CHECK(bytes_are(bytes, number, length));
		CHECK_EQ(mk_queue_forget(q, &taken.large), 0);
		free(bytes);
	}
	CHECK_EQ(fstat(fd, &after), 0);
	CHECK_EQ(after.st_blocks, before.st_blocks);
	drop_queue(q, fd);
}

static void places_are_given_out_once(void)
{
	uint64_t number;
	int fd;
	struct mk_queue *q = new_queue(3, &fd), *other = open_queue(fd);

	CHECK_EQ(mk_queue_admit(q, 0, 0), 0);
	CHECK_EQ(put_number(q, 0), 0);
	CHECK_EQ(mk_queue_admit(other, 0, 0), 0);
	CHECK_EQ(mk_queue_admit(other, 1, 0), 0);
	CHECK_EQ(mk_queue_count(q), 3);
	CHECK_EQ(mk_queue_admit(q, 0, 0), -EAGAIN);
	CHECK_EQ(mk_queue_admit(other, 1, 0), 0); /* that its second place was not used is known from the 1 */
	CHECK_EQ(put_number(other, 1), 0);
	CHECK_EQ(put_number(other, 2), 0);
	CHECK_EQ(mk_queue_admit(q, 0, 0), -EAGAIN);
	CHECK_EQ(mk_queue_wait_place(q, (int64_t)mk_now() + 1000000, true), -ETIMEDOUT);
	CHECK_EQ(take_number(q, &number), 8);
	CHECK_EQ(mk_queue_wait_place(q, -1, true), 0);
	CHECK_EQ(mk_queue_admit(q, 0, 0), 0);
	mk_queue_close(other);
	drop_queue(q, fd);
}

static void what_is_no_queue_is_refused(void)
{
	struct mk_queue *q;
	int ring = mk_lane_object(MK_KIND_PRODUCER, "ring", 4096, 0, 0, 0);
	int null = open("/dev/null", O_RDWR);

	CHECK_EQ(mk_queue_open(&q, ring), -EPROTO);
	CHECK_EQ(mk_queue_open(&q, null), -EPROTO);
	close(ring);
	close(null);
}

static void words_that_cannot_be_are_found_and_the_other_lanes_go_on(void)
{
	uint64_t number;
	int fd;
	struct mk_queue *q = new_queue(0, &fd), *other = open_queue(fd), *third = open_queue(fd);
	struct mk_queue_words *words = words_of(fd);

	CHECK_EQ(put_number(q, 1), 0);
	CHECK_EQ(put_number(other, 2), 0);
	mk_store_relaxed(&words->lane[0].tail, 1ull << 40);
	CHECK_EQ(take_number(third, &number), -EBADMSG);
	CHECK_EQ(take_number(third, &number), 8);
	CHECK_EQ(number, 2);
	CHECK_EQ(take_number(third, &number), -EAGAIN);
	for (uint64_t i = 1; i < MK_QUEUE_ENTRIES; i++)
		CHECK_EQ(put_number(q, i), 0);
	CHECK_EQ(put_number(q, 0), -EBADMSG); /* its producer looks at the tail when it needs room */
	munmap(words, sizeof(*words));
	mk_queue_close(third);
	mk_queue_close(other);
	drop_queue(q, fd);
}

/* --- many processes ------------------------------------------------------------------------------------------------ */

struct work {
	struct mk_queue *q;
	uint64_t producer, count;
	_Atomic uint64_t *begun;    /* shared: of each producer, how many puts it has begun */
	_Atomic uint64_t *returned; /* and how many it has ended */
	_Atomic unsigned char *got; /* shared: how often each number was got */
	_Atomic uint64_t *total;    /* of these */
};

#define NUMBERS 100000u /* of one producer */

static void produce(void *argument)
{
	struct work *w = argument;

	for (uint64_t i = 0; i < w->count; i++) {
		mk_store_release(&w->begun[w->producer], i + 1);
		put_waiting(w->q, w->producer * NUMBERS + i);
		mk_store_release(&w->returned[w->producer], i + 1);
	}
	mk_queue_leave(w->q);
}

static void consume(void *argument)
{
	struct work *w = argument;
	uint64_t last[64] = {0};

	for (;;) {
		uint64_t number = take_waiting(w->q);
		uint64_t producer = number / NUMBERS;

		CHECK(producer < 64);
		CHECK(number % NUMBERS + 1 > last[producer]); /* in order, as far as they came here */
		last[producer] = number % NUMBERS + 1;
		atomic_fetch_add(&w->got[number], 1);
		atomic_fetch_add(w->total, 1);
	}
}

static void every_record_goes_to_one_consumer(void)
{
	struct work w = {.count = times(20000)};
	pid_t producers[3], consumers[3];
	int fd;

	w.q = new_queue(0, &fd);
	w.begun = shared(64 * sizeof(*w.begun));
	w.returned = shared(64 * sizeof(*w.returned));
	w.got = shared(3 * NUMBERS);
	w.total = shared(sizeof(*w.total));
	CHECK(w.count <= NUMBERS);
	for (uint64_t i = 0; i < 3; i++) {
		consumers[i] = spawn(consume, &w);
		w.producer = i;
		producers[i] = spawn(produce, &w);
	}
	for (int i = 0; i < 3; i++)
		reap_done(producers[i]);
	while (mk_load_acquire(w.total) < 3 * w.count)
		usleep(1000);
	for (int i = 0; i < 3; i++) {
		kill(consumers[i], SIGKILL);
		reap(consumers[i]);
	}
	for (uint64_t i = 0; i < 3 * NUMBERS; i++)
		CHECK_EQ(w.got[i], i % NUMBERS < w.count);
	drop_queue(w.q, fd);
}

/* Producers and consumers are killed at any moment and others take their places: what was put comes out once; what a
 * dead producer was about to put, once or not at all; each dead consumer takes one with it at most. */
static void killed_ones_lose_what_they_held_and_nothing_else(void)
{
	struct work w = {.count = NUMBERS};
	struct random r = random_from(2);
	uint64_t kills = times(60), killed_consumers = 0, missing = 0, next = 2;
	pid_t producers[2], consumers[2];
	int fd;

	w.q = new_queue(0, &fd);
	w.begun = shared(64 * sizeof(*w.begun));
	w.returned = shared(64 * sizeof(*w.returned));
	w.got = shared(64 * NUMBERS);
	w.total = shared(sizeof(*w.total));
	for (uint64_t i = 0; i < 2; i++) {
		w.producer = i;
		producers[i] = spawn(produce, &w);
		consumers[i] = spawn(consume, &w);
	}
	for (uint64_t i = 0; i < kills && next < 64; i++) {
		uint64_t which = below(&r, 2);
		uint64_t seen = mk_load_acquire(w.total);

		dawdle(below(&r, 2000000));
		if (below(&r, 2)) {
			kill(producers[which], SIGKILL);
			reap(producers[which]);
			w.producer = next++;
			producers[which] = spawn(produce, &w);
		} else {
			kill(consumers[which], SIGKILL);
			reap(consumers[which]);
			killed_consumers++;
			consumers[which] = spawn(consume, &w);
		}
		while (mk_load_acquire(w.total) == seen) /* nobody is blocked by it */
			usleep(1000);
	}
	for (int i = 0; i < 2; i++) {
		kill(producers[i], SIGKILL);
		reap(producers[i]);
	}
	while (mk_queue_count(w.q))
		usleep(1000);
	for (int i = 0; i < 2; i++) { /* the last ones are let go on until they have said what they have */
		kill(consumers[i], SIGKILL);
		reap(consumers[i]);
	}
	killed_consumers += 2;
	for (uint64_t p = 0; p < 64; p++) {
		uint64_t begun = mk_load_acquire(&w.begun[p]), returned = mk_load_acquire(&w.returned[p]);

		for (uint64_t i = 0; i < NUMBERS; i++) {
			unsigned char got = w.got[p * NUMBERS + i];

			CHECK(got <= 1);
			CHECK(!got || i < begun);
			missing += !got && i < returned;
		}
	}
	CHECK(missing <= killed_consumers);
	printf("      %" PRIu64 " records got, %" PRIu64 " lost with %" PRIu64 " killed consumers\n",
	       (uint64_t)mk_load_relaxed(w.total), missing, killed_consumers);
	drop_queue(w.q, fd);
}

static void put_some_and_stay(void *argument)
{
	struct work *w = argument;
	int code;

	CHECK_EQ(mk_queue_admit(w->q, 0, 0), 0);
	CHECK_EQ(put_number(w->q, 7), 0);
	/* A place that it does not use; the second one has to wait until the first one's record was taken. */
	while ((code = mk_queue_admit(w->q, 0, 0)) == -EAGAIN)
		CHECK_EQ(mk_queue_wait_place(w->q, -1, true), 0);
	CHECK_EQ(code, 0);
	mk_store_release(w->total, 1);
	pause();
}

static void a_dead_producers_records_stay_and_its_places_and_its_lane_are_given_back(void)
{
	struct work w = {0};
	struct mk_queue_words *words;
	uint64_t number;
	pid_t pid;
	int fd;

	w.q = new_queue(2, &fd);
	w.total = shared(sizeof(*w.total));
	words = words_of(fd);
	pid = spawn(put_some_and_stay, &w);
	while (!mk_load_acquire(w.total))
		usleep(100);
	CHECK_EQ(mk_queue_admit(w.q, 0, 0), -EAGAIN);
	kill(pid, SIGKILL);
	reap(pid);
	CHECK_EQ(mk_queue_wait_place(w.q, -1, true), 0);
	CHECK_EQ(mk_queue_admit(w.q, 0, 0), 0);
	CHECK_EQ(mk_load_relaxed(&words->lanes), 2); /* this process had asked before the other was dead */
	mk_queue_leave(w.q);
	pid = spawn(put_some_and_stay, &w);
	CHECK_EQ(take_number(w.q, &number), 8);
	CHECK_EQ(number, 7);
	while (mk_queue_count(w.q) < 2)
		usleep(100);
	CHECK_EQ(mk_load_relaxed(&words->lanes), 2);
	kill(pid, SIGKILL);
	reap(pid);
	munmap(words, sizeof(*words));
	drop_queue(w.q, fd);
}

static void answer(void *argument)
{
	struct mk_queue **q = argument;

	for (;;)
		put_waiting(q[1], take_waiting(q[0]));
}

/* A wake-up that is lost is a test that hangs. */
static void no_wake_up_is_lost_at_random_distances(void)
{
	struct random r = random_from(3);
	struct mk_queue *q[2];
	int fds[2];
	pid_t pid;

	for (int i = 0; i < 2; i++)
		q[i] = new_queue(0, &fds[i]);
	pid = spawn(answer, q);
	for (uint64_t i = 0; i < times(20000); i++) {
		put_waiting(q[0], i);
		dawdle(below(&r, 3) ? 0 : below(&r, 100000));
		CHECK_EQ(take_waiting(q[1]), i);
	}
	kill(pid, SIGKILL);
	reap(pid);
	for (int i = 0; i < 2; i++)
		drop_queue(q[i], fds[i]);
}

static const struct test tests[] = {
	TEST(records_of_one_process_come_out_whole_and_in_order),
	TEST(what_is_too_long_for_the_reader_stays),
	TEST(a_lane_is_full_by_records_and_by_bytes),
	TEST(large_records_lie_outside_and_their_memory_goes),
	TEST(places_are_given_out_once),
	TEST(what_is_no_queue_is_refused),
	TEST(words_that_cannot_be_are_found_and_the_other_lanes_go_on),
	TEST(every_record_goes_to_one_consumer),
	TEST(killed_ones_lose_what_they_held_and_nothing_else),
	TEST(a_dead_producers_records_stay_and_its_places_and_its_lane_are_given_back),
	TEST(no_wake_up_is_lost_at_random_distances),
};

RUN_TESTS(tests)
