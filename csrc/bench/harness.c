/* harness.c: rounds, ratios and what is printed of them. */
#include "harness.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trial.h"

enum {
	ROUNDS = 9,
	MOST = 8,            /* contestants of a work */
	TRIAL_NS = 50000000, /* what a run should take */
	FIRST = 2000,        /* how often in the run that finds out how often */
	SKIPPED = 77
};

/* --- one work ----------------------------------------------------------------------------------------------------------- */

/* ns of a round trip: the best of a few short runs */
static double placement(const int *cpus)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		uint64_t ns = run(&bare_line, cpus, 10000, NULL);

		if (ns && ns < best)
			best = ns;
	}
	return (double)best / 10000;
}

struct figures {
	const char *name;
	bool valid;
	double times[ROUNDS]; /* ns each */
	struct mk_histogram histogram;
};

struct spread {
	double median, lowest, highest;
};

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct spread spread_of(const double *values)
{
	double sorted[ROUNDS];

	memcpy(sorted, values, sizeof(sorted));
	qsort(sorted, ROUNDS, sizeof(*sorted), ascending);
	return (struct spread){sorted[ROUNDS / 2], sorted[0], sorted[ROUNDS - 1]};
}

/* How often in a run: as often as takes TRIAL_NS, found by runs that are not counted. */
static uint64_t how_often(const struct contestant *c, const int *cpus)
{
	uint64_t n = FIRST;

	for (;;) {
		uint64_t ns = run(c, cpus, n, NULL);

		if (!ns)
			return 0;
		if (ns > TRIAL_NS / 4)
			return n * TRIAL_NS / ns + 1;
		n *= ns * 10 < TRIAL_NS ? 8 : 2;
	}
}

