/* admission_pool: in which order vendor keys are offered, and what this node knows of them.
 *
 * The order is smooth weighted round robin over the keys that may be of use, shared by the node's
 * workers: each key's `current` grows by its weight, the highest goes first and pays the sum of
 * all weights. Where Redis takes another one than the first, that one pays instead. What an offer that led
 * to nothing has moved is moved back, and what a key of no use has grown, so that neither refusals nor a rest are
 * made up for later. Redis has the last word; what it says of a key is remembered for a second, so that a
 * reset by hand is soon seen.
 * All under node->lock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "path/admission_internal.h"
#include "state/journal.h"

enum { HINT_MS = 1000 };

static void free_keys(struct admission_local_key *keys, size_t count)
{
	for (size_t k = 0; k < count; k++) {
		admission_events_fini(&keys[k].events);
		free(keys[k].id);
	}
	free(keys);
}

void admission_pool_free_item(struct admission_item *item)
{
	struct admission_pool *p = container_of(item, struct admission_pool, item);
	free_keys(p->keys, p->key_count);
}

static bool same_keys(const struct admission_pool *p, const struct pool *pool)
{
	if (p->key_count != pool->key_count)
		return false;
	for (size_t k = 0; k < p->key_count; k++)
		if (strcmp(p->keys[k].id, vendor_key_limit_id(pool->keys[k])) != 0)
			return false;
	return true;
}

/* The configuration has changed: what is known moves along with the ids. */
static void rebuild(struct admission_pool *p, const struct pool *pool)
{
	struct admission_local_key *keys = check_calloc(pool->key_count + 1, sizeof *keys);
	for (size_t k = 0; k < pool->key_count; k++) {
		for (size_t old = 0; old < p->key_count && !keys[k].id; old++)
			if (p->keys[old].id && strcmp(p->keys[old].id, vendor_key_limit_id(pool->keys[k])) == 0) {
				keys[k] = p->keys[old];
				memset(&p->keys[old], 0, sizeof p->keys[old]);
			}
		if (!keys[k].id)
			keys[k].id = check_strdup(vendor_key_limit_id(pool->keys[k]));
		keys[k].current = 0;
	}
	free_keys(p->keys, p->key_count);
	p->keys = keys;
	p->key_count = pool->key_count;
}

struct admission_pool *admission_pool_of(struct admission_node *node, const struct pool *pool)
{
	struct admission_item *item = admission_table_get(&node->pools, pool->name, sizeof(struct admission_pool));
	struct admission_pool *p = container_of(item, struct admission_pool, item);
	if (!same_keys(p, pool))
		rebuild(p, pool);
	return p;
}

void admission_node_forget_key(struct admission_node *node, const struct vendor_key *key)
{
	pthread_mutex_lock(&node->lock);
	struct admission_item *item = admission_table_find(&node->pools, key->pool);
	struct admission_pool *p = item ? container_of(item, struct admission_pool, item) : NULL;
	for (size_t k = 0; p && k < p->key_count; k++)
		if (strcmp(p->keys[k].id, vendor_key_limit_id(key)) == 0) {
			p->keys[k].not_before_ms = 0;
			p->keys[k].health = (struct admission_health){0};
		}
	pthread_mutex_unlock(&node->lock);
}

/* ---- which keys were tried ---- */

static bool is_tried(const struct admission_ticket *t, size_t key)
{
	if (key < 64)
		return t->tried_few >> key & 1;
	return t->tried_many && t->tried_many[key];
}

void admission_ticket_mark_tried(struct admission_ticket *t, size_t key)
{
	if (key < 64) {
		t->tried_few |= UINT64_C(1) << key;
		return;
	}
	if (!t->tried_many)
		t->tried_many = check_calloc(t->pool->key_count, 1);
	t->tried_many[key] = 1;
}

/* ---- another configuration ---- */

static void free_candidates(struct admission_ticket *t)
{
	if (t->candidates != t->candidates_few)
		free(t->candidates);
	t->candidates = t->candidates_few;
	t->candidate_count = 0;
}

static size_t place_of(const struct pool *pool, const char *limit_id)
{
	for (size_t k = 0; pool && k < pool->key_count; k++)
		if (strcmp(vendor_key_limit_id(pool->keys[k]), limit_id) == 0)
			return k;
	return SIZE_MAX;
}

/* What was tried there was tried here. */
static void move(struct admission_ticket *t, const struct pool *pool)
{
	struct admission_ticket before = *t;
	t->pool = pool;
	t->tried_few = 0;
	t->tried_many = NULL;
	t->first_choice = SIZE_MAX;
	t->grown = 0;
	free_candidates(t);
	for (size_t k = 0; before.pool && k < before.pool->key_count; k++) {
		size_t now = is_tried(&before, k) ? place_of(pool, vendor_key_limit_id(before.pool->keys[k])) : SIZE_MAX;
		if (now != SIZE_MAX)
			admission_ticket_mark_tried(t, now);
	}
	free(before.tried_many);
}

