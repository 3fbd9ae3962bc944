/* Entering an end from several threads (multikernel/_core/ends.h): one is in it at a time, whoever claimed it. */
#include "harness.h"

#include <pthread.h>

#include "ends.h"

#define CAPACITY 4096u

struct contest {
	struct mk_end *end;
	_Atomic bool over;
	_Atomic uint64_t entries[2]; /* of the thread that claimed it, of the others */
	uint64_t inside;             /* plain: only who is in touches it */
};

static bool try_once(struct contest *c, int who)
{
	int result = mk_py_enter(c->end);

	if (result) {
		CHECK_EQ(result, -EBUSY);
		return false;
	}
	CHECK_EQ(c->inside, 0);
	c->inside++;
	CHECK_EQ(c->inside, 1);
	c->inside--;
	mk_count(&c->entries[who], 1);
	mk_py_leave(c->end);
	return true;
}

static void *compete(void *argument)
{
	struct contest *c = argument;

	while (!mk_load_relaxed(&c->over))
		try_once(c, 1);
	return NULL;
}

static void the_thread_that_claimed_it_enters_again_and_again(void)
{
	struct both b = both_new(CAPACITY, 0);
	struct contest c = {.end = &b.rx->end};

	mk_py_bias(c.end);
	for (int i = 0; i < 1000; i++)
		CHECK(try_once(&c, 0));
	CHECK_EQ(mk_load_relaxed(&c.end->shared), 0);
	both_close(&b);
}

static void who_is_in_cannot_enter(void)
{
	for (int shared = 0; shared < 2; shared++) {
		struct both b = both_new(CAPACITY, 0);

		mk_py_bias(&b.rx->end);
		if (shared)
			CHECK_EQ(mk_py_revoke(&b.rx->end), 0);
		CHECK_EQ(mk_py_enter(&b.rx->end), 0);
		CHECK_EQ(mk_py_enter(&b.rx->end), -EBUSY);
		mk_py_leave(&b.rx->end);
		CHECK_EQ(mk_py_enter(&b.rx->end), 0);
		mk_py_leave(&b.rx->end);
		both_close(&b);
	}
}

static void *enter_once(void *argument)
{
	return (void *)(intptr_t)mk_py_enter(argument);
}

static void another_thread_is_kept_out_while_one_is_in(void)
{
	struct both b = both_new(CAPACITY, 0);
	pthread_t thread;
	void *result;

	mk_py_bias(&b.rx->end);
	CHECK_EQ(mk_py_enter(&b.rx->end), 0);
	CHECK_EQ(pthread_create(&thread, NULL, enter_once, &b.rx->end), 0);
	pthread_join(thread, &result);
	CHECK_EQ((intptr_t)result, -EBUSY);
	mk_py_leave(&b.rx->end); /* it came by its bias, and leaves by that */
	CHECK_EQ(mk_load_relaxed(&b.rx->end.shared), 2);
	CHECK_EQ(mk_py_enter(&b.rx->end), 0);
	CHECK_EQ(pthread_create(&thread, NULL, enter_once, &b.rx->end), 0);
	pthread_join(thread, &result);
	CHECK_EQ((intptr_t)result, -EBUSY);
	mk_py_leave(&b.rx->end);
	CHECK_EQ(pthread_create(&thread, NULL, enter_once, &b.rx->end), 0);
	pthread_join(thread, &result);
	CHECK_EQ((intptr_t)result, 0);
	CHECK_EQ(mk_py_enter(&b.rx->end), -EBUSY);
	mk_py_leave(&b.rx->end); /* for the thread, which has ended */
	both_close(&b);
}

static void one_thread_is_in_at_a_time(void)
{
	for (uint64_t round = 0; round < times(300); round++) {
		struct both b = both_new(CAPACITY, 0);
		struct contest c = {.end = &b.rx->end};
		pthread_t threads[2];
		uint64_t before;

		mk_py_bias(c.end);
		for (uint64_t i = 0; i < round % 7; i++)
			try_once(&c, 0);
		for (int i = 0; i < 2; i++)
			CHECK_EQ(pthread_create(&threads[i], NULL, compete, &c), 0);
		for (before = mk_load_relaxed(&c.entries[0]); mk_load_relaxed(&c.entries[0]) - before < 2000;)
			try_once(&c, 0);
		mk_store_relaxed(&c.over, true);
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		both_close(&b);
	}
}

static const struct test tests[] = {
	TEST(the_thread_that_claimed_it_enters_again_and_again),
	TEST(who_is_in_cannot_enter),
	TEST(another_thread_is_kept_out_while_one_is_in),
	TEST(one_thread_is_in_at_a_time),
};

RUN_TESTS(tests)
