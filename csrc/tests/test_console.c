/* The console ring: lines, what is overwritten, readers that are overtaken, the pipe's thread. */
#include "harness.h"

#include <pthread.h>

#include "multikernel/console.h"

#define CAPACITY 4096u

struct console {
	struct mk_console_writer *writer;
	const struct mk_console *page;
	struct mk_object header;
	int fd;
};

static struct console console_new(uint64_t capacity)
{
	struct console c;
	uint32_t why = 99;

	c.fd = mk_console_create(capacity, 5, 6, &c.writer);
	CHECK(c.fd >= 0);
	CHECK_EQ(mk_console_open(c.fd, &c.page, &c.header, &why), 0);
	CHECK_EQ(c.header.owner_id, 5);
	CHECK_EQ(c.header.epoch, 6);
	return c;
}

/* Drop the reading side. */
static void console_drop(struct console *c)
{
	mk_console_close(c->page, &c->header);
	close(c->fd);
}

static void print(struct console *c, const char *text)
{
	mk_console_write(c->writer, 6, text, strlen(text));
}

static void expect_line(struct console *c, uint64_t *position, const char *expected, bool partial)
{
	struct mk_console_line line;
	char text[MK_CONSOLE_LINE_MAX];

	CHECK_EQ(mk_console_next(c->page, &c->header, position, &line, text), 1);
	CHECK_EQ(line.length, strlen(expected));
	CHECK_EQ(memcmp(text, expected, line.length), 0);
	CHECK_EQ(line.flags, partial ? MK_CONSOLE_PARTIAL : 0);
}

static void expect_no_line(struct console *c, uint64_t *position)
{
	struct mk_console_line line;
	char text[MK_CONSOLE_LINE_MAX];

	CHECK_EQ(mk_console_next(c->page, &c->header, position, &line, text), 0);
}

/* --- lines -------------------------------------------------------------------------------------------------------- */

static void each_newline_ends_a_line_and_the_rest_is_partial(void)
{
	struct console c = console_new(CAPACITY);
	uint64_t at = 0, before = mk_now();
	struct mk_console_line line;
	char text[MK_CONSOLE_LINE_MAX];

	expect_no_line(&c, &at);
	print(&c, "one\n\ntwo\nthr");
	print(&c, "ee\n");
	print(&c, "");
	mk_console_write(c.writer, 3, "bad\0byte\n", 9);
	expect_line(&c, &at, "one", false);
	expect_line(&c, &at, "", false);
	expect_line(&c, &at, "two", false);
	expect_line(&c, &at, "thr", true);
	expect_line(&c, &at, "ee", false);
	CHECK_EQ(mk_console_next(c.page, &c.header, &at, &line, text), 1);
	CHECK_EQ(line.level, 3);
	CHECK_EQ(line.length, 8);
	CHECK_EQ(memcmp(text, "bad\0byte", 8), 0);
	CHECK(line.time >= before && line.time <= mk_now());
	expect_no_line(&c, &at);
	mk_console_finish(c.writer);
	console_drop(&c);
}

static void a_line_longer_than_a_line_goes_on_in_the_next(void)
{
	struct console c = console_new(CAPACITY);
	char text[2 * MK_CONSOLE_LINE_MAX + 2];
	char first[MK_CONSOLE_LINE_MAX + 1] = {0};
	uint64_t at = 0;

	memset(text, 'x', sizeof(text));
	memset(first, 'x', MK_CONSOLE_LINE_MAX);
	text[sizeof(text) - 1] = '\n';
	mk_console_write(c.writer, 6, text, sizeof(text)); /* 2,001 and a newline */
	expect_line(&c, &at, first, true);
	expect_line(&c, &at, first, true);
	expect_line(&c, &at, "x", false);
	mk_console_write(c.writer, 6, text + sizeof(text) - MK_CONSOLE_LINE_MAX - 1, MK_CONSOLE_LINE_MAX + 1);
	expect_line(&c, &at, first, true); /* exactly one line: its newline follows alone */
	expect_line(&c, &at, "", false);
	expect_no_line(&c, &at);
	mk_console_finish(c.writer);
	console_drop(&c);
}

