/* lane.h: one direction between two parties. One sender, one receiver, wait-free for both.
 *
 * The protocol, and who pairs with whom. Each index has one writer; each side works on private copies (head and
 * tail in struct mk_sender, struct mk_receiver) and the pages are publications of them, never read back.
 *
 *   sender                                        receiver
 *   A2  tail = load-acquire(peer tail)            A1  head = load-acquire(peer head)
 *       check it; write the record                    check it; read the record
 *   R1  store-release(own head)                   R2  store-release(own tail)
 *   P1  load(peer parked); ring if it asks        P2  load(peer parked); ring if it asks
 *
 *   R1-A1 publishes a record. R2-A2 gives its space back. P1 and P2 are explained in doorbell.h.
 *
 * Indices are byte positions that only grow; only their differences are used, in unsigned arithmetic, so that
 * they may wrap. What the other side wrote is copied once, checked against private copies, then used. An index
 * or a length that cannot be right quarantines the lane: -EBADMSG from then on, with what was seen kept.
 *
 * Calls on one end are for one thread at a time. Results are 0 or a count, or:
 *   -EAGAIN    full, or empty
 *   -EMSGSIZE  larger than the ring can ever hold
 *   -EPIPE     the other end was closed or its process has ended (receiver: and nothing is left to take)
 *   -EBADMSG   quarantined
 *   -EINVAL    not called in order, or a call for elements on a lane of records
 */
#ifndef MULTIKERNEL_LANE_H
#define MULTIKERNEL_LANE_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "multikernel/atomic.h"
#include "multikernel/memory.h"

/* What was wrong when a lane was quarantined. */
enum mk_bad {
	MK_BAD_NOTHING = 0,
	MK_BAD_HEAD = 1,   /* went backwards, or further than the ring is long, or lies between records */
	MK_BAD_TAIL = 2,   /* went backwards, or beyond what was sent, or lies between records */
	MK_BAD_LENGTH = 3, /* a record reaches beyond what was published */
};

enum mk_wait_policy {
	MK_WAIT_ADAPTIVE = 0, /* spin as long as it pays, then sleep */
	MK_WAIT_SPIN = 1,     /* never sleep */
	MK_WAIT_PARK = 2,     /* sleep at once */
};

/* What both ends have. Private to the process. */
struct mk_end {
	struct mk_object shape;                                                  /* checked copy of the lane's header */
	_Atomic uint32_t *parked, *bell, *state, *cpu;                           /* in the own page */
	const _Atomic uint32_t *peer_parked, *peer_bell, *peer_state, *peer_cpu; /* in the other's page */
	struct mk_counters *counters;
	struct mk_counters *wait_counters; /* of spins, parks and spurious wake-ups: the same, but for a host lane */
	uint64_t mask;                     /* capacity - 1 */
	uint64_t spin_ns;                  /* how long the next wait spins, learned from the last ones */
	uint64_t bad_value;
	uint64_t looked;      /* CLOCK_MONOTONIC, ns: when the peer's life was last looked at */
	int stop;             /* why nothing goes on: 0, -EBADMSG; senders also -EPIPE */
	uint32_t bad;         /* enum mk_bad */
	uint32_t rung;        /* the peer's parked word that was rung last */
	uint32_t parks;       /* counts the own parks */
	uint32_t empty_looks; /* in a row: every so often the peer's life is looked at */
	uint32_t generation;  /* mk_fork_generation() at the claim */
	int socket;           /* own side of the lane's socket pair: the bell of who sleeps in poll; -1 */
	int pidfd;            /* of the peer's process; -1: not known */
	int event;            /* descriptor for event loops, -1: not asked for */
	int event_self;       /* eventfd that makes it readable from this side */
	bool event_set;
	bool pidfd_in_event, pidfd_in_set; /* watched there already */
	bool fence;                        /* fence after each publish */
	bool gone;                         /* the peer's process has ended, or nobody holds its end */
	bool sending;                      /* a sender */
	bool private_socket;               /* a ring's: descriptors that come over it are taken */
	uint8_t policy;                    /* enum mk_wait_policy */
	bool interpreted;    /* for bindings: handlers of signals run in the caller, so it looks before a long sleep */
	bool signals_seen;   /* it has, and the wait goes on where it was */
	int64_t waits_until; /* for bindings: tells a wait that goes on from the next one */
	_Atomic uintptr_t busy; /* for bindings: one call at a time; whose, 0: nobody's */
	void *own_map, *peer_map;
	uint64_t own_map_size, peer_map_size;
	struct mk_counters own_counters;
};

