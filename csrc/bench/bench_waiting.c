/* What the waiting policies cost, and what it costs to wait for many lanes.
 *
 *     build/plain/bench_waiting [CPU CPU]        two cpus; the first two that there are
 *
 * Round trips of 8 bytes between two processes, on two cores and on one, with each policy and with an answer that is
 * quick, slow, or now one and then the other; adaptive is compared with the better of spin and park in the same run.
 * Then one receiver that waits for 1 lane and for 64 of which one is busy (goal M13): the time of a wake-up, and what
 * cpu time the receiver took. In turn, ROUNDS times; medians, and ratios of medians.
 */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "multikernel/doorbell.h"

#define ROUNDS 5
#define LANES 64

#define MUST(condition)                                                                         \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                                \
		}                                                                               \
	} while (0)

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	MUST(sched_setaffinity(0, sizeof(set), &set) == 0);
}

/* --- lanes ------------------------------------------------------------------------------------------------------ */

struct ring {
	int producer, consumer, sockets[2];
};

static struct ring ring_new(void)
{
	struct ring ring;

	ring.producer = mk_lane_object(MK_KIND_PRODUCER, "lane:bench", 4096, 0, 0, 0);
	ring.consumer = mk_lane_object(MK_KIND_CONSUMER, "lane:bench", 4096, 0, 0, 0);
	MUST(ring.producer >= 0 && ring.consumer >= 0);
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ring.sockets) == 0);
	return ring;
}

static void ring_drop(struct ring *ring)
{
	close(ring->producer);
	close(ring->consumer);
	close(ring->sockets[0]);
	close(ring->sockets[1]);
}

static struct mk_sender *sender_of(const struct ring *ring, int policy)
{
	struct mk_sender *tx;
	int reader = mk_object_reopen(ring->consumer);

	MUST(mk_sender_claim(&tx, ring->producer, NULL, NULL) == 0);
	MUST(mk_sender_attach(tx, reader, 0, dup(ring->sockets[0]), -1, NULL) == 0);
	close(reader);
	tx->end.policy = (uint8_t)policy;
	return tx;
}

static struct mk_receiver *receiver_of(const struct ring *ring, int policy)
{
	struct mk_receiver *rx;
	int reader = mk_object_reopen(ring->producer);

	MUST(mk_receiver_claim(&rx, ring->consumer, NULL, NULL) == 0);
	MUST(mk_receiver_attach(rx, reader, 0, dup(ring->sockets[1]), -1, NULL) == 0);
	close(reader);
	rx->end.policy = (uint8_t)policy;
	return rx;
}

static void send_one(struct mk_sender *tx, uint64_t id)
{
	while (mk_send(tx, MK_MSG_USER, 0, id, &id, sizeof(id)) == -EAGAIN)
		mk_wait(&tx->end, -1);
}

static void receive_one(struct mk_receiver *rx, uint64_t id)
{
	struct mk_message message = {0};
	int result;

	while ((result = mk_peek(rx, &message)) == -EAGAIN)
		mk_wait(&rx->end, -1);
	MUST(result == 0 && message.id == id);
	mk_release(rx);
}

/* Work for this long before an answer. */
static void work(uint64_t ns)
{
	uint64_t until = mk_now() + ns;

	while (ns && mk_now() < until)
		mk_pause();
}

/* --- round trips ------------------------------------------------------------------------------------------------ */

enum answers {
	QUICK,
	SLOW,
	BOTH
};
static const char *const answers_names[] = {"quick", "slow (150 us)", "64 quick, 64 slow"};

static uint64_t delay_of(enum answers answers, uint64_t number)
{
	if (answers == QUICK || (answers == BOTH && number / 64 % 2 == 0))
		return 0;
	return 150000;
}

/* @return ns a round trip, without the work */
static double round_trip(int policy, const int cpus[2], enum answers answers)
{
	struct ring there = ring_new(), back = ring_new();
	uint64_t count = answers == QUICK ? 20000 : 640, worked = 0, begin = 0;
	pid_t pid = fork();

	MUST(pid >= 0);
	pin(cpus[pid == 0]);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		struct mk_receiver *rx = receiver_of(&there, policy);
		struct mk_sender *tx = sender_of(&back, policy);

		for (uint64_t i = 0; i < count; i++) {
			receive_one(rx, i);
			work(delay_of(answers, i));
			send_one(tx, i);
		}
		receive_one(rx, count);
		_exit(0);
	}
	struct mk_sender *tx = sender_of(&there, policy);
	struct mk_receiver *rx = receiver_of(&back, policy);

	for (uint64_t i = 0; i < count; i++) {
		if (i == count / 10) {
			begin = mk_now();
			worked = 0;
		}
		send_one(tx, i);
		receive_one(rx, i);
		worked += delay_of(answers, i);
	}
	double took = (double)(mk_now() - begin - worked) / (double)(count - count / 10);

	send_one(tx, count);
	MUST(waitpid(pid, NULL, 0) == pid);
	mk_sender_close(tx);
	mk_receiver_close(rx);
	ring_drop(&there);
	ring_drop(&back);
	return took;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(*values), compare);
	return values[ROUNDS / 2];
}

