/* mailbox.c: see mailbox.h. Nothing here is shared with another process but by the lanes. */
#include "multikernel/mailbox.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "multikernel/doorbell.h"

#define NEWS_EVERY_NS 1000000u /* lanes that are never empty keep nobody out: so often the descriptors are looked at */
#define PEEKS_PER_CLOCK 64u    /* between two readings of the clock */

struct lane {
	struct mk_receiver *rx;
	uint32_t number;
};

struct mk_mailbox {
	struct mk_wait_set *set;
	struct lane *lanes; /* in the order of their turns */
	unsigned count, room;
	unsigned turn;         /* whose it is */
	unsigned records_left; /* of this turn */
	uint64_t bytes_left;
	struct mk_receiver *peeked; /* its records were looked at and not given back */
	unsigned watched;           /* descriptors */
	unsigned peeks;
	uint64_t looked; /* CLOCK_MONOTONIC, ns: when the descriptors were looked at last */
	uint32_t bad;
	uint64_t bad_value;
	uint32_t generation;
	int event;      /* epoll over the set and event_self; -1: not asked for */
	int event_self; /* makes it readable from this side */
	bool event_set;
	bool interpreted;
	uint8_t policy;
};

struct mk_mailbox *mk_mailbox_new(uint8_t policy, bool interpreted)
{
	struct mk_mailbox *box = calloc(1, sizeof(*box));

	if (!box)
		return NULL;
	box->set = mk_wait_set_new();
	if (!box->set) {
		free(box);
		return NULL;
	}
	box->turn = UINT_MAX; /* so that the first turn is the first lane's */
	box->policy = policy;
	box->interpreted = interpreted;
	box->generation = mk_fork_generation();
	box->event = box->event_self = -1;
	return box;
}

void mk_mailbox_close(struct mk_mailbox *box)
{
	for (unsigned i = 0; i < box->count; i++) {
		/* A forked copy shares the epoll: what it took out would be gone for the owner. */
		if (box->generation == mk_fork_generation())
			mk_wait_set_remove(box->set, &box->lanes[i].rx->end);
		mk_receiver_close(box->lanes[i].rx);
	}
	box->count = 0;
	box->peeked = NULL;
	free(box->lanes);
	box->lanes = NULL;
	mk_wait_set_free(box->set);
	box->set = NULL;
	if (box->event >= 0) {
		close(box->event);
		close(box->event_self);
		box->event = box->event_self = -1;
	}
}

void mk_mailbox_free(struct mk_mailbox *box)
{
	if (!box)
		return;
	mk_mailbox_close(box);
	free(box);
}

/* --- lanes -------------------------------------------------------------------------------------------------------- */

int mk_mailbox_add(struct mk_mailbox *box, struct mk_receiver *rx, uint32_t number)
{
	int result;

	if (!rx->end.peer_map || rx->end.shape.element)
		return -EINVAL;
	for (unsigned i = 0; i < box->count; i++)
		if (box->lanes[i].number == number)
			return -EEXIST;
	if (box->count == box->room) {
		unsigned room = box->room ? 2 * box->room : 8;
		struct lane *lanes = realloc(box->lanes, room * sizeof(*lanes));

		if (!lanes)
			return -ENOMEM;
		box->lanes = lanes;
		box->room = room;
	}
	result = mk_wait_set_add(box->set, &rx->end);
	if (result)
		return result;
	rx->end.policy = box->policy;
	rx->end.interpreted = box->interpreted;
	for (unsigned v = 0; v < MK_VECTORS; v++)
		mk_ipi_mask(rx, v, true);
	box->lanes[box->count++] = (struct lane){rx, number};
	return 0;
}

static void drop(struct mk_mailbox *box, unsigned i)
{
	struct mk_receiver *rx = box->lanes[i].rx;

	mk_wait_set_remove(box->set, &rx->end);
	mk_receiver_close(rx);
	box->count--;
	/* The order of the others stays: nobody's turn is put off. */
	memmove(&box->lanes[i], &box->lanes[i + 1], (box->count - i) * sizeof(*box->lanes));
	box->records_left = 0;
	box->turn = i ? i - 1 : box->count ? box->count - 1 : 0; /* what comes next is the one that was behind it */
}

int mk_mailbox_watch(struct mk_mailbox *box, int fd)
{
	int result = mk_wait_set_watch(box->set, fd);

	box->watched += !result;
	return result;
}

void mk_mailbox_unwatch(struct mk_mailbox *box, int fd)
{
	mk_wait_set_unwatch(box->set, fd);
	box->watched--;
}

unsigned mk_mailbox_numbers(const struct mk_mailbox *box, uint32_t *numbers, unsigned room)
{
	for (unsigned i = 0; i < box->count && i < room; i++)
		numbers[i] = box->lanes[i].number;
	return box->count;
}

uint32_t mk_mailbox_bad(const struct mk_mailbox *box, uint64_t *value)
{
	*value = box->bad_value;
	return box->bad;
}

