/* kernel_initrd.c: the data that a native instance was given beside its image.
 *
 * A directory travels as a tar archive, in the pax format of POSIX.1-2001, as multikernel/image/initrd.py writes it:
 * blocks of 512 bytes; before a file whose name does not fit into its header stands another header, 'x', with a text of
 * lines "LENGTH KEYWORD=VALUE\n", of which "path" and "size" matter here.
 */
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BLOCK 512u
#define NAME_AT 0u /* offsets in a header, and sizes */
#define NAME_LENGTH 100u
#define SIZE_AT 124u
#define SIZE_LENGTH 12u
#define TYPE_AT 156u

/* What a pax header says of the file after it. */
struct extended {
	const char *path; /* NULL: its own header has it */
	size_t path_length;
	uint64_t size; /* NO_SIZE: likewise */
};

#define NO_SIZE UINT64_MAX

/* A number in @base that ends at the first other character. @return it; NO_SIZE: there is none, or it is too large */
static uint64_t number(const char *text, size_t length, unsigned base)
{
	uint64_t value = 0;
	size_t i;

	for (i = 0; i < length && text[i] >= '0' && (unsigned)(text[i] - '0') < base; i++) {
		if (value > (NO_SIZE - base) / base)
			return NO_SIZE;
		value = value * base + (unsigned)(text[i] - '0');
	}
	return i ? value : NO_SIZE;
}

/* Read the lines of a pax header. @return whether they are whole */
static bool read_extended(const char *text, size_t length, struct extended *said)
{
	while (length) {
		const char *blank = memchr(text, ' ', length), *equals;
		uint64_t line = number(text, length, 10);

		/* Both are inside of the line, which ends with a newline, and so is what stands between them. */
		if (!blank || line > length || (size_t)(blank - text) + 1 >= line || text[line - 1] != '\n')
			return false;
		equals = memchr(blank, '=', line - (size_t)(blank - text));
		if (!equals)
			return false;
		if (equals - blank == 5 && !memcmp(blank + 1, "path", 4)) {
			said->path = equals + 1;
			said->path_length = (size_t)(text + line - 1 - said->path);
		} else if (equals - blank == 5 && !memcmp(blank + 1, "size", 4)) {
			said->size = number(equals + 1, (size_t)(text + line - 1 - (equals + 1)), 10);
		}
		text += line;
		length -= line;
	}
	return true;
}

const void *mk_find_in_tar(const char *tar, size_t size, const char *name, size_t *length)
{
	struct extended said = {NULL, 0, NO_SIZE};

	while (size >= BLOCK && tar[NAME_AT]) { /* a block of zeros is its end */
		const char *content = tar + BLOCK, *path = said.path ? said.path : tar + NAME_AT;
		size_t path_length = said.path ? said.path_length : strnlen(tar + NAME_AT, NAME_LENGTH);
		uint64_t bytes = said.size != NO_SIZE ? said.size : number(tar + SIZE_AT, SIZE_LENGTH, 8);
		char type = tar[TYPE_AT];

		size -= BLOCK;
		if (bytes > size)
			break;
		if (type == 'x') {
			said = (struct extended){NULL, 0, NO_SIZE};
			if (!read_extended(content, bytes, &said))
				break;
		} else {
			if (path_length == strlen(name) && !memcmp(path, name, path_length)) {
				*length = bytes;
				return content;
			}
			said = (struct extended){NULL, 0, NO_SIZE};
		}
		bytes += -bytes % BLOCK;
		if (bytes > size)
			break;
		tar = content + bytes;
		size -= bytes;
	}
	return NULL;
}

int mk_map_initrd(struct mk_kernel *k, int fd, bool directory)
{
	struct stat file;

	if (fstat(fd, &file) < 0)
		return -errno;
	k->initrd = "";
	if (file.st_size) {
		/* Private: before Linux 6.7 a shared map of what is sealed against writing was refused. */
		void *mapped = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

		if (mapped == MAP_FAILED) {
			k->initrd = NULL;
			return -errno;
		}
		k->initrd = mapped;
	}
	k->initrd_length = (size_t)file.st_size;
	k->initrd_is_directory = directory;
	return 0;
}

void mk_unmap_initrd(struct mk_kernel *k)
{
	if (k->initrd && k->initrd_length)
		munmap((void *)(uintptr_t)k->initrd, k->initrd_length);
	k->initrd = NULL;
}

const void *mk_kernel_initrd(const mk_kernel *k, const char *name, size_t *length)
{
	*length = 0;
	if (!k->initrd || !!name != k->initrd_is_directory)
		return NULL;
	if (name)
		return mk_find_in_tar(k->initrd, k->initrd_length, name, length);
	*length = k->initrd_length;
	return k->initrd;
}
