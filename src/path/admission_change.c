/* admission_change: what a changed queue is for those that wait in it.
 *
 * Waiters stay in their line, so that nobody overtakes; what changes are their starts, their patience, or
 * that they wait at all. The first worker to take over a snapshot does it for the whole line: it makes the places
 * that were given by another rule its own and asks Redis for new starts, all in one call. A place that moves
 * is last in the line and has no timer until the answer is there; without one, its start is this node's own.
 * Each worker sees to its own waiters' patience. Invariant: as many places as waiters not called.
 * Thread: the worker's; lists under node->lock. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "base/clock.h"
#include "path/admission_internal.h"

struct move {
	struct admission *owner;
	const char *prefix; /* the line's */
	size_t count;
	struct admission_place *places[ADMISSION_MOVE_MAX];
};

static const struct mapping *current_mapping(const struct admission *a, const char *prefix)
{
	const struct mapping *m = snapshot_route(a->snapshot, prefix, strlen(prefix));
	return m && strcmp(m->prefix, prefix) == 0 ? m : NULL;
}

/* ---- new starts ---- */

/* Lock held. start: Redis', 0: none before the patience ends, < 0: Redis did not answer. */
static void set_start(struct admission_place *p, double start, double now, double redis_rule)
{
	struct admission *a = p->owner;
	uint64_t due_ms = UINT64_MAX;
	int64_t delay_ms = start > now ? (int64_t)(start - now) : 0;
	uint64_t local_ms = start != 0 && (start < 0 || a->node->policy == ADMISSION_LOCAL) ?
		admission_queue_next_locked(p->line, p->rule, clock_monotonic_ms(), true) :
		0;
	if (start < 0)
		due_ms = local_ms;
	else if (start > 0)
		due_ms = loop_now_ms(a->loop) + (uint64_t)delay_ms;
	p->start = start > 0 ? start : 0;
	p->redis_rule = redis_rule;
	admission_place_set_due_locked(p, due_ms, start > 0 ? delay_ms / ADMISSION_DOUBT_PART : 0);
	admission_place_set_timer_locked(p);
}

/* Its waiter has gone meanwhile, or the rule has changed once more. */
static struct admission_left give_back(struct admission_place *p, double start, double redis_rule)
{
	struct admission_left left = {.start = p->start, .redis_rule = p->redis_rule, .to_free = p};
	memcpy(left.name, p->name, sizeof left.name);
	if (start >= 0) {
		left.start = start;
		left.redis_rule = redis_rule;
	}
	admission_place_disown_locked(p);
	return left;
}

static void on_moved(void *argument, const struct redisReply *reply)
{
	struct move *move = argument;
	struct admission *a = move->owner;
	double numbers[2 + ADMISSION_MOVE_MAX] = {0};
	size_t size = (2 + move->count) * sizeof *numbers;
	bool read = reply && reply->type == REDIS_REPLY_STRING && reply->len == size;
	if (read)
		admission_numbers_read(numbers, reply->str, 2 + move->count);
	for (size_t i = 0; i < move->count; i++) {
		struct admission_place *p = move->places[i];
		double start = read ? numbers[2 + i] : -1;
		pthread_mutex_lock(&a->node->lock);
		p->moving = false;
		struct admission_left left = {0};
		if (!p->dropped)
			set_start(p, start, numbers[0], numbers[1]);
		else
			left = give_back(p, start, numbers[1]);
		pthread_mutex_unlock(&a->node->lock);
		admission_place_left(a, move->prefix, &left);
	}
	free(move);
}

static void send_moves(struct admission *a, const struct mapping *m, struct admission_place *const *places,
	size_t count)
{
	for (size_t at = 0; at < count; at += ADMISSION_MOVE_MAX) {
		struct move *move = check_calloc(1, sizeof *move);
		move->owner = a;
		move->prefix = places[at]->line->item.name;
		move->count = count - at < ADMISSION_MOVE_MAX ? count - at : ADMISSION_MOVE_MAX;
		memcpy(move->places, places + at, move->count * sizeof(struct admission_place *));
		if (!admission_call_move(a, m, move->places, move->count, on_moved, move))
			on_moved(move, NULL);
	}
}

/* ---- who has to move ---- */

static bool is_same(struct admission_rule a, struct admission_rule b)
{
	return a.starts == b.starts && a.span_ms == b.span_ms;
}

