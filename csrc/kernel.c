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
#include <sys/stat.h>
#include <unistd.h>

#include "multikernel/process.h"

#define MANIFEST "MULTIKERNEL_MANIFEST" /* the environment variable: number of a descriptor */
#define CONSOLE_CAPACITY 0x10000u
#define HOST_LANE_CAPACITY 4096u
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

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

/* Say in words why there is no instance. */
static int refuse(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int refuse(int code, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(attach_error, sizeof(attach_error), format, arguments);
	va_end(arguments);
	return code;
}

/* The descriptor that the spawner has put the manifest into. It is not passed on: what this process starts is none. */
static int find_manifest(void)
{
	const char *text = getenv(MANIFEST);
	char *end;
	long fd;

	if (!text)
		return refuse(-ENOENT,
			      "this program is an image for an instance of a machine, and was not booted as one: "
			      "multikernel run ./PROGRAM, or load it and start it");
	fd = strtol(text, &end, 10);
	if (end == text || *end || fd < 3 || fd > 1 << 20)
		return refuse(-EBADF, MANIFEST "=%s is no number of a descriptor", text);
	unsetenv(MANIFEST);
	return (int)fd;
}

/* Read the sealed manifest into @text. @return its length or -errno */
static int read_manifest(int fd, char *text)
{
	struct stat file;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &file) < 0)
		return refuse(-EPROTO, "descriptor %d is no manifest: it is not sealed", fd);
	if (file.st_size > MK_CHANNEL_DOCUMENT || pread(fd, text, (size_t)file.st_size, 0) != file.st_size)
		return refuse(-EPROTO, "descriptor %d is no manifest: it has %lld bytes", fd, (long long)file.st_size);
	return (int)file.st_size;
}

static int descriptor(const struct mk_document *manifest, const char *name)
{
	char key[64];
	int64_t fd;

	snprintf(key, sizeof(key), "fd:%s", name);
	if (mk_document_number(manifest, key, &fd) || fd < 0 || fd > 1 << 20 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
		return refuse(-EPROTO, "the manifest names no descriptor %s", name);
	return (int)fd;
}

/* Who this is, from the manifest in k->text. */
static int read_identity(struct mk_kernel *k, struct mk_document *manifest, int length)
{
	int64_t abi, id, epoch, memory;

	if (mk_document_read(manifest, k->text, (size_t)length) || mk_document_number(manifest, "abi", &abi))
		return refuse(-EPROTO, "the manifest is no document of this library");
	if (abi != MK_ABI_VERSION)
		return refuse(-EPROTO, "the host's core has ABI version %lld, this program's %u: build it again",
			      (long long)abi, MK_ABI_VERSION);
	k->cmdline = calloc(1, (size_t)length + 1);
	k->params = calloc(2, (size_t)length + 1);
	if (!k->cmdline || !k->params)
		return refuse(-ENOMEM, "no memory for the manifest");
	if (mk_document_number(manifest, "id", &id) || id < 1 || id >= MK_INSTANCES ||
	    mk_document_number(manifest, "epoch", &epoch) || mk_document_number(manifest, "memory", &memory) ||
	    mk_document_string(manifest, "name", k->name, sizeof(k->name)) ||
	    mk_document_string(manifest, "machine", k->machine, sizeof(k->machine)) ||
	    mk_document_string(manifest, "cmdline", k->cmdline, (size_t)length + 1))
		return refuse(-EPROTO, "the manifest lacks who this instance is");
	k->id = (uint32_t)id;
	k->epoch = (uint64_t)epoch;
	k->memory = (uint64_t)memory;
	k->params_end = mk_cut_params(k->cmdline, k->params);
	return 0;
}

/* Make the pages that are the instance's own: others can only read them. */
static int make_pages(struct mk_kernel *k, int pipe)
{
	int consumer, result;

	mk_membarrier_register(); /* takes microseconds as long as there is one thread, and milliseconds later */
	k->fds[0] = mk_status_create(k->id, k->epoch, &k->status);
	if (k->fds[0] < 0)
		return refuse(k->fds[0], "making the status page: %s", strerror(-k->fds[0]));
	mk_status_phase(k->status, MK_PHASE_PINNED);
	k->fds[1] = mk_console_create(CONSOLE_CAPACITY, k->id, k->epoch, &k->console);
	if (k->fds[1] < 0)
		return refuse(k->fds[1], "making the console: %s", strerror(-k->fds[1]));
	result = mk_console_drain(k->console, pipe);
	if (result)
		return refuse(result, "starting the console's thread: %s", strerror(-result));
	consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:host",
				  HOST_LANE_CAPACITY < mk_page_size() ? mk_page_size() : HOST_LANE_CAPACITY, 0, k->id,
				  k->epoch);
	result = consumer < 0 ? consumer : mk_receiver_claim(&k->host, consumer, NULL, NULL);
	if (!result)
		result = k->fds[2] = mk_object_reopen(consumer);
	if (consumer >= 0)
		close(consumer);
	return result < 0 ? refuse(result, "making the host lane: %s", strerror(-result)) : 0;
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
		return refuse(result, "meeting the host: %s", strerror(-result));
	close(producer);
	k->host->end.wait_counters = mk_status_counters(k->status); /* the loop's waits are waits on this lane */
	k->set = mk_wait_set_new();
	result = k->set ? mk_wait_set_add(k->set, &k->host->end) : -errno;
	if (result)
		return refuse(result, "making the set of what is waited for: %s", strerror(-result));
	mk_status_phase(k->status, MK_PHASE_MAPPED);
	mk_status_phase(k->status, MK_PHASE_IMPORTED); /* with the execution */
	mk_status_phase(k->status, MK_PHASE_ACTIVE);
	mk_document_begin(&w, text, sizeof(text));
	mk_document_put_string(&w, "verb", "phase");
	mk_document_put_string(&w, "phase", "active");
	result = mk_say(k, &w, NULL, 0);
	return result ? refuse(result, "telling the host: %s", strerror(-result)) : 0;
}

