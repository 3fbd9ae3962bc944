/* kernel_loop.c: the loop of a native instance. What comes by its links in turn, IPIs and timers between messages, and
 * what sleeps for all of it. multikernel/kernel/runtime.py and multikernel/ipi/inbox.py are the same for Python.
 *
 * A message that mk_kernel_next returns lies in the ring and is released when the next one is asked for. What a request
 * takes out of the same ring meanwhile is copied, and kept for its turn.
 */
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE 256u /* late replies that one look drops, at most: a peer that floods us keeps nobody else waiting */

uint64_t mk_deadline(int timeout_ms)
{
	return timeout_ms < 0 ? NO_END : mk_now() + (uint64_t)timeout_ms * 1000000u;
}

/* --- IPIs --------------------------------------------------------------------------------------------------------- */

int mk_kernel_on_ipi(mk_kernel *k, unsigned vector, mk_ipi_handler *handler, void *context)
{
	if (vector >= MK_VECTORS)
		return mk_fail(k, -EINVAL, "vector %u: there are 0 to %u", vector, MK_VECTORS - 1);
	k->ipi[vector].call = handler;
	k->ipi[vector].context = context;
	return 0;
}

/* One round: as many as there are vectors, lowest first. */
static void run_ipi_handlers(struct mk_kernel *k, struct link *link)
{
	unsigned vector;
	uint64_t count;

	for (unsigned v = 0; v < MK_VECTORS && !link->closing && mk_ipi_take(link->rx, &vector, &count); v++) {
		mk_status_ipi(k->status, vector, count);
		if (!k->ipi[vector].call)
			continue;
		k->inside++;
		k->ipi[vector].call(k, vector, count, k->ipi[vector].context);
		k->inside--;
	}
}

/* --- sleeping ----------------------------------------------------------------------------------------------------- */

int mk_doze(struct mk_kernel *k, struct mk_wait_set *set, uint64_t until)
{
	uint64_t due = mk_next_timer(k), now;
	int result;

	if (due < until)
		until = due;
	if (!k->host && k->next_try < until)
		until = k->next_try;
	result = mk_kernel_ready(k);
	if (result)
		return result;
	mk_status_beat(k->status);
	if (!k->host && !k->link_count) { /* a set of nothing cannot be waited for */
		mk_await_host(k, until);
		return 0;
	}
	do {
		now = mk_now();
		result = mk_wait_set_wait(set, until == NO_END ? -1 : now < until ? (int64_t)(until - now) : 0);
	} while (result == -EINTR);
	mk_status_beat(k->status);
	return result > 0 || result == -ETIMEDOUT ? 0 : result;
}

/* --- what comes --------------------------------------------------------------------------------------------------- */

static bool answers_request(const struct mk_message *message)
{
	return message->id & MK_ID_REPLY && message->id & MK_ID_REQUEST;
}

static struct kept *copy_of(const struct mk_message *message)
{
	struct kept *kept = malloc(sizeof(*kept) + message->length);

	if (!kept)
		return NULL;
	kept->next = NULL;
	kept->message = *message;
	memcpy(kept->payload, message->payload, message->length);
	kept->message.payload = kept->payload;
	return kept;
}

/* Look at the next record, once the handlers of the IPIs that were raised before it have run: after it was seen, since
 * who sees a record sees those. For each record they run once, so a peer that never stops raising them holds up nothing.
 * @return 0; 1: handlers have run, look again; as mk_peek */
static int look(struct mk_kernel *k, struct link *link, struct mk_message *message)
{
	struct mk_receiver *rx = link->rx;
	uint64_t at;
	int result;

	if (mk_fate_changed(&rx->end))
		mk_peer_changed(k, link, false);
	at = rx->next;
	result = mk_peek(rx, message);
	if (result == -EPIPE && mk_peer_goes_on(k, link, false))
		return 1;
	if (rx->ipi_served != at + 1 && mk_ipi_waiting(rx)) {
		if (!result) { /* a handler may take it, in a request of its own */
			rx->next = at;
			rx->looked--;
			rx->looked_bytes -= message->length;
			rx->ipi_served = at + 1;
		}
		run_ipi_handlers(k, link);
		return 1;
	}
	message->sender = link->peer;
	message->link = link->number;
	message->redelivered = !result && mk_redelivered(rx);
	return result;
}

static void give_back(struct link *link)
{
	mk_release(link->rx);
	mk_mind_fate(&link->rx->end);
}

