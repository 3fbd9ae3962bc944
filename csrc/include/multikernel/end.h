/* end.h: what both ends of a lane have: their shape, their life (ring.c), looks at the other side (look.c), and what to
 * do after publishing.
 *
 * The protocol is in lane.h, which is the header to include.
 */
#ifndef MULTIKERNEL_END_H
#define MULTIKERNEL_END_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "multikernel/atomic.h"
#include "multikernel/memory.h"
#include "multikernel/pace.h"
#include "multikernel/spin.h"

/* What was wrong when a lane was quarantined. */
enum mk_bad {
	MK_BAD_NOTHING = 0,
	MK_BAD_HEAD = 1,   /* went backwards, or further than the ring is long, or lies between records */
	MK_BAD_TAIL = 2,   /* went backwards, or beyond what was sent, or lies between records */
	MK_BAD_LENGTH = 3, /* a record reaches beyond what was published */
	MK_BAD_NUMBER = 4, /* broadcast: records are not numbered in a row */
};

enum mk_wait_policy {
	MK_WAIT_ADAPTIVE = 0, /* spin as long as it pays, then sleep */
	MK_WAIT_SPIN = 1,     /* never sleep */
	MK_WAIT_PARK = 2,     /* sleep at once */
};

/* What both ends have. Private to the process. */
struct mk_end {
	struct mk_object shape;                                                  /* checked copy of the lane's header */
	_Atomic uint32_t *parked, *bell, *state, *cpu;                           /* in the own page */
	const _Atomic uint32_t *peer_parked, *peer_bell, *peer_state, *peer_cpu; /* in the other's page */
	struct mk_counters *counters;
	struct mk_counters *wait_counters; /* of spins, parks and spurious wake-ups: the same, but for a host lane */
	uint64_t mask;                     /* capacity - 1 */
	struct mk_spin spin;               /* what the last waits on this end have taught */
	uint64_t bad_value;
	uint64_t looked;                        /* CLOCK_MONOTONIC, ns: when the peer's life was last looked at */
	int stop;                               /* why nothing goes on: 0, -EBADMSG; senders also -EPIPE */
	uint32_t bad;                           /* enum mk_bad */
	uint32_t rung;                          /* the peer's parked word that was rung last */
	uint32_t parks;                         /* counts the own parks */
	uint32_t empty_looks;                   /* in a row: every so often the peer's life is looked at */
	uint32_t generation;                    /* mk_fork_generation() at the claim */
	const _Atomic uint32_t *generation_now; /* mk_fork_generation_word() */
	int socket;     /* own side of the lane's socket pair: the bell of who sleeps in poll; -1 */
	int pidfd;      /* of the peer's process; -1: not known */
	int event;      /* descriptor for event loops, -1: not asked for */
	int event_self; /* eventfd that makes it readable from this side */
	bool event_set;
	bool pidfd_in_event; /* watched there already */
	uint32_t event_word; /* the parked word with which it sleeps in an event loop; 0: none */
	uint32_t event_bell; /* the peer's bell then */
	bool fence;          /* fence after each publish */
	bool gone;           /* the peer's process has ended, or nobody holds its end */
	bool sending;        /* a sender */
	bool private_socket; /* a ring's: descriptors that come over it are taken */
	bool due;            /* the peer is dead and a successor of it is due (resume.h) */
	bool hung_up;        /* nobody holds the other side of the socket pair */
	uint8_t policy;      /* enum mk_wait_policy */
	bool interpreted;    /* for bindings: handlers of signals run in the caller, so it looks before a long sleep */
	bool signals_seen;   /* it has, and the wait goes on where it was */
	bool asleep;         /* it has said that it sleeps, and looks for signals first */
	bool asleep_proven;  /* and that it will be rung is certain */
	uint32_t asleep_drains; /* mk_drains() then */
	int64_t waits_until;    /* for bindings: tells a wait that goes on from the next one */
	/* For bindings: one call at a time. See multikernel/_core/ends.h. */
	uintptr_t bias;          /* the thread that may enter without a locked instruction */
	_Atomic uint32_t held;   /* it is in */
	_Atomic uint32_t shared; /* 0: no other thread was ever seen; 1: one comes; 2: all go by busy */
	_Atomic uintptr_t busy;  /* who is in, 0: nobody */
	bool by_bias;            /* who is in came by held, not by busy */
	uint32_t peer_id;        /* the other side's owner and its incarnation, as checked at attach */
	uint32_t fate_seen;
	uint64_t peer_epoch;
	const _Atomic uint32_t *fate; /* changes when the host publishes something of the peer; NULL: not looked at */
	void *own_map, *peer_map;
	uint64_t own_map_size, peer_map_size;
	struct mk_counters own_counters;
};

