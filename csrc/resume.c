/* resume.c: a lane outlives an incarnation of its sender or its receiver. The protocol (N1-N4, S1-S3) is in resume.h.
 *
 * What an incarnation left is input, as a peer's page is: its words are loaded once, checked against what the other side
 * and one's own end say, and only then used. Nothing of an end changes before all of it is checked.
 */
#include "multikernel/resume.h"

#include <sys/socket.h>
#include <unistd.h>

#include "ring.h"
#include "waiting.h"

/* Check an object of another incarnation of @owner: of one after @epoch, or (@before) of one before it. */
static int check_kin(const struct mk_end *end, int fd, uint32_t kind, uint32_t owner, uint64_t epoch, bool before,
		     struct mk_object *found, uint32_t *why)
{
	int result = mk_lane_check(&end->shape, fd, kind, 1, found, why);

	if (result)
		return result;
	if (found->owner_id == owner && (before ? found->epoch < epoch : found->epoch > epoch))
		return 0;
	if (why)
		*why = MK_REFUSED_OWNER;
	return -EPROTO;
}

static bool on_a_boundary(const struct mk_end *end, uint64_t index)
{
	return end->shape.element || index % MK_RECORD_ALIGN == 0;
}

/* --- the successor ---------------------------------------------------------------------------------------------- */

/* Map what a predecessor left, to read it. */
static int map_predecessor(const struct mk_end *end, int fd, uint32_t kind, void **base, uint64_t *size, uint32_t *why)
{
	struct mk_object found;
	int result;

	if (!end->peer_map)
		return -EINVAL;
	result = check_kin(end, fd, kind, end->shape.owner_id, end->shape.epoch, true, &found, why);
	*size = mk_lane_mapped_size(&found);
	return result ? result : mk_lane_map(fd, &found, 0, base);
}

static int take_over_sent(struct mk_sender *tx, const struct mk_producer *was)
{
	struct mk_end *end = &tx->end;
	const unsigned char *data = (const unsigned char *)was + end->shape.data_offset;
	/* Acquire, both: A1 and A2. Who stored the first is dead; the second may grow, and then less would do. */
	uint64_t head = mk_load_acquire(&was->head);
	uint64_t tail = mk_load_acquire(&tx->peer->tail);

	if (head - tail > end->mask + 1 || !on_a_boundary(end, head))
		return mk_quarantine(end, MK_BAD_HEAD, head);
	if (!on_a_boundary(end, tail))
		return mk_quarantine(end, MK_BAD_TAIL, tail);
	memcpy(tx->data + (tail & end->mask), data + (tail & end->mask), head - tail); /* N2 */
	for (unsigned v = 0; v < MK_VECTORS; v++)
		mk_store_relaxed(&tx->own->ipi[v], mk_load_relaxed(&was->ipi[v]));
	mk_store_release(&tx->own->ipi_sequence, mk_load_relaxed(&was->ipi_sequence)); /* as in mk_ipi_raise */
	tx->head = tx->counted = head;
	tx->tail = tail;
	mk_store_release(&tx->own->head, head); /* N1; pairs with A1 of who maps it, as R1 does */
	return 0;
}

int mk_sender_succeed(struct mk_sender *tx, int predecessor, uint32_t *why)
{
	void *base;
	uint64_t size;
	int result;

	if (tx->head || tx->tail || tx->end.stop)
		return tx->end.stop ? tx->end.stop : -EINVAL;
	result = map_predecessor(&tx->end, predecessor, MK_KIND_PRODUCER, &base, &size, why);
	if (result)
		return result;
	result = take_over_sent(tx, base);
	mk_object_unmap(base, size);
	return result;
}

static int take_over_received(struct mk_receiver *rx, const struct mk_consumer *was)
{
	struct mk_end *end = &rx->end;
	/* Acquire: A2 and A1, as above. */
	uint64_t tail = mk_load_acquire(&was->tail);
	uint64_t head = mk_load_acquire(&rx->peer->head);
	uint64_t seen = mk_load_acquire(&was->seen);

	if (!on_a_boundary(end, tail))
		return mk_quarantine(end, MK_BAD_TAIL, tail);
	if (head - tail > end->mask + 1 || !on_a_boundary(end, head))
		return mk_quarantine(end, MK_BAD_HEAD, head);
	if (seen - tail > head - tail) /* before tail: all that was seen is released */
		seen = tail;
	rx->tail = rx->next = rx->head = rx->counted = tail;
	rx->seen_before = seen;
	for (unsigned v = 0; v < MK_VECTORS; v++) {
		rx->ipi_seen[v] = mk_load_relaxed(&was->taken[v]);
		mk_store_relaxed(&rx->own->taken[v], rx->ipi_seen[v]);
	}
	rx->ipi_sequence = mk_load_relaxed(&rx->peer->ipi_sequence) - 1; /* look at all of them */
	mk_store_relaxed(&rx->own->seen, seen);
	mk_store_release(&rx->own->tail, tail); /* N3; pairs with A2 of who maps it, as R2 does */
	return 0;
}

