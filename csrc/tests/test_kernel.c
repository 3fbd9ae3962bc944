/* A native instance and a host that is made by hand: what the host sends and what other parties bring is input. The
 * instance is a child, so that it is a process as it would be; the host is the test. */
#include "harness.h"

#include "../kernel.h"

#define CAPACITY 4096u

/* --- the host ------------------------------------------------------------------------------------------------------ */

struct host {
	int control, its_control; /* the channel's ends */
	int console[2];
	int bells[2]; /* of the host lane */
	struct mk_sender *lane;
	int producer; /* its object, read-only */
	int page;     /* the machine's, with nothing in it */
	pid_t pid;    /* the instance's */
	char text[MK_CHANNEL_DOCUMENT];
	int fds[MK_CHANNEL_DESCRIPTORS];
	unsigned count;
};

/* One for each test, where a child finds it. */
static struct host host;

static int sealed(const void *content, size_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, content, size), (ssize_t)size);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	return fd;
}

static void make_host(void)
{
	int ends[2], fd;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	host.control = ends[0];
	host.its_control = ends[1];
	CHECK_EQ(pipe2(host.console, O_CLOEXEC), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, host.bells), 0);
	fd = mk_lane_object(MK_KIND_PRODUCER, "lane:host", CAPACITY, 0, 0, 1);
	CHECK(fd >= 0);
	CHECK_EQ(mk_sender_claim(&host.lane, fd, NULL, NULL), 0);
	host.producer = mk_object_reopen(fd);
	close(fd);
	fd = mk_object_create("machine:",
			      (struct mk_object){.kind = MK_KIND_MACHINE, .size = sizeof(struct mk_machine)});
	CHECK(fd >= 0);
	CHECK_EQ(mk_object_seal(fd), 0);
	host.page = mk_object_reopen(fd);
	close(fd);
}

/* The environment of an instance, in the child that is to be one. @return where the manifest is */
static int name_manifest(const char *text, size_t length)
{
	char number[16];
	int fd = sealed(text, length);

	snprintf(number, sizeof(number), "%d", fd);
	setenv("MULTIKERNEL_MANIFEST", number, 1);
	return fd;
}

static void tell_manifest(void)
{
	char text[1024];
	int length = snprintf(text, sizeof(text),
			      "{\"abi\":%u,\"id\":7,\"name\":\"web\",\"epoch\":3,\"memory\":65536,\"machine\":\"m\","
			      "\"cmdline\":\"a=1 b\",\"cpus\":[0,1],\"image\":{\"kind\":\"native\"},\"core\":false,"
			      "\"fd:control\":%d,\"fd:console_read\":%d,\"fd:machine\":%d,\"fd:lane\":%d,"
			      "\"fd:bell\":%d}",
			      MK_ABI_VERSION, dup(host.its_control), dup(host.console[0]), dup(host.page),
			      dup(host.producer), dup(host.bells[1]));

	name_manifest(text, (size_t)length);
}

/* Start the instance; what it does is @run's to say, which has a kernel then and ends it. */
static void start(void (*run)(void *))
{
	make_host();
	host.pid = spawn(run, NULL);
}

static mk_kernel *attached(void)
{
	mk_kernel *k;

	tell_manifest();
	k = mk_kernel_attach();
	if (!k)
		fprintf(stderr, "%s\n", mk_kernel_error(NULL));
	CHECK(k != NULL);
	return k;
}

/* The next document, which is to have this verb. */
static struct mk_document hear_verb(const char *verb)
{
	struct mk_document d;
	char said[32];
	int length;

	CHECK_EQ(mk_channel_wait(host.control, -1), 0);
	length = mk_channel_receive(host.control, host.text, host.fds, &host.count);
	CHECK(length > 0);
	CHECK_EQ(mk_document_read(&d, host.text, (size_t)length), 0);
	CHECK_EQ(mk_document_string(&d, "verb", said, sizeof(said)), 0);
	if (strcmp(said, verb) != 0)
		fail(__FILE__, __LINE__, said, 0, 0, false);
	return d;
}

static void drop_fds(void)
{
	for (unsigned i = 0; i < host.count; i++)
		close(host.fds[i]);
	host.count = 0;
}

