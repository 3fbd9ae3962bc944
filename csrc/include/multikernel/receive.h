/* receive.h: the receiving end of a lane. The protocol, and what the calls return, is in lane.h: include that. */
#ifndef MULTIKERNEL_RECEIVE_H
#define MULTIKERNEL_RECEIVE_H

#include "multikernel/end.h"
#include "multikernel/message.h"

struct mk_receiver {
	struct mk_end end;
	struct mk_consumer *own;
	const struct mk_producer *peer;
	const unsigned char *data;
	uint64_t next; /* peeked at: tail <= next <= head */
	uint64_t head; /* the sender's, as last seen */
	uint64_t
		tail; /* released. Not beside next: where both get the same value, a compiler would join the two stores to
			* one of a vector, and the next call would wait for it to be taken apart again. */
	uint64_t looked, looked_bytes; /* records between tail and next, counted when they are released */
	uint64_t counted;              /* elements: where tail was when they were counted last */
	struct mk_pace pace;
	uint32_t ipi_sequence;
	uint64_t ipi_pending; /* vectors that have not been taken, a bit each */
	uint64_t ipi_masked;
	uint64_t ipi_behind;  /* for bindings: 1 + where the record begins that waits for IPIs to be taken */
	uint64_t ipi_served;  /* the same, once they are */
	uint64_t seen_before; /* what lies before it was in the hands of a predecessor: resume.h */
	uint64_t ipi_seen[MK_VECTORS];
};

/* As mk_sender_claim, mk_sender_attach and mk_sender_close. */
MK_API int mk_receiver_claim(struct mk_receiver **out, int consumer_fd, struct mk_counters *counters, uint32_t *why);
MK_API int mk_receiver_attach(struct mk_receiver *rx, int producer_fd, int owned, int socket, int pidfd, uint32_t *why);
MK_API void mk_receiver_close(struct mk_receiver *rx);

/* Look at the other side's head: are there @size bytes now? Slow path of mk_filled.
 * @return 0, -EAGAIN, -EPIPE, -EBADMSG */
MK_API int mk_look(struct mk_receiver *rx, uint64_t size);

/* Look whether there is more than was seen. @return 0: or not; -EBADMSG */
MK_API int mk_look_on(struct mk_receiver *rx);

/* At least @size bytes, one record's header or one element, after what was peeked at; -EPIPE only after one more
 * look, for what the other side published before it ended. */