int mk_receiver_succeed(struct mk_receiver *rx, int predecessor, uint32_t *why)
{
	void *base;
	uint64_t size;
	int result;

	if (rx->next || rx->end.stop)
		return rx->end.stop ? rx->end.stop : -EINVAL;
	result = map_predecessor(&rx->end, predecessor, MK_KIND_CONSUMER, &base, &size, why);
	if (result)
		return result;
	result = take_over_received(rx, base);
	mk_object_unmap(base, size);
	return result;
}

/* --- its peer ----------------------------------------------------------------------------------------------------- */

static void change_pidfd(struct mk_end *end, int pidfd)
{
	mk_event_unwatch_pidfd(end);
	if (end->pidfd >= 0)
		close(end->pidfd);
	end->pidfd = pidfd;
}

void mk_end_due(struct mk_end *end)
{
	if (end->hung_up || end->stop == -EBADMSG)
		return;
	change_pidfd(end, -1);
	end->due = true;
	end->gone = false;
	end->stop = 0;
}

/* Check the successor's object and map it, beside the one that is still in use. */
static int map_successor(const struct mk_end *end, int fd, uint32_t kind, struct mk_object *found, void **base,
			 uint32_t *why)
{
	int result;

	if (!end->peer_map)
		return -EINVAL;
	if (end->stop == -EBADMSG)
		return -EBADMSG;
	result = check_kin(end, fd, kind, end->peer_id, end->peer_epoch, false, found, why);
	return result ? result : mk_lane_map(fd, found, 0, base);
}

/* S2: the mapping is the peer's from now on. */
static void change_peer(struct mk_end *end, const struct mk_object *found, void *base, int pidfd)
{
	mk_object_unmap(end->peer_map, end->peer_map_size);
	end->peer_map = base;
	end->peer_map_size = mk_lane_mapped_size(found);
	end->peer_epoch = found->epoch;
	change_pidfd(end, pidfd);
	end->due = pidfd < 0;
	end->gone = end->hung_up;
	end->stop = end->hung_up && end->sending ? -EPIPE : 0;
	end->rung = 0; /* the successor counts its parks from 1 */
	end->empty_looks = 0;
}

/* S3: what we published last may have met the predecessor's word only. Pairs with the fence of a side that parks, as in
 * mk_ring_bell: either it sees what we published, or we see it parked. */
static void ring_who_sleeps(struct mk_end *end)
{
	mk_fence();
	mk_notify(end);
}

void mk_ring_socket(struct mk_end *end)
{
	char byte = 1;

	if (end->socket >= 0) /* EAGAIN: bytes enough lie there; EPIPE: the next look at the peer finds that out */
		(void)!send(end->socket, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int mk_sender_resume(struct mk_sender *tx, int consumer, int pidfd, uint32_t *why)
{
	struct mk_object found;
	void *base;
	uint64_t tail;
	int result = map_successor(&tx->end, consumer, MK_KIND_CONSUMER, &found, &base, why);

	if (result)
		return result;
	tail = mk_load_acquire(&((const struct mk_consumer *)base)->tail); /* A2 */
	if (tail - tx->tail > tx->head - tx->tail || !on_a_boundary(&tx->end, tail)) {
		mk_object_unmap(base, mk_lane_mapped_size(&found));
		return mk_quarantine(&tx->end, MK_BAD_TAIL, tail);
	}
	change_peer(&tx->end, &found, base, pidfd);
	mk_sender_face(tx);
	tx->tail = tail;
	ring_who_sleeps(&tx->end);
	return 0;
}

int mk_receiver_resume(struct mk_receiver *rx, int producer, int pidfd, uint32_t *why)
{
	struct mk_end *end = &rx->end;
	struct mk_object found;
	void *base;
	uint64_t head;
	int result = map_successor(end, producer, MK_KIND_PRODUCER, &found, &base, why);

	if (result)
		return result;
	head = mk_load_acquire(&((const struct mk_producer *)base)->head); /* A1 */
	if (head - rx->tail > end->mask + 1 || head - rx->tail < rx->head - rx->tail || !on_a_boundary(end, head)) {
		mk_object_unmap(base, mk_lane_mapped_size(&found));
		return mk_quarantine(end, MK_BAD_HEAD, head);
	}
	change_peer(end, &found, base, pidfd);
	mk_receiver_face(rx);
	rx->head = head;
	rx->ipi_sequence = mk_load_relaxed(&rx->peer->ipi_sequence) - 1; /* look at all of them */
	ring_who_sleeps(end);
	return 0;
}
