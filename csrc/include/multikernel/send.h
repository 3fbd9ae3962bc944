/* send.h: the sending end of a lane. The protocol, and what the calls return, is in lane.h: include that. */
#ifndef MULTIKERNEL_SEND_H
#define MULTIKERNEL_SEND_H

#include "multikernel/end.h"

struct mk_sender {
	struct mk_end end;
	struct mk_producer *own;
	const struct mk_consumer *peer;
	unsigned char *data;
	uint64_t head;     /* of what was written; published when own->head says so */
	uint64_t tail;     /* the receiver's, as last seen */
	uint64_t reserved; /* bytes handed out by mk_reserve; 0: none */
	uint64_t wanted;   /* bytes of room that a wait waits for */
	uint64_t last_id;  /* for bindings: of the record sent last */
};

/* Claim an end: map its object writable, seal it, say who owns it. *out is one allocation, freed by close.
 * @param counters  where to count; NULL: privately
 * @return 0; -EPERM: claimed by somebody else; -EPROTO and *why: the object was refused; -errno */
MK_API int mk_sender_claim(struct mk_sender **out, int producer_fd, struct mk_counters *counters, uint32_t *why);

/* Attach the other side's object, read-only.
 * @param owned   whether it must be sealed by its owner already (links), or may be claimed later (rings)
 * @param socket  own side of the lane's socket pair, owned by the end from now on; -1: none
 * @param pidfd   of the peer, owned by the end from now on; -1: comes over the socket when the peer claims
 * @return 0; -EPROTO and *why; -errno. After an error the descriptors still belong to the caller. */
MK_API int mk_sender_attach(struct mk_sender *tx, int consumer_fd, int owned, int socket, int pidfd, uint32_t *why);

/* Close: the other side learns of it after it has taken what was published. Frees the end. In a forked copy it
 * only frees the private memory. */
MK_API void mk_sender_close(struct mk_sender *tx);

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

#endif