/* --- taking ------------------------------------------------------------------------------------------------------- */

/* Whether news of more lanes waits. Asked of the system once per NEWS_EVERY_NS at most. */
static bool news(struct mk_mailbox *box)
{
	uint64_t now;

	if (!box->watched || ++box->peeks % PEEKS_PER_CLOCK)
		return false;
	now = mk_now();
	if (now - box->looked < NEWS_EVERY_NS)
		return false;
	box->looked = now;
	return mk_wait_set_look(box->set);
}

/* @return how many of @limit; or why there is none */
static int peek_lane(struct mk_mailbox *box, struct mk_receiver *rx, struct mk_message *messages, unsigned limit)
{
	unsigned n = 0;

	if (limit > box->records_left)
		limit = box->records_left;
	while (n < limit && box->bytes_left) {
		uint64_t length;
		int result = mk_peek(rx, &messages[n]);

		if (result) {
			if (!n)
				return result;
			break;
		}
		length = messages[n++].length;
		box->bytes_left -= length < box->bytes_left ? length : box->bytes_left;
	}
	box->records_left -= n;
	box->peeked = rx;
	return (int)n;
}

int mk_mailbox_peek(struct mk_mailbox *box, struct mk_message *messages, unsigned limit, uint32_t *number)
{
	unsigned looks = box->count + 1; /* once round, and back to the one whose turn it was */

	mk_mailbox_unpeek(box);
	if (news(box))
		return 0;
	while (looks-- && box->count) {
		struct lane *lane;
		int result;

		if (!box->records_left || !box->bytes_left) {
			box->turn = (box->turn + 1) % box->count;
			box->records_left = MK_TURN_RECORDS;
			box->bytes_left = MK_TURN_BYTES;
		}
		lane = &box->lanes[box->turn];
		result = mk_end_ready(&lane->rx->end) ? peek_lane(box, lane->rx, messages, limit) : -EAGAIN;
		*number = lane->number;
		if (result > 0)
			return result;
		if (result == -EAGAIN) {
			box->records_left = 0;
			continue;
		}
		box->bad = lane->rx->end.bad;
		box->bad_value = lane->rx->end.bad_value;
		drop(box, box->turn); /* all that it had sent was taken; or it can send no more */
		if (result == -EBADMSG)
			return result;
	}
	return box->count || box->watched ? -EAGAIN : -EPIPE;
}

void mk_mailbox_remind(struct mk_mailbox *box)
{
	box->looked = 0;
	box->peeks = PEEKS_PER_CLOCK - 1;
}

void mk_mailbox_release(struct mk_mailbox *box)
{
	if (box->peeked)
		mk_release(box->peeked);
	box->peeked = NULL;
}

void mk_mailbox_unpeek(struct mk_mailbox *box)
{
	if (box->peeked)
		mk_unpeek(box->peeked);
	box->peeked = NULL;
}

uint64_t mk_mailbox_waiting(const struct mk_mailbox *box)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < box->count; i++)
		count += mk_waiting(box->lanes[i].rx);
	return count;
}

bool mk_mailbox_over(const struct mk_mailbox *box)
{
	for (unsigned i = 0; i < box->count; i++)
		if (!mk_end_gone(&box->lanes[i].rx->end, true))
			return false;
	return !box->watched;
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

int mk_mailbox_wait(struct mk_mailbox *box, int64_t timeout_ns, bool goes_on)
{
	struct mk_end *const *ends;
	int result;

	if (mk_wait_set_ends(box->set, &ends) && !goes_on)
		ends[0]->signals_seen = false;
	result = mk_wait_set_wait(box->set, timeout_ns);
	if (result == 0) /* a watched descriptor */
		mk_mailbox_remind(box);
	return result == -EINVAL ? -EPIPE : result > 0 ? 0 : result;
}

static int watch(int epoll, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

int mk_mailbox_descriptor(struct mk_mailbox *box)
{
	int result;

	if (box->event >= 0)
		return box->event;
	box->event = epoll_create1(EPOLL_CLOEXEC);
	if (box->event < 0)
		return -errno;
	box->event_self = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	result = box->event_self < 0 ? -errno : watch(box->event, box->event_self);
	if (!result)
		result = watch(box->event, mk_wait_set_descriptor(box->set));
	if (result) {
		close(box->event);
		if (box->event_self >= 0)
			close(box->event_self);
		box->event = box->event_self = -1;
		return result;
	}
	box->event_set = false;
	mk_mailbox_settle(box);
	return box->event;
}

void mk_mailbox_settle(struct mk_mailbox *box)
{
	uint64_t one = 1;
	bool ready;

	if (box->event < 0)
		return;
	ready = mk_wait_set_arm(box->set) > 0 || (!box->count && !box->watched);
	if (ready == box->event_set)
		return;
	box->event_set = ready;
	if (ready)
		(void)!write(box->event_self, &one, sizeof(one)); /* Cannot fail: the counter is 0 or 1. */
	else
		(void)!read(box->event_self, &one, sizeof(one));
}
