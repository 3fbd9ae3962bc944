/* queue.c: the object, joining and leaving it. The protocol is in multikernel/queue.h. */
#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define OBJECT_SIZE (MK_QUEUE_OUTSIDE_AT + MK_QUEUE_LANES * MK_QUEUE_OUTSIDE)

static uint64_t namespace_of(const char *path)
{
	struct stat file;

	return stat(path, &file) < 0 ? 0 : (uint64_t)file.st_ino;
}

int mk_queue_create(uint64_t places)
{
	struct mk_queue_words words = {.magic = MK_QUEUE_MAGIC,
				       .abi = MK_ABI_VERSION,
				       .size = OBJECT_SIZE,
				       .places = places,
				       .pid_namespace = namespace_of("/proc/self/ns/pid"),
				       .time_namespace = namespace_of("/proc/self/ns/time")};
	int fd = memfd_create("queue", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int error = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)OBJECT_SIZE) < 0)
		error = errno;
	while (!error && (error = posix_fallocate(fd, 0, MK_QUEUE_WORDS_SIZE)) == EINTR)
		error = 0;
	if (!error && pwrite(fd, &words, offsetof(struct mk_queue_words, lanes), 0) < 0)
		error = errno;
	if (!error && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		error = errno;
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

static int check(int fd)
{
	struct mk_queue_words words;
	struct stat file;
	size_t size = offsetof(struct mk_queue_words, lanes);
	int wanted = F_SEAL_SHRINK | F_SEAL_GROW;

	if (fstat(fd, &file) < 0)
		return -errno;
	if (!S_ISREG(file.st_mode) || (fcntl(fd, F_GET_SEALS) & wanted) != wanted ||
	    (uint64_t)file.st_size != OBJECT_SIZE || pread(fd, &words, size, 0) != (ssize_t)size ||
	    words.magic != MK_QUEUE_MAGIC || words.abi != MK_ABI_VERSION || words.size != OBJECT_SIZE)
		return -EPROTO;
	if (words.pid_namespace != namespace_of("/proc/self/ns/pid") ||
	    words.time_namespace != namespace_of("/proc/self/ns/time"))
		return -EXDEV;
	return 0;
}

int mk_queue_open(struct mk_queue **out, int fd)
{
	int result = check(fd);
	struct mk_queue *q;
	void *base;

	if (result)
		return result;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	base = mmap(NULL, MK_QUEUE_WORDS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		result = -errno;
		free(q);
		return result;
	}
	q->fd = fd;
	q->words = base;
	q->generation = mk_fork_generation();
	result = mk_queue_token(&q->token);
	if (result) {
		munmap(base, MK_QUEUE_WORDS_SIZE);
		free(q);
		return result;
	}
	*out = q;
	return 0;
}

/* The lane, which is not mapped here, is the parent's, and so is the token. */
int mk_queue_settle(struct mk_queue *q)
{
	uint32_t generation = mk_fork_generation();
	int result;

	if (mk_likely(q->generation == generation))
		return 0;
	q->own = NULL;
	mk_store_relaxed(&q->putting, false);
	result = mk_queue_token(&q->token);
	if (!result)
		q->generation = generation;
	return result;
}

int mk_queue_leave(struct mk_queue *q)
{
	int result = mk_queue_enter_lane(q);

	if (result)
		return result;
	mk_queue_give_lane(q);
	mk_queue_leave_lane(q);
	return 0;
}

void mk_queue_close(struct mk_queue *q)
{
	if (!q)
		return;
	if (mk_queue_settled(q) == 0)
		mk_queue_give_lane(q);
	for (unsigned i = 0; i < MK_QUEUE_LANES; i++)
		if (q->seen[i])
			mk_queue_unmap_lane(q->seen[i]);
	munmap(q->words, MK_QUEUE_WORDS_SIZE);
	free(q);
}