static bool has_to_move(const struct admission *a, const struct admission_place *p, const struct mapping *m,
	struct admission_rule rule)
{
	if (p->due_ms <= loop_now_ms(a->loop))
		return false; /* starts now */
	if (!is_same(p->rule, rule))
		return true;
	return p->due_ms == UINT64_MAX && !p->moving && p->patience_ms != m->queue_timeout_ms;
}

static struct admission_place *renew(struct admission *a, const struct admission_place *old, const struct mapping *m)
{
	struct admission_node *node = a->node;
	struct admission_place *p = admission_place_new_locked(a, old->line, UINT64_MAX);
	p->moving = true;
	p->rule = admission_queue_rule(m);
	p->patience_ms = m->queue_timeout_ms;
	if (old->name[0] && !old->moving) { /* else another name: what becomes of the old one is that move's */
		memcpy(p->name, old->name, sizeof p->name);
		p->start = old->start;
		p->redis_rule = old->redis_rule;
	} else {
		snprintf(p->name, sizeof p->name, "%016" PRIx64 ":%" PRIx64, node->nonce, atomic_fetch_add(&node->names, 1));
	}
	return p;
}

/* Fills old and new, in the order of the starts. */
static size_t move_places(struct admission *a, struct admission_line *line, const struct mapping *m,
	struct admission_left *old, struct admission_place **new)
{
	struct admission_rule rule = admission_queue_rule(m);
	struct admission_place *p, *next;
	size_t count = 0, left = line->place_count;
	for (p = line->places; p && left--; p = next) { /* new ones come after them */
		next = p->next;
		if (!has_to_move(a, p, m, rule))
			continue;
		new[count] = renew(a, p, m);
		old[count] = admission_place_drop_locked(a, p);
		old[count++].name[0] = 0; /* Redis hears of it in the call that moves it */
	}
	return count;
}

static void change_patience(struct admission *a, struct admission_line *line, const struct mapping *m)
{
	struct admission_rule rule = admission_queue_rule(m);
	for (struct admission_waiter *w = line->first; w; w = w->next) {
		struct admission_ticket *t = w->owner == a ? w->ticket : NULL;
		if (t && !is_same(admission_queue_rule(t->mapping), rule))
			t->would_wait_ms = 0; /* not known any more */
		if (t && t->patience_ms != m->queue_timeout_ms)
			admission_queue_be_patient(t, m->queue_timeout_ms);
	}
}

/* Nobody waits any more. */
static size_t dissolve(struct admission *a, struct admission_line *line, enum admission_called why,
	struct admission_left *old)
{
	size_t count = 0;
	while (line->first)
		admission_queue_call_locked(line->first, why);
	while (line->places)
		old[count++] = admission_place_drop_locked(a, line->places);
	return count;
}

void admission_change_line(struct admission *a, struct admission_line *line)
{
	const char *prefix = line->item.name;
	const struct mapping *m = current_mapping(a, prefix);
	bool queue = m && m->has_queue;
	pthread_mutex_lock(&a->node->lock);
	struct admission_left *old = check_calloc(line->place_count + 1, sizeof *old);
	struct admission_place **new = check_calloc(line->place_count + 1, sizeof(struct admission_place *));
	size_t count =
		queue ? move_places(a, line, m, old, new) : dissolve(a, line, m ? CALLED_NO_QUEUE : CALLED_NO_MAPPING, old);
	if (queue)
		change_patience(a, line, m);
	pthread_mutex_unlock(&a->node->lock);
	for (size_t i = 0; i < count; i++)
		admission_place_left(a, prefix, &old[i]);
	if (queue)
		send_moves(a, m, new, count);
	free(old);
	free(new);
}

void admission_take_snapshot(struct admission *a, struct snapshot *snapshot)
{
	struct admission_node *node = a->node;
	struct snapshot *before = a->snapshot;
	a->snapshot = snapshot_ref(snapshot);
	pthread_mutex_lock(&node->lock);
	size_t count = 0;
	struct admission_line **lines = check_calloc(node->lines.count + 1, sizeof(struct admission_line *));
	for (size_t b = 0; b < node->lines.size; b++)
		for (struct admission_item *item = node->lines.buckets[b]; item; item = item->next) {
			struct admission_line *line = container_of(item, struct admission_line, item);
			if (line->waiters || line->place_count)
				lines[count++] = line;
		}
	pthread_mutex_unlock(&node->lock);
	for (size_t i = 0; i < count; i++)
		admission_change_line(a, lines[i]);
	free(lines);
	snapshot_unref(before);
}
