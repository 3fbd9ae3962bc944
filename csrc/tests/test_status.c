/* Pages for watchers: latches that stay whole when their writer dies, and the status page of an instance. */
#include "harness.h"

#include "multikernel/status.h"

#define WORDS 256 /* about as long as the record of an instance */

struct value {
	uint64_t words[WORDS];
};

struct latched {
	struct mk_latch latch;
	struct value copies[2];
};

static struct value value_of(uint64_t number)
{
	struct value v;

	for (unsigned i = 0; i < WORDS; i++)
		v.words[i] = number * 31 + i;
	return v;
}

static uint64_t number_of(const struct value *v)
{
	for (unsigned i = 0; i < WORDS; i++)
		CHECK_EQ(v->words[i] - i, v->words[0]); /* whole: all words of one number */
	return v->words[0] / 31;
}

static void write_number(struct latched *l, uint64_t number)
{
	struct value v = value_of(number);

	mk_latch_write(&l->latch, l->copies, &v, sizeof(v));
}

static int read_number(const struct latched *l, uint64_t *number)
{
	struct value v;
	int result = mk_latch_read(&l->latch, l->copies, &v, sizeof(v));

	if (result >= 0)
		*number = number_of(&v);
	return result;
}

static void a_latch_reads_as_the_last_value_written(void)
{
	struct latched l = {0};
	uint64_t number;

	for (uint64_t i = 0; i < 10; i++) {
		write_number(&l, i);
		CHECK_EQ(read_number(&l, &number), 0);
		CHECK_EQ(number, i);
	}
	atomic_store(&l.latch.sequence, UINT32_MAX - 1); /* it may go round */
	for (uint64_t i = 0; i < 10; i++) {
		write_number(&l, i);
		CHECK_EQ(read_number(&l, &number), 0);
		CHECK_EQ(number, i);
	}
}

static void a_writer_that_died_in_the_first_copy_leaves_the_last_whole_one(void)
{
	struct latched l = {0};
	uint64_t number;

	write_number(&l, 7);
	atomic_store(&l.latch.sequence, atomic_load(&l.latch.sequence) + 1);
	for (unsigned i = 0; i <= WORDS; i++) { /* after each word that it may have come to */
		CHECK_EQ(read_number(&l, &number), 1);
		CHECK_EQ(number, 7);
		if (i < WORDS)
			l.copies[0].words[i] = value_of(8).words[i];
	}
}

static void a_writer_that_died_in_the_second_copy_leaves_the_new_value(void)
{
	struct latched l = {0};
	uint64_t number;

	write_number(&l, 7);
	l.copies[0] = value_of(8);
	atomic_store(&l.latch.sequence, atomic_load(&l.latch.sequence) + 2);
	for (unsigned i = 0; i <= WORDS; i++) {
		CHECK_EQ(read_number(&l, &number), 0);
		CHECK_EQ(number, 8);
		if (i < WORDS)
			l.copies[1].words[i] = value_of(8).words[i];
	}
}

static void write_until_killed(void *argument)
{
	for (uint64_t i = 1;; i++)
		write_number(argument, i);
}

static void a_writer_killed_at_any_moment_leaves_a_whole_value(void)
{
	struct latched *l = shared(sizeof(*l));
	struct random r = random_from(1);
	int torn = 0, whole = 0;

	for (uint64_t round = 0; round < times(300); round++) {
		uint64_t number, again;
		pid_t pid;
		int result;

		memset(l, 0, sizeof(*l));
		write_number(l, 0);
		pid = spawn(write_until_killed, l);
		while (atomic_load(&l->latch.sequence) < 100)
			mk_pause();
		dawdle(below(&r, 50000));
		kill(pid, SIGKILL);
		reap(pid);
		result = read_number(l, &number); /* checks that it is whole */
		CHECK(result == 0 || result == 1);
		CHECK(number > 0);
		torn += result;
		whole += !result;
		CHECK_EQ(read_number(l, &again), result);
		CHECK_EQ(again, number);
	}
	printf("      %d died in the middle of a value, %d in or after its second copy\n", torn, whole);
	munmap(l, sizeof(*l));
}

