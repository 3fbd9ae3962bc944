/* broadcast.c: the sender of a broadcast. See broadcast.h.
 *
 * For each receiver the sender has a struct mk_sender that shares the one producer page with the others, so that
 * waiting and ringing are those of a lane. Such a peer owns nothing of that page: only its own half is let go with it.
 */
#include "multikernel/broadcast.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "multikernel/doorbell.h"

#define ASK_NS 1000000u     /* how often the system is asked whether the maker lives, when nobody listens */
#define ASK_PUBLISHES 1024u /* one that overwrites asks after its receivers so often: nothing else tells it */

struct peer {
	struct mk_sender *lane;
	uint32_t number;
};

struct mk_broadcast {
	struct mk_sender *own; /* the claimed object; .head is that of what was written */
	const struct mk_roster *roster;
	uint64_t roster_size;
	struct peer *peers;
	unsigned count, room;
	uint64_t shown;            /* head as published */
	uint64_t looked;           /* shown, at the last look at the roster that found nobody new */
	uint64_t floor;            /* no receiver stands before it, as last seen */
	uint64_t oldest;           /* as published */
	uint64_t sent;             /* records; the number of the next one */
	uint64_t wanted;           /* room that was lacking */
	struct mk_sender *slowest; /* whose room it was; NULL: nobody's */
	struct mk_sender *waited;  /* for whom the last wait was */
	uint64_t asked;            /* CLOCK_MONOTONIC, ns: when the maker's life was last looked at */
	uint64_t publishes;
	uint64_t bad_value;
	uint32_t bad;
	uint32_t seen, announced; /* of the roster's count: taken in, and to be taken in */
	uint32_t parks;           /* the producer's parked word is one for all peers, and so is its number */
	int maker;
	bool overwrites;
	bool maker_ended;
};

/* --- claiming, and more receivers --------------------------------------------------------------------------------- */

int mk_broadcast_claim(struct mk_broadcast **out, int producer_fd, int roster_fd, int maker, uint8_t policy,
		       bool interpreted, uint32_t *why)
{
	struct mk_broadcast *cast = calloc(1, sizeof(*cast));
	struct mk_object shape;
	void *base = NULL;
	int result;

	if (!cast)
		return -ENOMEM;
	result = mk_object_check(roster_fd, MK_KIND_ROSTER, 1, &shape, why);
	if (!result)
		result = mk_object_map(roster_fd, shape.size, 0, &base);
	if (!result)
		result = mk_sender_claim(&cast->own, producer_fd, NULL, why);
	if (result) {
		if (base)
			mk_object_unmap(base, shape.size);
		free(cast);
		return result;
	}
	cast->roster = base;
	cast->roster_size = shape.size;
	cast->maker = maker;
	cast->own->end.policy = policy;
	cast->own->end.interpreted = interpreted;
	cast->overwrites = (cast->own->own->object.flags & MK_OVERWRITES) != 0;
	cast->shown = cast->looked = cast->floor = cast->oldest = cast->own->head;
	if (cast->overwrites)
		mk_store_release(&cast->own->own->oldest, cast->oldest); /* nothing is there yet */
	*out = cast;
	return 0;
}

/* A struct mk_sender over the producer page that is mapped already. */
static struct mk_sender *new_peer(const struct mk_broadcast *cast)
{
	struct mk_sender *peer = calloc(1, sizeof(*peer));
	const struct mk_end *own = &cast->own->end;

	if (!peer)
		return NULL;
	peer->own = cast->own->own;
	peer->data = cast->own->data;
	peer->head = cast->own->head;
	peer->tail = cast->looked; /* where it begins, or before it: see N4 */
	peer->end.shape = own->shape;
	peer->end.mask = own->mask;
	peer->end.parked = own->parked;
	peer->end.bell = own->bell;
	peer->end.state = own->state;
	peer->end.cpu = own->cpu;
	peer->end.counters = peer->end.wait_counters = &peer->end.own_counters;
	peer->end.generation = own->generation;
	peer->end.fence = own->fence;
	peer->end.policy = own->policy;
	peer->end.interpreted = own->interpreted;
	peer->end.sending = true;
	peer->end.socket = peer->end.pidfd = peer->end.event = peer->end.event_self = -1;
	return peer;
}

