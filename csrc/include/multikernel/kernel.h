/* kernel.h: what a native image is written against. C11 and C++.
 *
 *     #include <multikernel/kernel.h>
 *
 *     int main(void)
 *     {
 *             struct mk_message m;
 *             mk_kernel *k = mk_kernel_attach();
 *
 *             if (!k)
 *                     return 1;
 *             while (mk_kernel_next(k, &m, -1) > 0)
 *                     mk_kernel_reply(k, &m, m.payload, m.length);
 *             return mk_kernel_exit(k, 0);
 *     }
 *
 * A native instance is a peer of those whose image is Python: same links, messages, requests, IPIs, same states.
 *
 * A kernel is one thread's. Handlers of IPIs and of timers run in that thread, inside mk_kernel_next, mk_kernel_request
 * and mk_kernel_connect, between messages, never in the middle of the image's own code; the host is served there, too. A
 * handler may send, request, connect and close; mk_kernel_next is refused to it.
 *
 * Links have numbers, from 1 up. One that is closed, or whose peer is gone, has none any more: what is asked of it is
 * -EPIPE. Times are milliseconds where a call waits (-1: without limit), nanoseconds of timers.
 *
 * Calls return 0, a number from 0 up where it says so, or -errno; mk_kernel_error has it in words.
 */
#ifndef MULTIKERNEL_KERNEL_H
#define MULTIKERNEL_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "multikernel/message.h"

#ifndef MK_API
#define MK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mk_kernel mk_kernel;

/* --- its life --------------------------------------------------------------------------------------------------- */

/* Become the instance that this process was started as: closed to its siblings, its own pages made and handed to the
 * host; then active. To be called once, first thing in main. stdout and stderr are its console; lines are written whole.
 * A fatal signal has a handler from then on, on a stack of its own, that writes the backtrace for the panic report.
 * @return NULL: errno says why (ENOENT: this program was not booted as an image), mk_kernel_error(NULL) in words */
MK_API mk_kernel *mk_kernel_attach(void);

/* The end: tell the host, let everything go. `return mk_kernel_exit(k, status);` ends main. Links are not closed by it:
 * an incarnation that follows goes on with them, and if none does, peers see them closed.
 * @param status  0 to 255; what is not 0 makes it a failed instance
 * @return status, as an exit status has it */
MK_API int mk_kernel_exit(mk_kernel *k, int status);

/* Say that it can serve now, as `boot(until="ready")` waits for. Else the first wait says it. */
MK_API int mk_kernel_ready(mk_kernel *k);

/* What the last call that failed has to say of it. NULL for k: of mk_kernel_attach. Never NULL; valid until the next. */
MK_API const char *mk_kernel_error(const mk_kernel *k);

/* --- who it is -------------------------------------------------------------------------------------------------- */

MK_API uint32_t mk_kernel_id(const mk_kernel *k); /* 1 to 511 */
MK_API const char *mk_kernel_name(const mk_kernel *k);
MK_API uint64_t mk_kernel_epoch(const mk_kernel *k); /* which incarnation this is, from 1 up */
MK_API const char *mk_kernel_machine(const mk_kernel *k);
MK_API uint64_t mk_kernel_budget(const mk_kernel *k);     /* of memory, bytes */
MK_API const char *mk_kernel_cmdline(const mk_kernel *k); /* what `load` was given for it */

/* One parameter of the command line: `port=80 name="two words" verbose`. The last counts.
 * @return its value, "" of one without; NULL: there is none. Valid until mk_kernel_exit */
MK_API const char *mk_kernel_param(const mk_kernel *k, const char *name);

/* The data that `load` was given for it, read-only.
 * @param path    NULL: all of it, of a directory the tar archive that it travels as; else a file of the directory
 * @param length  bytes
 * @return NULL: there is none, or no such file. Valid until mk_kernel_exit */
MK_API const void *mk_kernel_initrd(const mk_kernel *k, const char *path, size_t *length);

/* In a crash image: the report of the incarnation in whose place it runs, a JSON object (multikernel/kernel/panic.py).
 * @return NULL: this is none. Valid until mk_kernel_exit */
MK_API const char *mk_kernel_panic(const mk_kernel *k, size_t *length);

/* Named memory, writable: private state that outlives incarnations, for who follows this one. Made all zero when it is
 * asked for first; asking again gives the same.
 * @param size  bytes, rounded up to whole pages
 * @return 1: it was made now; 0: an incarnation before has left it, or it was asked for already; -ENOSPC: another size, or
 *         no room for it; -EINVAL, -ENOMEM. Valid until mk_kernel_exit */
MK_API int mk_kernel_memory(mk_kernel *k, const char *name, uint64_t size, void **memory);

/* --- messages --------------------------------------------------------------------------------------------------- */

