/* peers.c: see peers.h. */
#include "peers.h"

#include <stdio.h>

#ifndef MK_BENCH_BOOST /* else it is in peer_boost.cc */
const struct peer boost_spsc_queue = {.name = "boost::lockfree::spsc_queue", .package = "libboost-dev and g++"};
#endif

const struct peer *const peers[PEERS] = {&boost_spsc_queue, &rigtorp_like, &ck_ring_peer, &rte_ring_peer};

void name_missing_peers(void)
{
	for (unsigned i = 0; i < PEERS; i++)
		if (!peers[i]->one_8)
			fprintf(stderr, "not compared with %s: it is not installed (Debian: %s)\n", peers[i]->name,
				peers[i]->package);
}
