/* How many messages a second go one way: elements of 8 and 64 bytes and records of 64, one a call and 32 a call. */
#include "ours.h"
#include "peers.h"

/* --- ours ---------------------------------------------------------------------------------------------------------------- */

static void *make_8(void)
{
	return lanes_make(1, RING_BYTES, 8);
}

static void *make_64(void)
{
	return lanes_make(1, RING_BYTES, 64);
}

static void *make_records(void) /* 80 bytes each in the ring: holds fewer than a peer's of the same size */
{
	return lanes_make(1, RING_BYTES, 0);
}

INLINE size_t push_some(void *tx, const void *messages, size_t count)
{
	return how_many(mk_send_elements(tx, messages, count));
}

INLINE size_t pop_some(void *rx, void *messages, size_t count)
{
	return how_many(mk_recv_elements(rx, messages, count));
}

INLINE size_t push_records(void *ring, const void *messages, size_t count)
{
	struct mk_sender *tx = ring;
	size_t i;
	void *slot;

	for (i = 0; i < count && done(mk_reserve(tx, 64, &slot)); i++) {
		memcpy(slot, (const char *)messages + 64 * i, 64);
		mk_finish(tx, 64, MK_MSG_USER, 0, 0);
	}
	mk_publish(tx);
	return i;
}

INLINE size_t pop_records(void *rx, void *messages, size_t count)
{
	struct message_64 *to = messages;
	size_t i = 0;

	while (i < count && take_record(rx, &to[i]))
		i++;
	mk_release(rx);
	return i;
}

#define OURS(title, make, send, receive)                                               \
	static uint64_t send_##title(struct trial *trial, void *lanes, uint64_t n)     \
	{                                                                              \
		struct mk_sender *tx = take_sender(((struct lanes *)lanes)->lane);     \
		uint64_t wrong = send;                                                 \
                                                                                       \
		mk_sender_close(tx);                                                   \
		return wrong;                                                          \
	}                                                                              \
	static uint64_t receive_##title(struct trial *trial, void *lanes, uint64_t n)  \
	{                                                                              \
		struct mk_receiver *rx = take_receiver(((struct lanes *)lanes)->lane); \
		uint64_t wrong = receive;                                              \
                                                                                       \
		mk_receiver_close(rx);                                                 \
		return wrong;                                                          \
	}                                                                              \
	static const struct contestant title = {"ours", make, lanes_drop, send_##title, receive_##title};

OURS(one_8, make_8, send_one_a_call(trial, tx, push_8, 8, n), receive_one_a_call(trial, rx, pop_8, 8, n))
OURS(one_64, make_64, send_one_a_call(trial, tx, push_64, 64, n), receive_one_a_call(trial, rx, pop_64, 64, n))
OURS(one_record, make_records, send_one_a_call(trial, tx, push_record, 64, n),
     receive_one_a_call(trial, rx, pop_record, 64, n))
OURS(batch_8, make_8, send_batches(trial, tx, push_some, 8, n), receive_batches(trial, rx, pop_some, 8, n))
OURS(batch_64, make_64, send_batches(trial, tx, push_some, 64, n), receive_batches(trial, rx, pop_some, 64, n))
OURS(batch_record, make_records, send_batches(trial, tx, push_records, 64, n),
     receive_batches(trial, rx, pop_records, 64, n))

/* --- beside the peers ---------------------------------------------------------------------------------------------------- */

enum {
	WORKS = 6
};

static const struct contestant *of_peer(const struct peer *peer, unsigned work)
{
	const struct contestant *const theirs[WORKS] = {peer->one_8,    peer->batch_8, peer->one_64,
							peer->batch_64, peer->one_64,  peer->batch_64};

	return theirs[work];
}

int main(int argc, char **argv)
{
	static const char *const names[WORKS] = {"8 B elements, one a call",  "8 B elements, 32 a call",
						 "64 B elements, one a call", "64 B elements, 32 a call",
						 "64 B records, one a call",  "64 B records, 32 a call"};
	const struct contestant *const ours[WORKS] = {&one_8, &batch_8, &one_64, &batch_64, &one_record, &batch_record};
	const struct contestant *tables[WORKS][1 + PEERS];
	struct work works[WORKS];

	name_missing_peers();
	for (unsigned w = 0; w < WORKS; w++) {
		tables[w][0] = ours[w];
		for (unsigned p = 0; p < PEERS; p++)
			tables[w][1 + p] = of_peer(peers[p], w);
		works[w] = (struct work){names[w], "M/s", tables[w], 1 + PEERS};
	}
	return bench("stream", works, WORKS, argc, argv);
}