static void write_often(void *argument)
{
	struct random r = random_from(7);

	for (uint64_t i = 1;; i++) {
		write_number(argument, i);
		dawdle(below(&r, 3) ? 0 : below(&r, 5000));
	}
}

static void readers_of_a_live_writer_see_whole_values_that_grow(void)
{
	struct latched *l = shared(sizeof(*l));
	uint64_t last = 0, seen = 0;
	pid_t pid;

	write_number(l, 0);
	pid = spawn(write_often, l);
	while (atomic_load(&l->latch.sequence) < 100)
		mk_pause();
	for (uint64_t i = 0; i < times(30000); i++) {
		uint64_t number;

		if (read_number(l, &number) < 0)
			continue; /* it never stopped writing: said, not invented */
		CHECK(number >= last);
		last = number;
		seen++;
	}
	CHECK(seen > 0 && last > 0);
	kill(pid, SIGKILL);
	reap(pid);
	munmap(l, sizeof(*l));
}

/* --- the status page -------------------------------------------------------------------------------------------------- */

static const struct mk_status *look(int fd, struct mk_object *header)
{
	void *base;

	CHECK_EQ(mk_object_check(fd, MK_KIND_STATUS, 1, header, NULL), 0);
	CHECK_EQ(mk_object_map(fd, header->size, 0, &base), 0);
	return base;
}

static void what_an_instance_says_of_itself_is_read_from_its_page(void)
{
	struct mk_status *own;
	int fd = mk_status_create(17, 1ULL << 33, &own);
	struct mk_status_copy copy;
	struct mk_object header;
	uint64_t before = mk_now();

	CHECK(fd >= 0);
	const struct mk_status *page = look(fd, &header);

	mk_status_reached(own, MK_PHASE_SPAWNED, 12345); /* before there was the page */
	mk_status_phase(own, MK_PHASE_PINNED);
	mk_status_phase(own, MK_PHASE_ACTIVE);
	mk_status_ipi(own, 5, 3);
	mk_status_ipi(own, 63, 1);
	mk_status_ipi(own, 64, 1); /* no such vector: nothing */
	mk_status_read(page, &copy);
	CHECK_EQ(copy.awake, 0);
	mk_status_awake(own, 1);
	mk_status_read(page, &copy);
	CHECK_EQ(copy.awake, 1);
	CHECK_EQ(copy.owner_id, 17);
	CHECK_EQ(copy.owner_pid, getpid());
	CHECK_EQ(copy.epoch, 1ULL << 33);
	CHECK_EQ(copy.phase, MK_PHASE_ACTIVE);
	CHECK(copy.phase_time[MK_PHASE_PINNED] >= before && copy.phase_time[MK_PHASE_ACTIVE] <= mk_now());
	CHECK_EQ(copy.phase_time[MK_PHASE_SPAWNED], 12345);
	CHECK_EQ(copy.phase_time[MK_PHASE_MAPPED], 0);
	CHECK(copy.heartbeat >= copy.phase_time[MK_PHASE_ACTIVE]);
	CHECK_EQ(copy.ipi[5], 3);
	CHECK_EQ(copy.ipi[63], 1);
	mk_object_unmap((void *)(uintptr_t)page, header.size);
	mk_status_free(own);
	close(fd);
}

static void scribble(void *at)
{
	*(volatile char *)at = 1;
}

static void nobody_else_can_write_a_status_page(void)
{
	struct mk_status *own;
	int fd = mk_status_create(1, 1, &own);
	struct mk_object header;
	const struct mk_status *page = look(fd, &header);
	void *map;

	CHECK_EQ(mk_object_map(fd, header.size, 1, &map), -EACCES);
	CHECK_EQ(madvise((void *)(uintptr_t)page, header.size, MADV_DOFORK), 0);
	CHECK_EQ(signal_of(scribble, (void *)(uintptr_t)page), SIGSEGV);
	CHECK_ERRNO(mprotect((void *)(uintptr_t)page, header.size, PROT_READ | PROT_WRITE), EACCES);
	mk_object_unmap((void *)(uintptr_t)page, header.size);
	mk_status_free(own);
	close(fd);
}

