/* kernel_host.c: what a native instance and its host say to each other. The documents stand in
 * multikernel/kernel/protocol.py; the host lane carries the request to halt, and IPI 0: look at the control channel.
 */
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOST_SAYS_IT_FIRST_NS \
	5000000000u /* the host answers at the deadline that it was given; if it does not, we go on */
#define CAPACITY 0x100000u
#define LONG_MS 86400000 /* what no limit is to the host, who wants a number */

int mk_say(struct mk_kernel *k, struct mk_document_writer *writer, const int *fds, unsigned count)
{
	int length = mk_document_end(writer), result = 0;

	if (length < 0)
		return length;
	if (k->control >= 0)
		result = mk_channel_send(k->control, writer->text, (size_t)length, fds, count, true);
	return result == -EPIPE && k->instances >= 0 ? 0 : result;
}

static void close_all(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

/* --- links ------------------------------------------------------------------------------------------------------ */

int mk_join_link(struct mk_kernel *k, struct half *half, uint64_t capacity, const struct mk_document *terms)
{
	struct link *link = calloc(1, sizeof(*link));
	int result = link ? 0 : -ENOMEM;
	int64_t peer = 0, epoch = 0;

	if (!result &&
	    (mk_document_number(terms, "peer", &peer) || peer < 0 || peer > UINT32_MAX ||
	     mk_document_number(terms, "link", &link->host_number) || mk_document_number(terms, "peer_epoch", &epoch) ||
	     mk_document_string(terms, "peer_name", link->name, sizeof(link->name))))
		result = -EBADMSG;
	if (result) {
		mk_half_drop(half);
		free(link);
		return result;
	}
	link->peer = (uint32_t)peer;
	link->peer_epoch = (uint64_t)epoch;
	link->capacity = capacity;
	mk_half_join(half, link);
	mk_watch_peer(k, link);
	link->counters = mk_status_link(k->status, link->peer, capacity);
	link->rx->end.counters = link->rx->end.wait_counters = link->counters;
	link->tx->end.counters = link->tx->end.wait_counters = link->counters;
	return mk_keep_link(k, link);
}

/* Put a half to what the host sent with the terms of a link. @return the link's number, or -errno: nothing is left */
static int complete(struct mk_kernel *k, struct half *half, uint64_t capacity, const struct mk_document *terms,
		    const int *fds, unsigned count)
{
	int result;

	if (count != 4) {
		close_all(fds, count);
		mk_half_drop(half);
		return count ? -EBADMSG : -EMFILE;
	}
	result = mk_half_attach(half, fds);
	return result ? result : mk_join_link(k, half, capacity, terms);
}

static void refuse_offer(struct mk_kernel *k, int64_t number, int error)
{
	char text[512];
	struct mk_document_writer w;

	mk_fail(k, error, "%s cannot take a link: %s", k->name, strerror(-error));
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "refused");
	mk_document_put_number(&w, "link", number);
	mk_document_open(&w, "failed");
	mk_document_put_string(&w, "error", "MultikernelError");
	mk_document_put_string(&w, "message", k->error);
	mk_document_open(&w, "fields");
	mk_document_close(&w);
	mk_document_close(&w);
	mk_say(k, &w, NULL, 0); /* a host that is gone is seen at the next look */
}

/* Somebody asks for a link. What another party brought ends nothing here: it sees its link closed. */
static void take_offer(struct mk_kernel *k, const struct mk_document *offer, const int *fds, unsigned count)
{
	char text[128];
	struct mk_document_writer w;
	struct half half;
	int64_t number, capacity;
	int result;

	if (mk_document_number(offer, "link", &number)) {
		close_all(fds, count);
		return;
	}
	result = mk_document_number(offer, "capacity", &capacity) || capacity < 0 ? -EINVAL : 0;
	if (!result && !count)
		result = -EMFILE; /* that is why none came */
	if (!result)
		result = mk_half_make(&half, (uint64_t)capacity, k->id, k->epoch);
	if (result) {
		close_all(fds, count);
		refuse_offer(k, number, result);
		return;
	}
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "linked");
	mk_document_put_number(&w, "link", number);
	mk_say(k, &w, half.fds, 2);
	result = complete(k, &half, (uint64_t)capacity, offer, fds, count);
	if (result < 0)
		mk_kernel_log(k, 3, "a link was refused: %s", strerror(-result));
}

