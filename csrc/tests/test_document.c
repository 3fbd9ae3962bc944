/* Documents of the control channel: what one writes the other reads, and what is no document is refused whatever it is. */
#include "harness.h"

#include "multikernel/channel.h"
#include "multikernel/document.h"

/* A copy that ends where the text ends, so that a sanitizer sees a look beyond it. */
static int read_text(struct mk_document *d, char **copy, const char *text, size_t length)
{
	*copy = malloc(length ? length : 1);
	memcpy(*copy, text, length);
	return mk_document_read(d, *copy, length);
}

static bool is_document(const char *text)
{
	struct mk_document d;
	char *copy;
	int result = read_text(&d, &copy, text, strlen(text));

	CHECK(result == 0 || result == -EBADMSG);
	free(copy);
	return result == 0;
}

static void json_is_read(void)
{
	CHECK(is_document("{}"));
	CHECK(is_document(" {\t\"a\" : 1 ,\r\n\"b\":[ ] } "));
	CHECK(is_document("{\"a\":[1,-0,2.5,1e9,-1.25E-3,true,false,null,{\"b\":[[]]}]}"));
	CHECK(is_document("{\"\\u00e4\\\"\\\\\\/\\b\\f\\n\\r\\t\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x8d\"}"));
}

static void what_is_no_json_is_refused(void)
{
	static const char *const texts[] = {
		"",
		" ",
		"1",
		"[]",
		"\"a\"",
		"null",
		"{",
		"}",
		"{}{}",
		"{} x",
		"{,}",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\":1,}",
		"{\"a\":1 \"b\":2}",
		"{a:1}",
		"{'a':1}",
		"{\"a\":01}",
		"{\"a\":+1}",
		"{\"a\":.5}",
		"{\"a\":1.}",
		"{\"a\":1e}",
		"{\"a\":-}",
		"{\"a\":0x1}",
		"{\"a\":NaN}",
		"{\"a\":Infinity}",
		"{\"a\":tru}",
		"{\"a\":nulll}",
		"{\"a\":[1,]}",
		"{\"a\":[1}",
		"{\"a\":\"b}",
		"{\"a\":\"\\\"}",
		"{\"a\":\"\\x\"}",
		"{\"a\":\"\\u12\"}",
		"{\"a\":\"\\u12g4\"}",
		"{\"a\":\"\n\"}",
		"{\"a\":\"\x80\"}",
		"{\"a\":\"\xc0\xaf\"}",
		"{\"a\":\"\xed\xa0\x80\"}",
		"{\"a\":\"\xf5\x80\x80\x80\"}",
		"{\"a\":\"\xe2\x82\"}",
		"{\"a\":\"\xf0\x80\x80\x80\"}",
		"{\"a",
		"{\"a\\",
		"{\"a\\u",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (is_document(texts[i]))
			fail(__FILE__, __LINE__, texts[i], (int64_t)i, 0, true);
}

static void depth_is_bounded(void)
{
	char text[2 * MK_DOCUMENT_DEPTH + 16] = "{\"a\":";
	size_t at = strlen(text), deep = MK_DOCUMENT_DEPTH - 1;

	memset(text + at, '[', deep);
	memset(text + at + deep, ']', deep);
	strcpy(text + at + 2 * deep, "}");
	CHECK(is_document(text));
	memset(text + at, '[', deep + 1);
	memset(text + at + deep + 1, ']', deep + 1);
	strcpy(text + at + 2 * deep + 2, "}");
	CHECK(!is_document(text));

	char *endless = malloc(MK_CHANNEL_DOCUMENT + 1);

	memset(endless, '[', MK_CHANNEL_DOCUMENT);
	memcpy(endless, "{\"a\":", 5);
	endless[MK_CHANNEL_DOCUMENT] = 0;
	CHECK(!is_document(endless));
	free(endless);
}

static void members_are_found_by_name_and_kind(void)
{
	const char *text =
		"{ \"n\" : -5 , \"s\" : \"text\", \"o\":{\"n\":7,\"s\":\"in\"}, \"l\":[{\"x\":1}], \"t\":true, \"no\":false, \"f\":1.5,"
		"\"big\":9223372036854775807,\"small\":-9223372036854775808,\"over\":9223372036854775808,"
		"\"under\":-9223372036854775809,\"e\":1e3,\"n\":6}";
	struct mk_document d, inner;
	int64_t n = 0;
	bool truth;
	char s[16];

	CHECK_EQ(mk_document_read(&d, text, strlen(text)), 0);
	CHECK_EQ(mk_document_number(&d, "n", &n), 0);
	CHECK_EQ(n, 6); /* the last of two */
	CHECK_EQ(mk_document_number(&d, "big", &n), 0);
	CHECK_EQ(n, INT64_MAX);
	CHECK_EQ(mk_document_number(&d, "small", &n), 0);
	CHECK_EQ(n, INT64_MIN);
	CHECK_EQ(mk_document_number(&d, "over", &n), -EINVAL);
	CHECK_EQ(mk_document_number(&d, "under", &n), -EINVAL);
	CHECK_EQ(mk_document_number(&d, "f", &n), -EINVAL);
	CHECK_EQ(mk_document_number(&d, "e", &n), -EINVAL);
	CHECK_EQ(mk_document_number(&d, "s", &n), -EINVAL);
	CHECK_EQ(mk_document_number(&d, "x", &n), -ENOENT); /* of an object within */
	CHECK_EQ(mk_document_string(&d, "s", s, sizeof(s)), 0);
	CHECK_EQ(strcmp(s, "text"), 0);
	CHECK_EQ(mk_document_string(&d, "s", s, 5), 0);
	CHECK_EQ(mk_document_string(&d, "s", s, 4), -EMSGSIZE);
	CHECK_EQ(mk_document_string(&d, "n", s, sizeof(s)), -EINVAL);
	CHECK_EQ(mk_document_string(&d, "nothing", s, sizeof(s)), -ENOENT);
	CHECK_EQ(mk_document_truth(&d, "t", &truth), 0);
	CHECK(truth);
	CHECK_EQ(mk_document_truth(&d, "no", &truth), 0);
	CHECK(!truth);
	CHECK_EQ(mk_document_truth(&d, "n", &truth), -EINVAL);
	CHECK_EQ(mk_document_truth(&d, "nothing", &truth), -ENOENT);
	CHECK_EQ(mk_document_object(&d, "l", &inner), -EINVAL);
	CHECK_EQ(mk_document_object(&d, "o", &inner), 0);
	CHECK_EQ(mk_document_number(&inner, "n", &n), 0);
	CHECK_EQ(n, 7);
	CHECK_EQ(mk_document_string(&inner, "s", s, sizeof(s)), 0);
	CHECK_EQ(strcmp(s, "in"), 0);
	CHECK_EQ(mk_document_number(&inner, "big", &n), -ENOENT);
}

static void check_string(const char *written, int result, const char *meant)
{
	char text[256], value[128];
	struct mk_document d;

	snprintf(text, sizeof(text), "{\"a\":\"%s\"}", written);
	CHECK_EQ(mk_document_read(&d, text, strlen(text)), 0);
	CHECK_EQ(mk_document_string(&d, "a", value, sizeof(value)), result);
	if (!result && strcmp(value, meant) != 0)
		fail(__FILE__, __LINE__, written, 0, 0, false);
}

static void escapes_are_what_they_stand_for(void)
{
	check_string("\\\"\\\\\\/\\b\\f\\n\\r\\t", 0, "\"\\/\b\f\n\r\t");
	check_string("\\u0041\\u00e4\\u20ac", 0, "A\xc3\xa4\xe2\x82\xac");
	check_string("\\ud83d\\udc0d", 0, "\xf0\x9f\x90\x8d");
	check_string("\\udcff\\udc80x", 0, "\xff\x80x");       /* bytes of a file name that is no UTF-8 */
	check_string("\\ud83d\\u0041", 0, "\xef\xbf\xbd\x41"); /* half a character */
	check_string("\\ud83d", 0, "\xef\xbf\xbd");
	check_string("a\\u0000b", -EINVAL, "");
}

static void what_is_written_is_read(void)
{
	static const char value[] =
		"quote \" backslash \\ newline \n bell \a \xc3\xa4 \xf0\x9f\x90\x8d odd \xff\xed\xa0\x80 end";
	char text[512], back[128];
	struct mk_document_writer w;
	struct mk_document d, inner;
	int64_t n;
	int length;

	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "text", value);
	mk_document_open(&w, "object");
	mk_document_close(&w);
	mk_document_open(&w, "other");
	mk_document_put_number(&w, "small", INT64_MIN);
	mk_document_put_seconds(&w, "seconds", 1005);
	mk_document_close(&w);
	mk_document_put_number(&w, "n", 42);
	length = mk_document_end(&w);
	CHECK(length > 0);
	CHECK_EQ(mk_document_read(&d, text, (size_t)length), 0);
	CHECK_EQ(mk_document_string(&d, "text", back, sizeof(back)), 0);
	CHECK_EQ(strcmp(back, value), 0);
	CHECK_EQ(mk_document_object(&d, "object", &inner), 0);
	CHECK_EQ(mk_document_object(&d, "other", &inner), 0);
	CHECK_EQ(mk_document_number(&inner, "small", &n), 0);
	CHECK_EQ(n, INT64_MIN);
	CHECK(memmem(text, (size_t)length, "\"seconds\":1.005", 15));
	CHECK_EQ(mk_document_number(&d, "n", &n), 0);
	CHECK_EQ(n, 42);
	for (size_t room = 1; room < (size_t)length; room++) {
		char *tight = malloc(room);

		mk_document_begin(&w, tight, room);
		mk_document_put_string(&w, "text", value);
		mk_document_put_number(&w, "n", 42);
		CHECK(mk_document_end(&w) == -EMSGSIZE || room > strlen(value));
		free(tight);
	}
}

