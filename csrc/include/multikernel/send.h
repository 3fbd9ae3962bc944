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

	uint64_t counted; /* elements: where head was when they were counted last */
	struct mk_pace pace;
};

/* Batches of records ask for the line to be written so many bytes ahead of the last one. */
#define MK_WRITE_AHEAD 1024u

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

/* Look at the other side's tail: is there room for @size bytes now? Slow path of mk_room.
 * @return 0, -EAGAIN, -EPIPE, -EBADMSG */
MK_API int mk_look_for_room(struct mk_sender *tx, uint64_t size);

/* Bytes that may be written, as of the last look. */
static inline uint64_t mk_free(const struct mk_sender *tx)
{
	return tx->end.mask + 1 - (tx->head - tx->tail);
}

/* Room for @size bytes, looking at the other side's tail only when the last look does not suffice. */
static inline int mk_room(struct mk_sender *tx, uint64_t size)
{
	if (mk_likely(mk_free(tx) >= size))
		return tx->end.stop;
	return mk_look_for_room(tx, size);
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

/* Write the header of the record whose payload lies at head: straight into its place, since a header that is put
 * together elsewhere by small stores and then copied by a wide load would wait for them. */
static inline void mk_append(struct mk_sender *tx, uint64_t length, uint16_t type, uint16_t subtype, uint64_t id)
{
	struct mk_record *record = (struct mk_record *)(void *)(tx->data + (tx->head & tx->end.mask));

	record->length = (uint32_t)length;
	record->type = type;
	record->subtype = subtype;
	record->id = id;
	tx->head += mk_record_size(length);
	mk_count(&tx->end.counters->sent, 1);
	mk_count(&tx->end.counters->sent_bytes, length);
}

/* Finish the record handed out by mk_reserve without publishing it: mk_publish does, for one or for many.
 * @param length  payload bytes written, at most what was reserved. @return 0 or -EINVAL */
static inline int mk_finish(struct mk_sender *tx, uint64_t length, uint16_t type, uint16_t subtype, uint64_t id)
{
	if (mk_unlikely(!tx->reserved || length > mk_longest(&tx->end) || mk_record_size(length) > tx->reserved))
		return -EINVAL;
	mk_append(tx, length, type, subtype, id);
	tx->reserved = 0;
	/* Batches of small records are bound by the misses of their stores. */
	mk_fetch_to_write(tx->data + ((tx->head + MK_WRITE_AHEAD) & tx->end.mask));
	return 0;
}

/* Publish everything that was finished. @return 0; -EPIPE: it was found that nobody will take it */
static inline int mk_publish(struct mk_sender *tx)
{
	/* R1, pairs with A1 in mk_look_on: whoever sees this head sees every byte before it. */
	mk_store_release(&tx->own->head, tx->head);
	mk_notify(&tx->end);
	return tx->end.stop;
}

/* Show the short record that was appended last beside head, too. L1-L3 pair with L4-L6 in mk_peek_last: who reads the
 * same end before and after the words has read the words that belong to it. */
static inline void mk_show_last(struct mk_sender *tx, const unsigned char *record)
{
	struct mk_producer *own = tx->own;
	uint64_t words[MK_LAST_WORDS];

	memcpy(words, record, sizeof(words));          /* what lies behind the record is ours as well */
	mk_store_relaxed(&own->last_end, 0);           /* L1 */
	mk_fence_release();                            /* L1 before L2; no instruction on x86 */
	mk_put_words(own->last, words, sizeof(words)); /* L2 */
	mk_store_release(&own->last_end, tx->head);    /* L3 */
}

/* Send one record, copied. @return 0, -EAGAIN, -EMSGSIZE, -EPIPE, -EBADMSG */
static inline int mk_send(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id, const void *payload,
			  uint64_t length)
{
	unsigned char *record;
	int result;

	if (mk_unlikely(length > mk_longest(&tx->end)))
		return -EMSGSIZE;
	result = mk_room(tx, mk_record_size(length));
	if (mk_unlikely(result))
		return result;
	record = tx->data + (tx->head & tx->end.mask);
	mk_copy(record + sizeof(struct mk_record), payload, length);
	mk_append(tx, length, type, subtype, id);
	tx->reserved = 0; /* what was handed out has been written over */
	if (length <= MK_LAST_PAYLOAD)
		mk_show_last(tx, record);
	return mk_publish(tx);
}

/* Send one element. @param size  the lane's, as a constant where the call is to be fast
 * @return 0; -EAGAIN; -EINVAL: not the lane's size, or a lane of records; -EPIPE; -EBADMSG */
static inline int mk_send_element(struct mk_sender *tx, const void *element, uint64_t size)
{
	int result;

	if (mk_unlikely(size != tx->end.shape.element || !size))
		return -EINVAL;
	result = mk_room(tx, size);
	if (mk_unlikely(result))
		return result;
	mk_copy(tx->data + (tx->head & tx->end.mask), element, size);
	tx->head += size;
	return mk_publish(tx);
}

/* Send up to @count elements, as many as there is room for. @return how many; -EAGAIN if none, -EPIPE, -EBADMSG */
static inline int64_t mk_send_elements(struct mk_sender *tx, const void *elements, uint64_t count)
{
	uint64_t size = tx->end.shape.element;
	uint64_t bytes;
	int result;

	if (mk_unlikely(!size))
		return -EINVAL;
	if (mk_unlikely(__builtin_mul_overflow(count, size, &bytes) || bytes > mk_free(tx) || tx->end.stop)) {
		result = mk_look_for_room(tx, size);
		if (result)
			return result;
		if (count > mk_free(tx) / size)
			count = mk_free(tx) / size;
		bytes = count * size;
	}
	mk_copy(tx->data + (tx->head & tx->end.mask), elements, bytes);
	tx->head += bytes;
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
	return 0;
}

#endif
