/* queue_put.c: putting, and large records. The protocol is in multikernel/queue.h. */
#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int see_tail(struct mk_queue *q)
{
	/* Acquire, pairs with the release in copy_out: the taker has finished reading. Input: checked, then used. */
	uint64_t tail = mk_load_acquire(&q->words->lane[q->lane].tail);

	if (tail - q->tail > q->head - q->tail)
		return -EBADMSG;
	q->tail = tail;
	q->freed = mk_queue_oldest(q);
	return 0;
}

static bool fits(const struct mk_queue *q, uint64_t length)
{
	return q->head - q->tail < MK_QUEUE_ENTRIES &&
	       q->position + mk_queue_padded(length) - q->freed <= MK_QUEUE_DATA;
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
	q->position += mk_queue_padded(length);
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