int mk_broadcast_add(struct mk_broadcast *cast, int consumer_fd, int socket, uint32_t number, uint32_t *why)
{
	struct mk_sender *peer;
	int result;

	if (cast->count == cast->room) {
		unsigned room = cast->room ? 2 * cast->room : 8;
		struct peer *peers = realloc(cast->peers, room * sizeof(*peers));

		if (!peers)
			return -ENOMEM;
		cast->peers = peers;
		cast->room = room;
	}
	peer = new_peer(cast);
	if (!peer)
		return -ENOMEM;
	result = mk_sender_attach(peer, consumer_fd, 0, socket, -1, why);
	if (result) {
		free(peer);
		return result;
	}
	if (cast->own->head - peer->tail > cast->own->head - cast->floor)
		cast->floor = peer->tail;
	cast->peers[cast->count++] = (struct peer){peer, number};
	return 0;
}

void mk_broadcast_caught_up(struct mk_broadcast *cast)
{
	cast->seen = cast->announced;
}

static void let_go(struct mk_sender *peer)
{
	if (peer->end.generation == mk_fork_generation()) /* nothing is mapped in a forked copy */
		mk_object_unmap(peer->end.peer_map, peer->end.peer_map_size);
	mk_end_close(&peer->end); /* it has no map of its own, so this closes its descriptors and nothing else */
	free(peer);
}

static void drop(struct mk_broadcast *cast, unsigned i)
{
	if (cast->slowest == cast->peers[i].lane)
		cast->slowest = NULL;
	if (cast->waited == cast->peers[i].lane)
		cast->waited = NULL;
	let_go(cast->peers[i].lane);
	cast->peers[i] = cast->peers[--cast->count];
}

static bool nobody_comes(struct mk_broadcast *cast)
{
	struct pollfd ended = {.fd = cast->maker, .events = POLLIN};
	uint64_t now;

	if (cast->maker_ended || mk_load_acquire(&cast->roster->state) == MK_END_CLOSED)
		return true;
	now = mk_now();
	if (now - cast->asked >= ASK_NS) {
		cast->asked = now;
		cast->maker_ended = cast->maker >= 0 && poll(&ended, 1, 0) > 0;
	}
	return cast->maker_ended;
}

/* M1. @return 0, -ENOTCONN, -EPIPE */
static int look_for_more(struct mk_broadcast *cast)
{
	uint32_t count = mk_load_acquire(&cast->roster->count); /* pairs with N2 */

	if (mk_unlikely(count != cast->seen)) {
		cast->announced = count;
		return -ENOTCONN;
	}
	cast->looked = cast->shown;
	return mk_unlikely(!cast->count) && nobody_comes(cast) ? -EPIPE : 0;
}

static void drop_the_gone(struct mk_broadcast *cast)
{
	for (unsigned i = cast->count; i-- > 0;)
		if (mk_end_gone(&cast->peers[i].lane->end, true))
			drop(cast, i);
}

int mk_broadcast_receivers(struct mk_broadcast *cast)
{
	if (look_for_more(cast) == -ENOTCONN)
		return -ENOTCONN;
	drop_the_gone(cast);
	return (int)cast->count;
}

uint32_t mk_broadcast_bad(const struct mk_broadcast *cast, uint64_t *value)
{
	*value = cast->bad_value;
	return cast->bad;
}

/* --- room --------------------------------------------------------------------------------------------------------- */

static bool is_claimed(const struct mk_sender *peer)
{
	/* Pairs with the release store of the state at the claim. */
	return mk_load_acquire(peer->end.peer_state) != MK_END_UNCLAIMED;
}