struct mk_sender {
	struct mk_end end;
	struct mk_producer *own;
	const struct mk_consumer *peer;
	unsigned char *data;
	uint64_t head;     /* of what was written; published when own->head says so */
	uint64_t tail;     /* the receiver's, as last seen */
	uint64_t reserved; /* bytes handed out by mk_reserve; 0: none */
	uint64_t wanted;   /* bytes of room that a wait waits for */
};

struct mk_receiver {
	struct mk_end end;
	struct mk_consumer *own;
	const struct mk_producer *peer;
	const unsigned char *data;
	uint64_t tail;                 /* released */
	uint64_t next;                 /* peeked at: tail <= next <= head */
	uint64_t head;                 /* the sender's, as last seen */
	uint64_t looked, looked_bytes; /* messages between tail and next, counted when they are released */
	uint32_t ipi_sequence;
	uint64_t ipi_pending; /* vectors that have not been taken, a bit each */
	uint64_t ipi_masked;
	uint64_t ipi_behind; /* for bindings: 1 + where the record begins that waits for IPIs to be taken */
	uint64_t ipi_served; /* the same, once they are */
	uint64_t ipi_seen[MK_VECTORS];
};

/* A record as the receiver sees it: a checked copy of its header, and where its payload lies in the ring. */
struct mk_message {
	const void *payload; /* valid until released */
	uint64_t id;
	uint32_t length;
	uint16_t type;
	uint16_t subtype;
};

/* --- making and ending (ring.c) -------------------------------------------------------------------------------- */

/* Make the object of one side: kind MK_KIND_PRODUCER or MK_KIND_CONSUMER. Its size is sealed, its writing is
 * not: that is for the claim. @return descriptor or -errno (-EINVAL: capacity is no power of two in range) */
MK_API int mk_lane_object(uint32_t kind, const char *name, uint64_t capacity, uint32_t element, uint32_t owner_id,
			  uint64_t epoch);

/* Claim an end: map its object writable, seal it, say who owns it. *out is one allocation, freed by close.
 * @param counters  where to count; NULL: privately
 * @return 0; -EPERM: claimed by somebody else; -EPROTO and *why: the object was refused; -errno */
MK_API int mk_sender_claim(struct mk_sender **out, int producer_fd, struct mk_counters *counters, uint32_t *why);
MK_API int mk_receiver_claim(struct mk_receiver **out, int consumer_fd, struct mk_counters *counters, uint32_t *why);

/* Attach the other side's object, read-only.
 * @param owned   whether it must be sealed by its owner already (links), or may be claimed later (rings)
 * @param socket  own side of the lane's socket pair, owned by the end from now on; -1: none
 * @param pidfd   of the peer, owned by the end from now on; -1: comes over the socket when the peer claims
 * @return 0; -EPROTO and *why; -errno. After an error the descriptors still belong to the caller. */
MK_API int mk_sender_attach(struct mk_sender *tx, int consumer_fd, int owned, int socket, int pidfd, uint32_t *why);
MK_API int mk_receiver_attach(struct mk_receiver *rx, int producer_fd, int owned, int socket, int pidfd, uint32_t *why);

/* Close: the other side learns of it after it has taken what was published. Frees the end. In a forked copy it
 * only frees the private memory. */
MK_API void mk_sender_close(struct mk_sender *tx);
MK_API void mk_receiver_close(struct mk_receiver *rx);

/* The first half of both: all but the freeing, for who cannot know yet that nobody holds a pointer to the end. */
MK_API void mk_end_close(struct mk_end *end);

/* Whether the other end is closed or its process has ended. Cheap until it matters: a page is read each time,
 * the system is asked once per millisecond at most unless @now. */
MK_API bool mk_end_gone(struct mk_end *end, bool now);

/* Ring the other side's bell if it is parked. Slow path of mk_notify. */
MK_API void mk_ring_bell(struct mk_end *end);

/* Take what lies in the own side of the socket pair. Sets end->gone at its end of file. */
MK_API void mk_end_drain(struct mk_end *end);

MK_API int mk_quarantine(struct mk_end *end, uint32_t bad, uint64_t value);

