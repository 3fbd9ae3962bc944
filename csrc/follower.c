/* follower.c: a receiver that may be overtaken. The protocol (B1-B3, F1-F3) and its proof are in broadcast.h. */
#include "multikernel/broadcast.h"

#include <stdlib.h>

#define ROOM 65536u /* bytes that are copied ahead, at most; one record that is longer gets more */
#define TRIES 64u   /* in a row, before the caller may look for signals and the time */

struct copied {
	struct mk_message message;
	uint64_t end; /* where the record behind it begins */
};

struct mk_follower {
	struct mk_receiver *rx; /* .next: behind what was given out; .head: as last seen */
	uint64_t expected;      /* number of the record behind what was copied */
	uint64_t missed;        /* before ahead[first] */
	unsigned char *bytes;
	uint64_t room;
	unsigned first, count;
	unsigned looked;                        /* of those, from the first on: mk_follower_release */
	struct copied ahead[MK_FOLLOWER_AHEAD]; /* [first, count): whole, and not given out yet */
};

struct mk_follower *mk_follower_new(struct mk_receiver *rx, uint64_t number)
{
	const volatile struct mk_object *sender = rx->end.peer_map;
	struct mk_follower *f;

	if (!sender || rx->end.shape.element || !(sender->flags & MK_OVERWRITES)) {
		errno = EINVAL;
		return NULL;
	}
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->room = rx->end.mask + 1 < ROOM ? rx->end.mask + 1 : ROOM;
	f->bytes = malloc(f->room);
	if (!f->bytes) {
		free(f);
		return NULL;
	}
	for (unsigned v = 0; v < MK_VECTORS; v++)
		mk_ipi_mask(rx, v, true);
	f->rx = rx;
	f->expected = number;
	return f;
}

struct mk_receiver *mk_follower_receiver(const struct mk_follower *f)
{
	return f->rx;
}

void mk_follower_close(struct mk_follower *f)
{
	mk_end_close(&f->rx->end);
	f->first = f->count = 0;
}

void mk_follower_free(struct mk_follower *f)
{
	if (!f)
		return;
	mk_receiver_close(f->rx);
	free(f->bytes);
	free(f);
}

/* F2: copy records from @at to @head, as many as there is room for. What is copied may be overwritten meanwhile, so
 * lengths are bounded and nothing is believed. @return how many; @lost: the next one cannot be a record; -ENOMEM */
static int copy_ahead(struct mk_follower *f, uint64_t at, uint64_t head, bool *lost)
{
	uint64_t used = 0;
	int n = 0;

	*lost = false;
	while (n < (int)MK_FOLLOWER_AHEAD && at != head) {
		const unsigned char *record = f->rx->data + (at & f->rx->end.mask);
		struct mk_record header;
		uint64_t size;

		*lost = head - at < sizeof(header);
		if (*lost)
			break;
		mk_get_words(&header, record, sizeof(header));
		size = mk_record_size(header.length);
		*lost = size > head - at;
		if (*lost)
			break;
		if (used + header.length > f->room) {
			unsigned char *more;

			if (n)
				break;
			more = realloc(f->bytes, header.length);
			if (!more)
				return -ENOMEM;
			f->bytes = more;
			f->room = header.length;
		}
		mk_get_words(f->bytes + used, record + sizeof(header), header.length);
		at += size;
		f->ahead[n++] = (struct copied){
			.message = {.payload = f->bytes + used,
				    .id = header.id,
				    .length = header.length,
				    .type = header.type,
				    .subtype = header.subtype},
			.end = at,
		};
		used += header.length;
	}
	return n;
}

/* The first of @n copied records, the first of which began at @at, that was whole, or is not known to be: n + 1: none */
static unsigned first_whole(const struct mk_follower *f, unsigned n, uint64_t at, uint64_t oldest)
{
	if ((int64_t)(oldest - at) <= 0)
		return 0;
	for (unsigned i = 0; i < n; i++)
		if (f->ahead[i].end == oldest)
			return i + 1;
	return n + 1;
}

/* Whether the numbers of what was copied can be right. Between what was given out last and @begin @skipped bytes were
 * left out, and so one record of 16 bytes each at most, one at least. */
static bool numbers_are_right(const struct mk_follower *f, unsigned first, unsigned n, uint64_t skipped)
{
	uint64_t missed = f->ahead[first].message.id - f->expected;

	if (missed > skipped / sizeof(struct mk_record) || (skipped && !missed))
		return false;
	for (unsigned i = first + 1; i < n; i++)
		if (f->ahead[i].message.id != f->ahead[i - 1].message.id + 1)
			return false;
	return true;
}

