/* queue_claim.c: whose a claim is, whether he lives, and how to sleep. See multikernel/queue.h. */
#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "multikernel/doorbell.h"

#define MOMENT_NS 50000000u /* how long a call that must not wait waits for a claim: long enough to take it back */
#define CLAIM_LOOKS 256u    /* before a sleep: who holds a claim copies one record */

#define PID_BITS 22u /* of a token: the system's limit for pids; above them the start, in ticks since boot */

/* Field 22 of /proc/PID/stat. @return 0: it cannot be read */
static uint64_t start_of(uint32_t pid)
{
	char path[32], text[1024];
	char *at;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	errno = 0;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return 0;
	text[length] = 0;
	at = strrchr(text, ')'); /* the name before it may hold anything */
	for (unsigned field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

int mk_queue_token(uint64_t *token)
{
	uint32_t pid = (uint32_t)getpid();
	uint64_t start = start_of(pid);

	if (!start) /* no /proc, or no descriptor is left: without a token nobody could tell that we are alive */
		return errno ? -errno : -EIO;
	*token = start << PID_BITS | pid;
	return 0;
}

bool mk_queue_ended(uint64_t token)
{
	uint32_t pid = (uint32_t)(token & ((1u << PID_BITS) - 1));
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd life = {.fd = fd, .events = POLLIN};
	uint64_t start;
	bool ended;

	if (fd < 0)
		return errno == ESRCH;
	ended = poll(&life, 1, 0) == 1; /* also of one that nobody has waited for yet */
	start = start_of(pid);          /* after the open: it is the same process, or the pid was free in between */
	close(fd);
	return ended || (start && start != token >> PID_BITS);
}

int mk_queue_sleep(const _Atomic uint32_t *word, uint32_t value, uint64_t until)
{
	struct timespec limit = {.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};

	return syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, until == UINT64_MAX ? NULL : &limit, NULL,
		       FUTEX_BITSET_MATCH_ANY) < 0
		       ? -errno
		       : 0;
}

void mk_queue_wake(_Atomic uint32_t *word)
{
	/* Pairs with the acquire load of the word by who then sleeps on that value: it is not there any more. */
	atomic_fetch_add_explicit(word, 1, memory_order_release);
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static bool try_claim(const struct mk_queue *q, struct mk_queue_claim *claim, uint64_t from)
{
	/* Acquire, pairs with the release in mk_queue_let_go: what the last holder did is seen. */
	return atomic_compare_exchange_strong(&claim->owner, &from, q->token);
}

void mk_queue_let_go(struct mk_queue_claim *claim)
{
	mk_store_release(&claim->owner, 0); /* pairs with try_claim */
	mk_fence(); /* pairs with the fence in mk_queue_claim: we see `wanted`, or they that it is free */
	if (mk_unlikely(mk_load_relaxed(&claim->wanted))) {
		mk_store_relaxed(&claim->wanted, 0); /* if we are killed here they wake by their slices */
		mk_queue_wake(&claim->bell);
	}
}

int mk_queue_try_claim(const struct mk_queue *q, struct mk_queue_claim *claim)
{
	for (unsigned looks = 0; looks < CLAIM_LOOKS; looks++) {
		if (mk_load_relaxed(&claim->owner) == 0 && try_claim(q, claim, 0))
			return 0;
		mk_pause();
	}
	return -EBUSY;
}

int mk_queue_claim(const struct mk_queue *q, struct mk_queue_claim *claim, int64_t deadline)
{
	uint64_t until = deadline < 0 ? UINT64_MAX : (uint64_t)deadline;

	if (mk_queue_try_claim(q, claim) == 0)
		return 0;
	if (deadline == 0)
		until = mk_now() + MOMENT_NS;
	for (;;) {
		uint32_t bell = mk_load_acquire(&claim->bell); /* pairs with mk_queue_wake */
		uint64_t holder = mk_load_relaxed(&claim->owner);
		uint64_t now = mk_now();
		int result;

		mk_store_relaxed(&claim->wanted, 1);
		mk_fence(); /* pairs with the fence in mk_queue_let_go */
		if (try_claim(q, claim, 0))
			return 0;
		if (now >= until)
			return deadline ? -ETIMEDOUT : -EAGAIN;
		result = mk_queue_sleep(&claim->bell, bell,
					until - now > MK_QUEUE_SLICE_NS ? now + MK_QUEUE_SLICE_NS : until);
		if (result == -EINTR)
			return result;
		/* One holder all the time? Then it is stopped, or not on a core, or dead. */
		if (result == -ETIMEDOUT && holder && mk_load_relaxed(&claim->owner) == holder &&
		    mk_queue_ended(holder) && try_claim(q, claim, holder))
			return 0;
	}
}

void mk_queue_free_claim(struct mk_queue_claim *claim)
{
	uint64_t holder = mk_load_relaxed(&claim->owner);

	if (holder && mk_queue_ended(holder))
		atomic_compare_exchange_strong(&claim->owner, &holder, 0);
}
