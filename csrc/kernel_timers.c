/* kernel_timers.c: timers of a native instance. Nobody else has a clock here: the loop sleeps until the next one is due at
 * most, and runs what is due between messages.
 */
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int set_timer(struct mk_kernel *k, uint64_t delay, uint64_t period, mk_timer_handler *handler, void *context)
{
	struct timer *timer = NULL;

	for (unsigned i = 0; i < k->timer_room && !timer; i++)
		if (!k->timers[i].number)
			timer = &k->timers[i];
	if (!timer) {
		struct timer *more = realloc(k->timers, (k->timer_room + 4) * sizeof(*more));

		if (!more)
			return mk_fail(k, -ENOMEM, "no memory for a timer");
		memset(more + k->timer_room, 0, 4 * sizeof(*more));
		timer = more + k->timer_room;
		k->timers = more;
		k->timer_room += 4;
	}
	*timer = (struct timer){++k->last_timer, false, mk_now() + delay, period, handler, context};
	return timer->number;
}

int mk_kernel_every(mk_kernel *k, uint64_t period_ns, mk_timer_handler *handler, void *context)
{
	if (!period_ns)
		return mk_fail(k, -EINVAL, "a timer's period is at least 1 ns");
	return set_timer(k, period_ns, period_ns, handler, context);
}

int mk_kernel_after(mk_kernel *k, uint64_t delay_ns, mk_timer_handler *handler, void *context)
{
	return set_timer(k, delay_ns, 0, handler, context);
}

int mk_kernel_cancel(mk_kernel *k, int number)
{
	for (unsigned i = 0; i < k->timer_room && number > 0; i++) {
		if (k->timers[i].number != number)
			continue;
		k->timers[i].number = 0;
		return 0;
	}
	return mk_fail(k, -ENOENT, "there is no timer %d, or it is over", number);
}

/* The one that is due first, if it is by @now. */
static struct timer *first_due(struct mk_kernel *k, uint64_t now)
{
	struct timer *first = NULL;

	for (unsigned i = 0; i < k->timer_room; i++) {
		struct timer *timer = &k->timers[i];

		if (timer->number && !timer->running && timer->due <= now && (!first || timer->due < first->due))
			first = timer;
	}
	return first;
}

static void run(struct mk_kernel *k, struct timer *timer, uint64_t now)
{
	struct timer copy = *timer; /* the table may move: its handler may set more */
	uint64_t count = 1;

	if (copy.period) {
		count += (now - copy.due) / copy.period;
		timer->due += count * copy.period; /* from its time and not from now: it does not drift */
		timer->running = true;
	} else {
		timer->number = 0;
	}
	k->inside++;
	copy.handler(k, count, copy.context);
	k->inside--;
	for (unsigned i = 0; i < k->timer_room; i++)
		if (k->timers[i].number == copy.number)
			k->timers[i].running = false;
}

void mk_run_timers(struct mk_kernel *k)
{
	uint64_t now = k->timer_room ? mk_now() : 0;
	struct timer *timer;

	while (k->timer_room && (timer = first_due(k, now)))
		run(k, timer, now);
}

uint64_t mk_next_timer(const struct mk_kernel *k)
{
	uint64_t due = NO_END;

	for (unsigned i = 0; i < k->timer_room; i++)
		if (k->timers[i].number && !k->timers[i].running && k->timers[i].due < due)
			due = k->timers[i].due;
	return due;
}