/* Take its objects, and put its half of the host lane to ours. */
static void meet_instance(void)
{
	struct mk_document d = hear_verb("hello");
	int64_t epoch;
	struct mk_object header;

	CHECK_EQ(mk_document_number(&d, "epoch", &epoch), 0);
	CHECK_EQ(epoch, 3);
	CHECK_EQ(host.count, 3);
	CHECK_EQ(mk_object_check(host.fds[0], MK_KIND_STATUS, 1, &header, NULL), 0);
	CHECK_EQ(header.owner_id, 7);
	CHECK_EQ(header.owner_pid, host.pid);
	CHECK_EQ(mk_object_check(host.fds[1], MK_KIND_CONSOLE, 1, &header, NULL), 0);
	CHECK_EQ(mk_sender_attach(host.lane, host.fds[2], 1, dup(host.bells[0]), -1, NULL), 0);
	drop_fds();
	hear_verb("phase");
}

/* Put a document on the channel, and have the instance look; one that waits for it may have ended by then. */
static void push(const char *text, const int *fds, unsigned count)
{
	int result;

	CHECK_EQ(mk_channel_send(host.control, text, strlen(text), fds, count, true), 0);
	result = mk_ipi_raise(host.lane, 0);
	CHECK(result == 0 || result == -EPIPE);
}

static void ask_to_halt(void)
{
	CHECK_EQ(mk_send(host.lane, MK_MSG_SYSTEM, MK_SYS_SHUTDOWN, 1, "", 0), 0);
}

/* The instance says that it ends with this status, and does. */
static void see_end(int64_t status)
{
	struct mk_document d = hear_verb("ended");
	int64_t code;

	CHECK_EQ(mk_document_number(&d, "code", &code), 0);
	CHECK_EQ(code, status);
	reap_done(host.pid);
	mk_sender_close(host.lane);
	close(host.control);
	close(host.its_control);
	close(host.console[0]);
	close(host.console[1]);
	close(host.bells[0]);
	close(host.bells[1]);
	close(host.producer);
	close(host.page);
}

/* --- a peer of the instance ---------------------------------------------------------------------------------------- */

struct peer {
	struct half half;
	int sockets[2];
	struct link *link;
};

static void make_peer(struct peer *p)
{
	CHECK_EQ(mk_half_make(&p->half, CAPACITY, 9, 1), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p->sockets), 0);
	p->link = calloc(1, sizeof(*p->link));
}

static int own_pidfd(void)
{
	return (int)syscall(SYS_pidfd_open, getpid(), 0);
}

/* What the host sends with the terms of a link. */
static void terms_of(struct peer *p, int fds[4])
{
	fds[0] = p->half.fds[0];
	fds[1] = p->half.fds[1];
	fds[2] = p->sockets[1];
	fds[3] = own_pidfd();
}

static void complete_peer(struct peer *p, int pidfd)
{
	int fds[4] = {host.fds[0], host.fds[1], p->sockets[0], pidfd};

	CHECK_EQ(host.count, 2);
	host.count = 0;
	CHECK_EQ(mk_half_attach(&p->half, fds), 0);
	mk_half_join(&p->half, p->link);
	close(p->sockets[1]);
}

/* The host offers the instance a link with us; it takes it. */
static void link_peer(struct peer *p)
{
	int fds[4], pidfd = (int)syscall(SYS_pidfd_open, host.pid, 0);

	make_peer(p);
	terms_of(p, fds);
	push("{\"push\":\"link\",\"link\":4,\"peer\":9,\"peer_name\":\"p\\u00e9er\",\"peer_epoch\":1,\"capacity\":4096}",
	     fds, 4);
	close(fds[3]);
	hear_verb("linked");
	complete_peer(p, pidfd);
}

static void unlink_peer(struct peer *p)
{
	mk_link_free(p->link);
}

static void tell(struct peer *p, uint64_t id, const char *text)
{
	CHECK_EQ(mk_send(p->link->tx, MK_MSG_USER, 2, id, text, strlen(text)), 0);
}

/* The next record, which is to be this text. @return its id */
static uint64_t expect(struct peer *p, const char *text)
{
	struct mk_message m = {0};

	while (mk_peek(p->link->rx, &m) == -EAGAIN)
		CHECK_EQ(mk_wait(&p->link->rx->end, -1) % EINTR, 0);
	CHECK_EQ(m.length, strlen(text));
	if (memcmp(m.payload, text, m.length) != 0)
		fail(__FILE__, __LINE__, text, 0, 0, false);
	mk_release(p->link->rx);
	return m.id;
}

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

/* --- a host and peers that lie -------------------------------------------------------------------------------------- */

