/* peers.h: other people's rings of one sender and one receiver, each with elements of 8 and of 64 bytes. A peer whose
 * header is not installed has no contestants.
 */
#ifndef MULTIKERNEL_BENCH_PEERS_H
#define MULTIKERNEL_BENCH_PEERS_H

#include "harness.h"

#ifdef __cplusplus
extern "C" {
#endif

struct peer {
	const char *name;
	const char *package;                         /* Debian's, where it comes from */
	const struct contestant *one_8, *one_64;     /* a message a call */
	const struct contestant *batch_8, *batch_64; /* BATCH messages a call */
	const struct contestant *round_trip_64;
};

extern const struct peer boost_spsc_queue, rigtorp_like, ck_ring_peer, rte_ring_peer;

#define PEERS 4u
extern const struct peer *const peers[PEERS];

/* Name those that are not installed, on stderr. */
void name_missing_peers(void);

#ifdef __cplusplus
}
#endif

#endif
