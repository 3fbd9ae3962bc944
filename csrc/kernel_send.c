/* kernel_send.c: what a native instance says to its peers: messages, replies, requests and IPIs.
 * multikernel/ipi/link.py is the same for Python.
 */
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- sending ------------------------------------------------------------------------------------------------------ */

/* Send a record, waiting for room until @until. @return 0 or -errno */
static int put(struct mk_kernel *k, struct link *link, const struct mk_message *m, uint64_t until)
{
	for (;;) {
		uint64_t now, head = link->tx->head;
		int result;

		if (mk_fate_changed(&link->tx->end))
			mk_peer_changed(k, link, true);
		result = link->closing ? -EPIPE : mk_send(link->tx, m->type, m->subtype, m->id, m->payload, m->length);
		mk_mind_fate(&link->tx->end);
		if (result == 0)
			return 0;
		if (result == -EPIPE && mk_peer_goes_on(k, link, true)) {
			if (link->tx->head != head) /* it lies there for the one that comes */
				return 0;
			continue;
		}
		if (result == -EAGAIN) {
			mk_count(&link->tx->end.counters->stalls, 1);
			now = until == NO_END ? 0 : mk_now();
			result = now >= until ? -ETIMEDOUT
					      : mk_wait(&link->tx->end, until == NO_END ? -1 : (int64_t)(until - now));
			if (!result || result == -EINTR)
				continue;
		}
		if (result == -EMSGSIZE)
			return mk_fail(k, result, "%u bytes to %s: this link carries %llu at most", m->length,
				       link->name, (unsigned long long)mk_longest(&link->tx->end));
		if (result == -ETIMEDOUT)
			return mk_fail(k, result, "no room for %u bytes: %s does not take what was sent", m->length,
				       link->name);
		return mk_fail(k, result, "cannot send to %s: %s", link->name,
			       result == -EPIPE ? "it is gone" : strerror(-result));
	}
}

/* What a caller gave, as a message. @return 0; -EINVAL, -EMSGSIZE */
static int outgoing(struct mk_kernel *k, struct mk_message *m, uint16_t type, uint16_t subtype, const void *payload,
		    size_t length)
{
	if (type == MK_MSG_SYSTEM || type == MK_MSG_RESOURCE)
		return mk_fail(k, -EINVAL, "type %#x: system and resource messages are the host's alone to send", type);
	if (length > UINT32_MAX)
		return mk_fail(k, -EMSGSIZE, "a message of %zu bytes: no link carries that", length);
	*m = (struct mk_message){.payload = payload, .length = (uint32_t)length, .type = type, .subtype = subtype};
	return 0;
}

int mk_kernel_send(mk_kernel *k, int number, uint16_t type, uint16_t subtype, const void *payload, size_t length,
		   int timeout_ms)
{
	struct mk_message m;
	int code = outgoing(k, &m, type, subtype, payload, length);
	struct link *link = code ? NULL : mk_open_link(k, number, &code);

	if (!link)
		return code;
	m.id = ++link->last_id;
	return put(k, link, &m, mk_deadline(timeout_ms));
}

int mk_kernel_reply_as(mk_kernel *k, const struct mk_message *to, uint16_t type, uint16_t subtype, const void *payload,
		       size_t length)
{
	struct mk_message m;
	int code = outgoing(k, &m, type, subtype, payload, length);
	struct link *link = code ? NULL : mk_open_link(k, to->link, &code);

	if (!link)
		return code;
	m.id = to->id | MK_ID_REPLY;
	return put(k, link, &m, NO_END);
}

int mk_kernel_reply(mk_kernel *k, const struct mk_message *m, const void *payload, size_t length)
{
	return mk_kernel_reply_as(k, m, MK_MSG_USER, 0, payload, length);
}