/* Ours per peer: of messages a second more is better, of ns less; both times are ns each. */
static struct spread ratio(const struct work *work, const struct figures *ours, const struct figures *peer)
{
	double ratios[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		ratios[i] = strcmp(work->unit, "ns") ? peer->times[i] / ours->times[i]
						     : ours->times[i] / peer->times[i];
	return spread_of(ratios);
}

static double in_unit(const struct work *work, double ns)
{
	return strcmp(work->unit, "ns") ? 1000 / ns : ns;
}

static void measure(const struct work *work, const int *cpus, struct figures *figures)
{
	bool waits = !strcmp(work->unit, "ns");
	uint64_t n[MOST];

	for (unsigned c = 0; c < work->count; c++) {
		memset(&figures[c], 0, sizeof(figures[c]));
		if (!work->contestants[c])
			continue;
		figures[c].name = work->contestants[c]->name;
		n[c] = how_often(work->contestants[c], cpus);
		figures[c].valid = n[c] != 0;
	}
	for (int round = 0; round < ROUNDS; round++) {
		for (unsigned c = 0; c < work->count; c++) {
			uint64_t ns;

			if (!figures[c].valid)
				continue;
			ns = run(work->contestants[c], cpus, n[c], NULL);
			figures[c].valid = ns != 0;
			figures[c].times[round] = (double)ns / (double)n[c];
		}
	}
	for (unsigned c = 0; waits && c < work->count; c++)
		if (figures[c].valid)
			run(work->contestants[c], cpus, n[c], &figures[c].histogram);
}

/* --- telling ------------------------------------------------------------------------------------------------------------ */

static const double percents[] = {50, 99, 99.9, 99.99, 100};
#define PERCENTS (sizeof(percents) / sizeof(*percents))

static void print_table(const struct work *work, const struct figures *figures, const double *line)
{
	printf("\n%s; bare line %.0f ns before, %.0f ns after\n", work->name, line[0], line[1]);
	for (unsigned c = 0; c < work->count; c++) {
		struct spread times;

		if (!figures[c].name)
			continue;
		if (!figures[c].valid) {
			printf("  %-28s wrong: no figure\n", figures[c].name);
			continue;
		}
		times = spread_of(figures[c].times);
		printf("  %-28s %8.1f %s", figures[c].name, in_unit(work, times.median), work->unit);
		if (c == 0) {
			printf("%24s", "");
		} else if (figures[0].valid) {
			struct spread r = ratio(work, &figures[0], &figures[c]);

			printf("   ours %5.2fx (%.2f-%.2f)", r.median, r.lowest, r.highest);
		}
		if (!strcmp(work->unit, "ns")) {
			printf("   p50 to p99.99, max:");
			for (size_t p = 0; p < PERCENTS; p++)
				printf(" %" PRIu64, mk_histogram_percentile(&figures[c].histogram, percents[p]));
		}
		printf("\n");
	}
	fflush(stdout);
}

static void print_json(const struct work *work, const struct figures *figures, const double *line, bool first)
{
	const char *comma = "";

	printf("%s\n  {\"work\": \"%s\", \"unit\": \"%s\", \"bare_line_ns\": [%.1f, %.1f], \"contestants\": [",
	       first ? "" : ",", work->name, work->unit, line[0], line[1]);
	for (unsigned c = 0; c < work->count; c++) {
		struct spread times;

		if (!figures[c].name || !figures[c].valid)
			continue;
		times = spread_of(figures[c].times);
		printf("%s\n    {\"name\": \"%s\", \"median\": %.3f", comma, figures[c].name,
		       in_unit(work, times.median));
		comma = ",";
		if (c && figures[0].valid) {
			struct spread r = ratio(work, &figures[0], &figures[c]);

			printf(", \"ours\": {\"ratio\": %.3f, \"lowest\": %.3f, \"highest\": %.3f}", r.median, r.lowest,
			       r.highest);
		}
		if (!strcmp(work->unit, "ns")) {
			printf(", \"percentiles\": {");
			for (size_t p = 0; p < PERCENTS; p++)
				printf("%s\"%g\": %" PRIu64, p ? ", " : "", percents[p],
				       mk_histogram_percentile(&figures[c].histogram, percents[p]));
			printf("}");
		}
		printf("}");
	}
	printf("]}");
}

static unsigned two_cpus(int *cpus)
{
	cpu_set_t set;
	unsigned found = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		give_up("reading the cpus that may be used");
	for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus[found++] = cpu;
	return found;
}

int bench(const char *name, const struct work *works, unsigned count, int argc, char **argv)
{
	static struct figures figures[MOST];
	bool json = argc > 1 && !strcmp(argv[1], "--json");
	int first = json ? 2 : 1;
	bool any = false, wrong = false;
	int cpus[2];

	if (two_cpus(cpus) < 2) {
		fprintf(stderr, "%s: needs two cpus, and this process may use one (see taskset)\n", name);
		return 1;
	}
	prepared(8);
	prepared(64);
	if (json)
		printf("{\"bench\": \"%s\", \"rounds\": %d, \"cpus\": [%d, %d], \"works\": [", name, ROUNDS, cpus[0],
		       cpus[1]);
	for (unsigned w = 0; w < count; w++) {
		bool wanted = first >= argc;
		double line[2];

		for (int a = first; a < argc; a++)
			wanted |= strstr(works[w].name, argv[a]) != NULL;
		if (!wanted)
			continue;
		line[0] = placement(cpus);
		measure(&works[w], cpus, figures);
		line[1] = placement(cpus);
		for (unsigned c = 0; c < works[w].count; c++)
			wrong |= figures[c].name && !figures[c].valid;
		if (json)
			print_json(&works[w], figures, line, !any);
		else
			print_table(&works[w], figures, line);
		any = true;
	}
	if (json)
		printf("\n]}\n");
	if (!any && !json) {
		fprintf(stderr, "%s: no work has such a name; there are:", name);
		for (unsigned w = 0; w < count; w++)
			fprintf(stderr, "%s %s", w ? ";" : "", works[w].name);
		fprintf(stderr, "\n");
	}
	return wrong ? 1 : any ? 0 : SKIPPED;
}
