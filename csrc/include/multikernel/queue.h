/* queue.h: records from any process of one program to any other, each taken by one of them.
 *
 * One memory object, made before the processes are and inherited by them. In it each producer process has a lane of its
 * own, which only it maps writable; what they all write is few words: who takes at the moment, who is given a place at
 * the moment, the list of lanes, how far each was taken, and two bells. Nobody is trusted with more than he needs, but
 * all are one program: whoever has the descriptor could map everything.
 *
 * Every state that a process can leave behind when it is killed is a good one, and nobody waits for it:
 *
 *   - A lane's head and tail count records. A record is published by the one store that raises head, and taken by the
 *     one that raises tail; what the queue holds is the sum of the differences, so there is no count that could be
 *     left wrong.
 *   - Consumers take in turn: who takes holds `taking`, for as long as it copies one record. If it is killed before
 *     it raises tail, the record is another's; after that it is lost with it.
 *   - A claim holds a process's token: its pid and the time of its start, which no other process ever has, and its
 *     death is told by a pidfd. Who waits for a claim looks at the holder's life every 10 ms and takes it back.
 *     These are the only time slices, and none runs while nobody holds a claim and nobody is about to publish.
 *   - Bells are rung before what they tell of is published, and once more after it. A producer that is killed in
 *     between has published nothing; who was woken sees by `pending` (a producer) or `taking` (a consumer) that
 *     something is about to come, and sleeps in slices as long as that is so.
 *
 *   producer                                      consumer
 *   N1  pending = token; fence                    S1  sleepers + 1; fence
 *   N2  sleepers? bell + 1, wake                  S2  pending = load-acquire, then head = load-acquire
 *   R1  store-release(head)                       S3  records: take. pending: sleep a slice. else: sleep
 *   N3  store-release(pending, 0)               S4  sleepers - 1
 *   N4  sleepers? bell + 1, wake
 *
 *   Of N1 and S1 one comes first: either N2 sees the sleeper, or S2 sees pending, or the head that came before it was
 *   cleared. N4 is for who saw pending, and would else sleep to the end of his slice; that it has no fence may cost
 *   him this once. The same with room: `taking` is N1, and the producer that waits for room is the sleeper. A sleeper
 *   that is killed leaves its count behind: from then on a bell is rung in vain, and nothing else.
 *
 * The idea of a lane for each producer, so that a dead one blocks nobody, is that of crossbeam's and moodycamel's
 * queues; the token is procfs's (pid, starttime), as systemd and psutil use it.
 *
 * Threads may share a struct mk_queue. One at a time puts: another one gets -EBUSY, for as long as it takes to copy a
 * record. It goes through a fork unharmed: the child's first call makes it the child's, with a lane of its own.
 */
#ifndef MULTIKERNEL_QUEUE_H
#define MULTIKERNEL_QUEUE_H

#include <stdbool.h>

#include "multikernel/memory.h"

#define MK_QUEUE_MAGIC 0x4555455551494b4dULL /* "MKIQUEUE" as bytes in memory */

#define MK_QUEUE_LANES 512u           /* producers at one time */
#define MK_QUEUE_ENTRIES 2048u        /* records in a lane, at most */
#define MK_QUEUE_DATA (256u * 1024)   /* bytes of all of them together */
#define MK_QUEUE_LONGEST (64u * 1024) /* of one of them; longer ones lie outside of the lane */
#define MK_QUEUE_BLOCK (64u * 1024)   /* everything begins at a multiple of it: the largest page there is */
#define MK_QUEUE_OUTSIDE (1ULL << 38) /* bytes outside for each lane; only what is in use is memory */

/* Held by one process at a time. */
struct mk_queue_claim {
	_Atomic uint64_t owner;  /* its token; 0: nobody */
	_Atomic uint32_t wanted; /* somebody may be asleep because of it */
	_Atomic uint32_t bell;   /* futex word */
};

/* What those sleep on who find nothing, or no room. */
struct mk_queue_bell {
	_Atomic uint32_t sleepers; /* how many may be asleep: each adds and subtracts itself */
	_Atomic uint32_t bell;     /* futex word: changes with every ring */
};

