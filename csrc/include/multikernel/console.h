/* console.h: what an instance prints. A ring of lines in the instance's own memory object, the oldest
 * overwritten, so that printing never blocks and never fills a disk. Anybody who has its descriptor reads along.
 */
#ifndef MULTIKERNEL_CONSOLE_H
#define MULTIKERNEL_CONSOLE_H

#include <stddef.h>

#include "multikernel/memory.h"

#define MK_CONSOLE_LINE_MAX 1000u /* bytes of text in one line; longer ones go on in the next, marked partial */

/* The writing side; private to the process, safe to use from several of its threads. A fork's copy writes nothing, and
 * finish only frees its memory. */
struct mk_console_writer;

/* Make a console of @capacity bytes (a power of two). @return a read-only descriptor to hand out, or -errno */
MK_API int mk_console_create(uint64_t capacity, uint32_t owner_id, uint64_t epoch, struct mk_console_writer **out);

/* Write text; every newline ends a line. */
MK_API void mk_console_write(struct mk_console_writer *writer, uint16_t level, const char *text, size_t length);

/* Start a thread that copies everything from @fd, the read end of a pipe, until its end of file or
 * mk_console_finish. It runs without the interpreter, so a hung program's output still arrives.
 * @return 0 or -errno; the descriptor belongs to the writer then */
MK_API int mk_console_drain(struct mk_console_writer *writer, int fd);

/* Take what is left in the pipe, end the thread, unmap, free. */
MK_API void mk_console_finish(struct mk_console_writer *writer);

/* Map a console for reading. @return 0; -EPROTO and *why; -errno */
MK_API int mk_console_open(int fd, const struct mk_console **console, struct mk_object *header, uint32_t *why);
MK_API void mk_console_close(const struct mk_console *console, const struct mk_object *header);

/* Copy the line at *@position into @text (MK_CONSOLE_LINE_MAX bytes) and move *@position past it; a position that
 * was overtaken moves to the oldest line first.
 * @return 1; 0: there is none yet (or the writer is faster than we: look again); -EBADMSG: that is no console */
MK_API int mk_console_next(const struct mk_console *console, const struct mk_object *header, uint64_t *position,
			   struct mk_console_line *line, char *text);

/* After the writer's death: so many bytes at the beginning of what its pipe still holds may be the console's last ones
 * as well. They are if they are equal. */
MK_API uint32_t mk_console_copied(const struct mk_console *console);

#endif