static void the_oldest_lines_are_overwritten_and_the_newest_stay(void)
{
	struct console c = console_new(CAPACITY);
	struct random r = random_from(1);
	char text[64];

	for (uint64_t i = 0; i < 3000; i++) {
		snprintf(text, sizeof(text), "%" PRIu64 " %.*s\n", i, (int)below(&r, 40),
			 "........................................");
		print(&c, text);
		if (i % 100)
			continue;
		/* From the beginning: whole lines only, without a gap, to the one just written. */
		uint64_t at = 0, lines = 0, number = 0, last = 0;
		struct mk_console_line line;
		char read[MK_CONSOLE_LINE_MAX + 1];

		while (mk_console_next(c.page, &c.header, &at, &line, read) == 1) {
			read[line.length] = 0;
			number = strtoull(read, NULL, 10);
			CHECK(!lines || number == last + 1);
			last = number;
			lines++;
		}
		CHECK_EQ(last, i);
		CHECK(i < 30 || lines > CAPACITY / 80);
	}
	mk_console_finish(c.writer);
	console_drop(&c);
}

static void a_reader_that_was_overtaken_goes_on_with_the_oldest_line(void)
{
	struct console c = console_new(CAPACITY);
	struct mk_console_line line;
	char text[MK_CONSOLE_LINE_MAX], number[16];
	uint64_t at = 0, wild = 1ULL << 62;

	print(&c, "first\n");
	expect_line(&c, &at, "first", false);
	for (int i = 0; i < 1000; i++) {
		snprintf(number, sizeof(number), "%d\n", i);
		print(&c, number);
	}
	CHECK_EQ(mk_console_next(c.page, &c.header, &at, &line, text), 1);
	text[line.length] = 0;
	CHECK_EQ(strtoul(text, NULL, 10), 1000 - CAPACITY / 24);
	CHECK_EQ(mk_console_next(c.page, &c.header, &wild, &line, text), 1); /* a position that never was */
	CHECK_EQ(wild, at);
	mk_console_finish(c.writer);
	console_drop(&c);
}

static void what_was_written_is_there_when_the_writer_has_finished(void)
{
	struct console c = console_new(CAPACITY);
	uint64_t at = 0;

	print(&c, "last words");
	mk_console_finish(c.writer);
	expect_line(&c, &at, "last words", true);
	console_drop(&c);
}

/* --- readers beside a writer ---------------------------------------------------------------------------------------- */

struct hammer {
	struct mk_console_writer *writer;
	_Atomic uint32_t stop;
};

static void *write_numbered_lines(void *argument)
{
	struct hammer *h = argument;
	struct random r = random_from(9);

	for (uint64_t i = 0; !mk_load_relaxed(&h->stop); i++) {
		char text[256];
		uint64_t length = 8 + below(&r, 200);

		memcpy(text, &i, 8); /* a newline in the number would be two lines */
		for (uint64_t at = 0; at < 8; at++)
			text[at] = (char)('0' + (i >> 4 * at & 15));
		for (uint64_t at = 8; at < length; at++)
			text[at] = (char)('a' + (i + at) % 26);
		text[length] = '\n';
		mk_console_write(h->writer, 6, text, length + 1);
		if (!below(&r, 50))
			dawdle(below(&r, 20000));
	}
	return NULL;
}

static void a_reader_beside_a_busy_writer_sees_whole_lines_in_order(void)
{
	struct console c = console_new(CAPACITY);
	struct hammer h = {.writer = c.writer};
	uint64_t position = 0, last = 0, lines = 0, jumps = 0;
	struct random r = random_from(2);
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, write_numbered_lines, &h), 0);
	while (lines < times(100000)) {
		struct mk_console_line line;
		char text[MK_CONSOLE_LINE_MAX];
		uint64_t number = 0;
		int result = mk_console_next(c.page, &c.header, &position, &line, text);

		CHECK(result >= 0); /* a fast writer is not a broken one */
		if (!result)
			continue;
		CHECK(line.length >= 8 && line.length < 208);
		for (uint64_t at = 0; at < 8; at++)
			number |= (uint64_t)(text[at] - '0') << 4 * at;
		for (uint64_t at = 8; at < line.length; at++)
			CHECK_EQ(text[at], 'a' + (int)((number + at) % 26));
		CHECK(!lines || number > last);
		jumps += lines && number != last + 1;
		last = number;
		lines++;
		if (!below(&r, 100))
			dawdle(below(&r, 50000)); /* be overtaken */
	}
	mk_store_relaxed(&h.stop, 1);
	pthread_join(thread, NULL);
	printf("      %" PRIu64 " lines, overtaken %" PRIu64 " times\n", lines, jumps);
	mk_console_finish(c.writer);
	console_drop(&c);
}

