/* What the benches measure the placement of two cpus with; see csrc/include/multikernel/cache_line.h. */

void mk_cache_line_bounce(void *there, void *back, int answers, uint64_t done, uint64_t rounds);
