/* queue_lane.c: lanes: whose they are, and where they are mapped. The protocol is in multikernel/queue.h. */
#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

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

void mk_queue_unmap_lane(const void *base)
{
	munmap((void *)(uintptr_t)base, MK_QUEUE_LANE_SIZE + MK_QUEUE_DATA);
}

const struct mk_queue_page *mk_queue_see_lane(struct mk_queue *q, unsigned i)
{
	const struct mk_queue_page *page = map_lane(q->fd, i, PROT_READ);
	const struct mk_queue_page *none = NULL;

	if (page && !atomic_compare_exchange_strong(&q->seen[i], &none, page)) { /* another thread was quicker */
		mk_queue_unmap_lane(page);
		page = none;
	}
	return page;
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

void mk_queue_give_lane(struct mk_queue *q)
{
	struct mk_queue_lane *lane = &q->words->lane[q->lane];
	uint64_t token = q->token;

	if (!q->own)
		return;
	mk_store_relaxed(&lane->admitted, q->head);
	/* Release, pairs with the acquire in take_lane: whoever has it next sees what we wrote. */
	atomic_compare_exchange_strong(&lane->owner, &token, 0);
	mk_queue_unmap_lane(q->own);
	q->own = NULL;
	mk_fence(); /* places may have become free; pairs with the fence after S1 */
	mk_queue_ring(&q->words->room);
}

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
		q->position = q->head ? last->position + mk_queue_padded(last->length) : 0;
		if (q->head - q->tail > MK_QUEUE_ENTRIES)
			result = -EBADMSG;
	}
	if (result) {
		if (q->own)
			mk_queue_unmap_lane(q->own);
		q->own = NULL;
		mk_store_release(&lane->owner, 0); /* as in give_lane */
		return result;
	}
	q->freed = mk_queue_oldest(q);
	mk_store_relaxed(&q->own->pending, 0); /* a dead one's */
	mk_store_relaxed(&lane->admitted, q->head);
	return 0;
}