/* Any bytes: refused, or read to the last look-up, within bounds. */
static void any_bytes_are_survived(void)
{
	static const char seed[] =
		"{\"push\":\"link\",\"link\":3,\"peer\":2,\"peer_name\":\"d\\u00e4b\",\"o\":{\"x\":[1,2.5e1]}}";
	static const char alphabet[] = "{}[]\",:\\u0123456789abcdef-+.eE \xc3\xa4\xff";
	struct random random = random_from(1);
	uint64_t rounds = times(200000), whole = 0;

	for (uint64_t i = 0; i < rounds; i++) {
		char text[sizeof(seed)], *copy, value[8];
		size_t length = sizeof(seed) - 1 - (below(&random, 8) ? 0 : below(&random, sizeof(seed)));
		struct mk_document d, inner;
		int64_t n;

		memcpy(text, seed, sizeof(seed));
		for (uint64_t changes = below(&random, 4); changes; changes--)
			text[below(&random, sizeof(seed) - 1)] =
				below(&random, 3) ? alphabet[below(&random, sizeof(alphabet) - 1)]
						  : (char)draw(&random);
		if (read_text(&d, &copy, text, length) == 0) {
			whole++;
			mk_document_number(&d, "link", &n);
			mk_document_string(&d, "peer_name", value, sizeof(value));
			if (mk_document_object(&d, "o", &inner) == 0)
				mk_document_number(&inner, "x", &n);
		}
		free(copy);
	}
	CHECK(whole > rounds / 10);
	CHECK(whole < rounds);
}

