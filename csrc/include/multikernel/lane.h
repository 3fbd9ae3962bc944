/* lane.h: one direction between two parties. One sender, one receiver, wait-free for both.
 *
 * The protocol, and who pairs with whom. Each index has one writer; each side works on private copies (head and
 * tail in struct mk_sender, struct mk_receiver) and the pages are publications of them, never read back.
 *
 *   sender                                        receiver
 *   A2  tail = load-acquire(peer tail)            A1  head = load-acquire(peer head)
 *       check it; write the record                    check it; read the record
 *   R1  store-release(own head)                   R2  store-release(own tail)
 *   P1  load(peer parked); ring if it asks        P2  load(peer parked); ring if it asks
 *
 *   R1-A1 publishes a record. R2-A2 gives its space back. P1 and P2 are explained in doorbell.h.
 *
 * Indices are byte positions that only grow; only their differences are used, in unsigned arithmetic, so that
 * they may wrap. What the other side wrote is copied once, checked against private copies, then used. An index
 * or a length that cannot be right quarantines the lane: -EBADMSG from then on, with what was seen kept.
 *
 * What both ends have is in end.h; what happens to messages is inline in send.h and receive.h; IPIs are in ipi.h.
 *
 * Calls on one end are for one thread at a time. Results are 0 or a count, or:
 *   -EAGAIN    full, or empty
 *   -EMSGSIZE  larger than the ring can ever hold
 *   -EPIPE     the other end was closed or its process has ended (receiver: and nothing is left to take)
 *   -EBADMSG   quarantined
 *   -EINVAL    not called in order, or a call for elements on a lane of records
 */
#ifndef MULTIKERNEL_LANE_H
#define MULTIKERNEL_LANE_H

#include "multikernel/end.h"
#include "multikernel/ipi.h"
#include "multikernel/receive.h"
#include "multikernel/send.h"

/* Make the object of one side: kind MK_KIND_PRODUCER or MK_KIND_CONSUMER. Its size is sealed, its writing is
 * not: that is for the claim. @return descriptor or -errno (-EINVAL: capacity is no power of two in range) */
MK_API int mk_lane_object(uint32_t kind, const char *name, uint64_t capacity, uint32_t element, uint32_t owner_id,
			  uint64_t epoch);

#endif
