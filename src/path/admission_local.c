/* admission_local: what Redis decides, decided on this node.
 *
 * Under the policy `local` every request that Redis admits is noted here too, so that an outage
 * begins with what this node knows: its windows, its places, its vendor keys' windows. While Redis is away all
 * stages are decided here; for a minute after that, stages 1 and 2 are asked here
 * besides Redis, which has not seen what was admitted meanwhile. Shared by the workers, all
 * under node->lock; the times are the clock's, read under the lock, so that they never go back. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "path/admission_internal.h"

/* One idle subject's memory goes with each new one. */
static void sweep(struct admission_node *node, uint64_t now)
{
	struct admission_table *t = &node->subjects;
	for (int looked = 0; looked < 4 && t->size; looked++) {
		struct admission_item *item = t->buckets[node->sweep++ & (t->size - 1)], *next;
		for (; item; item = next) {
			next = item->next;
			struct admission_local *l = container_of(item, struct admission_local, item);
			bool idle = !l->tickets && !l->taken && !l->usage[0] &&
				admission_events_last_ms(&l->events) + ADMISSION_SPAN_MS < now;
			if (!idle)
				continue;
			admission_events_fini(&l->events);
			admission_table_remove(t, item);
		}
	}
}

/* Found or made; lock held. */
static struct admission_local *local_named(struct admission_node *node, const char *subject_key)
{
	struct admission_item *item = admission_table_get(&node->subjects, subject_key, sizeof(struct admission_local));
	return container_of(item, struct admission_local, item);
}

static struct admission_local *local_of(struct admission_ticket *t)
{
	if (t->local || !t->subject)
		return t->local;
	char key[ADMISSION_NAME_MAX];
	struct admission_node *node = t->owner->node;
	size_t before = node->subjects.count;
	admission_subject_key(t->subject, "limit", key);
	t->local = local_named(node, key);
	t->local->tickets++;
	if (node->subjects.count > before)
		sweep(node, clock_monotonic_ms());
	return t->local;
}

void admission_local_let_go(struct admission_ticket *t)
{
	if (!t->local)
		return;
	pthread_mutex_lock(&t->owner->node->lock);
	t->local->tickets--;
	pthread_mutex_unlock(&t->owner->node->lock);
	t->local = NULL;
}

static bool has_windows(const struct limits *l)
{
	return l->rpm || l->input_tpm || l->output_tpm;
}

/* Where it is in an event already, while it waited, it moves. */
static void take_subject(struct admission_ticket *t, uint64_t now)
{
	struct admission_local *l = local_of(t);
	if (!l)
		return;
	if (has_windows(&t->subject->limits)) {
		int64_t amounts[3] = {1, (int64_t)t->tokens[0], (int64_t)t->tokens[1]};
		admission_events_expire(&l->events, now);
		if (t->local_event)
			admission_events_adjust(&l->events, t->local_event,
				(const int64_t[3]){-amounts[0], -amounts[1], -amounts[2]});
		t->local_event = admission_events_add(&l->events, now, amounts);
	}
	if (t->subject->limits.max_concurrency && !t->local_place) {
		l->taken++;
		t->local_place = true;
	}
}

static void take_key(struct admission_ticket *t, size_t key, uint64_t at_ms)
{
	struct admission_local_key *k = &admission_pool_of(t->owner->node, t->pool)->keys[key];
	t->key_local_event = 0;
	if (!t->pool->keys[key]->max_requests_per_minute)
		return;
	admission_events_expire(&k->events, at_ms);
	t->key_local_event = admission_events_add(&k->events, at_ms, (const int64_t[3]){1, 0, 0});
}

void admission_local_note(struct admission_ticket *t)
{
	if (t->owner->node->policy != ADMISSION_LOCAL)
		return;
	pthread_mutex_lock(&t->owner->node->lock);
	if (t->stages & STAGE_SUBJECT && (t->stages & STAGE_WAITED || (!t->local_event && !t->local_place)))
		take_subject(t, clock_monotonic_ms());
	if (t->key != SIZE_MAX)
		take_key(t, t->key, clock_monotonic_ms());
	if (t->stages & STAGE_QUEUE)
		admission_queue_next_locked(admission_queue_line_locked(t->owner->node, t->mapping),
			admission_queue_rule(t->mapping), clock_monotonic_ms(), true);
	pthread_mutex_unlock(&t->owner->node->lock);
}

void admission_local_settle(struct admission_ticket *t, bool give_back, const struct admission_result *result)
{
	struct admission_local *l = t->local;
	if (!l)
		return;
	pthread_mutex_lock(&t->owner->node->lock);
	if (t->local_place)
		l->taken--;
	if (t->local_event && give_back)
		admission_events_adjust(&l->events, t->local_event,
			(const int64_t[3]){-1, -(int64_t)t->tokens[0], -(int64_t)t->tokens[1]});
	else if (t->local_event && result && result->tokens_known)
		admission_events_adjust(&l->events, t->local_event,
			(const int64_t[3]){0, (int64_t)(result->input_tokens - t->tokens[0]),
				(int64_t)(result->output_tokens - t->tokens[1])});
	t->local_place = false;
	t->local_event = 0;
	pthread_mutex_unlock(&t->owner->node->lock);
}

