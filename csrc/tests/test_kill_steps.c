/* A sender that is killed after each of its instructions in turn (ptrace): the record that it was about to send is there,
 * whole, or it is not, and then comes the end. A receiver that is killed likewise has given back what it looked at, or not.
 * What the hardware may reorder is not seen so: a stop drains the store buffer. */
#include "harness.h"

#define CAPACITY 4096u

#if defined(__x86_64__) && SLOWNESS == 1

#include "steps.h"

static const uint64_t lengths[] = {5, 0,
				   100}; /* one that lies beside the head as well, an empty one, one that does not */
#define COUNT (sizeof(lengths) / sizeof(lengths[0]))

static unsigned char contents[COUNT][128];

static void check_record(struct mk_receiver *rx, uint64_t number)
{
	struct mk_message m = {0};

	CHECK_EQ(mk_peek(rx, &m), 0);
	CHECK_EQ(m.id, number);
	CHECK_EQ(m.length, lengths[number]);
	CHECK_EQ(memcmp(m.payload, contents[number], m.length), 0);
}

static int send_record(struct mk_sender *tx, uint64_t number)
{
	return mk_send(tx, MK_MSG_USER, 0, number, contents[number], lengths[number]);
}

static void send_them(void *argument)
{
	struct mk_sender *tx = child_sender(argument);

	stop_here();
	for (uint64_t i = 0; i < COUNT; i++)
		if (send_record(tx, i))
			abort();
	syscall(SYS_exit_group, 0); /* not by a function that the dynamic linker would first look for */
}

static void give_them_back(void *argument)
{
	struct mk_receiver *rx = child_receiver(argument);
	struct mk_message m;

	CHECK_EQ(wait_on(&rx->end), 0);
	stop_here();
	for (uint64_t i = 0; i < COUNT; i++) {
		if (mk_peek(rx, &m))
			abort();
		mk_release(rx);
	}
	syscall(SYS_exit_group, 0);
}

/* Let a child make so many instructions and kill it. @return false: it came to its end before */
static bool kill_after(pid_t pid, uint64_t steps, struct way *way)
{
	uint64_t done = 0;

	if (way->known) {
		done = way->known - 1;
		if (!follow(pid, way, PTRACE_CONT))
			return false;
	}
	for (; done < steps; done++) {
		remember(way, done, registers_of(pid).rip);
		if (!resume(pid, PTRACE_SINGLESTEP))
			return false;
	}
	kill(pid, SIGKILL);
	reap(pid);
	return true;
}

/* The functions once, so that the dynamic linker is through with them: children inherit that. */
static void prepare(void)
{
	struct both b = both_new(CAPACITY, 0);

	stay_on_one_core();
	for (uint64_t i = 0; i < COUNT; i++) {
		fill_bytes(contents[i], i, lengths[i]);
		CHECK_EQ(send_record(b.tx, i), 0);
		check_record(b.rx, i);
		mk_release(b.rx);
	}
	both_close(&b);
}

static void of_a_sender_killed_at_any_step_each_record_arrives_whole_or_not_at_all(void)
{
	static struct way way;
	uint64_t most = 0, steps = 0;
	bool killed = true;

	prepare();
	for (; killed; steps++) {
		struct ring ring = ring_new(CAPACITY, 0);
		pid_t pid = spawn_stopped(send_them, &ring);
		struct mk_receiver *rx = child_receiver(&ring);
		struct mk_message m;
		uint64_t got = 0;

		killed = kill_after(pid, steps, &way);
		for (; mk_waiting(rx) > 0; got++) {
			check_record(rx, got);
			mk_release(rx);
		}
		CHECK(got >= most); /* a later step has sent no less */
		CHECK(killed || got == COUNT);
		most = got;
		while (!mk_end_gone(&rx->end, true))
			;
		CHECK_EQ(mk_peek(rx, &m), -EPIPE);
		mk_receiver_close(rx);
	}
	CHECK_EQ(most, COUNT);
	CHECK(steps > 100);
}

static void a_receiver_killed_at_any_step_has_given_back_each_record_or_it_is_there_still(void)
{
	static struct way way;
	uint64_t most = 0, steps = 0;
	bool killed = true;

	prepare();
	for (; killed; steps++) {
		struct ring ring = ring_new(CAPACITY, 0);
		struct mk_sender *tx = ring_sender(&ring);
		uint64_t ends[COUNT + 1] = {0}, released = 0;
		pid_t pid;

		for (uint64_t i = 0; i < COUNT; i++) {
			CHECK_EQ(send_record(tx, i), 0);
			ends[i + 1] = tx->head;
		}
		pid = spawn_stopped(give_them_back, &ring);
		ring_drop(&ring);
		killed = kill_after(pid, steps, &way);
		while (released < COUNT && ends[released] != mk_load_acquire(&tx->peer->tail))
			released++;
		CHECK_EQ(ends[released], mk_load_acquire(&tx->peer->tail)); /* never in the middle of one */
		CHECK(released >= most);
		CHECK(killed || released == COUNT);
		most = released;
		while (!mk_end_gone(&tx->end, true))
			;
		CHECK_EQ(send_record(tx, 0), -EPIPE);
		mk_sender_close(tx);
	}
	CHECK_EQ(most, COUNT);
	CHECK(steps > 50);
}

static const struct test tests[] = {
	TEST(of_a_sender_killed_at_any_step_each_record_arrives_whole_or_not_at_all),
	TEST(a_receiver_killed_at_any_step_has_given_back_each_record_or_it_is_there_still),
};

#else

static void killed_at_every_step(void)
{
	skip("steps are made on x86-64, and not under a sanitizer");
}

static const struct test tests[] = {TEST(killed_at_every_step)};

#endif

RUN_TESTS(tests)
