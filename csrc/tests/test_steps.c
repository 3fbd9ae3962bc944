/* Every place at which the other side can come in between. A process that is about to sleep, or to send, is stopped after
 * each of its instructions in turn (ptrace), the other side does its part there, and then it goes on. A wake-up that is
 * lost at any of these places is a process that sleeps for ever. What the hardware may reorder is not seen so: a stop
 * drains the store buffer. */
#include "harness.h"

#define CAPACITY 4096u

#if defined(__x86_64__) && SLOWNESS == 1

#include "steps.h"

struct scene {
	struct ring ring;
	bool in_set, interpreted;
};

static bool sleeps_without_limit(uint64_t call)
{
	return call == SYS_ppoll || call == SYS_epoll_wait || call == SYS_epoll_pwait || call == SYS_pause;
}

/* Whether the instruction at an address makes a system call. */
static bool makes_system_call(pid_t pid, uint64_t address)
{
	return (code_at(pid, address) & 0xffff) == 0x050f;
}

/* A place: so many instructions after the return from so many system calls. Stepping is slow, hence in two parts. */
struct place {
	uint64_t calls, steps;
};

enum reached {
	THERE,
	BEHIND_THE_CALL, /* the next system call comes first: go on after that */
	BEHIND_THE_END,  /* it sleeps before */
	ASTRAY,          /* it went another way than those before it: again, and step by step */
};

/* Start a child and stop it at a place after stop_here. @param way  from the last of its system calls on */
static enum reached start_stopped(void (*run)(void *), void *argument, struct place place, struct way *way, pid_t *pid)
{
	uint64_t done = 0;

	*pid = spawn_stopped(run, argument);
	for (; place.calls > 0; place.calls--) {
		CHECK(resume(*pid, PTRACE_SYSCALL)); /* at its entry */
		if (sleeps_without_limit(registers_of(*pid).orig_rax))
			return BEHIND_THE_END;
		CHECK(resume(*pid, PTRACE_SYSCALL)); /* at its return */
	}
	if (way->known) {
		if (!follow(*pid, way, PTRACE_SYSCALL))
			return ASTRAY;
		done = way->known - 1;
	}
	for (; done < place.steps; done++) {
		uint64_t address = registers_of(*pid).rip;

		if (makes_system_call(*pid, address))
			return BEHIND_THE_CALL;
		remember(way, done, address);
		CHECK(resume(*pid, PTRACE_SINGLESTEP));
	}
	return THERE;
}

static void next_place(struct place *place, struct way *way, enum reached reached, uint64_t stride)
{
	if (reached == THERE) {
		place->steps += stride;
	} else if (reached == ASTRAY) {
		way->known = 0;
	} else {
		*place = (struct place){place->calls + 1, 0};
		way->known = 0;
	}
}

/* --- who is about to sleep ------------------------------------------------------------------------------------------- */

static void wait_for_one(void *argument)
{
	struct scene *scene = argument;
	struct mk_receiver *rx = ring_receiver(&scene->ring);
	struct mk_wait_set *set = NULL;
	struct mk_message m = {0};
	int result;

	rx->end.policy = MK_WAIT_PARK;
	rx->end.interpreted = scene->interpreted;
	if (scene->in_set) {
		set = mk_wait_set_new();
		CHECK_EQ(mk_wait_set_add(set, &rx->end), 0);
	}
	CHECK(!mk_end_gone(&rx->end, true)); /* takes the sender's introduction, which would end the first sleep */
	stop_here();
	do
		result = set ? mk_wait_set_wait(set, -1) : mk_wait(&rx->end, -1);
	while (result == -EINTR && scene->interpreted);
	CHECK_EQ(result, set ? 1 : 0);
	CHECK(mk_ipi_waiting(rx) || mk_peek(rx, &m) == 0);
	CHECK_EQ(mk_load_relaxed(rx->end.parked) & MK_PARKED_MODE, MK_AWAKE);
}

/* The whole way once, to its end in time, so that the dynamic linker is through with it: children inherit that. */
static void resolve_symbols(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct mk_wait_set *set = mk_wait_set_new();

	CHECK_EQ(mk_wait(&b.rx->end, 3000000), -ETIMEDOUT);
	CHECK_EQ(mk_wait_set_add(set, &b.rx->end), 0);
	CHECK_EQ(mk_wait_set_wait(set, 3000000), -ETIMEDOUT);
	mk_wait_set_free(set);
	both_close(&b);
}

