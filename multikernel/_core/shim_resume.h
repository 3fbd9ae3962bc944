/* shim_resume.h: ends that outlive an incarnation of the other side, or of their own (resume.h). */

static int mk_py_sender_succeed(struct mk_sender *tx, int predecessor, uint32_t *why)
{
	int result = mk_py_enter(&tx->end);

	if (result)
		return result;
	result = mk_sender_succeed(tx, predecessor, why);
	mk_py_leave(&tx->end);
	return result;
}

static int mk_py_receiver_succeed(struct mk_receiver *rx, int predecessor, uint32_t *why)
{
	int result = mk_py_enter(&rx->end);

	if (result)
		return result;
	result = mk_receiver_succeed(rx, predecessor, why);
	mk_py_leave(&rx->end);
	return result;
}

static int mk_py_sender_resume(struct mk_sender *tx, int consumer, int pidfd, uint32_t *why)
{
	int result = mk_py_enter(&tx->end);

	if (result)
		return result;
	result = mk_sender_resume(tx, consumer, pidfd, why);
	mk_py_leave(&tx->end);
	return result;
}

static int mk_py_receiver_resume(struct mk_receiver *rx, int producer, int pidfd, uint32_t *why)
{
	int result = mk_py_enter(&rx->end);

	if (result)
		return result;
	result = mk_receiver_resume(rx, producer, pidfd, why);
	mk_py_leave(&rx->end);
	return result;
}

static int mk_py_due(struct mk_end *end)
{
	int result = mk_py_enter(end);

	if (result)
		return result;
	mk_end_due(end);
	mk_py_leave(end);
	return 0;
}

/* Release the next record without handing it out; IPIs that were raised before it stay. @return 0, -EAGAIN, -EPIPE ... */
static int mk_py_skip(struct mk_receiver *rx, struct mk_message *message)
{
	int result = mk_py_enter(&rx->end);

	if (result)
		return result;
	result = mk_peek(rx, message);
	if (!result)
		mk_release(rx);
	mk_py_leave(&rx->end);
	return result;
}

/* Whether the record that was looked at last had been handed out by a predecessor of this end. */
static int mk_py_redelivered(struct mk_receiver *rx)
{
	return mk_redelivered(rx);
}

/* Look, with each message, whether the host has published something of instance @id, from now on. */
static int mk_py_watch_fate(struct mk_end *end, const struct mk_machine *machine, uint32_t id)
{
	int result = mk_py_seize(end);

	if (result)
		return result;
	mk_watch_fate(end, machine ? &machine->instances[id % MK_INSTANCES].latch.sequence : NULL);
	mk_py_unseize(end);
	return 0;
}
