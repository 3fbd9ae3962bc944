/* Memory objects: who may write one, what is refused at attach, how it is mapped. */
#include "harness.h"

#include <linux/memfd.h>
#include <sched.h>
#include <sys/stat.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define CAPACITY 65536u
#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

static int producer(void)
{
	int fd = mk_lane_object(MK_KIND_PRODUCER, "lane:test", CAPACITY, 0, 3, 4);

	CHECK(fd >= 0);
	return fd;
}

/* A producer object that its owner, this process, has mapped and sealed. */
struct owned {
	int fd;
	struct mk_object header;
	char *map;
	uint64_t size;
};

static struct owned owned_new(void)
{
	struct owned o = {.fd = producer()};
	void *base;

	CHECK_EQ(mk_object_check(o.fd, MK_KIND_PRODUCER, 0, &o.header, NULL), 0);
	CHECK_EQ(mk_object_map_twice(o.fd, &o.header, 1, &base), 0);
	CHECK_EQ(mk_object_seal(o.fd), 0);
	o.map = base;
	o.size = o.header.size + o.header.capacity;
	return o;
}

static void owned_drop(struct owned *o)
{
	mk_object_unmap(o->map, o->size);
	close(o->fd);
}

/* --- making ----------------------------------------------------------------------------------------------------- */

static void an_object_is_allocated_sealed_in_size_named_and_closed_on_exec(void)
{
	int fd = producer();
	char path[64], name[64] = {0};
	struct stat file;

	CHECK_EQ(fstat(fd, &file), 0);
	CHECK_EQ(file.st_size, mk_page_size() + CAPACITY);
	CHECK(file.st_blocks * 512 >= file.st_size);
	CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(readlink(path, name, sizeof(name) - 1) > 0);
	CHECK(strncmp(name, "/memfd:lane:test", 16) == 0);
	close(fd);
}

static void a_capacity_that_is_no_power_of_two_in_range_makes_nothing(void)
{
	const uint64_t bad[] = {0, 1, 2048, 4097, 12288, CAPACITY + 8, MK_CAPACITY_MAX * 2, UINT64_MAX, 1ULL << 63};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(mk_lane_object(MK_KIND_PRODUCER, "lane:test", bad[i], 0, 0, 0), -EINVAL);
	CHECK_EQ(mk_lane_object(MK_KIND_PRODUCER, "lane:test", CAPACITY, CAPACITY + 1, 0, 0), -EINVAL);
	CHECK_EQ(mk_lane_object(MK_KIND_STATUS, "lane:test", CAPACITY, 0, 0, 0), -EINVAL);
}

static void a_shortage_is_an_error_when_it_is_made_and_leaves_nothing(void)
{
	struct rlimit before, small = {.rlim_cur = 8192, .rlim_max = RLIM_INFINITY};
	int next = dup(0);

	close(next);
	signal(SIGXFSZ, SIG_IGN);
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
	small.rlim_max = before.rlim_max;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
	CHECK_EQ(mk_lane_object(MK_KIND_PRODUCER, "lane:test", CAPACITY, 0, 0, 0), -EFBIG);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	small = (struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
	CHECK_EQ(mk_lane_object(MK_KIND_PRODUCER, "lane:test", CAPACITY, 0, 0, 0), -EMFILE);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* --- who may write ---------------------------------------------------------------------------------------------- */

/* Every way to write or to change the size that a descriptor, reopened for writing where that works, might give. */
static void try_to_write(void *argument)
{
	int given = *(int *)argument;
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", given);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		CHECK(errno == EACCES || errno == EPERM);
		return;
	}
	CHECK_ERRNO(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
	CHECK_ERRNO(pwrite(fd, "x", 1, 128), EPERM);
	CHECK_ERRNO(ftruncate(fd, 0), EPERM);
	CHECK_ERRNO(ftruncate(fd, 1 << 20), EPERM);
	CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), EPERM);
	CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

	CHECK(map != MAP_FAILED);
	CHECK_ERRNO(mprotect(map, 4096, PROT_READ | PROT_WRITE), EACCES);
	CHECK(madvise(map, 4096, MADV_REMOVE) < 0 && (errno == EACCES || errno == EPERM));
	munmap(map, 4096);
	close(fd);
}

