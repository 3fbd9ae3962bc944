/* shim_lane.h: what the binding adds to the ends of lanes: sending and receiving. Compiled behind shim.h. */

/* --- sending ---------------------------------------------------------------------------------------------------- */

/* The id of the next record: the caller's, or with 0 the lane's own count. */
static uint64_t mk_py_id(struct mk_sender *tx, uint64_t id)
{
	return id ? id : ++tx->last_id;
}

static int mk_py_send(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id, const void *payload,
		      uint64_t length, int64_t deadline)
{
	int result = mk_py_enter_lane(&tx->end);
	uint64_t head;

	if (result)
		return result;
	head = tx->head;
	id = mk_py_id(tx, id);
	while ((result = mk_send(tx, type, subtype, id, payload, length)) == -EAGAIN) {
		mk_count(&tx->end.counters->stalls, 1);
		result = mk_py_wait_until(&tx->end, deadline);
		if (result)
			break;
	}
	mk_mind_fate(&tx->end);
	if (result == -EPIPE && tx->head != head)
		result = -ESHUTDOWN; /* it is published, and nobody will take it: a successor may */
	mk_py_leave(&tx->end);
	return result;
}

/* How far a batch has come, and why it stopped. */
struct mk_py_batch {
	int64_t records, pieces;
	int why;
};

/* Put one record of @count pieces. @return 0, -EAGAIN ... */
static int mk_py_put(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id, const void *const *pieces,
		     const uint64_t *lengths, uint32_t count)
{
	uint64_t total = 0;
	void *slot;
	int result;

	for (uint32_t i = 0; i < count; i++)
		if (__builtin_add_overflow(total, lengths[i], &total))
			return -EMSGSIZE;
	result = mk_reserve(tx, total, &slot);
	if (result)
		return result;
	for (uint32_t i = 0; i < count; i++) {
		if (lengths[i])
			memcpy(slot, pieces[i], lengths[i]);
		slot = (char *)slot + lengths[i];
	}
	return mk_finish(tx, total, type, subtype, mk_py_id(tx, id));
}

/* Records that are published together: put each, then publish. A full ring publishes what is there and waits.
 * @param done  where to begin, and where it ended */
static void mk_py_send_many(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id,
			    const void *const *pieces, const uint64_t *lengths, const uint32_t *counts, int64_t count,
			    int64_t deadline, struct mk_py_batch *done)
{
	done->why = mk_py_enter_lane(&tx->end);
	if (done->why)
		return;
	while (done->records < count) {
		uint32_t n = counts[done->records];

		done->why = mk_py_put(tx, type, subtype, id, pieces + done->pieces, lengths + done->pieces, n);
		if (done->why == -EAGAIN) {
			mk_publish(tx);
			mk_count(&tx->end.counters->stalls, 1);
			done->why = mk_py_wait_until(&tx->end, deadline);
			if (!done->why)
				continue;
		}
		if (done->why)
			break;
		done->records++;
		done->pieces += n;
		id += id != 0;
	}
	int published = mk_publish(tx);
	mk_mind_fate(&tx->end);
	if (!done->why)
		done->why = published;
	mk_py_leave(&tx->end);
}

static int64_t mk_py_send_elements(struct mk_sender *tx, const void *elements, int64_t count, int64_t deadline, int *why)
{
	int64_t done = 0;

	*why = mk_py_enter(&tx->end);
	if (*why)
		return 0;
	while (done < count) {
		int64_t sent = mk_send_elements(tx, (const char *)elements + done * tx->end.shape.element,
						(uint64_t)(count - done));

		if (sent > 0) {
			done += sent;
			continue;
		}
		*why = (int)sent;
		if (sent == -EAGAIN) {
			mk_count(&tx->end.counters->stalls, 1);
			*why = mk_py_wait_until(&tx->end, deadline);
		}
		if (*why)
			break;
	}
	mk_py_leave(&tx->end);
	return done;
}

/* Keeps the end on success: mk_py_commit or mk_py_abandon gives it back. */
static int mk_py_reserve(struct mk_sender *tx, uint64_t n, void **slot, int64_t deadline)
{
	int result = mk_py_enter_lane(&tx->end);

	if (result)
		return result;
	for (;;) {
		result = tx->end.shape.element ? mk_reserve_elements(tx, n, slot) : mk_reserve(tx, n, slot);
		if (result == -EAGAIN)
			result = mk_py_wait_until(&tx->end, deadline);
		else
			break;
		if (result)
			break;
	}
	if (result)
		mk_py_leave(&tx->end);
	return result;
}

static int mk_py_commit(struct mk_sender *tx, uint64_t n, uint16_t type, uint16_t subtype, uint64_t id)
{
	int result = mk_py_lent(&tx->end);

	if (result)
		return result;
	result = tx->end.shape.element ? mk_finish_elements(tx, n)
				       : mk_finish(tx, n, type, subtype, mk_py_id(tx, id));
	tx->reserved = 0;
	if (!result && (result = mk_publish(tx)) == -EPIPE)
		result = -ESHUTDOWN; /* as in mk_py_send */
	mk_mind_fate(&tx->end);
	mk_py_leave(&tx->end);
	return result;
}

static int mk_py_abandon(struct mk_sender *tx)
{
	int result = mk_py_lent(&tx->end);

	if (result)
		return result;
	tx->reserved = 0;
	mk_py_leave(&tx->end);
	return 0;
}

/* After an exception in the middle of a call: nothing is reserved, the end is free. */
static void mk_py_recover_sender(struct mk_sender *tx)
{
	if (mk_py_stranded(&tx->end))
		mk_py_abandon(tx);
}

