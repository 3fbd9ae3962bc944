/* Broadcasts that overwrite, whose sender lies: whatever is in its page, no receiver goes astray. */
#include "cast.h"

#include <pthread.h>

/* A sender's object in the hands of somebody who writes what he likes. */
struct forged {
	struct mk_producer *page;
	unsigned char *data;
	uint64_t size;
	int fd;
};

static struct forged forge(void)
{
	struct forged f = {.size = mk_page_size() + CAPACITY};
	int fd = mk_broadcast_object(CAPACITY, true);
	void *base;

	CHECK(fd >= 0);
	CHECK_EQ(mk_object_map(fd, f.size, 1, &base), 0);
	CHECK_EQ(mk_object_seal(fd), 0);
	f.fd = mk_object_reopen(fd);
	close(fd);
	f.page = base;
	f.data = (unsigned char *)base + mk_page_size();
	mk_store_release(&f.page->state, MK_END_OPEN);
	return f;
}

static void unforge(struct forged *f)
{
	mk_object_unmap(f->page, f->size);
	close(f->fd);
}

static struct mk_follower *victim(const struct forged *f)
{
	int fd = mk_lane_object(MK_KIND_CONSUMER, "lane:test", CAPACITY, 0, 0, 0);
	struct mk_receiver *rx;
	struct mk_follower *follower;

	CHECK_EQ(mk_receiver_claim(&rx, fd, NULL, NULL), 0);
	CHECK_EQ(mk_receiver_attach(rx, f->fd, 1, -1, -1, NULL), 0);
	close(fd);
	follower = mk_follower_new(rx, 0);
	CHECK(follower);
	return follower;
}

static void forge_record(const struct forged *f, uint64_t position, uint32_t length, uint64_t id)
{
	struct mk_record record = {.length = length, .id = id};

	for (size_t i = 0; i < sizeof(record); i++) /* it is mapped once here, and a record may wrap */
		((unsigned char *)f->data)[(position + i) % CAPACITY] = ((unsigned char *)&record)[i];
}

static int taken(struct mk_follower *f)
{
	struct mk_message m[MK_FOLLOWER_AHEAD];
	uint64_t missed, sum = 0;
	int n = mk_follower_take(f, m, MK_FOLLOWER_AHEAD, &missed);

	for (int i = 0; i < n; i++)
		for (uint32_t at = 0; at < m[i].length; at++)
			sum += ((const unsigned char *)m[i].payload)[at]; /* a sanitizer sees where that lies */
	return n > 0 && sum == ~0ull ? 0 : n;
}

static void words_that_cannot_be_quarantine_it(void)
{
	struct lie {
		uint64_t head, oldest, id;
		uint32_t length;
		uint32_t bad;
	} lies[] = {
		{4, 0, 0, 0, MK_BAD_HEAD},
		{CAPACITY + 8, 0, 0, 0, MK_BAD_HEAD},
		{1ULL << 63, 0, 0, 0, MK_BAD_HEAD},
		{~7ULL, ~7ULL, 0, 0, MK_BAD_HEAD}, /* before where it began */
		{32, 40, 0, 0, MK_BAD_HEAD},
		{32, 4, 0, 0, MK_BAD_HEAD},
		{32, 32, 0, 0, MK_BAD_HEAD}, /* nothing whole is left */
		{8, 0, 0, 0, MK_BAD_LENGTH},
		{32, 0, 0, 17, MK_BAD_LENGTH},
		{32, 0, 0, ~0u, MK_BAD_LENGTH},
		{32, 0, 1, 16, MK_BAD_NUMBER},                                           /* nothing was left out */
		{1 << 20, (1 << 20) - 32, 0, 16, MK_BAD_NUMBER},                         /* something was */
		{1 << 20, (1 << 20) - 32, ((1 << 20) - 32) / 16 + 1, 16, MK_BAD_NUMBER}, /* not that many records */
	};

	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct forged f = forge();
		struct mk_follower *follower = victim(&f);

		forge_record(&f, lies[i].oldest & ~7ULL, lies[i].length, lies[i].id);
		mk_store_release(&f.page->oldest, lies[i].oldest);
		mk_store_release(&f.page->head, lies[i].head);
		CHECK(mk_follower_waiting(follower) <= CAPACITY / sizeof(struct mk_record));
		CHECK_EQ(taken(follower), -EBADMSG);
		CHECK_EQ(mk_follower_waiting(follower), 0);
		CHECK_EQ(mk_follower_receiver(follower)->end.bad, lies[i].bad);
		mk_store_release(&f.page->oldest, 0);
		mk_store_release(&f.page->head, 0);
		CHECK_EQ(taken(follower), -EBADMSG); /* for ever */
		mk_follower_free(follower);
		unforge(&f);
	}
}

