/* ipi.h: inter-processor interrupts over a lane (ipi.c). A vector, its number, and no payload. */
#ifndef MULTIKERNEL_IPI_H
#define MULTIKERNEL_IPI_H

#include "multikernel/receive.h"
#include "multikernel/send.h"

/* Raise @vector once: it coalesces with those not taken yet, and the receiver learns how many there were.
 * @return 0; -EINVAL: no such vector; -EPIPE */
MK_API int mk_ipi_raise(struct mk_sender *tx, unsigned vector);

/* Take the lowest vector that is pending and not masked, and how often it was raised since the last time.
 * @return 1; 0: none is pending */
MK_API int mk_ipi_take(struct mk_receiver *rx, unsigned *vector, uint64_t *count);

/* Whether mk_ipi_take would return 1. Before a record is handled this is asked, so that IPIs raised before it
 * was published are handled first. */
MK_API bool mk_ipi_look(struct mk_receiver *rx);

/* Hold a vector back (its count goes on), or let it through again. @return 0 or -EINVAL */
MK_API int mk_ipi_mask(struct mk_receiver *rx, unsigned vector, bool masked);

static inline bool mk_ipi_waiting(struct mk_receiver *rx)
{
	/* Pairs with the release store in mk_ipi_raise; acquire, because mk_ipi_look reads the counters next. */
	if (mk_likely(mk_load_acquire(&rx->peer->ipi_sequence) == rx->ipi_sequence && !rx->ipi_pending))
		return false;
	return mk_ipi_look(rx);
}

#endif
