/* kernel.c: a native instance, from its first instruction to its end. See include/multikernel/kernel.h.
 *
 * multikernel/kernel/boot.py is the same for Python. What has to be so before the first instruction the spawner has
 * done (spawn.c); what the execution of the image has undone is done again here, first thing.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "multikernel/process.h"

#define CONSOLE_CAPACITY 0x10000u
#define HOST_LANE_CAPACITY 4096u

/* Says of a program which core it was built with: multikernel/image/native.py looks for it before anything of the program
 * runs. In this file, without which there is no instance. */
__attribute__((section(".note.multikernel"), used, aligned(4))) static const struct {
	uint32_t name_size, value_size, type;
	char name[12];
	uint32_t abi;
} note = {12, sizeof(uint32_t), 1, "multikernel", MK_ABI_VERSION};

static char attach_error[ERROR_SIZE];

int mk_fail(struct mk_kernel *k, int code, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(k->error, sizeof(k->error), format, arguments);
	va_end(arguments);
	return code;
}

const char *mk_kernel_error(const mk_kernel *k)
{
	return k ? k->error : attach_error;
}

/* --- attach ------------------------------------------------------------------------------------------------------- */

int mk_refuse(int code, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(attach_error, sizeof(attach_error), format, arguments);
	va_end(arguments);
	return code;
}

int mk_make_host_lane(struct mk_kernel *k)
{
	int consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:host",
				      HOST_LANE_CAPACITY < mk_page_size() ? mk_page_size() : HOST_LANE_CAPACITY, 0,
				      k->id, k->epoch);
	int result = consumer < 0 ? consumer : mk_receiver_claim(&k->host, consumer, NULL, NULL);

	if (!result)
		result = k->fds[2] = mk_object_reopen(consumer);
	if (consumer >= 0)
		close(consumer);
	return result < 0 ? result : 0;
}

/* Make the pages that are the instance's own: others can only read them. */
static int make_pages(struct mk_kernel *k, int pipe)
{
	int result;

	mk_membarrier_register(); /* takes microseconds as long as there is one thread, and milliseconds later */
	k->fds[0] = mk_status_create(k->id, k->epoch, &k->status);
	if (k->fds[0] < 0)
		return mk_refuse(k->fds[0], "making the status page: %s", strerror(-k->fds[0]));
	mk_status_phase(k->status, MK_PHASE_PINNED);
	k->fds[1] = mk_console_create(CONSOLE_CAPACITY, k->id, k->epoch, &k->console);
	if (k->fds[1] < 0)
		return mk_refuse(k->fds[1], "making the console: %s", strerror(-k->fds[1]));
	result = mk_console_drain(k->console, pipe);
	if (result)
		return mk_refuse(result, "starting the console's thread: %s", strerror(-result));
	result = mk_make_host_lane(k);
	return result < 0 ? mk_refuse(result, "making the host lane: %s", strerror(-result)) : 0;
}

/* Hand them to the host, and take its half of the host lane. */
static int meet_host(struct mk_kernel *k, int producer, int bell)
{
	char text[128];
	struct mk_document_writer w;
	uint32_t why;
	int result;

	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "hello");
	mk_document_put_number(&w, "epoch", (int64_t)k->epoch);
	result = mk_say(k, &w, k->fds, 3);
	if (!result)
		result = mk_receiver_attach(k->host, producer, 1, bell, -1, &why);
	if (result)
		return mk_refuse(result, "meeting the host: %s", strerror(-result));
	close(producer);
	k->host->end.wait_counters = mk_status_counters(k->status); /* the loop's waits are waits on this lane */
	k->set = mk_wait_set_new();
	result = k->set ? mk_wait_set_add(k->set, &k->host->end) : -errno;
	if (result)
		return mk_refuse(result, "making the set of what is waited for: %s", strerror(-result));
	mk_status_phase(k->status, MK_PHASE_MAPPED);
	result = k->takes_over ? mk_take_over(k) : 0;
	if (result)
		return mk_refuse(result, "taking over links: %s", mk_kernel_error(k));
	mk_status_phase(k->status, MK_PHASE_IMPORTED); /* with the execution */
	mk_status_phase(k->status, MK_PHASE_ACTIVE);
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "phase");
	mk_document_put_string(&w, "phase", "active");
	result = mk_say(k, &w, NULL, 0);
	return result ? mk_refuse(result, "telling the host: %s", strerror(-result)) : 0;
}