/* Raises them to what this node has seen. Lock held. */
static void put_sums(struct admission_local *l, uint64_t now, double numbers[ANSWER_NUMBERS])
{
	admission_events_expire(&l->events, now);
	uint64_t last = admission_events_last_ms(&l->events);
	for (int i = 0; i < ADMISSION_WINDOWS; i++)
		numbers[ANSWER_SUMS + i] = fmax(numbers[ANSWER_SUMS + i], (double)l->events.sums[i]);
	if (last)
		numbers[ANSWER_RESET] = fmax(numbers[ANSWER_RESET], (double)(last + ADMISSION_SPAN_MS) - (double)now);
}

void admission_local_sums(struct admission_ticket *t, double numbers[ANSWER_NUMBERS])
{
	if (!t->local)
		return;
	pthread_mutex_lock(&t->owner->node->lock);
	put_sums(t->local, clock_monotonic_ms(), numbers);
	pthread_mutex_unlock(&t->owner->node->lock);
}

/* ---- decisions ---- */

static int64_t missing(uint64_t limit, int64_t sum, uint64_t wanted)
{
	return limit ? sum + (int64_t)(wanted ? wanted : 1) - (int64_t)limit : 0;
}

static int check_subject(struct admission_ticket *t, uint64_t now, double numbers[ANSWER_NUMBERS])
{
	struct admission_local *l = local_of(t);
	if (!l)
		return VERDICT_ADMITTED;
	const struct limits *limits = &t->subject->limits;
	put_sums(l, now, numbers);
	if (t->stages & STAGE_WAITED && admission_events_have(&l->events, t->local_event))
		return VERDICT_ADMITTED;
	if (!(t->stages & STAGE_WAITED) && limits->max_concurrency && l->taken >= limits->max_concurrency)
		return VERDICT_CONCURRENCY;
	int64_t lack[3] = {missing(limits->rpm, l->events.sums[0], 1),
		missing(limits->input_tpm, l->events.sums[1], t->tokens[0]),
		missing(limits->output_tpm, l->events.sums[2], t->tokens[1])};
	if (lack[0] <= 0 && lack[1] <= 0 && lack[2] <= 0)
		return VERDICT_ADMITTED;
	bool empty = !admission_events_last_ms(&l->events);
	numbers[ANSWER_WAIT] = empty ? ADMISSION_SPAN_MS : (double)admission_events_wait_ms(&l->events, lack, now);
	return VERDICT_RATE;
}

static int check_queue(struct admission_ticket *t, uint64_t now, double numbers[ANSWER_NUMBERS])
{
	struct admission_line *line = admission_queue_line_locked(t->owner->node, t->mapping);
	uint64_t start = admission_queue_next_locked(line, admission_queue_rule(t->mapping), now, false);
	if (start <= now && !line->waiters)
		return VERDICT_ADMITTED;
	numbers[ANSWER_WAIT] = start > now ? (double)(start - now) : 1;
	if (line->waiters >= t->mapping->queue_capacity)
		return VERDICT_QUEUE_FULL;
	bool hopeless = t->mapping->queue_timeout_ms && start > now + t->mapping->queue_timeout_ms;
	numbers[ANSWER_START] = hopeless ? 0 : (double)start;
	return VERDICT_WAITS;
}

static bool key_usable(struct admission_ticket *t, size_t key, uint64_t now, bool *trial, double *wait, bool *limited)
{
	struct admission_local_key *k = &admission_pool_of(t->owner->node, t->pool)->keys[key];
	uint64_t limit = t->pool->keys[key]->max_requests_per_minute;
	*limited = false;
	if (!admission_health_usable(&k->health, (int64_t)now, trial)) {
		*wait = k->health.state == ADMISSION_KEY_TRIAL ? 1000 : (double)(k->health.until_ms - (int64_t)now);
		*limited = k->health.status == 429;
		return false;
	}
	admission_events_expire(&k->events, now);
	if (!limit || k->events.sums[0] < (int64_t)limit)
		return true;
	int64_t lack[3] = {k->events.sums[0] + 1 - (int64_t)limit, 0, 0};
	*wait = (double)admission_events_wait_ms(&k->events, lack, now);
	*limited = true;
	return false;
}

static int check_key(struct admission_ticket *t, uint64_t now, double numbers[ANSWER_NUMBERS])
{
	int verdict = VERDICT_NO_KEY;
	double soonest = 0;
	for (size_t c = 0; c < t->candidate_count; c++) {
		bool trial, limited;
		double wait = 0;
		if (key_usable(t, t->candidates[c], now, &trial, &wait, &limited)) {
			numbers[ANSWER_CHOICE] = (double)(c + 1);
			return VERDICT_ADMITTED;
		}
		admission_pool_leave_out(t, admission_pool_of(t->owner->node, t->pool), t->candidates[c]);
		bool first_of_kind = limited && verdict == VERDICT_NO_KEY;
		if (limited)
			verdict = VERDICT_KEYS_LIMITED;
		if (!soonest || first_of_kind || (wait < soonest && (limited || verdict == VERDICT_NO_KEY)))
			soonest = wait;
	}
	numbers[ANSWER_WAIT] = soonest;
	return verdict;
}

