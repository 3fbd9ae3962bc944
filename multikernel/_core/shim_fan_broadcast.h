/* shim_fan_broadcast.h: what the binding adds to broadcasts. Compiled behind shim_fan.h, whose guard keeps others out. */

/* --- the sender of a broadcast ------------------------------------------------------------------------------------- */

struct mk_py_broadcast {
	struct mk_py_guard guard;
	struct mk_broadcast *cast;
};

/* Keeps it: mk_py_broadcast_leave. After an error *out is NULL. */
static int mk_py_broadcast_claim(struct mk_py_broadcast **out, int producer_fd, int roster_fd, int maker, int policy,
				 uint32_t *why)
{
	struct mk_py_broadcast *b = calloc(1, sizeof(*b));
	int result;

	if (!b)
		return -ENOMEM;
	b->guard.generation = mk_fork_generation();
	b->guard.whose = mk_py_self();
	result = mk_broadcast_claim(&b->cast, producer_fd, roster_fd, maker, (uint8_t)policy, true, why);
	if (result)
		free(b);
	else
		*out = b;
	return result;
}

static void mk_py_broadcast_drop(struct mk_py_broadcast **b)
{
	if (!*b)
		return;
	mk_broadcast_free((*b)->cast);
	free(*b);
}

static int mk_py_broadcast_close(struct mk_py_broadcast *b)
{
	int result = mk_py_guard_enter(&b->guard);

	if (result == -EBUSY || result == -EBADF)
		return result == -EBUSY ? result : 0;
	mk_broadcast_close(b->cast);
	mk_store_release(&b->guard.whose, MK_PY_OVER);
	return 0;
}

/* For who has it: all that was on its way has been taken in. */
static void mk_py_broadcast_caught_up(struct mk_py_broadcast *b)
{
	if (mk_py_guard_held(&b->guard))
		mk_broadcast_caught_up(b->cast);
}

static void mk_py_broadcast_leave(struct mk_py_broadcast *b)
{
	if (mk_py_guard_held(&b->guard))
		mk_py_guard_leave(&b->guard);
}

static int mk_py_broadcast_add(struct mk_py_broadcast *b, int consumer_fd, int socket, uint32_t number, uint32_t *why)
{
	return mk_py_guard_held(&b->guard) ? mk_broadcast_add(b->cast, consumer_fd, socket, number, why) : -EBUSY;
}

/* Send @count records, published together; a full ring publishes what is there and waits. *done of them were put.
 * @return 0 or why it stopped. After -ENOTCONN it keeps the broadcast: take in, mk_py_broadcast_caught_up, _leave, and again. */
static int mk_py_broadcast_send(struct mk_py_broadcast *b, const void *const *payloads, const uint64_t *lengths,
				int64_t count, int64_t deadline, int64_t *done)
{
	int result = mk_py_guard_enter(&b->guard);

	if (result)
		return result;
	while (*done < count) {
		result = mk_broadcast_put(b->cast, payloads[*done], lengths[*done]);
		if (!result) {
			++*done;
			continue;
		}
		mk_broadcast_publish(b->cast);
		if (result == -EAGAIN) {
			bool goes_on = deadline && mk_py_guard_goes_on(&b->guard, deadline);

			result = mk_py_waited(mk_broadcast_wait(b->cast, mk_py_left(deadline), goes_on), deadline);
		}
		if (result)
			break;
	}
	mk_broadcast_publish(b->cast);
	if (result != -ENOTCONN)
		mk_py_guard_leave(&b->guard);
	return result;
}

static int mk_py_broadcast_send_one(struct mk_py_broadcast *b, const char *payload, uint64_t length, int64_t deadline)
{
	const void *payloads[1] = {payload};
	int64_t done = 0;

	return mk_py_broadcast_send(b, payloads, &length, 1, deadline, &done);
}

/* As mk_py_broadcast_send_one, without waiting, and whatever comes of it leaves the broadcast: for the extension. */
static int mk_py_broadcast_try(struct mk_py_broadcast *b, const void *payload, uint64_t length)
{
	int result = mk_py_guard_enter(&b->guard);

	if (result)
		return result;
	result = mk_broadcast_put(b->cast, payload, length);
	if (!result)
		mk_broadcast_publish(b->cast);
	mk_py_guard_leave(&b->guard);
	return result;
}

/* After -ENOTCONN as mk_py_broadcast_send. */
static int mk_py_broadcast_receivers(struct mk_py_broadcast *b)
{
	int result = mk_py_guard_enter(&b->guard);

	if (result)
		return result;
	result = mk_broadcast_receivers(b->cast);
	if (result != -ENOTCONN)
		mk_py_guard_leave(&b->guard);
	return result;
}

static uint64_t mk_py_broadcast_longest(struct mk_py_broadcast *b)
{
	return mk_broadcast_longest(b->cast);
}