static int mk_py_ipi(struct mk_sender *tx, unsigned vector)
{
	int result = mk_py_enter_lane(&tx->end);

	if (result)
		return result;
	result = tx->end.stop;
	if (!result && (result = mk_ipi_raise(tx, vector)) == -EPIPE)
		result = -ESHUTDOWN; /* as in mk_py_send */
	mk_mind_fate(&tx->end);
	mk_py_leave(&tx->end);
	return result;
}

/* --- receiving -------------------------------------------------------------------------------------------------- */

/* Whether an IPI is to be taken before the record at @next. One round of taking is enough: whoever raises them without
 * a pause would otherwise keep us from the records that came after the first ones. */
static bool mk_py_ipi_first(struct mk_receiver *rx, uint64_t next, bool record)
{
	if (record && rx->ipi_served == next + 1)
		return false;
	if (!mk_ipi_waiting(rx))
		return false;
	rx->ipi_behind = record ? next + 1 : 0;
	return true;
}

/* Look at up to @limit records; wait for the first only. Keeps the end on success: mk_py_release gives it back.
 * @return how many; -ENOMSG: an IPI waits that was raised before the next record; -EAGAIN, -EPIPE ... */
static int mk_py_peek(struct mk_receiver *rx, struct mk_message *messages, int limit, uint64_t bytes, int64_t deadline)
{
	int n = 0;
	int result = mk_py_enter_lane(&rx->end);

	if (result)
		return result;
	for (;;) {
		uint64_t next = rx->next, looked = rx->looked, looked_bytes = rx->looked_bytes;

		result = n < limit && (n == 0 || rx->looked_bytes < bytes) ? mk_peek(rx, &messages[n]) : 1;
		if (result <= 0 && mk_py_ipi_first(rx, next, result == 0)) { /* raised before this record: not yet */
			rx->next = next;
			rx->looked = looked;
			rx->looked_bytes = looked_bytes;
			result = -ENOMSG;
		}
		if (result == 0) {
			n++;
			continue;
		}
		if (n)
			return n;
		if (result == -EAGAIN)
			result = mk_py_wait_until(&rx->end, deadline);
		if (result)
			break;
	}
	mk_py_leave(&rx->end);
	return result;
}

static int64_t mk_py_peek_elements(struct mk_receiver *rx, int64_t limit, const void **elements, int64_t deadline)
{
	int64_t result = mk_py_enter(&rx->end);

	if (result)
		return result;
	while ((result = mk_peek_elements(rx, (uint64_t)limit, elements)) == -EAGAIN) {
		result = mk_py_wait_until(&rx->end, deadline);
		if (result)
			break;
	}
	if (result <= 0)
		mk_py_leave(&rx->end);
	return result;
}

/* Give the space of what was looked at back, and the end. */
static int mk_py_release(struct mk_receiver *rx)
{
	int result = mk_py_lent(&rx->end);

	if (result)
		return result;
	mk_release(rx);
	mk_mind_fate(&rx->end);
	mk_py_leave(&rx->end);
	return 0;
}

/* What is looked at is handed out where it lies. */
static int mk_py_say_seen(struct mk_receiver *rx)
{
	int result = mk_py_lent(&rx->end);

	if (!result)
		mk_say_seen(rx);
	return result;
}

/* Give the end back but not yet the space: mk_py_done does, once the message has been dealt with. */
static int mk_py_hold(struct mk_receiver *rx)
{
	int result = mk_py_say_seen(rx);

	if (result)
		return result;
	mk_py_leave(&rx->end);
	return 0;
}

static int mk_py_done(struct mk_receiver *rx)
{
	int result = mk_py_enter(&rx->end);

	return result ? result : mk_py_release(rx);
}

/* Give the end back without the space: what was looked at is next again. */
static int mk_py_unpeek(struct mk_receiver *rx)
{
	int result = mk_py_lent(&rx->end);

	if (result)
		return result;
	mk_unpeek(rx);
	mk_py_leave(&rx->end);
	return 0;
}

/* After an exception in the middle of a call: what it had looked at and not released is next again, the end is free. */
static void mk_py_recover_receiver(struct mk_receiver *rx)
{
	if (mk_py_stranded(&rx->end) || !mk_py_enter(&rx->end))
		mk_py_unpeek(rx);
}

/* Take the lowest pending vector from @from up. A round of calls, each from behind the last one's vector, ends with 0. */
static int mk_py_take_ipi(struct mk_receiver *rx, unsigned from, unsigned *vector, uint64_t *count)
{
	int result = mk_py_enter(&rx->end);
	uint64_t masked = rx->ipi_masked;

	if (result)
		return result;
	if (from < MK_VECTORS) {
		rx->ipi_masked = masked | ((1ULL << from) - 1);
		result = mk_ipi_take(rx, vector, count);
		rx->ipi_masked = masked;
	}
	if (!result)
		rx->ipi_served = rx->ipi_behind;
	mk_py_leave(&rx->end);
	return result;
}

/* @return how many messages wait; -ECHILD, -EBUSY */
static int64_t mk_py_waiting(struct mk_receiver *rx)
{
	int64_t result = mk_py_enter(&rx->end);

	if (result)
		return result;
	result = (int64_t)mk_waiting(rx);
	mk_py_leave(&rx->end);
	return result;
}

static void mk_py_mask_all(struct mk_receiver *rx)
{
	for (unsigned v = 0; v < MK_VECTORS; v++)
		mk_ipi_mask(rx, v, true);
}

static int mk_py_mask(struct mk_receiver *rx, unsigned vector, int masked)
{
	int result = mk_py_enter(&rx->end);

	if (result)
		return result;
	result = mk_ipi_mask(rx, vector, masked != 0);
	mk_py_leave(&rx->end);
	return result;
}
