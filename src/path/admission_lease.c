/* admission_lease: places of subjects with a max_concurrency, counted per worker, so that Redis can
 * be told again how many are taken while requests last. A worker that is killed tells nothing, and its
 * places come free when its lease is over. One entry a subject with requests under way, in the order
 * of renewal. Thread: the worker's. */
#include "base/check.h"
#include "path/admission_internal.h"

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

static struct admission_lease *lease_of(struct admission_ticket *t)
{
	char key[ADMISSION_NAME_MAX];
	if (!t->subject || !t->subject->limits.max_concurrency)
		return NULL;
	admission_subject_key(t->subject, "limit", key);
	struct admission_item *item = admission_table_get(&t->owner->leases, key, sizeof(struct admission_lease));
	return container_of(item, struct admission_lease, item);
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
	bool new = !l->count && !l->doubtful;
	l->count++;
	t->lease = l;
	admission_lease_hear(t);
	if (!new && t->place)
		unlink_lease(a, l);
	if (new || t->place)
		append_lease(a, l);
	if (!a->renew.due_ms)
		loop_timer_set(a->loop, &a->renew, loop_now_ms(a->loop) + ADMISSION_RENEW_MS);
}

/* Kept, even without a request under way, until Redis has heard how many places there are. */
void admission_lease_doubt(struct admission_ticket *t)
{
	struct admission_lease *l = t->stages & STAGE_SUBJECT && !t->lease ? lease_of(t) : NULL;
	if (!l)
		return;
	if (!l->count && !l->doubtful)
		append_lease(t->owner, l);
	l->doubtful = true;
}

static void forget_if_idle(struct admission *a, struct admission_lease *l)
{
	if (l->count || l->doubtful)
		return;
	if (l->previous || a->lease_first == l)
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

/* False: Redis is away; when it is back, all are told. Where an admission is under way Redis alone knows
 * how many places there are: it keeps its count and extends the lease. */
static bool tell(struct admission *a, struct admission_lease **batch, size_t count)
{
	if (!count)
		return true;
	if (!admission_call_renew(a, batch, count))
		return false;
	for (size_t i = 0; i < count; i++) {
		if (batch[i]->asking)
			continue;
		batch[i]->doubtful = false;
		batch[i]->told_ms = batch[i]->renewed_ms;
		forget_if_idle(a, batch[i]);
	}
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