/* --- pages that lie --------------------------------------------------------------------------------------------------- */

static void a_console_made_by_hand_is_refused_line_by_line_and_never_read_outside(void)
{
	struct mk_object header = {.kind = MK_KIND_CONSOLE,
				   .size = mk_page_size() + CAPACITY,
				   .capacity = CAPACITY,
				   .data_offset = (uint32_t)mk_page_size()};
	int fd = mk_object_create("console:forged", header);
	char text[MK_CONSOLE_LINE_MAX];
	struct mk_console_line line, *first;
	const struct mk_console *reader;
	struct random r = random_from(4);
	struct mk_console *page;
	uint64_t at;
	void *map;

	CHECK(fd >= 0);
	CHECK_EQ(mk_object_map(fd, header.size, 1, &map), 0);
	CHECK_EQ(mk_object_seal(fd), 0);
	CHECK_EQ(mk_console_open(fd, &reader, &header, NULL), 0);
	page = map;
	first = (struct mk_console_line *)(void *)((char *)map + header.data_offset);

	const struct {
		uint64_t head, tail;
	} bad[] = {{8, 16}, {CAPACITY + 8, 0}, {1ULL << 63, 0}, {12, 0}, {16, 4}, {0, 8}, {UINT64_MAX, 0}};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		mk_store_relaxed(&page->head, bad[i].head);
		mk_store_relaxed(&page->tail, bad[i].tail);
		at = 0;
		CHECK_EQ(mk_console_next(reader, &header, &at, &line, text), -EBADMSG);
	}
	const uint32_t lengths[] = {MK_CONSOLE_LINE_MAX + 1, 100, 9, 0x7fffffff, 0xffffffff, 0xfffffff8};

	mk_store_relaxed(&page->tail, 0);
	mk_store_relaxed(&page->head, 24);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		first->length = lengths[i];
		at = 0;
		CHECK_EQ(mk_console_next(reader, &header, &at, &line, text), -EBADMSG);
	}
	first->length = 8;
	CHECK_EQ(mk_console_next(reader, &header, &at, &line, text), 1); /* and so it was not for nothing */

	for (uint64_t i = 0; i < times(200000); i++) {
		at = below(&r, 2) ? draw(&r) : below(&r, 2 * CAPACITY);
		((uint64_t *)(void *)first)[below(&r, CAPACITY / 8)] = below(&r, 8) ? below(&r, 64) : draw(&r);
		mk_store_relaxed(&page->head, below(&r, 8) ? below(&r, CAPACITY / 8) * 8 : draw(&r));
		mk_store_relaxed(&page->tail, below(&r, 8) ? 0 : draw(&r));
		int result = mk_console_next(reader, &header, &at, &line, text);

		CHECK(result == 1 || result == 0 || result == -EBADMSG);
		CHECK(result != 1 || line.length <= MK_CONSOLE_LINE_MAX);
	}
	mk_console_close(reader, &header);
	mk_object_unmap(map, header.size);
	close(fd);
}

