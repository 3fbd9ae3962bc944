/* status.c: pages for watchers. See status.h; who writes what stands in abi.h. */
#include "multikernel/status.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "multikernel/atomic.h"

#define TRIES 10000 /* of a reader whose copy is overwritten meanwhile */
#define PATIENCE 64 /* of them, for a writer that is in the middle to finish */

/* --- latches ---------------------------------------------------------------------------------------------------- */

/* Word by word, since somebody may read or write at the same time: the sequence says whether it was whole. */
static void store_words(void *to, const void *from, size_t size)
{
	_Atomic uint64_t *words = to;

	for (size_t i = 0; i < size / 8; i++) {
		uint64_t word;

		memcpy(&word, (const char *)from + 8 * i, 8);
		if (mk_load_relaxed(&words[i]) != word) /* a line that stays as it is stays with its readers */
			mk_store_relaxed(&words[i], word);
	}
}

static void load_words(void *to, const void *from, size_t size)
{
	const _Atomic uint64_t *words = from;

	for (size_t i = 0; i < size / 8; i++) {
		uint64_t word = mk_load_relaxed(&words[i]);

		memcpy((char *)to + 8 * i, &word, 8);
	}
}

/* Send readers to the other copy: before it the copy that they now read is complete, after it the one that they
 * leave may change. Both fences pair with the acquire fence in mk_latch_read. */
static void turn(struct mk_latch *latch)
{
	uint32_t sequence = mk_load_relaxed(&latch->sequence);

	atomic_thread_fence(memory_order_release);
	mk_store_relaxed(&latch->sequence, sequence + 1);
	atomic_thread_fence(memory_order_release);
}

void mk_latch_write(struct mk_latch *latch, void *copies, const void *value, size_t size)
{
	turn(latch);
	store_words(copies, value, size);
	turn(latch);
	store_words((char *)copies + size, value, size);
}

int mk_latch_read(const struct mk_latch *latch, const void *copies, void *value, size_t size)
{
	for (int tries = 0; tries < TRIES; tries++) {
		uint32_t sequence = mk_load_acquire(&latch->sequence); /* pairs with the release fences in turn */

		load_words(value, (const char *)copies + (sequence & 1) * size, size);
		atomic_thread_fence(memory_order_acquire);
		if (mk_load_relaxed(&latch->sequence) == sequence && (!(sequence & 1) || tries >= PATIENCE))
			return sequence & 1; /* odd and it stayed: the last whole copy */
		mk_pause();
	}
	return -EAGAIN;
}

/* --- an instance's status page ------------------------------------------------------------------------------------ */

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t status_size(void)
{
	uint64_t page = mk_page_size();

	return (sizeof(struct mk_status) + page - 1) / page * page;
}

int mk_status_create(uint32_t owner_id, uint64_t epoch, struct mk_status **out)
{
	struct mk_object header = {.kind = MK_KIND_STATUS,
				   .size = status_size(),
				   .owner_id = owner_id,
				   .owner_pid = (uint32_t)getpid(),
				   .epoch = epoch};
	void *base = NULL;
	int fd = mk_object_create("status:", header);
	int reader;

	if (fd < 0)
		return fd;
	reader = mk_object_map(fd, header.size, 1, &base);
	if (!reader)
		reader = mk_object_seal(fd);
	if (!reader)
		reader = mk_object_reopen(fd);
	if (reader < 0)
		mk_object_unmap(base, header.size);
	else
		mk_status_phase(*out = base, MK_PHASE_SPAWNED);
	close(fd);
	return reader;
}

void mk_status_free(struct mk_status *status)
{
	mk_object_unmap(status, status_size());
}

void mk_status_reached(struct mk_status *status, uint32_t phase, uint64_t time)
{
	if (phase < 8)
		mk_store_relaxed(&status->phase_time[phase], time);
	mk_store_release(&status->phase, phase); /* pairs with mk_status_read: the time is there when the phase is */
	mk_status_beat(status);
}