/* Wait for the next message of any link; they take turns. The message before it is done with by that: should this
 * incarnation die earlier, it is still there for the next.
 * @param m  its payload lies in the ring, and is valid until the next call
 * @return 1; 0: the host asks for a halt, and main should return; -ETIMEDOUT; -EPIPE: the host is gone; -EBUSY: from a
 *         handler */
MK_API int mk_kernel_next(mk_kernel *k, struct mk_message *m, int timeout_ms);

/* Answer a message, copied; waits while the lane is full. To a request this is the reply, else a message like others.
 * @return 0; -EPIPE: who sent it is gone; -EMSGSIZE */
MK_API int mk_kernel_reply(mk_kernel *k, const struct mk_message *m, const void *payload, size_t length);
MK_API int mk_kernel_reply_as(mk_kernel *k, const struct mk_message *m, uint16_t type, uint16_t subtype,
			      const void *payload, size_t length);

/* Send one message, copied; waits while the lane is full.
 * @param type  MK_MSG_USER, or what the tree's other types mean; MK_MSG_SYSTEM and MK_MSG_RESOURCE are the host's alone
 * @return 0; -ETIMEDOUT: no room, nothing was sent; -EPIPE; -EMSGSIZE: larger than the lane; -EINVAL: such a type */
MK_API int mk_kernel_send(mk_kernel *k, int link, uint16_t type, uint16_t subtype, const void *payload, size_t length,
			  int timeout_ms);

/* Send one message and wait for its reply. Other messages that come meanwhile stay for mk_kernel_next.
 * @param reply  valid until the next request on this link
 * @return 0; -ETIMEDOUT: should the reply come later it is dropped; -EPIPE; -EMSGSIZE; -EINVAL; -ENOMEM */
MK_API int mk_kernel_request(mk_kernel *k, int link, uint16_t type, uint16_t subtype, const void *payload,
			     size_t length, struct mk_message *reply, int timeout_ms);

/* --- links ------------------------------------------------------------------------------------------------------ */

/* A link to another instance of this machine. Who asks for what the incarnation before had asked for, with the same
 * capacity, gets the same link. Its messages, too, come out of mk_kernel_next. Links that others ask for
 * are taken while this one waits, and are known by the messages that come.
 * @param capacity  bytes each way, rounded up to a power of two; 0: 1 MiB
 * @return its number; -ENOENT: there is no such instance; -ENOTCONN: it is not active; -ENOSPC: it has no memory for
 *         that; -ETIMEDOUT: it did not answer, it does when it looks for messages; -EPIPE: it ended; -ENOMEM, -EMFILE */
MK_API int mk_kernel_connect(mk_kernel *k, const char *name, uint64_t capacity, int timeout_ms);

/* Close a link: the peer still gets all that was sent. A message of it that is not done with is not valid any more. */
MK_API int mk_kernel_close(mk_kernel *k, int link);

/* The name of the party at the other end, NULL: there is no such link. Valid as long as the link. */
MK_API const char *mk_kernel_peer(const mk_kernel *k, int link);

/* Its id: 1 to 511 an instance, from 512 a client; 0: there is no such link. */
MK_API uint32_t mk_kernel_peer_id(const mk_kernel *k, int link);

/* The open links, those of the incarnation before first: the number after @link; 0 begins, and ends. */
MK_API int mk_kernel_next_link(const mk_kernel *k, int link);

/* --- interrupts and timers -------------------------------------------------------------------------------------- */

/* Interrupt the peer; never waits. IPIs of one vector coalesce: its handler learns how many there were.
 * @param vector  0 to 63 */
MK_API int mk_kernel_ipi(mk_kernel *k, int link, unsigned vector);

/* Call @handler for IPIs of @vector by any link, in place of the one before; NULL: none. Those that were raised before a
 * message was sent are handled before it is returned; lowest vector first. */
typedef void mk_ipi_handler(mk_kernel *k, unsigned vector, uint64_t count, void *context);
MK_API int mk_kernel_on_ipi(mk_kernel *k, unsigned vector, mk_ipi_handler *handler, void *context);

/* Call @handler every so often, first after one @period, or once. It is late while the image does something else, then
 * learns how many times it was due. A sleep ends on a whole millisecond.
 * @return the timer's number, from 1 up; -EINVAL: a period of 0; -ENOMEM */
typedef void mk_timer_handler(mk_kernel *k, uint64_t count, void *context);
MK_API int mk_kernel_every(mk_kernel *k, uint64_t period_ns, mk_timer_handler *handler, void *context);
MK_API int mk_kernel_after(mk_kernel *k, uint64_t delay_ns, mk_timer_handler *handler, void *context);

/* Call it no more. @return 0; -ENOENT: there is no such timer, or it was for once and is over */
MK_API int mk_kernel_cancel(mk_kernel *k, int timer);

/* --- the console ------------------------------------------------------------------------------------------------ */

/* Write a line, as printf does; never waits, from any thread.
 * @param level  syslog's: 3 error, 4 warning, 6 info, 7 debug */
MK_API void mk_kernel_log(mk_kernel *k, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif

#endif
