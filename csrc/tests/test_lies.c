/* What the host sends and what other parties bring is input: a native instance drops what makes no sense, closes what is
 * damaged, and goes on. */
#include "host.h"

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

static const struct test tests[] = {
	TEST(what_is_pushed_and_makes_no_sense_is_dropped),
	TEST(a_host_that_sends_no_documents_is_left),
	TEST(a_host_that_is_gone_is_left),
	TEST(a_peer_that_lies_loses_its_link),
};

RUN_TESTS(tests)
