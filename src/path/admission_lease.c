/* admission_lease: places of subjects with a max_concurrency, counted per worker, so that Redis can
 * be told again how many are taken while requests last. A worker that is killed tells nothing, and its
 * places come free when its lease is over. One entry a subject with requests under way, in the order
 * of renewal. One that is in doubt stays, also without a request, until Redis has said that it heard the count; it is
 * told a second later, and again each second. Thread: the worker's. */
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "path/admission_internal.h"

enum { TELL_AGAIN_MS = 1000 };

/* The doubts that an answer of Redis' ends. */
struct telling {
	struct admission *owner;
	size_t count;
	struct {
		unsigned doubts;
		char name[ADMISSION_NAME_MAX];
	} leases[ADMISSION_RENEW_BATCH];
};

static bool is_listed(const struct admission *a, const struct admission_lease *l)
{
	return l->previous || a->lease_first == l;
}

static void unlink_lease(struct admission *a, struct admission_lease *l)
{
	*(l->previous ? &l->previous->next : &a->lease_first) = l->next;
	*(l->next ? &l->next->previous : &a->lease_last) = l->previous;
	l->next = l->previous = NULL;
}

static void append_lease(struct admission *a, struct admission_lease *l)
{
	l->previous = a->lease_last;
	*(a->lease_last ? &a->lease_last->next : &a->lease_first) = l;
	a->lease_last = l;
	l->renewed_ms = loop_now_ms(a->loop);
}

/* The next to be told. */
static void tell_soon(struct admission *a, struct admission_lease *l)
{
	uint64_t now_ms = loop_now_ms(a->loop), due_ms = now_ms + TELL_AGAIN_MS;
	if (is_listed(a, l))
		unlink_lease(a, l);
	l->renewed_ms = due_ms > ADMISSION_RENEW_MS ? due_ms - ADMISSION_RENEW_MS : 0;
	l->next = a->lease_first;
	*(l->next ? &l->next->previous : &a->lease_last) = l;
	a->lease_first = l;
	if (!a->renew.due_ms || a->renew.due_ms > due_ms)
		loop_timer_set(a->loop, &a->renew, due_ms);
}

static struct admission_lease *lease_named(struct admission *a, const char *subject_key)
{
	struct admission_item *item = admission_table_get(&a->leases, subject_key, sizeof(struct admission_lease));
	return container_of(item, struct admission_lease, item);
}

static struct admission_lease *lease_of(struct admission_ticket *t)
{
	char key[ADMISSION_NAME_MAX];
	if (!t->subject || !t->subject->limits.max_concurrency)
		return NULL;
	admission_subject_key(t->subject, "limit", key);
	return lease_named(t->owner, key);
}

void admission_lease_ask(struct admission_ticket *t)
{
	if (!t->asks_for && !t->lease && t->stages & STAGE_SUBJECT && (t->asks_for = lease_of(t)))
		t->asks_for->asking++;
}

/* An admission in Redis extends the lease; one on this node alone is told with the next renewal. */
void admission_lease_take(struct admission_ticket *t)
{
	struct admission *a = t->owner;
	struct admission_lease *l = t->asks_for ? t->asks_for : lease_of(t);
	if (!l)
		return;
	l->count++;
	t->lease = l;
	admission_lease_hear(t);
	if (t->place && is_listed(a, l) && !l->doubtful)
		unlink_lease(a, l);
	if (!is_listed(a, l))
		append_lease(a, l);
	if (!a->renew.due_ms)
		loop_timer_set(a->loop, &a->renew, loop_now_ms(a->loop) + ADMISSION_RENEW_MS);
}

static void doubt(struct admission *a, struct admission_lease *l)
{
	l->doubtful = true;
	l->doubts++;
	tell_soon(a, l);
}

void admission_lease_doubt(struct admission *a, const char *subject_key)
{
	doubt(a, lease_named(a, subject_key));
}

void admission_lease_doubt_admission(struct admission_ticket *t)
{
	struct admission_lease *l = t->stages & STAGE_SUBJECT && !t->lease ? lease_of(t) : NULL;
	if (l)
		doubt(t->owner, l);
}

