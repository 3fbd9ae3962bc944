/* spin.h: how long it pays to look before one sleeps. No clock and no shared memory in here: times come in, times go out.
 *
 * Who spins for as long as a sleep and its wake-up cost, and sleeps then, never pays more than twice what the best
 * choice would have been (the ski rental problem). What that costs differs tenfold between hosts, so it is learned: who
 * rings leaves the time in its bell word, and who wakes reads the clock. When the last waits were longer than that,
 * spinning was in vain: each shortens the next spin, until there is none. A wait that slept learns as well, from the
 * same time, how long it would have had to spin; so who sleeps at once notices when the peer becomes quick.
 */
#ifndef MULTIKERNEL_SPIN_H
#define MULTIKERNEL_SPIN_H

#include <stdint.h>

#define MK_WAKE_FIRST_NS 20000u /* what a wake-up is taken to cost until one was seen */
#define MK_WAKE_LEAST_NS 2000u  /* and its bounds: the time is the peer's word, and the system may have been busy */
#define MK_WAKE_MOST_NS 100000u

struct mk_spin {
	uint64_t wake_ns;   /* what a sleep and its wake-up cost */
	uint64_t budget_ns; /* how long the next wait spins; at most that */
};

static inline struct mk_spin mk_spin_new(void)
{
	return (struct mk_spin){MK_WAKE_FIRST_NS, MK_WAKE_FIRST_NS};
}

/* A sleep has ended, @ns after the bell was rung. Down quickly, up slowly: what makes one longer is often no part of it
 * (somebody else had the core). */
static inline void mk_spin_woken(struct mk_spin *s, uint64_t ns)
{
	if (ns < MK_WAKE_LEAST_NS)
		ns = MK_WAKE_LEAST_NS;
	if (ns > MK_WAKE_MOST_NS)
		ns = MK_WAKE_MOST_NS;
	if (ns < s->wake_ns)
		s->wake_ns -= (s->wake_ns - ns + 1) / 2;
	else
		s->wake_ns += (ns - s->wake_ns) / 16;
	if (s->budget_ns > s->wake_ns)
		s->budget_ns = s->wake_ns;
}

/* What a wait was for had come @ns after it began, or had not come yet. */
static inline void mk_spin_learn(struct mk_spin *s, uint64_t ns)
{
	if (ns <= s->wake_ns)
		s->budget_ns = s->wake_ns;
	else if (s->budget_ns > s->wake_ns / 16)
		s->budget_ns -= s->budget_ns / 4;
	else
		s->budget_ns = 0;
}

#endif
