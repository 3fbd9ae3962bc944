/* channel.h: documents, with open descriptors beside them, over a control connection: an AF_UNIX socket of type
 * SOCK_SEQPACKET, so that a document arrives whole or not at all. The slow path; messages never travel here.
 * multikernel/shm/channel.py is the same for Python.
 */
#ifndef MULTIKERNEL_CHANNEL_H
#define MULTIKERNEL_CHANNEL_H

#include <stdbool.h>

#include "multikernel/memory.h"

#define MK_CHANNEL_DOCUMENT 65536u /* most bytes of one document */
#define MK_CHANNEL_DESCRIPTORS 16u /* most descriptors with one. Even: room for an odd number lets one more in */

/* Send one document, whole, with copies of @count descriptors.
 * @param wait  without limit, while the other side has not read what is under way
 * @return 0; -EAGAIN: it would have to wait; -EPIPE: the other side is gone; -EMSGSIZE; -EBADF, -ETOOMANYREFS ... */
MK_API int mk_channel_send(int channel, const char *text, size_t length, const int *fds, unsigned count, bool wait);

/* Take the next document, if one is there; never waits.
 * @param text   MK_CHANNEL_DOCUMENT bytes
 * @param fds    MK_CHANNEL_DESCRIPTORS of them; those that came are the caller's to close
 * @param count  how many came; 0 also where this process may not open as many (RLIMIT_NOFILE)
 * @return its length; -EAGAIN: none is there; -EPIPE: the other side is gone and all was taken; -EBADMSG: too large, or
 *         with too many descriptors: it is dropped, and its descriptors are closed */
MK_API int mk_channel_receive(int channel, char *text, int *fds, unsigned *count);

/* Wait until there is something to take, or the end. @return 0; -ETIMEDOUT (@timeout_ns < 0: never) */
MK_API int mk_channel_wait(int channel, int64_t timeout_ns);

#endif
