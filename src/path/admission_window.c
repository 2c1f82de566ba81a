/* admission_window: a ring of events and their sums. Invariant: sums are those of the events from
 * first to next - 1, whose times never go back. */
#include "path/admission_window.h"

#include <stdlib.h>
#include <string.h>

static struct admission_event *event(const struct admission_events *w, uint64_t number)
{
	return &w->ring[number & (w->capacity - 1)];
}

static void add_amounts(int64_t to[3], const int64_t amounts[3], int64_t sign)
{
	for (int i = 0; i < 3; i++)
		to[i] += sign * amounts[i];
}

void admission_events_fini(struct admission_events *w)
{
	free(w->ring);
	memset(w, 0, sizeof *w);
}

/* An event counts while now - at <= span. */
void admission_events_expire(struct admission_events *w, uint64_t now_ms)
{
	while (w->first < w->next && event(w, w->first)->at_ms + ADMISSION_SPAN_MS < now_ms)
		add_amounts(w->sums, event(w, w->first++)->amounts, -1);
}

static bool grow(struct admission_events *w)
{
	size_t capacity = w->capacity ? w->capacity * 2 : 4;
	struct admission_event *ring = malloc(capacity * sizeof *ring);
	if (!ring)
		return false;
	for (uint64_t n = w->first; n < w->next; n++)
		ring[n & (capacity - 1)] = *event(w, n);
	free(w->ring);
	w->ring = ring;
	w->capacity = capacity;
	return true;
}

uint64_t admission_events_add(struct admission_events *w, uint64_t at_ms, const int64_t amounts[3])
{
	if (!w->next)
		w->first = w->next = 1;
	uint64_t length = w->next - w->first;
	bool full = length >= ADMISSION_FULL || w->sums[0] >= ADMISSION_FULL;
	struct admission_event *last = length ? event(w, w->next - 1) : NULL;
	if (last && at_ms < last->at_ms)
		at_ms = last->at_ms;
	bool merge = last && (at_ms == last->at_ms || (full && at_ms - w->last_began_ms <= ADMISSION_STEP_MS));
	if (!merge && length == w->capacity && !grow(w)) {
		if (!last)
			return 0;
		merge = true;
	}
	add_amounts(w->sums, amounts, 1);
	if (merge) {
		last->at_ms = at_ms;
		add_amounts(last->amounts, amounts, 1);
		return w->next - 1;
	}
	w->last_began_ms = at_ms;
	*event(w, w->next) = (struct admission_event){.at_ms = at_ms, .amounts = {amounts[0], amounts[1], amounts[2]}};
	return w->next++;
}

bool admission_events_have(const struct admission_events *w, uint64_t number)
{
	return number >= w->first && number < w->next;
}

void admission_events_adjust(struct admission_events *w, uint64_t number, const int64_t changes[3])
{
	if (!admission_events_have(w, number))
		return;
	add_amounts(event(w, number)->amounts, changes, 1);
	add_amounts(w->sums, changes, 1);
}

uint64_t admission_events_room_at(const struct admission_events *w, const int64_t missing[3])
{
	int64_t left[3] = {missing[0], missing[1], missing[2]};
	for (uint64_t n = w->first; n < w->next; n++) {
		add_amounts(left, event(w, n)->amounts, -1);
		if (left[0] <= 0 && left[1] <= 0 && left[2] <= 0)
			return event(w, n)->at_ms + ADMISSION_SPAN_MS + 1;
	}
	return admission_events_last_ms(w) + ADMISSION_SPAN_MS + 1;
}

uint64_t admission_events_wait_ms(const struct admission_events *w, const int64_t missing[3], uint64_t now_ms)
{
	uint64_t room_at = admission_events_room_at(w, missing);
	uint64_t wait = room_at > now_ms ? room_at - now_ms : 1;
	return wait < ADMISSION_SPAN_MS ? wait : ADMISSION_SPAN_MS;
}

uint64_t admission_events_last_ms(const struct admission_events *w)
{
	return w->first < w->next ? event(w, w->next - 1)->at_ms : 0;
}