void admission_ticket_renew(struct admission_ticket *t)
{
	struct admission_request *rq = t->rq;
	struct snapshot *before = t->renewed;
	move(t, rq->mapping->pool);
	t->key = SIZE_MAX;
	rq->key = NULL;
	t->mapping = rq->mapping;
	t->renewed = snapshot_ref(rq->snapshot);
	t->stages &= ~(unsigned)STAGE_POOL;
	if (t->mapping->pool_name)
		t->stages |= STAGE_POOL;
	snapshot_unref(before);
}

/* ---- the order ---- */

static bool possible(const struct admission_ticket *t, size_t key)
{
	const struct vendor_key *k = t->pool->keys[key];
	return k->enabled && k->secret && k->weight && !is_tried(t, key);
}

static bool hopeful(const struct admission_ticket *t, const struct admission_pool *p, size_t key)
{
	return possible(t, key) && p->keys[key].not_before_ms <= loop_now_ms(t->owner->loop);
}

/* The keys' sum, which is what the one chosen pays. */
static int64_t weigh(const struct admission_ticket *t, const struct admission_pool *p)
{
	int64_t total = 0;
	for (size_t k = 0; k < p->key_count && k < UINT16_MAX; k++)
		if (hopeful(t, p, k))
			total += t->pool->keys[k]->weight;
	return total;
}

/* In its turn no key claims more than the sum: that bounds what is not taken back beyond the first 64. */
static void grow(struct admission_ticket *t, struct admission_pool *p, size_t key, int64_t total)
{
	int64_t claim = p->keys[key].current + t->pool->keys[key]->weight;
	if (key < 64)
		t->grown |= UINT64_C(1) << key;
	else if (claim > total)
		claim = total;
	p->keys[key].current = claim;
}

/* Takes back what grow() gave. Returns it. */
static int64_t shrink(struct admission_ticket *t, struct admission_pool *p, size_t key)
{
	if (key >= 64 || !(t->grown >> key & 1))
		return 0;
	t->grown &= ~(UINT64_C(1) << key);
	p->keys[key].current -= t->pool->keys[key]->weight;
	return t->pool->keys[key]->weight;
}

void admission_pool_leave_out(struct admission_ticket *t, struct admission_pool *p, size_t key)
{
	int64_t weight = shrink(t, p, key);
	if (t->first_choice < p->key_count)
		p->keys[t->first_choice].current += weight;
	t->price -= weight;
}

/* Redis looks no further than the key it takes. So what it did not look at here, but is known by now from another
 * answer to be of no use, has grown for nothing: as often as requests were under way. Lock held. */
static void leave_out_idle(struct admission_ticket *t, struct admission_pool *p, size_t chosen, uint64_t now_ms)
{
	for (size_t k = 0; k < p->key_count && k < 64; k++)
		if (k != chosen && p->keys[k].not_before_ms > now_ms)
			admission_pool_leave_out(t, p, k);
}

/* Inserts by current, the highest first, as far as there is room. */
static void insert(struct admission_ticket *t, const struct admission_pool *p, size_t room, size_t key)
{
	size_t at = t->candidate_count;
	while (at && p->keys[t->candidates[at - 1]].current < p->keys[key].current) {
		if (at < room)
			t->candidates[at] = t->candidates[at - 1];
		at--;
	}
	if (at >= room)
		return;
	t->candidates[at] = (uint16_t)key;
	if (t->candidate_count < room)
		t->candidate_count++;
}

void admission_pool_offer(struct admission_ticket *t, bool all)
{
	free_candidates(t);
	t->first_choice = SIZE_MAX;
	t->grown = 0;
	size_t room = ADMISSION_CANDIDATES, left_out = 0;
	t->all_offered = true;
	if (!t->pool)
		return;
	if (all && t->pool->key_count > room) {
		room = t->pool->key_count < ANSWER_LEARNT_MAX / 3 ? t->pool->key_count : ANSWER_LEARNT_MAX / 3;
		t->candidates = check_calloc(room, sizeof *t->candidates);
	}
	pthread_mutex_lock(&t->owner->node->lock);
	struct admission_pool *p = admission_pool_of(t->owner->node, t->pool);
	int64_t total = weigh(t, p);
	for (size_t k = 0; k < p->key_count && k < UINT16_MAX; k++) {
		if (!hopeful(t, p, k)) {
			left_out += possible(t, k);
			continue;
		}
		grow(t, p, k, total);
		insert(t, p, room, k);
		left_out++;
	}
	if (t->candidate_count) {
		t->first_choice = t->candidates[0];
		p->keys[t->first_choice].current -= total;
	}
	t->price = total;
	/* those that are said to be of no use come last: only Redis knows */
	bool fill = all || !t->candidate_count;
	for (size_t k = 0; fill && k < p->key_count && t->candidate_count < room; k++)
		if (possible(t, k) && !hopeful(t, p, k))
			t->candidates[t->candidate_count++] = (uint16_t)k;
	t->all_offered = all || left_out <= t->candidate_count;
	pthread_mutex_unlock(&t->owner->node->lock);
}

