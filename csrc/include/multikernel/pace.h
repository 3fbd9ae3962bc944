/* pace.h: how long one side of a stream keeps off the line that the other side writes (pace.c).
 *
 * Two sides that look at each other's index after every message fight over its line, and each message then costs a
 * transfer of it. A side that finds itself in a stream (several messages at once; a ring that is nearly full) pauses
 * before it looks again, so that the next look finds more. What counts is time, not instructions: a `pause` takes 140
 * cycles on one processor and 4 on another. The measure is a transfer of the line, timed when a look found something.
 *
 * Whoever finds one message at a time, a question or its answer, never pauses.
 */
#ifndef MULTIKERNEL_PACE_H
#define MULTIKERNEL_PACE_H

#include <stdbool.h>

#include "multikernel/atomic.h"
#include "multikernel/memory.h"

/* In ticks of a clock whose unit does not matter. */
struct mk_pace {
	uint64_t pause; /* before the next look; 0: this is no stream */
	uint64_t full;  /* the longest pause: eight transfers of the line, as a running mean of the last ones */
	uint32_t empty; /* looks in a row that found nothing new */
};

/* Pause, then load the other side's index, whose last value was @seen, and time that. */
MK_API uint64_t mk_pace_load(struct mk_pace *pace, const _Atomic uint64_t *index, uint64_t seen);

/* After a look that found something: whether it was a stream's. */
static inline void mk_pace_found(struct mk_pace *pace, bool stream)
{
	if (!stream)
		pace->pause = 0;
	else if (!pace->pause)
		pace->pause = 1; /* so that the next look is timed */
}

#endif