static void what_is_no_sealed_console_is_not_opened(void)
{
	int fd = mk_lane_object(MK_KIND_PRODUCER, "lane:test", CAPACITY, 0, 0, 0);
	const struct mk_console *page;
	struct mk_object header;
	uint32_t why;

	CHECK_EQ(mk_console_open(fd, &page, &header, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_SEALS);
	CHECK_EQ(mk_object_seal(fd), 0);
	CHECK_EQ(mk_console_open(fd, &page, &header, &why), -EPROTO);
	CHECK_EQ(why, MK_REFUSED_KIND);
	close(fd);
	CHECK_EQ(mk_console_create(1000, 0, 0, &(struct mk_console_writer *){0}), -EINVAL);
}

/* --- the pipe ---------------------------------------------------------------------------------------------------------- */

static void what_goes_into_the_pipe_comes_out_of_the_console(void)
{
	struct console c = console_new(1 << 20);
	uint64_t at = 0;
	int pipes[2];

	CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
	CHECK_EQ(mk_console_drain(c.writer, pipes[0]), 0);
	CHECK_EQ(mk_console_drain(c.writer, pipes[0]), -EBUSY);
	for (int i = 0; i < 10000; i++)
		dprintf(pipes[1], "line %d\n", i);
	print(&c, "beside it\n");    /* another thread of the program logs */
	mk_console_finish(c.writer); /* takes what is left, though the pipe stays open */
	close(pipes[1]);
	char joined[64] = "";
	struct mk_console_line line;
	char text[MK_CONSOLE_LINE_MAX];
	int lines = 0, beside = 0;

	while (mk_console_next(c.page, &c.header, &at, &line, text) == 1) {
		if (line.length == 9 && !memcmp(text, "beside it", 9)) {
			beside++;
			continue;
		}
		strncat(joined, text, line.length); /* a line may come in two reads of the pipe */
		if (line.flags & MK_CONSOLE_PARTIAL)
			continue;
		char expected[32];

		snprintf(expected, sizeof(expected), "line %d", lines++);
		CHECK(strcmp(joined, expected) == 0);
		joined[0] = 0;
	}
	CHECK_EQ(lines, 10000);
	CHECK_EQ(beside, 1);
	console_drop(&c);
}

static void the_thread_ends_with_the_pipe(void)
{
	struct console c = console_new(CAPACITY);
	uint64_t at = 0;
	int pipes[2];

	CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
	CHECK_EQ(mk_console_drain(c.writer, pipes[0]), 0);
	CHECK_EQ(write(pipes[1], "bye\n", 4), 4);
	close(pipes[1]);
	mk_console_finish(c.writer);
	expect_line(&c, &at, "bye", false);
	expect_no_line(&c, &at);
	console_drop(&c);
}

static void *write_for_ever(void *argument)
{
	int fd = *(int *)argument;
	char noise[65536];

	memset(noise, '\n', sizeof(noise)); /* much to do for who reads it: the pipe never runs empty */
	while (write(fd, noise, sizeof(noise)) > 0)
		;
	return NULL;
}

static void who_never_stops_printing_does_not_keep_finish_waiting(void)
{
	struct console c = console_new(CAPACITY);
	struct mk_console_line line;
	char text[MK_CONSOLE_LINE_MAX];
	pthread_t thread;
	uint64_t at = 0;
	int pipes[2];

	signal(SIGPIPE, SIG_IGN);
	CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
	CHECK_EQ(mk_console_drain(c.writer, pipes[0]), 0);
	CHECK_EQ(pthread_create(&thread, NULL, write_for_ever, &pipes[1]), 0);
	while (mk_console_next(c.page, &c.header, &at, &line, text) == 0)
		;
	mk_console_finish(c.writer);
	pthread_join(thread, NULL); /* EPIPE: nobody reads any more */
	close(pipes[1]);
	console_drop(&c);
}

static void use_copy(void *argument)
{
	struct console *c = argument;

	print(c, "from the child\n");
	mk_console_finish(c->writer);
}

static void a_forks_copy_writes_nothing_and_stops_nothing(void)
{
	struct console c = console_new(CAPACITY);
	uint64_t at = 0;
	int pipes[2];

	CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
	CHECK_EQ(mk_console_drain(c.writer, pipes[0]), 0);
	reap_done(spawn(use_copy, &c));
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(write(pipes[1], "still here\n", 11), 11);
		while (mk_load_acquire(&c.page->head) == at) /* the thread brings it */
			;
		expect_line(&c, &at, "still here", false);
	}
	mk_console_finish(c.writer);
	close(pipes[1]);
	expect_no_line(&c, &at);
	console_drop(&c);
}

static const struct test tests[] = {
	TEST(each_newline_ends_a_line_and_the_rest_is_partial),
	TEST(a_line_longer_than_a_line_goes_on_in_the_next),
	TEST(the_oldest_lines_are_overwritten_and_the_newest_stay),
	TEST(a_reader_that_was_overtaken_goes_on_with_the_oldest_line),
	TEST(what_was_written_is_there_when_the_writer_has_finished),
	TEST(a_reader_beside_a_busy_writer_sees_whole_lines_in_order),
	TEST(a_console_made_by_hand_is_refused_line_by_line_and_never_read_outside),
	TEST(what_is_no_sealed_console_is_not_opened),
	TEST(what_goes_into_the_pipe_comes_out_of_the_console),
	TEST(the_thread_ends_with_the_pipe),
	TEST(who_never_stops_printing_does_not_keep_finish_waiting),
	TEST(a_forks_copy_writes_nothing_and_stops_nothing),
};

RUN_TESTS(tests)