static void forget_if_idle(struct admission *a, struct admission_lease *l)
{
	if (l->count || l->doubtful)
		return;
	if (is_listed(a, l))
		unlink_lease(a, l);
	if (!l->asking)
		admission_table_remove(&a->leases, &l->item);
}

void admission_lease_hear(struct admission_ticket *t)
{
	struct admission_lease *l = t->asks_for;
	t->asks_for = NULL;
	if (!l)
		return;
	l->asking--;
	forget_if_idle(t->owner, l);
}

bool admission_lease_drop(struct admission_ticket *t)
{
	struct admission_lease *l = t->lease;
	if (!l)
		return t->place;
	bool counted = t->place || l->told_ms > t->started_ms;
	t->lease = NULL;
	l->count--;
	forget_if_idle(t->owner, l);
	return counted;
}

static void on_told(void *argument, const struct redisReply *reply)
{
	struct telling *telling = argument;
	struct admission *a = telling->owner;
	bool heard = reply && reply->type != REDIS_REPLY_ERROR;
	for (size_t i = 0; i < telling->count; i++) {
		struct admission_item *item = admission_table_find(&a->leases, telling->leases[i].name);
		struct admission_lease *l = item ? container_of(item, struct admission_lease, item) : NULL;
		if (!l || !l->doubtful || l->doubts != telling->leases[i].doubts)
			continue;
		if (!heard) {
			tell_soon(a, l);
			continue;
		}
		l->doubtful = false;
		forget_if_idle(a, l);
	}
	free(telling);
}

/* Where an admission is under way Redis alone knows how many places there are: it keeps its count and extends the
 * lease, and the doubt remains. NULL: there is none. */
static struct telling *telling_of(struct admission *a, struct admission_lease *const *batch, size_t count)
{
	struct telling *telling = NULL;
	for (size_t i = 0; i < count; i++) {
		if (!batch[i]->doubtful || batch[i]->asking)
			continue;
		if (!telling)
			telling = check_calloc(1, sizeof *telling);
		telling->owner = a;
		telling->leases[telling->count].doubts = batch[i]->doubts;
		stpncpy(telling->leases[telling->count].name, batch[i]->item.name, ADMISSION_NAME_MAX - 1);
		telling->count++;
	}
	return telling;
}

/* False: Redis is away; when it is back, all are told. */
static bool tell(struct admission *a, struct admission_lease **batch, size_t count)
{
	if (!count)
		return true;
	struct telling *telling = telling_of(a, batch, count);
	if (!admission_call_renew(a, batch, count, telling ? on_told : NULL, telling)) {
		free(telling);
		return false;
	}
	for (size_t i = 0; i < count; i++)
		if (!batch[i]->asking)
			batch[i]->told_ms = batch[i]->renewed_ms;
		else if (batch[i]->doubtful)
			tell_soon(a, batch[i]);
	return true;
}

static void renew(struct admission *a, uint64_t before_ms)
{
	struct admission_lease *batch[ADMISSION_RENEW_BATCH];
	admission_batch_send(a->batch); /* what it says of places is not in the counts any more */
	size_t count = 0, left = a->leases.count;
	while (left-- && a->lease_first && a->lease_first->renewed_ms <= before_ms) {
		struct admission_lease *l = a->lease_first;
		unlink_lease(a, l);
		append_lease(a, l);
		batch[count++] = l;
		if (count < ADMISSION_RENEW_BATCH)
			continue;
		if (!tell(a, batch, count))
			return;
		count = 0;
	}
	(void)tell(a, batch, count);
}

void admission_lease_renew_all(struct admission *a)
{
	renew(a, UINT64_MAX);
}

static void on_renew(struct loop_timer *timer)
{
	struct admission *a = container_of(timer, struct admission, renew);
	uint64_t now_ms = loop_now_ms(a->loop);
	renew(a, now_ms - ADMISSION_RENEW_MS);
	if (a->lease_first)
		loop_timer_set(a->loop, &a->renew, a->lease_first->renewed_ms + ADMISSION_RENEW_MS);
}

void admission_lease_init(struct admission *a)
{
	a->renew.on_due = on_renew;
}

void admission_lease_fini(struct admission *a)
{
	loop_timer_cancel(a->loop, &a->renew);
	admission_table_fini(&a->leases, NULL);
}
