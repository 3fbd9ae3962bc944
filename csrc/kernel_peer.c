/* kernel_peer.c: what becomes of the party at the other end of a link. A link belongs to an instance, not to one of its
 * incarnations: while a successor is due, the lanes are as if the peer was silent; the host rings when it is there, and
 * hangs up when none will come. The protocol is resume.h's S1 to S3; multikernel/ipi/peer.py is the same for Python.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HOST_SPEAKS_WITHIN_NS 1000000000u /* of a dead instance; then it is taken for gone */
#define NEXT_HOST_WITHIN_NS 60000000000u  /* the same while another host is about to take over */
#define CLOSED_ONLY_NS 50000000u /* a peer that has closed the link and lives after that has closed this link only */
#define LOOK_EVERY_NS 1000000    /* at the host's page: it rings nobody for what it writes there */

enum outlook {
	OVER,
	DUE,
	UNKNOWN
};

static bool is_instance(const struct mk_kernel *k, const struct link *link)
{
	return k->records && link->peer > 0 && link->peer < MK_INSTANCES;
}

/* What the host says of the peer. @return whether it says something, and that of the one that we know by this name */
static bool read_record(const struct mk_kernel *k, const struct link *link, struct mk_instance_record *record)
{
	const struct mk_instance_slot *slot;

	if (!is_instance(k, link))
		return false;
	slot = &k->records->instances[link->peer];
	if (mk_latch_read(&slot->latch, slot->copies, record, sizeof(*record)) < 0 || !record->used)
		return false;
	return strncmp(record->name, link->name, sizeof(record->name)) == 0;
}

static void pause_a_look(void)
{
	struct timespec some = {.tv_nsec = LOOK_EVERY_NS};

	nanosleep(&some, NULL);
}

void mk_watch_peer(struct mk_kernel *k, struct link *link)
{
	const _Atomic uint32_t *word = is_instance(k, link) ? &k->records->instances[link->peer].latch.sequence : NULL;

	mk_watch_fate(&link->tx->end, word);
	mk_watch_fate(&link->rx->end, word);
}

/* Tell the host which incarnation this link has to do with: a newer one is pushed then. */
static void face(struct mk_kernel *k, const struct link *link)
{
	char text[96];
	struct mk_document_writer w;
	int length;

	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "facing");
	mk_document_put_number(&w, "link", link->host_number);
	mk_document_put_number(&w, "epoch", (int64_t)link->peer_epoch);
	length = mk_document_end(&w);
	mk_channel_send(k->control, text, (size_t)length, NULL, 0, false);
}

/* --- successors --------------------------------------------------------------------------------------------------- */

void mk_drop_successor(struct link *link)
{
	for (unsigned i = 0; i < 3; i++) {
		if (link->next.fds[i] >= 0)
			close(link->next.fds[i]);
		link->next.fds[i] = -1;
	}
	link->next.epoch = 0;
}

void mk_offer_successor(struct mk_kernel *k, const struct mk_document *document, const int *fds, unsigned count)
{
	struct link *link = NULL;
	int64_t number, epoch;

	if ((count == 2 || count == 3) && !mk_document_number(document, "link", &number) &&
	    !mk_document_number(document, "epoch", &epoch))
		for (unsigned i = 0; i < k->link_count; i++)
			if (k->links[i]->host_number == number && !k->links[i]->closing)
				link = k->links[i];
	if (!link || (uint64_t)epoch <= link->peer_epoch || (uint64_t)epoch <= link->next.epoch) {
		for (unsigned i = 0; i < count; i++)
			close(fds[i]);
		return;
	}
	mk_drop_successor(link);
	link->next.epoch = (uint64_t)epoch;
	for (unsigned i = 0; i < count; i++)
		link->next.fds[i] = fds[i];
	link->next.lives = count == 3;
	k->offered = true;
}

/* Go on with it, with one end. @return 0 or -errno */
static int resume(struct link *link, bool sending, int *object)
{
	int pidfd = link->next.lives ? fcntl(link->next.fds[2], F_DUPFD_CLOEXEC, 0) : -1;
	uint32_t why;
	int result;

	if (link->next.lives && pidfd < 0)
		return -errno;
	result = sending ? mk_sender_resume(link->tx, *object, pidfd, &why)
			 : mk_receiver_resume(link->rx, *object, pidfd, &why);
	if (result && pidfd >= 0)
		close(pidfd);
	close(*object);
	*object = -1;
	return result;
}

/* The receiving end is in wait sets, which watch its pidfd: out of them, and later back. */
static void take_out(struct mk_kernel *k, struct link *link)
{
	mk_wait_set_remove(k->set, &link->rx->end);
	mk_wait_set_free(link->pair);
	link->pair = NULL;
}

static void put_back(struct mk_kernel *k, struct link *link)
{
	if (mk_wait_set_add(k->set, &link->rx->end))
		link->closing = true; /* no memory: nobody would wake us for it */
}

