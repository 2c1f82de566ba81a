/* admission_forward: starts that other nodes' waiters have given back are for those who wait here for later ones.
 *
 * Whoever gives one back tells all nodes by a message (admission_leave.lua), and a node where somebody waits looks:
 * one worker a line asks Redis for earlier starts for its places, a moment after the first message, so that the
 * next ones are in it, and once a second at most. Nobody tells, nobody looks. A message that is lost costs nothing but time: the starts
 * that were handed out hold. While Redis is asked, a place keeps its start, its timer and its turn; `moving` says that who
 * asks frees it. What it had is given back only when the answer is there. Timers are one worker's, so it first makes the
 * places its own. Thread: the worker's; lists and looks under node->lock. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "path/admission_internal.h"

enum { LOOK_MS = 1000, GATHER_MS = 20, NEAR_MS = LOOK_MS + 500 };

struct forward {
	struct admission *owner;
	struct admission_line *line;
	size_t count;
	struct admission_place *places[ADMISSION_FORWARD_MAX];
};

/* ---- the answer ---- */

/* Lock held. start: the new one; 0: it keeps what it has. back: what is to be given back then. */
static void come_forward(struct admission_place *p, double start, double now, struct admission_left back[2])
{
	struct admission *a = p->owner;
	struct admission_node *node = a->node;
	p->moving = false;
	if (start > 0 && p->start > 0) {
		back[0] = (struct admission_left){.start = p->start, .redis_rule = p->redis_rule};
		snprintf(back[0].name, sizeof back[0].name, "%016" PRIx64 ":%" PRIx64, node->nonce,
			atomic_fetch_add(&node->names, 1));
	}
	if (start > 0)
		p->start = start;
	if (p->dropped) { /* its waiter has gone meanwhile, or has just started */
		back[1] = (struct admission_left){.start = p->start, .redis_rule = p->redis_rule, .to_free = p};
		memcpy(back[1].name, p->name, sizeof back[1].name);
		admission_place_disown_locked(p);
	} else if (start > 0) {
		int64_t delay_ms = start > now ? (int64_t)(start - now) : 0;
		admission_place_set_due_locked(p, loop_now_ms(a->loop) + (uint64_t)delay_ms, delay_ms / ADMISSION_DOUBT_PART);
		admission_place_set_timer_locked(p);
	}
}

/* Another look where there were news meanwhile, or for what was left to others when it is near. */
static void look_again(struct admission *a, struct admission_line *line, double left_ms)
{
	struct admission_look *look = &line->look;
	pthread_mutex_lock(&a->node->lock);
	uint64_t now_ms = loop_now_ms(a->loop), due_ms = look->looked_ms + LOOK_MS;
	look->asking = false;
	bool again = look->news || left_ms > 0;
	if (!again)
		look->owner = NULL;
	else if (!look->news && left_ms > NEAR_MS && now_ms + (uint64_t)left_ms - NEAR_MS > due_ms)
		due_ms = now_ms + (uint64_t)left_ms - NEAR_MS;
	if (again)
		loop_timer_set(a->loop, &look->timer, due_ms);
	pthread_mutex_unlock(&a->node->lock);
}

static void on_answer(void *argument, const struct redisReply *reply)
{
	struct forward *f = argument;
	struct admission *a = f->owner;
	double numbers[2 + ADMISSION_FORWARD_MAX] = {0};
	size_t size = (2 + f->count) * sizeof *numbers;
	if (reply && reply->type == REDIS_REPLY_STRING && reply->len == size)
		admission_numbers_read(numbers, reply->str, 2 + f->count);
	for (size_t i = 0; i < f->count; i++) {
		struct admission_left back[2] = {0};
		pthread_mutex_lock(&a->node->lock);
		come_forward(f->places[i], numbers[2 + i], numbers[0], back);
		pthread_mutex_unlock(&a->node->lock);
		for (int b = 0; b < 2; b++)
			admission_place_left(a, f->line->item.name, &back[b]);
	}
	look_again(a, f->line, numbers[1] > 0 ? numbers[1] - numbers[0] : 0);
	free(f);
}

/* ---- a look ---- */

/* The nearest ones that Redis gave by one rule. Lock held. */
static void find_places(struct forward *f)
{
	double rule = 0;
	uint64_t now_ms = loop_now_ms(f->owner->loop);
	for (struct admission_place *p = f->line->places; p && f->count < ADMISSION_FORWARD_MAX; p = p->next) {
		if (!p->name[0] || p->moving || p->due_ms <= now_ms || (rule > 0 && p->redis_rule != rule))
			continue;
		rule = p->redis_rule;
		f->places[f->count++] = p;
	}
}