static inline int mk_filled(struct mk_receiver *rx, uint64_t size)
{
	if (mk_likely(rx->head - rx->next >= size))
		return rx->end.stop;
	/* Who looks again and again shall not be held up: the rest of a look is for when something has changed, and for
	 * every 64th. Relaxed: nothing is read because of these. */
	if (rx->head == rx->next && !rx->pace.pause) {
		if (mk_load_relaxed(&rx->peer->head) != rx->head) {
			mk_fetch(rx->data + (rx->next & rx->end.mask)); /* the earlier the better */
		} else if (mk_likely(!rx->end.stop && !rx->end.gone &&
				     mk_load_relaxed(rx->end.peer_state) != MK_END_CLOSED &&
				     (rx->end.empty_looks & 63) != 63)) {
			rx->end.empty_looks++;
			return -EAGAIN;
		}
	}
	return mk_look(rx, size);
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

/* As mk_peek, for who copies the payload and has nothing yet: the record that was just sent, from head's own line, if it
 * is short and the only one. Its payload lies in @copy then. Everything is input: one record of that length is all that
 * may lie between what was taken and head. @return whether it is; otherwise mk_peek knows */
static inline bool mk_peek_last(struct mk_receiver *rx, struct mk_message *message, uint64_t copy[MK_LAST_WORDS])
{
	const struct mk_producer *peer = rx->peer;
	struct mk_record header;
	uint64_t head, size;

	if (rx->head != rx->next || rx->pace.pause || rx->end.stop || rx->end.shape.element)
		return false;
	head = mk_load_acquire(&peer->head); /* A1, pairs with R1 */
	size = head - rx->next;
	if (!size || size > MK_LAST_WORDS * sizeof(uint64_t))
		return false;
	if (mk_unlikely(!head)) /* the index has wrapped to what L1 stores: words that are being written look whole */
		return false;
	if (mk_load_acquire(&peer->last_end) != head) /* L4, pairs with L3 */
		return false;
	mk_get_words(copy, peer->last, sizeof(peer->last)); /* L5 */
	mk_fence_acquire(); /* L5 before L6: had we read a word of L2's of the next record, ... */
	if (mk_load_relaxed(&peer->last_end) != head) /* L6: ... we would see its L1 here */
		return false;
	memcpy(&header, copy, sizeof(header));
	if (header.length > MK_LAST_PAYLOAD || mk_record_size(header.length) != size)
		return false;
	message->payload = &copy[sizeof(header) / sizeof(*copy)];
	message->id = header.id;
	message->length = header.length;
	message->type = header.type;
	message->subtype = header.subtype;
	rx->head = rx->next = head;
	rx->looked++;
	rx->looked_bytes += header.length;
	return true;
}

/* Give back the space of everything that was looked at. */
static inline void mk_release(struct mk_receiver *rx)
{
	if (rx->tail == rx->next)
		return;
	rx->tail = rx->next;
	/* R2, pairs with A2 in mk_look_for_room: our reads of the records are over. */
	mk_store_release(&rx->own->tail, rx->tail);
	if (!rx->end.shape.element) { /* of elements the index tells: mk_end_count */
		mk_count(&rx->end.counters->received, rx->looked);
		mk_count(&rx->end.counters->received_bytes, rx->looked_bytes);
		rx->looked = rx->looked_bytes = 0;
	}
	mk_notify(&rx->end);
}

/* How many messages lie there that were not peeked at. Walks over the records: each is a load. */
static inline uint64_t mk_waiting(struct mk_receiver *rx)
{
	uint64_t size = rx->end.shape.element, at = rx->next, count = 0;

	if (rx->end.stop || mk_look_on(rx))
		return 0;
	if (size)
		return (rx->head - at) / size;
	while (rx->head - at >= sizeof(struct mk_record)) {
		/* Copied once, as in mk_peek; a length that cannot be ends the count, and is for mk_peek to refuse. */
		size = mk_record_size(*(const volatile uint32_t *)(const void *)(rx->data + (at & rx->end.mask)));
		if (size > rx->head - at)
			break;
		at += size;
		count++;
	}
	return count;
}

/* Un-look: what was peeked at since the last release is next again. */
static inline void mk_unpeek(struct mk_receiver *rx)
{
	rx->next = rx->tail;
	rx->looked = rx->looked_bytes = 0;
}

/* Take the next element: copy it, and give back its space and that of all that was looked at before.
 * @param size  the lane's, as a constant where the call is to be fast
 * @return 0; -EAGAIN; -EINVAL: not the lane's size, or a lane of records; -EPIPE; -EBADMSG */
static inline int mk_recv_element(struct mk_receiver *rx, void *element, uint64_t size)
{
	uint64_t next = rx->next;
	int result;

	if (mk_unlikely(size != rx->end.shape.element || !size))
		return -EINVAL;
	result = mk_filled(rx, size);
	if (mk_unlikely(result))
		return result;
	mk_copy(element, rx->data + (next & rx->end.mask), size);
	next += size;
	rx->next = rx->tail = next;
	mk_store_release(&rx->own->tail, next); /* R2, as in mk_release */
	mk_notify(&rx->end);
	return 0;
}

/* Look at up to @count elements in a row. @return how many; -EAGAIN, -EPIPE, -EBADMSG */
static inline int64_t mk_peek_elements(struct mk_receiver *rx, uint64_t count, const void **elements)
{
	uint64_t size = rx->end.shape.element;
	uint64_t bytes;
	int result;

	if (mk_unlikely(!size))
		return -EINVAL;
	if (mk_unlikely(__builtin_mul_overflow(count, size, &bytes) || bytes > rx->head - rx->next || rx->end.stop)) {
		result = rx->head - rx->next < size || rx->end.stop ? mk_look(rx, size) : mk_look_on(rx);
		if (mk_unlikely(result))
			return result;
		if (count > (rx->head - rx->next) / size)
			count = (rx->head - rx->next) / size;
		bytes = count * size;
	}
	*elements = rx->data + (rx->next & rx->end.mask);
	rx->next += bytes;
	return (int64_t)count;
}

/* Take up to @count elements, copied, and give back their space and that of all that was looked at before.
 * @return how many; -EAGAIN, -EPIPE, -EBADMSG */
static inline int64_t mk_recv_elements(struct mk_receiver *rx, void *elements, uint64_t count)
{
	const void *from = NULL;
	int64_t taken = mk_peek_elements(rx, count, &from);

	if (mk_likely(taken > 0)) {
		mk_copy(elements, from, (uint64_t)taken * rx->end.shape.element);
		mk_release(rx);
	}
	return taken;
}

#endif
