/* document.h: the documents of the control channel, as C reads and writes them. A document is one JSON object.
 *
 * What is read is input: it is checked whole, with bounds, before anything in it is looked up. Nothing is allocated, and
 * no value is kept: each is looked up in the text, which stays the caller's. multikernel/shm/channel.py is the same for
 * Python; what one writes the other reads.
 */
#ifndef MULTIKERNEL_DOCUMENT_H
#define MULTIKERNEL_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "multikernel/memory.h"

#define MK_DOCUMENT_DEPTH 32u /* most objects and arrays inside one another */
#define MK_DOCUMENT_KEY 64u   /* keys that are looked up are shorter, bytes */

/* A JSON object that was checked, where it lies. */
struct mk_document {
	const char *text;
	size_t length;
};

/* Check that @text is one JSON object and nothing else, with strings of valid UTF-8.
 * @return 0; -EBADMSG: it is not, or nested deeper than MK_DOCUMENT_DEPTH */
MK_API int mk_document_read(struct mk_document *document, const char *text, size_t length);

/* Look a member up. Of several with the same key the last counts.
 * @return 0; -ENOENT: there is none; -EINVAL: it is of another kind */
MK_API int mk_document_number(const struct mk_document *document, const char *key, int64_t *value); /* a whole one */
MK_API int mk_document_truth(const struct mk_document *document, const char *key, bool *value);
MK_API int mk_document_object(const struct mk_document *document, const char *key, struct mk_document *value);

/* Copy a string, with a zero behind it. Escapes that stand for the odd bytes of a file name (\udc80 to \udcff, as
 * os.fsdecode makes them) become those bytes.
 * @return 0; -ENOENT; -EINVAL: no string, or one that holds a zero; -EMSGSIZE: longer than @room - 1 bytes */
MK_API int mk_document_string(const struct mk_document *document, const char *key, char *value, size_t room);

/* Writes one object into a buffer of the caller's. What does not fit is noticed at the end. */
struct mk_document_writer {
	char *text;
	size_t room, length;
	bool full;
};

/* Keys are written as they are: plain ASCII without quotes. Bytes of a value that are not UTF-8 become escapes. */
MK_API void mk_document_begin(struct mk_document_writer *writer, char *text, size_t room);
MK_API void mk_document_put_string(struct mk_document_writer *writer, const char *key, const char *value);
MK_API void mk_document_put_number(struct mk_document_writer *writer, const char *key, int64_t value);
MK_API void mk_document_put_seconds(struct mk_document_writer *writer, const char *key,
				    int64_t milliseconds); /* >= 0 */
MK_API void mk_document_put_null(struct mk_document_writer *writer, const char *key);
MK_API void mk_document_open(struct mk_document_writer *writer, const char *key); /* an object within */
MK_API void mk_document_close(struct mk_document_writer *writer);

/* @return the document's length; -EMSGSIZE: it did not fit */
MK_API int mk_document_end(struct mk_document_writer *writer);

#endif
