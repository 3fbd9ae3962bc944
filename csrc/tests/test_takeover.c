/* A native instance goes on with the links of the one before; what is no such link ends nothing else. */
#include "host.h"

/* --- an incarnation before ------------------------------------------------------------------------------------------ */

#define RESUME "{\"push\":\"resume\",\"link\":4,\"peer\":9,\"peer_name\":\"peer\",\"peer_epoch\":1,"

static void go_on(void *unused)
{
	int before = open_descriptors(), objects = mapped_objects();
	struct mk_message m;
	mk_kernel *k = attached();
	int link = mk_kernel_next_link(k, 0);

	(void)unused;
	CHECK(link > 0);
	CHECK_EQ(mk_kernel_next_link(k, link), 0);
	CHECK_EQ(mk_kernel_peer_id(k, link), 9);
	CHECK_EQ(mk_kernel_connect(k, "peer", CAPACITY, 1000), link); /* the one before had asked for it */
	CHECK_EQ(mk_kernel_next(k, &m, -1), 1);
	CHECK(m.length == 3 && memcmp(m.payload, "one", 3) == 0);
	CHECK_EQ(m.redelivered, 1);
	CHECK_EQ(mk_kernel_next(k, &m, -1), 1);
	CHECK(m.length == 3 && memcmp(m.payload, "two", 3) == 0);
	CHECK_EQ(m.redelivered, 0);
	CHECK_EQ(mk_kernel_reply(k, &m, "done", 4), 0);
	CHECK_EQ(mk_kernel_next(k, &m, -1), 0);
	mk_kernel_exit(k, 0);
	CHECK_EQ(open_descriptors(), before);
	CHECK_EQ(mapped_objects(), objects);
}

/* The two halves of a link of the incarnation before: it has sent "kept", and died with "one" in its hands. */
static void make_predecessor(struct peer *p, int fds[6])
{
	struct half before;
	struct link *link = calloc(1, sizeof(*link));
	struct mk_message m;
	int facing[4], theirs[4];

	make_peer(p);
	CHECK_EQ(mk_half_make(&before, CAPACITY, 7, 2), 0);
	for (int i = 0; i < 2; i++) {
		fds[i] = dup(p->half.fds[i]);
		fds[2 + i] = dup(before.fds[i]);
		facing[i] = dup(p->half.fds[i]);
		theirs[i] = dup(before.fds[i]);
	}
	fds[4] = dup(p->sockets[1]);
	fds[5] = own_pidfd();
	facing[2] = dup(p->sockets[1]);
	facing[3] = own_pidfd();
	theirs[2] = p->sockets[0];
	theirs[3] = own_pidfd(); /* as good as any */
	CHECK_EQ(mk_half_attach(&before, facing), 0);
	CHECK_EQ(mk_half_attach(&p->half, theirs), 0);
	mk_half_join(&before, link);
	mk_half_join(&p->half, p->link);
	tell(p, 1, "one");
	tell(p, 2, "two");
	CHECK_EQ(mk_send(link->tx, MK_MSG_USER, 0, 1, "kept", 4), 0);
	CHECK_EQ(mk_peek(link->rx, &m), 0);
	mk_say_seen(link->rx);
	mk_link_leave(link);
	mk_end_due(&p->link->tx->end);
	mk_end_due(&p->link->rx->end);
}

static void an_instance_goes_on_with_the_links_of_the_one_before(void)
{
	struct peer p;
	int fds[6], nothing[6];
	uint32_t why;

	takes_over = true;
	start(go_on);
	meet_instance();
	make_predecessor(&p, fds);
	for (int i = 0; i < 6; i++)
		nothing[i] = sealed("nothing", 7);
	/* What is no link of one before is given up, and ends nothing else. */
	push(RESUME "\"capacity\":4096,\"asked\":true,\"aside\":false}", fds, 4);
	hear_verb("abandoned");
	push(RESUME "\"capacity\":4096,\"asked\":true,\"aside\":false}", nothing, 6);
	hear_verb("abandoned");
	push(RESUME "\"capacity\":8192,\"asked\":true,\"aside\":false}", fds, 6);
	hear_verb("abandoned");
	push(RESUME "\"capacity\":-1,\"asked\":true,\"aside\":false}", fds, 6);
	hear_verb("abandoned");
	push(RESUME "\"capacity\":4096,\"asked\":\"yes\",\"aside\":false}", fds, 6);
	hear_verb("abandoned");
	/* A predecessor that is the peer. */
	push(RESUME "\"capacity\":4096,\"asked\":true,\"aside\":false}",
	     (int[]){fds[0], fds[1], fds[0], fds[1], fds[4], fds[5]}, 6);
	hear_verb("abandoned");
	push("{\"push\":\"resume\"}", fds, 6); /* of none that could be named */
	push(RESUME "\"capacity\":4096,\"asked\":true,\"aside\":false}", fds, 6);
	hear_verb("resumed");
	CHECK_EQ(host.count, 2);
	CHECK_EQ(mk_receiver_resume(p.link->rx, host.fds[0], -1, &why), 0);
	CHECK_EQ(mk_sender_resume(p.link->tx, host.fds[1], -1, &why), 0);
	drop_fds();
	push("{\"push\":\"go\"}", NULL, 0);
	hear_verb("phase");
	expect(&p, "kept");
	CHECK_EQ(expect(&p, "done"), 2 | MK_ID_REPLY);
	hear_verb("ready");
	ask_to_halt();
	see_end(0);
	unlink_peer(&p);
	close(p.sockets[1]);
	for (int i = 0; i < 6; i++) {
		close(fds[i]);
		close(nothing[i]);
	}
}

static const struct test tests[] = {
	TEST(an_instance_goes_on_with_the_links_of_the_one_before),
};

RUN_TESTS(tests)
