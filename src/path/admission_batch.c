/* admission_batch: what one turn of the loop asks of Redis, put together: a script call costs Redis two to three
 * times what one more request in it costs. Settlements of one subject are one call; so are admissions of one
 * subject with one pool. Nothing waits longer for it: calls are written at the end of the turn anyway.
 *
 * Settlements go first, so that what they give back is there for the admissions of the same turn.
 * An admission that asks for a place in a queue is a call of its own: its answer depends on the one before.
 *
 * A settlement that Redis did not take (it is away, or it answers with an error: out of memory, read only) is held
 * until it does; one that was sent and not answered may have been done, and is not sent again. Of both the usage, or
 * the place, finds its way otherwise: admission_local_unpaid(), admission_lease_doubt().
 * Owns the groups. Until it is sent one owns a reference to the snapshot that its subject is of. Tickets stay
 * whose they are: one that asks is not freed before it is answered. Thread: the worker's. */
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "path/admission_internal.h"
#include "state/journal.h"

enum { BUCKETS = 256, PROBE_MS = 1000 };

struct admissions {
	struct admissions *next, *in_bucket;
	struct admission_ticket *first, **last; /* by next_asking */
	size_t count;
	double behind;
};

struct settlements {
	struct settlements *next, *in_bucket;
	struct admission_batch *owner;
	struct snapshot *snapshot;
	const struct subject *subject; /* NULL: nothing more goes with it */
	uint64_t held_ms;              /* since when; 0: it is not */
	int64_t usage[3];
	struct admission_settlement sum;
	char key[ADMISSION_NAME_MAX];
};

struct admission_batch {
	struct admission *owner;
	struct loop_task send;
	struct admissions *admissions, **admissions_last, *admissions_of[BUCKETS];
	struct settlements *settlements, **settlements_last, *settlements_of[BUCKETS];
	struct settlements *held;
	bool refused; /* Redis answered the last one with an error: the next one is tried alone */
	struct loop_timer probe;
};

static size_t bucket_of(const void *one, const void *other)
{
	uintptr_t mixed = ((uintptr_t)one >> 4) * 31 + ((uintptr_t)other >> 4);
	return (mixed ^ mixed >> 8) % BUCKETS;
}

/* ---- admissions ---- */

static bool goes_with(const struct admission_ticket *t, const struct admissions *group)
{
	const struct admission_ticket *other = group->first;
	return t->subject == other->subject && t->pool == other->pool && t->stages == other->stages &&
		group->count < ADMISSION_BATCH_MAX;
}

static struct admissions *admissions_for(struct admission_batch *b, const struct admission_ticket *t)
{
	bool alone = t->stages & STAGE_QUEUE || t->candidate_count > ADMISSION_CANDIDATES;
	struct admissions **bucket = &b->admissions_of[bucket_of(t->subject, t->pool)];
	for (struct admissions *group = alone ? NULL : *bucket; group; group = group->in_bucket)
		if (goes_with(t, group))
			return group;
	struct admissions *group = check_calloc(1, sizeof *group);
	group->last = &group->first;
	if (!alone) {
		group->in_bucket = *bucket;
		*bucket = group;
	}
	*b->admissions_last = group;
	b->admissions_last = &group->next;
	return group;
}

bool admission_batch_admit(struct admission_ticket *t, double behind)
{
	struct admission_batch *b = t->owner->batch;
	if (!redis_async_usable(t->owner->redis))
		return false;
	struct admissions *group = admissions_for(b, t);
	t->next_asking = NULL;
	*group->last = t;
	group->last = &t->next_asking;
	group->count++;
	group->behind = behind;
	loop_defer(t->owner->loop, &b->send);
	return true;
}

static void on_answers(void *argument, const struct redisReply *reply)
{
	struct admissions *group = argument;
	struct admission_ticket *t = group->first, *next;
	bool fits = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == group->count;
	bool whole = reply && (group->count == 1 || reply->type == REDIS_REPLY_ERROR);
	for (size_t i = 0; t; i++, t = next) {
		next = t->next_asking;
		admission_ticket_answered(t, whole ? reply : fits ? reply->element[i] : NULL);
	}
	free(group);
}

static void send_admissions(struct admission_batch *b)
{
	struct admissions *group = b->admissions, *next;
	b->admissions = NULL;
	b->admissions_last = &b->admissions;
	for (struct admissions *g = group; g; g = g->next)
		b->admissions_of[bucket_of(g->first->subject, g->first->pool)] = NULL;
	for (; group; group = next) {
		next = group->next;
		if (!admission_call_admit(group->first, group->count, group->behind, on_answers, group))
			on_answers(group, NULL);
	}
}

/* ---- settlements ---- */

static struct settlements *settlements_new(struct admission_batch *b)
{
	struct settlements *group = check_calloc(1, sizeof *group);
	group->owner = b;
	return group;
}

static void append_settlements(struct admission_batch *b, struct settlements *group)
{
	group->next = NULL;
	*b->settlements_last = group;
	b->settlements_last = &group->next;
	loop_defer(b->owner->loop, &b->send);
}

static struct settlements *settlements_for(struct admission_batch *b, struct admission_ticket *t)
{
	struct settlements **bucket = &b->settlements_of[bucket_of(t->subject, NULL)];
	for (struct settlements *group = *bucket; group; group = group->in_bucket)
		if (group->subject == t->subject && group->sum.change_count < ADMISSION_CHANGES_MAX)
			return group;
	struct settlements *group = settlements_new(b);
	group->snapshot = snapshot_ref(t->snapshot);
	group->subject = t->subject;
	admission_subject_key(t->subject, "limit", group->key);
	group->in_bucket = *bucket;
	*bucket = group;
	append_settlements(b, group);
	return group;
}