int mk_kernel_ipi(mk_kernel *k, int number, unsigned vector)
{
	int code = 0;
	struct link *link = mk_open_link(k, number, &code);
	bool raised;

	if (!link)
		return code;
	if (mk_fate_changed(&link->tx->end))
		mk_peer_changed(k, link, true);
	if (link->tx->end.stop == -EPIPE)
		mk_peer_goes_on(k, link, true);
	raised = !link->tx->end.stop;
	code = raised ? mk_ipi_raise(link->tx, vector) : link->tx->end.stop;
	mk_mind_fate(&link->tx->end);
	if (code == -EPIPE && raised && mk_peer_goes_on(k, link, true)) /* its counter is there for who comes */
		code = 0;
	if (code)
		return mk_fail(k, code, "cannot interrupt %s by vector %u (0 to %u): %s", link->name, vector,
			       MK_VECTORS - 1, strerror(-code));
	return 0;
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

/* The link and the host lane together, for waits on one link: others are looked at later. */
static struct mk_wait_set *pair_of(struct mk_kernel *k, struct link *link)
{
	if (link->pair)
		return link->pair;
	link->pair = mk_wait_set_new();
	if (link->pair && (!k->host || !mk_wait_set_add(link->pair, &k->host->end)) &&
	    !mk_wait_set_add(link->pair, &link->rx->end))
		return link->pair;
	mk_wait_set_free(link->pair);
	link->pair = NULL;
	return NULL;
}

/* Receive until the reply is there. @return 0 or -errno */
static int await_reply(struct mk_kernel *k, struct link *link, struct awaited *awaited, uint64_t until)
{
	for (;;) {
		struct mk_wait_set *pair;
		int result = mk_serve_host(k);

		if (result)
			return result;
		mk_run_timers(k);
		while (!awaited->reply && !link->closing && (result = mk_sort_one(k, link)) > 0)
			if (mk_now() >= until)
				break;
		if (awaited->reply)
			return 0;
		if (link->closing || result == -EPIPE)
			return mk_fail(k, -EPIPE, "%s is gone: it did not reply", link->name);
		if (result < 0)
			return mk_fail(k, result, "waiting for the reply of %s: %s", link->name, strerror(-result));
		if (until != NO_END && mk_now() >= until)
			return mk_fail(k, -ETIMEDOUT, "%s did not reply in time", link->name);
		pair = pair_of(k, link); /* another one when there is another host, or another of the peer */
		if (!pair)
			return mk_fail(k, -ENOMEM, "no memory, or no descriptor, to wait for %s", link->name);
		result = mk_doze(k, pair, until);
		if (result)
			return mk_fail(k, result, "waiting for the reply of %s: %s", link->name, strerror(-result));
	}
}

int mk_kernel_request(mk_kernel *k, int number, uint16_t type, uint16_t subtype, const void *payload, size_t length,
		      struct mk_message *reply, int timeout_ms)
{
	uint64_t until = mk_deadline(timeout_ms);
	struct mk_message m;
	struct awaited awaited = {0};
	int code = outgoing(k, &m, type, subtype, payload, length);
	struct link *link = code ? NULL : mk_open_link(k, number, &code);

	if (!link)
		return code;
	m.id = ++link->last_id | MK_ID_REQUEST;
	awaited.id = m.id | MK_ID_REPLY;
	awaited.next = link->awaited;
	link->awaited = &awaited;
	code = put(k, link, &m, until);
	if (!code)
		code = await_reply(k, link, &awaited, until);
	link->awaited = awaited.next; /* those of handlers are over by now */
	if (code) {
		free(awaited.reply);
		return code;
	}
	free(link->reply);
	link->reply = awaited.reply;
	*reply = awaited.reply->message;
	return 0;
}

/* --- links -------------------------------------------------------------------------------------------------------- */

int mk_kernel_close(mk_kernel *k, int number)
{
	int code = 0;
	struct link *link = mk_open_link(k, number, &code);

	if (!link)
		return code;
	link->closing = true;
	if (!k->inside) /* else a call that has called this handler may be in the middle of it */
		mk_drop_link(k, link);
	return 0;
}

const char *mk_kernel_peer(const mk_kernel *k, int number)
{
	const struct link *link = mk_find_link(k, number);

	return link ? link->name : NULL;
}

uint32_t mk_kernel_peer_id(const mk_kernel *k, int number)
{
	const struct link *link = mk_find_link(k, number);

	return link ? link->peer : 0;
}

int mk_kernel_next_link(const mk_kernel *k, int number)
{
	int next = 0;

	for (unsigned i = 0; i < k->link_count; i++) {
		const struct link *link = k->links[i];

		if (link->number > number && !link->closing && (!next || link->number < next))
			next = link->number;
	}
	return next;
}
