/* kernel_manifest.c: what a native instance is told and given when it is started. multikernel/kernel/native.py writes the
 * manifest: a document in sealed memory, whose descriptor the environment names, and which names the others.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "multikernel/process.h"

#define MANIFEST "MULTIKERNEL_MANIFEST" /* the environment variable: number of a descriptor */
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

/* The descriptor that the spawner has put the manifest into. It is not passed on: what this process starts is none. */
static int find_manifest(void)
{
	const char *text = getenv(MANIFEST);
	char *end;
	long fd;

	if (!text)
		return mk_refuse(-ENOENT,
				 "this program is an image for an instance of a machine, and was not booted as one: "
				 "multikernel run ./PROGRAM, or load it and start it");
	fd = strtol(text, &end, 10);
	if (end == text || *end || fd < 3 || fd > 1 << 20)
		return mk_refuse(-EBADF, MANIFEST "=%s is no number of a descriptor", text);
	unsetenv(MANIFEST);
	return (int)fd;
}

/* Read the sealed manifest into @text. @return its length or -errno */
static int read_manifest(int fd, char *text)
{
	struct stat file;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &file) < 0)
		return mk_refuse(-EPROTO, "descriptor %d is no manifest: it is not sealed", fd);
	if (file.st_size > MK_CHANNEL_DOCUMENT || pread(fd, text, (size_t)file.st_size, 0) != file.st_size)
		return mk_refuse(-EPROTO, "descriptor %d is no manifest: it has %lld bytes", fd,
				 (long long)file.st_size);
	return (int)file.st_size;
}

/* A descriptor by its name in the manifest; not passed on, either. @return -1: there is none */
static int find_descriptor(const struct mk_document *manifest, const char *name)
{
	char key[64];
	int64_t fd;

	snprintf(key, sizeof(key), "fd:%s", name);
	if (mk_document_number(manifest, key, &fd) || fd < 0 || fd > 1 << 20 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
		return -1;
	return (int)fd;
}

static int descriptor(const struct mk_document *manifest, const char *name)
{
	int fd = find_descriptor(manifest, name);

	return fd < 0 ? mk_refuse(-EPROTO, "the manifest names no descriptor %s", name) : fd;
}

/* Who this is, from the manifest in k->text. */
static int read_identity(struct mk_kernel *k, struct mk_document *manifest, int length)
{
	int64_t abi, id, epoch, memory;

	if (mk_document_read(manifest, k->text, (size_t)length) || mk_document_number(manifest, "abi", &abi))
		return mk_refuse(-EPROTO, "the manifest is no document of this library");
	if (abi != MK_ABI_VERSION)
		return mk_refuse(-EPROTO, "the host's core has ABI version %lld, this program's %u: build it again",
				 (long long)abi, MK_ABI_VERSION);
	k->cmdline = calloc(1, (size_t)length + 1);
	k->params = calloc(2, (size_t)length + 1);
	if (!k->cmdline || !k->params)
		return mk_refuse(-ENOMEM, "no memory for the manifest");
	if (mk_document_number(manifest, "id", &id) || id < 1 || id >= MK_INSTANCES ||
	    mk_document_number(manifest, "epoch", &epoch) || mk_document_number(manifest, "memory", &memory) ||
	    mk_document_string(manifest, "name", k->name, sizeof(k->name)) ||
	    mk_document_string(manifest, "machine", k->machine, sizeof(k->machine)) ||
	    mk_document_string(manifest, "cmdline", k->cmdline, (size_t)length + 1))
		return mk_refuse(-EPROTO, "the manifest lacks who this instance is");
	if (mk_document_truth(manifest, "takes_over", &k->takes_over))
		k->takes_over = false;
	k->id = (uint32_t)id;
	k->epoch = (uint64_t)epoch;
	k->memory = (uint64_t)memory;
	k->params_end = mk_cut_params(k->cmdline, k->params);
	return 0;
}

/* What there is besides: data, and the wish to leave core files. */
static int take_extras(struct mk_kernel *k, const struct mk_document *manifest)
{
	struct rlimit core;
	int file = find_descriptor(manifest, "initrd:file"), directory = find_descriptor(manifest, "initrd:directory");
	int panic = find_descriptor(manifest, "panic"), result = 0;
	bool dumpable;

	k->instances = find_descriptor(manifest, "instances");
	k->image = find_descriptor(manifest, "image");
	if (k->instances < 0 && k->image >= 0) { /* it runs already, and no other host will want it */
		close(k->image);
		k->image = -1;
	}
	if (file >= 0 || directory >= 0) {
		result = mk_map_data(&k->initrd, file >= 0 ? file : directory);
		k->initrd_is_archive = file < 0;
		close(file >= 0 ? file : directory);
	}
	if (!result && panic >= 0)
		result = mk_map_data(&k->panic, panic);
	if (panic >= 0)
		close(panic);
	if (!result && !mk_document_truth(manifest, "core", &dumpable) && dumpable) {
		result = mk_process_stay_dumpable();
		if (getrlimit(RLIMIT_CORE, &core) == 0) {
			core.rlim_cur = core.rlim_max;
			setrlimit(RLIMIT_CORE, &core);
		}
	}
	return result ? mk_refuse(result, "taking what the host gives besides: %s", strerror(-result)) : 0;
}

int mk_read_manifest(struct mk_kernel *k, struct given *given)
{
	struct mk_document manifest;
	int length, fd = find_manifest();

	if (fd < 0)
		return fd;
	length = read_manifest(fd, k->text);
	close(fd);
	if (length >= 0)
		length = read_identity(k, &manifest, length);
	if (length < 0)
		return length;
	given->control = descriptor(&manifest, "control");
	given->console = descriptor(&manifest, "console_read");
	given->machine = descriptor(&manifest, "machine");
	given->lane = descriptor(&manifest, "lane");
	given->bell = descriptor(&manifest, "bell");
	given->crash = find_descriptor(&manifest, "crash");
	if (given->control < 0 || given->console < 0 || given->machine < 0 || given->lane < 0 || given->bell < 0)
		return -EPROTO;
	return take_extras(k, &manifest);
}
