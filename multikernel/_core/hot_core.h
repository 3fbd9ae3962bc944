/* hot_core.h: what the cffi module, which has the C core in it, gives to the extension. */
#ifndef MULTIKERNEL_HOT_CORE_H
#define MULTIKERNEL_HOT_CORE_H

#include "ends.h"
#include "multikernel/queue.h"

struct mk_py_mailbox;
struct mk_py_follower;
struct mk_py_broadcast;

struct mk_hot_core {
	uint32_t size, abi, end_size, reserved; /* of this table, MK_ABI_VERSION, of struct mk_end */
	bool (*end_gone)(struct mk_end *, bool);
	void (*ring_bell)(struct mk_end *);
	int (*quarantine)(struct mk_end *, uint32_t, uint64_t);
	int (*look_for_room)(struct mk_sender *, uint64_t);
	int (*look)(struct mk_receiver *, uint64_t);
	int (*look_on)(struct mk_receiver *);
	bool (*ipi_look)(struct mk_receiver *);
	int (*wait)(struct mk_end *, int64_t);
	bool (*end_ready)(struct mk_end *);
	void (*event_settle)(struct mk_end *);
	uint64_t (*now)(void);
	uint32_t (*fork_generation)(void);
	int (*membarrier_own)(void);
	int (*queue_put_one)(struct mk_queue *, const void *, uint64_t);
	int64_t (*queue_try_take)(struct mk_queue *, void *, uint64_t, struct mk_queue_taken *);
	int (*mailbox_look)(struct mk_py_mailbox *, struct mk_message *, int, uint32_t *, bool);
	int (*mailbox_give)(struct mk_py_mailbox *, int);
	int (*follower_look)(struct mk_py_follower *, struct mk_message *, int);
	int (*follower_give)(struct mk_py_follower *, int);
	int (*broadcast_try)(struct mk_py_broadcast *, const void *, uint64_t);
};

#endif
