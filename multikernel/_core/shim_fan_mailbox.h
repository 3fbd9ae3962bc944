/* shim_fan_mailbox.h: what the binding adds to mailboxes. Compiled behind shim_fan.h, whose guard keeps others out. */

struct mk_py_mailbox {
	struct mk_py_guard guard;
	struct mk_mailbox *box;
	uint32_t number; /* whose lane was looked at last */
};

/* Keeps it: mk_py_mailbox_leave. */
static struct mk_py_mailbox *mk_py_mailbox_new(int policy)
{
	struct mk_py_mailbox *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->box = mk_mailbox_new((uint8_t)policy, true);
	if (!m->box) {
		free(m);
		return NULL;
	}
	m->guard.generation = mk_fork_generation();
	m->guard.whose = mk_py_self();
	return m;
}

static void mk_py_mailbox_drop(struct mk_py_mailbox *m)
{
	mk_mailbox_free(m->box);
	free(m);
}

/* @return 0; -EBUSY: it is in use, nothing was done */
static int mk_py_mailbox_close(struct mk_py_mailbox *m)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result == -EBUSY || result == -EBADF)
		return result == -EBUSY ? result : 0;
	mk_mailbox_close(m->box);
	mk_store_release(&m->guard.whose, MK_PY_OVER);
	return 0;
}

static void mk_py_mailbox_leave(struct mk_py_mailbox *m)
{
	if (!mk_py_guard_held(&m->guard))
		return;
	mk_mailbox_settle(m->box);
	mk_py_guard_leave(&m->guard);
}

/* For who has it. On success the receiver is the mailbox's and *rx is NULL. */
static int mk_py_mailbox_add(struct mk_py_mailbox *m, struct mk_receiver **rx, uint32_t number)
{
	int result = mk_py_guard_held(&m->guard) ? mk_mailbox_add(m->box, *rx, number) : -EBUSY;

	if (!result)
		*rx = NULL;
	return result;
}

static int mk_py_mailbox_watch(struct mk_py_mailbox *m, int fd)
{
	return mk_py_guard_held(&m->guard) ? mk_mailbox_watch(m->box, fd) : -EBUSY;
}

static void mk_py_mailbox_unwatch(struct mk_py_mailbox *m, int fd)
{
	if (mk_py_guard_held(&m->guard))
		mk_mailbox_unwatch(m->box, fd);
}

/* Keeps it when it finds something, and for 0 (look at what is watched), until mk_py_mailbox_give or _leave. */
static int mk_py_mailbox_peek(struct mk_py_mailbox *m, struct mk_message *messages, int limit, int64_t deadline)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result)
		return result;
	while ((result = mk_mailbox_peek(m->box, messages, (unsigned)limit, &m->number)) == -EAGAIN) {
		bool goes_on = deadline && mk_py_guard_goes_on(&m->guard, deadline);

		result = mk_py_waited(mk_mailbox_wait(m->box, mk_py_left(deadline), goes_on), deadline);
		if (result)
			break;
	}
	if (result < 0)
		mk_py_mailbox_leave(m);
	return result;
}

/* As mk_py_mailbox_peek, without waiting, for the extension. Keeps it for what it finds, and for 0; with @later that is
 * -EAGAIN now, and 0 the next time. */
static int mk_py_mailbox_look(struct mk_py_mailbox *m, struct mk_message *messages, int limit, uint32_t *number, bool later)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result)
		return result;
	result = mk_mailbox_peek(m->box, messages, (unsigned)limit, &m->number);
	*number = m->number;
	if (!result && later) {
		mk_mailbox_remind(m->box);
		result = -EAGAIN;
	}
	if (result < 0)
		mk_py_mailbox_leave(m);
	return result;
}

/* Give it back after a look, by whatever thread: with the space of what was seen, or that is next again. */
static int mk_py_mailbox_give(struct mk_py_mailbox *m, int ended_well)
{
	if (m->guard.generation != mk_fork_generation())
		return -ECHILD;
	if (ended_well)
		mk_mailbox_release(m->box);
	else
		mk_mailbox_unpeek(m->box);
	mk_mailbox_settle(m->box);
	mk_py_guard_leave(&m->guard);
	return 0;
}

/* After an exception in the middle of a call: what was looked at is next again, the mailbox is free. */
static void mk_py_mailbox_recover(struct mk_py_mailbox *m)
{
	if (!mk_py_guard_held(&m->guard))
		return;
	mk_mailbox_unpeek(m->box);
	mk_py_mailbox_leave(m);
}

/* Keeps it: mk_py_mailbox_leave. */
static int mk_py_mailbox_enter(struct mk_py_mailbox *m)
{
	return mk_py_guard_enter(&m->guard);
}

/* For who has it. */
static int64_t mk_py_mailbox_waiting(struct mk_py_mailbox *m)
{
	return mk_py_guard_held(&m->guard) ? (int64_t)mk_mailbox_waiting(m->box) : -EBUSY;
}

/* For who has it. @return whether no more can come */
static int mk_py_mailbox_over(struct mk_py_mailbox *m)
{
	return mk_py_guard_held(&m->guard) && mk_mailbox_over(m->box);
}

static int mk_py_mailbox_event(struct mk_py_mailbox *m)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result)
		return result;
	result = mk_mailbox_descriptor(m->box);
	mk_py_mailbox_leave(m);
	return result;
}

/* @return how many there are; up to @room of them are in @numbers */
static int mk_py_mailbox_numbers(struct mk_py_mailbox *m, uint32_t *numbers, int room)
{
	int result = mk_py_guard_enter(&m->guard);

	if (result)
		return result;
	result = (int)mk_mailbox_numbers(m->box, numbers, (unsigned)room);
	mk_py_mailbox_leave(m);
	return result;
}

/* Whose lane was looked at last. */
static uint32_t mk_py_mailbox_number(struct mk_py_mailbox *m)
{
	return m->number;
}

static uint32_t mk_py_mailbox_bad(struct mk_py_mailbox *m, uint64_t *value)
{
	return mk_mailbox_bad(m->box, value);
}