/* Once F1 to F3. @return 1: there is something; 0: try again; -EAGAIN, -EPIPE, -ENOMEM, -EBADMSG */
static int try_ahead(struct mk_follower *f)
{
	struct mk_receiver *rx = f->rx;
	uint64_t head = mk_load_acquire(&rx->peer->head); /* F1, pairs with B3 */
	uint64_t oldest = mk_load_acquire(
		&rx->peer->oldest); /* F1, pairs with B1: whoever sees it sees heads before it */
	uint64_t at = rx->next, begin;
	unsigned first;
	bool lost;
	int n;

	/* Input: copied, checked, used. */
	if (head - oldest > rx->end.mask + 1) { /* oldest went on between the two loads; then so did head */
		if (mk_load_acquire(&rx->peer->head) != head)
			return 0;
		return mk_quarantine(&rx->end, MK_BAD_HEAD, head);
	}
	if ((int64_t)(head - rx->head) < 0 || (head | oldest) % MK_RECORD_ALIGN)
		return mk_quarantine(&rx->end, MK_BAD_HEAD, head);
	rx->head = head;
	if ((int64_t)(oldest - at) > 0)
		at = oldest;
	if (head - at > rx->end.mask + 1) /* half the numbers there are further on, and so before us again */
		return mk_quarantine(&rx->end, MK_BAD_HEAD, head);
	if (head == at &&
	    at != rx->next) { /* an honest sender leaves a whole record behind, or has gone on meanwhile */
		if (mk_load_acquire(&rx->peer->head) != head)
			return 0;
		return mk_quarantine(&rx->end, MK_BAD_HEAD, head);
	}
	if (head == at) {
		if (!mk_end_gone(&rx->end, false))
			return -EAGAIN;
		return mk_load_acquire(&rx->peer->head) == head ? -EPIPE : 0;
	}
	n = copy_ahead(f, at, head, &lost);
	if (n < 0)
		return n;
	mk_fence_acquire();                          /* F2, pairs with B2 */
	oldest = mk_load_relaxed(&rx->peer->oldest); /* F3, pairs with B1 */
	first = first_whole(f, (unsigned)n, at, oldest);
	if (first > (unsigned)n) /* overtaken by all of it */
		return 0;
	if (first == (unsigned)n) /* nothing before the one that cannot be a record, and that one is whole */
		return lost ? mk_quarantine(&rx->end, MK_BAD_LENGTH, head - at) : 0;
	begin = first ? f->ahead[first - 1].end : at;
	if (!numbers_are_right(f, first, (unsigned)n, begin - rx->next))
		return mk_quarantine(&rx->end, MK_BAD_NUMBER, f->ahead[first].message.id);
	f->missed += f->ahead[first].message.id - f->expected;
	f->expected = f->ahead[n - 1].message.id + 1;
	f->first = first;
	f->count = (unsigned)n;
	return 1;
}

int mk_follower_look(struct mk_follower *f, struct mk_message *messages, unsigned limit, uint64_t *missed)
{
	unsigned n = 0;

	f->looked = 0;
	for (unsigned tries = 0; f->first == f->count; tries++) {
		int result = tries < TRIES ? f->rx->end.stop : -EINTR;

		if (!result)
			result = try_ahead(f);
		if (result < 0)
			return result;
	}
	*missed = f->missed;
	for (; n < limit && f->first + n < f->count; n++)
		messages[n] = f->ahead[f->first + n].message;
	f->looked = n;
	return (int)n;
}

void mk_follower_release(struct mk_follower *f)
{
	uint64_t bytes = 0;

	if (!f->looked)
		return;
	for (unsigned n = 0; n < f->looked; n++)
		bytes += f->ahead[f->first + n].message.length;
	f->first += f->looked;
	f->rx->tail = f->rx->next = f->ahead[f->first - 1].end;
	f->missed = 0;
	mk_count(&f->rx->end.counters->received, f->looked);
	mk_count(&f->rx->end.counters->received_bytes, bytes);
	f->looked = 0;
}

int mk_follower_take(struct mk_follower *f, struct mk_message *messages, unsigned limit, uint64_t *missed)
{
	int result = mk_follower_look(f, messages, limit, missed);

	mk_follower_release(f);
	return result;
}

/* Walk from record to record as F1 to F3 do, and copy nothing but lengths. @return false: overtaken, nothing is known */
static bool walk(const struct mk_follower *f, uint64_t *count)
{
	const struct mk_receiver *rx = f->rx;
	uint64_t head = mk_load_acquire(&rx->peer->head);     /* F1, pairs with B3 */
	uint64_t oldest = mk_load_acquire(&rx->peer->oldest); /* F1, pairs with B1 */
	uint64_t begin = f->count > f->first ? f->ahead[f->count - 1].end : rx->next, at;

	if ((int64_t)(oldest - begin) > 0)
		begin = oldest;
	*count = 0;
	/* Overtaken, or input that mk_follower_look refuses. */
	if (head - begin > rx->end.mask + 1 || (head | begin) % MK_RECORD_ALIGN)
		return false;
	for (at = begin; head - at >= sizeof(struct mk_record);) {
		struct mk_record header;
		uint64_t size;

		mk_get_words(&header, rx->data + (at & rx->end.mask), sizeof(header));
		size = mk_record_size(header.length);
		if (size > head - at)
			break;
		at += size;
		++*count;
	}
	mk_fence_acquire(); /* F2, pairs with B2 */
	/* F3, pairs with B1. A record that cannot be, and was not overtaken, ends the count as it ends the lane. */
	return (int64_t)(mk_load_relaxed(&rx->peer->oldest) - begin) <= 0;
}

uint64_t mk_follower_waiting(const struct mk_follower *f)
{
	uint64_t count = 0;

	if (!f->rx->end.stop)
		for (unsigned tries = 0; tries < TRIES && !walk(f, &count); tries++)
			count = 0;
	return f->count - f->first + count;
}
