/* What a message and its answer cost when both sides sleep for it, against a bare pair of futex words. */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include "ours.h"

/* Long enough for the other side to be asleep: ours looks on for 3 us before. */
static void let_it_sleep(void)
{
	uint64_t until = clock_ns() + 15000;

	while (clock_ns() < until)
		relax();
}

/* --- two futex words ----------------------------------------------------------------------------------------------------- */

struct words {
	_Alignas(128) _Atomic uint32_t there;
	_Alignas(128) _Atomic uint32_t back;
};

static void *make_words(void)
{
	return shared_memory(sizeof(struct words));
}

static void drop_words(void *words)
{
	shared_memory_drop(words, sizeof(struct words));
}

static void set_and_wake(_Atomic uint32_t *word, uint32_t value)
{
	mk_store_release(word, value);
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void sleep_until(_Atomic uint32_t *word, uint32_t value)
{
	uint32_t seen;

	while ((seen = mk_load_acquire(word)) != value)
		syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static uint64_t left_of_words(struct trial *trial, void *at, uint64_t n)
{
	struct words *words = at;

	start_together(trial);
	for (uint32_t i = 1; i <= n; i++) {
		let_it_sleep();
		on_its_way(trial);
		set_and_wake(&words->there, i);
		sleep_until(&words->back, i);
		arrived(trial);
	}
	finished(trial);
	return 0;
}

static uint64_t right_of_words(struct trial *trial, void *at, uint64_t n)
{
	struct words *words = at;

	start_together(trial);
	for (uint32_t i = 1; i <= n; i++) {
		sleep_until(&words->there, i);
		arrived(trial);
		let_it_sleep();
		on_its_way(trial);
		set_and_wake(&words->back, i);
	}
	finished(trial);
	return 0;
}

static const struct contestant futex_pair = {"bare futex pair", make_words, drop_words, left_of_words, right_of_words};

/* --- ours ------------------------------------------------------------------------------------------------------------------ */

static void *make_records(void)
{
	return lanes_make(2, RING_BYTES, 0);
}

INLINE void sleep_for_record(struct mk_receiver *rx, struct message_64 *message)
{
	while (!pop_record(rx, message)) {
		int result = mk_wait(&rx->end, -1);

		if (result != -EINTR)
			done(result);
	}
}

static uint64_t left_sleeping(struct trial *trial, void *at, uint64_t n)
{
	const struct lanes *lanes = at;
	struct mk_sender *tx = take_sender(&lanes->lane[0]);
	struct mk_receiver *rx = take_receiver(&lanes->lane[1]);
	const struct message_64 *messages = prepared(64);
	struct message_64 got;
	uint64_t wrong = 0;

	rx->end.policy = MK_WAIT_PARK;
	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		let_it_sleep();
		on_its_way(trial);
		wrong += !push_record(tx, &messages[i % PREPARED]);
		sleep_for_record(rx, &got);
		arrived(trial);
		wrong += differ(&got, &messages[i % PREPARED], 64);
	}
	finished(trial);
	mk_sender_close(tx);
	mk_receiver_close(rx);
	return wrong;
}

static uint64_t right_sleeping(struct trial *trial, void *at, uint64_t n)
{
	const struct lanes *lanes = at;
	struct mk_receiver *rx = take_receiver(&lanes->lane[0]);
	struct mk_sender *tx = take_sender(&lanes->lane[1]);
	struct message_64 got;
	uint64_t wrong = 0;

	rx->end.policy = MK_WAIT_PARK;
	start_together(trial);
	for (uint64_t i = 0; i < n; i++) {
		sleep_for_record(rx, &got);
		arrived(trial);
		let_it_sleep();
		on_its_way(trial);
		wrong += !push_record(tx, &got);
	}
	finished(trial);
	mk_sender_close(tx);
	mk_receiver_close(rx);
	return wrong;
}

static const struct contestant ours = {"ours", make_records, lanes_drop, left_sleeping, right_sleeping};

int main(int argc, char **argv)
{
	const struct contestant *both[] = {&ours, &futex_pair};
	const struct work works[] = {{"blocking round trip, 64 B record", "ns", both, 2}};

	return bench("wake", works, 1, argc, argv);
}
