/* shim.h: what the binding adds to the core, compiled into the cffi module.
 *
 * An interpreter may call one end from two threads, or from a forked copy: each call enters the end and leaves it
 * again, and who finds it taken is told so (-EBUSY, -ECHILD). A call that hands out memory of the ring (a view) keeps
 * the end until it is given back. Deadlines are CLOCK_MONOTONIC nanoseconds; < 0: none, 0: do not wait.
 */
#include <errno.h>

#include "multikernel/console.h"
#include "multikernel/doorbell.h"
#include "multikernel/lane.h"
#include "multikernel/memory.h"
#include "multikernel/probe.h"
#include "multikernel/process.h"
#include "multikernel/status.h"

static int mk_py_enter(struct mk_end *end)
{
	if (end->generation != mk_fork_generation())
		return -ECHILD;
	/* Acquire and, in leave, release: the next thread sees what this one left in the end. */
	return atomic_exchange_explicit(&end->busy, 1, memory_order_acquire) ? -EBUSY : 0;
}

static void mk_py_leave(struct mk_end *end)
{
	mk_event_settle(end);
	mk_store_release(&end->busy, 0);
}

static struct mk_end *mk_py_sender_end(struct mk_sender *tx)
{
	return &tx->end;
}

static struct mk_end *mk_py_receiver_end(struct mk_receiver *rx)
{
	return &rx->end;
}

/* @return 0: look again; -EAGAIN: it was not to wait; -ETIMEDOUT; -EINTR */
static int mk_py_wait_until(struct mk_end *end, int64_t deadline)
{
	int64_t left = -1;

	if (deadline == 0)
		return -EAGAIN;
	if (deadline > 0) {
		left = deadline - (int64_t)mk_now();
		if (left < 0)
			left = 0;
	}
	return mk_wait(end, left);
}

/* --- sending ---------------------------------------------------------------------------------------------------- */

static int mk_py_send(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id, const void *payload,
		      uint64_t length, int64_t deadline)
{
	int result = mk_py_enter(&tx->end);

	if (result)
		return result;
	while ((result = mk_send(tx, type, subtype, id, payload, length)) == -EAGAIN) {
		mk_count(&tx->end.counters->stalls, 1);
		result = mk_py_wait_until(&tx->end, deadline);
		if (result)
			break;
	}
	mk_py_leave(&tx->end);
	return result;
}

/* Records that are published together: put each, then publish. A full ring publishes what is there and waits.
 * @return how many were put; the reason to stop early is in *why */
static int64_t mk_py_send_many(struct mk_sender *tx, uint16_t type, uint16_t subtype, uint64_t id,
			       const void *const *payloads, const uint64_t *lengths, int64_t count, int64_t deadline,
			       int *why)
{
	int64_t done = 0;

	*why = mk_py_enter(&tx->end);
	if (*why)
		return 0;
	while (done < count) {
		void *slot;

		*why = mk_reserve(tx, lengths[done], &slot);
		if (*why == -EAGAIN) {
			mk_publish(tx);
			mk_count(&tx->end.counters->stalls, 1);
			*why = mk_py_wait_until(&tx->end, deadline);
			if (!*why)
				continue;
		}
		if (*why)
			break;
		if (lengths[done])
			memcpy(slot, payloads[done], lengths[done]);
		mk_finish(tx, lengths[done], type, subtype, id + (uint64_t)done);
		done++;
	}
	mk_publish(tx);
	mk_py_leave(&tx->end);
	return done;
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
	int result = mk_py_enter(&tx->end);

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
	int result = tx->end.shape.element ? mk_finish_elements(tx, n) : mk_finish(tx, n, type, subtype, id);

	if (!result)
		mk_publish(tx);
	tx->reserved = 0;
	mk_py_leave(&tx->end);
	return result;
}

static void mk_py_abandon(struct mk_sender *tx)
{
	tx->reserved = 0;
	mk_py_leave(&tx->end);
}

static int mk_py_ipi(struct mk_sender *tx, unsigned vector)
{
	int result = mk_py_enter(&tx->end);

	if (result)
		return result;
	result = mk_ipi_raise(tx, vector);
	mk_py_leave(&tx->end);
	return result;
}

/* --- receiving -------------------------------------------------------------------------------------------------- */

/* Look at up to @limit records; wait for the first only. Keeps the end on success: mk_py_release gives it back.
 * @return how many; -ENOMSG: an IPI waits that was raised before the next record; -EAGAIN, -EPIPE ... */
