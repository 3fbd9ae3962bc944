/* memory.h: memory objects. Make, seal, check, map.
 *
 * A memory object is a memfd that begins with struct mk_object. Its owner maps it writable, seals it against
 * every later writable mapping, and only then hands out read-only descriptors, so for everybody else its pages
 * are read-only for ever (seals: fcntl(2), F_SEAL_FUTURE_WRITE).
 */
#ifndef MULTIKERNEL_MEMORY_H
#define MULTIKERNEL_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "multikernel/abi.h"

#ifndef MK_API /* defined as nothing where the core is not to be seen outside of what it is built into */
#define MK_API __attribute__((visibility("default")))
#endif

#define MK_CAPACITY_MIN 4096u
#define MK_CAPACITY_MAX (1ULL << 36) /* 64 GiB: far below what index arithmetic could overflow */

/* Why an object was refused, beside the errno. */
enum mk_refusal {
	MK_REFUSED_NOT = 0,
	MK_REFUSED_KIND_OF_FILE = 1, /* not a memfd */
	MK_REFUSED_SEALS = 2,        /* not sealed against shrinking, growing or writing */
	MK_REFUSED_SHORT = 3,        /* smaller than a header */
	MK_REFUSED_MAGIC = 4,
	MK_REFUSED_ABI = 5,
	MK_REFUSED_KIND = 6,
	MK_REFUSED_SIZE = 7,     /* the header's size is not the file's, or not all of it is allocated */
	MK_REFUSED_CAPACITY = 8, /* no power of two, out of range, or not what fits the size */
	MK_REFUSED_ELEMENT = 9,
	MK_REFUSED_OWNER = 10, /* not of the same owner, or of the wrong incarnation of it */
};

/* The page size of this machine. Lane data begins at one page. */
MK_API uint64_t mk_page_size(void);

/* Make an object of @size bytes named @name, its pages allocated (a shortage is an error here and never a
 * SIGBUS later), its header written, sealed against changes of size.
 * @return a descriptor (close-on-exec); -ENOSPC, -ENOMEM, -EMFILE, -EINVAL ... */
MK_API int mk_object_create(const char *name, struct mk_object header);

/* A read-only descriptor of the object behind @fd. @return descriptor or -errno */
MK_API int mk_object_reopen(int fd);

/* Seal against every writable mapping from now on. @return 0; -EPERM: already sealed, somebody else owns it */
MK_API int mk_object_seal(int fd);

/* Copy the header of the object behind @fd, check it against the file and its seals.
 * @param owned  whether it must have been sealed by an owner already
 * @param why    enum mk_refusal, set whenever the result is negative; may be NULL
 * @return 0, header filled in; -EPROTO refused; -errno of a call that failed */
MK_API int mk_object_check(int fd, uint32_t kind, int owned, struct mk_object *header, uint32_t *why);

/* Map @size bytes of an object; not inherited by a fork. A map that is not writable cannot become so.
 * @return 0 or -errno */
MK_API int mk_object_map(int fd, uint64_t size, int writable, void **base);

/* Map a lane's producer object with its data area twice in a row: [page][data][data], so that what begins
 * anywhere in the data and is no longer than it is contiguous. @return 0 or -errno */
MK_API int mk_object_map_twice(int fd, const struct mk_object *header, int writable, void **base);

MK_API void mk_object_unmap(void *base, uint64_t size);

/* Counts the forks between this process and the first that loaded the library: an end that was claimed under
 * another count belongs to another process. */
MK_API uint32_t mk_fork_generation(void);

/* Where that number lies, for who compares it in every call. */
MK_API const _Atomic uint32_t *mk_fork_generation_word(void);

/* Register this process for membarrier's expedited barriers. @return 0, or -errno: then it must fence */
MK_API int mk_membarrier_register(void);

/* Make every registered process's running threads pass a full fence. @return 0 or -errno */
MK_API int mk_membarrier(void);

/* The same for this process's threads alone. */
MK_API int mk_membarrier_own(void);

#endif
