/* stats_window: a ring of seconds. Owned by its user, who locks.
 *
 * Invariants: `latency` is the sum of the packed histograms of all finished seconds and of `running`;
 * `sum` likewise. A second is packed when the next one begins, which is where its p95 is taken. */
#include "state/stats_window.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { SLOTS = STATS_WINDOW_SECONDS + 1 };

struct second {
	struct stats_second figures;
	struct histogram_packed latency;
};

struct stats_window {
	int64_t now; /* the running second */
	struct stats_second sum;
	struct histogram latency;
	struct histogram running;
	struct second seconds[SLOTS]; /* by second % SLOTS */
};

static struct second *slot_of(struct stats_window *w, int64_t second)
{
	return &w->seconds[(uint64_t)second % SLOTS];
}

struct stats_window *stats_window_new(int64_t second)
{
	struct stats_window *w = check_calloc(1, sizeof *w);
	w->now = second;
	return w;
}

void stats_window_free(struct stats_window *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < SLOTS; i++)
		histogram_packed_fini(&w->seconds[i].latency);
	histogram_fini(&w->latency);
	histogram_fini(&w->running);
	free(w);
}

static void finish_running(struct stats_window *w)
{
	if (w->running.count == 0)
		return;
	struct second *s = slot_of(w, w->now);
	s->figures.p95_us = histogram_percentile(&w->running, 95);
	histogram_pack(&w->running, &s->latency);
	histogram_clear(&w->running);
}

static void forget(struct stats_window *w, struct second *s)
{
	w->sum.requests -= s->figures.requests;
	w->sum.errors -= s->figures.errors;
	w->sum.duration_us -= s->figures.duration_us;
	histogram_subtract(&w->latency, &s->latency);
	histogram_packed_fini(&s->latency);
	memset(&s->figures, 0, sizeof s->figures);
}

void stats_window_advance(struct stats_window *w, int64_t second)
{
	if (second <= w->now)
		return;
	finish_running(w);
	int64_t steps = second - w->now < SLOTS ? second - w->now : SLOTS;
	for (int64_t i = 1; i <= steps; i++)
		forget(w, slot_of(w, w->now + i));
	w->now = second;
}

void stats_window_record(struct stats_window *w, int64_t second, uint64_t duration_us, bool error)
{
	stats_window_advance(w, second);
	struct stats_second *figures = &slot_of(w, w->now)->figures;
	figures->requests++;
	figures->errors += error;
	figures->duration_us += duration_us;
	w->sum.requests++;
	w->sum.errors += error;
	w->sum.duration_us += duration_us;
	histogram_record(&w->latency, duration_us);
	histogram_record(&w->running, duration_us);
}

bool stats_window_is_empty(const struct stats_window *w)
{
	return w->sum.requests == 0;
}

void stats_window_sum(const struct stats_window *w, struct stats_second *out)
{
	*out = w->sum;
	out->p95_us = histogram_percentile(&w->latency, 95);
}

const struct histogram *stats_window_latency(const struct stats_window *w)
{
	return &w->latency;
}

void stats_window_second(const struct stats_window *w, int64_t second, struct stats_second *out)
{
	memset(out, 0, sizeof *out);
	if (second > w->now || second <= w->now - SLOTS)
		return;
	*out = w->seconds[(uint64_t)second % SLOTS].figures;
	if (second == w->now)
		out->p95_us = histogram_percentile(&w->running, 95);
}
