/* queue.c: records from any process of one program to any other. The protocol is in queue.h. */
#include "multikernel/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "multikernel/atomic.h"
#include "multikernel/doorbell.h"

#define ENTRY_MASK (MK_QUEUE_ENTRIES - 1)
#define DATA_MASK (MK_QUEUE_DATA - 1)
#define ALIGN 8u

#define WORDS_SIZE ((sizeof(struct mk_queue_words) + MK_QUEUE_BLOCK - 1) / MK_QUEUE_BLOCK * MK_QUEUE_BLOCK)
#define LANE_SIZE ((uint64_t)MK_QUEUE_BLOCK + MK_QUEUE_DATA)
#define OUTSIDE_AT (WORDS_SIZE + MK_QUEUE_LANES * LANE_SIZE)
#define OBJECT_SIZE (OUTSIDE_AT + MK_QUEUE_LANES * MK_QUEUE_OUTSIDE)

#define SLICE_NS 10000000u      /* how often the life of who is in the way is looked at */
#define MOMENT_NS 50000000u     /* how long a call that must not wait waits for a claim: long enough to take it back */
#define FIRST_SLEEP_NS 2000000u /* then the caller looks for signals: one may have come while we looked */
#define SPIN_MAX_NS 60000u      /* no longer than a sleep and a wake-up cost */
#define SPIN_WORTH_NS 120000u   /* a wait this short, its wake-up included, should have been spun */
#define PENDING_NS 10000u       /* longer than it takes to ring and then to publish */
#define ROOM_NS 4000u           /* who waited for room lets more of it come: else both would go on step by step */
#define CLAIM_LOOKS 256u        /* before a sleep: who holds a claim copies one record */

#define PID_BITS 22u /* of a token: the system's limit for pids; above them the start, in ticks since boot */

struct mk_queue {
	int fd;
	uint32_t generation; /* mk_fork_generation() of the process that all below belongs to */
	uint64_t token;
	struct mk_queue_words *words;
	/* consumer */
	const struct mk_queue_page *_Atomic seen[MK_QUEUE_LANES]; /* lanes as everybody may map them, NULL: not yet */
	_Atomic bool bad[MK_QUEUE_LANES];
	_Atomic uint64_t dead[MK_QUEUE_LANES]; /* what stands in `pending` of a lane and means nothing: it has ended */
	unsigned turn;                         /* the lane to look at first */
	/* producer: its lane, and private copies of what stands there */
	struct mk_queue_page *own; /* NULL: none yet */
	_Atomic unsigned lane;
	uint64_t head, tail;
	uint64_t position;                      /* where the next record begins */
	uint64_t freed;                         /* where the oldest begins that is not known to be taken */
	_Atomic uint64_t spin_items, spin_room; /* ns: how long the next wait spins, learned from the last ones */
};

/* --- who lives --------------------------------------------------------------------------------------------------- */

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

static int own_token(uint64_t *token)
{
	uint32_t pid = (uint32_t)getpid();
	uint64_t start = start_of(pid);

	if (!start) /* no /proc, or no descriptor is left: without a token nobody could tell that we are alive */
		return errno ? -errno : -EIO;
	*token = start << PID_BITS | pid;
	return 0;
}

/* Whether the process of a token has ended. What cannot be found out counts as alive. */
static bool has_ended(uint64_t token)
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

static uint64_t namespace_of(const char *path)
{
	struct stat file;

	return stat(path, &file) < 0 ? 0 : (uint64_t)file.st_ino;
}

/* --- sleeping and waking ------------------------------------------------------------------------------------------ */

/* @param until CLOCK_MONOTONIC, ns; UINT64_MAX: no limit. @return 0 or -errno */
static int sleep_on(const _Atomic uint32_t *word, uint32_t value, uint64_t until)
{
	struct timespec limit = {.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};

	return syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, until == UINT64_MAX ? NULL : &limit, NULL,
		       FUTEX_BITSET_MATCH_ANY) < 0
		       ? -errno
		       : 0;
}