/* --- common to both ---------------------------------------------------------------------------------------------- */

/* P1, P2: after publishing, wake the other side if it asks for it. Pairs with the stores of parked in
 * doorbell.c. Without the fence the load may be satisfied before the publishing store is visible; doorbell.h
 * says why nothing is lost. */
static inline void mk_notify(struct mk_end *end)
{
	if (mk_unlikely(end->fence))
		mk_fence();
	if (mk_unlikely(mk_load_relaxed(end->peer_parked) & MK_PARKED_MODE))
		mk_ring_bell(end);
}

static inline uint64_t mk_record_size(uint64_t length)
{
	return (sizeof(struct mk_record) + length + MK_RECORD_ALIGN - 1) & ~(uint64_t)(MK_RECORD_ALIGN - 1);
}

/* --- sender ---------------------------------------------------------------------------------------------------- */

/* The longest payload that a record in this lane can have. */
static inline uint64_t mk_longest(const struct mk_end *end)
{
	uint64_t longest = end->mask + 1 - sizeof(struct mk_record);

	return longest < UINT32_MAX ? longest : UINT32_MAX;
}

static inline int mk_sender_reload(struct mk_sender *tx)
{
	/* A2, pairs with R2: the receiver has finished reading what lies before tail. Input: copied, checked, used. */
	uint64_t tail = mk_load_acquire(&tx->peer->tail);

	if (mk_unlikely(tail - tx->tail > tx->head - tx->tail || (tail % MK_RECORD_ALIGN && !tx->end.shape.element)))
		return mk_quarantine(&tx->end, MK_BAD_TAIL, tail);
	tx->tail = tail;
	return 0;
}

/* Room for @size bytes, looking at the other side's tail only when the last look does not suffice. */
static inline int mk_room(struct mk_sender *tx, uint64_t size)
{
	uint64_t capacity = tx->end.mask + 1;

	if (mk_likely(capacity - (tx->head - tx->tail) >= size))
		return tx->end.stop;
	if (mk_unlikely(tx->end.stop || mk_sender_reload(tx)))
		return tx->end.stop;
	if (capacity - (tx->head - tx->tail) >= size)
		return 0;
	tx->wanted = size;
	return mk_end_gone(&tx->end, false) ? -EPIPE : -EAGAIN;
}

/* Hand out room for a record of up to @length bytes of payload. The pointer stays valid until the commit; a
 * second reserve replaces the first. @return 0, -EAGAIN, -EMSGSIZE, -EPIPE, -EBADMSG */
static inline int mk_reserve(struct mk_sender *tx, uint64_t length, void **payload)
{
	uint64_t size = mk_record_size(length);
	int result;

	if (mk_unlikely(length > mk_longest(&tx->end)))
		return -EMSGSIZE;
	result = mk_room(tx, size);
	if (mk_unlikely(result))
		return result;
	tx->reserved = size;
	*payload = tx->data + (tx->head & tx->end.mask) + sizeof(struct mk_record);
	return 0;
}

/* Finish the record handed out by mk_reserve without publishing it: mk_publish does, for one or for many.
 * @param length  payload bytes written, at most what was reserved. @return 0 or -EINVAL */
static inline int mk_finish(struct mk_sender *tx, uint64_t length, uint16_t type, uint16_t subtype, uint64_t id)
{
	struct mk_record *record = (struct mk_record *)(void *)(tx->data + (tx->head & tx->end.mask));
	uint64_t size = mk_record_size(length);

	if (mk_unlikely(!tx->reserved || length > mk_longest(&tx->end) || size > tx->reserved))
		return -EINVAL;
	record->length = (uint32_t)length;
	record->type = type;
	record->subtype = subtype;
	record->id = id;
	tx->head += size;
	tx->reserved = 0;
	mk_count(&tx->end.counters->sent, 1);
	mk_count(&tx->end.counters->sent_bytes, length);
	return 0;
}

/* Publish everything that was finished. @return 0; -EPIPE: it was found that nobody will take it */
static inline int mk_publish(struct mk_sender *tx)
{
	/* R1, pairs with A1 in mk_receiver_reload: whoever sees this head sees every byte before it. */
	mk_store_release(&tx->own->head, tx->head);
	mk_notify(&tx->end);
	return tx->end.stop;
}

