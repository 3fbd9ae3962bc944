/* spawn.h: start a native image. What boot.py does in a child that was forked, for a process that is executed: all that
 * must be so before its first instruction.
 */
#ifndef MULTIKERNEL_SPAWN_H
#define MULTIKERNEL_SPAWN_H

#include <stdbool.h>

#include "multikernel/memory.h"

#define MK_SPAWN_FIRST 3 /* the first of the given descriptors, in the new process */

/* On the way; where a failed one came to. */
enum mk_spawn_step {
	MK_SPAWN_PROCESS = 0, /* the system gives a process */
	MK_SPAWN_PIN = 1,     /* pinned to its cpus */
	MK_SPAWN_VERIFY = 2,  /* and seen to be: the system drops cpus that a cpuset does not have, and says nothing */
	MK_SPAWN_PARENT = 3,  /* killed when the parent ends */
	MK_SPAWN_CONFINE = 4, /* gains no rights */
	MK_SPAWN_FILES = 5,   /* has the descriptors that it is given, and no others */
	MK_SPAWN_DIRECTORY = 6, /* works where it should */
	MK_SPAWN_EXECUTE = 7,   /* runs the image */
};

struct mk_spawn {
	int image;            /* what to execute: sealed, and open */
	const int *fds;       /* become MK_SPAWN_FIRST and those after it */
	unsigned fd_count;    /* of them */
	int console;          /* becomes 1 and 2 */
	int input;            /* becomes 0 */
	const uint32_t *cpus; /* to be pinned to */
	unsigned cpu_count;
	bool lasting;          /* whether it outlives the caller */
	const char *directory; /* to work in */
	char *const *argv;
	char *const *envp;
};

/* Start it, in a process group of its own. The caller waits until it runs, and must be a process of one thread: the
 * child is killed at its end, unless it is to be lasting. Nothing of the caller's memory is copied, so it takes as long
 * as the image's own start.
 * @param step  on failure: enum mk_spawn_step
 * @return its pid; -errno: nothing was started */
MK_API int mk_spawn(const struct mk_spawn *what, uint32_t *step);

#endif
