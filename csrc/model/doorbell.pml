/* doorbell.pml: is a wake-up ever lost? A model of parking and ringing (doorbell.h) for spin.
 *
 * One side publishes MESSAGES records; the other takes them, and goes to sleep where there is none, the way
 * csrc/doorbell.c does: W1-W9 stand at what they name. A wake-up that is lost is a waiter that sleeps while a record
 * lies there and nobody will ever ring: an invalid end state.
 *
 * Each side's stores go through a store buffer of its own, first in, first out, and reach the other at any later time;
 * loads do not wait for it (TSO, and the one reordering of weaker machines that matters here: a load before an earlier
 * store). A fence waits until the own buffer is empty; a membarrier empties the other side's at once. System calls are
 * fences: the futex compares and sleeps in one step, and so does poll.
 *
 * What is checked (csrc/model/run):
 *   (nothing)        the real thing: no bound on how long a store stays in a buffer, W6 ends after its time, W9 never
 *   FENCES           the sender fences after each publish, and the waiter has no membarrier: sound
 *   NO_MEMBARRIER    W7 without it: must fail
 *   IN_TIME          a store stays in its buffer for less than W2 lasts, and W6 has no time limit: sound, so on a real
 *                    machine it is not the limit that ends that sleep
 *   IN_TIME NO_LOOK_ON          no time between W1 and W4: must fail
 *   IN_TIME NO_FENCE_ON_MAY     P does not fence when it sees MAY_PARK: must fail
 *   IN_TIME NO_FENCE_ON_PARKED  the waiter does not fence after W4: must fail
 */
#ifndef MESSAGES
#define MESSAGES 3
#endif

#define AWAKE 0
#define MAY_PARK 1
#define PARKED_FUTEX 2
#define PARKED_SOCKET 3

/* What both see. */
byte head;            /* records published */
byte mode, number;    /* the parked word: how the waiter waits, and which of its parks this is */
byte bell;            /* changes with each ring */
bool asleep;          /* the waiter sleeps on the bell */
bool rung_socket;     /* bytes lie in the socket */

/* Store buffers. */
byte own_head;                   /* what the sender has stored: own_head - head are in its buffer */
chan stores = [6] of {byte, byte}; /* the waiter's, to the parked word */

byte before; /* IN_TIME: of the records in the buffer at W1, the last */

active proctype sender_buffer()
{
end:	do
	:: atomic { head < own_head -> head++ }
	od
}

active proctype waiter_buffer()
{
	byte m, n;
end:	do
	:: atomic { stores?m,n -> mode = m; number = n }
	od
}

active proctype sender()
{
	byte rung, m, n;

	do
	:: own_head == MESSAGES -> break
	:: else ->
		own_head++;                                     /* R */
#ifdef FENCES
		head == own_head;
#endif
		atomic { m = mode; n = number };                /* P */
		if
		:: m == MAY_PARK ->
#ifndef NO_FENCE_ON_MAY
			head == own_head;
#endif
			atomic { m = mode; n = number }
		:: else
		fi;
		if
		:: m > MAY_PARK && n != rung ->                 /* one ring answers one park */
			rung = n;
			if
			:: m == PARKED_FUTEX ->
				atomic { head == own_head -> bell++ };
				asleep = false                  /* FUTEX_WAKE */
			:: else ->
				atomic { head == own_head -> bell++; rung_socket = true }
			fi
		:: else
		fi
	od
}

/* Store the parked word, with the number of a new park. */
#define ANNOUNCE(m) parks++; stores!m,parks
#define FENCE empty(stores)
#define LOOK if :: head != taken -> goto found :: else fi

active proctype waiter()
{
	byte taken, parks, seen_bell, handlers;
	bool first;

again:	do
	:: taken == MESSAGES -> goto done
	:: taken < MESSAGES && head != taken -> taken++
	:: taken < MESSAGES && head == taken -> break
	od;
	if                                                      /* which depends on how many ends there are */
	:: first = false
	:: first = true
	fi;

look_on:
	ANNOUNCE(MAY_PARK);                                     /* W1 */
#if defined(IN_TIME) && !defined(NO_LOOK_ON)
	FENCE;                                                  /* W1 is seen, early in the time of W2, */
	before = own_head;
	head >= before;                                         /* and what was stored by then, within it */
#endif
	LOOK;                                                   /* W2 */
	if
	:: first -> goto sockets
	:: else
	fi;

bells:	seen_bell = bell;                                       /* W3 */
	ANNOUNCE(PARKED_FUTEX);                                 /* W4 */
#ifndef NO_FENCE_ON_PARKED
	FENCE;
#endif
	LOOK;                                                   /* W5 */
	if                                                      /* W6 */
	:: atomic { bell != seen_bell -> skip }
	:: atomic { bell == seen_bell -> asleep = true };
		if
		:: !asleep
#ifndef IN_TIME
		:: true -> asleep = false; goto over            /* its time is over */
#endif
		fi
	fi;
	LOOK;
	goto look_on;                                           /* woken for nothing */

sockets:
	ANNOUNCE(PARKED_SOCKET);                                /* W7; with `first` as W4 */
#ifdef NO_FENCE_ON_PARKED
	if
	:: first
	:: else -> FENCE
	fi;
#else
	FENCE;
#endif
	if
	:: first
	:: else ->
#if !defined(NO_MEMBARRIER) && !defined(FENCES)
		head = own_head                                 /* membarrier */
#else
		skip
#endif
	fi;
	LOOK;                                                   /* W8 */
	if                                                      /* handlers of signals run before a long sleep */
	:: first
	:: !first -> LOOK
	:: !first && handlers < 2 -> handlers++; rung_socket = false; goto sockets /* and have used the end: it is announced again */
	fi;
	if                                                      /* W9 */
	:: atomic { rung_socket -> rung_socket = false }
#ifndef IN_TIME
	:: first -> first = false; goto over
#endif
	fi;
	LOOK;
	if                                                      /* woken for nothing */
	:: first -> goto look_on
	:: else -> goto sockets
	fi;

over:	first = false;
	goto sockets;

found:	first = false;
	stores!AWAKE,parks;
	goto again;

done:	assert(taken == MESSAGES)
}