static void round_trips(const char *where, const int cpus[2], bool one_core)
{
	for (enum answers answers = QUICK; answers <= BOTH; answers++) {
		double took[3][ROUNDS], middle[3];

		for (int round = 0; round < ROUNDS;
		     round++) /* on one core a spinning pair waits for time slices: no peer */
			for (int policy = MK_WAIT_ADAPTIVE; policy <= MK_WAIT_PARK; policy++)
				if (policy != MK_WAIT_SPIN || !one_core)
					took[policy][round] = round_trip(policy, cpus, answers);
		middle[MK_WAIT_ADAPTIVE] = median(took[MK_WAIT_ADAPTIVE]);
		middle[MK_WAIT_PARK] = median(took[MK_WAIT_PARK]);
		printf("%-10s %-18s adaptive %8.0f ns  park %8.0f ns (%.2fx)", where, answers_names[answers],
		       middle[MK_WAIT_ADAPTIVE], middle[MK_WAIT_PARK], middle[MK_WAIT_ADAPTIVE] / middle[MK_WAIT_PARK]);
		if (!one_core) {
			middle[MK_WAIT_SPIN] = median(took[MK_WAIT_SPIN]);
			printf("  spin %8.0f ns (%.2fx)", middle[MK_WAIT_SPIN],
			       middle[MK_WAIT_ADAPTIVE] / middle[MK_WAIT_SPIN]);
		}
		printf("\n");
		fflush(stdout);
	}
}

/* --- many lanes --------------------------------------------------------------------------------------------------- */

static double cpu_time(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
}

/* Round trips over one lane, whose receiver waits for @lanes; each message comes while it sleeps.
 * @return ns a round trip; the receiver's cpu time a message in *cpu */
static double fan_in(unsigned lanes, const int cpus[2], double *cpu)
{
	struct ring rings[LANES], back = ring_new();
	const uint64_t count = 3000;
	int result[2];
	pid_t pid;

	for (unsigned i = 0; i < lanes; i++)
		rings[i] = ring_new();
	MUST(pipe(result) == 0);
	pid = fork();
	MUST(pid >= 0);
	pin(cpus[pid == 0]);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		struct mk_receiver *rx[LANES];
		struct mk_sender *tx = sender_of(&back, MK_WAIT_PARK);
		struct mk_wait_set *set = mk_wait_set_new();
		double begin = 0;

		for (unsigned i = 0; i < lanes; i++) {
			rx[i] = receiver_of(&rings[i], MK_WAIT_PARK);
			MUST(mk_wait_set_add(set, &rx[i]->end) == 0);
		}
		for (uint64_t i = 0; i < count; i++) {
			struct mk_message message = {0};
			int ready;

			if (i == count / 10)
				begin = cpu_time();
			while ((ready = mk_wait_set_wait(set, -1)) == -EINTR)
				;
			MUST(ready == 1);
			MUST(mk_peek(rx[lanes / 2], &message) == 0 && message.id == i);
			mk_release(rx[lanes / 2]);
			send_one(tx, i);
		}
		*cpu = (cpu_time() - begin) / (double)(count - count / 10);
		MUST(write(result[1], cpu, sizeof(*cpu)) == sizeof(*cpu));
		_exit(0);
	}
	struct mk_sender *tx[LANES];
	struct mk_receiver *rx = receiver_of(&back, MK_WAIT_SPIN);
	uint64_t waited = 0;

	for (unsigned i = 0; i < lanes; i++)
		tx[i] = sender_of(&rings[i], MK_WAIT_PARK);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t begin;

		while ((mk_load_relaxed(&tx[lanes / 2]->peer->parked) & MK_PARKED_MODE) < MK_PARKED_FUTEX)
			mk_pause();
		work(10000); /* until it is asleep */
		begin = mk_now();
		send_one(tx[lanes / 2], i);
		receive_one(rx, i);
		if (i >= count / 10)
			waited += mk_now() - begin;
	}
	MUST(read(result[0], cpu, sizeof(*cpu)) == sizeof(*cpu));
	MUST(waitpid(pid, NULL, 0) == pid);
	mk_receiver_close(rx);
	for (unsigned i = 0; i < lanes; i++) {
		mk_sender_close(tx[i]);
		ring_drop(&rings[i]);
	}
	ring_drop(&back);
	close(result[0]);
	close(result[1]);
	return (double)waited / (double)(count - count / 10);
}

/* One lane sleeps on its bell, three and more in an epoll: the second row tells what is due to that, and not to their
 * number. */
static void many_lanes(const int cpus[2])
{
	const unsigned lanes[] = {1, 3, LANES};
	double took[3][ROUNDS], cpu[3][ROUNDS], middle[3], cpu_middle[3];

	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < 3; i++)
			took[i][round] = fan_in(lanes[i], cpus, &cpu[i][round]);
	for (int i = 0; i < 3; i++) {
		middle[i] = median(took[i]);
		cpu_middle[i] = median(cpu[i]);
		printf("wake-up    %2u lanes %8.0f ns (%.2fx)  receiver's cpu %8.0f ns (%.2fx)\n", lanes[i], middle[i],
		       middle[i] / middle[0], cpu_middle[i], cpu_middle[i] / cpu_middle[0]);
	}
}

int main(int argc, char **argv)
{
	int cpus[2] = {argc > 2 ? atoi(argv[1]) : 0, argc > 2 ? atoi(argv[2]) : 1};
	const int one[2] = {cpus[0], cpus[0]};

	if (argc == 2) /* the name of a work, or a form: it has neither */
		return 77;
	many_lanes(cpus);
	round_trips("two cores", cpus, false);
	round_trips("one core", one, true);
	return 0;
}