int mk_map_machine(struct mk_kernel *k, int fd)
{
	struct mk_object header;
	uint32_t why;
	void *base;
	int result = mk_object_check(fd, MK_KIND_MACHINE, 1, &header, &why);

	if (!result)
		result = mk_object_map(fd, header.size, 0, &base);
	close(fd);
	if (result)
		return result;
	if (k->records) /* the last host's: links look at this one from now on */
		mk_object_unmap((void *)(uintptr_t)k->records, k->records_size);
	k->records = base;
	k->records_size = header.size;
	for (unsigned i = 0; i < k->link_count; i++)
		mk_watch_peer(k, k->links[i]);
	return 0;
}

static int attach(struct mk_kernel *k)
{
	struct given given;
	char name[NAME_SIZE + 8];
	int result = mk_read_manifest(k, &given);

	if (result)
		return result;
	k->control = given.control;
	if (k->instances >= 0) {
		k->pipe = fcntl(given.console, F_DUPFD_CLOEXEC, 3);
		if (k->pipe < 0)
			return mk_refuse(-errno, "keeping the console for another host: %s", strerror(errno));
	}
	snprintf(name, sizeof(name), "mk:%s", k->name);
	mk_process_name(name);
	setvbuf(stdout, NULL, _IOLBF, 0); /* a pipe, but read by people */
	result = mk_map_machine(k, given.machine);
	if (result)
		return mk_refuse(result, "mapping the machine's page: %s", strerror(-result));
	result = make_pages(k, given.console);
	if (!result)
		result = meet_host(k, given.lane, given.bell);
	/* Last, so that the host need not wait for it: a library is loaded for it. The image goes on when it is done. */
	if (!result && given.crash >= 0) {
		result = mk_catch_crashes(given.crash);
		if (result)
			return mk_refuse(result, "preparing for last words: %s", strerror(-result));
	}
	return result;
}

/* Give back all that there is so far. */
static void let_go(struct mk_kernel *k)
{
	for (unsigned i = 0; i < k->link_count; i++)
		mk_link_leave(k->links[i]);
	mk_wait_set_free(k->set);
	mk_receiver_close(k->host);
	for (unsigned i = 0; i < 3; i++)
		if (k->fds[i] >= 0)
			close(k->fds[i]);
	if (k->control >= 0)
		close(k->control);
	if (k->instances >= 0)
		close(k->instances);
	if (k->pipe >= 0)
		close(k->pipe);
	if (k->image >= 0)
		close(k->image);
	mk_console_finish(k->console);
	mk_unmap_data(&k->initrd);
	mk_unmap_data(&k->panic);
	mk_unmap_memories(k);
	mk_object_unmap((void *)(uintptr_t)k->records, k->records_size);
	mk_leave_crashes();
	if (k->status)
		mk_status_free(k->status);
	free(k->delivered);
	free(k->links);
	free(k->timers);
	free(k->cmdline);
	free(k->params);
	free(k->text);
	free(k);
}

mk_kernel *mk_kernel_attach(void)
{
	struct mk_kernel *k;
	int result = mk_process_close_up(); /* first; the spawner has seen to it, but not for root */

	if (result) {
		errno = -mk_refuse(result, "closing this process to others: %s", strerror(-result));
		return NULL;
	}
	k = calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	k->control = k->instances = k->pipe = k->image = k->fds[0] = k->fds[1] = k->fds[2] = -1;
	k->text = malloc(MK_CHANNEL_DOCUMENT);
	result = k->text ? attach(k) : mk_refuse(-ENOMEM, "no memory for a document");
	if (!result)
		return k;
	let_go(k);
	errno = -result;
	return NULL;
}

/* --- its end ------------------------------------------------------------------------------------------------------ */

int mk_kernel_exit(mk_kernel *k, int status)
{
	char text[128];
	struct mk_document_writer w;

	status &= 0xff;
	mk_status_phase(k->status, MK_PHASE_ENDING);
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "ended");
	mk_document_put_string(&w, "reason", "returned");
	mk_document_put_number(&w, "code", status);
	mk_document_put_string(&w, "traceback", "");
	mk_say(k, &w, NULL, 0); /* a host that is gone asks nothing any more */
	fflush(stdout);
	fflush(stderr);
	let_go(k);
	return status;
}

int mk_kernel_ready(mk_kernel *k)
{
	char text[32];
	struct mk_document_writer w;

	if (k->ready)
		return 0;
	k->ready = true;
	mk_status_phase(k->status, MK_PHASE_READY);
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "ready");
	return mk_say(k, &w, NULL, 0);
}
