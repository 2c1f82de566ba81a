/* admission_queue: this node's waiters of a mapping, in the order of their arrival, and the starts
 * that were handed out to them.
 *
 * Waiters and starts are two lists: when a start is due, the first waiter goes, whoever asked for that
 * start. So a waiter that leaves moves all behind it forward; what is one too many then is given back:
 * a place without a start if there is one, else the last start. Invariant: as many
 * places as waiters not called. A start's timer runs on the worker that asked for it; a waiter of
 * another worker is called through that one's mailbox. A changed rule is admission_change.c's, what others
 * give back admission_forward.c's. Lists under node->lock. No polling. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "path/admission_internal.h"

enum { STARTS_MAX = 10000 };

/* So that no second has more than the rate (admission.h). */
struct admission_rule admission_queue_rule(const struct mapping *m)
{
	double rate = m->queue_rate_per_second;
	if (rate < 1)
		return (
			struct admission_rule){1, (uint64_t)ceil(1000 / (rate > 1e-6 ? rate : 1e-6)) + ADMISSION_QUEUE_GUARD_MS};
	uint64_t whole = rate < 1e7 ? (uint64_t)rate : 10000000, pieces = (whole + STARTS_MAX - 1) / STARTS_MAX;
	return (struct admission_rule){whole / pieces, (1000 + ADMISSION_QUEUE_GUARD_MS + pieces - 1) / pieces};
}

struct admission_line *admission_queue_line_locked(struct admission_node *node, const struct mapping *m)
{
	struct admission_item *item = admission_table_get(&node->lines, m->prefix, sizeof(struct admission_line));
	return container_of(item, struct admission_line, item);
}

void admission_queue_free_item(struct admission_item *item)
{
	free(container_of(item, struct admission_line, item)->starts);
}

/* Another rule: what has started counts on, what was handed out in advance is void. */
static void refit(struct admission_line *line, struct admission_rule rule, uint64_t now_ms)
{
	uint64_t *starts = check_calloc(rule.starts, sizeof *starts);
	size_t kept = 0, before = line->rule.starts;
	for (size_t i = 1; i <= before && kept < rule.starts; i++) { /* the newest first, from the end of the ring */
		uint64_t start = line->starts[(line->start_next + before - i) % before];
		if (start && start <= now_ms)
			starts[rule.starts - ++kept] = start;
	}
	free(line->starts);
	line->starts = starts;
	line->rule = rule;
	line->start_next = 0;
}

uint64_t admission_queue_next_locked(struct admission_line *line, struct admission_rule rule, uint64_t now_ms,
	bool take)
{
	uint64_t start = now_ms, starts = rule.starts;
	if (line->rule.starts != starts || line->rule.span_ms != rule.span_ms)
		refit(line, rule, now_ms);
	uint64_t nth = line->starts[line->start_next];
	uint64_t newest = line->starts[(line->start_next + starts - 1) % starts];
	if (nth && nth + rule.span_ms > start)
		start = nth + rule.span_ms;
	if (newest > now_ms) /* handed out in advance: evenly apart, as in admission_queue_start.lua */
		newest += rule.span_ms / starts;
	if (newest > start)
		start = newest;
	if (take) {
		line->starts[line->start_next] = start;
		line->start_next = (line->start_next + 1) % starts;
	}
	return start;
}

/* ---- the two lists ---- */

static void on_start(struct loop_timer *timer);

static void unlink_waiter(struct admission_waiter *w)
{
	struct admission_line *line = w->line;
	*(w->previous ? &w->previous->next : &line->first) = w->next;
	*(w->next ? &w->next->previous : &line->last) = w->previous;
	w->next = w->previous = NULL;
	line->waiters--;
}

static void insert_waiter(struct admission_line *line, struct admission_waiter *w)
{
	struct admission_waiter *before = line->last;
	while (before && before->arrival > w->arrival)
		before = before->previous;
	w->line = line;
	w->previous = before;
	w->next = before ? before->next : line->first;
	*(before ? &before->next : &line->first) = w;
	*(w->next ? &w->next->previous : &line->last) = w;
	line->waiters++;
}

static void unlink_place(struct admission_place *p)
{
	struct admission_line *line = p->line;
	*(p->previous ? &p->previous->next : &line->places) = p->next;
	*(p->next ? &p->next->previous : &line->places_last) = p->previous;
	if (line->last_start == p)
		line->last_start = p->previous;
	p->next = p->previous = NULL;
	p->dropped = true;
	line->place_count--;
}