static void a_sealed_object_reopened_for_writing_can_be_neither_written_nor_resized(void)
{
	struct owned o = owned_new();
	int reader = mk_object_reopen(o.fd);

	CHECK(reader >= 0);
	try_to_write(&reader);
	try_to_write(&o.fd); /* not even through the descriptor that made it */
	close(reader);
	owned_drop(&o);
}

static void as_other_user(void *argument)
{
	CHECK_EQ(setgid(65534), 0);
	CHECK_EQ(setuid(65534), 0);
	try_to_write(argument);
}

static void another_user_cannot_write_it_either(void)
{
	if (geteuid() != 0)
		skip("only root can become another user");
	struct owned o = owned_new();
	int reader = mk_object_reopen(o.fd);

	reap_done(spawn(as_other_user, &reader));
	close(reader);
	owned_drop(&o);
}

static void in_user_namespace(void *argument)
{
	if (unshare(CLONE_NEWUSER) < 0)
		_exit(SKIPPED);
	try_to_write(argument);
}

static void nor_can_who_is_root_in_a_user_namespace(void)
{
	struct owned o = owned_new();
	int reader = mk_object_reopen(o.fd);
	int status = reap(spawn(in_user_namespace, &reader));

	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		skip("no user namespaces here");
	CHECK_EQ(status, 0);
	close(reader);
	owned_drop(&o);
}

static void the_owner_goes_on_writing_after_the_seal_and_readers_see_it(void)
{
	struct owned o = owned_new();
	int reader = mk_object_reopen(o.fd);
	void *map;

	CHECK_EQ(mk_object_map(reader, o.header.size, 0, &map), 0);
	o.map[200] = 'y';
	CHECK_EQ(((volatile char *)map)[200], 'y');
	mk_object_unmap(map, o.header.size);
	close(reader);
	owned_drop(&o);
}

static void a_second_writable_mapping_is_refused(void)
{
	struct owned o = owned_new();
	void *map;

	CHECK_EQ(mk_object_map(o.fd, o.header.size, 1, &map), -EPERM);
	CHECK_EQ(mk_object_map_twice(o.fd, &o.header, 1, &map), -EPERM);
	CHECK_EQ(mk_object_seal(o.fd), -EPERM);
	owned_drop(&o);
}

static void a_read_only_map_made_before_the_seal_cannot_be_made_writable(void)
{
	/* A ring's other end maps before the claim, and may hold the descriptor that made the object. */
	int fd = producer();
	struct mk_object header;
	void *once, *twice;

	CHECK_EQ(mk_object_check(fd, MK_KIND_PRODUCER, 0, &header, NULL), 0);
	CHECK_EQ(mk_object_map(fd, header.size, 0, &once), 0);
	CHECK_EQ(mk_object_map_twice(fd, &header, 0, &twice), 0);
	CHECK_ERRNO(mprotect(once, header.size, PROT_READ | PROT_WRITE), EACCES);
	CHECK_ERRNO(mprotect(twice, header.size, PROT_READ | PROT_WRITE), EACCES);
	mk_object_unmap(once, header.size);
	mk_object_unmap(twice, header.size + header.capacity);
	close(fd);
}

static void scribble(void *at)
{
	*(volatile char *)at = 1;
}

static void a_stray_write_into_another_ones_page_faults_in_the_writer(void)
{
	struct owned o = owned_new();
	int reader = mk_object_reopen(o.fd);
	void *map;

	CHECK_EQ(mk_object_map_twice(reader, &o.header, 0, &map), 0);
	CHECK_EQ(madvise(map, o.size, MADV_DOFORK), 0); /* so that the child, which is to fault, has it at all */
	CHECK_EQ(signal_of(scribble, map), SIGSEGV);
	CHECK_EQ(signal_of(scribble, (char *)map + mk_page_size() + 8), SIGSEGV);
	CHECK_EQ(signal_of(scribble, (char *)map + o.size - 1), SIGSEGV);
	mk_object_unmap(map, o.size);
	close(reader);
	owned_drop(&o);
}

