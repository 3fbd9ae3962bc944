/* channel.c: see channel.h. Each call says MSG_DONTWAIT for itself, then polls: whether the socket is blocking belongs to
 * everybody who holds it.
 */
#include "multikernel/channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "multikernel/doorbell.h"

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(MK_CHANNEL_DESCRIPTORS * sizeof(int))];
};

int mk_channel_send(int channel, const char *text, size_t length, const int *fds, unsigned count, bool wait)
{
	union control control = {0};
	struct iovec data = {.iov_base = (char *)(uintptr_t)text, .iov_len = length};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

	if (length > MK_CHANNEL_DOCUMENT || count > MK_CHANNEL_DESCRIPTORS)
		return -EMSGSIZE;
	if (count) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
	}
	for (;;) {
		struct pollfd room = {.fd = channel, .events = POLLOUT};

		if (sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			return 0;
		if (errno == ECONNRESET)
			return -EPIPE;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (errno == EINTR)
			continue;
		if (!wait)
			return -EAGAIN;
		poll(&room, 1, -1);
	}
}

static void close_some(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

static unsigned descriptors(struct msghdr *message, int *fds)
{
	unsigned count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= c->cmsg_len && count < MK_CHANNEL_DESCRIPTORS;
		     at += sizeof(int))
			memcpy(&fds[count++], CMSG_DATA(c) + at, sizeof(int));
	}
	return count;
}

int mk_channel_receive(int channel, char *text, int *fds, unsigned *count)
{
	union control control;
	struct iovec data = {.iov_base = text, .iov_len = MK_CHANNEL_DOCUMENT};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control};
	ssize_t got;

	*count = 0;
	do {
		message.msg_controllen = sizeof(control);
		got = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		/* A reset is said once, and before what the peer had sent: look again. */
	} while (got < 0 && (errno == EINTR || errno == ECONNRESET));
	if (got < 0)
		return -errno;
	*count = descriptors(&message, fds);
	if (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) {
		/* Fewer than there is room for: it is this process that may open no more, so that is no fault of theirs. */
		bool short_of_them = *count < MK_CHANNEL_DESCRIPTORS && !(message.msg_flags & MSG_TRUNC);

		close_some(fds, *count);
		*count = 0;
		return short_of_them ? (int)got : -EBADMSG;
	}
	if (!got && !*count) /* the end of file; no document is empty */
		return -EPIPE;
	return (int)got;
}

int mk_channel_wait(int channel, int64_t timeout_ns)
{
	struct pollfd there = {.fd = channel, .events = POLLIN};
	uint64_t until = timeout_ns < 0 ? UINT64_MAX : mk_now() + (uint64_t)timeout_ns;

	for (;;) {
		uint64_t now = mk_now();
		struct timespec left = {0};
		int result;

		if (now < until)
			left = (struct timespec){.tv_sec = (time_t)((until - now) / 1000000000u),
						 .tv_nsec = (long)((until - now) % 1000000000u)};
		result = ppoll(&there, 1, timeout_ns < 0 ? NULL : &left, NULL);
		if (result > 0)
			return 0;
		if (result == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}
