/* What many lanes cost the one who receives from them: one busy lane among 64 against one lane alone, asleep between
 * messages; and four senders on one core against one.
 *
 *     make -C csrc bench && csrc/build/plain/bench_fan
 *
 * Two processes on two cpus, A B A B, medians of the pairs' ratios and their range. Every message is checked.
 */
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "multikernel/doorbell.h"
#include "multikernel/mailbox.h"

#define CAPACITY (1u << 20)
#define MOST 64u
#define ROUNDS 9u
#define WAKES 1000u
#define MESSAGES 16000000u

struct ends {
	int producer, consumer, sockets[2];
};

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static struct ends lane(void)
{
	struct ends e = {.producer = mk_lane_object(MK_KIND_PRODUCER, "lane:bench", CAPACITY, 0, 0, 0),
			 .consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:bench", CAPACITY, 0, 0, 0)};

	must(e.producer >= 0 && e.consumer >= 0, "making a lane");
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, e.sockets), "socketpair");
	return e;
}

static struct mk_sender *sender(struct ends *e)
{
	int reader = mk_object_reopen(e->consumer);
	struct mk_sender *tx;

	must(!mk_sender_claim(&tx, e->producer, NULL, NULL), "claim");
	must(!mk_sender_attach(tx, reader, 0, e->sockets[0], -1, NULL), "attach");
	close(reader);
	return tx;
}

static struct mk_receiver *receiver(struct ends *e)
{
	int reader = mk_object_reopen(e->producer);
	struct mk_receiver *rx;