/* Requests that were admitted in the same millisecond are one event. */
static struct admission_change *change_of(struct admission_settlement *sum, const struct admission_ticket *t)
{
	for (size_t i = (size_t)sum->change_count; i-- > 0;)
		if (sum->changes[i].event == t->event && sum->changes[i].made == t->made)
			return &sum->changes[i];
	struct admission_change *change = &sum->changes[(size_t)sum->change_count];
	sum->change_count += 1;
	*change = (struct admission_change){.event = t->event, .made = t->made};
	return change;
}

void admission_batch_settle(struct admission_ticket *t, bool place, const double amounts[3], const int64_t usage[3])
{
	struct settlements *group = settlements_for(t->owner->batch, t);
	group->sum.places += place;
	struct admission_change *change = amounts ? change_of(&group->sum, t) : NULL;
	for (int i = 0; i < 3; i++) {
		if (change)
			change->amounts[i] += amounts[i];
		group->usage[i] += usage[i];
	}
}

void admission_batch_pay(struct admission *a, const char *subject_key, const int64_t usage[3])
{
	struct settlements *group = settlements_new(a->batch);
	stpncpy(group->key, subject_key, sizeof group->key - 1);
	memcpy(group->usage, usage, sizeof group->usage);
	append_settlements(a->batch, group);
}

/* ---- settlements that Redis did not take ---- */

/* Only what is in an event is held: not what is just shown (event 0). */
static void keep_changes_of_events(struct admission_settlement *sum)
{
	size_t kept = 0;
	for (size_t i = 0; i < (size_t)sum->change_count; i++)
		if (sum->changes[i].event > 0)
			sum->changes[kept++] = sum->changes[i];
	sum->change_count = (double)kept;
}

/* How many places there are is told by their lease, whatever became of this. */
static void hold(struct admission_batch *b, struct settlements *group)
{
	if (group->sum.places > 0)
		admission_lease_doubt(b->owner, group->key);
	if (group->usage[0])
		admission_local_unpaid(b->owner->node, group->key, group->usage);
	group->sum.places = 0;
	memset(group->usage, 0, sizeof group->usage);
	keep_changes_of_events(&group->sum);
	if (!group->sum.change_count) {
		free(group);
		return;
	}
	if (!group->held_ms)
		group->held_ms = loop_now_ms(b->owner->loop);
	group->next = b->held;
	b->held = group;
}

/* To be sent, or past use: its events are over. */
static void let_go(struct admission_batch *b, struct settlements *group)
{
	if (loop_now_ms(b->owner->loop) - group->held_ms > ADMISSION_SPAN_MS)
		free(group);
	else
		append_settlements(b, group);
}

void admission_batch_resume(struct admission_batch *b)
{
	struct settlements *group = b->held, *next;
	b->refused = false;
	b->held = NULL;
	loop_timer_cancel(b->owner->loop, &b->probe);
	for (; group; group = next) {
		next = group->next;
		let_go(b, group);
	}
	admission_local_pay(b->owner, SIZE_MAX);
}

/* Redis answered with an error: one is tried again, and then all. */
static void on_probe_due(struct loop_timer *timer)
{
	struct admission_batch *b = container_of(timer, struct admission_batch, probe);
	struct settlements *group = b->held;
	if (group) {
		b->held = group->next;
		let_go(b, group);
	}
	if (admission_local_pay(b->owner, 1) || b->held)
		loop_timer_set(b->owner->loop, &b->probe, loop_now_ms(b->owner->loop) + PROBE_MS);
}

static void on_settled(void *argument, const struct redisReply *reply)
{
	struct settlements *group = argument;
	struct admission_batch *b = group->owner;
	if (reply && reply->type == REDIS_REPLY_ERROR) {
		journal_add("redis", "admission: Redis says: %.120s", reply->str);
		b->refused = true;
		hold(b, group);
		if (!b->probe.due_ms)
			loop_timer_set(b->owner->loop, &b->probe, loop_now_ms(b->owner->loop) + PROBE_MS);
		return;
	}
	if (!reply && group->sum.places > 0)
		admission_lease_doubt(b->owner, group->key);
	free(group);
	if (reply && b->refused)
		admission_batch_resume(b);
}

static void send_settlements(struct admission_batch *b)
{
	struct settlements *group = b->settlements, *next;
	b->settlements = NULL;
	b->settlements_last = &b->settlements;
	for (struct settlements *g = group; g; g = g->next)
		b->settlements_of[bucket_of(g->subject, NULL)] = NULL;
	for (; group; group = next) {
		next = group->next;
		snapshot_unref(group->snapshot);
		group->snapshot = NULL;
		group->subject = NULL;
		if (!admission_call_settle(b->owner, group->key, &group->sum, group->usage, on_settled, group))
			hold(b, group);
	}
}

/* ---- the turn ---- */

void admission_batch_send(struct admission_batch *b)
{
	send_settlements(b);
	send_admissions(b);
	redis_async_flush(b->owner->redis);
}

static void on_turn_end(struct loop_task *task)
{
	admission_batch_send(container_of(task, struct admission_batch, send));
}

struct admission_batch *admission_batch_new(struct admission *a)
{
	struct admission_batch *b = check_calloc(1, sizeof *b);
	b->owner = a;
	b->send.run = on_turn_end;
	b->admissions_last = &b->admissions;
	b->settlements_last = &b->settlements;
	b->probe.on_due = on_probe_due;
	return b;
}

void admission_batch_free(struct admission_batch *b)
{
	CHECK(!b->admissions && !b->settlements);
	for (struct settlements *next; b->held; b->held = next) {
		next = b->held->next;
		free(b->held);
	}
	loop_timer_cancel(b->owner->loop, &b->probe);
	loop_free_later(b->owner->loop, b); /* its task may still be queued */
}
