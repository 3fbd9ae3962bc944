/* A native instance from its beginning to its end: messages, requests, interrupts; and manifests that are none. */
#include "host.h"

/* --- a life ----------------------------------------------------------------------------------------------------------- */

static void count_ipi(mk_kernel *k, unsigned vector, uint64_t count, void *context)
{
	uint64_t *counts = context;
	struct mk_message m;

	counts[vector] += count;
	CHECK_EQ(mk_kernel_next(k, &m, 0), -EBUSY); /* not from a handler */
}

static void echo(void *unused)
{
	static uint64_t counts[64];
	int before = open_descriptors(), objects = mapped_objects(), result;
	struct mk_message m;
	mk_kernel *k = attached();
	char text[64];

	(void)unused;
	CHECK_EQ(mk_kernel_id(k), 7);
	CHECK_EQ(mk_kernel_epoch(k), 3);
	CHECK_EQ(strcmp(mk_kernel_name(k), "web"), 0);
	CHECK_EQ(strcmp(mk_kernel_param(k, "a"), "1"), 0);
	CHECK(mk_kernel_param(k, "c") == NULL);
	CHECK_EQ(mk_kernel_on_ipi(k, 64, count_ipi, counts), -EINVAL);
	for (unsigned v = 0; v < 64; v++)
		CHECK_EQ(mk_kernel_on_ipi(k, v, count_ipi, counts), 0);
	while ((result = mk_kernel_next(k, &m, -1)) > 0) {
		CHECK_EQ(m.sender, 9);
		CHECK_EQ(strcmp(mk_kernel_peer(k, m.link), "p\xc3\xa9"
							   "er"),
			 0);
		if (m.length == 5 && memcmp(m.payload, "count", 5) == 0) {
			snprintf(text, sizeof(text), "%d of 3, %d of 63", (int)counts[3], (int)counts[63]);
			CHECK_EQ(mk_kernel_reply(k, &m, text, strlen(text)), 0);
		} else {
			CHECK_EQ(mk_kernel_reply(k, &m, m.payload, m.length), 0);
		}
	}
	CHECK_EQ(result, 0);
	CHECK_EQ(mk_kernel_exit(k, 256 + 5), 5);
	CHECK_EQ(open_descriptors(), before); /* what the manifest named is gone as well */
	CHECK_EQ(mapped_objects(), objects);
}

static void an_instance_attaches_serves_and_ends(void)
{
	struct peer p;

	start(echo);
	meet_instance();
	hear_verb("ready");
	link_peer(&p);
	tell(&p, 11, "hello");
	CHECK_EQ(expect(&p, "hello"), 11 | MK_ID_REPLY);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(mk_ipi_raise(p.link->tx, 3), 0);
	CHECK_EQ(mk_ipi_raise(p.link->tx, 63), 0);
	tell(&p, 12 | MK_ID_REQUEST, "count");
	CHECK_EQ(expect(&p, "3 of 3, 1 of 63"), 12 | MK_ID_REQUEST | MK_ID_REPLY);
	tell(&p, 13 | MK_ID_REQUEST | MK_ID_REPLY, "a reply to nothing");
	tell(&p, 14, "goes on");
	expect(&p, "goes on");
	ask_to_halt();
	see_end(5);
	unlink_peer(&p);
}

/* --- requests ------------------------------------------------------------------------------------------------------ */

static void ask_within(mk_kernel *k, unsigned vector, uint64_t count, void *context)
{
	struct mk_message reply;

	(void)vector, (void)count;
	CHECK_EQ(mk_kernel_request(k, *(int *)context, MK_MSG_USER, 0, "inner", 5, &reply, -1), 0);
	CHECK(reply.length == 6 && memcmp(reply.payload, "inner!", 6) == 0);
}

static void next_is(mk_kernel *k, const char *text)
{
	struct mk_message m;

	CHECK_EQ(mk_kernel_next(k, &m, -1), 1);
	CHECK_EQ(m.length, strlen(text));
	CHECK_EQ(memcmp(m.payload, text, m.length), 0);
}

static void ask(void *unused)
{
	static int link;
	struct mk_message m, reply;
	mk_kernel *k = attached();

	(void)unused;
	link = mk_kernel_connect(k, "peer", 1, -1);
	CHECK(link > 0);
	CHECK_EQ(mk_kernel_on_ipi(k, 5, ask_within, &link), 0);
	/* What comes while a reply is waited for keeps its order, also when a handler waits for one of its own. */
	CHECK_EQ(mk_kernel_request(k, link, MK_MSG_USER, 0, "outer", 5, &reply, -1), 0);
	CHECK(reply.length == 6 && memcmp(reply.payload, "outer!", 6) == 0);
	next_is(k, "one");
	next_is(k, "two");
	CHECK_EQ(mk_kernel_next(k, &m, -1), 1); /* three, which lies in the ring while the next request is under way */
	CHECK_EQ(mk_kernel_request(k, link, MK_MSG_USER, 0, "again", 5, &reply, -1), 0);
	CHECK(m.length == 5 && memcmp(m.payload, "three", 5) == 0);
	next_is(k, "four");
	CHECK_EQ(mk_kernel_request(k, link, MK_MSG_USER, 0, "late", 4, &reply, 0), -ETIMEDOUT);
	CHECK_EQ(mk_kernel_send(k, link, MK_MSG_USER, 0, "gave up", 7, -1), 0);
	next_is(k, "five"); /* and not the reply that came too late */
	CHECK_EQ(mk_kernel_send(k, link, MK_MSG_USER, 0, "", MK_CAPACITY_MIN, -1), -EMSGSIZE);
	CHECK_EQ(mk_kernel_send(k, link, MK_MSG_SYSTEM, 0, "", 0, -1), -EINVAL);
	CHECK_EQ(mk_kernel_send(k, 77, MK_MSG_USER, 0, "", 0, -1), -EBADF);
	CHECK_EQ(mk_kernel_ipi(k, link, 64), -EINVAL);
	CHECK_EQ(mk_kernel_close(k, link), 0);
	CHECK_EQ(mk_kernel_send(k, link, MK_MSG_USER, 0, "", 0, -1), -EPIPE);
	CHECK_EQ(mk_kernel_connect(k, "nobody", 0, 1000), -ENOENT);
	CHECK_EQ(strcmp(mk_kernel_error(k), "no instance 'nobody'"), 0);
	mk_kernel_exit(k, 0);
}

