/* abi.h: the layout of every page that two processes share.
 *
 * Nothing here is code. Each structure is written by exactly one process for as long as it lives and mapped
 * read-only by everyone else, so this file says who that writer is. Any change of layout or of meaning raises
 * MK_ABI_VERSION; an attach that finds another version is refused with both numbers.
 *
 * The Python side reads these structures through multikernel/_core/cdefs.h, which repeats the fields it needs;
 * the compiler fills in the offsets there, so the two cannot disagree silently.
 */
#ifndef MULTIKERNEL_ABI_H
#define MULTIKERNEL_ABI_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "multikernel/message.h"

#ifdef __cplusplus
#error "the ABI header is C11; C++ images use kernel.h"
#endif

#define MK_ABI_VERSION 1u
#define MK_MAGIC 0x4c4e524b49544c4dULL /* "MLTIKRNL" as bytes in memory */

#define MK_LINE 128    /* two 64-byte lines: x86 fetches lines in pairs, some AArch64 lines are 128 bytes */
#define MK_VECTORS 64u /* IPI vectors a lane */
#define MK_INSTANCES 512u
#define MK_CLIENT_ID 512u /* sender ids from here up are clients, below are instances; 0 is the host */
#define MK_NAME_SIZE 68   /* 64 bytes of name, a terminating zero, padding */

/* What a memory object is. The value stands in its header and is checked on attach. */
enum mk_kind {
	MK_KIND_PRODUCER = 1, /* head, bell, IPI counters and the data of a lane: its sender writes it */
	MK_KIND_CONSUMER = 2, /* tail and bell of a lane: its receiver writes it */
	MK_KIND_STATUS = 3,   /* what an instance says of itself */
	MK_KIND_CONSOLE = 4,  /* what an instance printed */
	MK_KIND_MACHINE = 5,  /* what the host says of the machine and of every instance */
	MK_KIND_ROSTER = 6,   /* how many receivers a broadcast has had: who made it writes it */
};

/* Begins every memory object. Written before a descriptor of it goes out, except owner and epoch of the two
 * ends of a Ring, which are written when the end is claimed. */
struct mk_object {
	uint64_t magic;
	uint32_t abi;
	uint32_t kind;
	uint64_t size;        /* of the whole object, bytes */
	uint64_t capacity;    /* lanes: of the data area, a power of two; console: of its text; else 0 */
	uint32_t data_offset; /* where the data area begins: one page of the machine that made it */
	uint32_t element;     /* 0: records; else the size of one element, bytes */
	uint32_t flags;       /* MK_FENCES, MK_OVERWRITES */
	uint32_t owner_id;    /* instance or client id; 0 outside a machine */
	uint64_t epoch;       /* incarnation of the owner */
	uint32_t owner_pid;
	uint32_t reserved;
};

#define MK_FENCES 1u     /* this side fences after each publish: the other may sleep without a membarrier */
#define MK_OVERWRITES 2u /* a broadcast that waits for nobody: what lies before `oldest` is overwritten */

/* --- lanes ---------------------------------------------------------------------------------------------- */

/* Life of one end of a lane, in its own page. */
enum mk_end_state {
	MK_END_UNCLAIMED = 0,
	MK_END_OPEN = 1,
	MK_END_CLOSED = 2, /* closed by its owner; a dead owner is known by its pidfd instead */
};

/* How the owner of a page waits, for the other side to see. The low two bits; the bits above count the parks,
 * so that one park is rung once however many messages follow. */
enum mk_parked {
	MK_AWAKE = 0,
	MK_MAY_PARK = 1,      /* looks on for some microseconds: fence and look again before ringing */
	MK_PARKED_FUTEX = 2,  /* sleeps on the other side's bell word */
	MK_PARKED_SOCKET = 3, /* sleeps in poll or epoll on its side of the lane's socket pair */
};
#define MK_PARKED_MODE 3u

#define MK_LAST_WORDS 5u /* what is left of head's line: a header and 24 bytes of payload */
#define MK_LAST_PAYLOAD 24u

/* Written by the sender alone. head, ipi_sequence and bell share the line that a looking receiver loads;
 * a bell or an IPI is rare, so the line moves no more often than head alone would make it. The record sent last stands
 * in that line as well if it is short: a receiver that waited for it then needs no second line. */