static void the_counts_of_a_link_that_is_gone_go_into_the_instances(void)
{
	struct mk_status *own;
	int fd = mk_status_create(1, 1, &own);
	struct mk_status_copy copy;
	struct mk_counters *first = mk_status_link(own, 9, 4096), *second = mk_status_link(own, 10, 8192);

	CHECK(first != second && first != &own->counters);
	mk_count(&first->sent, 5);
	mk_count(&first->stalls, 2);
	mk_count(&second->sent, 1);
	mk_status_read(own, &copy);
	CHECK(copy.links[0].used && copy.links[0].peer == 9 && copy.links[0].capacity == 4096);
	CHECK_EQ(copy.links[0].counters.sent, 5);
	CHECK_EQ(copy.links[1].counters.sent, 1);
	mk_status_unlink(own, first);
	mk_status_read(own, &copy);
	CHECK(!copy.links[0].used && copy.links[1].used);
	CHECK_EQ(copy.counters.sent, 5);
	CHECK_EQ(copy.counters.stalls, 2);
	CHECK_EQ(copy.links[0].counters.sent, 0); /* the row is clean for the next */
	CHECK(mk_status_link(own, 11, 4096) == first);
	mk_status_free(own);
	close(fd);
}

static void a_link_beyond_the_table_counts_with_the_instance(void)
{
	struct mk_status *own;
	int fd = mk_status_create(1, 1, &own);
	struct mk_counters *last;

	for (unsigned i = 0; i < MK_STATUS_LINKS; i++)
		CHECK(mk_status_link(own, i, 4096) != &own->counters);
	last = mk_status_link(own, 99, 4096);
	CHECK(last == &own->counters);
	mk_count(&last->sent, 3);
	mk_status_unlink(own, last);
	CHECK_EQ(mk_load_relaxed(&own->counters.sent), 3);
	mk_status_free(own);
	close(fd);
}

static void beat_until_killed(void *argument)
{
	int fd = *(int *)argument;
	struct mk_status *own;
	int reader = mk_status_create(3, 1, &own);

	mk_status_phase(own, MK_PHASE_READY);
	/* Hand the descriptor over as a host would. */
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct iovec data = {"", 1};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.room)};

	memcpy(CMSG_DATA(&control.header), &reader, sizeof(int));
	CHECK_EQ(sendmsg(fd, &message, 0), 1);
	for (;;)
		mk_status_beat(own);
}

static void a_page_is_still_there_when_its_writer_is_dead(void)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.room)};
	struct mk_status_copy first, last;
	struct mk_object header;
	int sockets[2], fd;
	pid_t pid;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	pid = spawn(beat_until_killed, &sockets[1]);
	CHECK_EQ(recvmsg(sockets[0], &message, MSG_CMSG_CLOEXEC), 1);
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	const struct mk_status *page = look(fd, &header);

	mk_status_read(page, &first);
	do
		mk_status_read(page, &last);
	while (last.heartbeat == first.heartbeat); /* it lives */
	kill(pid, SIGKILL);
	reap(pid);
	mk_status_read(page, &last);
	CHECK_EQ(last.owner_pid, pid);
	CHECK_EQ(last.phase, MK_PHASE_READY);
	CHECK(last.heartbeat > first.heartbeat);
	mk_object_unmap((void *)(uintptr_t)page, header.size);
	close(fd);
	close(sockets[0]);
	close(sockets[1]);
}

static const struct test tests[] = {
	TEST(a_latch_reads_as_the_last_value_written),
	TEST(a_writer_that_died_in_the_first_copy_leaves_the_last_whole_one),
	TEST(a_writer_that_died_in_the_second_copy_leaves_the_new_value),
	TEST(a_writer_killed_at_any_moment_leaves_a_whole_value),
	TEST(readers_of_a_live_writer_see_whole_values_that_grow),
	TEST(what_an_instance_says_of_itself_is_read_from_its_page),
	TEST(nobody_else_can_write_a_status_page),
	TEST(the_counts_of_a_link_that_is_gone_go_into_the_instances),
	TEST(a_link_beyond_the_table_counts_with_the_instance),
	TEST(a_page_is_still_there_when_its_writer_is_dead),
};

RUN_TESTS(tests)
