/* What `multikernel doctor` calls; see csrc/include/multikernel/probe.h. */

int mk_probe_membarrier(void);
int mk_probe_futex(void);
int mk_probe_futex_waitv(void);
int mk_probe_mlock(void);
int mk_probe_landlock(void);
int mk_probe_user_namespace(void);
int mk_probe_mount_namespace(void);
int mk_probe_perf(void);