/* Map the initrd, if the manifest names one. @return 0 or -errno */
static int take_initrd(struct mk_kernel *k, const struct mk_document *manifest)
{
	int64_t fd;
	int result;
	bool directory = mk_document_number(manifest, "fd:initrd:file", &fd) != 0;

	if (directory && mk_document_number(manifest, "fd:initrd:directory", &fd))
		return 0;
	result = mk_map_initrd(k, (int)fd, directory);
	close((int)fd);
	return result ? refuse(result, "mapping the initrd: %s", strerror(-result)) : 0;
}

static int attach(struct mk_kernel *k)
{
	struct mk_document manifest;
	int control, pipe, producer, bell, length, fd = find_manifest();
	char name[NAME_SIZE + 8];

	if (fd < 0)
		return fd;
	length = read_manifest(fd, k->text);
	close(fd);
	if (length >= 0)
		length = read_identity(k, &manifest, length);
	if (length < 0)
		return length;
	control = descriptor(&manifest, "control");
	pipe = descriptor(&manifest, "console_read");
	producer = descriptor(&manifest, "lane");
	bell = descriptor(&manifest, "bell");
	if (control < 0 || pipe < 0 || producer < 0 || bell < 0)
		return -EPROTO;
	k->control = control;
	snprintf(name, sizeof(name), "mk:%s", k->name);
	mk_process_name(name);
	setvbuf(stdout, NULL, _IOLBF, 0); /* a pipe, but read by people */
	length = take_initrd(k, &manifest);
	if (!length)
		length = make_pages(k, pipe);
	return length ? length : meet_host(k, producer, bell);
}

/* Give back all that there is so far. */
static void let_go(struct mk_kernel *k)
{
	while (k->link_count)
		mk_drop_link(k, k->links[0]);
	mk_wait_set_free(k->set);
	mk_receiver_close(k->host);
	for (unsigned i = 0; i < 3; i++)
		if (k->fds[i] >= 0)
			close(k->fds[i]);
	if (k->control >= 0)
		close(k->control);
	mk_console_finish(k->console);
	if (k->status)
		mk_status_free(k->status);
	mk_unmap_initrd(k);
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
	int result = mk_process_close_up(); /* first: until then any process of this user may look into this one */

	if (result) {
		errno = -refuse(result, "closing this process to others: %s", strerror(-result));
		return NULL;
	}
	k = calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	k->control = k->fds[0] = k->fds[1] = k->fds[2] = -1;
	k->text = malloc(MK_CHANNEL_DOCUMENT);
	result = k->text ? attach(k) : refuse(-ENOMEM, "no memory for a document");
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
	while (k->link_count)
		mk_drop_link(k, k->links[0]);
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
