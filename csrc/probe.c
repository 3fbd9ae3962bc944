/* probe.c: the system calls of `multikernel doctor` that Python has no name for. See probe.h. */
#include "multikernel/probe.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv /* headers before Linux 5.16 */
#define SYS_futex_waitv 449
#endif
#ifndef SYS_landlock_create_ruleset /* headers before Linux 5.13 */
#define SYS_landlock_create_ruleset 444
#endif
#define LANDLOCK_VERSION 1u /* LANDLOCK_CREATE_RULESET_VERSION */

#define NAP_NS 1000000L

struct waiter { /* struct futex_waitv of linux/futex.h, absent before 5.16 */
	uint64_t value, address;
	uint32_t flags, reserved;
};
#define WAITER_32_SHARED 2u

static int answer(long result)
{
	return result < 0 ? -errno : 0;
}

int mk_probe_membarrier(void)
{
	int result = mk_membarrier_register();

	return result ? result : mk_membarrier();
}

/* A sealed consumer object, mapped read-only: the words that a lane's other side sleeps on. */
static int map_words(void **words, uint64_t *size)
{
	struct mk_object header = {.kind = MK_KIND_CONSUMER, .capacity = MK_CAPACITY_MIN};
	int fd, result;

	header.size = *size = mk_page_size();
	header.data_offset = (uint32_t)header.size;
	fd = mk_object_create("lane:doctor", header);
	if (fd < 0)
		return fd;
	result = mk_object_seal(fd);
	if (!result)
		result = mk_object_map(fd, header.size, 0, words);
	close(fd);
	return result;
}

/* What a sleep that nobody ends should answer. */
static int slept(long result)
{
	if (result < 0 && errno == ETIMEDOUT)
		return 0;
	return result < 0 ? -errno : -EPROTO; /* nobody woke us, and it says somebody did */
}

int mk_probe_futex(void)
{
	struct timespec nap = {.tv_nsec = NAP_NS};
	void *words;
	uint64_t size;
	int result = map_words(&words, &size);

	if (result)
		return result;
	uint32_t *word = &((struct mk_object *)words)->reserved;
	result = slept(syscall(SYS_futex, word, FUTEX_WAIT, *word, &nap, NULL, 0));
	mk_object_unmap(words, size);
	return result;
}

int mk_probe_futex_waitv(void)
{
	struct timespec until;
	void *words;
	uint64_t size;
	int result = map_words(&words, &size);

	if (result)
		return result;
	const struct mk_object *object = words;
	struct waiter waiters[2] = {
		{.value = object->reserved, .address = (uintptr_t)&object->reserved, .flags = WAITER_32_SHARED},
		{.value = object->owner_pid, .address = (uintptr_t)&object->owner_pid, .flags = WAITER_32_SHARED},
	};
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += NAP_NS;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	result = slept(syscall(SYS_futex_waitv, waiters, 2, 0, &until, CLOCK_MONOTONIC));
	mk_object_unmap(words, size);
	return result;
}

int mk_probe_mlock(void)
{
	uint64_t size = mk_page_size();
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int result;

	if (page == MAP_FAILED)
		return -errno;
	result = answer(mlock(page, size));
	munmap(page, size); /* unlocks it, too */
	return result;
}

int mk_probe_landlock(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION);

	return abi < 0 ? -errno : (int)abi;
}

int mk_probe_user_namespace(void)
{
	return answer(unshare(CLONE_NEWUSER));
}

int mk_probe_mount_namespace(void)
{
	return answer(unshare(CLONE_NEWNS));
}

int mk_probe_perf(void)
{
	struct perf_event_attr cycles;
	uint64_t count;
	int fd, result;

	memset(&cycles, 0, sizeof(cycles));
	cycles.size = sizeof(cycles);
	cycles.type = PERF_TYPE_HARDWARE;
	cycles.config = PERF_COUNT_HW_CPU_CYCLES;
	cycles.exclude_kernel = 1; /* what an ordinary user may ask for at perf_event_paranoid 2 */
	cycles.exclude_hv = 1;
	fd = (int)syscall(SYS_perf_event_open, &cycles, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return -errno;
	result = read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? 0 : -EPROTO;
	close(fd);
	return result;
}