static void come_in_at_every_step_of_a_wait(bool in_set, bool ipi, bool interpreted)
{
	struct place place = {0};
	struct way way = {.known = 0};
	enum reached reached = THERE;
	uint64_t places = 0;

	stay_on_one_core();
	resolve_symbols();
	while (reached != BEHIND_THE_END) {
		struct scene scene = {ring_new(CAPACITY, 0), in_set, interpreted};
		struct mk_sender *tx = ring_sender(&scene.ring);
		pid_t pid;
		int status;

		reached = start_stopped(wait_for_one, &scene, place, &way, &pid);
		if (ipi)
			CHECK_EQ(mk_ipi_raise(tx, 0), 0);
		else
			CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 1, NULL, 0), 0);
		CHECK_EQ(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
		status = reap(pid); /* hangs if the wake-up is lost */
		CHECK_EQ(status, 0);
		mk_sender_close(tx);
		ring_drop(&scene.ring);
		places += reached == THERE;
		/* The way to the first sleep is long, and what is lost on it is found after that: fewer places there. */
		next_place(&place, &way, reached, getenv("MK_STRESS") ? 1 : place.calls ? 3 : 40);
	}
	CHECK(place.calls >= 3 &&
	      places > 100 / SLOWNESS); /* futex, membarrier, and the way to the sleep behind them */
	printf("      %" PRIu64 " places\n", places);
}

static void a_record_sent_at_any_step_of_a_wait_ends_it(void)
{
	come_in_at_every_step_of_a_wait(false, false, false);
}

static void an_ipi_raised_at_any_step_of_a_wait_ends_it(void)
{
	come_in_at_every_step_of_a_wait(false, true, false);
}

static void a_record_sent_at_any_step_of_a_wait_for_a_set_ends_it(void)
{
	come_in_at_every_step_of_a_wait(true, false, false);
}

static void so_does_one_sent_while_the_caller_of_a_wait_looks_for_signals(void)
{
	come_in_at_every_step_of_a_wait(false, false, true);
}

static void so_does_one_sent_while_the_caller_of_a_wait_for_a_set_looks_for_signals(void)
{
	come_in_at_every_step_of_a_wait(true, false, true);
}

/* --- who is about to ring --------------------------------------------------------------------------------------------- */

static void send_one(void *argument)
{
	struct scene *scene = argument;
	struct mk_sender *tx = ring_sender(&scene->ring);

	stop_here();
	CHECK_EQ(mk_send(tx, MK_MSG_USER, 0, 1, NULL, 0), 0);
	for (;;)
		syscall(SYS_pause); /* a close would wake the other side as well */
}

static void receive_one(void *argument)
{
	struct scene *scene = argument;
	struct mk_receiver *rx = ring_receiver(&scene->ring);
	struct mk_message m = {0};

	rx->end.policy = MK_WAIT_PARK;
	CHECK(!mk_end_gone(&rx->end, true));
	CHECK_EQ(peek_waiting(rx, &m), 0);
	CHECK_EQ(m.id, 1);
}

static void a_receiver_that_falls_asleep_at_any_step_of_a_send_is_woken(void)
{
	struct place place = {0};
	struct way way = {.known = 0};
	enum reached reached = THERE;
	uint64_t places = 0;

	stay_on_one_core();
	while (reached != BEHIND_THE_END) {
		struct scene scene = {.ring = ring_new(CAPACITY, 0)};
		const struct mk_consumer *page;
		pid_t sender, receiver, ended;
		int status;
		void *map;

		CHECK_EQ(mk_object_map(scene.ring.consumer, mk_page_size(), 0, &map), 0);
		page = map;
		reached = start_stopped(send_one, &scene, place, &way, &sender);
		receiver = spawn(receive_one, &scene);
		/* Either it sees the record, or it says that it sleeps without a limit. */
		do {
			sched_yield();
			ended = waitpid(receiver, &status, WNOHANG);
		} while (!ended && (mk_load_relaxed(&page->parked) & MK_PARKED_MODE) != MK_PARKED_SOCKET);
		CHECK_EQ(ptrace(PTRACE_DETACH, sender, NULL, NULL), 0);
		if (!ended)
			status = reap(receiver); /* hangs if the wake-up is lost */
		CHECK_EQ(status, 0);
		kill(sender, SIGKILL);
		reap(sender);
		mk_object_unmap(map, mk_page_size());
		ring_drop(&scene.ring);
		places += reached == THERE;
		next_place(&place, &way, reached, 1);
	}
	CHECK(places > 30);
	printf("      %" PRIu64 " places\n", places);
}

#else

static void every_step_of_a_wait(void)
{
	skip("knows the instructions of x86-64 only, and not those that a sanitizer adds");
}

#endif

static const struct test tests[] = {
#if defined(__x86_64__) && SLOWNESS == 1
	TEST(a_record_sent_at_any_step_of_a_wait_ends_it),
	TEST(an_ipi_raised_at_any_step_of_a_wait_ends_it),
	TEST(a_record_sent_at_any_step_of_a_wait_for_a_set_ends_it),
	TEST(so_does_one_sent_while_the_caller_of_a_wait_looks_for_signals),
	TEST(so_does_one_sent_while_the_caller_of_a_wait_for_a_set_looks_for_signals),
	TEST(a_receiver_that_falls_asleep_at_any_step_of_a_send_is_woken),
#else
	TEST(every_step_of_a_wait),
#endif
};

RUN_TESTS(tests)
