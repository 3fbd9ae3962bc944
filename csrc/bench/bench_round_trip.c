/* What a message of 64 bytes and its answer cost, both sides spinning, against the bare line: the least that it can. */
#include "ours.h"
#include "peers.h"

/* --- the least for memory of one writer -------------------------------------------------------------------------------- */

/* A message in a line that only its sender writes, and a word beside it that says that it is there: what any ring does
 * whose index lies apart from its data, without all that makes it a ring. */
struct pair {
	_Alignas(128) _Atomic uint64_t there;
	_Alignas(128) struct message_64 message;
};

static void *make_pairs(void)
{
	return shared_memory(2 * sizeof(struct pair));
}

static void drop_pairs(void *pairs)
{
	shared_memory_drop(pairs, 2 * sizeof(struct pair));
}

INLINE bool push_pair(void *at, const void *message)
{
	struct pair *pair = at;

	pair->message = *(const struct message_64 *)message;
	/* Pairs with the acquire load in pop_pair. */
	mk_store_release(&pair->there, mk_load_relaxed(&pair->there) + 1);
	return true;
}

struct reader {
	struct pair *pair;
	uint64_t seen;
};

INLINE bool pop_pair(void *at, void *message)
{
	struct reader *reader = at;

	if (mk_load_acquire(&reader->pair->there) == reader->seen) /* pairs with the release store in push_pair */
		return false;
	reader->seen++;
	*(struct message_64 *)message = reader->pair->message;
	return true;
}

static uint64_t left_of_pairs(struct trial *trial, void *at, uint64_t n)
{
	struct pair *pairs = at;
	struct reader reader = {&pairs[1], 0};

	return ask(trial, &pairs[0], &reader, push_pair, pop_pair, 64, n);
}

static uint64_t right_of_pairs(struct trial *trial, void *at, uint64_t n)
{
	struct pair *pairs = at;
	struct reader reader = {&pairs[0], 0};

	return answer(trial, &reader, &pairs[1], push_pair, pop_pair, 64, n);
}

static const struct contestant bare_pairs = {"bare word and line each way", make_pairs, drop_pairs, left_of_pairs,
					     right_of_pairs};

/* --- ours ---------------------------------------------------------------------------------------------------------------- */

static void *make_elements(void)
{
	return lanes_make(2, RING_BYTES, 64);
}

static void *make_records(void)
{
	return lanes_make(2, RING_BYTES, 0);
}

#define OURS(title, text, make, push, pop)                                       \
	static uint64_t left_##title(struct trial *trial, void *at, uint64_t n)  \
	{                                                                        \
		const struct lanes *lanes = at;                                  \
		struct mk_sender *tx = take_sender(&lanes->lane[0]);             \
		struct mk_receiver *rx = take_receiver(&lanes->lane[1]);         \
		uint64_t wrong = ask(trial, tx, rx, push, pop, 64, n);           \
                                                                                 \
		mk_sender_close(tx);                                             \
		mk_receiver_close(rx);                                           \
		return wrong;                                                    \
	}                                                                        \
	static uint64_t right_##title(struct trial *trial, void *at, uint64_t n) \
	{                                                                        \
		const struct lanes *lanes = at;                                  \
		struct mk_receiver *rx = take_receiver(&lanes->lane[0]);         \
		struct mk_sender *tx = take_sender(&lanes->lane[1]);             \
		uint64_t wrong = answer(trial, rx, tx, push, pop, 64, n);        \
                                                                                 \
		mk_sender_close(tx);                                             \
		mk_receiver_close(rx);                                           \
		return wrong;                                                    \
	}                                                                        \
	static const struct contestant title = {text, make, lanes_drop, left_##title, right_##title};

OURS(of_elements, "ours", make_elements, push_64, pop_64)
OURS(of_records, "ours", make_records, push_record, pop_record)

int main(int argc, char **argv)
{
	const struct contestant *records[] = {&of_records, &bare_line, &bare_line_pausing, &bare_words, &bare_pairs};
	const struct contestant *elements[5 + PEERS] = {&of_elements, &bare_line, &bare_line_pausing, &bare_words,
							&bare_pairs};
	const struct work works[] = {
		{"spinning round trip, 64 B element", "ns", elements, 5 + PEERS},
		{"spinning round trip, 64 B record", "ns", records, 5},
	};

	name_missing_peers();
	for (unsigned p = 0; p < PEERS; p++)
		elements[5 + p] = peers[p]->round_trip_64;
	return bench("round_trip", works, 2, argc, argv);
}
