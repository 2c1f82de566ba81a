/* stats_window: a short list of seconds. Owned by its user, who locks.
 *
 * Invariants: `latency` is the sum of the packed histograms of all finished seconds and of `running`;
 * `sum` likewise. The list rises, holds only seconds that saw requests, and none older than 60 s; the
 * last one may be running. A second is packed when a later one begins: there its p95 is taken. */
#include "state/stats_window.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct second {
	int64_t at;
	struct stats_second figures;
	struct histogram_packed latency;
};

struct stats_window {
	int64_t now; /* the running second */
	struct stats_second sum;
	struct histogram latency;
	struct histogram running;
	struct second *seconds;
	size_t count, capacity;
};

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
	for (size_t i = 0; i < w->count; i++)
		histogram_packed_fini(&w->seconds[i].latency);
	free(w->seconds);
	histogram_fini(&w->latency);
	histogram_fini(&w->running);
	free(w);
}

static void finish_running(struct stats_window *w)
{
	if (w->running.count == 0)
		return;
	struct second *s = &w->seconds[w->count - 1];
	s->figures.p95_us = histogram_percentile(&w->running, 95);
	histogram_pack(&w->running, &s->latency);
	histogram_fini(&w->running);
}

static void forget(struct stats_window *w, struct second *s)
{
	w->sum.requests -= s->figures.requests;
	w->sum.errors -= s->figures.errors;
	w->sum.duration_us -= s->figures.duration_us;
	histogram_subtract(&w->latency, &s->latency);
	histogram_packed_fini(&s->latency);
}

void stats_window_advance(struct stats_window *w, int64_t second)
{
	size_t gone = 0;
	if (second <= w->now)
		return;
	finish_running(w);
	w->now = second;
	while (gone < w->count && w->seconds[gone].at < second - STATS_WINDOW_SECONDS)
		forget(w, &w->seconds[gone++]);
	w->count -= gone;
	if (gone)
		memmove(w->seconds, w->seconds + gone, w->count * sizeof *w->seconds);
}

static struct stats_second *running_second(struct stats_window *w)
{
	if (w->count == 0 || w->seconds[w->count - 1].at != w->now) {
		if (w->count == w->capacity) {
			w->capacity = w->capacity ? w->capacity * 2 : 2;
			w->seconds = realloc(w->seconds, w->capacity * sizeof *w->seconds);
			CHECK(w->seconds);
		}
		w->seconds[w->count++] = (struct second){.at = w->now};
	}
	return &w->seconds[w->count - 1].figures;
}

void stats_window_record(struct stats_window *w, int64_t second, uint64_t duration_us, bool error)
{
	stats_window_advance(w, second);
	struct stats_second *figures = running_second(w);
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
	for (size_t i = w->count; i-- > 0 && w->seconds[i].at >= second;)
		if (w->seconds[i].at == second)
			*out = w->seconds[i].figures;
	if (second == w->now)
		out->p95_us = histogram_percentile(&w->running, 95);
}
