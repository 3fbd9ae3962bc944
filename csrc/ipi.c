/* ipi.c: inter-processor interrupts. A vector is a counter in the sender's page that only grows.
 *
 *   sender                                     receiver
 *   store-relaxed(ipi[v], n + 1)               load-acquire(ipi_sequence)
 *   store-release(ipi_sequence, s + 1)         load-relaxed(ipi[0..63]), compare with what was seen
 *   ring, as after a record
 *
 * Who sees the sequence sees the counters. Who sees a record published later (R1) sees the sequence. A receiver
 * that reads a counter early takes it early and finds no difference when it looks for it.
 */
#include "multikernel/lane.h"

int mk_ipi_raise(struct mk_sender *tx, unsigned vector)
{
	if (vector >= MK_VECTORS)
		return -EINVAL;
	if (tx->end.stop)
		return tx->end.stop;
	mk_count(&tx->own->ipi[vector], 1);
	mk_store_release(&tx->own->ipi_sequence, mk_load_relaxed(&tx->own->ipi_sequence) + 1);
	mk_count(&tx->end.counters->ipis_sent, 1);
	mk_notify(&tx->end);
	return tx->end.stop;
}

bool mk_ipi_look(struct mk_receiver *rx)
{
	uint32_t sequence = mk_load_acquire(&rx->peer->ipi_sequence);

	if (sequence != rx->ipi_sequence) {
		rx->ipi_sequence = sequence;
		for (unsigned v = 0; v < MK_VECTORS; v++)
			if (mk_load_relaxed(&rx->peer->ipi[v]) != rx->ipi_seen[v])
				rx->ipi_pending |= 1ULL << v;
	}
	return (rx->ipi_pending & ~rx->ipi_masked) != 0;
}

int mk_ipi_take(struct mk_receiver *rx, unsigned *vector, uint64_t *count)
{
	/* Bounded: a peer that counts backwards and forwards would keep us here. */
	for (unsigned tries = 0; tries < MK_VECTORS && mk_ipi_look(rx); tries++) {
		unsigned v = (unsigned)__builtin_ctzll(rx->ipi_pending & ~rx->ipi_masked);
		uint64_t raised = mk_load_relaxed(&rx->peer->ipi[v]);
		uint64_t since = raised - rx->ipi_seen[v];

		rx->ipi_pending &= ~(1ULL << v);
		rx->ipi_seen[v] = raised;
		mk_store_relaxed(&rx->own->taken[v], raised); /* for a successor, who reads it when we are dead */
		if (!since)                                   /* taken early */
			continue;
		*vector = v;
		*count = since;
		mk_count(&rx->end.counters->ipis_received, since);
		return 1;
	}
	return 0;
}

int mk_ipi_mask(struct mk_receiver *rx, unsigned vector, bool masked)
{
	uint64_t bit;

	if (vector >= MK_VECTORS)
		return -EINVAL;
	bit = 1ULL << vector;
	rx->ipi_masked = masked ? rx->ipi_masked | bit : rx->ipi_masked & ~bit;
	return 0;
}
