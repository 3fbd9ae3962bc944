/* process.h: what a process of a machine asks of the system for itself.
 *
 * Called by the host, by the zygote, and by an instance before it does anything else. None of it needs a right.
 */
#ifndef MULTIKERNEL_PROCESS_H
#define MULTIKERNEL_PROCESS_H

#include "multikernel/memory.h"

/* Be killed when @parent ends, however it ends. The parent must have one thread only: the signal comes at the end of
 * the thread that forked. @return 0; -ESRCH: it has ended already, nobody would send the signal; -errno */
MK_API int mk_process_die_with(int32_t parent);

/* Keep processes of the same user out of this one's memory and descriptors (ptrace, /proc/PID/mem, /proc/PID/fd,
 * pidfd_getfd), root excepted, and gain no rights by exec. Debuggers of the same user are kept out too, and there is
 * no core dump. An exec undoes the first half. @return 0 or -errno */
MK_API int mk_process_close_up(void);

/* Take the first half of that back: for who wants core files, and debuggers. @return 0 or -errno */
MK_API int mk_process_stay_dumpable(void);

/* What ps and top show; the system cuts it at 15 bytes. @return 0 or -errno */
MK_API int mk_process_name(const char *name);

/* Become the parent of descendants that lose theirs, so that none escapes and each is reaped. @return 0 or -errno */
MK_API int mk_process_adopt(void);

/* The cpu that this thread runs on now. @return its number or -errno */
MK_API int mk_process_cpu(void);

#endif