static void a_fork_does_not_inherit_the_mapping(void)
{
	struct owned o = owned_new();

	CHECK_EQ(signal_of(scribble, o.map), SIGSEGV);
	CHECK_EQ(signal_of(scribble, o.map + o.size - 1), SIGSEGV);
	o.map[0] = 1; /* ours is still there */
	owned_drop(&o);

	int fd = mk_lane_object(MK_KIND_CONSUMER, "lane:test", CAPACITY, 0, 0, 0);
	void *page;

	CHECK_EQ(mk_object_map(fd, mk_page_size(), 1, &page), 0);
	CHECK_EQ(signal_of(scribble, page), SIGSEGV);
	mk_object_unmap(page, mk_page_size());
	close(fd);
}

/* --- what is refused -------------------------------------------------------------------------------------------- */

/* A lane object with a header made by hand. */
static int crafted(const struct mk_object *header, uint64_t size, int seals, bool allocate)
{
	int fd = memfd_create("lane:crafted", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0);
	CHECK_EQ(allocate && size ? posix_fallocate(fd, 0, (off_t)size) : ftruncate(fd, (off_t)size), 0);
	if (size >= sizeof(*header))
		CHECK_EQ(pwrite(fd, header, sizeof(*header), 0), sizeof(*header));
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static uint32_t why_refused(int fd, uint32_t kind, int owned)
{
	struct mk_object header;
	uint32_t why = 99;

	CHECK_EQ(mk_object_check(fd, kind, owned, &header, &why), -EPROTO);
	close(fd);
	return why;
}

static struct mk_object good_header(void)
{
	return (struct mk_object){
		.magic = MK_MAGIC,
		.abi = MK_ABI_VERSION,
		.kind = MK_KIND_PRODUCER,
		.size = mk_page_size() + CAPACITY,
		.capacity = CAPACITY,
		.data_offset = (uint32_t)mk_page_size(),
	};
}

static uint32_t why_header_refused(struct mk_object header)
{
	return why_refused(crafted(&header, mk_page_size() + CAPACITY, ALL_SEALS, true), MK_KIND_PRODUCER, 1);
}

static void a_good_object_is_accepted_and_its_header_copied(void)
{
	struct mk_object header = good_header(), copy;
	uint32_t why = 99;
	int fd;

	header.owner_id = 7;
	header.epoch = 1ULL << 40;
	fd = crafted(&header, header.size, ALL_SEALS, true);
	CHECK_EQ(mk_object_check(fd, MK_KIND_PRODUCER, 1, &copy, &why), 0);
	CHECK_EQ(why, MK_REFUSED_NOT);
	CHECK_EQ(memcmp(&header, &copy, sizeof(copy)), 0);
	close(fd);
}

static void what_is_no_memory_object_is_refused(void)
{
	int pipes[2], sockets[2], fd;
	struct mk_object header;

	CHECK_EQ(pipe(pipes), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	close(pipes[1]);
	close(sockets[1]);
	CHECK_EQ(why_refused(pipes[0], MK_KIND_PRODUCER, 1), MK_REFUSED_KIND_OF_FILE);
	CHECK_EQ(why_refused(sockets[0], MK_KIND_PRODUCER, 1), MK_REFUSED_KIND_OF_FILE);
	CHECK_EQ(why_refused(open("/", O_RDONLY), MK_KIND_PRODUCER, 1), MK_REFUSED_KIND_OF_FILE);
	CHECK_EQ(why_refused(open("/proc/self/exe", O_RDONLY), MK_KIND_PRODUCER, 1), MK_REFUSED_KIND_OF_FILE);
	fd = producer();
	char path[32];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_EQ(why_refused(open(path, O_PATH), MK_KIND_PRODUCER, 0), MK_REFUSED_KIND_OF_FILE);
	close(fd);
	CHECK_EQ(mk_object_check(fd, MK_KIND_PRODUCER, 1, &header, NULL), -EBADF);
}

static void an_object_that_can_still_change_is_refused(void)
{
	struct mk_object header = good_header();
	const int missing[] = {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE, F_SEAL_SEAL};

	for (size_t i = 0; i < 4; i++)
		CHECK_EQ(why_refused(crafted(&header, header.size, ALL_SEALS & ~missing[i], true), MK_KIND_PRODUCER, 1),
			 MK_REFUSED_SEALS);
	/* Before the claim of a ring's end the size is sealed at least: a truncated map would be a SIGBUS. */
	for (size_t i = 0; i < 2; i++)
		CHECK_EQ(why_refused(crafted(&header, header.size, ALL_SEALS & ~missing[i], true), MK_KIND_PRODUCER, 0),
			 MK_REFUSED_SEALS);
	CHECK_EQ(why_refused(producer(), MK_KIND_PRODUCER, 1), MK_REFUSED_SEALS);
}

static void an_object_shorter_than_a_header_or_than_it_says_is_refused(void)
{
	struct mk_object header = good_header();

	CHECK_EQ(why_refused(crafted(&header, 0, ALL_SEALS, false), MK_KIND_PRODUCER, 1), MK_REFUSED_SHORT);
	CHECK_EQ(why_refused(crafted(&header, 63, ALL_SEALS, true), MK_KIND_PRODUCER, 1), MK_REFUSED_SHORT);
	CHECK_EQ(why_refused(crafted(&header, 64, ALL_SEALS, true), MK_KIND_PRODUCER, 1), MK_REFUSED_SIZE);
	CHECK_EQ(why_refused(crafted(&header, header.size - 1, ALL_SEALS, true), MK_KIND_PRODUCER, 1), MK_REFUSED_SIZE);
	CHECK_EQ(why_refused(crafted(&header, header.size + 1, ALL_SEALS, true), MK_KIND_PRODUCER, 1), MK_REFUSED_SIZE);
}

static void an_object_that_is_not_allocated_is_refused(void)
{
	struct mk_object header = good_header();

	CHECK_EQ(why_refused(crafted(&header, header.size, ALL_SEALS, false), MK_KIND_PRODUCER, 1), MK_REFUSED_SIZE);
}

static void a_header_that_is_wrong_in_one_field_is_refused_for_that_field(void)
{
	const uint64_t capacities[] = {
		0, 1, 2048, CAPACITY - 4096, CAPACITY + 4096, 3 * 4096, MK_CAPACITY_MAX * 2, 1ULL << 63, UINT64_MAX};
	struct mk_object h;

	h = good_header(), h.magic++;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_MAGIC);
	h = good_header(), h.abi++;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_ABI);
	h = good_header(), h.kind = MK_KIND_CONSOLE; /* the same shape */
	CHECK_EQ(why_header_refused(h), MK_REFUSED_KIND);
	h = good_header(), h.kind = MK_KIND_CONSUMER;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_SIZE);
	h = good_header(), h.size--;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_SIZE);
	h = good_header(), h.size = UINT64_MAX;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_SIZE);
	for (size_t i = 0; i < sizeof(capacities) / sizeof(capacities[0]); i++) {
		h = good_header(), h.capacity = capacities[i];
		CHECK_EQ(why_header_refused(h), MK_REFUSED_CAPACITY);
	}
	h = good_header(), h.capacity = CAPACITY * 2; /* right in itself, but the file is smaller */
	CHECK_EQ(why_header_refused(h), MK_REFUSED_SIZE);
	h = good_header(), h.capacity = CAPACITY / 2;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_SIZE);
	h = good_header(), h.data_offset = 0;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_CAPACITY);
	h = good_header(), h.data_offset = UINT32_MAX;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_CAPACITY);
	h = good_header(), h.element = CAPACITY + 1;
	CHECK_EQ(why_header_refused(h), MK_REFUSED_ELEMENT);
}

