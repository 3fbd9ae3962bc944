/* ring.c: the life of a lane's ends. What happens to messages is inline in send.h and receive.h.
 *
 * An end has one allocation, two mappings (its own page writable, the other's read-only) and up to four
 * descriptors (its side of the socket pair, the peer's pidfd, two for event loops). Everything the other side
 * wrote is checked here, at attach, in look.c, at each look, or in receive.h, in each record.
 */
#include "ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "multikernel/doorbell.h"

#ifndef SYS_pidfd_open /* headers before Linux 5.3 */
#define SYS_pidfd_open 434
#endif

#define LIFE_EVERY_NS 1000000u /* how often the system is asked whether the peer lives */
#define DRAIN_READS 64         /* of the socket, at most, each time it is emptied */

int mk_lane_object(uint32_t kind, const char *name, uint64_t capacity, uint32_t element, uint32_t owner_id,
		   uint64_t epoch)
{
	uint64_t page = mk_page_size();
	struct mk_object header = {
		.kind = kind,
		.size = page + (kind == MK_KIND_PRODUCER ? capacity : 0),
		.capacity = capacity,
		.data_offset = (uint32_t)page,
		.element = element,
		.owner_id = owner_id,
		.epoch = epoch,
	};

	if (kind != MK_KIND_PRODUCER && kind != MK_KIND_CONSUMER)
		return -EINVAL;
	if (capacity < MK_CAPACITY_MIN || capacity < page || capacity > MK_CAPACITY_MAX ||
	    (capacity & (capacity - 1)) || element > capacity)
		return -EINVAL;
	return mk_object_create(name, header);
}

uint64_t mk_lane_mapped_size(const struct mk_object *shape)
{
	return shape->data_offset + (shape->kind == MK_KIND_PRODUCER ? 2 * shape->capacity : 0);
}

int mk_lane_map(int fd, const struct mk_object *shape, int writable, void **base)
{
	if (shape->kind == MK_KIND_PRODUCER)
		return mk_object_map_twice(fd, shape, writable, base);
	return mk_object_map(fd, shape->size, writable, base);
}

/* --- claim ------------------------------------------------------------------------------------------------------ */

static void begin_end(struct mk_end *end, const struct mk_object *shape, void *base, struct mk_counters *counters)
{
	end->shape = *shape;
	end->mask = shape->capacity - 1;
	end->counters = end->wait_counters = counters ? counters : &end->own_counters;
	end->generation = mk_fork_generation();
	end->generation_now = mk_fork_generation_word();
	end->socket = end->pidfd = end->event = end->event_self = -1;
	end->own_map = base;
	end->own_map_size = mk_lane_mapped_size(shape);
}

/* Say whose it is. The state is stored last, so that who sees it open sees the rest. */
static void sign(struct mk_end *end, struct mk_object *page)
{
	end->fence = mk_membarrier_register() != 0;
	if (end->fence)
		page->flags |= MK_FENCES;
	page->owner_pid = (uint32_t)getpid();
	mk_store_relaxed(end->cpu, ~0u);
	mk_store_release(end->state, MK_END_OPEN); /* pairs with the acquire of peer_state in doorbell.c */
}

/* Map @fd writable and make that the last writable mapping there will ever be. */
static int take_object(int fd, uint32_t kind, struct mk_object *shape, void **base, uint32_t *why)
{
	int result = mk_object_check(fd, kind, 0, shape, why);

	if (result)
		return result;
	result = mk_lane_map(fd, shape, 1, base);
	if (result) /* EPERM: sealed, so claimed by somebody else */
		return result;
	result = mk_object_seal(fd);
	if (result)
		mk_object_unmap(*base, mk_lane_mapped_size(shape));
	return result;
}

int mk_sender_claim(struct mk_sender **out, int producer_fd, struct mk_counters *counters, uint32_t *why)
{
	struct mk_sender *tx = calloc(1, sizeof(*tx)); /* first: the seal cannot be taken back */
	struct mk_object shape;
	void *base;
	int result;

	if (!tx)
		return -ENOMEM;
	result = take_object(producer_fd, MK_KIND_PRODUCER, &shape, &base, why);
	if (result) {
		free(tx);
		return result;
	}
	tx->own = base;
	tx->data = (unsigned char *)base + shape.data_offset;
	tx->head = tx->tail = tx->counted = mk_load_relaxed(
		&tx->own->head); /* as its maker left it; ours from now on */
	tx->end.sending = true;
	tx->end.parked = &tx->own->parked;
	tx->end.bell = &tx->own->bell;
	tx->end.state = &tx->own->state;
	tx->end.cpu = &tx->own->cpu;
	begin_end(&tx->end, &shape, base, counters);
	sign(&tx->end, &tx->own->object);
	*out = tx;
	return 0;
}

