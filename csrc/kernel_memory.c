/* kernel_memory.c: named memory of a native instance: made and kept by the host, given to one incarnation after the other,
 * of which only the one that runs has it. multikernel/kernel/memories.py is the same for Python.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WITHIN_MS 30000 /* for the host to make it; zeroing takes half a second a gigabyte */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* Map what the host sent. @return 0; -EPROTO: it is something else; -errno */
static int map_memory(struct memory *memory, int fd, uint64_t size)
{
	struct stat file;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &file) < 0 || (uint64_t)file.st_size != size)
		return -EPROTO;
	memory->size = size;
	return mk_object_map(fd, size, 1, &memory->at);
}

/* @return 1: fresh; 0; -errno, nothing is left */
static int ask_for(struct mk_kernel *k, struct memory *memory, uint64_t size)
{
	char text[NAME_SIZE + 128];
	int fds[MK_CHANNEL_DESCRIPTORS];
	unsigned count;
	struct mk_document_writer w;
	struct mk_document ok;
	bool fresh = false;
	uint64_t until = mk_deadline(WITHIN_MS);
	int result;

	do {
		result = mk_await_host(k, until);
		if (result)
			return result;
		mk_document_begin(&w, text, sizeof(text));
		mk_document_put_string(&w, "verb", "memory");
		mk_document_put_string(&w, "name", memory->name);
		mk_document_put_number(&w, "size", (int64_t)size);
		result = mk_ask(k, &w, NULL, 0, until, &ok, fds, &count);
	} while (result == -ECONNRESET && !mk_lose_host(k));
	if (result)
		return result;
	result = count == 1 && !mk_document_truth(&ok, "fresh", &fresh) ? map_memory(memory, fds[0], size) : -EPROTO;
	if (!count)
		result = -EMFILE; /* that is why none came */
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
	return result ? mk_fail(k, result, "the memory %s cannot be mapped: %s", memory->name, strerror(-result))
		      : fresh;
}

int mk_kernel_memory(mk_kernel *k, const char *name, uint64_t size, void **at)
{
	uint64_t page = mk_page_size();
	struct memory *memory = k->memories;
	int result;

	if (!size || size > MK_CAPACITY_MAX || strlen(name) >= NAME_SIZE)
		return mk_fail(k, -EINVAL, "a memory has a name of less than %u bytes, and 1 to %llu bytes", NAME_SIZE,
			       (unsigned long long)MK_CAPACITY_MAX);
	size = (size + page - 1) / page * page;
	while (memory && strcmp(memory->name, name) != 0)
		memory = memory->next;
	if (memory) {
		*at = memory->at;
		return memory->size == size ? 0
					    : mk_fail(k, -ENOSPC, "the memory %s has %llu bytes, not %llu", name,
						      (unsigned long long)memory->size, (unsigned long long)size);
	}
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return mk_fail(k, -ENOMEM, "no memory to keep account of %s", name);
	snprintf(memory->name, sizeof(memory->name), "%s", name);
	result = ask_for(k, memory, size);
	if (result < 0) {
		free(memory);
		return result;
	}
	memory->next = k->memories;
	k->memories = memory;
	*at = memory->at;
	return result;
}

void mk_unmap_memories(struct mk_kernel *k)
{
	while (k->memories) {
		struct memory *memory = k->memories;

		k->memories = memory->next;
		mk_object_unmap(memory->at, memory->size);
		free(memory);
	}
}
