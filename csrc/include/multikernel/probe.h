/* probe.h: does this system let us? Each probe makes the call and says what it answered.
 *
 * For `multikernel doctor`, and for nobody on a fast path. A probe may change the process that calls it (its
 * membarrier registration, its namespaces), so it is called in a forked child that ends afterwards. Nothing is
 * inferred from a version. None waits longer than some milliseconds.
 */
#ifndef MULTIKERNEL_PROBE_H
#define MULTIKERNEL_PROBE_H

#include "multikernel/memory.h"

/* Register for the global expedited barrier, and issue one. @return 0 or -errno */
MK_API int mk_probe_membarrier(void);

/* Sleep for a millisecond on a futex word that is mapped read-only from a sealed memfd.
 * @return 0: it slept and timed out, as it should; -errno of the call that would not */
MK_API int mk_probe_futex(void);

/* The same on two words at once, with futex_waitv. @return 0 or -errno */
MK_API int mk_probe_futex_waitv(void);

/* Lock a page into memory, and unlock it. @return 0 or -errno */
MK_API int mk_probe_mlock(void);

/* The Landlock ABI. @return its number, >= 1; -ENOSYS: not built in; -EOPNOTSUPP: not switched on; -errno */
MK_API int mk_probe_landlock(void);

/* Enter a user namespace of one's own. @return 0 or -errno */
MK_API int mk_probe_user_namespace(void);

/* Inside that namespace: use the rights it gives, by entering a mount namespace. Some systems let anybody make a
 * user namespace and then give it no rights. @return 0 or -errno */
MK_API int mk_probe_mount_namespace(void);

/* Count the cycles of this thread in user mode with perf_event_open. @return 0 or -errno */
MK_API int mk_probe_perf(void);

#endif
