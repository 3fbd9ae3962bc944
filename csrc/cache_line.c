/* cache_line.c: the bare cache line. See cache_line.h. The sides write in turn only, also where it is the same word. */
#include "multikernel/cache_line.h"

#include "multikernel/atomic.h"

void mk_cache_line_bounce(void *there, void *back, int answers, uint64_t done, uint64_t rounds)
{
	_Atomic uint64_t *out = there, *in = back;
	uint64_t last = 2 * (done + rounds);

	for (uint64_t value = 2 * done; value != last; value += 2) {
		if (answers) {
			/* Acquire and release: each pairs with the other side's, as those of a message would. */
			while (mk_load_acquire(out) != value + 1)
				;
			mk_store_release(in, value + 2);
		} else {
			mk_store_release(out, value + 1);
			while (mk_load_acquire(in) != value + 2)
				;
		}
	}
}