static void insert_place(struct admission_line *line, struct admission_place *p)
{
	bool has_start = p->due_ms != UINT64_MAX;
	struct admission_place *before = has_start ? line->last_start : line->places_last;
	if (has_start && (!before || before->due_ms <= p->due_ms))
		line->last_start = p;
	while (before && before->due_ms > p->due_ms)
		before = before->previous;
	p->line = line;
	p->previous = before;
	p->next = before ? before->next : line->places;
	*(before ? &before->next : &line->places) = p;
	*(p->next ? &p->next->previous : &line->places_last) = p;
	line->place_count++;
}

/* Lock held. */
static void own(struct admission *a, struct admission_place *p)
{
	p->owned_next = a->places;
	p->owned_link = &a->places;
	if (a->places)
		a->places->owned_link = &p->owned_next;
	a->places = p;
}

void admission_place_disown_locked(struct admission_place *p)
{
	*p->owned_link = p->owned_next;
	if (p->owned_next)
		p->owned_next->owned_link = p->owned_link;
}

/* What still waits for its time when the worker ends. */
void admission_queue_fini(struct admission *a)
{
	struct admission_place *p;
	pthread_mutex_lock(&a->node->lock);
	admission_forward_fini_locked(a);
	while ((p = a->places)) {
		admission_place_disown_locked(p);
		if (!p->dropped)
			unlink_place(p);
		loop_timer_cancel(a->loop, &p->due);
		free(p);
	}
	pthread_mutex_unlock(&a->node->lock);
}

struct admission_place *admission_place_new_locked(struct admission *a, struct admission_line *line, uint64_t due_ms)
{
	struct admission_place *p = check_calloc(1, sizeof *p);
	p->owner = a;
	p->due.on_due = on_start;
	p->due_ms = due_ms;
	insert_place(line, p);
	own(a, p);
	return p;
}

void admission_place_set_due_locked(struct admission_place *p, uint64_t due_ms, int64_t doubt_ms)
{
	struct admission_line *line = p->line;
	unlink_place(p);
	p->due_ms = due_ms;
	p->doubt_ms = doubt_ms;
	p->dropped = false;
	insert_place(line, p);
}

void admission_place_set_timer_locked(struct admission_place *p)
{
	if (p->due_ms != UINT64_MAX)
		loop_timer_set(p->owner->loop, &p->due, p->due_ms - (uint64_t)p->doubt_ms);
}

/* One whose timer is another worker's stays until its time, one that moves until Redis has answered. */
struct admission_left admission_place_drop_locked(struct admission *a, struct admission_place *p)
{
	struct admission_left left = {.start = p->start, .redis_rule = p->redis_rule};
	unlink_place(p);
	if (p->moving)
		return left;
	memcpy(left.name, p->name, sizeof left.name);
	if (p->owner == a || p->due_ms == UINT64_MAX) {
		admission_place_disown_locked(p);
		left.to_free = p;
	}
	return left;
}

void admission_place_left(struct admission *a, const char *prefix, const struct admission_left *left)
{
	if (left->name[0])
		admission_call_leave(a, prefix, left->name, left->start, left->redis_rule);
	if (!left->to_free)
		return;
	loop_timer_cancel(a->loop, &left->to_free->due);
	loop_free_later(a->loop, left->to_free);
}

/* ---- calling ---- */

static void on_called(void *argument);

void admission_queue_call_locked(struct admission_waiter *w, enum admission_called why)
{
	unlink_waiter(w);
	w->called = why;
	loop_post(w->owner->loop, on_called, w);
}

static void call_first(struct admission_line *line)
{
	if (line->first)
		admission_queue_call_locked(line->first, CALLED_START);
}

/* A start that it does not need is the next one's. The last place is one too many then. */
static void pass_on(const struct admission_waiter *w)
{
	struct admission_left left = {0};
	struct admission_line *line = w->line;
	if (w->called != CALLED_START)
		return;
	pthread_mutex_lock(&w->owner->node->lock);
	if (line->first) {
		call_first(line);
		if (line->places_last)
			left = admission_place_drop_locked(w->owner, line->places_last);
	}
	pthread_mutex_unlock(&w->owner->node->lock);
	admission_place_left(w->owner, line->item.name, &left);
}

static void on_called(void *argument)
{
	struct admission_waiter *w = argument;
	struct admission_ticket *t = w->ticket;
	if (t) {
		t->waiter = NULL;
		loop_timer_cancel(t->owner->loop, &t->patience);
		if (w->called == CALLED_NO_MAPPING)
			admission_ticket_unmapped(t);
		else if (!admission_ticket_turn(t))
			pass_on(w);
	} else {
		pass_on(w);
	}
	free(w);
}

/* A start is by Redis' clock, and this machine's may be slower or faster. So the timer is early by what that may
 * come to, and then the shared clock says what is left; one that is further off was set, and is not asked. */
static int64_t left_ms(const struct admission_place *p)
{
	int64_t left = (int64_t)(p->due_ms - loop_now_ms(p->owner->loop));
	int64_t shared = (int64_t)p->start - clock_shared_ms();
	return p->start > 0 && llabs(shared - left) <= p->doubt_ms ? shared : left;
}