/* What all processes write of one lane. */
struct mk_queue_lane {
	_Alignas(MK_LINE) _Atomic uint64_t tail;  /* records ever taken: written by who holds `taking` */
	_Alignas(MK_LINE) _Atomic uint64_t owner; /* token of its producer; 0: nobody, anybody may take it over */
	_Atomic uint64_t
		admitted; /* records that were given a place, ever: written by the owner, or under `admitting` */
};

struct mk_queue_words {
	uint64_t magic;
	uint32_t abi;
	uint32_t reserved;
	uint64_t size;          /* of the object, bytes */
	uint64_t places;        /* records that it may hold; 0: any number */
	uint64_t pid_namespace; /* tokens mean something only inside of these */
	uint64_t time_namespace;
	_Alignas(MK_LINE) _Atomic uint32_t lanes; /* how many were ever used: the first ones */
	_Alignas(MK_LINE) struct mk_queue_claim taking;
	_Alignas(MK_LINE) struct mk_queue_claim admitting;
	_Alignas(MK_LINE) struct mk_queue_bell items; /* consumers sleep on it */
	_Alignas(MK_LINE) struct mk_queue_bell room;  /* producers sleep on it */
	_Alignas(4096) struct mk_queue_lane lane[MK_QUEUE_LANES];
};

enum mk_queue_kind {
	MK_QUEUE_INSIDE = 0, /* the record lies in the lane */
	MK_QUEUE_LARGE = 1,  /* a struct mk_queue_large does, and says where */
};

struct mk_queue_entry {
	uint64_t position; /* of the record: bytes ever written to the lane's data before it */
	uint32_t length;   /* bytes */
	uint32_t kind;     /* enum mk_queue_kind */
};

struct mk_queue_large {
	uint64_t offset; /* in the object */
	uint64_t length;
};

/* Written by the lane's producer alone; its data follow at MK_QUEUE_BLOCK, and are mapped twice in a row. */
struct mk_queue_page {
	_Alignas(MK_LINE) _Atomic uint64_t head; /* records ever published */
	_Atomic uint64_t pending;                /* token of a producer that is about to raise head; 0: none is */
	uint64_t outside;                        /* bytes ever given out of what lies outside */
	_Alignas(MK_LINE) struct mk_queue_entry entries[MK_QUEUE_ENTRIES];
};

_Static_assert(sizeof(struct mk_queue_claim) == 16, "claim");
_Static_assert(sizeof(struct mk_queue_lane) == 256, "lane");
_Static_assert(offsetof(struct mk_queue_lane, owner) == 128, "lane.owner");
_Static_assert(offsetof(struct mk_queue_words, lanes) == 128, "words.lanes");
_Static_assert(offsetof(struct mk_queue_words, taking) == 256, "words.taking");
_Static_assert(offsetof(struct mk_queue_words, room) == 640, "words.room");
_Static_assert(offsetof(struct mk_queue_words, lane) == 4096, "words.lane");
_Static_assert(sizeof(struct mk_queue_entry) == 16 && sizeof(struct mk_queue_large) == 16, "entries");
_Static_assert(sizeof(struct mk_queue_page) <= MK_QUEUE_BLOCK, "a lane's words fit before its data");
_Static_assert((MK_QUEUE_ENTRIES & (MK_QUEUE_ENTRIES - 1)) == 0 && (MK_QUEUE_DATA & (MK_QUEUE_DATA - 1)) == 0, "masks");

struct mk_queue;

/* Make the object. @param places records that it may hold, 0: any number. @return a descriptor or -errno */
MK_API int mk_queue_create(uint64_t places);

/* Join it. @param fd stays the caller's, and open until the close.
 * @return 0; -EPROTO: it is no queue of this version; -EXDEV: it comes from another pid or time namespace; -errno */
MK_API int mk_queue_open(struct mk_queue **out, int fd);

/* Leave, and free it: what this process has put stays. Of a forked copy: as if it had never been. */
MK_API void mk_queue_close(struct mk_queue *q);

/* Give this process's lane back, for another producer. The next put takes one again. @return 0; -EBUSY; -errno */
MK_API int mk_queue_leave(struct mk_queue *q);

/* In a process forked since, before it has two threads that use the queue: the first call does it otherwise.
 * @return 0 or -errno */
