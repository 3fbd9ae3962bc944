/* link.c: the life of a link inside a native instance: two halves, each made and sealed by its own party, put together.
 * multikernel/ipi/half.py is the same for Python.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void close_all(int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

/* Make one object and claim it: from then on nobody else can map it writable. @return its read-only descriptor */
static int make_end(struct half *half, uint32_t kind, uint64_t capacity, uint32_t owner_id, uint64_t epoch)
{
	char name[32];
	int fd, result;

	snprintf(name, sizeof(name), "lane:%u", owner_id);
	fd = mk_lane_object(kind, name, capacity, 0, owner_id, epoch);
	if (fd < 0)
		return fd;
	result = kind == MK_KIND_PRODUCER ? mk_sender_claim(&half->tx, fd, NULL, NULL)
					  : mk_receiver_claim(&half->rx, fd, NULL, NULL);
	if (!result)
		result = mk_object_reopen(fd);
	close(fd);
	return result;
}

int mk_half_make(struct half *half, uint64_t capacity, uint32_t owner_id, uint64_t epoch)
{
	*half = (struct half){.fds = {-1, -1}};
	half->fds[0] = make_end(half, MK_KIND_PRODUCER, capacity, owner_id, epoch);
	if (half->fds[0] >= 0)
		half->fds[1] = make_end(half, MK_KIND_CONSUMER, capacity, owner_id, epoch);
	if (half->fds[0] < 0 || half->fds[1] < 0) {
		int error = half->fds[0] < 0 ? half->fds[0] : half->fds[1];

		mk_half_drop(half);
		return error;
	}
	return 0;
}

void mk_half_drop(struct half *half)
{
	mk_sender_close(half->tx);
	mk_receiver_close(half->rx);
	half->tx = NULL;
	half->rx = NULL;
	close_all(half->fds, 2);
}

int mk_half_attach(struct half *half, const int fds[4])
{
	/* One of each for either end. */
	int both[4] = {fds[2], fds[3], fcntl(fds[2], F_DUPFD_CLOEXEC, 0),
		       fds[3] < 0 ? -1 : fcntl(fds[3], F_DUPFD_CLOEXEC, 0)};
	int objects[2] = {fds[0], fds[1]};
	uint32_t why;
	int result = both[2] < 0 || (both[3] < 0 && fds[3] >= 0) ? -errno : 0;

	if (!result) {
		result = mk_receiver_attach(half->rx, objects[0], 1, both[0], both[1], &why);
		if (!result)
			both[0] = both[1] = -1; /* the end's from now on */
	}
	if (!result) {
		result = mk_sender_attach(half->tx, objects[1], 1, both[2], both[3], &why);
		if (!result)
			both[2] = both[3] = -1;
	}
	close_all(both, 4);
	close_all(objects, 2);
	if (result)
		mk_half_drop(half);
	return result;
}

void mk_half_join(struct half *half, struct link *link)
{
	link->tx = half->tx;
	link->rx = half->rx;
	link->last = &link->first;
	link->next.fds[0] = link->next.fds[1] = link->next.fds[2] = -1;
	half->tx = NULL;
	half->rx = NULL;
	mk_half_drop(half);
}

/* Use an end no more, but do not say that it is closed. */
static void leave(struct mk_end *end)
{
	mk_object_unmap(end->own_map, end->own_map_size);
	mk_object_unmap(end->peer_map, end->peer_map_size);
	end->own_map = end->peer_map = NULL;
}

void mk_link_leave(struct link *link)
{
	leave(&link->rx->end);
	leave(&link->tx->end);
	mk_link_free(link);
}

void mk_link_free(struct link *link)
{
	mk_drop_successor(link);
	mk_wait_set_free(link->pair);
	mk_receiver_close(link->rx);
	mk_sender_close(link->tx);
	for (struct kept *next, *kept = link->first; kept; kept = next) {
		next = kept->next;
		free(kept);
	}
	free(link->reply);
	free(link);
}

/* --- those of an instance ----------------------------------------------------------------------------------------- */

struct link *mk_find_link(const struct mk_kernel *k, int number)
{
	for (unsigned i = 0; i < k->link_count; i++)
		if (k->links[i]->number == number && !k->links[i]->closing)
			return k->links[i];
	return NULL;
}

struct link *mk_open_link(struct mk_kernel *k, int number, int *code)
{
	struct link *link = mk_find_link(k, number);

	if (link)
		return link;
	if (number > 0 && number <= k->last_number)
		*code = mk_fail(k, -EPIPE, "link %d is closed, or its peer is gone", number);
	else
		*code = mk_fail(k, -EBADF, "there is no link %d: links have the numbers 1 to %d", number,
				k->last_number);
	return NULL;
}

int mk_keep_link(struct mk_kernel *k, struct link *link)
{
	int result = mk_wait_set_add(k->set, &link->rx->end);

	if (!result && k->link_count == k->link_room) {
		struct link **more = realloc(k->links, (k->link_room + 8) * sizeof(struct link *));

		if (more) {
			k->links = more;
			k->link_room += 8;
		} else {
			result = -ENOMEM;
		}
	}
	if (result) {
		mk_drop_link(k, link);
		return result;
	}
	k->links[k->link_count++] = link;
	return link->number = ++k->last_number;
}

void mk_drop_link(struct mk_kernel *k, struct link *link)
{
	struct mk_counters *counters = link->counters;
	struct mk_document_writer w;
	char text[64];
	int length;

	if (k->held == link)
		k->held = NULL;
	for (unsigned i = 0; i < k->link_count; i++)
		if (k->links[i] == link)
			k->links[i] = k->links[--k->link_count];
	mk_wait_set_remove(k->set, &link->rx->end);
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "unlink");
	mk_document_put_number(&w, "link", link->host_number);
	mk_link_free(link);
	mk_status_unlink(k->status, counters);
	length = mk_document_end(&w);
	mk_channel_send(k->control, text, (size_t)length, NULL, 0,
			false); /* a host that does not look sees the process end */
}
