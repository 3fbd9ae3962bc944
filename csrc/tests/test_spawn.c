/* Native images are started: this program is the image, too. What it finds when it runs it says on its console, before
 * anything of a test's begins. */
#include "harness.h"

#include <sched.h>
#include <sys/stat.h>

#include "multikernel/process.h"
#include "multikernel/spawn.h"

#define NOBODY 65534

static const char *answer(bool yes)
{
	return yes ? "yes" : "no";
}

/* Of those that the test changes; others a sanitizer has. */
static bool default_signals(void)
{
	sigset_t mask;
	struct sigaction ignored;

	sigprocmask(SIG_SETMASK, NULL, &mask);
	sigaction(SIGTERM, NULL, &ignored);
	return ignored.sa_handler == SIG_DFL && sigismember(&mask, SIGUSR1) == 0;
}

static bool pinned_to(int cpu)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) == 1 &&
	       CPU_ISSET((unsigned)cpu, &cpus) && sched_getcpu() == cpu;
}

/* By its arguments it is the image: "image", the cpu that it should be on. Its descriptors 3 and 4 are two pipes. */
__attribute__((constructor)) static void be_the_image(int argc, char **argv)
{
	struct stat own;
	char directory[256];
	int dies_with = 0;

	if (argc != 2 || strcmp(argv[0], "image") != 0)
		return;
	prctl(PR_GET_PDEATHSIG, &dies_with);
	CHECK(getcwd(directory, sizeof(directory)) != NULL);
	CHECK_EQ(stat("/proc/self/maps", &own), 0);
	printf("%s %s %s %s %s %s %s %s", answer(pinned_to(atoi(argv[1]))), answer(dies_with == SIGKILL),
	       answer(getpgrp() == getpid()), answer(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1),
	       answer(default_signals()), directory, getenv("SAID"),
	       /* Its files in /proc are root's if nobody may look into it. */
	       answer(geteuid() == 0 || own.st_uid == 0));
	for (int fd = 3; fd < 64; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf(" %d", fd);
	fflush(stdout);
	_exit(read(0, directory, 1) == 0 && write(4, "x", 1) == 1 ? 3 : 4);
}

static int image_of(const char *path)
{
	int from = open(path, O_RDONLY | O_CLOEXEC), fd = memfd_create("image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char part[65536];
	ssize_t got;

	CHECK(from >= 0 && fd >= 0);
	while ((got = read(from, part, sizeof(part))) > 0)
		CHECK_EQ(write(fd, part, (size_t)got), got);
	close(from);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	return fd;
}

struct start {
	struct mk_spawn what;
	int fds[2], console[2], given[2];
	uint32_t cpu;
	char number[16];
	char *argv[3], *envp[2];
};

static void prepare(struct start *s, int image)
{
	if (UNDER_TSAN)
		skip("a program with TSan in it executes itself once more, and finds other things then");
	*s = (struct start){0};
	CHECK_EQ(pipe2(s->console, O_CLOEXEC), 0);
	CHECK_EQ(pipe2(s->given, O_CLOEXEC), 0);
	s->cpu = (uint32_t)sched_getcpu();
	snprintf(s->number, sizeof(s->number), "%u", s->cpu);
	s->argv[0] = "image";
	s->argv[1] = s->number;
	s->envp[0] = "SAID=this";
	s->fds[0] = s->given[0];
	s->fds[1] = s->given[1];
	s->what = (struct mk_spawn){.image = image,
				    .fds = s->fds,
				    .fd_count = 2,
				    .console = s->console[1],
				    .cpus = &s->cpu,
				    .cpu_count = 1,
				    .directory = "/",
				    .argv = s->argv,
				    .envp = s->envp};
}

static void drop(struct start *s)
{
	close(s->console[0]);
	close(s->console[1]);
	close(s->given[0]);
	close(s->given[1]);
	close(s->what.image);
}

static void start_and_listen(struct start *s)
{
	char said[256] = "", byte;
	uint32_t step;
	ssize_t got, length = 0;
	int status, pid = mk_spawn(&s->what, &step);

	CHECK(pid > 0);
	close(s->console[1]);
	s->console[1] = -1;
	while ((got = read(s->console[0], said + length, sizeof(said) - 1 - (size_t)length)) > 0)
		length += got;
	if (strcmp(said, "yes yes yes yes yes / this yes 3 4") != 0)
		fail(__FILE__, __LINE__, said, 0, 0, false);
	CHECK_EQ(read(s->given[0], &byte, 1), 1);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(WEXITSTATUS(status), 3);
}

static void an_image_finds_what_it_was_given_and_nothing_else(void)
{
	struct start s;
	sigset_t some;
	int more;

	prepare(&s, image_of("/proc/self/exe"));
	signal(SIGTERM, SIG_IGN); /* what this process does with signals is not inherited */
	sigemptyset(&some);
	sigaddset(&some, SIGUSR1);
	sigprocmask(SIG_BLOCK, &some, NULL);
	more = dup(s.console[0]); /* without close-on-exec */
	CHECK(more >= 0);
	start_and_listen(&s);
	close(more);
	drop(&s);
}

/* Who is not root may not look into it, from its first instruction on. */
static void be_nobody(void *argument)
{
	struct start *s = argument;

	CHECK(geteuid() != 0 || setresuid(NOBODY, NOBODY, NOBODY) == 0);
	start_and_listen(s);
}

static void an_image_cannot_be_looked_into_from_the_beginning(void)
{
	struct start s;
	pid_t pid;

	prepare(&s, image_of("/proc/self/exe"));
	CHECK(geteuid() != 0 || fchown(s.what.image, NOBODY, NOBODY) == 0);
	pid = spawn(be_nobody, &s);
	close(s.console[1]); /* for its end of file */
	s.console[1] = -1;
	reap_done(pid);
	drop(&s);
}

static void check_fails(struct start *s, uint32_t at, int error)
{
	uint32_t step = 99;
	int status;

	CHECK_EQ(mk_spawn(&s->what, &step), -error);
	CHECK_EQ(step, at);
	CHECK_ERRNO(waitpid(-1, &status, WNOHANG), ECHILD); /* nothing is left of it */
}

static void what_cannot_be_started_says_where_it_came_to(void)
{
	struct start s;
	uint32_t beyond = 1023, far = 5000;
	int text;

	prepare(&s, image_of("/proc/self/exe"));
	s.what.directory = "/nowhere/at/all";
	check_fails(&s, MK_SPAWN_DIRECTORY, ENOENT);
	s.what.directory = "/";
	s.what.cpus = &beyond;
	check_fails(&s, MK_SPAWN_PIN, EINVAL);
	s.what.cpus = &far;
	check_fails(&s, MK_SPAWN_PROCESS, EINVAL);
	s.what.cpus = &s.cpu;
	s.fds[1] = 1000;
	check_fails(&s, MK_SPAWN_FILES, EBADF);
	s.fds[1] = s.given[1];
	text = image_of("/etc/passwd");
	close(s.what.image);
	s.what.image = text;
	check_fails(&s, MK_SPAWN_EXECUTE, ENOEXEC);
	drop(&s);
}

static const struct test tests[] = {
	TEST(an_image_finds_what_it_was_given_and_nothing_else),
	TEST(an_image_cannot_be_looked_into_from_the_beginning),
	TEST(what_cannot_be_started_says_where_it_came_to),
};

RUN_TESTS(tests)
