/* kernel.h: what kernel.c, kernel_*.c and link.c share. What users see is in
 * include/multikernel/kernel.h.
 */
#ifndef MULTIKERNEL_CORE_KERNEL_H
#define MULTIKERNEL_CORE_KERNEL_H

#include <stdbool.h>

#include "multikernel/channel.h"
#include "multikernel/console.h"
#include "multikernel/document.h"
#include "multikernel/doorbell.h"
#include "multikernel/kernel.h"
#include "multikernel/resume.h"
#include "multikernel/status.h"

#define NAME_SIZE 256u
#define ERROR_SIZE 1024u
#define MK_PROTOCOL 1     /* as PROTOCOL in multikernel/kernel/protocol.py */
#define NO_END UINT64_MAX /* a deadline that never comes; CLOCK_MONOTONIC, ns */

/* --- link.c: the life of links ----------------------------------------------------------------------------------- */

/* A message that was taken out of the lane while a reply was waited for. */
struct kept {
	struct kept *next;
	struct mk_message message; /* its payload is what follows */
	unsigned char payload[];
};

/* A reply that a request waits for; on the stack of that request. */
struct awaited {
	struct awaited *next;
	uint64_t id;
	struct kept *reply; /* NULL: it has not come */
};

struct link {
	int number;
	int64_t host_number; /* by which the host knows it */
	uint32_t peer;
	uint64_t capacity;
	uint64_t peer_epoch; /* which incarnation of it this link has to do with */
	bool due;            /* that has ended, and another one is to come */
	struct {
		uint64_t epoch; /* 0: none is there */
		int fds[3];     /* its producer, its consumer, a pidfd; those that an end has not gone on with yet */
		bool lives;
	} next;
	bool inherited; /* an incarnation before this one had asked for it, and this one has not yet */
	char name[NAME_SIZE];
	struct mk_sender *tx;
	struct mk_receiver *rx;
	struct mk_counters *counters; /* its row of the status page */
	struct mk_wait_set *pair;     /* with the host lane, for waits on one link; NULL: not needed so far */
	uint64_t last_id;
	struct kept *first, **last; /* messages that are next */
	struct awaited *awaited;
	struct kept *reply; /* of the last request, which the image may still look at */
	bool closing;       /* to be closed as soon as no call is inside of it */
};

/* What one party brings to a link, before the other half has come; see multikernel/ipi/half.py. */
struct half {
	struct mk_sender *tx;
	struct mk_receiver *rx;
	int fds[2]; /* read-only, for the other party: producer, consumer */
};

/* @return 0 or -errno: nothing is left */
int mk_half_make(struct half *half, uint64_t capacity, uint32_t owner_id, uint64_t epoch);
void mk_half_drop(struct half *half);

/* Put the other party's half to this one. @fds: its producer, its consumer, this side of the socket pair, a pidfd; all
 * belong to the half from now on, whatever happens. @return 0; -EPROTO, -errno: the half is gone */
int mk_half_attach(struct half *half, const int fds[4]);

/* Make it the ends of a link; the half is gone. */
void mk_half_join(struct half *half, struct link *link);

void mk_link_free(struct link *link);

/* The same without a word to the peer, who learns it from the end of the process, or goes on with a successor. */
void mk_link_leave(struct link *link);

/* --- kernel.c: the instance --------------------------------------------------------------------------------------- */

struct timer {
	int number;   /* 0: none */
	bool running; /* its handler, which may wait in the loop itself, is not called again from within */
	uint64_t due, period;
	mk_timer_handler *handler;
	void *context;
};

/* Named memory, mapped writable. */
struct memory {
	struct memory *next;
	uint64_t size;
	void *at;
	char name[NAME_SIZE];
};

/* What the host has given, mapped. */
struct data {
	const char *at; /* NULL: it has given none */
	size_t size;
};

