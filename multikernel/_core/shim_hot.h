/* shim_hot.h: the table of what the extension calls. Compiled behind the other shims, whose functions are in it. */
#include "hot_core.h"

static const void *mk_py_hot_core(void)
{
	static const struct mk_hot_core core = {
		.size = sizeof(core),
		.abi = MK_ABI_VERSION,
		.end_size = sizeof(struct mk_end),
		.end_gone = mk_end_gone,
		.ring_bell = mk_ring_bell,
		.quarantine = mk_quarantine,
		.look_for_room = mk_look_for_room,
		.look = mk_look,
		.look_on = mk_look_on,
		.ipi_look = mk_ipi_look,
		.wait = mk_wait,
		.end_ready = mk_end_ready,
		.event_settle = mk_event_settle,
		.now = mk_now,
		.fork_generation = mk_fork_generation,
		.membarrier_own = mk_membarrier_own,
		.queue_put_one = mk_queue_put_one,
		.queue_try_take = mk_queue_try_take,
		.mailbox_look = mk_py_mailbox_look,
		.mailbox_give = mk_py_mailbox_give,
		.follower_look = mk_py_follower_look,
		.follower_give = mk_py_follower_give,
		.broadcast_try = mk_py_broadcast_try,
	};

	return &core;
}