static int by_start(const void *one, const void *other)
{
	double a = (*(struct admission_place *const *)one)->start, b = (*(struct admission_place *const *)other)->start;
	if (!(a > 0) || !(b > 0))
		return (b > 0) - (a > 0); /* none: last */
	return (a > b) - (a < b);
}

/* Returns what remains of the other worker's. Lock held. */
static struct admission_left make_own(struct admission *a, struct admission_place **place)
{
	struct admission_place *p = *place;
	if (p->owner == a)
		return (struct admission_left){0};
	struct admission_place *mine = admission_place_new_locked(a, p->line, p->due_ms);
	mine->doubt_ms = p->doubt_ms;
	mine->start = p->start;
	mine->redis_rule = p->redis_rule;
	mine->rule = p->rule;
	mine->patience_ms = p->patience_ms;
	memcpy(mine->name, p->name, sizeof mine->name);
	admission_place_set_timer_locked(mine);
	*place = mine;
	struct admission_left left = admission_place_drop_locked(a, p);
	left.name[0] = 0; /* Redis knows mine by it */
	return left;
}

static void on_look(struct loop_timer *timer)
{
	struct admission_line *line = container_of(timer, struct admission_line, look.timer);
	struct forward *f = check_calloc(1, sizeof *f);
	struct admission_left *left = check_calloc(ADMISSION_FORWARD_MAX, sizeof *left);
	struct admission *a = f->owner = line->look.owner;
	f->line = line;
	pthread_mutex_lock(&a->node->lock);
	line->look.news = false;
	line->look.looked_ms = loop_now_ms(a->loop);
	find_places(f);
	qsort(f->places, f->count, sizeof *f->places, by_start);
	for (size_t i = 0; i < f->count; i++) {
		left[i] = make_own(a, &f->places[i]);
		f->places[i]->moving = true;
	}
	line->look.asking = f->count > 0;
	if (!f->count)
		line->look.owner = NULL;
	pthread_mutex_unlock(&a->node->lock);
	for (size_t i = 0; i < f->count; i++)
		admission_place_left(a, line->item.name, &left[i]);
	free(left);
	if (!f->count)
		free(f);
	else if (!admission_call_forward(a, line->item.name, NEAR_MS, f->places, f->count, on_answer, f))
		on_answer(f, NULL);
}

/* ---- news ---- */

struct news {
	struct admission_node *node;
	struct admission_line *line;
	struct admission *owner;
};

static void on_news(void *argument)
{
	struct news *news = argument;
	struct admission_look *look = &news->line->look;
	pthread_mutex_lock(&news->node->lock);
	if (look->owner == news->owner && !look->asking) {
		struct loop *l = look->owner->loop;
		uint64_t soon_ms = loop_now_ms(l) + GATHER_MS, next_ms = look->looked_ms + LOOK_MS;
		look->timer.on_due = on_look;
		loop_timer_set(l, &look->timer, soon_ms > next_ms ? soon_ms : next_ms);
	}
	pthread_mutex_unlock(&news->node->lock);
	free(news);
}

static void tell_locked(struct admission_node *node, struct admission_line *line)
{
	struct admission_look *look = &line->look;
	if (!line->places_last || look->news)
		return;
	look->news = true;
	if (!look->owner)
		look->owner = line->places_last->owner;
	struct news *news = check_calloc(1, sizeof *news);
	*news = (struct news){node, line, look->owner};
	loop_post(look->owner->loop, on_news, news);
}

static void for_each_line(struct admission_node *node, void (*act)(struct admission_line *line, void *context),
	void *context)
{
	for (size_t b = 0; b < node->lines.size; b++)
		for (struct admission_item *item = node->lines.buckets[b]; item; item = item->next)
			act(container_of(item, struct admission_line, item), context);
}

static void tell_each(struct admission_line *line, void *context)
{
	tell_locked(context, line);
}

void admission_node_given_back(struct admission_node *node, const char *prefix)
{
	pthread_mutex_lock(&node->lock);
	struct admission_item *item = prefix ? admission_table_find(&node->lines, prefix) : NULL;
	if (item)
		tell_locked(node, container_of(item, struct admission_line, item));
	else if (!prefix)
		for_each_line(node, tell_each, node);
	pthread_mutex_unlock(&node->lock);
}

/* Another worker looks when there is something new. */
static void let_go(struct admission_line *line, void *context)
{
	struct admission *a = context;
	if (line->look.owner != a)
		return;
	loop_timer_cancel(a->loop, &line->look.timer);
	line->look.owner = NULL;
	line->look.news = false;
}

void admission_forward_fini_locked(struct admission *a)
{
	for_each_line(a->node, let_go, a);
}
