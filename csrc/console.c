/* console.c: see console.h.
 *
 *   writer                                        reader
 *   C1  store-release(tail, past what goes)       C4  load-acquire(head): there is a line before it
 *   C2  fence-release; write the line             C5  copy the line; fence-acquire
 *   C3  store-release(head)                       C6  load-relaxed(tail): was the line overtaken?
 *
 *   C3-C4 publishes a line. C2-C5: a reader that copied a byte of the new line sees the new tail at C6.
 *   C1 is a release so that who sees a tail (C4) sees the heads stored before it: tail <= head holds for readers too.
 */
#include "multikernel/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "multikernel/atomic.h"

#define LEVEL_INFO 6
#define THREAD_STACK (256u * 1024u) /* the C library takes the threads' static storage out of it */
#define TAKE_READS 256              /* 1 MiB, what a pipe can hold at most unprivileged */

struct mk_console_writer {
	struct mk_console *page;
	struct mk_object shape;
	uint64_t head, tail;
	pthread_mutex_t mutex; /* among the threads of this process: the pipe's and those that log */
	pthread_t thread;
	int pipe, stop;
	int copy[2]; /* a pipe of our own, for copies of what is in the other */
	bool draining;
	uint32_t generation; /* mk_fork_generation() of the owner: a fork's copy has neither the page nor the thread */
};

static uint64_t line_size(uint32_t length)
{
	return sizeof(struct mk_console_line) + ((length + 7u) & ~7u);
}

static _Atomic uint64_t *word_at(const struct mk_console *page, const struct mk_object *shape, uint64_t position)
{
	uint64_t at = shape->data_offset + (position & (shape->capacity - 1));

	return (_Atomic uint64_t *)(void *)((char *)(uintptr_t)page + at);
}

/* Lines lie on multiples of 8 and may go round the end, so they are copied word by word; somebody may be reading
 * or overwriting them meanwhile. */
static void put_words(struct mk_console_writer *w, uint64_t position, const void *from, uint64_t size)
{
	for (uint64_t i = 0; i < size; i += 8) {
		uint64_t word;

		memcpy(&word, (const char *)from + i, 8);
		mk_store_relaxed(word_at(w->page, &w->shape, position + i), word);
	}
}

static void get_words(const struct mk_console *page, const struct mk_object *shape, uint64_t position, void *to,
		      uint64_t size)
{
	for (uint64_t i = 0; i < size; i += 8) {
		uint64_t word = mk_load_relaxed(word_at(page, shape, position + i));

		memcpy((char *)to + i, &word, 8);
	}
}

/* --- writer ----------------------------------------------------------------------------------------------------- */

int mk_console_create(uint64_t capacity, uint32_t owner_id, uint64_t epoch, struct mk_console_writer **out)
{
	uint64_t page = mk_page_size();
	struct mk_object header = {.kind = MK_KIND_CONSOLE,
				   .size = page + capacity,
				   .capacity = capacity,
				   .data_offset = (uint32_t)page,
				   .owner_id = owner_id,
				   .owner_pid = (uint32_t)getpid(),
				   .epoch = epoch};
	struct mk_console_writer *w;
	void *base = NULL;
	int reader;
	int fd;

	if (capacity < MK_CAPACITY_MIN || capacity < page || (capacity & (capacity - 1)))
		return -EINVAL;
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	fd = mk_object_create("console:", header);
	reader = fd < 0 ? fd : mk_object_map(fd, header.size, 1, &base);
	if (!reader)
		reader = mk_object_seal(fd);
	if (!reader)
		reader = mk_object_reopen(fd);
	if (fd >= 0)
		close(fd);
	if (reader < 0) {
		mk_object_unmap(base, header.size);
		free(w);
		return reader;
	}
	w->page = base;
	w->shape = header;
	w->pipe = w->stop = -1;
	w->generation = mk_fork_generation();
	pthread_mutex_init(&w->mutex, NULL);
	*out = w;
	return reader;
}

static void put_line(struct mk_console_writer *w, uint16_t level, const char *text, uint32_t length, bool partial)
{
	char buffer[sizeof(struct mk_console_line) + MK_CONSOLE_LINE_MAX + 8] = {0};
	struct timespec now;
	struct mk_console_line line = {.length = length, .level = level, .flags = partial ? MK_CONSOLE_PARTIAL : 0};
	uint64_t size = line_size(length);

	clock_gettime(CLOCK_MONOTONIC, &now);
	line.time = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	memcpy(buffer, &line, sizeof(line));
	memcpy(buffer + sizeof(line), text, length);
	while (w->head + size - w->tail > w->shape.capacity) {
		struct mk_console_line oldest;

		get_words(w->page, &w->shape, w->tail, &oldest, sizeof(oldest)); /* our own page, our own words */
		w->tail += line_size(oldest.length);
	}
	mk_store_release(&w->page->tail, w->tail); /* C1, pairs with C4 and C6 */
	atomic_thread_fence(memory_order_release); /* C2, pairs with C5 */
	put_words(w, w->head, buffer, size);
	w->head += size;
	mk_store_release(&w->page->head, w->head); /* C3, pairs with C4 */
}

void mk_console_write(struct mk_console_writer *w, uint16_t level, const char *text, size_t length)
{
	if (w->generation != mk_fork_generation())
		return;
	pthread_mutex_lock(&w->mutex);
	while (length) {
		size_t most = length < MK_CONSOLE_LINE_MAX ? length : MK_CONSOLE_LINE_MAX;
		const char *newline = memchr(text, '\n', most);
		size_t n = newline ? (size_t)(newline - text) : most;

		put_line(w, level, text, (uint32_t)n, !newline);
		n += newline ? 1 : 0;
		text += n;
		length -= n;
	}
	pthread_mutex_unlock(&w->mutex);
}