static void a_head_that_is_half_of_all_numbers_on_is_no_way_round(void)
{
	struct forged f = forge();
	struct mk_follower *follower = victim(&f);

	for (uint64_t i = 0; i < 40; i++)
		forge_record(&f, 16 * i, 0, i);
	mk_store_release(&f.page->head, 40 * 16);
	CHECK_EQ(taken(follower), 32); /* 8 more are known of, so the head may be 2^63 on from here, and a little */
	mk_store_release(&f.page->head, 40 * 16 + (1ULL << 63) - 8);
	mk_store_release(&f.page->oldest, 40 * 16 + (1ULL << 63) - 16);
	CHECK_EQ(taken(follower), -EBADMSG);
	mk_follower_free(follower);
	unforge(&f);
}

static void only_broadcasts_that_overwrite_are_followed(void)
{
	struct cast c = claimed(false);
	struct mk_receiver *rx = receiver(&c);

	CHECK(!mk_follower_new(rx, 0));
	CHECK_EQ(errno, EINVAL);
	mk_receiver_close(rx);
	cast_close(&c);
}

struct scribbler {
	struct forged *forged;
	_Atomic bool stop;
};

static void *scribble(void *argument)
{
	struct scribbler *s = argument;
	struct random r = random_from(15);
	_Atomic uint64_t *words = (void *)s->forged->data;

	while (!mk_load_relaxed(&s->stop)) {
		uint64_t head = below(&r, 4) ? below(&r, 3 * CAPACITY) & ~7ULL : draw(&r);

		for (int i = 0; i < 200; i++) { /* lengths that are small often enough to be walked along */
			uint64_t word = below(&r, 3) ? below(&r, 64) : draw(&r);

			mk_store_relaxed(&words[below(&r, CAPACITY / 8)], word);
		}
		mk_store_relaxed(&s->forged->page->oldest,
				 below(&r, 4) ? head - (below(&r, CAPACITY + 16) & ~7ULL) : 0);
		mk_store_relaxed(&s->forged->page->head, head);
	}
	return NULL;
}

static void a_sender_that_scribbles_harms_nobody(void)
{
	struct forged f = forge();
	struct scribbler s = {.forged = &f};
	pthread_t thread;
	uint64_t given = 0, bad = 0;

	CHECK_EQ(pthread_create(&thread, NULL, scribble, &s), 0);
	for (uint64_t i = 0; i < times(30000); i++) {
		struct mk_follower *follower = victim(&f);
		int n;

		do {
			n = taken(follower);
			given += n > 0;
		} while (n > 0);
		CHECK(n == -EBADMSG || n == -EAGAIN || n == -EINTR);
		bad += n == -EBADMSG;
		mk_follower_free(follower);
	}
	mk_store_relaxed(&s.stop, true);
	pthread_join(thread, NULL);
	printf("      %" PRIu64 " quarantined, %" PRIu64 " times records were given out\n", bad, given);
	CHECK(bad);
	unforge(&f);
}

static void a_maker_that_reads_a_scribbled_page_does_not_stay(void)
{
	struct cast c = claimed(false);
	struct forged f = forge();
	struct seat s = seat_new();

	mk_store_release(&f.page->begun, 5); /* never that of what was published */
	CHECK_EQ(mk_roster_add(c.roster, f.fd, s.consumer, &s.number), -EBADMSG);
	leave_seat(&s);
	unforge(&f);
	cast_close(&c);
}

static const struct test tests[] = {
	TEST(words_that_cannot_be_quarantine_it),
	TEST(a_head_that_is_half_of_all_numbers_on_is_no_way_round),
	TEST(only_broadcasts_that_overwrite_are_followed),
	TEST(a_sender_that_scribbles_harms_nobody),
	TEST(a_maker_that_reads_a_scribbled_page_does_not_stay),
};

RUN_TESTS(tests)
