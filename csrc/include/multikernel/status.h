/* status.h: pages for watchers. What an instance says of itself, and what the host says of the machine.
 *
 * Watching costs the watched nothing: the writer stores words of its own page, with no lock and no call, and
 * never learns that anybody looks. A value of several words that must belong together is a latch (abi.h).
 */
#ifndef MULTIKERNEL_STATUS_H
#define MULTIKERNEL_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#include "multikernel/memory.h"

/* --- latches ----------------------------------------------------------------------------------------------------- */

/* Publish @value (@size bytes, a multiple of 8) in the two @copies behind @latch. One writer. */
MK_API void mk_latch_write(struct mk_latch *latch, void *copies, const void *value, size_t size);

/* Copy the last whole value. Bounded, whatever the writer does.
 * @return 0; 1: its writer is in the middle of the next one, or died there; -EAGAIN: it never stopped writing, and
 *         what lies in @value is not whole */
MK_API int mk_latch_read(const struct mk_latch *latch, const void *copies, void *value, size_t size);

/* --- an instance's status page ------------------------------------------------------------------------------------ */

/* Plain copies for readers: each word is right, but they are not of one instant. */
struct mk_counters_copy {
	uint64_t sent, sent_bytes, received, received_bytes, ipis_sent, ipis_received;
	uint64_t spins, parks, wakes, spurious, stalls;
};

struct mk_link_copy {
	uint32_t used, peer;
	uint64_t capacity;
	struct mk_counters_copy counters;
};

struct mk_status_copy {
	uint32_t owner_id, owner_pid, phase, cpu, awake;
	uint64_t epoch, heartbeat;
	uint64_t phase_time[8];
	struct mk_counters_copy counters;
	uint64_t ipi[MK_VECTORS];
	struct mk_link_copy links[MK_STATUS_LINKS];
};

/* Make a status page, map it and seal it; its phase is MK_PHASE_SPAWNED, reached now.
 * @return a read-only descriptor to hand out, or -errno */
MK_API int mk_status_create(uint32_t owner_id, uint64_t epoch, struct mk_status **out);

/* Unmap. Not for a fork's copy: there the page was never mapped, and something else may lie at its address. */
MK_API void mk_status_free(struct mk_status *status);

MK_API void mk_status_phase(struct mk_status *status, uint32_t phase);

/* As mk_status_phase, for a phase that was reached before there was a page: at @time, CLOCK_MONOTONIC, ns. */
MK_API void mk_status_reached(struct mk_status *status, uint32_t phase, uint64_t time);
MK_API void mk_status_beat(struct mk_status *status);
MK_API void mk_status_awake(struct mk_status *status, uint32_t awake);
MK_API void mk_status_ipi(struct mk_status *status, uint32_t vector, uint64_t count);

/* A row for a new link. @return its counters, for mk_sender_claim and mk_receiver_claim; when the table is full
 * those of the whole instance */
MK_API struct mk_counters *mk_status_link(struct mk_status *status, uint32_t peer, uint64_t capacity);

/* The link is gone: its counts go into the instance's, its row is free again. */
MK_API void mk_status_unlink(struct mk_status *status, struct mk_counters *counters);

/* The counters of the instance itself, for ends that are no link's: the host lane, whose waits are the loop's. */
MK_API struct mk_counters *mk_status_counters(struct mk_status *status);

MK_API void mk_status_read(const struct mk_status *status, struct mk_status_copy *copy);

#endif
