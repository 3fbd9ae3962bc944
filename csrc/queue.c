/* queue.c: the object, joining and leaving it, lanes, and putting. The protocol is in multikernel/queue.h. */
#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGN 8u
#define OBJECT_SIZE (MK_QUEUE_OUTSIDE_AT + MK_QUEUE_LANES * MK_QUEUE_OUTSIDE)

/* --- the object --------------------------------------------------------------------------------------------------- */

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

/* A lane: its words, and its data twice in a row. @return NULL: errno says why */
static void *map_lane(int fd, unsigned lane, int prot)
{
	off_t at = (off_t)(MK_QUEUE_WORDS_SIZE + lane * MK_QUEUE_LANE_SIZE);
	char *base = mmap(NULL, MK_QUEUE_LANE_SIZE + MK_QUEUE_DATA, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return NULL;
	if (mmap(base, MK_QUEUE_LANE_SIZE, prot, MAP_SHARED | MAP_FIXED, fd, at) == MAP_FAILED ||
	    mmap(base + MK_QUEUE_LANE_SIZE, MK_QUEUE_DATA, prot, MAP_SHARED | MAP_FIXED, fd, at + MK_QUEUE_BLOCK) ==
		    MAP_FAILED) {
		int error = errno;

		munmap(base, MK_QUEUE_LANE_SIZE + MK_QUEUE_DATA);
		errno = error;
		return NULL;
	}
	return base;
}

static void unmap_lane(const void *base)
{
	munmap((void *)(uintptr_t)base, MK_QUEUE_LANE_SIZE + MK_QUEUE_DATA);
}

const struct mk_queue_page *mk_queue_see_lane(struct mk_queue *q, unsigned i)
{
	const struct mk_queue_page *page = map_lane(q->fd, i, PROT_READ);
	const struct mk_queue_page *none = NULL;

	if (page && !atomic_compare_exchange_strong(&q->seen[i], &none, page)) { /* another thread was quicker */
		unmap_lane(page);
		page = none;
	}
	return page;
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

/* Threads of one process have one lane, and one at a time is in it. @return 0; -EBUSY; -errno */
int mk_queue_enter_lane(struct mk_queue *q)
{
	int result = mk_queue_settled(q);

	if (result)
		return result;
	/* Acquire, pairs with the release in mk_queue_leave_lane: the last one's copies of the indices are seen. */
	return atomic_exchange_explicit(&q->putting, true, memory_order_acquire) ? -EBUSY : 0;
}

void mk_queue_leave_lane(struct mk_queue *q)
{
	mk_store_release(&q->putting, false);
}

static void give_lane(struct mk_queue *q)
{
	struct mk_queue_lane *lane = &q->words->lane[q->lane];
	uint64_t token = q->token;

	if (!q->own)
		return;
	mk_store_relaxed(&lane->admitted, q->head);
	/* Release, pairs with the acquire in take_lane: whoever has it next sees what we wrote. */
	atomic_compare_exchange_strong(&lane->owner, &token, 0);
	unmap_lane(q->own);
	q->own = NULL;
	mk_fence(); /* places may have become free; pairs with the fence after S1 */
	mk_queue_ring(&q->words->room);
}

int mk_queue_leave(struct mk_queue *q)
{
	int result = mk_queue_enter_lane(q);

	if (result)
		return result;
	give_lane(q);
	mk_queue_leave_lane(q);
	return 0;
}

void mk_queue_close(struct mk_queue *q)
{
	if (!q)
		return;
	if (mk_queue_settled(q) == 0)
		give_lane(q);
	for (unsigned i = 0; i < MK_QUEUE_LANES; i++)
		if (q->seen[i])
			unmap_lane(q->seen[i]);
	munmap(q->words, MK_QUEUE_WORDS_SIZE);
	free(q);
}

/* --- putting ------------------------------------------------------------------------------------------------------ */

static bool take_lane(struct mk_queue *q, unsigned i)
{
	_Atomic uint64_t *owner = &q->words->lane[i].owner;
	uint64_t had = mk_load_relaxed(owner);

	/* A dead producer's lane goes on where its head says: its last records stand there, what it had not published
	 * is overwritten. Acquire, pairs with the release in give_lane. */
	return (!had || (had != q->token && mk_queue_ended(had))) &&
	       atomic_compare_exchange_strong(owner, &had, q->token);
}

/* @return 0 and q->lane; -EUSERS */
static int find_lane(struct mk_queue *q)
{
	_Atomic uint32_t *lanes = &q->words->lanes;
	uint32_t used = mk_load_acquire(lanes); /* pairs with the release below */
	unsigned i;

	for (i = 0; i < used && i < MK_QUEUE_LANES; i++)
		if (mk_load_relaxed(&q->words->lane[i].owner) == 0 && take_lane(q, i))
			break;
	if (i >= used) /* none is free: whose owner is dead? Or one that was never used */
		for (i = 0; i < MK_QUEUE_LANES && !take_lane(q, i); i++)
			;
	if (i == MK_QUEUE_LANES)
		return -EUSERS;
	q->lane = i;
	while (used <= i &&
	       !atomic_compare_exchange_weak_explicit(lanes, &used, i + 1, memory_order_release, memory_order_relaxed))
		;
	return 0;
}

static uint64_t padded(uint64_t length)
{
	return (length + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

/* Where the record begins that will be taken next, or the next one if all were taken. */
static uint64_t oldest(const struct mk_queue *q)
{
	return q->tail == q->head ? q->position : q->own->entries[q->tail & MK_QUEUE_ENTRY_MASK].position;
}

static int see_tail(struct mk_queue *q)
{
	/* Acquire, pairs with the release in copy_out: the taker has finished reading. Input: checked, then used. */
	uint64_t tail = mk_load_acquire(&q->words->lane[q->lane].tail);

	if (tail - q->tail > q->head - q->tail)
		return -EBADMSG;
	q->tail = tail;
	q->freed = oldest(q);
	return 0;
}

int mk_queue_need_lane(struct mk_queue *q)
{
	struct mk_queue_lane *lane;
	struct mk_queue_entry *last;
	int result;

	result = mk_queue_settled(q);
	if (result || mk_likely(q->own))
		return result;
	result = find_lane(q);
	if (result)
		return result;
	lane = &q->words->lane[q->lane];
	do
		result = -posix_fallocate(q->fd, (off_t)(MK_QUEUE_WORDS_SIZE + q->lane * MK_QUEUE_LANE_SIZE),
					  (off_t)MK_QUEUE_LANE_SIZE);
	while (result == -EINTR);
	if (!result) {
		q->own = map_lane(q->fd, q->lane, PROT_READ | PROT_WRITE);
		result = q->own ? 0 : -errno;
	}
	if (!result) {
		madvise(q->own, MK_QUEUE_LANE_SIZE + MK_QUEUE_DATA,
			MADV_DONTFORK); /* a fork would write into it, too */
		q->head = mk_load_relaxed(&q->own->head);
		q->tail = mk_load_acquire(&lane->tail); /* as in see_tail */
		last = &q->own->entries[(q->head - 1) & MK_QUEUE_ENTRY_MASK];
		q->position = q->head ? last->position + padded(last->length) : 0;
		if (q->head - q->tail > MK_QUEUE_ENTRIES)
			result = -EBADMSG;
	}
	if (result) {
		if (q->own)
			unmap_lane(q->own);
		q->own = NULL;
		mk_store_release(&lane->owner, 0); /* as in give_lane */
		return result;
	}
	q->freed = oldest(q);
	mk_store_relaxed(&q->own->pending, 0); /* a dead one's */
	mk_store_relaxed(&lane->admitted, q->head);
	return 0;
}

static bool fits(const struct mk_queue *q, uint64_t length)
{
	return q->head - q->tail < MK_QUEUE_ENTRIES && q->position + padded(length) - q->freed <= MK_QUEUE_DATA;
}

/* N1-N4 */
static void publish(struct mk_queue *q)
{
	mk_store_relaxed(&q->own->pending, q->token);
	mk_fence(); /* pairs with the fence after S1 */
	mk_queue_ring(&q->words->items);
	/* R1, pairs with the acquire loads of head: whoever sees it sees the record. */
	mk_store_release(&q->own->head, q->head);
	mk_store_release(&q->own->pending, 0); /* pairs with the acquire load in S2: head was raised before */
	mk_queue_ring(&q->words->items);
}

static int put(struct mk_queue *q, uint32_t kind, const void *const *pieces, const uint64_t *lengths, unsigned count)
{
	uint64_t length = 0;
	unsigned char *at;
	int result;

	for (unsigned i = 0; i < count; i++)
		if (lengths[i] > MK_QUEUE_LONGEST || (length += lengths[i]) > MK_QUEUE_LONGEST)
			return -EMSGSIZE;
	if (!length)
		return -EINVAL;
	result = mk_queue_need_lane(q);
	if (result)
		return result;
	if (!fits(q, length)) {
		result = see_tail(q);
		if (result)
			return result;
		if (!fits(q, length))
			return -EAGAIN;
	}
	at = (unsigned char *)q->own + MK_QUEUE_BLOCK + (q->position & MK_QUEUE_DATA_MASK);
	for (unsigned i = 0; i < count; i++) {
		memcpy(at, pieces[i], lengths[i]);
		at += lengths[i];
	}
	q->own->entries[q->head & MK_QUEUE_ENTRY_MASK] = (struct mk_queue_entry){
		.position = q->position, .length = (uint32_t)length, .kind = kind};
	q->position += padded(length);
	q->head++;
	publish(q);
	return 0;
}

int mk_queue_put(struct mk_queue *q, uint32_t kind, const void *const *pieces, const uint64_t *lengths, unsigned count)
{
	int result = mk_queue_enter_lane(q);

	if (result)
		return result;
	result = put(q, kind, pieces, lengths, count);
	mk_queue_leave_lane(q);
	return result;
}

int mk_queue_put_one(struct mk_queue *q, const void *record, uint64_t length)
{
	return mk_queue_put(q, MK_QUEUE_INSIDE, &record, &length, 1);
}

uint64_t mk_queue_tail(const struct mk_queue *q)
{
	return mk_load_relaxed(&q->tail);
}

/* --- large records ------------------------------------------------------------------------------------------------ */

static int outside(struct mk_queue *q, uint64_t length, struct mk_queue_large *large)
{
	uint64_t size = (length + MK_QUEUE_BLOCK - 1) / MK_QUEUE_BLOCK * MK_QUEUE_BLOCK;
	uint64_t at;
	int result;

	if (length > MK_QUEUE_OUTSIDE)
		return -EFBIG;
	result = mk_queue_need_lane(q);
	if (result)
		return result;
	at = q->own->outside % MK_QUEUE_OUTSIDE;
	if (at + size > MK_QUEUE_OUTSIDE) { /* not around the end: there is far more of it than memory */
		q->own->outside += MK_QUEUE_OUTSIDE - at;
		at = 0;
	}
	q->own->outside += size;
	*large = (struct mk_queue_large){.offset = MK_QUEUE_OUTSIDE_AT + q->lane * MK_QUEUE_OUTSIDE + at,
					 .length = length};
	return 0;
}

int mk_queue_outside(struct mk_queue *q, uint64_t length, struct mk_queue_large *large)
{
	int result = mk_queue_enter_lane(q);

	if (result)
		return result;
	result = outside(q, length, large);
	mk_queue_leave_lane(q);
	return result;
}

int mk_queue_fetch(struct mk_queue *q, const struct mk_queue_large *large, void *to)
{
	uint64_t done = 0;

	while (done < large->length) {
		ssize_t n = pread(q->fd, (char *)to + done, large->length - done, (off_t)(large->offset + done));

		if (n == 0)
			return -EIO;
		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

int mk_queue_map(struct mk_queue *q, const struct mk_queue_large *large, void **base)
{
	void *at = mmap(NULL, large->length, PROT_READ, MAP_SHARED, q->fd, (off_t)large->offset);

	if (at == MAP_FAILED)
		return -errno;
	*base = at;
	return 0;
}

int mk_queue_forget(struct mk_queue *q, const struct mk_queue_large *large)
{
	uint64_t size = (large->length + MK_QUEUE_BLOCK - 1) / MK_QUEUE_BLOCK * MK_QUEUE_BLOCK;

	return fallocate(q->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)large->offset, (off_t)size) < 0
		       ? -errno
		       : 0;
}