struct mk_kernel {
	uint32_t id;
	uint64_t epoch, memory;
	char name[NAME_SIZE], machine[NAME_SIZE];
	char *cmdline, *params; /* the second cut into names and values, each with a zero behind it */
	const char *params_end;
	struct data initrd, panic;
	struct memory *memories;          /* those that were asked for */
	const struct mk_machine *records; /* what the host says of everybody */
	uint64_t records_size;
	bool offered;    /* successors of peers are there */
	bool takes_over; /* links of an incarnation before are handed to it first */
	bool initrd_is_archive;
	int control;              /* -1: there is no host at present */
	uint64_t asked;           /* number of the last request to the host */
	struct mk_receiver *host; /* NULL: there is none at present */
	int instances;            /* in a persistent machine a directory of its; else -1, and the host's end is ours */
	int image;                /* the sealed image, for the next host; else -1 */
	int pipe;                 /* in a persistent machine the console's, for the next host */
	unsigned looks;
	uint64_t alone_since, next_try, pause; /* while there is no host */
	uint64_t hosted_since;                 /* when another host was met; 0: none was */
	struct mk_status *status;
	struct mk_console_writer *console;
	int fds[3];              /* read-only, as the host has them: status page, console, the host lane's consumer */
	struct mk_wait_set *set; /* all links and the host lane */
	struct link **links;
	unsigned link_count, link_room, turn;
	int last_number;        /* of a link */
	struct link *held;      /* the image has a message of it, which lies in the lane ... */
	struct kept *delivered; /* ... or this one, which was kept */
	unsigned inside;        /* handlers that run */
	bool halt, ready;
	struct {
		mk_ipi_handler *call;
		void *context;
	} ipi[MK_VECTORS];
	struct timer *timers;
	unsigned timer_room;
	int last_timer;
	char *text; /* a document that came, or goes: MK_CHANNEL_DOCUMENT bytes */
	char error[ERROR_SIZE];
};

/* Map what a host says of everybody, in place of what the last one did; the descriptor is gone then. @return 0 or -errno */
int mk_map_machine(struct mk_kernel *k, int fd);

/* Make the consumer object of a host lane: k->host, and k->fds[2]. @return 0 or -errno */
int mk_make_host_lane(struct mk_kernel *k);

