/* roster.c: what the maker of a broadcast does: its object, the roster, and where a receiver begins. See broadcast.h. */
#include "multikernel/broadcast.h"

#include <unistd.h>

#include "multikernel/doorbell.h"

#define SETTLE_NS 10000u        /* N3 without membarrier: far longer than a store stays in a store buffer */
#define POSITION_TRIES 1000000u /* three loads of one line: only who publishes faster than that makes us try again */

int mk_broadcast_object(uint64_t capacity, bool overwrites)
{
	uint64_t page = mk_page_size();
	struct mk_object header = {
		.kind = MK_KIND_PRODUCER,
		.size = page + capacity,
		.capacity = capacity,
		.data_offset = (uint32_t)page,
		.flags = overwrites ? MK_OVERWRITES : 0,
	};

	if (capacity < MK_CAPACITY_MIN || capacity < page || capacity > MK_CAPACITY_MAX || (capacity & (capacity - 1)))
		return -EINVAL;
	return mk_object_create("lane:broadcast", header);
}

int mk_roster_create(struct mk_roster **out)
{
	struct mk_object header = {.kind = MK_KIND_ROSTER, .size = mk_page_size(), .owner_pid = (uint32_t)getpid()};
	int fd = mk_object_create("lane:roster", header);
	void *base = NULL;
	int reader;

	if (fd < 0)
		return fd;
	reader = mk_object_map(fd, header.size, 1, &base);
	if (!reader)
		reader = mk_object_seal(fd);
	if (!reader)
		reader = mk_object_reopen(fd);
	close(fd);
	if (reader < 0)
		mk_object_unmap(base, header.size);
	else
		*out = base;
	return reader;
}

/* N4: head and the number that belongs to it. @return 0 or -EBADMSG */
static int read_position(const struct mk_producer *page, uint64_t *head, uint64_t *number)
{
	for (unsigned tries = 0; tries < POSITION_TRIES; tries++) {
		/* Pair with the stores in mk_broadcast_publish, in the opposite order: published says that head is at
		 * least its record's, begun that it is no later one's. */
		uint64_t published = mk_load_acquire(&page->published);

		*head = mk_load_acquire(&page->head);
		*number = mk_load_acquire(&page->begun);
		if (*number == published)
			return 0;
		mk_pause();
	}
	return -EBADMSG;
}

int mk_roster_add(struct mk_roster *roster, int producer_fd, int consumer_fd, uint64_t *number)
{
	uint64_t page = mk_page_size(), head;
	struct mk_object shape;
	void *producer = NULL, *consumer = NULL;
	int result = mk_object_check(producer_fd, MK_KIND_PRODUCER, 0, &shape, NULL);

	if (!result)
		result = mk_object_map(producer_fd, page, 0, &producer);
	if (!result)
		result = mk_object_map(consumer_fd, page, 1, &consumer);
	if (result) {
		mk_object_unmap(producer, page);
		return result;
	}
	/* N2, pairs with M1. One step, because the maker may have threads. */
	atomic_fetch_add_explicit(&roster->count, 1, memory_order_release);
	if (mk_membarrier()) { /* N3 */
		uint64_t until = mk_now() + SETTLE_NS;

		mk_fence();
		while (mk_now() < until)
			mk_pause();
	}
	result = read_position(producer, &head, number);
	if (!result) /* pairs with the acquire in reload: the sender may know where it begins before it is claimed */
		mk_store_release(&((struct mk_consumer *)consumer)->tail, head);
	mk_object_unmap(producer, page);
	mk_object_unmap(consumer, page);
	return result;
}

void mk_roster_close(struct mk_roster *roster)
{
	if (!roster)
		return;
	mk_store_release(&roster->state, MK_END_CLOSED); /* pairs with the acquire in nobody_comes */
	mk_roster_drop(roster);
}

void mk_roster_drop(struct mk_roster *roster)
{
	mk_object_unmap(roster, mk_page_size());
}