void admission_pool_chosen(struct admission_ticket *t, size_t key)
{
	if (t->first_choice == SIZE_MAX || t->first_choice == key)
		return;
	pthread_mutex_lock(&t->owner->node->lock);
	struct admission_pool *p = admission_pool_of(t->owner->node, t->pool);
	if (t->first_choice < p->key_count)
		p->keys[t->first_choice].current += t->price;
	if (key < p->key_count)
		p->keys[key].current -= t->price;
	for (size_t k = 0; key == SIZE_MAX && k < p->key_count && k < 64; k++)
		shrink(t, p, k);
	pthread_mutex_unlock(&t->owner->node->lock);
	t->first_choice = key;
}

void admission_pool_learn(struct admission_ticket *t, const struct admission_answer *answer)
{
	uint64_t now_ms = loop_now_ms(t->owner->loop);
	double now = answer->numbers[ANSWER_NOW];
	size_t choice = (size_t)answer->numbers[ANSWER_CHOICE];
	if (!t->pool)
		return;
	pthread_mutex_lock(&t->owner->node->lock);
	struct admission_pool *p = admission_pool_of(t->owner->node, t->pool);
	if (choice && choice <= t->candidate_count) {
		p->keys[t->candidates[choice - 1]].unwell = false;
		p->keys[t->candidates[choice - 1]].health = (struct admission_health){0};
	}
	for (size_t i = 0; i < answer->learnt_count; i++) {
		const double *learnt = &answer->learnt[3 * i];
		size_t candidate = (size_t)learnt[0];
		if (!candidate || candidate > t->candidate_count)
			continue;
		struct admission_local_key *key = &p->keys[t->candidates[candidate - 1]];
		double wait = learnt[1] - now;
		bool full = learnt[2] == -1;
		if (wait > 0 && candidate != choice) {
			admission_pool_leave_out(t, p, t->candidates[candidate - 1]);
			key->not_before_ms = now_ms + (wait < HINT_MS ? (uint64_t)wait : HINT_MS);
		}
		key->unwell = !full || key->unwell;
		if (!full && wait > 0 && candidate != choice)
			key->health = (struct admission_health){.state = ADMISSION_KEY_COOLING,
				.until_ms = (int64_t)now_ms + (int64_t)wait,
				.status = (unsigned)learnt[2]};
	}
	leave_out_idle(t, p, choice && choice <= t->candidate_count ? t->candidates[choice - 1] : SIZE_MAX, now_ms);
	pthread_mutex_unlock(&t->owner->node->lock);
}

/* Clients do not see it where another key answers. Once until it is well again: a storm is one entry. */
static void note_failure(const struct vendor_key *key, unsigned status)
{
	char reason[24] = "connection failure";
	if (status)
		snprintf(reason, sizeof reason, "status %u", status);
	journal_add("key", "%s (pool %s): %s", key->id, key->pool, reason);
}

bool admission_pool_report(struct admission_ticket *t, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms, bool give_back)
{
	uint64_t now_ms = loop_now_ms(t->owner->loop);
	pthread_mutex_lock(&t->owner->node->lock);
	struct admission_pool *p = admission_pool_of(t->owner->node, t->pool);
	struct admission_local_key *key = &p->keys[t->key];
	bool news = outcome >= ADMISSION_THROTTLED && !key->unwell;
	bool tell = outcome >= ADMISSION_THROTTLED || t->trial > 0 || (outcome == ADMISSION_SUCCESS && key->unwell);
	admission_health_apply(&key->health, (int64_t)now_ms, outcome, status, (int64_t)retry_after_ms, t->local_trial);
	key->unwell |= outcome >= ADMISSION_THROTTLED;
	if (give_back && t->key_local_event)
		admission_events_adjust(&key->events, t->key_local_event, (const int64_t[3]){-1, 0, 0});
	pthread_mutex_unlock(&t->owner->node->lock);
	if (news)
		note_failure(t->pool->keys[t->key], status);
	return tell || (give_back && t->key_event > 0);
}
