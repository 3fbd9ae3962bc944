/* A queue whose users are killed after each of their instructions in turn (ptrace). Whatever they had done by then, the
 * record is there or it is not, those who wait are woken or have nothing to wait for, and the rest goes on. What the
 * hardware may reorder is not seen so: a stop drains the store buffer. */
#include "harness.h"

#include "multikernel/queue.h"

#if defined(__x86_64__) && SLOWNESS == 1

#include "steps.h"

struct scene {
	struct mk_queue *q;
	struct mk_queue_words *words;
	int fd;
	_Atomic uint64_t *got; /* shared: what the one who waits has taken, 0: nothing yet */
};

static struct scene scene_new(uint64_t places)
{
	struct scene s = {.fd = mk_queue_create(places), .got = shared(sizeof(*s.got))};
	void *at = mmap(NULL, sizeof(*s.words), PROT_READ, MAP_SHARED, s.fd, 0);

	CHECK(at != MAP_FAILED);
	s.words = at;
	CHECK_EQ(mk_queue_open(&s.q, s.fd), 0);
	return s;
}

static void scene_drop(struct scene *s)
{
	munmap(s->words, sizeof(*s->words));
	munmap((void *)(uintptr_t)s->got, sizeof(*s->got));
	mk_queue_close(s->q);
	close(s->fd);
}

static void put_number(struct mk_queue *q, uint64_t number)
{
	CHECK_EQ(mk_queue_put_one(q, &number, sizeof(number)), 0);
}

static uint64_t take_number(struct mk_queue *q, int64_t deadline)
{
	struct mk_queue_taken taken;
	uint64_t number = 0;
	uint64_t room[2];

	if (mk_queue_take(q, room, sizeof(room), &taken, deadline) == sizeof(number))
		number = room[0];
	return number;
}

static uint64_t take_waiting(struct mk_queue *q)
{
	uint64_t number;

	while (!(number = take_number(q, -1)))
		while (mk_queue_wait_items(q, -1, true) == -EINTR)
			;
	return number;
}

static void take_one(void *argument)
{
	struct scene *s = argument;

	mk_store_release(s->got, take_waiting(s->q));
}

static void put_into_a_place(void *argument)
{
	struct scene *s = argument;

	while (mk_queue_admit(s->q, 0, -1) == -EAGAIN)
		while (mk_queue_wait_place(s->q, -1, true) == -EINTR)
			;
	put_number(s->q, 3);
}

static void wait_for_sleepers(const struct mk_queue_bell *bell)
{
	while (!mk_load_relaxed(&bell->sleepers))
		usleep(100);
}

enum ended {
	KILLED,
	DONE,
	ASTRAY, /* done as well, but not by the way of those before it */
};

/* Start a child, let it make so many instructions of its work, and kill it. @return DONE: its work has no more */
static enum ended kill_after(void (*work)(void *), struct scene *s, uint64_t steps, struct way *way)
{
	pid_t pid = spawn_stopped(work, s);
	uint64_t done = 0;

	if (way->known) {
		done = way->known - 1;
		if (!follow(pid, way, PTRACE_CONT)) {
			way->known = 0;
			return ASTRAY;
		}
	}
	for (; done < steps; done++) {
		remember(way, done, registers_of(pid).rip);
		if (!resume(pid, PTRACE_SINGLESTEP))
			return DONE;
	}
	kill(pid, SIGKILL);
	reap(pid);
	return KILLED;
}

static void put_two(void *argument)
{
	struct scene *s = argument;

	stop_here();
	put_number(s->q, 2);
	syscall(SYS_exit_group, 0); /* not by a function that the dynamic linker would first look for */
}

static void have_a_lane_and_put_two(void *argument)
{
	struct scene *s = argument;

	CHECK_EQ(mk_queue_admit(s->q, 0, 0), 0);
	put_two(s);
}

static void take_for_the_killer(void *argument)
{
	struct scene *s = argument;

	mk_queue_leave(s->q); /* it has no lane to leave: this only tells it that it is another process */
	CHECK(mk_queue_ready(s->q));
	stop_here();
	(void)take_number(s->q, -1);
	syscall(SYS_exit_group, 0); /* not by a function that the dynamic linker would first look for */
}