static void wake_all(_Atomic uint32_t *word)
{
	/* Pairs with the acquire load of the word by who then sleeps on that value: it is not there any more. */
	atomic_fetch_add_explicit(word, 1, memory_order_release);
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* N2, N4. All: one alone might be killed before it has done anything about it. */
static void ring(struct mk_queue_bell *bell)
{
	if (mk_unlikely(mk_load_relaxed(&bell->sleepers))) /* after the caller's fence, which pairs with S1 */
		wake_all(&bell->bell);
}

/* --- claims ------------------------------------------------------------------------------------------------------- */

static bool try_claim(const struct mk_queue *q, struct mk_queue_claim *claim, uint64_t from)
{
	/* Acquire, pairs with the release in let_go: what the last holder did is seen. */
	return atomic_compare_exchange_strong(&claim->owner, &from, q->token);
}

static void let_go(struct mk_queue_claim *claim)
{
	mk_store_release(&claim->owner, 0); /* pairs with try_claim */
	mk_fence(); /* pairs with the fence in get_claim: we see `wanted`, or they that it is free */
	if (mk_unlikely(mk_load_relaxed(&claim->wanted))) {
		mk_store_relaxed(&claim->wanted, 0); /* if we are killed here they wake by their slices */
		wake_all(&claim->bell);
	}
}

/* @return 0; -EAGAIN: not within a moment (@deadline 0); -ETIMEDOUT, -EINTR */
static int get_claim(const struct mk_queue *q, struct mk_queue_claim *claim, int64_t deadline)
{
	uint64_t until = deadline < 0 ? UINT64_MAX : (uint64_t)deadline;

	for (unsigned looks = 0; looks < CLAIM_LOOKS; looks++) {
		if (mk_load_relaxed(&claim->owner) == 0 && try_claim(q, claim, 0))
			return 0;
		mk_pause();
	}
	if (deadline == 0)
		until = mk_now() + MOMENT_NS;
	for (;;) {
		uint32_t bell = mk_load_acquire(&claim->bell); /* pairs with wake_all */
		uint64_t holder = mk_load_relaxed(&claim->owner);
		uint64_t now = mk_now();
		int result;

		mk_store_relaxed(&claim->wanted, 1);
		mk_fence(); /* pairs with the fence in let_go */
		if (try_claim(q, claim, 0))
			return 0;
		if (now >= until)
			return deadline ? -ETIMEDOUT : -EAGAIN;
		result = sleep_on(&claim->bell, bell, until - now > SLICE_NS ? now + SLICE_NS : until);
		if (result == -EINTR)
			return result;
		/* One holder all the time? Then it is stopped, or not on a core, or dead. */
		if (result == -ETIMEDOUT && holder && mk_load_relaxed(&claim->owner) == holder && has_ended(holder) &&
		    try_claim(q, claim, holder))
			return 0;
	}
}

/* Take a claim back from a dead holder, for nobody. */
static void free_claim(struct mk_queue_claim *claim)
{
	uint64_t holder = mk_load_relaxed(&claim->owner);

	if (holder && has_ended(holder))
		atomic_compare_exchange_strong(&claim->owner, &holder, 0);
}

/* --- the object --------------------------------------------------------------------------------------------------- */

int mk_queue_create(uint64_t places)
{
	struct mk_queue_words words = {.magic = MK_QUEUE_MAGIC,
				       .abi = MK_ABI_VERSION,
				       .size = OBJECT_SIZE,
				       .places = places,
				       .pid_namespace = namespace_of("/proc/self/ns/pid"),
				       .time_namespace = namespace_of("/proc/self/ns/time")};
	int fd = memfd_create("queue", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int error = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)OBJECT_SIZE) < 0)
		error = errno;
	while (!error && (error = posix_fallocate(fd, 0, WORDS_SIZE)) == EINTR)
		error = 0;
	if (!error && pwrite(fd, &words, offsetof(struct mk_queue_words, lanes), 0) < 0)
		error = errno;
	if (!error && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		error = errno;
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

static int check(int fd)
{
	struct mk_queue_words words;
	struct stat file;
	size_t size = offsetof(struct mk_queue_words, lanes);
	int wanted = F_SEAL_SHRINK | F_SEAL_GROW;

	if (fstat(fd, &file) < 0)
		return -errno;
	if (!S_ISREG(file.st_mode) || (fcntl(fd, F_GET_SEALS) & wanted) != wanted ||
	    (uint64_t)file.st_size != OBJECT_SIZE || pread(fd, &words, size, 0) != (ssize_t)size ||
	    words.magic != MK_QUEUE_MAGIC || words.abi != MK_ABI_VERSION || words.size != OBJECT_SIZE)
		return -EPROTO;
	if (words.pid_namespace != namespace_of("/proc/self/ns/pid") ||
	    words.time_namespace != namespace_of("/proc/self/ns/time"))
		return -EXDEV;
	return 0;
}

int mk_queue_open(struct mk_queue **out, int fd)
{
	int result = check(fd);
	struct mk_queue *q;
	void *base;

	if (result)
		return result;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	base = mmap(NULL, WORDS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		result = -errno;
		free(q);
		return result;
	}
	q->fd = fd;
	q->words = base;
	q->generation = mk_fork_generation();
	result = own_token(&q->token);
	if (result) {
		munmap(base, WORDS_SIZE);
		free(q);
		return result;
	}
	*out = q;
	return 0;
}

/* A lane: its words, and its data twice in a row. @return NULL: errno says why */
static void *map_lane(int fd, unsigned lane, int prot)
{
	off_t at = (off_t)(WORDS_SIZE + lane * LANE_SIZE);
	char *base = mmap(NULL, LANE_SIZE + MK_QUEUE_DATA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			  0);

	if (base == MAP_FAILED)
		return NULL;
	if (mmap(base, LANE_SIZE, prot, MAP_SHARED | MAP_FIXED, fd, at) == MAP_FAILED ||
	    mmap(base + LANE_SIZE, MK_QUEUE_DATA, prot, MAP_SHARED | MAP_FIXED, fd, at + MK_QUEUE_BLOCK) ==
		    MAP_FAILED) {
		int error = errno;

		munmap(base, LANE_SIZE + MK_QUEUE_DATA);
		errno = error;
		return NULL;
	}
	return base;
}

static void unmap_lane(const void *base)
{
	munmap((void *)(uintptr_t)base, LANE_SIZE + MK_QUEUE_DATA);
}

/* The first call in a forked process: the lane, which is not mapped there, is the parent's, and so is the token.
 * @return 0 or -errno */
static int settle_in(struct mk_queue *q)
{
	uint32_t generation = mk_fork_generation();
	int result;

	if (mk_likely(q->generation == generation))
		return 0;
	q->own = NULL;
	result = own_token(&q->token);
	if (!result)
		q->generation = generation;
	return result;
}

void mk_queue_leave(struct mk_queue *q)
{
	struct mk_queue_lane *lane = &q->words->lane[q->lane];
	uint64_t token = q->token;

	if (settle_in(q) || !q->own)
		return;
	mk_store_relaxed(&lane->admitted, q->head);
	/* Release, pairs with the acquire in take_lane: whoever has it next sees what we wrote. */
	atomic_compare_exchange_strong(&lane->owner, &token, 0);
	unmap_lane(q->own);
	q->own = NULL;
	mk_fence(); /* places may have become free */
	ring(&q->words->room);
}

void mk_queue_close(struct mk_queue *q)
{
	if (!q)
		return;
	mk_queue_leave(q);
	for (unsigned i = 0; i < MK_QUEUE_LANES; i++)
		if (q->seen[i])
			unmap_lane(q->seen[i]);
	munmap(q->words, WORDS_SIZE);
	free(q);
}

/* --- putting ------------------------------------------------------------------------------------------------------ */

static bool take_lane(struct mk_queue *q, unsigned i)
{
	_Atomic uint64_t *owner = &q->words->lane[i].owner;
	uint64_t had = mk_load_relaxed(owner);

	/* A dead producer's lane goes on where its head says: its last records stand there, what it had not published
	 * is overwritten. Acquire, pairs with the release in mk_queue_leave. */
	return (!had || (had != q->token && has_ended(had))) && atomic_compare_exchange_strong(owner, &had, q->token);
}

/* @return 0 and q->lane; -EUSERS */
static int find_lane(struct mk_queue *q)
{
	_Atomic uint32_t *lanes = &q->words->lanes;
	uint32_t used = mk_load_acquire(lanes); /* pairs with the release below */
	unsigned i;

	for (i = 0; i < used && i < MK_QUEUE_LANES; i++)
		if (mk_load_relaxed(&q->words->lane[i].owner) == 0 && take_lane(q, i))
			break;
	if (i >= used) /* none is free: whose owner is dead? Or one that was never used */
		for (i = 0; i < MK_QUEUE_LANES && !take_lane(q, i); i++)
			;
	if (i == MK_QUEUE_LANES)
		return -EUSERS;
	q->lane = i;
	while (used <= i &&
	       !atomic_compare_exchange_weak_explicit(lanes, &used, i + 1, memory_order_release, memory_order_relaxed))
		;
	return 0;
}

static uint64_t padded(uint64_t length)
{
	return (length + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

/* Where the record begins that will be taken next, or the next one if all were taken. */
static uint64_t oldest(const struct mk_queue *q)
{
	return q->tail == q->head ? q->position : q->own->entries[q->tail & ENTRY_MASK].position;
}

static int see_tail(struct mk_queue *q)
{
	/* Acquire, pairs with the release in copy_out: the taker has finished reading. Input: checked, then used. */
	uint64_t tail = mk_load_acquire(&q->words->lane[q->lane].tail);

	if (tail - q->tail > q->head - q->tail)
		return -EBADMSG;
	q->tail = tail;
	q->freed = oldest(q);
	return 0;
}

/* See to it that this process has a lane. */
static int need_lane(struct mk_queue *q)
{
	struct mk_queue_lane *lane;
	struct mk_queue_entry *last;
	int result;

	result = settle_in(q);
	if (result || mk_likely(q->own))
		return result;
	result = find_lane(q);
	if (result)
		return result;
	lane = &q->words->lane[q->lane];
	do
		result = -posix_fallocate(q->fd, (off_t)(WORDS_SIZE + q->lane * LANE_SIZE), (off_t)LANE_SIZE);
	while (result == -EINTR);
	if (!result) {
		q->own = map_lane(q->fd, q->lane, PROT_READ | PROT_WRITE);
		result = q->own ? 0 : -errno;
	}
	if (!result) {
		madvise(q->own, LANE_SIZE + MK_QUEUE_DATA, MADV_DONTFORK); /* a fork would write into it, too */
		q->head = mk_load_relaxed(&q->own->head);
		q->tail = mk_load_acquire(&lane->tail); /* as in see_tail */
		last = &q->own->entries[(q->head - 1) & ENTRY_MASK];
		q->position = q->head ? last->position + padded(last->length) : 0;
		if (q->head - q->tail > MK_QUEUE_ENTRIES)
			result = -EBADMSG;
	}
	if (result) {
		if (q->own)
			unmap_lane(q->own);
		q->own = NULL;
		mk_store_release(&lane->owner, 0); /* as in mk_queue_leave */
		return result;
	}
	q->freed = oldest(q);
	mk_store_relaxed(&q->own->pending, 0); /* a dead one's */
	mk_store_relaxed(&lane->admitted, q->head);
	return 0;
}

static bool fits(const struct mk_queue *q, uint64_t length)
{
	return q->head - q->tail < MK_QUEUE_ENTRIES && q->position + padded(length) - q->freed <= MK_QUEUE_DATA;
}

/* N1-N4 */
static void publish(struct mk_queue *q)
{
	mk_store_relaxed(&q->own->pending, q->token);
	mk_fence(); /* pairs with the fence after S1 */
	ring(&q->words->items);
	/* R1, pairs with the acquire loads of head: whoever sees it sees the record. */
	mk_store_release(&q->own->head, q->head);
	mk_store_release(&q->own->pending, 0); /* pairs with the acquire load in S2: head was raised before */
	ring(&q->words->items);
}

int mk_queue_put(struct mk_queue *q, uint32_t kind, const void *const *pieces, const uint64_t *lengths, unsigned count)
{
	uint64_t length = 0;
	unsigned char *at;
	int result;

	for (unsigned i = 0; i < count; i++)
		if (lengths[i] > MK_QUEUE_LONGEST || (length += lengths[i]) > MK_QUEUE_LONGEST)
			return -EMSGSIZE;
	if (!length)
		return -EINVAL;
	result = need_lane(q);
	if (result)
		return result;
	if (!fits(q, length)) {
		result = see_tail(q);
		if (result)
			return result;
		if (!fits(q, length))
			return -EAGAIN;
	}
	at = (unsigned char *)q->own + MK_QUEUE_BLOCK + (q->position & DATA_MASK);
	for (unsigned i = 0; i < count; i++) {
		memcpy(at, pieces[i], lengths[i]);
		at += lengths[i];
	}
	q->own->entries[q->head & ENTRY_MASK] = (struct mk_queue_entry){
		.position = q->position, .length = (uint32_t)length, .kind = kind};
	q->position += padded(length);
	q->head++;
	publish(q);
	return 0;
}

int mk_queue_put_one(struct mk_queue *q, const void *record, uint64_t length)
{
	return mk_queue_put(q, MK_QUEUE_INSIDE, &record, &length, 1);
}

uint64_t mk_queue_tail(const struct mk_queue *q)
{
	return q->tail;
}

/* --- large records ------------------------------------------------------------------------------------------------ */

int mk_queue_outside(struct mk_queue *q, uint64_t length, struct mk_queue_large *large)
{
	uint64_t size = (length + MK_QUEUE_BLOCK - 1) / MK_QUEUE_BLOCK * MK_QUEUE_BLOCK;
	uint64_t at;
	int result;

	if (length > MK_QUEUE_OUTSIDE)
		return -EFBIG;
	result = need_lane(q);
	if (result)
		return result;
	at = q->own->outside % MK_QUEUE_OUTSIDE;
	if (at + size > MK_QUEUE_OUTSIDE) { /* not around the end: there is far more of it than memory */
		q->own->outside += MK_QUEUE_OUTSIDE - at;
		at = 0;
	}
	q->own->outside += size;
	*large = (struct mk_queue_large){.offset = OUTSIDE_AT + q->lane * MK_QUEUE_OUTSIDE + at, .length = length};
	return 0;
}

int mk_queue_fetch(struct mk_queue *q, const struct mk_queue_large *large, void *to)
{
	uint64_t done = 0;

	while (done < large->length) {
		ssize_t n = pread(q->fd, (char *)to + done, large->length - done, (off_t)(large->offset + done));

		if (n == 0)
			return -EIO;
		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

int mk_queue_map(struct mk_queue *q, const struct mk_queue_large *large, void **base)
{
	void *at = mmap(NULL, large->length, PROT_READ, MAP_SHARED, q->fd, (off_t)large->offset);

	if (at == MAP_FAILED)
		return -errno;
	*base = at;
	return 0;
}

int mk_queue_forget(struct mk_queue *q, const struct mk_queue_large *large)
{
	uint64_t size = (large->length + MK_QUEUE_BLOCK - 1) / MK_QUEUE_BLOCK * MK_QUEUE_BLOCK;

	return fallocate(q->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)large->offset, (off_t)size) < 0
		       ? -errno
		       : 0;
}

/* --- taking ------------------------------------------------------------------------------------------------------- */

static unsigned lanes_of(const struct mk_queue *q)
{
	uint32_t lanes = mk_load_acquire(&q->words->lanes); /* pairs with the release in find_lane */

	return lanes < MK_QUEUE_LANES ? lanes : MK_QUEUE_LANES;
}

/* A lane as everybody may map it. @return NULL: errno says why */
static const struct mk_queue_page *lane_seen(struct mk_queue *q, unsigned i)
{
	const struct mk_queue_page *page = mk_load_acquire(&q->seen[i]); /* pairs with the exchange below */
	const struct mk_queue_page *none = NULL;

	if (mk_likely(page))
		return page;
	page = map_lane(q->fd, i, PROT_READ);
	if (page && !atomic_compare_exchange_strong(&q->seen[i], &none, page)) { /* another thread was quicker */
		unmap_lane(page);
		page = none;
	}
	return page;
}

/* Take the next record of a lane that has one. As mk_queue_take. */
static int64_t copy_out(struct mk_queue *q, unsigned i, const struct mk_queue_page *page, uint64_t tail, void *to,
			uint64_t room, struct mk_queue_taken *taken)
{
	const volatile struct mk_queue_entry *entry = &page->entries[tail & ENTRY_MASK];
	/* Copied once, checked, then used. */
	uint64_t position = entry->position;
	uint32_t length = entry->length;
	uint32_t kind = entry->kind;
	struct mk_queue_large large = {0};

	*taken = (struct mk_queue_taken){.length = length};
	if (length == 0 || length > MK_QUEUE_LONGEST || kind > MK_QUEUE_LARGE ||
	    (kind == MK_QUEUE_LARGE && length != sizeof(large)))
		return -EBADMSG;
	if (length > room)
		return 0;
	memcpy(to, (const unsigned char *)page + MK_QUEUE_BLOCK + (position & DATA_MASK), length);
	if (kind == MK_QUEUE_LARGE) {
		uint64_t first = OUTSIDE_AT + i * MK_QUEUE_OUTSIDE;

		memcpy(&large, to, sizeof(large));
		if (large.offset < first || large.offset - first >= MK_QUEUE_OUTSIDE || large.length == 0 ||
		    large.length > MK_QUEUE_OUTSIDE - (large.offset - first) || large.offset % MK_QUEUE_BLOCK)
			return -EBADMSG;
		taken->large = large;
	}
	mk_fence();            /* N1 was `taking`; pairs with the fence after S1 */
	ring(&q->words->room); /* N2 */
	/* Pairs with the acquire in see_tail. From here on it is ours. */
	mk_store_release(&q->words->lane[i].tail, tail + 1);
	q->turn = i + 1;
	return kind == MK_QUEUE_LARGE ? 0 : (int64_t)length;
}

static int64_t take_from_some(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken)
{
	unsigned lanes = lanes_of(q);

	for (unsigned looked = 0; looked < lanes; looked++) {
		unsigned i = (q->turn + looked) % lanes;
		const struct mk_queue_page *page;
		uint64_t tail, there;
		int64_t result;

		if (mk_load_relaxed(&q->bad[i]))
			continue;
		page = lane_seen(q, i);
		if (!page)
			return -errno;
		tail = mk_load_relaxed(&q->words->lane[i].tail); /* only who holds `taking` changes it */
		there = mk_load_acquire(&page->head) - tail;     /* pairs with R1 */
		if (!there)
			continue;
		result = there > MK_QUEUE_ENTRIES ? -EBADMSG : copy_out(q, i, page, tail, to, room, taken);
		if (result == -EBADMSG)
			mk_store_relaxed(&q->bad[i], true);
		return result;
	}
	return -EAGAIN;
}

int64_t mk_queue_take(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken, int64_t deadline)
{
	int64_t result = settle_in(q);

	if (result)
		return result;
	if (!mk_queue_ready(q)) /* nothing to get in anybody's way for */
		return -EAGAIN;
	result = get_claim(q, &q->words->taking, deadline);
	if (result)
		return result;
	result = take_from_some(q, to, room, taken);
	let_go(&q->words->taking); /* N3, with a fence that pairs with the one after S1 */
	ring(&q->words->room);     /* N4 */
	return result;
}

/* --- places ------------------------------------------------------------------------------------------------------- */

/* Records that have a place: all that were put, and more where they are given out first. */
static uint64_t held(struct mk_queue *q)
{
	unsigned lanes = lanes_of(q);
	uint64_t sum = 0;

	for (unsigned i = 0; i < lanes; i++) {
		const struct mk_queue_lane *lane = &q->words->lane[i];
		uint64_t tail = mk_load_acquire(&lane->tail); /* first, since the others only get larger */
		const struct mk_queue_page *page = lane_seen(q, i);
		uint64_t head = page ? mk_load_acquire(&page->head) : tail; /* pairs with R1 */
		uint64_t admitted = mk_load_relaxed(&lane->admitted);
		uint64_t there = head - tail;

		if (q->words->places && admitted - tail > there && admitted - tail <= q->words->places)
			there = admitted - tail;
		sum += there <= q->words->places || there <= MK_QUEUE_ENTRIES ? there : 0;
	}
	return sum;
}

uint64_t mk_queue_count(struct mk_queue *q)
{
	return held(q);
}

int mk_queue_admit(struct mk_queue *q, uint64_t waiting, int64_t deadline)
{
	_Atomic uint64_t *admitted;
	int result = need_lane(q);

	if (result || !q->words->places)
		return result;
	result = get_claim(q, &q->words->admitting, deadline);
	if (result)
		return result;
	admitted = &q->words->lane[q->lane].admitted; /* read by others under the claim, or as a hint */
	mk_store_relaxed(admitted, q->head + waiting);
	if (held(q) < q->words->places)
		mk_store_relaxed(admitted, q->head + waiting + 1);
	else
		result = -EAGAIN;
	let_go(&q->words->admitting);
	return result;
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

enum look {
	NOTHING = 0, /* and who brings something will ring */
	READY = 1,
	PENDING = 2, /* somebody is about to, who may be killed before: look again in a slice */
};

static enum look look_for_items(struct mk_queue *q, uint64_t unused)
{
	unsigned lanes = lanes_of(q);
	enum look found = NOTHING;

	(void)unused;
	for (unsigned i = 0; i < lanes; i++) {
		const struct mk_queue_page *page;
		uint64_t pending;

		if (mk_load_relaxed(&q->bad[i]))
			continue;
		page = lane_seen(q, i);
		if (!page) /* the take says why */
			return READY;
		pending = mk_load_acquire(&page->pending); /* S2, pairs with N3 */
		if (mk_load_acquire(&page->head) != mk_load_relaxed(&q->words->lane[i].tail))
			return READY;
		if (pending && pending != mk_load_relaxed(&q->dead[i]))
			found = PENDING;
	}
	return found;
}

/* S2, for who waits for room: `taking` first, then what its holder changes; pairs with let_go. */
static enum look taker(const struct mk_queue *q)
{
	return mk_load_acquire(&q->words->taking.owner) ? PENDING : NOTHING;
}

static enum look look_for_room(struct mk_queue *q, uint64_t tail)
{
	enum look found = taker(q);

	return mk_load_acquire(&q->words->lane[q->lane].tail) != tail ? READY : found;
}

static enum look look_for_place(struct mk_queue *q, uint64_t unused)
{
	enum look found = taker(q);
	unsigned lanes = lanes_of(q);

	(void)unused;
	if (held(q) < q->words->places)
		return READY;
	for (unsigned i = 0; i < lanes; i++) {
		const struct mk_queue_page *page = lane_seen(q, i);

		/* A place that was given out and is not used yet: whoever has it may be killed. */
		if (i != q->lane && page &&
		    mk_load_relaxed(&q->words->lane[i].admitted) != mk_load_acquire(&page->head))
			found = PENDING;
	}
	return found;
}

/* After a slice: what the dead hold is given back. */
static void look_for_the_dead(struct mk_queue *q)
{
	unsigned lanes = lanes_of(q);

	free_claim(&q->words->taking);
	for (unsigned i = 0; i < lanes; i++) {
		struct mk_queue_lane *lane = &q->words->lane[i];
		uint64_t owner = mk_load_relaxed(&lane->owner);
		const struct mk_queue_page *page = lane_seen(q, i);
		uint64_t pending = page ? mk_load_relaxed(&page->pending) : 0;

		if (pending && has_ended(pending))
			mk_store_relaxed(&q->dead[i], pending);
		if (!page || !owner || !q->words->places ||
		    mk_load_relaxed(&lane->admitted) == mk_load_acquire(&page->head) || !has_ended(owner) ||
		    get_claim(q, &q->words->admitting, 0))
			continue;
		/* Under the claim, and the lane still the dead one's: nobody else writes it. A new owner sets it itself. */
		if (mk_load_relaxed(&lane->owner) == owner)
			mk_store_relaxed(&lane->admitted, mk_load_relaxed(&page->head));
		let_go(&q->words->admitting);
	}
}

static void learn(_Atomic uint64_t *spin, uint64_t waited)
{
	if (waited < SPIN_WORTH_NS)
		mk_store_relaxed(spin, SPIN_MAX_NS);
	else
		mk_store_relaxed(spin, mk_load_relaxed(spin) - mk_load_relaxed(spin) / 4);
}

static int wait_for(struct mk_queue *q, enum look (*look)(struct mk_queue *, uint64_t), uint64_t argument,
		    struct mk_queue_bell *bell, _Atomic uint64_t *spin, int64_t deadline, bool again)
{
	uint64_t begin = mk_now();
	uint64_t until = deadline < 0 ? UINT64_MAX : (uint64_t)deadline;
	uint64_t now = begin;

	for (uint64_t end = begin + mk_load_relaxed(spin); !again;) {
		if (look(q, argument) == READY) {
			learn(spin, now - begin);
			return 0;
		}
		if (now >= end || now >= until)
			break;
		for (unsigned i = 0; i < 8; i++)
			mk_pause();
		now = mk_now();
	}
	for (;;) {
		uint32_t value = mk_load_acquire(&bell->bell); /* pairs with wake_all */
		uint64_t limit = until;
		enum look found;
		int result = 0;

		atomic_fetch_add(&bell->sleepers, 1); /* S1 */
		mk_fence();                           /* pairs with the fences of N1 and N3 */
		found = look(q, argument);
		now = mk_now();
		for (uint64_t end = now + PENDING_NS; found == PENDING && now < end; now = mk_now())
			found = look(q, argument); /* it is a matter of an instant */
		if (found == PENDING && limit > now + SLICE_NS)
			limit = now + SLICE_NS;
		else if (!again && limit > now + FIRST_SLEEP_NS)
			limit = now + FIRST_SLEEP_NS;
		if (found != READY && now < until)
			result = sleep_on(&bell->bell, value, limit);
		atomic_fetch_sub(&bell->sleepers, 1); /* S4 */
		if (found == READY || look(q, argument) == READY) {
			learn(spin, again ? UINT64_MAX : mk_now() - begin);
			return 0;
		}
		if (result == -EINTR)
			return result;
		now = mk_now();
		if (now >= until)
			return -ETIMEDOUT;
		if (result != -ETIMEDOUT)
			continue;
		if (found == PENDING)
			look_for_the_dead(q);
		if (!again)
			return -EINTR;
	}
}

bool mk_queue_ready(struct mk_queue *q)
{
	return look_for_items(q, 0) == READY;
}

int mk_queue_wait_items(struct mk_queue *q, int64_t deadline, bool again)
{
	return wait_for(q, look_for_items, 0, &q->words->items, &q->spin_items, deadline, again);
}

int mk_queue_wait_room(struct mk_queue *q, uint64_t tail, int64_t deadline, bool again)
{
	int result = wait_for(q, look_for_room, tail, &q->words->room, &q->spin_room, deadline, again);

	for (uint64_t end = mk_now() + ROOM_NS; deadline < 0 && !result && mk_now() < end;)
		mk_pause();
	return result;
}

int mk_queue_wait_place(struct mk_queue *q, int64_t deadline, bool again)
{
	return wait_for(q, look_for_place, 0, &q->words->room, &q->spin_room, deadline, again);
}