static int mk_py_peek(struct mk_receiver *rx, struct mk_message *messages, int limit, uint64_t bytes, int64_t deadline)
{
	int n = 0;
	int result = mk_py_enter(&rx->end);

	if (result)
		return result;
	for (;;) {
		uint64_t next = rx->next, looked = rx->looked, looked_bytes = rx->looked_bytes;

		result = n < limit && (n == 0 || rx->looked_bytes < bytes) ? mk_peek(rx, &messages[n]) : 1;
		if (result <= 0 && mk_ipi_waiting(rx)) { /* raised before this record: not yet */
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

static void mk_py_release(struct mk_receiver *rx)
{
	mk_release(rx);
	mk_py_leave(&rx->end);
}

/* Give the end back but not yet the space: mk_py_done does, once the message has been dealt with. */
static void mk_py_hold(struct mk_receiver *rx)
{
	mk_py_leave(&rx->end);
}

static int mk_py_done(struct mk_receiver *rx)
{
	int result = mk_py_enter(&rx->end);

	if (result)
		return result;
	mk_py_release(rx);
	return 0;
}

/* Give the end back without the space: what was looked at is next again. */
static void mk_py_unpeek(struct mk_receiver *rx)
{
	mk_unpeek(rx);
	mk_py_leave(&rx->end);
}

static int mk_py_take_ipi(struct mk_receiver *rx, unsigned *vector, uint64_t *count)
{
	int result = mk_py_enter(&rx->end);

	if (result)
		return result;
	result = mk_ipi_take(rx, vector, count);
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

/* --- either ------------------------------------------------------------------------------------------------------ */

static int mk_py_wait(struct mk_end *end, int64_t deadline)
{
	int result = mk_py_enter(end);

	if (result)
		return result;
	result = mk_py_wait_until(end, deadline);
	mk_py_leave(end);
	return result;
}

/* For the other end of the same link, whose socket pair this end's wait may have read. */
static void mk_py_settle(struct mk_end *end)
{
	if (end->event >= 0 && !mk_py_enter(end))
		mk_py_leave(end);
}

/* Whether the peer closed its end itself; a dead one did not. */
static int mk_py_peer_closed(struct mk_end *end)
{
	return mk_load_acquire(end->peer_state) == MK_END_CLOSED;
}

static void mk_py_counters(struct mk_end *end, struct mk_counters *counters)
{
	end->counters = counters ? counters : &end->own_counters;
}

static void mk_py_read_counters(struct mk_end *end, struct mk_counters_copy *copy)
{
	const _Atomic uint64_t *from = &end->counters->sent;
	uint64_t *to = &copy->sent;

	for (size_t i = 0; i < sizeof(*copy) / sizeof(uint64_t); i++)
		to[i] = mk_load_relaxed(&from[i]);
}

static int mk_py_event(struct mk_end *end)
{
	int result = mk_py_enter(end);

	if (result)
		return result;
	result = mk_event_descriptor(end);
	mk_py_leave(end);
	return result;
}

static int mk_py_set_wait(struct mk_wait_set *set, int64_t deadline)
{
	int64_t left = deadline;

	if (deadline > 0) {
		left = deadline - (int64_t)mk_now();
		if (left < 0)
			left = 0;
	}
	return mk_wait_set_wait(set, left);
}

/* What an end knows, for messages to people. */
struct mk_py_view {
	uint64_t capacity, used, bad_value, epoch;
	uint32_t bad, peer_pid, peer_id, element;
	int gone, claimed_here;
};

static void mk_py_inspect(struct mk_end *end, struct mk_py_view *view)
{
	memset(view, 0, sizeof(*view));
	view->capacity = end->shape.capacity;
	view->element = end->shape.element;
	view->bad = end->bad;
	view->bad_value = end->bad_value;
	view->claimed_here = end->generation == mk_fork_generation();
	view->gone = end->gone;
	if (!view->claimed_here || !end->peer_map)
		return;
	const volatile struct mk_object *peer = end->peer_map;
	view->peer_pid = peer->owner_pid;
	view->peer_id = peer->owner_id;
	view->gone = mk_end_gone(end, false);
	if (end->sending) {
		struct mk_sender *tx = (struct mk_sender *)(void *)end;
		view->used = tx->head - mk_load_relaxed(&tx->peer->tail);
	} else {
		struct mk_receiver *rx = (struct mk_receiver *)(void *)end;
		view->used = mk_load_relaxed(&rx->peer->head) - rx->tail;
	}
}

static int mk_py_policy(struct mk_end *end, int policy)
{
	if (policy < MK_WAIT_ADAPTIVE || policy > MK_WAIT_PARK)
		return -EINVAL;
	end->policy = (uint8_t)policy;
	return 0;
}


/* --- the machine object ------------------------------------------------------------------------------------------ */

static void mk_py_write_machine(struct mk_machine *m, const struct mk_machine_record *record)
{
	mk_latch_write(&m->latch, m->copies, record, sizeof(*record));
}

static int mk_py_read_machine(const struct mk_machine *m, struct mk_machine_record *record)
{
	return mk_latch_read(&m->latch, m->copies, record, sizeof(*record));
}

static int mk_py_write_instance(struct mk_machine *m, uint32_t id, const struct mk_instance_record *record)
{
	if (id == 0 || id >= MK_INSTANCES)
		return -EINVAL;
	mk_latch_write(&m->instances[id].latch, m->instances[id].copies, record, sizeof(*record));
	return 0;
}

static int mk_py_read_instance(const struct mk_machine *m, uint32_t id, struct mk_instance_record *record)
{
	if (id == 0 || id >= MK_INSTANCES)
		return -EINVAL;
	return mk_latch_read(&m->instances[id].latch, m->instances[id].copies, record, sizeof(*record));
}

static int mk_py_write_image(struct mk_machine *m, uint32_t slot, const struct mk_image_record *record)
{
	if (slot >= MK_IMAGES)
		return -EINVAL;
	mk_latch_write(&m->images[slot].latch, m->images[slot].copies, record, sizeof(*record));
	return 0;
}

static int mk_py_read_image(const struct mk_machine *m, uint32_t slot, struct mk_image_record *record)
{
	if (slot >= MK_IMAGES)
		return -EINVAL;
	return mk_latch_read(&m->images[slot].latch, m->images[slot].copies, record, sizeof(*record));
}
