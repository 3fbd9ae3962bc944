/* host.h: a host, and a peer, that are made by hand, for the tests of native instances. The instance is a child, so that it
 * is a process as it would be; the host is the test. */
#ifndef MULTIKERNEL_TESTS_HOST_H
#define MULTIKERNEL_TESTS_HOST_H

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

static UNUSED int sealed(const void *content, size_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, content, size), (ssize_t)size);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	return fd;
}

static UNUSED void make_host(void)
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
static UNUSED int name_manifest(const char *text, size_t length)
{
	char number[16];
	int fd = sealed(text, length);

	snprintf(number, sizeof(number), "%d", fd);
	setenv("MULTIKERNEL_MANIFEST", number, 1);
	return fd;
}

static bool takes_over; /* whether the instance is handed links of one before */

static UNUSED void tell_manifest(void)
{
	char text[1024];
	int length = snprintf(text, sizeof(text),
			      "{\"abi\":%u,\"id\":7,\"name\":\"web\",\"epoch\":3,\"memory\":65536,\"machine\":\"m\","
			      "\"cmdline\":\"a=1 b\",\"cpus\":[0,1],\"image\":{\"kind\":\"native\"},\"core\":false,"
			      "\"takes_over\":%s,"
			      "\"fd:control\":%d,\"fd:console_read\":%d,\"fd:machine\":%d,\"fd:lane\":%d,"
			      "\"fd:bell\":%d}",
			      MK_ABI_VERSION, takes_over ? "true" : "false", dup(host.its_control),
			      dup(host.console[0]), dup(host.page), dup(host.producer), dup(host.bells[1]));

	name_manifest(text, (size_t)length);
}

/* Start the instance; what it does is @run's to say, which has a kernel then and ends it. */
static UNUSED void start(void (*run)(void *))
{
	make_host();
	host.pid = spawn(run, NULL);
}

static UNUSED mk_kernel *attached(void)
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
static UNUSED struct mk_document hear_verb(const char *verb)
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

static UNUSED void drop_fds(void)
{
	for (unsigned i = 0; i < host.count; i++)
		close(host.fds[i]);
	host.count = 0;
}

/* Take its objects, and put its half of the host lane to ours. */
static UNUSED void meet_instance(void)
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
	if (!takes_over)
		hear_verb("phase");
}

/* Put a document on the channel, and have the instance look; one that waits for it may have ended by then. */
static UNUSED void push(const char *text, const int *fds, unsigned count)
{
	int result;

	CHECK_EQ(mk_channel_send(host.control, text, strlen(text), fds, count, true), 0);
	result = mk_ipi_raise(host.lane, 0);
	CHECK(result == 0 || result == -EPIPE);
}

static UNUSED void ask_to_halt(void)
{
	CHECK_EQ(mk_send(host.lane, MK_MSG_SYSTEM, MK_SYS_SHUTDOWN, 1, "", 0), 0);
}

/* The instance says that it ends with this status, and does. */
static UNUSED void see_end(int64_t status)
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

static UNUSED void make_peer(struct peer *p)
{
	CHECK_EQ(mk_half_make(&p->half, CAPACITY, 9, 1), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p->sockets), 0);
	p->link = calloc(1, sizeof(*p->link));
}

static UNUSED int own_pidfd(void)
{
	return (int)syscall(SYS_pidfd_open, getpid(), 0);
}

/* What the host sends with the terms of a link. */
static UNUSED void terms_of(struct peer *p, int fds[4])
{
	fds[0] = p->half.fds[0];
	fds[1] = p->half.fds[1];
	fds[2] = p->sockets[1];
	fds[3] = own_pidfd();
}

static UNUSED void complete_peer(struct peer *p, int pidfd)
{
	int fds[4] = {host.fds[0], host.fds[1], p->sockets[0], pidfd};

	CHECK_EQ(host.count, 2);
	host.count = 0;
	CHECK_EQ(mk_half_attach(&p->half, fds), 0);
	mk_half_join(&p->half, p->link);
	close(p->sockets[1]);
}

/* The host offers the instance a link with us; it takes it. */
static UNUSED void link_peer(struct peer *p)
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

static UNUSED void unlink_peer(struct peer *p)
{
	mk_link_free(p->link);
}

static UNUSED void tell(struct peer *p, uint64_t id, const char *text)
{
	CHECK_EQ(mk_send(p->link->tx, MK_MSG_USER, 2, id, text, strlen(text)), 0);
}

/* The next record, which is to be this text. @return its id */
static UNUSED uint64_t expect(struct peer *p, const char *text)
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

#endif