	must(!mk_receiver_claim(&rx, e->consumer, NULL, NULL), "claim");
	must(!mk_receiver_attach(rx, reader, 0, e->sockets[1], -1, NULL), "attach");
	close(reader);
	return rx;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(!sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

static pid_t start(void)
{
	pid_t parent = getpid(), pid = fork();

	must(pid >= 0, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- a wake-up ---------------------------------------------------------------------------------------------------- */

struct cost {
	double wall, cpu; /* ns: from the send to the receiver's having it, the median; of the receiver's, the mean */
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Send the time whenever the receiver sleeps: it says so in its page, and gets some time to be asleep. */
static void send_to_sleeper(struct mk_sender *tx)
{
	uint32_t last = 0;

	for (uint64_t i = 0; i < WAKES; i++) {
		uint32_t parked;
		uint64_t now;

		do
			parked = mk_load_acquire(tx->end.peer_parked);
		while ((parked & MK_PARKED_MODE) < MK_PARKED_FUTEX || parked == last);
		last = parked;
		for (now = mk_now() + 30000; mk_now() < now;)
			mk_pause();
		now = mk_now();
		must(!mk_send(tx, MK_MSG_USER, 0, i, &now, sizeof(now)), "mk_send");
	}
}

/* A message through one lane of @lanes of a mailbox whose receiver sleeps. */
static struct cost wake_up(unsigned lanes, const int *cpus)
{
	static struct ends all[MOST];
	static double took[WAKES];
	struct mk_mailbox *box;
	struct cost cost;
	uint64_t cpu;

	for (unsigned i = 0; i < lanes; i++)
		all[i] = lane();
	pid_t pid = start();

	if (!pid) { /* the senders of the other lanes are here, too, and say nothing */
		struct mk_sender *senders[MOST];

		pin(cpus[1]);
		for (unsigned i = 0; i < lanes; i++)
			senders[i] = sender(&all[i]);
		send_to_sleeper(senders[lanes / 2]);
		_exit(0);
	}
	pin(cpus[0]);
	box = mk_mailbox_new(MK_WAIT_PARK, false);
	for (unsigned i = 0; i < lanes; i++)
		must(!mk_mailbox_add(box, receiver(&all[i]), i), "mk_mailbox_add");
	cpu = cpu_ns();
	for (uint64_t i = 0; i < WAKES; i++) {
		struct mk_message m;
		uint32_t from;
		uint64_t sent;
		int n;

		while ((n = mk_mailbox_peek(box, &m, 1, &from)) == -EAGAIN)
			must(mk_mailbox_wait(box, -1, false) != -EPIPE, "a mailbox without senders");
		must(n == 1 && from == lanes / 2 && m.id == i, "the next message");
		memcpy(&sent, m.payload, sizeof(sent));
		took[i] = (double)(mk_now() - sent);
		mk_mailbox_release(box);
	}
	cost.cpu = (double)(cpu_ns() - cpu) / WAKES;
	qsort(took, WAKES, sizeof(*took), by_value);
	cost.wall = took[WAKES / 2];
	waitpid(pid, NULL, 0);
	mk_mailbox_free(box);
	for (unsigned i = 0; i < lanes; i++) {
		close(all[i].producer);
		close(all[i].consumer);
		close(all[i].sockets[0]);
	}
	return cost;
}

/* --- four senders on one core -------------------------------------------------------------------------------------- */

/* Messages a second. */
static double stream(unsigned senders, const int *cpus)
{
	struct ends all[4];
	struct mk_mailbox *box = mk_mailbox_new(MK_WAIT_ADAPTIVE, false);
	uint64_t received[4] = {0}, total = 0, began;
	pid_t pids[4];
	int go[2];

	must(!pipe(go), "pipe");
	for (unsigned i = 0; i < senders; i++)
		all[i] = lane();
	for (unsigned i = 0; i < senders; i++) {
		pids[i] = start();
		if (pids[i])
			continue;
		pin(cpus[1]);
		struct mk_sender *tx = sender(&all[i]);
		char byte;

		must(read(go[0], &byte, 1) == 1, "the word to begin");
		for (uint64_t n = 0; n < MESSAGES / senders; n++)
			while (mk_send(tx, MK_MSG_USER, 0, n, "12345678", 8) == -EAGAIN)
				mk_wait(&tx->end, -1);
		_exit(0);
	}
	pin(cpus[0]);
	for (unsigned i = 0; i < senders; i++)
		must(!mk_mailbox_add(box, receiver(&all[i]), i), "mk_mailbox_add");
	must(write(go[1], "4444", senders) == (ssize_t)senders, "write");
	began = mk_now();
	while (total < MESSAGES / senders * senders) {
		struct mk_message m[MK_TURN_RECORDS];
		uint32_t from;
		int n = mk_mailbox_peek(box, m, MK_TURN_RECORDS, &from);

		if (n == -EAGAIN) {
			mk_mailbox_wait(box, -1, false);
			continue;
		}
		must(n > 0, "mk_mailbox_peek");
		for (int i = 0; i < n; i++)
			must(m[i].id == received[from]++, "the next message");
		mk_mailbox_release(box);
		total += (uint64_t)n;
	}
	double seconds = (double)(mk_now() - began) / 1e9;

	for (unsigned i = 0; i < senders; i++) {
		waitpid(pids[i], NULL, 0);
		close(all[i].producer);
		close(all[i].consumer);
		close(all[i].sockets[0]);
	}
	close(go[0]);
	close(go[1]);
	mk_mailbox_free(box);
	return (double)total / seconds;
}

/* --- showing ------------------------------------------------------------------------------------------------------- */

static void show(const char *what, double *ratios, unsigned n, double ours)
{
	qsort(ratios, n, sizeof(*ratios), by_value);
	printf("%-60s %5.2fx  %.2f-%.2f  (%.2f)\n", what, ratios[n / 2], ratios[0], ratios[n - 1], ours);
}

int main(int argc, char **argv)
{
	double wall[ROUNDS], cpu[ROUNDS], rate[ROUNDS];
	double us = 0, cpu_us = 0, millions = 0;
	int cpus[2], found = 0;
	cpu_set_t usable;

	if (argc > 1) { /* the name of a work, or a form: it has neither */
		(void)argv;
		return 77;
	}

	must(!sched_getaffinity(0, sizeof(usable), &usable), "sched_getaffinity");
	for (int i = 0; i < CPU_SETSIZE && found < 2; i++)
		if (CPU_ISSET(i, &usable))
			cpus[found++] = i;
	if (found < 2) {
		fprintf(stderr, "needs two cpus\n");
		return 77;
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct cost many = wake_up(MOST, cpus), one = wake_up(1, cpus);
		double four = stream(4, cpus), alone = stream(1, cpus);

		wall[i] = many.wall / one.wall;
		cpu[i] = many.cpu / one.cpu;
		rate[i] = four / alone;
		us = many.wall / 1000;
		cpu_us = many.cpu / 1000;
		millions = four / 1e6;
	}
	printf("%-60s %6s  %s\n", "work, against", "ratio", "range  (the last: us, us of cpu, M/s)");
	show("waking a sleeper on 64 lanes, one busy, against 1 lane", wall, ROUNDS, us);
	show("the receiver's cpu time of it", cpu, ROUNDS, cpu_us);
	show("4 senders on one core, one receiver, against 1 sender", rate, ROUNDS, millions);
	return 0;
}