static void take_choice(struct admission_ticket *t, uint64_t now, const double numbers[ANSWER_NUMBERS])
{
	size_t choice = (size_t)numbers[ANSWER_CHOICE];
	if (!choice)
		return;
	size_t key = t->candidates[choice - 1];
	struct admission_local_key *k = &admission_pool_of(t->owner->node, t->pool)->keys[key];
	take_key(t, key, now);
	t->local_trial = k->health.state == ADMISSION_KEY_OK ? 0 : admission_health_begin_trial(&k->health, (int64_t)now);
}

bool admission_local_check(struct admission_ticket *t, double numbers[ANSWER_NUMBERS])
{
	pthread_mutex_lock(&t->owner->node->lock);
	memset(numbers, 0, ANSWER_NUMBERS * sizeof *numbers);
	numbers[ANSWER_VERDICT] =
		t->stages & STAGE_SUBJECT ? check_subject(t, clock_monotonic_ms(), numbers) : VERDICT_ADMITTED;
	pthread_mutex_unlock(&t->owner->node->lock);
	return numbers[ANSWER_VERDICT] == VERDICT_ADMITTED;
}

void admission_local_choose(struct admission_ticket *t, double numbers[ANSWER_NUMBERS])
{
	admission_pool_offer(t, true);
	pthread_mutex_lock(&t->owner->node->lock);
	uint64_t now = clock_monotonic_ms();
	memset(numbers, 0, ANSWER_NUMBERS * sizeof *numbers);
	numbers[ANSWER_VERDICT] = check_key(t, now, numbers);
	take_choice(t, now, numbers);
	pthread_mutex_unlock(&t->owner->node->lock);
}

void admission_local_decide(struct admission_ticket *t, double numbers[ANSWER_NUMBERS])
{
	if (t->stages & STAGE_POOL)
		admission_pool_offer(t, true);
	pthread_mutex_lock(&t->owner->node->lock);
	uint64_t now = clock_monotonic_ms();
	memset(numbers, 0, ANSWER_NUMBERS * sizeof *numbers);
	int verdict = t->stages & STAGE_SUBJECT ? check_subject(t, now, numbers) : VERDICT_ADMITTED;
	if (verdict == VERDICT_ADMITTED && t->stages & STAGE_QUEUE)
		verdict = check_queue(t, now, numbers);
	if (verdict == VERDICT_ADMITTED && t->stages & STAGE_POOL)
		verdict = check_key(t, now, numbers);
	if (verdict == VERDICT_ADMITTED || verdict == VERDICT_WAITS) {
		take_subject(t, now);
		take_choice(t, now, numbers);
		if (t->stages & STAGE_QUEUE && (verdict == VERDICT_ADMITTED || numbers[ANSWER_START] > 0))
			admission_queue_next_locked(admission_queue_line_locked(t->owner->node, t->mapping),
				admission_queue_rule(t->mapping), now, true);
		for (int i = 0; t->local && i < 3; i++)
			numbers[ANSWER_SUMS + i] = (double)t->local->events.sums[i];
		if (t->local_event)
			numbers[ANSWER_RESET] = ADMISSION_SPAN_MS;
	}
	numbers[ANSWER_VERDICT] = verdict;
	numbers[ANSWER_NOW] = (double)now;
	pthread_mutex_unlock(&t->owner->node->lock);
	if (t->stages & STAGE_POOL && verdict != VERDICT_ADMITTED)
		admission_pool_chosen(t, SIZE_MAX);
}

/* ---- what Redis missed ---- */

void admission_local_unpaid(struct admission_node *node, const char *subject_key, const int64_t usage[3])
{
	pthread_mutex_lock(&node->lock);
	struct admission_local *l = local_named(node, subject_key);
	for (int i = 0; i < 3; i++)
		l->usage[i] += usage[i];
	pthread_mutex_unlock(&node->lock);
}

bool admission_local_pay(struct admission *a, size_t most)
{
	struct admission_table *t = &a->node->subjects;
	size_t left = most;
	pthread_mutex_lock(&a->node->lock);
	for (size_t b = 0; b < t->size && left; b++)
		for (struct admission_item *item = t->buckets[b]; item && left; item = item->next) {
			struct admission_local *l = container_of(item, struct admission_local, item);
			if (!l->usage[0])
				continue;
			admission_batch_pay(a, item->name, l->usage);
			memset(l->usage, 0, sizeof l->usage);
			left--;
		}
	pthread_mutex_unlock(&a->node->lock);
	return left < most;
}