/* Send one record, copied. @return 0, -EAGAIN, -EMSGSIZE, -EPIPE, -EBADMSG */
static inline int mk_send(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id, const void *payload,
			  uint64_t length)
{
	void *slot;
	int result = mk_reserve(tx, length, &slot);

	if (mk_unlikely(result))
		return result;
	if (length)
		memcpy(slot, payload, length);
	mk_finish(tx, length, type, subtype, id);
	return mk_publish(tx);
}

/* Send up to @count elements, as many as there is room for. @return how many; -EAGAIN if none, -EPIPE, -EBADMSG */
static inline int64_t mk_send_elements(struct mk_sender *tx, const void *elements, uint64_t count)
{
	uint64_t size = tx->end.shape.element;
	uint64_t room;
	int result;

	if (mk_unlikely(!size))
		return -EINVAL;
	result = mk_room(tx, size);
	if (mk_unlikely(result))
		return result;
	room = (tx->end.mask + 1 - (tx->head - tx->tail)) / size;
	if (room < count && !mk_sender_reload(tx)) /* the last look was enough for one; look for more */
		room = (tx->end.mask + 1 - (tx->head - tx->tail)) / size;
	if (count > room)
		count = room;
	memcpy(tx->data + (tx->head & tx->end.mask), elements, count * size);
	tx->head += count * size;
	mk_count(&tx->end.counters->sent, count);
	mk_count(&tx->end.counters->sent_bytes, count * size);
	result = mk_publish(tx);
	return mk_unlikely(result) ? result : (int64_t)count;
}

/* Hand out room for @count elements in a row. mk_finish_elements ends it. */
static inline int mk_reserve_elements(struct mk_sender *tx, uint64_t count, void **elements)
{
	uint64_t size;
	int result;

	if (mk_unlikely(!count || !tx->end.shape.element))
		return -EINVAL;
	if (mk_unlikely(__builtin_mul_overflow(count, (uint64_t)tx->end.shape.element, &size) ||
			size > tx->end.mask + 1))
		return -EMSGSIZE;
	result = mk_room(tx, size);
	if (mk_unlikely(result))
		return result;
	tx->reserved = size;
	*elements = tx->data + (tx->head & tx->end.mask);
	return 0;
}

static inline int mk_finish_elements(struct mk_sender *tx, uint64_t count)
{
	uint64_t size;

	if (mk_unlikely(!tx->reserved || __builtin_mul_overflow(count, (uint64_t)tx->end.shape.element, &size) ||
			size > tx->reserved))
		return -EINVAL;
	tx->head += size;
	tx->reserved = 0;
	mk_count(&tx->end.counters->sent, count);
	mk_count(&tx->end.counters->sent_bytes, size);
	return 0;
}

/* --- receiver -------------------------------------------------------------------------------------------------- */

static inline int mk_receiver_reload(struct mk_receiver *rx)
{
	/* A1, pairs with R1: every byte before head may be read. Input: copied, checked, used. */
	uint64_t head = mk_load_acquire(&rx->peer->head);

	if (mk_unlikely(head - rx->tail > rx->end.mask + 1 || head - rx->tail < rx->head - rx->tail ||
			(head % MK_RECORD_ALIGN && !rx->end.shape.element)))
		return mk_quarantine(&rx->end, MK_BAD_HEAD, head);
	rx->head = head;
	return 0;
}

/* At least @size bytes, one record's header or one element, after what was peeked at; -EPIPE only after one more
 * look, for what the other side published before it ended. */
static inline int mk_filled(struct mk_receiver *rx, uint64_t size)
{
	if (mk_likely(rx->head - rx->next >= size))
		return rx->end.stop;
	if (mk_unlikely(rx->end.stop || mk_receiver_reload(rx)))
		return rx->end.stop;
	if (mk_likely(rx->head == rx->next)) {
		if (mk_likely(!mk_end_gone(&rx->end, false)))
			return -EAGAIN;
		if (mk_receiver_reload(rx))
			return rx->end.stop;
		if (rx->head == rx->next)
			return -EPIPE;
	}
	/* Something, but less than the least that a sender publishes. */
	if (mk_unlikely(rx->head - rx->next < size))
		return mk_quarantine(&rx->end, MK_BAD_HEAD, rx->head);
	return 0;
}

/* Look at the next record without giving its space back; the one after it is next. mk_release gives back all
 * that was looked at. @return 0, -EAGAIN, -EPIPE, -EBADMSG */