/* @return 0 or -EBADMSG */
static int reload(struct mk_sender *peer, uint64_t head)
{
	bool claimed = is_claimed(peer);
	/* A2, pairs with R2 in mk_release, and before the claim with N4. Input: copied, checked, used. */
	uint64_t tail = mk_load_acquire(&peer->peer->tail);

	if (tail - peer->tail > head - peer->tail || tail % MK_RECORD_ALIGN)
		return claimed ? mk_quarantine(&peer->end, MK_BAD_TAIL, tail) : 0; /* its maker is not there yet */
	peer->tail = tail;
	return 0;
}

/* Look where everybody stands; drop who has gone. @return 0, -EAGAIN, -EBADMSG */
static int find_room(struct mk_broadcast *cast, uint64_t size)
{
	uint64_t head = cast->own->head, most = 0;

	cast->slowest = NULL;
	for (unsigned i = cast->count; i-- > 0;) {
		struct mk_sender *peer = cast->peers[i].lane;

		if (mk_end_gone(&peer->end, false)) {
			drop(cast, i);
			continue;
		}
		if (reload(peer, head)) {
			cast->bad = cast->peers[i].number;
			cast->bad_value = peer->end.bad_value;
			drop(cast, i);
			return -EBADMSG;
		}
		if (head - peer->tail > most) {
			most = head - peer->tail;
			cast->slowest = peer;
		}
	}
	cast->floor = head - most;
	if (cast->own->end.mask + 1 - most >= size)
		return 0;
	cast->wanted = size;
	return -EAGAIN;
}

/* Nobody has claimed it, so no tail moves: wait until somebody does, and says so, or until nobody can any more. */
static int wait_for_claim(struct mk_sender *peer, int64_t timeout_ns)
{
	struct pollfd fds[2] = {{.fd = peer->end.socket, .events = POLLIN}, {.fd = peer->end.pidfd, .events = POLLIN}};
	struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
	int result = ppoll(fds, 2, timeout_ns < 0 ? NULL : &limit, NULL);

	if (result < 0)
		return -errno;
	return mk_end_gone(&peer->end, true) || is_claimed(peer) || result ? 0 : -ETIMEDOUT;
}