static uint32_t mk_py_broadcast_bad(struct mk_py_broadcast *b, uint64_t *value)
{
	return mk_broadcast_bad(b->cast, value);
}

/* --- a receiver that may be overtaken -------------------------------------------------------------------------------- */

struct mk_py_follower {
	struct mk_py_guard guard;
	struct mk_follower *follower;
	_Atomic uint64_t missed; /* in all, before what was given out last */
	uint64_t gap;            /* before what was looked at */
};

/* On success the receiver is the follower's and *rx is NULL. NULL: errno says why. */
static struct mk_py_follower *mk_py_follower_new(struct mk_receiver **rx, uint64_t number, int policy)
{
	struct mk_py_follower *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->follower = mk_follower_new(*rx, number);
	if (!f->follower) {
		free(f);
		return NULL;
	}
	(*rx)->end.policy = (uint8_t)policy;
	(*rx)->end.interpreted = true;
	*rx = NULL;
	f->guard.generation = mk_fork_generation();
	return f;
}

static void mk_py_follower_drop(struct mk_py_follower *f)
{
	mk_follower_free(f->follower);
	free(f);
}

static int mk_py_follower_close(struct mk_py_follower *f)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result == -EBUSY || result == -EBADF)
		return result == -EBUSY ? result : 0;
	mk_follower_close(f->follower);
	mk_store_release(&f->guard.whose, MK_PY_OVER);
	return 0;
}

static void mk_py_follower_leave(struct mk_py_follower *f)
{
	if (!mk_py_guard_held(&f->guard))
		return;
	mk_event_settle(&mk_follower_receiver(f->follower)->end);
	mk_py_guard_leave(&f->guard);
}

/* Keeps it when it finds something: mk_py_follower_give. */
static int mk_py_follower_peek(struct mk_py_follower *f, struct mk_message *messages, int limit, int64_t deadline)
{
	int result = mk_py_guard_enter(&f->guard);
	struct mk_end *end;

	if (result)
		return result;
	end = &mk_follower_receiver(f->follower)->end;
	while ((result = mk_follower_look(f->follower, messages, (unsigned)limit, &f->gap)) == -EAGAIN) {
		if (deadline && !mk_py_guard_goes_on(&f->guard, deadline))
			end->signals_seen = false;
		result = mk_py_waited(mk_wait(end, mk_py_left(deadline)), deadline);
		if (result)
			break;
	}
	/* Overtaken again and again is no reason to stay longer than was asked. */
	if (result == -EINTR && deadline > 0 && !mk_py_left(deadline))
		result = -ETIMEDOUT;
	if (result < 0)
		mk_py_follower_leave(f);
	return result;
}

/* As mk_py_follower_peek, without waiting, for the extension. */
static int mk_py_follower_look(struct mk_py_follower *f, struct mk_message *messages, int limit)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	result = mk_follower_look(f->follower, messages, (unsigned)limit, &f->gap);
	if (result < 0)
		mk_py_follower_leave(f);
	return result;
}

/* Give it back after a look, by whatever thread: without what was seen, or that is next again. */
static int mk_py_follower_give(struct mk_py_follower *f, int ended_well)
{
	if (f->guard.generation != mk_fork_generation())
		return -ECHILD;
	if (ended_well) {
		mk_count(&f->missed, f->gap);
		mk_follower_release(f->follower);
	}
	mk_event_settle(&mk_follower_receiver(f->follower)->end);
	mk_py_guard_leave(&f->guard);
	return 0;
}

static uint64_t mk_py_follower_missed(struct mk_py_follower *f)
{
	return mk_load_relaxed(&f->missed);
}

static uint64_t mk_py_follower_capacity(struct mk_py_follower *f)
{
	return mk_follower_receiver(f->follower)->end.mask + 1;
}

static int64_t mk_py_follower_waiting(struct mk_py_follower *f)
{
	int64_t result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	result = (int64_t)mk_follower_waiting(f->follower);
	mk_py_follower_leave(f);
	return result;
}

/* @return whether the sender is gone; -EBUSY ... */
static int mk_py_follower_over(struct mk_py_follower *f)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	result = mk_end_gone(&mk_follower_receiver(f->follower)->end, true);
	mk_py_follower_leave(f);
	return result;
}

static int mk_py_follower_event(struct mk_py_follower *f)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	result = mk_event_descriptor(&mk_follower_receiver(f->follower)->end);
	mk_py_follower_leave(f);
	return result;
}

/* @return 0, or why nothing was looked at */
static int mk_py_follower_inspect(struct mk_py_follower *f, struct mk_py_view *view)
{
	int result = mk_py_guard_enter(&f->guard);

	if (result)
		return result;
	mk_py_inspect(&mk_follower_receiver(f->follower)->end, view);
	mk_py_follower_leave(f);
	return 0;
}
