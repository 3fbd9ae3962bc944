/* queue_take.c: taking, and places. The protocol is in multikernel/queue.h. */
#include "queue.h"

#include <errno.h>
#include <string.h>

/* --- taking ------------------------------------------------------------------------------------------------------- */

/* Take the next record of a lane that has one. As mk_queue_take. */
static int64_t copy_out(struct mk_queue *q, unsigned i, const struct mk_queue_page *page, uint64_t tail, void *to,
			uint64_t room, struct mk_queue_taken *taken)
{
	const volatile struct mk_queue_entry *entry = &page->entries[tail & MK_QUEUE_ENTRY_MASK];
	/* Copied once, checked, then used. */
	uint64_t position = entry->position;
	uint32_t length = entry->length;
	uint32_t kind = entry->kind;
	struct mk_queue_large large = {0};

	*taken = (struct mk_queue_taken){.length = length};
	if (length == 0 || length > MK_QUEUE_LONGEST || kind > MK_QUEUE_LARGE ||
	    (kind == MK_QUEUE_LARGE && length != sizeof(large)))
		return -EBADMSG;
	if (length > room)
		return 0;
	memcpy(to, (const unsigned char *)page + MK_QUEUE_BLOCK + (position & MK_QUEUE_DATA_MASK), length);
	if (kind == MK_QUEUE_LARGE) {
		uint64_t first = MK_QUEUE_OUTSIDE_AT + i * MK_QUEUE_OUTSIDE;

		memcpy(&large, to, sizeof(large));
		if (large.offset < first || large.offset - first >= MK_QUEUE_OUTSIDE || large.length == 0 ||
		    large.length > MK_QUEUE_OUTSIDE - (large.offset - first) || large.offset % MK_QUEUE_BLOCK)
			return -EBADMSG;
		taken->large = large;
	}
	mk_fence();                     /* N1 was `taking`; pairs with the fence after S1 */
	mk_queue_ring(&q->words->room); /* N2 */
	/* Pairs with the acquire in see_tail. From here on it is ours. */
	mk_store_release(&q->words->lane[i].tail, tail + 1);
	mk_store_relaxed(&q->turn, i + 1);
	return kind == MK_QUEUE_LARGE ? 0 : (int64_t)length;
}

static int64_t take_from_some(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken)
{
	unsigned lanes = mk_queue_lanes(q);
	unsigned first = mk_load_relaxed(&q->turn);

	for (unsigned looked = 0; looked < lanes; looked++) {
		unsigned i = (first + looked) % lanes;
		const struct mk_queue_page *page;
		uint64_t tail, there;
		int64_t result;

		if (mk_load_relaxed(&q->bad[i]))
			continue;
		page = mk_queue_seen(q, i);
		if (!page)
			return -errno;
		tail = mk_load_relaxed(&q->words->lane[i].tail); /* only who holds `taking` changes it */
		there = q->filled[i] - tail;
		if (there - 1 >= MK_QUEUE_ENTRIES) { /* none that we know of, or others took more than we knew of */
			q->filled[i] = mk_load_acquire(&page->head); /* pairs with R1 */
			there = q->filled[i] - tail;
		}
		if (!there)
			continue;
		mk_store_relaxed(&q->more, there > 1);
		result = there > MK_QUEUE_ENTRIES ? -EBADMSG : copy_out(q, i, page, tail, to, room, taken);
		if (result == -EBADMSG)
			mk_store_relaxed(&q->bad[i], true);
		return result;
	}
	return -EAGAIN;
}

/* @return 0; -EAGAIN: there is nothing to get in anybody's way for; -errno */
static int worth_a_claim(struct mk_queue *q)
{
	int result = mk_queue_settled(q);

	return result || mk_load_relaxed(&q->more) || mk_queue_ready(q) ? result : -EAGAIN;
}

static int64_t take(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken)
{
	int64_t result = take_from_some(q, to, room, taken);

	if (result == -EAGAIN)
		mk_store_relaxed(&q->more, false);
	mk_queue_let_go(&q->words->taking); /* N3, with a fence that pairs with the one after S1 */
	mk_queue_ring(&q->words->room);     /* N4 */
	return result;
}

int64_t mk_queue_take(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken, int64_t deadline)
{
	int result = worth_a_claim(q);

	if (!result)
		result = mk_queue_claim(q, &q->words->taking, deadline);
	return result ? result : take(q, to, room, taken);
}

int64_t mk_queue_try_take(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken)
{
	int result = worth_a_claim(q);

	if (!result)
		result = mk_queue_try_claim(q, &q->words->taking);
	return result ? result : take(q, to, room, taken);
}

/* --- places ------------------------------------------------------------------------------------------------------- */

/* Records that have a place: all that were put, and more where they are given out first. */
uint64_t mk_queue_count(struct mk_queue *q)
{
	unsigned lanes = mk_queue_lanes(q);
	uint64_t sum = 0;

	for (unsigned i = 0; i < lanes; i++) {
		const struct mk_queue_lane *lane = &q->words->lane[i];
		uint64_t tail = mk_load_acquire(&lane->tail); /* first, since the others only get larger */
		const struct mk_queue_page *page = mk_queue_seen(q, i);
		uint64_t head = page ? mk_load_acquire(&page->head) : tail; /* pairs with R1 */
		uint64_t admitted = mk_load_relaxed(&lane->admitted);
		uint64_t there = head - tail;

		if (q->words->places && admitted - tail > there && admitted - tail <= q->words->places)
			there = admitted - tail;
		sum += there <= q->words->places || there <= MK_QUEUE_ENTRIES ? there : 0;
	}
	return sum;
}

static int admit(struct mk_queue *q, uint64_t waiting, int64_t deadline)
{
	_Atomic uint64_t *admitted;
	int result = mk_queue_need_lane(q);

	if (result || !q->words->places)
		return result;
	result = mk_queue_claim(q, &q->words->admitting, deadline);
	if (result)
		return result;
	admitted = &q->words->lane[q->lane].admitted; /* read by others under the claim, or as a hint */
	mk_store_relaxed(admitted, q->head + waiting);
	if (mk_queue_count(q) < q->words->places)
		mk_store_relaxed(admitted, q->head + waiting + 1);
	else
		result = -EAGAIN;
	mk_queue_let_go(&q->words->admitting);
	return result;
}

int mk_queue_admit(struct mk_queue *q, uint64_t waiting, int64_t deadline)
{
	int result = mk_queue_enter_lane(q);

	if (result)
		return result;
	result = admit(q, waiting, deadline);
	mk_queue_leave_lane(q);
	return result;
}