struct mk_producer {
	struct mk_object object;
	_Alignas(MK_LINE) _Atomic uint64_t head;   /* bytes ever published */
	_Atomic uint32_t ipi_sequence;             /* changes with every IPI */
	_Atomic uint32_t bell;                     /* futex word: when it was last rung, CLOCK_MONOTONIC, ns */
	_Atomic uint64_t last_end;                 /* where the record in last ends; 0: there is none */
	_Atomic uint64_t last[MK_LAST_WORDS];      /* a copy of it, from its header on */
	_Atomic uint64_t begun;                    /* broadcast: records ever published, stored before head */
	_Atomic uint64_t published;                /* broadcast: the same, stored after head */
	_Alignas(MK_LINE) _Atomic uint32_t parked; /* enum mk_parked: the sender waits for room */
	_Atomic uint32_t state;                    /* enum mk_end_state */
	_Atomic uint32_t cpu;                      /* where it last ran, for the other's choice to spin; ~0: unknown */
	_Alignas(MK_LINE) _Atomic uint64_t ipi[MK_VECTORS]; /* how often each vector was ever raised */
	_Alignas(MK_LINE) _Atomic uint64_t oldest;          /* MK_OVERWRITES: where the oldest whole record begins */
};

/* Written by the receiver alone. */
struct mk_consumer {
	struct mk_object object;
	_Alignas(MK_LINE) _Atomic uint64_t tail;   /* bytes ever released */
	_Atomic uint32_t bell;                     /* as the sender's, for a sender that waits for room */
	_Alignas(MK_LINE) _Atomic uint32_t parked; /* enum mk_parked: the receiver waits for messages */
	_Atomic uint32_t state;
	_Atomic uint32_t cpu;
	/* For a successor of the receiver (resume.h). */
	_Alignas(MK_LINE) _Atomic uint64_t seen; /* what lies before it and is not released was handed to the program */
	_Alignas(MK_LINE) _Atomic uint64_t taken[MK_VECTORS]; /* how often each vector was taken: of the sender's ipi */
};

/* Written by who made the broadcast alone. */
struct mk_roster {
	struct mk_object object;
	_Alignas(MK_LINE) _Atomic uint32_t count; /* of the receivers made so far */
	_Atomic uint32_t state;                   /* enum mk_end_state: MK_END_CLOSED: there will be no more */
};

/* Begins every record; the payload follows, then padding to MK_RECORD_ALIGN. */
struct mk_record {
	uint32_t length; /* of the payload, bytes */
	uint16_t type;
	uint16_t subtype;
	uint64_t id; /* MK_ID_REPLY, MK_ID_REQUEST and a number of the sender's; broadcast: counts from 0 */
};

#define MK_RECORD_ALIGN 8u

/* Subtypes of MK_MSG_SYSTEM: the multikernel tree's numbers, as the types in message.h. */
#define MK_SYS_HEARTBEAT 0x3001
#define MK_SYS_SHUTDOWN 0x3002
#define MK_SYS_SHUTDOWN_ACK 0x3003
#define MK_SYS_HALTED 0x3004
#define MK_SHUTDOWN_GRACEFUL 0x01

/* --- pages for watchers ------------------------------------------------------------------------------------ */

/* A value that is published whole: two copies, and a count that says which one to read (a latch: the idea is
 * Linux's seqcount_latch). Odd: copy 0 is being written, read copy 1. Even: read copy 0. A writer that dies in
 * the middle leaves a whole copy behind, so nobody waits for it. */
struct mk_latch {
	_Atomic uint32_t sequence;
	uint32_t reserved;
};

/* What happened on one end of a lane, or on all of an instance: only ever grows. */
struct mk_counters {
	_Atomic uint64_t sent, sent_bytes;
	_Atomic uint64_t received, received_bytes;
	_Atomic uint64_t ipis_sent, ipis_received;
	_Atomic uint64_t spins;    /* waits that ended without sleeping */
	_Atomic uint64_t parks;    /* waits that slept */
	_Atomic uint64_t wakes;    /* times the other side was rung */
	_Atomic uint64_t spurious; /* wake-ups that found nothing */
	_Atomic uint64_t stalls;   /* sends that found the ring full */
};

#define MK_STATUS_LINKS 60u

/* One link of an instance, in its status page. */
struct mk_link_status {
	_Atomic uint32_t used;     /* 0: free; the rest is then meaningless */
	_Atomic uint32_t peer;     /* id of the party at the other end */
	_Atomic uint64_t capacity; /* bytes, each way */
	struct mk_counters counters;
	_Alignas(MK_LINE) char unused[0];
};

/* How far an instance has come, by its own account. */
enum mk_phase {
	MK_PHASE_SPAWNED = 0,
	MK_PHASE_PINNED = 1,
	MK_PHASE_MAPPED = 2,
	MK_PHASE_IMPORTED = 3,
	MK_PHASE_ACTIVE = 4, /* main has been entered */
	MK_PHASE_READY = 5,  /* its first wait, or kernel.ready() */
	MK_PHASE_ENDING = 6, /* halt was asked, or main has returned */
};

