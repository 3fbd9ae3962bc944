/* process.c: what a process of a machine asks of the system for itself. See process.h. */
#include "multikernel/process.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

static int control(int option, unsigned long argument)
{
	return prctl(option, argument, 0ul, 0ul, 0ul) < 0 ? -errno : 0;
}

int mk_process_die_with(int32_t parent)
{
	int result = control(PR_SET_PDEATHSIG, SIGKILL);

	if (result)
		return result;
	/* A parent that ended before the call sends nothing any more. */
	return getppid() == parent ? 0 : -ESRCH;
}

int mk_process_close_up(void)
{
	int result = control(PR_SET_DUMPABLE, 0);

	return result ? result : control(PR_SET_NO_NEW_PRIVS, 1);
}

int mk_process_stay_dumpable(void)
{
	return control(PR_SET_DUMPABLE, 1);
}

int mk_process_name(const char *name)
{
	return control(PR_SET_NAME, (unsigned long)(uintptr_t)name);
}

int mk_process_adopt(void)
{
	return control(PR_SET_CHILD_SUBREAPER, 1);
}

int mk_process_cpu(void)
{
	int cpu = sched_getcpu();

	return cpu < 0 ? -errno : cpu;
}
