/* spawn.c: see spawn.h.
 *
 * vfork, since a fork of an interpreter copies its page tables, which takes longer than to start a small program. The
 * child runs in the caller's memory until it executes: it writes to nothing but what it is given, calls nothing but the
 * system, and the caller, who has no other thread, waits.
 */
#include "multikernel/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "multikernel/process.h"

#ifndef SYS_close_range /* headers before Linux 5.9 */
#define SYS_close_range 436
#endif
#ifndef CLOSE_RANGE_CLOEXEC /* before 5.11 */
#define CLOSE_RANGE_CLOEXEC 4u
#endif

#define MOST_FDS 64u

/* How the child came to its end, if it did not get to the image: written by it, read when it has ended. */
struct failure {
	int error;
	uint32_t step;
};

static int pin(const cpu_set_t *cpus)
{
	return sched_setaffinity(0, sizeof(*cpus), cpus) < 0 ? -errno : 0;
}

static int verify(const cpu_set_t *cpus)
{
	cpu_set_t allowed;
	unsigned cpu = CPU_SETSIZE;

	/* Asked of the system: what the C library knows without a call is where the caller runs. */
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0 || syscall(SYS_getcpu, &cpu, NULL, NULL) < 0)
		return -errno;
	return CPU_EQUAL(&allowed, cpus) && cpu < CPU_SETSIZE && CPU_ISSET(cpu, cpus) ? 0 : -EINVAL;
}

static int confine(void)
{
	return setsid() < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1ul, 0ul, 0ul, 0ul) < 0 ? -errno : 0;
}

/* Descriptors from @first up are not to be inherited. */
static int leave_behind(unsigned first)
{
	long most;

	if (syscall(SYS_close_range, first, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
		return 0;
	most = sysconf(_SC_OPEN_MAX);
	for (int fd = (int)first; fd < most; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return 0;
}

/* Put the given descriptors where they belong. First out of the way, all of them: one may lie where another is to go.
 * @image: where the image is from then on */
static int place_files(const struct mk_spawn *what, int *image)
{
	int away[MOST_FDS + 3];
	unsigned count = what->fd_count;
	int free = MK_SPAWN_FIRST + (int)count;

	const int others[] = {what->console, what->input, what->image};

	for (unsigned i = 0; i < count + 3; i++) {
		away[i] = fcntl(i < count ? what->fds[i] : others[i - count], F_DUPFD_CLOEXEC, free);
		if (away[i] < 0)
			return -errno;
	}
	if (dup2(away[count + 1], 0) < 0 || dup2(away[count], 1) < 0 || dup2(away[count], 2) < 0)
		return -errno;
	for (unsigned i = 0; i < count; i++)
		if (dup2(away[i], MK_SPAWN_FIRST + (int)i) < 0)
			return -errno;
	*image = away[count + 2];
	return leave_behind((unsigned)free);
}

/* Handle every signal as a fresh program does, whatever the caller does. No handler of the caller's may run in here. */
static void default_signals(void)
{
	struct sigaction normal = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		sigaction(number, &normal, NULL); /* refused for some, which nobody can have changed */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Who executes what nobody may read cannot be looked into from the beginning, until it says otherwise (execve(2); root
 * may read everything). It is open already for those who are to read it. */
static void hide(int image)
{
	fchmod(image, S_IXUSR | S_IXGRP | S_IXOTH);
}

static int enter_directory(const char *directory)
{
	return chdir(directory) < 0 ? -errno : 0;
}

static _Noreturn void be_the_image(const struct mk_spawn *what, const cpu_set_t *cpus, int parent,
				   volatile struct failure *failure)
{
	int image = -1;

	failure->step = MK_SPAWN_PIN;
	failure->error = pin(cpus);
	if (!failure->error) {
		failure->step = MK_SPAWN_VERIFY;
		failure->error = verify(cpus);
	}
	if (!failure->error && !what->lasting) {
		failure->step = MK_SPAWN_PARENT;
		failure->error = mk_process_die_with(parent);
	}
	if (!failure->error) {
		failure->step = MK_SPAWN_CONFINE;
		failure->error = confine();
	}
	if (!failure->error) {
		failure->step = MK_SPAWN_FILES;
		failure->error = place_files(what, &image);
	}
	if (!failure->error) {
		failure->step = MK_SPAWN_DIRECTORY;
		failure->error = enter_directory(what->directory);
	}
	if (!failure->error) {
		failure->step = MK_SPAWN_EXECUTE;
		default_signals();
		hide(image);
		syscall(SYS_execveat, image, "", what->argv, what->envp, AT_EMPTY_PATH);
		failure->error = -errno;
	}
	_exit(127);
}

int mk_spawn(const struct mk_spawn *what, uint32_t *step)
{
	volatile struct failure failure = {0}; /* volatile: to the compiler the child's way never comes back here */
	sigset_t all, before;
	cpu_set_t cpus;
	int parent = getpid(), status;
	pid_t pid;

	*step = MK_SPAWN_PROCESS;
	if (what->fd_count > MOST_FDS)
		return -EMFILE;
	CPU_ZERO(&cpus);
	for (unsigned i = 0; i < what->cpu_count; i++) {
		if (what->cpus[i] >= CPU_SETSIZE)
			return -EINVAL;
		CPU_SET(what->cpus[i], &cpus);
	}
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before); /* until the child has no handlers any more */
	pid = vfork();
	if (pid == 0)
		be_the_image(what, &cpus, parent, &failure);
	if (pid < 0)
		failure.error = -errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid > 0 && !failure.error)
		return pid;
	*step = failure.step;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return failure.error;
}