int mk_broadcast_wait(struct mk_broadcast *cast, int64_t timeout_ns, bool goes_on)
{
	struct mk_sender *peer = cast->slowest;
	int result;

	if (!peer)
		return 0;
	if (!is_claimed(peer))
		return wait_for_claim(peer, timeout_ns);
	peer->head = cast->own->head;
	peer->wanted = cast->wanted;
	peer->end.parks = cast->parks; /* a number that no receiver has seen: one ring answers one park */
	if (!goes_on ||
	    peer != cast->waited) /* the parked word is one for all: what it says may be of another's wait */
		peer->end.signals_seen = false;
	cast->waited = peer;
	result = mk_wait(&peer->end, timeout_ns);
	cast->parks = peer->end.parks;
	return result;
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

uint64_t mk_broadcast_longest(const struct mk_broadcast *cast)
{
	uint64_t most = (cast->own->end.mask + 1) / (cast->overwrites ? 2 : 1) - sizeof(struct mk_record);

	return most < UINT32_MAX ? most : UINT32_MAX;
}

/* B1: leave as many of the oldest records behind as it takes. */
static void leave_oldest(struct mk_broadcast *cast, uint64_t size)
{
	const struct mk_sender *own = cast->own;

	if (own->head + size - cast->oldest <= own->end.mask + 1)
		return;
	while (own->head + size - cast->oldest > own->end.mask + 1) {
		const struct mk_record *record = (const struct mk_record *)(const void *)(own->data + (cast->oldest &
												       own->end.mask));

		cast->oldest += mk_record_size(record->length); /* our own page, our own words */
	}
	mk_store_release(&own->own->oldest, cast->oldest); /* B1, pairs with F1 and F3 */
}

int mk_broadcast_put(struct mk_broadcast *cast, const void *payload, uint64_t length)
{
	struct mk_sender *own = cast->own;
	struct mk_record header = {.length = (uint32_t)length, .type = MK_MSG_USER, .id = cast->sent};
	uint64_t size = mk_record_size(length);
	unsigned char *slot;
	int result;

	if (mk_unlikely(length > mk_broadcast_longest(cast)))
		return -EMSGSIZE;
	/* What is not published is not overwritten. One that overwrites leaves at least one record that is: the room for
	 * this half of the ring is made record by record, and none is longer than the other half. This comes before the
	 * look, for what `looked` promises. */
	if (mk_unlikely(own->head + size - cast->shown > (own->end.mask + 1) / (cast->overwrites ? 2 : 1)))
		mk_broadcast_publish(cast);
	result = look_for_more(cast);
	if (mk_unlikely(result))
		return result;
	slot = own->data + (own->head & own->end.mask);
	if (cast->overwrites) {
		leave_oldest(cast, size);
		mk_fence_release(); /* B2, pairs with F2 */
		mk_put_words(slot, &header, sizeof(header));
		mk_put_words(slot + sizeof(header), payload, length);
	} else {
		if (mk_unlikely(own->end.mask + 1 - (own->head - cast->floor) < size)) {
			result = find_room(cast, size);
			if (result)
				return result;
		}
		memcpy(slot, &header, sizeof(header));
		if (length)
			memcpy(slot + sizeof(header), payload, length);
	}
	own->head += size;
	cast->sent++;
	return 0;
}

void mk_broadcast_publish(struct mk_broadcast *cast)
{
	struct mk_producer *page = cast->own->own;

	if (cast->shown == cast->own->head)
		return;
	mk_store_relaxed(&page->begun, cast->sent);     /* ordered before head by its release; pairs with N4 */
	mk_store_release(&page->head, cast->own->head); /* R1 and B3, pair with A1 and F1 */
	mk_store_release(&page->published, cast->sent); /* pairs with N4 */
	cast->shown = cast->own->head;
	if (mk_unlikely(cast->own->end.fence))
		mk_fence(); /* for the looks below, as in mk_notify, and for the next M1 */
	for (unsigned i = cast->count; i-- > 0;) {
		struct mk_end *end = &cast->peers[i].lane->end;

		if (mk_unlikely(mk_load_relaxed(end->peer_parked) & MK_PARKED_MODE)) /* P1 */
			mk_ring_bell(end);
		if (mk_unlikely(end->gone))
			drop(cast, i);
	}
	if (mk_unlikely(++cast->publishes % ASK_PUBLISHES == 0) && cast->overwrites)
		drop_the_gone(cast);
}

/* --- end ---------------------------------------------------------------------------------------------------------- */

static void say_closed(struct mk_broadcast *cast)
{
	struct mk_end *own = &cast->own->end;

	/* As in mk_end_close, which knows of one peer only. */
	mk_store_release(own->state, MK_END_CLOSED);
	mk_store_release(own->parked, ++cast->parks << 2 | MK_PARKED_SOCKET);
	own->parks = cast->parks;
	mk_fence(); /* look for parks that have just begun */
	for (unsigned i = 0; i < cast->count; i++) {
		cast->peers[i].lane->end.rung = 0;
		mk_ring_bell(&cast->peers[i].lane->end);
	}
}

void mk_broadcast_close(struct mk_broadcast *cast)
{
	bool ours;

	if (!cast->own)
		return;
	ours = cast->own->end.generation == mk_fork_generation();
	if (ours)
		say_closed(cast);
	for (unsigned i = 0; i < cast->count; i++)
		let_go(cast->peers[i].lane);
	cast->count = 0;
	free(cast->peers);
	cast->peers = NULL;
	cast->slowest = NULL;
	mk_sender_close(cast->own);
	cast->own = NULL;
	if (ours)
		mk_object_unmap((void *)(uintptr_t)cast->roster, cast->roster_size);
	cast->roster = NULL;
	if (cast->maker >= 0)
		close(cast->maker);
	cast->maker = -1;
}

void mk_broadcast_free(struct mk_broadcast *cast)
{
	if (!cast)
		return;
	mk_broadcast_close(cast);
	free(cast);
}