/* --- the control channel ------------------------------------------------------------------------------------------ */

void mk_serve_document(struct mk_kernel *k, const struct mk_document *document, const int *fds, unsigned count)
{
	char push[16];

	if (mk_document_string(document, "push", push, sizeof(push)))
		push[0] = 0;
	if (strcmp(push, "link") == 0)
		take_offer(k, document, fds, count);
	else if (strcmp(push, "successor") == 0)
		mk_offer_successor(k, document, fds, count);
	else /* an answer to a request that was given up, or what this kernel does not know */
		close_all(fds, count);
}

int mk_take_document(struct mk_kernel *k, struct mk_document *document, int *fds, unsigned *count)
{
	int length = mk_channel_receive(k->control, k->text, fds, count);

	if (length == -EAGAIN)
		return 0;
	if (length < 0)
		return mk_fail(k, length, "the host is gone, or sent what no host sends: %s", strerror(-length));
	if (mk_document_read(document, k->text, (size_t)length)) {
		close_all(fds, *count);
		return mk_fail(k, -EBADMSG, "the host sent a document that is not JSON");
	}
	return 1;
}

int mk_serve_host(struct mk_kernel *k)
{
	struct mk_document document;
	struct mk_message message;
	int fds[MK_CHANNEL_DESCRIPTORS];
	unsigned vector, count;
	uint64_t times;
	bool look = false;
	int result;

	if (!k->host)
		mk_find_host(k);
	if (!k->host || (mk_likely(!mk_end_ready(&k->host->end)) && !mk_host_is_gone(k)))
		return 0;
	while (!(result = mk_peek(k->host, &message))) {
		if (message.type == MK_MSG_SYSTEM && message.subtype == MK_SYS_SHUTDOWN && !k->halt) {
			k->halt = true;
			mk_status_phase(k->status, MK_PHASE_ENDING);
		}
		mk_release(k->host);
	}
	for (unsigned v = 0; v < MK_VECTORS && mk_ipi_take(k->host, &vector, &times); v++)
		look = true;
	mk_status_beat(k->status); /* it was asked to look, and has */
	if (result != -EAGAIN && !look)
		return result == -EPIPE ? mk_lose_host(k) : mk_fail(k, result, "the lane of the host is damaged");
	do {
		result = look ? mk_take_document(k, &document, fds, &count) : 0;
		if (result > 0)
			mk_serve_document(k, &document, fds, count);
	} while (result > 0);
	return result == -EPIPE ? mk_lose_host(k) : result;
}

/* --- connect ------------------------------------------------------------------------------------------------------ */

/* The host's reason, in its words, and as the errno that is nearest. */
static int failure(struct mk_kernel *k, const struct mk_document *error)
{
	static const struct {
		const char *name;
		int code;
	} known[] = {{"NotFound", -ENOENT},      {"StateError", -ENOTCONN}, {"Timeout", -ETIMEDOUT},
		     {"ResourceError", -ENOSPC}, {"Closed", -EPIPE},        {"CorruptLane", -EPROTO}};
	char name[64], message[ERROR_SIZE];
	int code = -EIO;

	if (mk_document_string(error, "error", name, sizeof(name)))
		name[0] = 0;
	if (mk_document_string(error, "message", message, sizeof(message)))
		strcpy(message, "the host gives no reason");
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strcmp(name, known[i].name) == 0)
			code = known[i].code;
	return mk_fail(k, code, "%s", message);
}