/* --- the pipe ----------------------------------------------------------------------------------------------------- */

/* Copy what is in the pipe, say that it is copied, and only then take it out: a process that is killed at any of these
 * steps has lost nothing that it printed, and who reads the rest of the pipe knows how much of it stands here already.
 * @return bytes taken; 0: end of file; -1: errno */
static ssize_t take_some(struct mk_console_writer *w)
{
	char bytes[4096];
	ssize_t got = tee(w->pipe, w->copy[1], sizeof(bytes), SPLICE_F_NONBLOCK);

	if (got <= 0)
		return got;
	got = read(w->copy[0], bytes, (size_t)got); /* all of it: the copy is ours, and was empty */
	if (got <= 0)
		return got;
	mk_store_relaxed(&w->page->copied, (uint32_t)got);
	mk_console_write(w, LEVEL_INFO, bytes, (size_t)got);
	got = read(w->pipe, bytes, (size_t)got);
	mk_store_relaxed(&w->page->copied, 0);
	return got;
}

/* @return false at the end of file, or when the pipe is no good */
static bool take(struct mk_console_writer *w)
{
	ssize_t got;
	int reads = 0;

	do
		got = take_some(w);
	/* Bounded: who never stops writing must not keep mk_console_finish waiting. */
	while ((got > 0 && ++reads < TAKE_READS) || (got < 0 && errno == EINTR));
	return got > 0 || (got < 0 && errno == EAGAIN);
}

static void *drain(void *argument)
{
	struct mk_console_writer *w = argument;
	struct pollfd fds[2] = {{.fd = w->pipe, .events = POLLIN}, {.fd = w->stop, .events = POLLIN}};

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue; /* EINTR; nothing else can happen to valid descriptors */
		if (!take(w) || fds[1].revents)
			return NULL;
	}
}

static void close_copy(struct mk_console_writer *w)
{
	close(w->copy[0]);
	close(w->copy[1]);
}

int mk_console_drain(struct mk_console_writer *w, int fd)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	int error;

	if (w->draining)
		return -EBUSY;
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	if (pipe2(w->copy, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	w->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->stop < 0) {
		error = errno;
		close_copy(w);
		return -error;
	}
	w->pipe = fd;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, THREAD_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
	error = pthread_create(&w->thread, &attributes, drain, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (error) {
		close_copy(w);
		close(w->stop);
		w->pipe = w->stop = -1;
		return -error;
	}
	w->draining = true;
	return 0;
}

void mk_console_finish(struct mk_console_writer *w)
{
	uint64_t one = 1;

	if (!w)
		return;
	bool ours = w->generation == mk_fork_generation();

	if (w->draining) {
		if (ours) {
			(void)!write(w->stop, &one, sizeof(one)); /* Cannot fail: the counter is 0. */
			pthread_join(w->thread, NULL);
		}
		close_copy(w);
		close(w->pipe);
		close(w->stop);
	}
	if (ours) {
		pthread_mutex_destroy(&w->mutex);
		mk_object_unmap(w->page, w->shape.size);
	}
	free(w);
}

/* --- reader ------------------------------------------------------------------------------------------------------- */

int mk_console_open(int fd, const struct mk_console **console, struct mk_object *header, uint32_t *why)
{
	void *base;
	int result = mk_object_check(fd, MK_KIND_CONSOLE, 1, header, why);

	if (!result)
		result = mk_object_map(fd, header->size, 0, &base);
	if (!result)
		*console = base;
	return result;
}

void mk_console_close(const struct mk_console *console, const struct mk_object *header)
{
	mk_object_unmap((void *)(uintptr_t)console, header->size);
}

uint32_t mk_console_copied(const struct mk_console *console)
{
	return mk_load_relaxed(&console->copied); /* its writer is dead, or the figure is of no use */
}

int mk_console_next(const struct mk_console *console, const struct mk_object *header, uint64_t *position,
		    struct mk_console_line *line, char *text)
{
	char buffer[MK_CONSOLE_LINE_MAX + 8];

	for (int tries = 0; tries < 64; tries++) {
		uint64_t head = mk_load_acquire(&console->head); /* C4, pairs with C3 */
		uint64_t tail = mk_load_acquire(&console->tail); /* pairs with C1 */

		if (head - tail > header->capacity || (head | tail) & 7) {
			if (mk_load_relaxed(&console->head) != head)
				continue; /* it went on between the two loads */
			return -EBADMSG;
		}
		if (head - *position > head - tail) /* before the oldest, or a position that never was */
			*position = tail;
		if (*position == head)
			return 0;
		if (*position & 7)
			return -EBADMSG;
		get_words(console, header, *position, line, sizeof(*line));
		if (line->length <= MK_CONSOLE_LINE_MAX)
			get_words(console, header, *position + sizeof(*line), buffer, (line->length + 7u) & ~7u);
		atomic_thread_fence(memory_order_acquire); /* C5, pairs with C2 */
		tail = mk_load_relaxed(&console->tail);    /* C6, pairs with C1 */
		if ((int64_t)(tail - *position) > 0)
			continue; /* overtaken while we copied */
		if (line->length > MK_CONSOLE_LINE_MAX || line_size(line->length) > head - *position)
			return -EBADMSG;
		memcpy(text, buffer, line->length);
		*position += line_size(line->length);
		return 1;
	}
	return 0; /* a writer faster than we can read: look again later */
}
