/* kernel_data.c: what a native instance was given beside its image. multikernel/image/initrd.py packs an initrd: a file as
 * it is, a directory as a tar archive (pax), of which nothing is ever extracted. The archive is input, too.
 */
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BLOCK 512u
#define LONGEST_PATH 4096u

int mk_map_data(struct data *data, int fd)
{
	struct stat file;
	void *at;

	if (fstat(fd, &file) < 0)
		return -errno;
	*data = (struct data){.at = ""};
	if (!file.st_size) /* what is empty cannot be mapped */
		return 0;
	/* Private: before Linux 6.7 a shared map of what is sealed against writing was refused. */
	at = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	*data = (struct data){at, (size_t)file.st_size};
	return 0;
}

void mk_unmap_data(struct data *data)
{
	if (data->size)
		munmap((void *)(uintptr_t)data->at, data->size);
	*data = (struct data){0};
}

const char *mk_kernel_panic(const mk_kernel *k, size_t *length)
{
	*length = k->panic.size;
	return k->panic.at;
}

/* --- the archive ---------------------------------------------------------------------------------------------------- */

/* A number of the header: octal digits. @return it, or UINT64_MAX */
static uint64_t octal(const char *digits, size_t length)
{
	uint64_t value = 0;

	for (size_t i = 0; i < length && digits[i] && digits[i] != ' '; i++) {
		if (digits[i] < '0' || digits[i] > '7' || value >> 60)
			return UINT64_MAX;
		value = value * 8 + (uint64_t)(digits[i] - '0');
	}
	return value;
}

/* The path among the records of an extended header, each "LENGTH KEY=VALUE\n". */
static bool extended_path(const char *records, size_t size, char *path)
{
	for (size_t at = 0; at < size;) {
		size_t length = 0, digits = at;

		while (digits < size && records[digits] >= '0' && records[digits] <= '9' && length <= size)
			length = length * 10 + (size_t)(records[digits++] - '0');
		if (length < digits - at + 2 || length > size - at || records[digits] != ' ')
			return false;
		if (length > digits - at + 7 && memcmp(records + digits, " path=", 6) == 0) {
			size_t n = length - (digits - at) - 7; /* without the line's end */

			if (n >= LONGEST_PATH)
				return false;
			memcpy(path, records + digits + 6, n);
			path[n] = 0;
		}
		at += length;
	}
	return true;
}

static void plain_path(const char *header, char *path)
{
	size_t prefix = strnlen(header + 345, 155), name = strnlen(header, 100);

	memcpy(path, header + 345, prefix);
	if (prefix)
		path[prefix++] = '/';
	memcpy(path + prefix, header, name);
	path[prefix + name] = 0;
}

/* @return the file's content; NULL: there is none of that path, or the archive is damaged before it */
static const void *find(const struct data *archive, const char *wanted, size_t *length)
{
	char path[LONGEST_PATH] = "";
	size_t at = 0;

	while (archive->size - at >= BLOCK && archive->at[at]) {
		const char *header = archive->at + at, *content = header + BLOCK;
		uint64_t size = octal(header + 124, 12), room = archive->size - at - BLOCK;

		if (size > room)
			return NULL;
		if (header[156] == 'x') {
			if (!extended_path(content, size, path))
				return NULL;
		} else {
			if (!path[0])
				plain_path(header, path);
			if (strcmp(path, wanted) == 0) {
				*length = size;
				return content;
			}
			path[0] = 0;
		}
		size = (size + BLOCK - 1) / BLOCK * BLOCK;
		if (size > room)
			return NULL;
		at += BLOCK + size;
	}
	return NULL;
}

const void *mk_kernel_initrd(const mk_kernel *k, const char *path, size_t *length)
{
	*length = k->initrd.size;
	if (!path)
		return k->initrd.at;
	return k->initrd_is_archive ? find(&k->initrd, path, length) : NULL;
}