/* Written by the instance alone: what it says of itself. */
struct mk_status {
	struct mk_object object;
	_Alignas(MK_LINE) _Atomic uint32_t phase; /* enum mk_phase */
	_Atomic uint32_t cpu;                     /* where it last ran, by sched_getcpu */
	_Atomic uint64_t heartbeat;               /* CLOCK_MONOTONIC, ns: when its loop last looked */
	_Atomic uint64_t phase_time[8];           /* CLOCK_MONOTONIC, ns: when each phase was reached; 0: not yet */
	_Atomic uint32_t awake; /* its event loop runs: its lanes say parked all the time, and now that does not hold */
	_Alignas(MK_LINE) struct mk_counters counters;      /* of links that are gone; add those of links[] */
	_Alignas(MK_LINE) _Atomic uint64_t ipi[MK_VECTORS]; /* IPIs received, by vector */
	_Alignas(MK_LINE) struct mk_link_status links[MK_STATUS_LINKS];
};

/* The console: lines, each a record; the oldest are overwritten. tail moves before what it leaves is
 * overwritten, so a reader copies, looks at tail again and drops what was overtaken. */
struct mk_console {
	struct mk_object object;
	_Alignas(MK_LINE) _Atomic uint64_t head; /* bytes ever written */
	_Atomic uint64_t tail;                   /* where the oldest whole line begins */
	_Atomic uint32_t copied; /* bytes of the pipe that stand here and may still be in the pipe, too */
};

struct mk_console_line {
	uint32_t length; /* of the text, bytes; padded to 8 */
	uint16_t level;  /* syslog's: 3 error, 4 warning, 6 info, 7 debug */
	uint16_t flags;  /* MK_CONSOLE_PARTIAL */
	uint64_t time;   /* CLOCK_MONOTONIC, ns */
};

#define MK_CONSOLE_PARTIAL 1u /* no newline followed */

/* States of an instance: the multikernel tree's numbers, and standby. */
enum mk_state {
	MK_STATE_EMPTY = 0,
	MK_STATE_READY = 1,
	MK_STATE_LOADED = 2,
	MK_STATE_ACTIVE = 3,
	MK_STATE_FAILED = 4,
	MK_STATE_STANDBY = 5,
};

#define MK_CPU_WORDS 16u /* 1024 cpus */
#define MK_END_TEXT 1024
#define MK_CMDLINE_SIZE 256
#define MK_CONSOLE_TAIL 2432

enum mk_restart {
	MK_RESTART_NEVER = 0,
	MK_RESTART_ON_FAILURE = 1,
	MK_RESTART_ALWAYS = 2,
};

enum mk_on_hang {
	MK_ON_HANG_REPORT = 0,
	MK_ON_HANG_DUMP = 1,
	MK_ON_HANG_REBOOT = 2,
};

#define MK_INSTANCE_CORE 1u    /* it stays dumpable */
#define MK_INSTANCE_CRASHED 2u /* what runs is its crash image */

/* Written by the host: one instance. A latch of two copies in one slot of the machine object. */
struct mk_instance_record {
	uint32_t used; /* 0: no such instance */
	uint32_t id;
	uint32_t state;      /* enum mk_state */
	uint32_t pid;        /* 0: none */
	uint64_t epoch;      /* 0: never booted */
	uint64_t state_time; /* CLOCK_MONOTONIC, ns: since when */
	uint64_t memory;     /* budget, bytes */
	uint64_t named;      /* of that, what its named memory takes, bytes */
	uint64_t initrd;     /* and its initrd */
	uint32_t memories;   /* how many of them there are */
	uint32_t due;        /* a successor of its last incarnation is about to boot: links wait for it */
	uint32_t image;      /* id of its image; 0: none */
	uint32_t exclusive;
	uint64_t cpus[MK_CPU_WORDS];
	char name[MK_NAME_SIZE];
	uint32_t end_code;
	uint32_t end_signal;
	uint32_t end_forced;
	char end_reason[32];             /* "": it never ran; else why its last incarnation ended */
	char end_traceback[MK_END_TEXT]; /* the tail of it */
	char cmdline[MK_CMDLINE_SIZE];
	/* What becomes of it without being asked for; times are CLOCK_MONOTONIC, ns, and 0 where there is none. */
	uint64_t restart_at;                /* when it is booted again */
	uint64_t watchdog;                  /* ns without a sign of life after which it is hung; 0: nobody looks */
	uint64_t hung_since;                /* its last sign of life, once it is hung */
	uint64_t panic;                     /* epoch of the incarnation whose panic report is kept */
	uint64_t claimed;                   /* when its newest boot began */
	uint32_t restart;                   /* enum mk_restart */
	uint32_t restarts;                  /* in a row */
	uint32_t restart_limit;             /* of them */
	uint32_t on_hang;                   /* enum mk_on_hang */
	uint32_t crash_image;               /* id of its crash image; 0: none */
	uint32_t flags;                     /* MK_INSTANCE_* */
	char console_tail[MK_CONSOLE_TAIL]; /* bytes still in the console's pipe when it died */
};

