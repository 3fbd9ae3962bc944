/* message.h: what a message is, for whoever writes an image, too. C and C++; nothing of the shared memory is in here. */
#ifndef MULTIKERNEL_MESSAGE_H
#define MULTIKERNEL_MESSAGE_H

#include <stdint.h>

/* A record as the receiver sees it: a checked copy of its header, and where its payload lies. */
struct mk_message {
	const void *payload; /* valid until released */
	uint64_t id;
	uint32_t length; /* of the payload, bytes */
	uint16_t type;
	uint16_t subtype;
	uint32_t
		sender; /* inside an instance: id of the party at the other end; else meaningless, as what follows is */
	int link;       /* the number of the link that it came by */
	int redelivered; /* whether an earlier incarnation had it in its hands */
};

/* Bits of an id. The rest is a number of the sender's. */
#define MK_ID_REPLY (1ULL << 63)   /* answers the message whose id is the rest */
#define MK_ID_REQUEST (1ULL << 62) /* its sender waits for the reply */

/* Message types: the numbers of the multikernel tree (include/linux/multikernel.h). */
#define MK_MSG_IO 0x1000
#define MK_MSG_RESOURCE 0x2000
#define MK_MSG_SYSTEM 0x3000
#define MK_MSG_USER 0x4000
#define MK_MSG_NETWORK 0x5000

#endif
