/* kernel_usher.c: what brings a native instance of a persistent machine to its next host, when its own was killed.
 *
 * multikernel/kernel/usher.py is the same for Python, with a thread of its own; here the loop does it, since it costs the
 * loop nothing while there is a host: the end of that wakes who sleeps, and who never sleeps asks the system for it once in
 * some thousand looks. Without a host the loop tries the machine's control socket, every few milliseconds at first, once a
 * second at last, and goes on serving its links meanwhile.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PAUSE_FIRST 5000000u /* ns between two tries: at first, until SOON, and then */
#define PAUSE 50000000u
#define PAUSE_LAST 1000000000u
#define SOON 10000000000u         /* within which a host is to be expected */
#define ANSWERS_WITHIN 1000000000 /* ns; one that is stopped is asked again later */
#define LOOKS 4096u               /* between two questions whether the host is there */

enum {
	CONTROL,
	MACHINE,
	PRODUCER,
	BELL,
	BROUGHT
}; /* descriptors of the answer, in their order */

void mk_doubt_host(struct mk_kernel *k)
{
	k->looks = LOOKS - 1;
}

bool mk_host_is_gone(struct mk_kernel *k)
{
	struct pollfd control = {.fd = k->control}; /* the end of file is told unasked */

	if (k->instances < 0 || ++k->looks % LOOKS)
		return false;
	return poll(&control, 1, 0) > 0 && control.revents & POLLHUP;
}

/* Sets that have the host lane in them are made anew when they are needed. */
static void forget_pairs(struct mk_kernel *k)
{
	for (unsigned i = 0; i < k->link_count; i++) {
		mk_wait_set_free(k->links[i]->pair);
		k->links[i]->pair = NULL;
	}
}

int mk_lose_host(struct mk_kernel *k)
{
	if (k->instances < 0)
		return mk_fail(k, -EPIPE, "the host is gone: this machine ends");
	mk_wait_set_remove(k->set, &k->host->end);
	forget_pairs(k);
	mk_receiver_close(k->host);
	k->host = NULL;
	close(k->control);
	k->control = -1;
	k->alone_since = k->next_try = mk_now();
	k->pause = PAUSE_FIRST;
	return 0;
}

/* It belongs to nobody any more. */
static _Noreturn void end(struct mk_kernel *k, const char *why)
{
	mk_kernel_log(k, 3, "this instance has lost its host, and ends: %s", why);
	mk_console_finish(k->console);
	_exit(1);
}

/* @return a connection to whoever listens; -1: nobody does */
static int connect_to_host(const struct mk_kernel *k)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/../control", k->instances);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Say who this is, and bring the image, which nobody else may have by now. @return 0 or -errno */
static int introduce(struct mk_kernel *k, int host)
{
	char text[256];
	int length = snprintf(text, sizeof(text),
			      "{\"verb\":\"adopt\",\"id\":0,\"protocol\":%d,\"instance\":%" PRIu32 ",\"epoch\":%" PRIu64
			      ",\"names\":[%s]}",
			      MK_PROTOCOL, k->id, k->epoch, k->image < 0 ? "" : "\"image\"");

	return mk_channel_send(host, text, (size_t)length, &k->image, k->image >= 0, true);
}

/* What a host answers. @return 0, and the descriptors; -errno: not now */
static int receive_answer(struct mk_kernel *k, int host, int *fds)
{
	struct mk_document answer, failed;
	char why[ERROR_SIZE] = "the host does not take it";
	unsigned count = 0;
	int length = mk_channel_wait(host, ANSWERS_WITHIN);

	if (!length)
		length = mk_channel_receive(host, k->text, fds, &count);
	if (length < 0)
		return length;
	if (!mk_document_read(&answer, k->text, (size_t)length) && !mk_document_object(&answer, "ok", &failed) &&
	    count == BROUGHT)
		return 0;
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
	if (!mk_document_object(&answer, "failed", &failed))
		mk_document_string(&failed, "message", why, sizeof(why));
	end(k, why);
}

/* Put what a host has sent in place of what the last one had. @return 0; -errno: that is gone, too */
static int move_in(struct mk_kernel *k, const int *fds)
{
	char text[64];
	struct mk_document_writer w;
	uint32_t why;
	int result, pages[4];

	k->control = fds[CONTROL];
	close(k->fds[2]);
	k->fds[2] = -1;
	result = mk_map_machine(k, fds[MACHINE]);
	if (!result)
		result = mk_make_host_lane(k);
	memcpy(pages, k->fds, sizeof(k->fds));
	pages[3] = k->pipe;
	if (!result) {
		mk_document_begin(&w, text, sizeof(text));
		mk_document_put_string(&w, "verb", "hello");
		mk_document_put_number(&w, "epoch", (int64_t)k->epoch);
		result = mk_channel_send(k->control, text, (size_t)mk_document_end(&w), pages, 4, true);
	}
	if (!result)
		result = mk_receiver_attach(k->host, fds[PRODUCER], 1, fds[BELL], -1, &why);
	else
		close(fds[BELL]);
	close(fds[PRODUCER]);
	if (!result) {
		k->host->end.wait_counters = mk_status_counters(k->status);
		result = mk_wait_set_add(k->set, &k->host->end);
	}
	if (!result) {
		k->hosted_since = mk_now();
		forget_pairs(k);
		mk_face_peers(k);
		return 0;
	}
	mk_receiver_close(k->host);
	k->host = NULL;
	close(k->control);
	k->control = -1;
	return result;
}

static int try_host(struct mk_kernel *k)
{
	int fds[MK_CHANNEL_DESCRIPTORS], host = connect_to_host(k);
	int result = host < 0 ? -ENOTCONN : introduce(k, host);

	if (!result)
		result = receive_answer(k, host, fds);
	if (!result)
		result = move_in(k, fds);
	if (host >= 0)
		close(host);
	return result;
}

void mk_find_host(struct mk_kernel *k)
{
	struct stat directory;
	uint64_t longest;

	if (k->host || mk_now() < k->next_try)
		return;
	if (fstat(k->instances, &directory) == 0 && directory.st_nlink == 0)
		end(k, "its machine is gone");
	if (!try_host(k))
		return;
	longest = mk_now() < k->alone_since + SOON ? PAUSE : PAUSE_LAST;
	k->next_try = mk_now() + k->pause;
	k->pause = 2 * k->pause < longest ? 2 * k->pause : longest;
}

int mk_await_host(struct mk_kernel *k, uint64_t until)
{
	while (!k->host) {
		uint64_t now = mk_now();

		if (now >= until)
			return mk_fail(k, -ETIMEDOUT, "the host was killed, and there is no other yet");
		if (now < k->next_try)
			poll(NULL, 0, (int)((k->next_try - now) / 1000000u) + 1);
		mk_find_host(k);
	}
	return 0;
}
