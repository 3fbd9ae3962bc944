/* queue_wait.c: waiting, and giving back what the dead hold. The protocol is in multikernel/queue.h. */
#include "queue.h"

#include <errno.h>

#include "multikernel/doorbell.h"

#define FIRST_SLEEP_NS 2000000u /* then the caller looks for signals: one may have come while we looked */
#define SPIN_MAX_NS 60000u      /* no longer than a sleep and a wake-up cost */
#define SPIN_WORTH_NS 120000u   /* a wait this short, its wake-up included, should have been spun */
#define PENDING_NS 10000u       /* longer than it takes to ring and then to publish */
#define ROOM_NS 20000u          /* who waited for room lets more of it come: else both would go on step by step */

enum look {
	NOTHING = 0, /* and who brings something will ring */
	READY = 1,
	PENDING = 2, /* somebody is about to, who may be killed before: look again in a slice */
};

static enum look look_for_items(struct mk_queue *q, uint64_t unused)
{
	unsigned lanes = mk_queue_lanes(q);
	enum look found = NOTHING;

	(void)unused;
	for (unsigned i = 0; i < lanes; i++) {
		const struct mk_queue_page *page;
		uint64_t pending;

		if (mk_load_relaxed(&q->bad[i]))
			continue;
		page = mk_queue_seen(q, i);
		if (!page) /* the take says why */
			return READY;
		pending = mk_load_acquire(&page->pending); /* S2, pairs with N3 */
		if (mk_load_acquire(&page->head) != mk_load_relaxed(&q->words->lane[i].tail))
			return READY;
		if (pending && pending != mk_load_relaxed(&q->dead[i]))
			found = PENDING;
	}
	return found;
}

/* S2, for who waits for room: `taking` first, then what its holder changes; pairs with mk_queue_let_go. */
static enum look taker(const struct mk_queue *q)
{
	return mk_load_acquire(&q->words->taking.owner) ? PENDING : NOTHING;
}

static enum look look_for_room(struct mk_queue *q, uint64_t tail)
{
	enum look found = taker(q);

	return mk_load_acquire(&q->words->lane[q->lane].tail) != tail ? READY : found;
}

static enum look look_for_place(struct mk_queue *q, uint64_t unused)
{
	enum look found = taker(q);
	unsigned lanes = mk_queue_lanes(q);

	(void)unused;
	if (mk_queue_count(q) < q->words->places)
		return READY;
	for (unsigned i = 0; i < lanes; i++) {
		const struct mk_queue_page *page = mk_queue_seen(q, i);

		/* A place that was given out and is not used yet: whoever has it may be killed. */
		if (i != q->lane && page &&
		    mk_load_relaxed(&q->words->lane[i].admitted) != mk_load_acquire(&page->head))
			found = PENDING;
	}
	return found;
}

/* After a slice: what the dead hold is given back. */
static void look_for_the_dead(struct mk_queue *q)
{
	unsigned lanes = mk_queue_lanes(q);

	mk_queue_free_claim(&q->words->taking);
	for (unsigned i = 0; i < lanes; i++) {
		struct mk_queue_lane *lane = &q->words->lane[i];
		uint64_t owner = mk_load_relaxed(&lane->owner);
		const struct mk_queue_page *page = mk_queue_seen(q, i);
		uint64_t pending = page ? mk_load_relaxed(&page->pending) : 0;

		if (pending && mk_queue_ended(pending))
			mk_store_relaxed(&q->dead[i], pending);
		if (!page || !owner || !q->words->places ||
		    mk_load_relaxed(&lane->admitted) == mk_load_acquire(&page->head) || !mk_queue_ended(owner) ||
		    mk_queue_claim(q, &q->words->admitting, 0))
			continue;
		/* Under the claim, and the lane still the dead one's: nobody else writes it. A new owner sets it itself. */
		if (mk_load_relaxed(&lane->owner) == owner)
			mk_store_relaxed(&lane->admitted, mk_load_relaxed(&page->head));
		mk_queue_let_go(&q->words->admitting);
	}
}

static void learn(_Atomic uint64_t *spin, uint64_t waited)
{
	if (waited < SPIN_WORTH_NS)
		mk_store_relaxed(spin, SPIN_MAX_NS);
	else
		mk_store_relaxed(spin, mk_load_relaxed(spin) - mk_load_relaxed(spin) / 4);
}

static int wait_for(struct mk_queue *q, enum look (*look)(struct mk_queue *, uint64_t), uint64_t argument,
		    struct mk_queue_bell *bell, _Atomic uint64_t *spin, int64_t deadline, bool again)
{
	uint64_t begin = mk_now();
	uint64_t until = deadline < 0 ? UINT64_MAX : (uint64_t)deadline;
	uint64_t now = begin;

	for (uint64_t end = begin + mk_load_relaxed(spin); !again;) {
		if (look(q, argument) == READY) {
			learn(spin, now - begin);
			return 0;
		}
		if (now >= end || now >= until)
			break;
		for (unsigned i = 0; i < 8; i++)
			mk_pause();
		now = mk_now();
	}
	for (;;) {
		uint32_t value = mk_load_acquire(&bell->bell); /* pairs with mk_queue_wake */
		uint64_t limit = until;
		enum look found;
		int result = 0;

		atomic_fetch_add(&bell->sleepers, 1); /* S1 */
		mk_fence();                           /* pairs with the fences of N1 and N3 */
		found = look(q, argument);
		now = mk_now();
		for (uint64_t end = now + PENDING_NS; found == PENDING && now < end; now = mk_now())
			found = look(q, argument); /* it is a matter of an instant */
		if (found == PENDING && limit > now + MK_QUEUE_SLICE_NS)
			limit = now + MK_QUEUE_SLICE_NS;
		else if (!again && limit > now + FIRST_SLEEP_NS)
			limit = now + FIRST_SLEEP_NS;
		if (found != READY && now < until)
			result = mk_queue_sleep(&bell->bell, value, limit);
		atomic_fetch_sub(&bell->sleepers, 1); /* S4 */
		if (found == READY || look(q, argument) == READY) {
			learn(spin, again ? UINT64_MAX : mk_now() - begin);
			return 0;
		}
		if (result == -EINTR)
			return result;
		now = mk_now();
		if (now >= until)
			return -ETIMEDOUT;
		if (result != -ETIMEDOUT)
			continue;
		if (found == PENDING)
			look_for_the_dead(q);
		if (!again)
			return -EINTR;
	}
}

bool mk_queue_ready(struct mk_queue *q)
{
	return look_for_items(q, 0) == READY;
}

int mk_queue_wait_items(struct mk_queue *q, int64_t deadline, bool again)
{
	return wait_for(q, look_for_items, 0, &q->words->items, &q->spin_items, deadline, again);
}

int mk_queue_wait_room(struct mk_queue *q, uint64_t tail, int64_t deadline, bool again)
{
	int result = wait_for(q, look_for_room, tail, &q->words->room, &q->spin_room, deadline, again);

	for (uint64_t end = mk_now() + ROOM_NS;
	     !result && (deadline < 0 || end < (uint64_t)deadline) && mk_now() < end;)
		mk_pause();
	return result;
}

int mk_queue_wait_place(struct mk_queue *q, int64_t deadline, bool again)
{
	return wait_for(q, look_for_place, 0, &q->words->room, &q->spin_room, deadline, again);
}
