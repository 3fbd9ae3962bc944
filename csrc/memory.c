/* memory.c: memory objects. See memory.h.
 *
 * Order, for every object: create, allocate, write the header, seal the size; then its owner maps it writable,
 * seals the writing, and closes the writable descriptor. A reader sees the seals and the size on the descriptor
 * it was given before it maps it.
 */
#include "multikernel/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "multikernel/atomic.h"

#ifndef F_SEAL_FUTURE_WRITE /* glibc before 2.31 */
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)
#define OWNER_SEALS (F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

static _Atomic uint32_t fork_generation;

static void count_fork(void)
{
	atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, count_fork);
}

const _Atomic uint32_t *mk_fork_generation_word(void)
{
	return &fork_generation;
}

uint32_t mk_fork_generation(void)
{
	return mk_load_relaxed(&fork_generation); /* changes only while the process has one thread */
}

uint64_t mk_page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

int mk_object_create(const char *name, struct mk_object header)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int error;

	if (fd < 0)
		return -errno;
	header.magic = MK_MAGIC;
	header.abi = MK_ABI_VERSION;
	do
		error = posix_fallocate(fd, 0, (off_t)header.size);
	while (error == EINTR);
	if (!error && pwrite(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header))
		error = errno ? errno : EIO;
	if (!error && fcntl(fd, F_ADD_SEALS, SIZE_SEALS) < 0)
		error = errno;
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

int mk_object_reopen(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = open(path, O_RDONLY | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

int mk_object_seal(int fd)
{
	return fcntl(fd, F_ADD_SEALS, OWNER_SEALS) < 0 ? -errno : 0;
}

static uint64_t size_of_page(uint32_t kind)
{
	if (kind == MK_KIND_STATUS)
		return sizeof(struct mk_status);
	return kind == MK_KIND_MACHINE ? sizeof(struct mk_machine) : sizeof(struct mk_roster);
}

static enum mk_refusal refuse_shape(const struct mk_object *h, uint64_t file_size)
{
	if (h->magic != MK_MAGIC)
		return MK_REFUSED_MAGIC;
	if (h->abi != MK_ABI_VERSION)
		return MK_REFUSED_ABI;
	if (h->size != file_size)
		return MK_REFUSED_SIZE;
	if (h->kind == MK_KIND_STATUS || h->kind == MK_KIND_MACHINE || h->kind == MK_KIND_ROSTER)
		return h->size < size_of_page(h->kind) ? MK_REFUSED_SIZE : MK_REFUSED_NOT;
	/* Lanes and consoles: the capacity is a power of two in range, and the size is what follows from it. */
	if (h->capacity < MK_CAPACITY_MIN || h->capacity > MK_CAPACITY_MAX || (h->capacity & (h->capacity - 1)))
		return MK_REFUSED_CAPACITY;
	if (h->data_offset != mk_page_size() || h->capacity % mk_page_size())
		return MK_REFUSED_CAPACITY;
	if (h->size != h->data_offset + (h->kind == MK_KIND_CONSUMER ? 0 : h->capacity))
		return MK_REFUSED_SIZE;
	if (h->element > h->capacity)
		return MK_REFUSED_ELEMENT;
	return MK_REFUSED_NOT;
}

static int check(int fd, uint32_t kind, int owned, struct mk_object *header, enum mk_refusal *why)
{
	struct stat file;
	int wanted = SIZE_SEALS | (owned ? OWNER_SEALS : 0);
	int seals;

	if (fstat(fd, &file) < 0)
		return -errno;
	*why = MK_REFUSED_KIND_OF_FILE;
	if (!S_ISREG(file.st_mode))
		return -EPROTO;
	seals = fcntl(fd, F_GET_SEALS); /* EINVAL on everything but a memfd: it also keeps FUSE files out */
	if (seals < 0)
		return -EPROTO;
	*why = MK_REFUSED_SEALS;
	if ((seals & wanted) != wanted)
		return -EPROTO;
	*why = MK_REFUSED_SHORT;
	if (file.st_size < (off_t)sizeof(*header))
		return -EPROTO;
	if (pread(fd, header, sizeof(*header), 0) != (ssize_t)sizeof(*header)) /* the one copy that is checked */
		return -EPROTO;
	*why = MK_REFUSED_SIZE; /* a hole would be filled when we read it, at our expense, or be a SIGBUS */
	if (file.st_blocks < file.st_size / 512)
		return -EPROTO;
	*why = refuse_shape(header, (uint64_t)file.st_size);
	if (*why)
		return -EPROTO;
	*why = MK_REFUSED_KIND;
	if (header->kind != kind)
		return -EPROTO;
	*why = MK_REFUSED_NOT;
	return 0;
}

int mk_object_check(int fd, uint32_t kind, int owned, struct mk_object *header, uint32_t *why)
{
	enum mk_refusal refusal = MK_REFUSED_NOT;
	int result = check(fd, kind, owned, header, &refusal);

	if (why)
		*why = refusal;
	return result;
}

/* The descriptor to map from. A read-only map of a descriptor that may write could be made writable later, as long
 * as the object is not sealed by its owner; so such a map comes from a read-only one. @return descriptor or -errno */
static int to_map(int fd, int writable)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	return writable || (flags & O_ACCMODE) == O_RDONLY ? fd : mk_object_reopen(fd);
}

int mk_object_map(int fd, uint64_t size, int writable, void **base)
{
	int prot = PROT_READ | (writable ? PROT_WRITE : 0);
	int from = to_map(fd, writable);
	void *at;
	int error;

	if (from < 0)
		return from;
	at = mmap(NULL, size, prot, MAP_SHARED, from, 0);
	error = errno;
	if (from != fd)
		close(from);
	if (at == MAP_FAILED)
		return -error;
	madvise(at, size, MADV_DONTFORK); /* a fork's copy would be a second writer: let it fault instead */
	*base = at;
	return 0;
}

int mk_object_map_twice(int fd, const struct mk_object *header, int writable, void **base)
{
	int prot = PROT_READ | (writable ? PROT_WRITE : 0);
	uint64_t once = header->data_offset + header->capacity;
	uint64_t whole = once + header->capacity;
	int from = to_map(fd, writable);
	int error = 0;
	char *at;

	if (from < 0)
		return from;
	at = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED || mmap(at, once, prot, MAP_SHARED | MAP_FIXED, from, 0) == MAP_FAILED ||
	    mmap(at + once, header->capacity, prot, MAP_SHARED | MAP_FIXED, from, (off_t)header->data_offset) ==
		    MAP_FAILED)
		error = errno;
	if (from != fd)
		close(from);
	if (error) {
		if (at != MAP_FAILED)
			munmap(at, whole);
		return -error;
	}
	madvise(at, whole, MADV_DONTFORK);
	*base = at;
	return 0;
}

void mk_object_unmap(void *base, uint64_t size)
{
	if (base)
		munmap(base, size);
}

static int membarrier(int command)
{
	return syscall(SYS_membarrier, command, 0, 0) < 0 ? -errno : 0;
}

int mk_membarrier_register(void)
{
	int result = membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);

	return result ? result : membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
}

int mk_membarrier(void)
{
	return membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}

int mk_membarrier_own(void)
{
	return membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
}
