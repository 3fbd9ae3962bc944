/* What a process of a machine asks of the system for itself; see csrc/include/multikernel/process.h. */

int mk_process_die_with(int32_t parent);
int mk_process_close_up(void);
int mk_process_stay_dumpable(void);
int mk_process_name(const char *name);
int mk_process_adopt(void);
int mk_process_cpu(void);
int mk_membarrier_register(void);
int mk_membarrier(void);