/* --- the channel -------------------------------------------------------------------------------------------------- */

struct channel {
	int ends[2];
	char text[MK_CHANNEL_DOCUMENT];
	int fds[MK_CHANNEL_DESCRIPTORS];
	unsigned count;
};

static void open_channel(struct channel *c)
{
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, c->ends), 0);
}

static void close_channel(struct channel *c)
{
	close(c->ends[0]);
	close(c->ends[1]);
}

static int receive(struct channel *c)
{
	return mk_channel_receive(c->ends[1], c->text, c->fds, &c->count);
}

static void a_document_arrives_whole_with_its_descriptors(void)
{
	static struct channel c;
	int pipes[2];
	char byte = 'x';

	open_channel(&c);
	CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
	CHECK_EQ(receive(&c), -EAGAIN);
	CHECK_EQ(mk_channel_wait(c.ends[1], 0), -ETIMEDOUT);
	CHECK_EQ(mk_channel_send(c.ends[0], "{}", 2, &pipes[1], 1, true), 0);
	CHECK_EQ(mk_channel_send(c.ends[0], "{\"a\":1}", 7, NULL, 0, true), 0);
	CHECK_EQ(mk_channel_wait(c.ends[1], -1), 0);
	CHECK_EQ(receive(&c), 2);
	CHECK_EQ(c.count, 1);
	CHECK_EQ(fcntl(c.fds[0], F_GETFD), FD_CLOEXEC);
	CHECK_EQ(write(c.fds[0], &byte, 1), 1);
	CHECK_EQ(read(pipes[0], &byte, 1), 1);
	close(c.fds[0]);
	CHECK_EQ(receive(&c), 7);
	CHECK_EQ(c.count, 0);
	close(pipes[0]);
	close(pipes[1]);
	close_channel(&c);
}

