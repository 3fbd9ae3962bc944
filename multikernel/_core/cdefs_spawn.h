/* How a native image is started; see csrc/include/multikernel/spawn.h. */

#define MK_SPAWN_FIRST ...
enum mk_spawn_step { MK_SPAWN_PROCESS, MK_SPAWN_PIN, MK_SPAWN_VERIFY, MK_SPAWN_PARENT, MK_SPAWN_CONFINE, MK_SPAWN_FILES,
	MK_SPAWN_DIRECTORY, MK_SPAWN_EXECUTE, ... };
struct mk_spawn {
	int image; const int *fds; unsigned fd_count; int console, input; const uint32_t *cpus; unsigned cpu_count;
	bool lasting;
	const char *directory; char *const *argv; char *const *envp; ...;
};
int mk_spawn(const struct mk_spawn *what, uint32_t *step);