static void serve_to_the_end(void *unused)
{
	int before = open_descriptors(), result;
	struct mk_message m;
	mk_kernel *k = attached();

	(void)unused;
	while ((result = mk_kernel_next(k, &m, -1)) > 0)
		CHECK_EQ(mk_kernel_reply(k, &m, m.payload, m.length), 0);
	mk_kernel_exit(k, result < 0 ? 100 : 0);
	CHECK_EQ(open_descriptors(), before); /* what came with nonsense was closed, too */
}

static void what_is_pushed_and_makes_no_sense_is_dropped(void)
{
	static const char *const texts[] = {
		"{}",
		"{\"push\":\"no such thing\"}",
		"{\"push\":5}",
		"{\"answer\":1}",
		"{\"answer\":0,\"ok\":{\"peer\":1,\"peer_name\":\"x\"}}",
		"{\"push\":\"link\"}",
		"{\"push\":\"link\",\"link\":\"four\",\"capacity\":4096,\"peer\":1,\"peer_name\":\"x\"}",
	};
	static const char *const refused[] = {
		"{\"push\":\"link\",\"link\":1,\"peer\":1,\"peer_name\":\"x\"}",
		"{\"push\":\"link\",\"link\":1,\"capacity\":-4096,\"peer\":1,\"peer_name\":\"x\"}",
		"{\"push\":\"link\",\"link\":1,\"capacity\":4097,\"peer\":1,\"peer_name\":\"x\"}",
		"{\"push\":\"link\",\"link\":1,\"capacity\":9223372036854775807,\"peer\":1,\"peer_name\":\"x\"}",
	};
	static const char *const taken[] = {
		/* It answers at once, and then finds that what came with it is no link. */
		"{\"push\":\"link\",\"link\":1,\"capacity\":4096,\"peer\":1,\"peer_name\":\"x\"}",
		"{\"push\":\"link\",\"link\":1,\"capacity\":4096,\"peer\":-1,\"peer_name\":\"x\"}",
		"{\"push\":\"link\",\"link\":1,\"capacity\":4096,\"peer\":1}",
		"{\"push\":\"link\",\"link\":1,\"capacity\":4096,\"peer\":1,\"peer_name\":5}",
	};
	int fds[4];
	struct peer p;

	start(serve_to_the_end);
	meet_instance();
	hear_verb("ready");
	for (int i = 0; i < 4; i++)
		fds[i] = sealed("nothing", 7);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		push(texts[i], fds, i % 5);
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		push(refused[i], fds, 4);
		hear_verb("refused");
	}
	for (size_t i = 0; i < 2 * sizeof(taken) / sizeof(*taken); i++) {
		push(taken[i / 2], fds, i % 2 ? 4 : 3);
		hear_verb("linked");
		drop_fds();
	}
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	link_peer(&p);
	tell(&p, 1, "hello");
	expect(&p, "hello");
	unlink_peer(&p);
	hear_verb("unlink");
	ask_to_halt();
	see_end(0);
}

static void a_host_that_sends_no_documents_is_left(void)
{
	start(serve_to_the_end);
	meet_instance();
	hear_verb("ready");
	push("{\"push\":", NULL, 0);
	see_end(100);
}

static void a_host_that_is_gone_is_left(void)
{
	start(serve_to_the_end);
	meet_instance();
	hear_verb("ready");
	mk_sender_close(host.lane);
	host.lane = NULL;
	see_end(100);
}

/* A peer that writes what it likes into its own object loses its link; others go on. */
static void a_peer_that_lies_loses_its_link(void)
{
	struct peer p, q;

	start(serve_to_the_end);
	meet_instance();
	hear_verb("ready");
	link_peer(&p);
	link_peer(&q);
	tell(&p, 1, "hello");
	expect(&p, "hello");
	mk_store_release(&p.link->tx->own->head, 1u << 30);
	mk_notify(&p.link->tx->end);
	hear_verb("unlink");
	CHECK(mk_end_gone(&p.link->tx->end, true));
	tell(&q, 1, "hello");
	expect(&q, "hello");
	unlink_peer(&p);
	ask_to_halt();
	see_end(0);
	unlink_peer(&q);
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
	TEST(what_is_pushed_and_makes_no_sense_is_dropped),
	TEST(a_host_that_sends_no_documents_is_left),
	TEST(a_host_that_is_gone_is_left),
	TEST(a_peer_that_lies_loses_its_link),
	TEST(a_manifest_that_is_none_is_refused_in_words),
};

RUN_TESTS(tests)