static void an_end_is_told_after_what_was_sent(void)
{
	static struct channel c;

	open_channel(&c);
	CHECK_EQ(mk_channel_send(c.ends[1], "{}", 2, NULL, 0, true), 0); /* which the other never reads */
	CHECK_EQ(mk_channel_send(c.ends[0], "{}", 2, NULL, 0, true), 0);
	close(c.ends[0]);
	CHECK_EQ(receive(&c), 2);
	CHECK_EQ(receive(&c), -EPIPE);
	CHECK_EQ(mk_channel_send(c.ends[1], "{}", 2, NULL, 0, true), -EPIPE);
	close(c.ends[1]);
}

/* What no channel sends: too many descriptors, too long. Nothing of it stays, and the next one is read. */
static void what_is_too_much_is_dropped(void)
{
	static struct channel c;
	static char large[MK_CHANNEL_DOCUMENT + 1];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE((MK_CHANNEL_DESCRIPTORS + 1) * sizeof(int))];
	} control = {0};
	struct iovec data = {.iov_base = large, .iov_len = 2};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.room)};
	int before;

	open_channel(&c);
	before = open_descriptors();
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN((MK_CHANNEL_DESCRIPTORS + 1) * sizeof(int));
	for (unsigned i = 0; i <= MK_CHANNEL_DESCRIPTORS; i++)
		memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &c.ends[0], sizeof(int));
	CHECK_EQ(sendmsg(c.ends[0], &message, 0), 2);
	CHECK_EQ(receive(&c), -EBADMSG);
	CHECK_EQ(c.count, 0);
	CHECK_EQ(send(c.ends[0], large, sizeof(large), 0), sizeof(large));
	CHECK_EQ(receive(&c), -EBADMSG);
	CHECK_EQ(mk_channel_send(c.ends[0], large, sizeof(large), NULL, 0, true), -EMSGSIZE);
	CHECK_EQ(mk_channel_send(c.ends[0], "{}", 2, NULL, 0, true), 0);
	CHECK_EQ(receive(&c), 2);
	CHECK_EQ(open_descriptors(), before);
	close_channel(&c);
}

/* Who may open no more descriptors gets the document all the same, and can say so to who has sent it. */
static void without_a_free_descriptor_it_arrives_alone(void)
{
	static struct channel c;
	struct rlimit before, small;
	int fds[3], next;

	open_channel(&c);
	for (unsigned i = 0; i < 3; i++)
		fds[i] = c.ends[0];
	CHECK_EQ(mk_channel_send(c.ends[0], "{\"a\":1}", 7, fds, 3, true), 0);
	CHECK_EQ(mk_channel_send(c.ends[0], "{}", 2, fds, 3, true), 0);
	next = dup(c.ends[0]);
	CHECK(next >= 0);
	close(next);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	small = (struct rlimit){.rlim_cur = (rlim_t)next + 2, .rlim_max = before.rlim_max}; /* two of three fit */
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
	CHECK_EQ(receive(&c), 7);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	CHECK_EQ(c.count, 0);
	CHECK_EQ(dup(c.ends[0]), next);
	close(next);
	CHECK_EQ(receive(&c), 2);
	CHECK_EQ(c.count, 3);
	for (unsigned i = 0; i < 3; i++)
		close(c.fds[i]);
	close_channel(&c);
}

static const struct test tests[] = {
	TEST(json_is_read),
	TEST(what_is_no_json_is_refused),
	TEST(depth_is_bounded),
	TEST(members_are_found_by_name_and_kind),
	TEST(escapes_are_what_they_stand_for),
	TEST(what_is_written_is_read),
	TEST(any_bytes_are_survived),
	TEST(a_document_arrives_whole_with_its_descriptors),
	TEST(an_end_is_told_after_what_was_sent),
	TEST(what_is_too_much_is_dropped),
	TEST(without_a_free_descriptor_it_arrives_alone),
};

RUN_TESTS(tests)