/* Whoever comes next has everything at hand that the dynamic linker looks for; children inherit that. */
static void resolve_symbols(void)
{
	struct scene s = scene_new(1);
	uint64_t deadline = mk_now() + 1000000;

	CHECK_EQ(mk_queue_admit(s.q, 0, 0), 0);
	put_number(s.q, 1);
	CHECK_EQ(mk_queue_wait_place(s.q, (int64_t)deadline, true), -ETIMEDOUT);
	CHECK_EQ(take_waiting(s.q), 1);
	CHECK_EQ(mk_queue_wait_items(s.q, (int64_t)deadline, true), -ETIMEDOUT);
	scene_drop(&s);
}

static void kill_a_producer_at_every_step(void (*work)(void *), uint64_t stride)
{
	uint64_t steps = 0, put = 0;
	struct way way = {.known = 0};
	enum ended ended = KILLED;

	stay_on_one_core();
	resolve_symbols();
	for (; ended != DONE; steps += ended == ASTRAY ? 0 : stride) {
		struct scene s = scene_new(0);
		pid_t waiter = spawn(take_one, &s);

		wait_for_sleepers(&s.words->items);
		ended = kill_after(work, &s, steps, &way);
		if (mk_queue_count(s.q) == 0 && !mk_load_acquire(s.got) && ended == KILLED)
			put_number(s.q, 9); /* it had not come to that */
		else
			put++;
		reap_done(waiter); /* woken by the dead one, or by us */
		CHECK(mk_load_relaxed(s.got) == 2 || mk_load_relaxed(s.got) == 9);
		CHECK_EQ(mk_queue_count(s.q), 0);
		put_number(s.q, 4);
		CHECK_EQ(take_number(s.q, 0), 4);
		scene_drop(&s);
	}
	CHECK(put > 0 && put * stride < steps);
	printf("      killed at %" PRIu64 " places, at %" PRIu64 " of them after it had put\n", steps / stride, put);
}

static void a_producer_killed_at_any_step_has_put_or_not_and_the_sleeper_gets_it(void)
{
	kill_a_producer_at_every_step(have_a_lane_and_put_two, 1);
}

static void so_has_one_that_is_about_to_make_its_lane(void)
{
	kill_a_producer_at_every_step(put_two, 7);
}

static void a_consumer_killed_at_any_step_blocks_nobody_and_takes_one_at_most(void)
{
	uint64_t steps = 0, gone = 0;
	struct way way = {.known = 0};
	enum ended ended = KILLED;

	stay_on_one_core();
	resolve_symbols();
	for (; ended != DONE; steps += ended != ASTRAY) {
		struct scene s = scene_new(2);
		pid_t waiter;
		uint64_t next;
		unsigned found;

		for (uint64_t number = 1; number <= 2; number++) {
			CHECK_EQ(mk_queue_admit(s.q, 0, -1), 0);
			put_number(s.q, number);
		}
		waiter = spawn(put_into_a_place, &s);
		wait_for_sleepers(&s.words->room);
		ended = kill_after(take_for_the_killer, &s, steps, &way);
		for (found = 0; !(found & 1u << 3) || mk_queue_count(s.q) > 0; found |= 1u << next) {
			next = take_waiting(s.q);
			CHECK(next >= 1 && next <= 3 && !(found & 1u << next));
		}
		reap_done(waiter);      /* woken by the dead one, or by us */
		CHECK(found & 1u << 2); /* the oldest is what is taken */
		gone += !(found & 1u << 1);
		scene_drop(&s);
	}
	CHECK(gone > 0 && gone < steps);
	printf("      killed at %" PRIu64 " places, at %" PRIu64 " of them a record went with it\n", steps, gone);
}

static const struct test tests[] = {
	TEST(a_producer_killed_at_any_step_has_put_or_not_and_the_sleeper_gets_it),
	TEST(so_has_one_that_is_about_to_make_its_lane),
	TEST(a_consumer_killed_at_any_step_blocks_nobody_and_takes_one_at_most),
};

#else

static void killed_at_every_step(void)
{
	skip("steps are made on x86-64, and not under a sanitizer");
}

static const struct test tests[] = {TEST(killed_at_every_step)};

#endif

RUN_TESTS(tests)