int mk_receiver_claim(struct mk_receiver **out, int consumer_fd, struct mk_counters *counters, uint32_t *why)
{
	struct mk_receiver *rx = calloc(1, sizeof(*rx));
	struct mk_object shape;
	void *base;
	int result;

	if (!rx)
		return -ENOMEM;
	result = take_object(consumer_fd, MK_KIND_CONSUMER, &shape, &base, why);
	if (result) {
		free(rx);
		return result;
	}
	rx->own = base;
	rx->tail = rx->next = rx->head = rx->counted = rx->seen_before = mk_load_relaxed(&rx->own->tail);
	rx->end.parked = &rx->own->parked;
	rx->end.bell = &rx->own->bell;
	rx->end.state = &rx->own->state;
	rx->end.cpu = &rx->own->cpu;
	begin_end(&rx->end, &shape, base, counters);
	sign(&rx->end, &rx->own->object);
	*out = rx;
	return 0;
}

/* --- attach ----------------------------------------------------------------------------------------------------- */

/* Over a ring's socket pair: who claims an end sends a pidfd of himself. It wakes a peer that waited for the
 * claim, and is how the peer will know of our end. */
static void introduce(struct mk_end *end)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char byte = 0;
	struct iovec data = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (self >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.room);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &self, sizeof(self));
	}
	/* Best effort: if it fails the peer still sees the end of file once nobody holds this side. */
	(void)!sendmsg(end->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (self >= 0)
		close(self);
}

int mk_lane_check(const struct mk_object *shape, int fd, uint32_t kind, int owned, struct mk_object *other,
		  uint32_t *why)
{
	uint32_t refusal = MK_REFUSED_NOT;
	int result = mk_object_check(fd, kind, owned, other, &refusal);

	if (!result && other->capacity != shape->capacity) {
		refusal = MK_REFUSED_CAPACITY;
		result = -EPROTO;
	}
	if (!result && other->element != shape->element) {
		refusal = MK_REFUSED_ELEMENT;
		result = -EPROTO;
	}
	if (why)
		*why = refusal;
	return result;
}

/* Check the other side's object against our own and map it. */
static int attach(struct mk_end *end, int fd, uint32_t kind, int owned, int socket, int pidfd, uint32_t *why)
{
	struct mk_object other;
	void *base;
	int result;

	if (end->peer_map)
		return -EINVAL;
	result = mk_lane_check(&end->shape, fd, kind, owned, &other, why);
	if (!result)
		result = mk_lane_map(fd, &other, 0, &base);
	if (result)
		return result;
	end->peer_map = base;
	end->peer_map_size = mk_lane_mapped_size(&other);
	end->peer_id = other.owner_id;
	end->peer_epoch = other.epoch;
	end->socket = socket;
	end->pidfd = pidfd;
	end->private_socket = !owned;
	end->spin = mk_spin_new();
	return 0;
}

void mk_sender_face(struct mk_sender *tx)
{
	tx->peer = tx->end.peer_map;
	tx->end.peer_parked = &tx->peer->parked;
	tx->end.peer_bell = &tx->peer->bell;
	tx->end.peer_state = &tx->peer->state;
	tx->end.peer_cpu = &tx->peer->cpu;
}

void mk_receiver_face(struct mk_receiver *rx)
{
	rx->peer = rx->end.peer_map;
	rx->data = (const unsigned char *)rx->end.peer_map + rx->end.shape.data_offset;
	rx->end.peer_parked = &rx->peer->parked;
	rx->end.peer_bell = &rx->peer->bell;
	rx->end.peer_state = &rx->peer->state;
	rx->end.peer_cpu = &rx->peer->cpu;
}

int mk_sender_attach(struct mk_sender *tx, int consumer_fd, int owned, int socket, int pidfd, uint32_t *why)
{
	int result = attach(&tx->end, consumer_fd, MK_KIND_CONSUMER, owned, socket, pidfd, why);

	if (result)
		return result;
	mk_sender_face(tx);
	if (tx->end.private_socket && socket >= 0)
		introduce(&tx->end);
	return 0;
}

int mk_receiver_attach(struct mk_receiver *rx, int producer_fd, int owned, int socket, int pidfd, uint32_t *why)
{
	int result = attach(&rx->end, producer_fd, MK_KIND_PRODUCER, owned, socket, pidfd, why);

	if (result)
		return result;
	mk_receiver_face(rx);
	if (rx->end.private_socket && socket >= 0)
		introduce(&rx->end);
	return 0;
}

/* --- close ------------------------------------------------------------------------------------------------------ */