/* Keep a copy for whom it is for; a reply to a request that has given up is dropped. @return 0 or -ENOMEM */
static int sort(struct link *link, const struct mk_message *message)
{
	struct awaited *awaited = link->awaited;
	struct kept *kept;

	while (awaited && awaited->id != message->id)
		awaited = awaited->next;
	if (answers_request(message) && !awaited)
		return 0;
	kept = copy_of(message);
	if (!kept)
		return -ENOMEM;
	if (awaited) {
		free(awaited->reply); /* who replies twice is heard the last time */
		awaited->reply = kept;
	} else {
		*link->last = kept;
		link->last = &kept->next;
	}
	return 0;
}

/* Whether a look is worth its while. */
static bool has_news(struct link *link)
{
	return mk_end_ready(&link->rx->end) || mk_fate_changed(&link->rx->end);
}

int mk_sort_one(struct mk_kernel *k, struct link *link)
{
	struct mk_message message;
	uint64_t at;
	int result;

	if (!has_news(link))
		return 0;
	at = link->rx->next;
	result = look(k, link, &message);
	if (result)
		return result == -EAGAIN ? 0 : result;
	if (sort(link, &message)) {
		link->rx->next = at; /* still the next */
		link->rx->looked--;
		link->rx->looked_bytes -= message.length;
		return mk_fail(k, -ENOMEM, "no memory for a message of %u bytes", message.length);
	}
	if (k->held != link) /* else the image looks at one that lies before it */
		give_back(link);
	return 1;
}

/* The image is done with the last message. */
static void let_go(struct mk_kernel *k)
{
	if (k->held)
		give_back(k->held);
	k->held = NULL;
	free(k->delivered);
	k->delivered = NULL;
	mk_settle_peers(k);
}

/* The next message of one link. @return 1; 0: there is none; -EPIPE, -EBADMSG */
static int take_from(struct mk_kernel *k, struct link *link, struct mk_message *message)
{
	for (unsigned looks = 0; looks < PATIENCE && !link->closing; looks++) {
		struct kept *kept = link->first;
		int result;

		if (kept) {
			link->first = kept->next;
			if (!link->first)
				link->last = &link->first;
			k->delivered = kept;
			*message = kept->message;
			return 1;
		}
		if (!has_news(link))
			return 0;
		result = look(k, link, message);
		if (result < 0)
			return result == -EAGAIN ? 0 : result;
		if (!result && !answers_request(message)) {
			mk_say_seen(link->rx);
			k->held = link;
			return 1;
		}
		if (!result) /* a reply to a request that has given up */
			give_back(link);
	}
	return 0;
}

static void drop_closing(struct mk_kernel *k)
{
	for (unsigned i = 0; i < k->link_count;)
		if (k->links[i]->closing)
			mk_drop_link(k, k->links[i]);
		else
			i++;
}

/* The next message of the next link, beginning with the one whose turn it is. */
static int take(struct mk_kernel *k, struct mk_message *message)
{
	for (unsigned i = k->link_count; i; i--) {
		struct link *link;
		int result;

		if (k->turn >= k->link_count)
			k->turn = 0;
		if (!k->link_count)
			return 0;
		link = k->links[k->turn++];
		result = take_from(k, link, message);
		if (result > 0)
			return 1;
		if (result == -EBADMSG)
			mk_kernel_log(k, 3, "the lane from %s is damaged and was closed: %s %llu", link->name,
				      link->rx->end.bad == MK_BAD_LENGTH ? "a length of" : "an index of",
				      (unsigned long long)link->rx->end.bad_value);
		if (result < 0)
			link->closing = true;
	}
	return 0;
}

int mk_kernel_next(mk_kernel *k, struct mk_message *m, int timeout_ms)
{
	uint64_t until = timeout_ms > 0 ? mk_deadline(timeout_ms) : NO_END;

	if (k->inside)
		return mk_fail(k, -EBUSY, "a handler runs: the message that the loop has would be lost");
	let_go(k);
	for (;;) {
		int result = mk_serve_host(k);

		if (result)
			return result;
		if (k->halt)
			return 0;
		mk_run_timers(k);
		result = take(k, m);
		if (result > 0)
			return 1;
		drop_closing(k);
		if (timeout_ms == 0 || (until != NO_END && mk_now() >= until))
			return mk_fail(k, -ETIMEDOUT, "no message came within %d ms", timeout_ms);
		result = mk_doze(k, k->set, until);
		if (result)
			return mk_fail(k, result, "waiting for messages: %s", strerror(-result));
	}
}