static inline int mk_peek(struct mk_receiver *rx, struct mk_message *message)
{
	const unsigned char *at = rx->data + (rx->next & rx->end.mask);
	int result = mk_filled(rx, sizeof(struct mk_record));
	struct mk_record header;
	uint64_t size;

	if (mk_unlikely(result))
		return result;
	/* Copied once: the sender's page may change under us. The volatile keeps the compiler from reading twice. */
	header.length = *(const volatile uint32_t *)(const void *)at;
	header.type = *(const volatile uint16_t *)(const void *)(at + offsetof(struct mk_record, type));
	header.subtype = *(const volatile uint16_t *)(const void *)(at + offsetof(struct mk_record, subtype));
	header.id = *(const volatile uint64_t *)(const void *)(at + offsetof(struct mk_record, id));
	size = mk_record_size(header.length);
	if (mk_unlikely(size > rx->head - rx->next)) {
		mk_quarantine(&rx->end, MK_BAD_LENGTH, header.length);
		return -EBADMSG; /* a constant: the compiler then knows that 0 comes with a message */
	}
	message->payload = at + sizeof(struct mk_record);
	message->id = header.id;
	message->length = header.length;
	message->type = header.type;
	message->subtype = header.subtype;
	rx->next += size;
	rx->looked++;
	rx->looked_bytes += header.length;
	return 0;
}

/* Give back the space of everything that was looked at. */
static inline void mk_release(struct mk_receiver *rx)
{
	if (rx->tail == rx->next)
		return;
	rx->tail = rx->next;
	/* R2, pairs with A2 in mk_sender_reload: our reads of the records are over. */
	mk_store_release(&rx->own->tail, rx->tail);
	mk_count(&rx->end.counters->received, rx->looked);
	mk_count(&rx->end.counters->received_bytes, rx->looked_bytes);
	rx->looked = rx->looked_bytes = 0;
	mk_notify(&rx->end);
}

/* Un-look: what was peeked at since the last release is next again. */
static inline void mk_unpeek(struct mk_receiver *rx)
{
	rx->next = rx->tail;
	rx->looked = rx->looked_bytes = 0;
}

/* Look at up to @count elements in a row. @return how many; -EAGAIN, -EPIPE, -EBADMSG */
static inline int64_t mk_peek_elements(struct mk_receiver *rx, uint64_t count, const void **elements)
{
	uint64_t size = rx->end.shape.element;
	uint64_t there;
	int result;

	if (mk_unlikely(!size))
		return -EINVAL;
	result = mk_filled(rx, size);
	if (mk_unlikely(result))
		return result;
	there = (rx->head - rx->next) / size;
	if (there < count && !mk_receiver_reload(rx))
		there = (rx->head - rx->next) / size;
	if (count > there)
		count = there;
	*elements = rx->data + (rx->next & rx->end.mask);
	rx->next += count * size;
	rx->looked += count;
	rx->looked_bytes += count * size;
	return (int64_t)count;
}

/* --- IPIs (ipi.c) ---------------------------------------------------------------------------------------------- */

/* Raise @vector once: it coalesces with those not taken yet, and the receiver learns how many there were.
 * @return 0; -EINVAL: no such vector; -EPIPE */
MK_API int mk_ipi_raise(struct mk_sender *tx, unsigned vector);

/* Take the lowest vector that is pending and not masked, and how often it was raised since the last time.
 * @return 1; 0: none is pending */
MK_API int mk_ipi_take(struct mk_receiver *rx, unsigned *vector, uint64_t *count);

/* Whether mk_ipi_take would return 1. Before a record is handled this is asked, so that IPIs raised before it
 * was published are handled first. */
MK_API bool mk_ipi_look(struct mk_receiver *rx);

/* Hold a vector back (its count goes on), or let it through again. @return 0 or -EINVAL */
MK_API int mk_ipi_mask(struct mk_receiver *rx, unsigned vector, bool masked);

static inline bool mk_ipi_waiting(struct mk_receiver *rx)
{
	/* Pairs with the release store in mk_ipi_raise; acquire, because mk_ipi_look reads the counters next. */
	if (mk_likely(mk_load_acquire(&rx->peer->ipi_sequence) == rx->ipi_sequence && !rx->ipi_pending))
		return false;
	return mk_ipi_look(rx);
}

#endif