/* Wait for the answer to the last request; what the host sends meanwhile is served, since two that connect to each other
 * would wait for each other otherwise. @return as mk_ask; -ECONNRESET: there will be another host */
static int await_answer(struct mk_kernel *k, uint64_t until, struct mk_document *ok, int *fds, unsigned *count)
{
	struct mk_document document, error;
	int64_t answers;
	int result;

	for (;;) {
		uint64_t now = mk_now();

		result = mk_take_document(k, &document, fds, count);
		if (result < 0) /* of a host that was killed, in a persistent machine, the next one is asked */
			return result == -EPIPE && k->instances >= 0 ? -ECONNRESET : result;
		if (result == 0) {
			result = now >= until
					 ? -ETIMEDOUT
					 : mk_channel_wait(k->control, until == NO_END ? -1 : (int64_t)(until - now));
			if (result == -ETIMEDOUT)
				return mk_fail(k, result, "the host did not answer");
			if (result)
				return result;
			continue;
		}
		if (mk_document_number(&document, "answer", &answers) || answers != (int64_t)k->asked) {
			mk_serve_document(k, &document, fds, *count);
			continue;
		}
		if (!mk_document_object(&document, "ok", ok))
			return 0;
		close_all(fds, *count);
		if (mk_document_object(&document, "failed", &error))
			return mk_fail(k, -EBADMSG, "the host answered neither yes nor no");
		return failure(k, &error);
	}
}

int mk_ask(struct mk_kernel *k, struct mk_document_writer *w, const int *given, unsigned given_count, uint64_t until,
	   struct mk_document *ok, int *fds, unsigned *count)
{
	int result;

	mk_document_put_number(w, "id", (int64_t)++k->asked);
	result = mk_say(k, w, given, given_count);
	if (result)
		return mk_fail(k, result, "asking the host: %s", strerror(-result));
	return await_answer(k, until == NO_END ? until : until + HOST_SAYS_IT_FIRST_NS, ok, fds, count);
}

static uint64_t rounded(uint64_t capacity)
{
	uint64_t power = mk_page_size();

	while (power < capacity && power < MK_CAPACITY_MAX)
		power *= 2;
	return power;
}

int mk_kernel_connect(mk_kernel *k, const char *name, uint64_t capacity, int timeout_ms)
{
	int64_t within = timeout_ms < 0 ? LONG_MS : timeout_ms;
	uint64_t until = mk_deadline(timeout_ms);
	char text[1024];
	int fds[MK_CHANNEL_DESCRIPTORS];
	unsigned count;
	struct mk_document_writer w;
	struct mk_document terms;
	struct half half;
	int result;

	if (capacity > MK_CAPACITY_MAX)
		return mk_fail(k, -EINVAL, "a link has at most %llu bytes each way",
			       (unsigned long long)MK_CAPACITY_MAX);
	capacity = rounded(capacity ? capacity : CAPACITY);
	result = mk_taken_over(k, name, capacity);
	if (result > 0)
		return result;
	result = mk_half_make(&half, capacity, k->id, k->epoch);
	if (result)
		return mk_fail(k, result, "making a link of %llu bytes each way: %s", (unsigned long long)capacity,
			       strerror(-result));
	do {
		result = mk_await_host(k, until);
		if (result)
			break;
		mk_document_begin(&w, text, sizeof(text));
		mk_document_put_string(&w, "verb", "connect");
		mk_document_put_string(&w, "to", name);
		mk_document_put_number(&w, "capacity", (int64_t)capacity);
		mk_document_put_seconds(&w, "timeout", within);
		result = mk_ask(k, &w, half.fds, 2, until, &terms, fds, &count);
	} while (result == -ECONNRESET && !mk_lose_host(k));
	if (result) {
		mk_half_drop(&half);
		return result;
	}
	result = complete(k, &half, capacity, &terms, fds, count);
	return result < 0 ? mk_fail(k, result, "the link to %s was refused: %s", name, strerror(-result)) : result;
}