/* The first half of mk_sender_close and mk_receiver_close: all but the freeing, for who cannot know yet that
 * nobody holds a pointer to the end. */
MK_API void mk_end_close(struct mk_end *end);

/* Whether the other end is closed or its process has ended. Cheap until it matters: a page is read each time,
 * the system is asked once per millisecond at most unless @now. */
MK_API bool mk_end_gone(struct mk_end *end, bool now);

/* Ring the other side's bell if it is parked. Slow path of mk_notify. */
MK_API void mk_ring_bell(struct mk_end *end);

/* Take what lies in the own side of the socket pair. Sets end->gone at its end of file. */
MK_API void mk_end_drain(struct mk_end *end);

/* Changes when any end of this process has taken something by that. */
MK_API uint32_t mk_drains(void);

/* Bring the counters of messages up to date. On a lane of elements they are derived from its indices, and follow by
 * themselves only at a sleep, at the close, and at the latest when twice as much went through as the ring is long. */
MK_API void mk_end_count(struct mk_end *end);

MK_API int mk_quarantine(struct mk_end *end, uint32_t bad, uint64_t value);

/* P1, P2: after publishing, wake the other side if it asks for it. Pairs with the stores of parked in
 * doorbell.c. Without the fence the load may be satisfied before the publishing store is visible; doorbell.h
 * says why nothing is lost. */
static inline void mk_notify(struct mk_end *end)
{
	if (mk_unlikely(end->fence))
		mk_fence();
	if (mk_unlikely(mk_load_relaxed(end->peer_parked) & MK_PARKED_MODE))
		mk_ring_bell(end);
}

/* Ask for the line at @at, to read it. A hint: it never faults. */
static inline void mk_fetch(const void *at)
{
	__builtin_prefetch(at, 0);
}

/* The same to write it: that takes it from whoever has it. */
static inline void mk_fetch_to_write(const void *at)
{
#if defined(__x86_64__)
	__asm__ __volatile__("prefetchw %0" ::"m"(*(const char *)at)); /* the builtin's would leave it shared */
#else
	__builtin_prefetch(at, 1);
#endif
}

#define MK_COPY_INLINE 4096u /* bytes: longer ones are worth a call */

/* Copy by moves of fixed sizes, the last two of which may overlap. A call costs more than a small message, and the
 * string moves that it takes for some kilobytes are slow on lines that another core has. */
static inline void mk_copy(void *to, const void *from, uint64_t length)
{
	char *d = (char *)to;
	const char *s = (const char *)from;

	if (__builtin_constant_p(length)) {
		if (length)
			memcpy(to, from, length);
		return;
	}
	/* A compiler that knows how long the caller's memory is would warn of the lengths that do not occur. */
	__asm__("" : "+r"(d), "+r"(s));
	if (length > MK_COPY_INLINE) {
		memcpy(d, s, length);
		return;
	}
	for (; length >= 64; length -= 64, d += 64, s += 64)
		memcpy(d, s, 64);
	if (length >= 32) {
		memcpy(d, s, 32);
		memcpy(d + length - 32, s + length - 32, 32);
	} else if (length >= 16) {
		memcpy(d, s, 16);
		memcpy(d + length - 16, s + length - 16, 16);
	} else if (length >= 8) {
		memcpy(d, s, 8);
		memcpy(d + length - 8, s + length - 8, 8);
	} else if (length >= 4) {
		memcpy(d, s, 4);
		memcpy(d + length - 4, s + length - 4, 4);
	} else if (length) {
		d[0] = s[0];
		d[length / 2] = s[length / 2];
		d[length - 1] = s[length - 1];
	}
}

static inline uint64_t mk_record_size(uint64_t length)
{
	return (sizeof(struct mk_record) + length + MK_RECORD_ALIGN - 1) & ~(uint64_t)(MK_RECORD_ALIGN - 1);
}

/* The longest payload that a record in this lane can have. */
static inline uint64_t mk_longest(const struct mk_end *end)
{
	uint64_t longest = end->mask + 1 - sizeof(struct mk_record);

	return longest < UINT32_MAX ? longest : UINT32_MAX;
}

#endif