/* Go on with a successor that is there: with the receiving end not before the image is done with what lies in it. */
static void settle(struct mk_kernel *k, struct link *link)
{
	int result = 0;

	if (!link->next.epoch)
		return;
	if (link->next.fds[1] >= 0)
		result = resume(link, true, &link->next.fds[1]);
	if (!result && link->next.fds[0] >= 0) {
		if (k->held == link)
			return;
		take_out(k, link);
		result = resume(link, false, &link->next.fds[0]);
		put_back(k, link);
	}
	if (result) {
		mk_kernel_log(k, 3, "the link to %s was lost: its successor is refused: %s", link->name,
			      strerror(-result));
		link->closing = true;
		return;
	}
	link->peer_epoch = link->next.epoch;
	link->due = !link->next.lives;
	mk_drop_successor(link);
	mk_watch_peer(k, link);
	face(k, link);
}

void mk_expect_peer(struct mk_kernel *k, struct link *link)
{
	if (!link->next.epoch || link->next.fds[1] >= 0) /* else this end has gone on already */
		mk_end_due(&link->tx->end);
	take_out(k, link);
	mk_end_due(&link->rx->end);
	put_back(k, link);
	if (!link->due) {
		link->due = true;
		face(k, link);
	}
}

void mk_face_peers(struct mk_kernel *k)
{
	struct mk_instance_record record;

	for (unsigned i = 0; i < k->link_count; i++) {
		face(k, k->links[i]);
		if (read_record(k, k->links[i], &record) && record.epoch > k->links[i]->peer_epoch)
			mk_expect_peer(k,
				       k->links[i]); /* the page is a new one, and will not change for that any more */
	}
}

/* --- looking --------------------------------------------------------------------------------------------------------- */

/* Nobody has the link who could go on with it: the host has given it up, or it was killed with its zygote. */
static bool hung_up(const struct link *link)
{
	return link->rx->end.hung_up || link->tx->end.hung_up; /* known to who has looked */
}

static enum outlook outlook(const struct mk_kernel *k, const struct link *link, uint64_t gone)
{
	struct mk_instance_record record;
	bool closed = mk_load_acquire(link->rx->end.peer_state) == MK_END_CLOSED;       /* pairs with mk_end_close */
	uint64_t waited = mk_now() - (gone > k->hosted_since ? gone : k->hosted_since); /* each host has its time */

	if (waited >= (k->host || hung_up(link) ? HOST_SPEAKS_WITHIN_NS : NEXT_HOST_WITHIN_NS) ||
	    !read_record(k, link, &record))
		return OVER;
	if (record.due || record.epoch != link->peer_epoch)
		return hung_up(link) || closed ? OVER : DUE;
	if (record.state != MK_STATE_ACTIVE && record.state != MK_STATE_STANDBY)
		return OVER;
	return closed && waited > CLOSED_ONLY_NS ? OVER : UNKNOWN;
}

bool mk_peer_goes_on(struct mk_kernel *k, struct link *link, bool wait)
{
	uint64_t gone = mk_now();
	enum outlook said;

	if (link->closing || link->rx->end.stop == -EBADMSG)
		return false;
	mk_end_gone(&link->tx->end, true); /* what one end knows both say */
	mk_serve_host(k);
	settle(k, link);
	if (link->closing)
		return false;
	if (!link->tx->end.gone && !link->rx->end.gone)
		return true;
	while ((said = outlook(k, link, gone)) == UNKNOWN && wait) {
		pause_a_look();
		mk_doubt_host(k);
		mk_serve_host(k);
	}
	if (said == OVER ||
	    (said == UNKNOWN && (hung_up(link) || mk_load_acquire(link->rx->end.peer_state) == MK_END_CLOSED)))
		return false;
	mk_expect_peer(k, link);
	return !link->closing;
}

void mk_peer_changed(struct mk_kernel *k, struct link *link, bool wait)
{
	uint64_t begin = mk_now();
	struct mk_instance_record record;

	mk_watch_peer(k, link);
	for (;;) {
		mk_serve_host(k);
		settle(k, link);
		if (link->closing || hung_up(link) || !read_record(k, link, &record) ||
		    record.epoch == link->peer_epoch)
			return;
		mk_expect_peer(k, link); /* whatever it was, it is not the one that we know */
		if (!link->next.epoch && (record.due || !wait || mk_now() - begin > HOST_SPEAKS_WITHIN_NS))
			return; /* the host rings when it is there */
		if (link->next.epoch && k->held == link)
			return; /* the rest of it when the image asks for more */
		pause_a_look();
	}
}

void mk_settle_peers(struct mk_kernel *k)
{
	if (!k->offered)
		return;
	k->offered = false;
	for (unsigned i = 0; i < k->link_count; i++) {
		settle(k, k->links[i]);
		k->offered = k->offered || k->links[i]->next.epoch;
	}
}
