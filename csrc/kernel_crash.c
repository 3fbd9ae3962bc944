/* kernel_crash.c: the last words of a native instance that a signal ends: where it was, into memory of the host's that
 * outlives it. What Python's faulthandler does for the others.
 *
 * Names are those that the program exports (link with -rdynamic); addr2line makes lines of the offsets.
 */
#include "kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if __has_include(<execinfo.h>) /* glibc */
#include <execinfo.h>
#else
#define backtrace(frames, most) ((void)(frames), (void)(most), 0)
#define backtrace_symbols_fd(frames, count, fd) ((void)(frames), (void)(count), (void)(fd))
#endif

#define MOST_FRAMES 100
#define STACK_SIZE 65536u /* of its own: the other may be what has overflowed */

static const struct {
	int number;
	const char *text;
} signals[] = {{SIGSEGV, "Fatal signal: segmentation fault\n"},
	       {SIGBUS, "Fatal signal: bus error\n"},
	       {SIGFPE, "Fatal signal: floating point exception\n"},
	       {SIGILL, "Fatal signal: illegal instruction\n"},
	       {SIGABRT, "Fatal signal: aborted\n"}};

#define SIGNALS (sizeof(signals) / sizeof(*signals))

static int sink = -1;
static void *stack;

/* Only what a handler may do; the signal's own effect comes when it returns. */
static void say_where(int number)
{
	void *frames[MOST_FRAMES];
	int count;

	for (size_t i = 0; i < SIGNALS; i++)
		if (signals[i].number == number)
			(void)!write(sink, signals[i].text, strlen(signals[i].text));
	count = backtrace(frames, MOST_FRAMES);
	backtrace_symbols_fd(frames, count, sink);
	raise(number); /* SA_RESETHAND: now it is what it was; held back until the return */
}

int mk_catch_crashes(int fd)
{
	struct sigaction action = {.sa_handler = say_where, .sa_flags = SA_ONSTACK | SA_RESETHAND};
	stack_t own = {.ss_size = STACK_SIZE};
	void *frame;

	stack = own.ss_sp = malloc(STACK_SIZE);
	if (!stack)
		return -ENOMEM;
	if (sigaltstack(&own, NULL) < 0)
		return -errno;
	sink = fd;
	backtrace(&frame, 1); /* the first call loads what it needs, which a handler must not */
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < SIGNALS; i++)
		if (sigaction(signals[i].number, &action, NULL) < 0)
			return -errno;
	return 0;
}

void mk_leave_crashes(void)
{
	stack_t none = {.ss_flags = SS_DISABLE};
	struct sigaction was;

	for (size_t i = 0; sink >= 0 && i < SIGNALS; i++)
		if (sigaction(signals[i].number, NULL, &was) == 0 && was.sa_handler == say_where)
			signal(signals[i].number, SIG_DFL); /* not one that the program has put in its place */
	if (stack)                                          /* else it may be the program's */
		sigaltstack(&none, NULL);
	free(stack);
	stack = NULL;
	if (sink >= 0)
		close(sink);
	sink = -1;
}