/* A place that another worker's waiter gave up stays until its time and is freed by its owner; one for which Redis
 * is asked for an earlier start, when the answer is there. */
static void on_start(struct loop_timer *timer)
{
	struct admission_place *p = container_of(timer, struct admission_place, due);
	int64_t left = left_ms(p);
	if (left > 0) {
		loop_timer_set(p->owner->loop, &p->due, loop_now_ms(p->owner->loop) + (uint64_t)left);
		return;
	}
	pthread_mutex_lock(&p->owner->node->lock);
	if (!p->dropped) {
		call_first(p->line);
		unlink_place(p);
		p->start = 0; /* used */
	}
	bool moving = p->moving;
	if (!moving)
		admission_place_disown_locked(p);
	pthread_mutex_unlock(&p->owner->node->lock);
	if (!moving)
		loop_free_later(p->owner->loop, p);
}

/* One that is called at this very moment goes: its start is on the way. */
static void on_patience(struct loop_timer *timer)
{
	struct admission_ticket *t = container_of(timer, struct admission_ticket, patience);
	struct admission_node *node = t->owner->node;
	pthread_mutex_lock(&node->lock);
	bool called = t->waiter && t->waiter->called;
	pthread_mutex_unlock(&node->lock);
	if (called)
		return;
	admission_queue_leave(t);
	admission_ticket_timed_out(t);
}

void admission_queue_be_patient(struct admission_ticket *t, uint64_t patience_ms)
{
	t->patience.on_due = on_patience;
	t->patience_ms = patience_ms;
	if (patience_ms)
		loop_timer_set(t->owner->loop, &t->patience, t->started_ms + patience_ms);
	else
		loop_timer_cancel(t->owner->loop, &t->patience);
}

double admission_queue_behind(struct admission_ticket *t)
{
	struct admission *a = t->owner;
	double behind = 0;
	pthread_mutex_lock(&a->node->lock);
	struct admission_item *item = admission_table_find(&a->node->lines, t->mapping->prefix);
	struct admission_line *line = item ? container_of(item, struct admission_line, item) : NULL;
	struct admission_place *last = line ? line->places_last : NULL;
	if (last && last->due_ms != UINT64_MAX)
		behind = (double)((int64_t)last->due_ms + a->redis_offset_ms);
	else if (last)
		behind = (double)((int64_t)(loop_now_ms(a->loop) + t->mapping->queue_timeout_ms + 1000) + a->redis_offset_ms);
	pthread_mutex_unlock(&a->node->lock);
	return behind;
}

void admission_queue_join(struct admission_ticket *t, int64_t delay_ms, double start, double redis_rule)
{
	struct admission *a = t->owner;
	struct admission_waiter *w = check_calloc(1, sizeof *w);
	w->ticket = t;
	w->owner = a;
	w->arrival = t->arrival;
	t->waiter = w;
	pthread_mutex_lock(&a->node->lock);
	struct admission_line *line = admission_queue_line_locked(a->node, t->mapping);
	struct admission_place *p =
		admission_place_new_locked(a, line, delay_ms < 0 ? UINT64_MAX : loop_now_ms(a->loop) + (uint64_t)delay_ms);
	p->doubt_ms = start > 0 && delay_ms > 0 ? delay_ms / ADMISSION_DOUBT_PART : 0;
	p->start = start;
	p->redis_rule = redis_rule;
	p->rule = admission_queue_rule(t->mapping);
	p->patience_ms = t->mapping->queue_timeout_ms;
	if (redis_rule > 0)
		memcpy(p->name, t->queue_name, sizeof p->name);
	insert_waiter(line, w);
	admission_place_set_timer_locked(p);
	pthread_mutex_unlock(&a->node->lock);
	admission_queue_be_patient(t, t->mapping->queue_timeout_ms);
	if (a->snapshot && t->snapshot != a->snapshot)
		admission_change_line(a, line);
}

/* Places without a start are last in the list: the last place is the one to go. */
void admission_queue_leave(struct admission_ticket *t)
{
	struct admission *a = t->owner;
	struct admission_waiter *w = t->waiter;
	struct admission_left left = {0};
	if (!w)
		return;
	loop_timer_cancel(a->loop, &t->patience);
	t->waiter = NULL;
	pthread_mutex_lock(&a->node->lock);
	struct admission_line *line = w->line;
	bool called = w->called;
	w->ticket = NULL;
	if (!called)
		unlink_waiter(w);
	if (!called && line->places_last)
		left = admission_place_drop_locked(a, line->places_last);
	pthread_mutex_unlock(&a->node->lock);
	if (called)
		return;
	free(w);
	admission_place_left(a, line->item.name, &left);
}
