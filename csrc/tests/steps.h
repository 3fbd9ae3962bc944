/* steps.h: a child that stops behind each of its instructions in turn (ptrace), on x86-64. */
#ifndef MULTIKERNEL_TESTS_STEPS_H
#define MULTIKERNEL_TESTS_STEPS_H

#include "harness.h"

#include <sys/ptrace.h>
#include <sys/user.h>

#define KNOWN 8192u

/* What earlier children did from some place on: where each of their instructions lies. They all go the same way, so one
 * is brought to where the one before it stood by a breakpoint, and makes steps only from there on. */
struct way {
	uint64_t at[KNOWN];
	uint64_t known;
};

static UNUSED void stop_here(void)
{
	CHECK_EQ(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
	raise(SIGSTOP);
}

/* Start a child that calls stop_here, and wait until it has. */
static UNUSED pid_t spawn_stopped(void (*run)(void *), void *argument)
{
	pid_t pid = spawn(run, argument);
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (!WIFSTOPPED(status))
		skip("ptrace is refused here");
	return pid;
}

/* @return false: it has ended, as a child should */
static UNUSED bool resume(pid_t pid, int request)
{
	int status;

	CHECK_EQ(ptrace(request, pid, NULL, NULL), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFSTOPPED(status))
		return true;
	CHECK_EQ(status, 0);
	return false;
}

static UNUSED struct user_regs_struct registers_of(pid_t pid)
{
	struct user_regs_struct registers;

	CHECK_EQ(ptrace(PTRACE_GETREGS, pid, NULL, &registers), 0);
	return registers;
}

static UNUSED long code_at(pid_t pid, uint64_t address)
{
	errno = 0;
	long code = ptrace(PTRACE_PEEKTEXT, pid, (void *)address, NULL);

	CHECK_EQ(errno, 0);
	return code;
}

/* The instruction behind @done steps of the way lies at @address. */
static UNUSED void remember(struct way *way, uint64_t done, uint64_t address)
{
	if (way->known == done && done < KNOWN)
		way->at[way->known++] = address;
}

/* Let a child that stands at the beginning of the way go on to the last instruction that is known of it.
 * @param request  PTRACE_CONT; PTRACE_SYSCALL: no further than to the entry of the next system call
 * @return false: it went another way, and has ended, or is at that system call */
static UNUSED bool follow(pid_t pid, const struct way *way, int request)
{
	uint64_t address = way->at[way->known - 1], passes = 0;
	long code = code_at(pid, address);

	for (uint64_t i = 0; i < way->known; i++)
		passes += way->at[i] == address;
	for (;;) {
		struct user_regs_struct registers;

		CHECK_EQ(ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)((code & ~0xffL) | 0xcc)), 0);
		if (!resume(pid, request))
			return false;
		CHECK_EQ(ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)code), 0);
		registers = registers_of(pid);
		if (registers.rip != address + 1) {
			CHECK_EQ(request, PTRACE_SYSCALL);
			return false;
		}
		registers.rip = address;
		CHECK_EQ(ptrace(PTRACE_SETREGS, pid, NULL, &registers), 0);
		if (--passes == 0)
			return true;
		if (!resume(pid, PTRACE_SINGLESTEP))
			return false;
	}
}

#endif