static void a_random_header_is_refused_or_is_right(void)
{
	struct random r = random_from(1);

	for (uint64_t i = 0; i < times(3000); i++) {
		struct mk_object h = good_header(), copy;
		uint32_t why = 99;
		int fd;

		for (uint64_t n = below(&r, 3); n < 3; n++)
			((unsigned char *)&h)[below(&r, sizeof(h))] = (unsigned char)(draw(&r) >> below(&r, 60));
		fd = crafted(&h, mk_page_size() + CAPACITY, ALL_SEALS, true);
		if (mk_object_check(fd, MK_KIND_PRODUCER, 1, &copy, &why) == 0) {
			void *map;

			CHECK(copy.capacity == CAPACITY && copy.data_offset == mk_page_size() &&
			      copy.element <= CAPACITY);
			CHECK_EQ(mk_object_map_twice(fd, &copy, 0, &map), 0);
			(void)*((volatile char *)map + copy.data_offset + 2 * copy.capacity - 1);
			mk_object_unmap(map, copy.data_offset + 2 * copy.capacity);
		} else {
			CHECK(why > MK_REFUSED_NOT && why <= MK_REFUSED_ELEMENT);
		}
		close(fd);
	}
}

/* --- how it is mapped ------------------------------------------------------------------------------------------- */

