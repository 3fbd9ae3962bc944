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

/* What an extended header says: records, each "LENGTH KEY=VALUE\n", of which a path and a size count.
 * @return whether they are whole */
static bool extended(const char *records, uint64_t length, char *path, uint64_t *size)
{
	for (uint64_t at = 0, n; at < length; at += n) {
		uint64_t begin = at, end;

		for (n = 0; begin < length && records[begin] >= '0' && records[begin] <= '9' && n <= length; begin++)
			n = n * 10 + (uint64_t)(records[begin] - '0');
		if (begin == length || records[begin++] != ' ' || n > length - at || n < begin - at + 1)
			return false;
		end = at + n - 1; /* where the new line stands */
		if (end - begin >= 5 && memcmp(records + begin, "path=", 5) == 0) {
			if (end - begin - 5 >= LONGEST_PATH)
				return false;
			memcpy(path, records + begin + 5, end - begin - 5);
			path[end - begin - 5] = 0;
		} else if (end - begin >= 5 && memcmp(records + begin, "size=", 5) == 0) {
			*size = 0;
			for (begin += 5; begin < end; begin++) {
				if (records[begin] < '0' || records[begin] > '9' || *size > UINT64_MAX / 16)
					return false;
				*size = *size * 10 + (uint64_t)(records[begin] - '0');
			}
		}
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

const void *mk_find_in_tar(const char *archive, size_t length, const char *wanted, size_t *size)
{
	char path[LONGEST_PATH] = "";
	uint64_t said = UINT64_MAX; /* by an extended header, as the path is */

	for (size_t at = 0; length - at >= BLOCK && archive[at];) {
		const char *header = archive + at, *content = header + BLOCK;
		uint64_t here = said != UINT64_MAX && header[156] != 'x' ? said : octal(header + 124, 12);
		uint64_t room = length - at - BLOCK;

		if (here > room)
			return NULL;
		if (header[156] == 'x') {
			if (!extended(content, here, path, &said))
				return NULL;
		} else {
			if (!path[0])
				plain_path(header, path);
			if (strcmp(path, wanted) == 0) {
				*size = here;
				return content;
			}
			path[0] = 0;
			said = UINT64_MAX;
		}
		here = (here + BLOCK - 1) / BLOCK * BLOCK;
		if (here > room)
			return NULL;
		at += BLOCK + here;
	}
	return NULL;
}

const void *mk_kernel_initrd(const mk_kernel *k, const char *path, size_t *length)
{
	*length = k->initrd.size;
	if (!path)
		return k->initrd.at;
	return k->initrd_is_archive ? mk_find_in_tar(k->initrd.at, k->initrd.size, path, length) : NULL;
}