void mk_status_phase(struct mk_status *status, uint32_t phase)
{
	mk_status_reached(status, phase, now());
}

void mk_status_beat(struct mk_status *status)
{
	mk_store_relaxed(&status->cpu, (uint32_t)sched_getcpu());
	mk_store_relaxed(&status->heartbeat, now());
}

void mk_status_awake(struct mk_status *status, uint32_t awake)
{
	mk_store_relaxed(&status->awake, awake);
}

void mk_status_ipi(struct mk_status *status, uint32_t vector, uint64_t count)
{
	if (vector < MK_VECTORS)
		mk_count(&status->ipi[vector], count);
}

struct mk_counters *mk_status_link(struct mk_status *status, uint32_t peer, uint64_t capacity)
{
	for (unsigned i = 0; i < MK_STATUS_LINKS; i++) {
		struct mk_link_status *link = &status->links[i];

		if (mk_load_relaxed(&link->used))
			continue;
		mk_store_relaxed(&link->peer, peer);
		mk_store_relaxed(&link->capacity, capacity);
		mk_store_release(&link->used, 1); /* pairs with mk_status_read */
		return &link->counters;
	}
	return &status->counters;
}

#define COUNTERS (sizeof(struct mk_counters) / sizeof(uint64_t))

void mk_status_unlink(struct mk_status *status, struct mk_counters *counters)
{
	_Atomic uint64_t *from = &counters->sent;
	_Atomic uint64_t *to = &status->counters.sent;

	if (counters == &status->counters)
		return;
	for (unsigned i = 0; i < MK_STATUS_LINKS; i++)
		if (&status->links[i].counters == counters)
			mk_store_release(&status->links[i].used, 0);
	for (size_t i = 0; i < COUNTERS; i++) {
		mk_count(&to[i], mk_load_relaxed(&from[i]));
		mk_store_relaxed(&from[i], 0);
	}
}

struct mk_counters *mk_status_counters(struct mk_status *status)
{
	return &status->counters;
}

static void copy_counters(struct mk_counters_copy *copy, const struct mk_counters *counters)
{
	const _Atomic uint64_t *from = &counters->sent;
	uint64_t *to = &copy->sent;

	_Static_assert(sizeof(*copy) == sizeof(*counters), "a copy has the same counters in the same order");
	for (size_t i = 0; i < COUNTERS; i++)
		to[i] = mk_load_relaxed(&from[i]);
}

void mk_status_read(const struct mk_status *status, struct mk_status_copy *copy)
{
	memset(copy, 0, sizeof(*copy));
	copy->owner_id = status->object.owner_id;
	copy->owner_pid = status->object.owner_pid;
	copy->epoch = status->object.epoch;
	copy->phase = mk_load_acquire(&status->phase); /* pairs with the release in mk_status_phase */
	copy->cpu = mk_load_relaxed(&status->cpu);
	copy->awake = mk_load_relaxed(&status->awake);
	copy->heartbeat = mk_load_relaxed(&status->heartbeat);
	for (unsigned i = 0; i < 8; i++)
		copy->phase_time[i] = mk_load_relaxed(&status->phase_time[i]);
	for (unsigned i = 0; i < MK_VECTORS; i++)
		copy->ipi[i] = mk_load_relaxed(&status->ipi[i]);
	copy_counters(&copy->counters, &status->counters);
	for (unsigned i = 0; i < MK_STATUS_LINKS; i++) {
		const struct mk_link_status *link = &status->links[i];

		copy->links[i].used = mk_load_acquire(&link->used); /* pairs with the release in mk_status_link */
		copy->links[i].peer = mk_load_relaxed(&link->peer);
		copy->links[i].capacity = mk_load_relaxed(&link->capacity);
		copy_counters(&copy->links[i].counters, &link->counters);
	}
}
