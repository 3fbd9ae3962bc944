/* ring.h: what ring.c and resume.c share. */
#ifndef MULTIKERNEL_RING_H
#define MULTIKERNEL_RING_H

#include "multikernel/lane.h"

/* Check the object of another side, or of another incarnation, against what the own one says of the lane. As
 * mk_object_check. */
int mk_lane_check(const struct mk_object *shape, int fd, uint32_t kind, int owned, struct mk_object *other,
		  uint32_t *why);

/* Map a lane's object, a producer's with its data twice in a row; and how long that mapping is. */
int mk_lane_map(int fd, const struct mk_object *shape, int writable, void **base);
uint64_t mk_lane_mapped_size(const struct mk_object *shape);

/* The other side's words are those at end.peer_map from now on. */
void mk_sender_face(struct mk_sender *tx);
void mk_receiver_face(struct mk_receiver *rx);

#endif