static void close_descriptors(struct mk_end *end)
{
	int *descriptors[] = {&end->socket, &end->pidfd, &end->event, &end->event_self};

	for (size_t i = 0; i < sizeof(descriptors) / sizeof(*descriptors); i++) {
		if (*descriptors[i] >= 0)
			close(*descriptors[i]);
		*descriptors[i] = -1;
	}
}

void mk_end_close(struct mk_end *end)
{
	if (end->generation == mk_fork_generation()) /* else the counters may lie in a page that is not here */
		mk_end_count(end);
	end->counters = end->wait_counters = &end->own_counters; /* the caller's may be gone before the end is freed */
	if (end->own_map && end->generation == mk_fork_generation()) {
		/* Pairs with the acquire in mk_end_gone: who sees it closed sees all that was published. */
		mk_store_release(end->state, MK_END_CLOSED);
		/* The word that the other side looks at after each publish: it finds the state from there. Pairs
		 * with the acquire in mk_ring_bell. */
		mk_store_release(end->parked, ++end->parks << 2 | MK_PARKED_SOCKET);
		if (end->peer_map) {
			mk_fence(); /* the bell is rung once and for all: look for a park that has just begun */
			end->rung = 0;
			mk_ring_bell(end);
		}
		mk_object_unmap(end->own_map, end->own_map_size);
		mk_object_unmap(end->peer_map, end->peer_map_size);
	} /* in a forked copy nothing of the lane was ever mapped */
	end->own_map = end->peer_map = NULL;
	close_descriptors(end);
}

void mk_sender_close(struct mk_sender *tx)
{
	if (!tx)
		return;
	mk_end_close(&tx->end);
	free(tx);
}

void mk_receiver_close(struct mk_receiver *rx)
{
	if (!rx)
		return;
	mk_end_close(&rx->end);
	free(rx);
}

/* --- the other side ----------------------------------------------------------------------------------------------- */

int mk_quarantine(struct mk_end *end, uint32_t bad, uint64_t value)
{
	if (!end->bad) {
		end->bad = bad;
		end->bad_value = value;
	}
	end->stop = -EBADMSG;
	return -EBADMSG;
}

static void mark_gone(struct mk_end *end)
{
	end->gone = true;
	if (end->sending && !end->stop)
		end->stop = -EPIPE;
}

/* Keep the first descriptor that came: the peer's pidfd. The rest is closed. */
static void take_pidfd(struct mk_end *end, struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= c->cmsg_len; at += sizeof(int)) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
			if (end->pidfd < 0)
				end->pidfd = fd;
			else
				close(fd);
		}
	}
}

static _Atomic uint32_t drains;

uint32_t mk_drains(void)
{
	return mk_load_relaxed(&drains); /* an end's own are of its own thread */
}

void mk_end_drain(struct mk_end *end)
{
	char bytes[256];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	bool rung = false;
	bool awaits; /* the message with the pidfd: a read ends behind it, whatever comes after */
	int reads = 0;
	ssize_t got;

	if (end->socket < 0)
		return;
	do {
		struct iovec data = {.iov_base = bytes, .iov_len = sizeof(bytes)};
		struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

		awaits = end->private_socket && end->pidfd < 0;
		if (end->private_socket) { /* only inside one program: a link's peer could send what harms to hold */
			message.msg_control = &control;
			message.msg_controllen = sizeof(control.room);
		}
		got = recvmsg(end->socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (got > 0) {
			rung = true;
			atomic_fetch_add_explicit(&drains, 1, memory_order_relaxed);
		}
		if (got > 0 && end->private_socket)
			take_pidfd(end, &message);
		/* A peer may write as fast as we read: what is left makes the socket readable again. */
	} while (++reads < DRAIN_READS &&
		 (got == (ssize_t)sizeof(bytes) || (got > 0 && awaits) || (got < 0 && errno == EINTR)));
	end->hung_up = got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
	if (end->hung_up || (end->due && rung)) /* due: the peer is dead, and who rings is the host */
		mark_gone(end);
}

static bool process_ended(int pidfd)
{
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};

	return pidfd >= 0 && poll(&ended, 1, 0) > 0;
}

bool mk_end_gone(struct mk_end *end, bool now)
{
	if (end->gone)
		return true;
	/* Pairs with the release store in mk_end_close. */
	if (mk_load_acquire(end->peer_state) == MK_END_CLOSED) {
		mark_gone(end);
		return true;
	}
	if (!now) {
		uint64_t time;

		if (++end->empty_looks & 63)
			return false;
		time = mk_now();
		if (time - end->looked < LIFE_EVERY_NS)
			return false;
		end->looked = time;
	}
	mk_end_drain(end);
	if (!end->gone && process_ended(end->pidfd))
		mark_gone(end);
	return end->gone;
}