MK_API int mk_queue_settle(struct mk_queue *q);

/* Put one record, copied, which comes in @count pieces. It does not wait for room.
 * @param kind  MK_QUEUE_INSIDE, at most MK_QUEUE_LONGEST bytes; or MK_QUEUE_LARGE, one struct mk_queue_large
 * @return 0; -EAGAIN: no room; -EMSGSIZE; -EUSERS: every lane has a living producer; -EBADMSG;
 *         -EBUSY: another thread is putting; -errno */
MK_API int mk_queue_put(struct mk_queue *q, uint32_t kind, const void *const *pieces, const uint64_t *lengths,
			unsigned count);

/* As mk_queue_put, of a record in one piece. */
MK_API int mk_queue_put_one(struct mk_queue *q, const void *record, uint64_t length);

/* Records that were taken from this process's lane, as the last put saw it. */
MK_API uint64_t mk_queue_tail(const struct mk_queue *q);

/* Room outside for a large record: write it to the descriptor there, then put where it is.
 * @return 0; -EFBIG; as mk_queue_put */
MK_API int mk_queue_outside(struct mk_queue *q, uint64_t length, struct mk_queue_large *large);

/* Copy a large record that was taken. @return 0 or -errno */
MK_API int mk_queue_fetch(struct mk_queue *q, const struct mk_queue_large *large, void *to);

/* Or map it, read-only; mk_object_unmap undoes it. @return 0 or -errno */
MK_API int mk_queue_map(struct mk_queue *q, const struct mk_queue_large *large, void **base);

/* Give the memory of a large record back, taken or never put. @return 0 or -errno */
MK_API int mk_queue_forget(struct mk_queue *q, const struct mk_queue_large *large);

/* Ask for a place for one record, where they are limited; its put uses it. A place that was not used is given back by
 * the next call.
 * @param waiting   records that have a place from earlier calls, and are still to be put
 * @param deadline  CLOCK_MONOTONIC, ns, for the claim alone; 0: a moment; < 0: none
 * @return 0; -EAGAIN: all are taken; -EINTR: a signal came, nothing was done; as mk_queue_put */
MK_API int mk_queue_admit(struct mk_queue *q, uint64_t waiting, int64_t deadline);

/* What mk_queue_take says. */
struct mk_queue_taken {
	uint64_t length;             /* of the record, also when there was no room for it here */
	struct mk_queue_large large; /* length 0: it lies inside; else it is there, and the taker's alone */
};

/* Take the oldest record of some lane; the lanes in turn.
 * @param room  bytes at @to, >= sizeof(struct mk_queue_large)
 * @return its length: it is copied; 0: *taken says where a large one is, which was taken, or else how long a record is
 *         that is longer than @room, and was not; -EAGAIN: none is there; -EINTR, -ETIMEDOUT: as in mk_queue_admit;
 *         -EBADMSG: a lane holds what cannot be, and is left alone from now on; -errno */
MK_API int64_t mk_queue_take(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken,
			     int64_t deadline);

/* As mk_queue_take, and never sleeps. @return also -EBUSY: somebody else is taking, for longer than that should last */
MK_API int64_t mk_queue_try_take(struct mk_queue *q, void *to, uint64_t room, struct mk_queue_taken *taken);

/* Records that were put, or given a place, and not taken. */
MK_API uint64_t mk_queue_count(struct mk_queue *q);

/* Whether mk_queue_take might find something. */
MK_API bool mk_queue_ready(struct mk_queue *q);

/* Wait for a record. @param deadline CLOCK_MONOTONIC, ns; < 0: none.
 * @param again  whether the caller has just looked for signals: without, it comes back once before a long sleep
 * @return 0: look; -ETIMEDOUT; -EINTR: look for signals, and wait again */
MK_API int mk_queue_wait_items(struct mk_queue *q, int64_t deadline, bool again);

/* Wait for room in this process's lane, after a put that found none. As above. @param tail mk_queue_tail since then */
MK_API int mk_queue_wait_room(struct mk_queue *q, uint64_t tail, int64_t deadline, bool again);

/* Wait for a place, after mk_queue_admit found none. As above. */
MK_API int mk_queue_wait_place(struct mk_queue *q, int64_t deadline, bool again);

#endif
