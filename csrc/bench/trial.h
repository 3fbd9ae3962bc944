/* trial.h: one run of a contestant. For the harness alone. */
#ifndef MULTIKERNEL_BENCH_TRIAL_H
#define MULTIKERNEL_BENCH_TRIAL_H

#include "harness.h"
#include "multikernel/histogram.h"

/* Run both sides of @c, each pinned to its cpu, @n times.
 * @param histogram  for the time of each round trip; NULL: they are not taken
 * @return ns for all of it, or for the ways alone; 0: it was done wrong */
uint64_t run(const struct contestant *c, const int *cpus, uint64_t n, struct mk_histogram *histogram);

#endif
