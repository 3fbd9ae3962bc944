/* queue.h: what the files of the queue share. The protocol is in multikernel/queue.h.
 *
 *     queue.c        the object, joining and leaving it
 *     queue_lane.c   lanes: whose they are, where they are mapped
 *     queue_put.c    putting, large records
 *     queue_take.c   taking, and places
 *     queue_wait.c   waiting, and what the dead have left
 *     queue_claim.c  tokens, claims, bells
 */
#ifndef MULTIKERNEL_QUEUE_PRIVATE_H
#define MULTIKERNEL_QUEUE_PRIVATE_H

#include "multikernel/atomic.h"
#include "multikernel/queue.h"

#define MK_QUEUE_ENTRY_MASK (MK_QUEUE_ENTRIES - 1)
#define MK_QUEUE_DATA_MASK (MK_QUEUE_DATA - 1)

#define MK_QUEUE_WORDS_SIZE ((sizeof(struct mk_queue_words) + MK_QUEUE_BLOCK - 1) / MK_QUEUE_BLOCK * MK_QUEUE_BLOCK)
#define MK_QUEUE_LANE_SIZE ((uint64_t)MK_QUEUE_BLOCK + MK_QUEUE_DATA)
#define MK_QUEUE_OUTSIDE_AT (MK_QUEUE_WORDS_SIZE + MK_QUEUE_LANES * MK_QUEUE_LANE_SIZE)

#define MK_QUEUE_SLICE_NS 10000000u /* how often the life of who is in the way is looked at */

struct mk_queue {
	int fd;
	uint32_t generation; /* mk_fork_generation() of the process that all below belongs to */
	uint64_t token;
	struct mk_queue_words *words;
	/* consumer */
	const struct mk_queue_page *_Atomic seen[MK_QUEUE_LANES]; /* lanes as everybody may map them, NULL: not yet */
	_Atomic bool bad[MK_QUEUE_LANES];
	_Atomic uint64_t dead[MK_QUEUE_LANES]; /* what stands in `pending` of a lane and means nothing: it has ended */
	_Atomic unsigned turn;                 /* the lane to look at first */
	uint64_t filled[MK_QUEUE_LANES]; /* heads as last seen, under `taking`: the producer's line is left alone */
	_Atomic bool more;               /* a hint: the last take has left something */
	/* producer: its lane, and private copies of what stands there */
	_Atomic bool putting;      /* a thread is */
	struct mk_queue_page *own; /* NULL: none yet */
	_Atomic unsigned lane;
	uint64_t head;
	_Atomic uint64_t tail;                  /* read also by who waits for room */
	uint64_t position;                      /* where the next record begins */
	uint64_t freed;                         /* where the oldest begins that is not known to be taken */
	_Atomic uint64_t spin_items, spin_room; /* ns: how long the next wait spins, learned from the last ones */
};

/* --- queue_claim.c */

/* The token of this process. @return 0; -errno: without one nobody could tell that it is alive */
int mk_queue_token(uint64_t *token);

/* Whether the process of a token has ended. What cannot be found out counts as alive. */
bool mk_queue_ended(uint64_t token);

/* Sleep while a word has a value. @param until CLOCK_MONOTONIC, ns; UINT64_MAX: no limit. @return 0 or -errno */
int mk_queue_sleep(const _Atomic uint32_t *word, uint32_t value, uint64_t until);

/* Change a word and wake all who sleep on it. */
void mk_queue_wake(_Atomic uint32_t *word);

/* Without a sleep. @return 0; -EBUSY: it was held all the time */
int mk_queue_try_claim(const struct mk_queue *q, struct mk_queue_claim *claim);

/* @return 0; -EAGAIN: not within a moment (@deadline 0); -ETIMEDOUT, -EINTR */
int mk_queue_claim(const struct mk_queue *q, struct mk_queue_claim *claim, int64_t deadline);
void mk_queue_let_go(struct mk_queue_claim *claim);

/* Take a claim back from a dead holder, for nobody. */
void mk_queue_free_claim(struct mk_queue_claim *claim);

/* N2, N4. All: one alone might be killed before it has done anything about it. */
static inline void mk_queue_ring(struct mk_queue_bell *bell)
{
	if (mk_unlikely(mk_load_relaxed(&bell->sleepers))) /* after the caller's fence, which pairs with S1 */
		mk_queue_wake(&bell->bell);
}

/* --- queue.c */

/* The first call in a forked process makes it that process's. */
static inline int mk_queue_settled(struct mk_queue *q)
{
	return mk_likely(q->generation == mk_fork_generation()) ? 0 : mk_queue_settle(q);
}

/* --- queue_lane.c */

int mk_queue_enter_lane(struct mk_queue *q);
void mk_queue_leave_lane(struct mk_queue *q);

/* Give this process's lane back, if it has one. */
void mk_queue_give_lane(struct mk_queue *q);
void mk_queue_unmap_lane(const void *base);

/* See to it that this process has a lane. @return as mk_queue_put */
int mk_queue_need_lane(struct mk_queue *q);

/* A lane as everybody may map it. @return NULL: errno says why */
const struct mk_queue_page *mk_queue_see_lane(struct mk_queue *q, unsigned i);

static inline const struct mk_queue_page *mk_queue_seen(struct mk_queue *q, unsigned i)
{
	const struct mk_queue_page *page = mk_load_acquire(
		&q->seen[i]); /* pairs with the exchange in mk_queue_see_lane */

	return mk_likely(page) ? page : mk_queue_see_lane(q, i);
}

/* Bytes that a record takes in its lane. */
static inline uint64_t mk_queue_padded(uint64_t length)
{
	return (length + 7) & ~UINT64_C(7);
}

/* Where the record begins that will be taken next, or the next one if all were taken. */
static inline uint64_t mk_queue_oldest(const struct mk_queue *q)
{
	return q->tail == q->head ? q->position : q->own->entries[q->tail & MK_QUEUE_ENTRY_MASK].position;
}

/* How many lanes were ever used. */
static inline unsigned mk_queue_lanes(const struct mk_queue *q)
{
	uint32_t lanes = mk_load_acquire(&q->words->lanes); /* pairs with the release in find_lane */

	return lanes < MK_QUEUE_LANES ? lanes : MK_QUEUE_LANES;
}

#endif
