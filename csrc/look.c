/* look.c: a look at the other side's index, when what was seen of it last does not suffice. What a side is told there is
 * checked here; how long it keeps off before the look is in pace.h.
 */
#include "multikernel/lane.h"

/* Of records each is counted when it goes through. */
static void count_elements(struct mk_end *end, uint64_t *counted, uint64_t position, _Atomic uint64_t *messages,
			   _Atomic uint64_t *bytes)
{
	uint64_t more = position - *counted;

	if (!end->shape.element || !more)
		return;
	mk_count(messages, more / end->shape.element);
	mk_count(bytes, more);
	*counted = position;
}

void mk_end_count(struct mk_end *end)
{
	struct mk_counters *counters = end->counters;

	if (end->sending) {
		struct mk_sender *tx = (struct mk_sender *)(void *)end;

		count_elements(end, &tx->counted, tx->head, &counters->sent, &counters->sent_bytes);
	} else {
		struct mk_receiver *rx = (struct mk_receiver *)(void *)end;

		count_elements(end, &rx->counted, rx->tail, &counters->received, &counters->received_bytes);
	}
}

int mk_look_for_room(struct mk_sender *tx, uint64_t size)
{
	struct mk_end *end = &tx->end;
	uint64_t tail;

	if (end->stop)
		return end->stop;
	if (end->shape.element && tx->head - tx->counted > end->mask)
		mk_end_count(end);
	/* A2, pairs with R2: the receiver has finished reading what lies before tail. Input: copied, checked, used. */
	tail = tx->pace.pause ? mk_pace_load(&tx->pace, &tx->peer->tail, tx->tail) : mk_load_acquire(&tx->peer->tail);
	if (tail - tx->tail > tx->head - tx->tail || (tail % MK_RECORD_ALIGN && !end->shape.element))
		return mk_quarantine(end, MK_BAD_TAIL, tail);
	tx->tail = tail;
	/* Less than half of it: we are faster than the receiver. */
	mk_pace_found(&tx->pace, mk_free(tx) <= end->mask / 2);
	if (mk_free(tx) >= size)
		return 0;
	tx->wanted = size;
	return mk_end_gone(end, false) ? -EPIPE : -EAGAIN;
}

int mk_look_on(struct mk_receiver *rx)
{
	/* A1, pairs with R1: every byte before head may be read. Input: copied, checked, used. */
	uint64_t head = rx->pace.pause ? mk_pace_load(&rx->pace, &rx->peer->head, rx->head)
				       : mk_load_acquire(&rx->peer->head);

	if (head - rx->tail > rx->end.mask + 1 || head - rx->tail < rx->head - rx->tail ||
	    (head % MK_RECORD_ALIGN && !rx->end.shape.element))
		return mk_quarantine(&rx->end, MK_BAD_HEAD, head);
	rx->head = head;
	return 0;
}

int mk_look(struct mk_receiver *rx, uint64_t size)
{
	struct mk_end *end = &rx->end;
	const unsigned char *at = rx->data + (rx->next & end->mask);
	uint64_t first = size;

	if (end->shape.element && rx->tail - rx->counted > end->mask)
		mk_end_count(end);
	if (end->stop || mk_look_on(rx))
		return end->stop;
	if (rx->head == rx->next) {
		if (!mk_end_gone(end, false))
			return -EAGAIN;
		if (mk_look_on(rx))
			return end->stop;
		if (rx->head == rx->next)
			return -EPIPE;
	}
	/* Both lines of a small record at once: a copy whose second address depends on the length would fetch one after the
	 * other. But never what is not published: that takes the line from the sender, who is about to write it. */
	mk_fetch(at);
	if (rx->head - rx->next > 64)
		mk_fetch(at + 64);
	/* Something, but less than the least that a sender publishes. */
	if (rx->head - rx->next < size)
		return mk_quarantine(end, MK_BAD_HEAD, rx->head);
	if (!end->shape.element) /* a hint: mk_peek reads it again, and checks it */
		first = mk_record_size(*(const volatile uint32_t *)(const void *)at);
	/* More than one, and less than half of the ring: more than that, and it is the sender who waits. */
	mk_pace_found(&rx->pace, rx->head - rx->next > first && rx->head - rx->next <= end->mask / 2);
	return 0;
}
