/* cache_line.h: a cache line between two cpus and back, the least that any message can cost.
 *
 * Figures of messages are only worth comparing where this one is the same: on a virtual machine two cpus may be near
 * (80 to 200 ns) or far (400 and more), and that can change at any time.
 */
#ifndef MULTIKERNEL_CACHE_LINE_H
#define MULTIKERNEL_CACHE_LINE_H

#include <stdint.h>

/**
 * Take one side of @rounds round trips: write an odd number there and wait for the even one after it to come back, or
 * the other way round. Spins without a pause, makes no system call, and does not return while the other side is not
 * there.
 *
 * @param there   eight bytes of shared memory, aligned, on a line of their own; 0 before the first call of both sides
 * @param back    the same, or other such memory: then each line has one writer
 * @param answers false: this side begins a round; true: it ends one
 * @param done    rounds that earlier calls of both sides have made
 */
void mk_cache_line_bounce(void *there, void *back, int answers, uint64_t done, uint64_t rounds);

#endif