static void the_data_area_is_mapped_twice_in_a_row(void)
{
	struct owned o = owned_new();
	volatile char *data = o.map + o.header.data_offset;

	data[CAPACITY - 1] = 'a';
	data[CAPACITY] = 'b'; /* the first byte again */
	CHECK_EQ(data[2 * CAPACITY - 1], 'a');
	CHECK_EQ(data[0], 'b');
	data[7] = 'c';
	CHECK_EQ(data[CAPACITY + 7], 'c');
	owned_drop(&o);
}

static void note_generation(void *result)
{
	*(uint32_t *)result = mk_fork_generation();
}

static void a_fork_is_counted_in_the_child_alone(void)
{
	uint32_t *in_child = shared(sizeof(*in_child));
	uint32_t before = mk_fork_generation();

	reap_done(spawn(note_generation, in_child));
	CHECK_EQ(*in_child, before + 1);
	CHECK_EQ(mk_fork_generation(), before);
	munmap(in_child, sizeof(*in_child));
}

static void a_registered_process_can_be_made_to_fence(void)
{
	if (mk_membarrier_register())
		skip("membarrier is refused here; senders fence instead");
	CHECK_EQ(mk_membarrier(), 0);
}

static const struct test tests[] = {
	TEST(an_object_is_allocated_sealed_in_size_named_and_closed_on_exec),
	TEST(a_capacity_that_is_no_power_of_two_in_range_makes_nothing),
	TEST(a_shortage_is_an_error_when_it_is_made_and_leaves_nothing),
	TEST(a_sealed_object_reopened_for_writing_can_be_neither_written_nor_resized),
	TEST(another_user_cannot_write_it_either),
	TEST(nor_can_who_is_root_in_a_user_namespace),
	TEST(the_owner_goes_on_writing_after_the_seal_and_readers_see_it),
	TEST(a_second_writable_mapping_is_refused),
	TEST(a_read_only_map_made_before_the_seal_cannot_be_made_writable),
	TEST(a_stray_write_into_another_ones_page_faults_in_the_writer),
	TEST(a_fork_does_not_inherit_the_mapping),
	TEST(a_good_object_is_accepted_and_its_header_copied),
	TEST(what_is_no_memory_object_is_refused),
	TEST(an_object_that_can_still_change_is_refused),
	TEST(an_object_shorter_than_a_header_or_than_it_says_is_refused),
	TEST(an_object_that_is_not_allocated_is_refused),
	TEST(a_header_that_is_wrong_in_one_field_is_refused_for_that_field),
	TEST(a_random_header_is_refused_or_is_right),
	TEST(the_data_area_is_mapped_twice_in_a_row),
	TEST(a_fork_is_counted_in_the_child_alone),
	TEST(a_registered_process_can_be_made_to_fence),
};

RUN_TESTS(tests)