/* Keep the words for mk_kernel_error. @return code */
int mk_fail(struct mk_kernel *k, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for mk_kernel_attach, before there is an instance. @return code */
int mk_refuse(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- kernel_manifest.c -------------------------------------------------------------------------------------------- */

/* The descriptors that every instance is given. */
struct given {
	int control; /* the control channel */
	int console; /* the read end of its console's pipe; the other one is stdout and stderr */
	int machine; /* what the host says of everybody */
	int lane;    /* the producer object of the host lane */
	int bell;    /* this side of its socket pair */
	int crash;   /* where last words go; -1: nowhere */
};

/* Who this is, into @k, and what it was given. @return 0 or -errno, with the words of mk_refuse */
int mk_read_manifest(struct mk_kernel *k, struct given *given);

/* --- link.c: those of an instance --------------------------------------------------------------------------------- */

struct link *mk_find_link(const struct mk_kernel *k, int number);

/* As mk_find_link, but NULL has said so: -EPIPE, or -EBADF for a number that never was one. */
struct link *mk_open_link(struct mk_kernel *k, int number, int *code);

/* Give it a number and see that it is waited for. On failure it is freed. @return its number or -errno */
int mk_keep_link(struct mk_kernel *k, struct link *link);

/* Close, free, forget. */
void mk_drop_link(struct mk_kernel *k, struct link *link);

/* --- kernel_identity.c -------------------------------------------------------------------------------------------- */

/* Cut a command line into what mk_kernel_param looks up. @params: room for twice as much, and two bytes.
 * @return where they end */
const char *mk_cut_params(const char *cmdline, char *params);

/* --- kernel_data.c ------------------------------------------------------------------------------------------------ */

/* Map what lies in the descriptor, which stays the caller's. @return 0 or -errno */
int mk_map_data(struct data *data, int fd);
void mk_unmap_data(struct data *data);

/* A file of a tar archive, by its path. @return its content; NULL: there is none, or the archive is damaged before it */
const void *mk_find_in_tar(const char *archive, size_t length, const char *path, size_t *size);

/* --- kernel_crash.c ----------------------------------------------------------------------------------------------- */

/* When a signal ends the process, write where it was to @fd, which is this room's from now on. @return 0 or -errno */
int mk_catch_crashes(int fd);
void mk_leave_crashes(void);

/* --- kernel_loop.c ------------------------------------------------------------------------------------------------ */

/* When a wait of @timeout_ms that begins now ends. */
uint64_t mk_deadline(int timeout_ms);

/* Take one record of the link: IPIs are handled, messages are kept for mk_kernel_next, replies for their requests.
 * @return 1: something was there; 0: nothing is; -EPIPE, -EBADMSG, -ENOMEM */
int mk_sort_one(struct mk_kernel *k, struct link *link);

/* Sleep until the set has something, a timer is due, or @until has come. @return 0 or -errno, never -ETIMEDOUT */
int mk_doze(struct mk_kernel *k, struct mk_wait_set *set, uint64_t until);

/* --- kernel_timers.c ---------------------------------------------------------------------------------------------- */

/* Call the handlers of those that are due. */
void mk_run_timers(struct mk_kernel *k);

/* When the next one is due; NO_END: there is none. */
uint64_t mk_next_timer(const struct mk_kernel *k);

/* --- kernel_takeover.c -------------------------------------------------------------------------------------------- */

/* Go on with the links of the incarnation before, which the host hands over. @return 0; -EPIPE: the host is gone */
int mk_take_over(struct mk_kernel *k);

/* A link that was taken over, for who asks for what the incarnation before had asked for. @return its number, or 0 */
int mk_taken_over(struct mk_kernel *k, const char *name, uint64_t capacity);

/* --- kernel_peer.c ------------------------------------------------------------------------------------------------ */

/* There is another host: tell it of all links. */
void mk_face_peers(struct mk_kernel *k);

/* Be told of what the host publishes of the peer after this: mk_fate_changed. */
void mk_watch_peer(struct mk_kernel *k, struct link *link);

/* The host has pushed a successor of a peer. The descriptors are gone then. */
void mk_offer_successor(struct mk_kernel *k, const struct mk_document *document, const int *fds, unsigned count);
void mk_drop_successor(struct link *link);

/* The peer has ended, and another incarnation is due. */
void mk_expect_peer(struct mk_kernel *k, struct link *link);

/* After -EPIPE: whether the peer goes on, or is to. @wait for the host to say so, for a second at most. A wait set of the
 * link alone is made anew by this. */
bool mk_peer_goes_on(struct mk_kernel *k, struct link *link, bool wait);

/* After mk_fate_changed: if that is a new incarnation, go on with it. Likewise. */
void mk_peer_changed(struct mk_kernel *k, struct link *link, bool wait);

/* Go on with all successors that are there. */
void mk_settle_peers(struct mk_kernel *k);

/* --- kernel_memory.c ---------------------------------------------------------------------------------------------- */

void mk_unmap_memories(struct mk_kernel *k);

/* --- kernel_host.c ------------------------------------------------------------------------------------------------ */

/* What the host wants; a look at a page when it wants nothing. @return 0; -EPIPE: the host is gone; -EBADMSG */
int mk_serve_host(struct mk_kernel *k);

/* Take the next document. @return 1; 0: there is none; -EPIPE: the host is gone; -EBADMSG, -errno */
int mk_take_document(struct mk_kernel *k, struct mk_document *document, int *fds, unsigned *count);

/* Something that answers no request of ours; the descriptors are gone then. */
void mk_serve_document(struct mk_kernel *k, const struct mk_document *document, const int *fds, unsigned count);

/* Ask the host, and wait for its answer. @writer: the request, without its id and its end
 * @return 0: @ok is in k->text, @fds the caller's; -errno, with the host's words */
int mk_ask(struct mk_kernel *k, struct mk_document_writer *writer, const int *given, unsigned given_count,
	   uint64_t until, struct mk_document *ok, int *fds, unsigned *count);

/* Make a link of a half that faces its peer. @terms: link, peer, peer_name
 * @return its number, or -errno: nothing is left */
int mk_join_link(struct mk_kernel *k, struct half *half, uint64_t capacity, const struct mk_document *terms);

/* Finish a document and put it on the control channel. What a host that was killed does not hear the next one knows.
 * @return 0 or -errno */
int mk_say(struct mk_kernel *k, struct mk_document_writer *writer, const int *fds, unsigned count);

/* --- kernel_usher.c ------------------------------------------------------------------------------------------------ */

/* Whether the host has ended, asked of the system once in many calls. */
bool mk_host_is_gone(struct mk_kernel *k);

/* The next question of that is put to the system, whatever the last one was: for who looks seldom. */
void mk_doubt_host(struct mk_kernel *k);

/* The host was killed. @return 0: another will come, and there is none until then; -EPIPE: the machine ends */
int mk_lose_host(struct mk_kernel *k);

/* Without a host, when it is time for that: go to the next one, if one is there. */
void mk_find_host(struct mk_kernel *k);

/* Wait for a host, and for nothing else. @return 0 or -ETIMEDOUT */
int mk_await_host(struct mk_kernel *k, uint64_t until);

#endif