struct mk_instance_slot {
	struct mk_latch latch;
	struct mk_instance_record copies[2];
	_Alignas(4096) char end[0];
};

#define MK_IMPORTS_SIZE 1024

/* Written by the host: one image. */
struct mk_image_record {
	uint32_t used;
	uint32_t id;
	uint64_t size;      /* bytes */
	uint32_t users;     /* instances that have it loaded */
	char kind[12];      /* "script", "module", "pyz", "directory", "native" */
	char digest[65];    /* SHA-256, hex */
	char signature[24]; /* id of the key by which it is signed, "unsigned", or "unchecked" */
	char name[MK_NAME_SIZE + 27];
	char imports[MK_IMPORTS_SIZE]; /* "NAME VERSION, ...", as many as fit; then "..." */
};

struct mk_image_slot {
	struct mk_latch latch;
	struct mk_image_record copies[2];
};

#define MK_IMAGES 128u

/* Written by the host: the machine. */
struct mk_machine_record {
	char name[MK_NAME_SIZE];
	uint32_t host_pid;
	uint32_t persistent;
	uint32_t clients;
	uint32_t trusted;            /* keys of which one must have signed an image; 0: any is loaded */
	uint64_t boot_time;          /* CLOCK_MONOTONIC, ns */
	uint64_t wall_time;          /* CLOCK_REALTIME, ns, at boot_time */
	uint64_t memory;             /* of the pool, bytes */
	uint64_t memory_used;        /* reserved by instances, bytes */
	uint64_t cpus[MK_CPU_WORDS]; /* of the pool */
};

struct mk_machine {
	struct mk_object object;
	_Alignas(MK_LINE) struct mk_latch latch;
	struct mk_machine_record copies[2];
	_Alignas(4096) struct mk_image_slot images[MK_IMAGES];
	_Alignas(4096) struct mk_instance_slot instances[MK_INSTANCES];
};

/* --- the layout, fixed ---------------------------------------------------------------------------------------- */

_Static_assert(sizeof(struct mk_object) == 64, "object header");
_Static_assert(offsetof(struct mk_producer, head) == 128, "producer.head");
_Static_assert(offsetof(struct mk_producer, ipi_sequence) == 136, "producer.ipi_sequence");
_Static_assert(offsetof(struct mk_producer, bell) == 140, "producer.bell");
_Static_assert(offsetof(struct mk_producer, last_end) == 144, "producer.last_end");
_Static_assert(offsetof(struct mk_producer, parked) == 256, "producer.parked");
_Static_assert(offsetof(struct mk_producer, begun) == 192, "producer.begun: last ends with the line of head");
_Static_assert(offsetof(struct mk_producer, ipi) == 384, "producer.ipi");
_Static_assert(offsetof(struct mk_producer, oldest) == 896, "producer.oldest");
_Static_assert(sizeof(struct mk_producer) <= 4096, "the producer's words fit the smallest page");
_Static_assert(offsetof(struct mk_consumer, tail) == 128, "consumer.tail");
_Static_assert(offsetof(struct mk_consumer, parked) == 256, "consumer.parked");
_Static_assert(offsetof(struct mk_consumer, seen) == 384, "consumer.seen");
_Static_assert(offsetof(struct mk_consumer, taken) == 512, "consumer.taken");
_Static_assert(sizeof(struct mk_consumer) <= 4096, "the consumer's words fit the smallest page");
_Static_assert(offsetof(struct mk_roster, count) == 128, "roster.count");
_Static_assert(sizeof(struct mk_record) == 16, "record header");
_Static_assert(sizeof(struct mk_counters) == 88, "counters");
_Static_assert(sizeof(struct mk_link_status) == 128, "link status");
_Static_assert(offsetof(struct mk_status, phase) == 128, "status.phase");
_Static_assert(offsetof(struct mk_status, counters) == 256, "status.counters");
_Static_assert(offsetof(struct mk_status, ipi) == 384, "status.ipi");
_Static_assert(offsetof(struct mk_status, links) == 896, "status.links");
_Static_assert(sizeof(struct mk_console_line) == 16, "console line");
_Static_assert(sizeof(struct mk_instance_slot) == 8192, "instance slot");
_Static_assert(sizeof(struct mk_image_slot) == 2488, "image slot");
_Static_assert(offsetof(struct mk_machine, instances) % 4096 == 0, "instances begin on a page");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "atomics carry no lock");

#endif