static void answer_connect(struct peer *p)
{
	struct mk_document d = hear_verb("connect");
	int fds[4], pidfd = (int)syscall(SYS_pidfd_open, host.pid, 0);
	char to[16];
	int64_t capacity;

	CHECK_EQ(mk_document_string(&d, "to", to, sizeof(to)), 0);
	CHECK_EQ(strcmp(to, "peer"), 0);
	CHECK_EQ(mk_document_number(&d, "capacity", &capacity), 0);
	CHECK_EQ(capacity, CAPACITY);
	make_peer(p);
	terms_of(p, fds);
	push("{\"answer\":99,\"ok\":{}}", NULL, 0); /* to nothing */
	push("{\"answer\":1,\"ok\":{\"link\":4,\"peer\":9,\"peer_name\":\"peer\",\"peer_epoch\":1}}", fds, 4);
	close(fds[3]);
	complete_peer(p, pidfd);
}

static void requests_find_their_replies_and_others_their_turn(void)
{
	struct peer p;
	uint64_t outer, inner;

	start(ask);
	meet_instance();
	answer_connect(&p);
	outer = expect(&p, "outer");
	CHECK(outer & MK_ID_REQUEST);
	hear_verb("ready"); /* it sleeps, or is about to */
	CHECK_EQ(mk_ipi_raise(p.link->tx, 5), 0);
	tell(&p, 1, "one");
	inner = expect(&p, "inner");
	tell(&p, 2, "two");
	tell(&p, outer | MK_ID_REPLY, "outer!");
	tell(&p, inner | MK_ID_REPLY, "inner!");
	tell(&p, 3, "three");
	tell(&p, 4, "four");
	tell(&p, expect(&p, "again") | MK_ID_REPLY, "again!");
	outer = expect(&p, "late");
	expect(&p, "gave up");
	tell(&p, outer | MK_ID_REPLY, "late!");
	tell(&p, 5, "five");
	hear_verb("unlink");
	hear_verb("connect");
	drop_fds();
	push("{\"answer\":2,\"failed\":{\"error\":\"NotFound\",\"message\":\"no instance 'nobody'\",\"fields\":{}}}",
	     NULL, 0);
	see_end(0);
	unlink_peer(&p);
}

/* --- manifests ------------------------------------------------------------------------------------------------------- */

static void check_refused(const char *manifest, int error)
{
	int before = open_descriptors();

	name_manifest(manifest, strlen(manifest));
	errno = 0;
	CHECK(mk_kernel_attach() == NULL);
	CHECK_EQ(errno, error);
	CHECK(mk_kernel_error(NULL)[0] != 0);
	CHECK(getenv("MULTIKERNEL_MANIFEST") == NULL);
	CHECK_EQ(open_descriptors(), before);
}

static void be_refused(void *unused)
{
	char other[128];
	int fd;

	(void)unused;
	CHECK(mk_kernel_attach() == NULL);
	CHECK_EQ(errno, ENOENT);
	check_refused("", EPROTO);
	check_refused("{}", EPROTO);
	check_refused("{\"abi\":\"1\"}", EPROTO);
	snprintf(other, sizeof(other), "{\"abi\":%u,\"id\":1,\"name\":\"x\"}", MK_ABI_VERSION + 1);
	check_refused(other, EPROTO);
	CHECK(strstr(mk_kernel_error(NULL), "ABI version") != NULL);
	snprintf(other, sizeof(other), "{\"abi\":%u,\"id\":512,\"name\":\"x\",\"epoch\":1}", MK_ABI_VERSION);
	check_refused(other, EPROTO);
	snprintf(other, sizeof(other),
		 "{\"abi\":%u,\"id\":1,\"name\":\"x\",\"epoch\":1,\"memory\":1,\"machine\":\"m\",\"cmdline\":\"\"}",
		 MK_ABI_VERSION);
	check_refused(other, EPROTO);
	CHECK(strstr(mk_kernel_error(NULL), "no descriptor") != NULL);
	fd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	snprintf(other, sizeof(other), "%d", fd);
	setenv("MULTIKERNEL_MANIFEST", other, 1);
	CHECK(mk_kernel_attach() == NULL);
	CHECK_EQ(errno, EPROTO);
	CHECK(strstr(mk_kernel_error(NULL), "not sealed") != NULL);
}

static void a_manifest_that_is_none_is_refused_in_words(void)
{
	reap_done(spawn(be_refused, NULL));
}

static const struct test tests[] = {
	TEST(an_instance_attaches_serves_and_ends),
	TEST(requests_find_their_replies_and_others_their_turn),
	TEST(a_manifest_that_is_none_is_refused_in_words),
};

RUN_TESTS(tests)
