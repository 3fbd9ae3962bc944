/* kernel_takeover.c: a native instance goes on with the links of the incarnation before. The protocol of a lane that
 * outlives its owner is in resume.h, what the host says in multikernel/kernel/protocol.py; multikernel/kernel/links.py is
 * the same for Python.
 */
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define COUNT_BITS 40 /* of an id, above them the epoch: a reply to a predecessor's request is none to us */
#define EPOCHS ((1u << (62 - COUNT_BITS)) - 1)

/* What comes with "resume", in this order. */
enum resumed_fd {
	PEER_PRODUCER,
	PEER_CONSUMER,
	OWN_PRODUCER,
	OWN_CONSUMER,
	SOCKET,
	PIDFD,
	RESUMED_FDS
};

/* Make a half that goes on where the predecessor's ends. All descriptors are gone then. @return 0 or -errno */
static int succeed(struct mk_kernel *k, struct half *half, uint64_t capacity, const int *fds, int pidfd)
{
	const int facing[4] = {fds[PEER_PRODUCER], fds[PEER_CONSUMER], fds[SOCKET], pidfd};
	int result = mk_half_make(half, capacity, k->id, k->epoch);
	uint32_t why;

	if (result) {
		for (unsigned i = 0; i < 4; i++)
			if (facing[i] >= 0)
				close(facing[i]);
	} else {
		result = mk_half_attach(half, facing);
		if (!result)
			result = mk_sender_succeed(half->tx, fds[OWN_PRODUCER], &why);
		if (!result)
			result = mk_receiver_succeed(half->rx, fds[OWN_CONSUMER], &why);
		if (result)
			mk_half_drop(half);
	}
	close(fds[OWN_PRODUCER]);
	close(fds[OWN_CONSUMER]);
	return result;
}

/* Leave out the first message, of which those before have died; say which it was. */
static void put_aside(struct mk_document_writer *w, struct mk_receiver *rx, bool aside)
{
	struct mk_message m;

	if (!aside || mk_peek(rx, &m)) {
		mk_document_put_null(w, "aside");
		return;
	}
	mk_release(rx);
	mk_document_open(w, "aside");
	mk_document_put_number(w, "type", m.type);
	mk_document_put_number(w, "subtype", m.subtype);
	mk_document_put_number(w, "id", (int64_t)m.id);
	mk_document_put_number(w, "length", m.length);
	mk_document_close(w);
}

static void abandon(struct mk_kernel *k, int64_t number, const char *reason)
{
	char text[256];
	struct mk_document_writer w;

	mk_kernel_log(k, 3, "a link was lost: %s", reason);
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "abandoned");
	mk_document_put_number(&w, "link", number);
	mk_document_put_string(&w, "reason", reason);
	mk_say(k, &w, NULL, 0);
}

static void resume(struct mk_kernel *k, const struct mk_document *document, const int *fds, unsigned count)
{
	char text[256];
	struct mk_document_writer w;
	struct half half;
	int64_t number, capacity;
	bool asked, aside;
	int result;

	if (count < PIDFD || count > RESUMED_FDS || mk_document_number(document, "link", &number) ||
	    mk_document_number(document, "capacity", &capacity) || mk_document_truth(document, "asked", &asked) ||
	    mk_document_truth(document, "aside", &aside)) {
		for (unsigned i = 0; i < count; i++)
			close(fds[i]);
		if (!mk_document_number(document, "link", &number))
			abandon(k, number, "the host's word for it is wrong");
		return;
	}
	result = succeed(k, &half, (uint64_t)capacity, fds, count == RESUMED_FDS ? fds[PIDFD] : -1);
	if (result) {
		abandon(k, number, strerror(-result));
		return;
	}
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "resumed");
	mk_document_put_number(&w, "link", number);
	put_aside(&w, half.rx, aside);
	mk_say(k, &w, half.fds, 2);
	result = mk_join_link(k, &half, (uint64_t)capacity, document);
	if (result > 0) {
		struct link *link = mk_find_link(k, result);

		link->last_id = (k->epoch & EPOCHS) << COUNT_BITS;
		link->inherited = asked;
		if (count < RESUMED_FDS) /* the peer has ended as well, and is due */
			mk_expect_peer(k, link);
	}
}

int mk_take_over(struct mk_kernel *k)
{
	struct mk_document document;
	int fds[MK_CHANNEL_DESCRIPTORS];
	unsigned count;
	char push[16];

	for (;;) {
		int result = mk_channel_wait(k->control, -1);

		if (!result)
			result = mk_take_document(k, &document, fds, &count);
		if (result < 0)
			return result;
		if (!result)
			continue;
		if (mk_document_string(&document, "push", push, sizeof(push)))
			push[0] = 0;
		if (strcmp(push, "resume") == 0)
			resume(k, &document, fds, count);
		else
			mk_serve_document(k, &document, fds, count);
		if (strcmp(push, "go") == 0)
			return 0;
	}
}

int mk_taken_over(struct mk_kernel *k, const char *name, uint64_t capacity)
{
	for (unsigned i = 0; i < k->link_count; i++) {
		struct link *link = k->links[i];

		if (!link->inherited || link->closing || link->capacity != capacity || strcmp(link->name, name) != 0)
			continue;
		link->inherited = false;
		return link->number;
	}
	return 0;
}
