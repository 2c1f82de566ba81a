/* stats_slots: names -> slot numbers, under one lock. A worker takes it only where it is the last to let go
 * of a configuration that was replaced.
 *
 * A number goes: held (any holders) -> released -> drained -> unused -> held by another name. A name
 * acquired again before it was drained keeps its number. Invariant: a number in `unused` has no
 * events in any ring, because it was released before a drain that is over. */
#include "state/stats_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"

static void add_page(struct stats *s, uint32_t slot)
{
	uint32_t page = slot / STATS_PAGE_SLOTS;
	for (unsigned i = 0; i < s->ring_count && s->enabled; i++)
		if (!atomic_load_explicit(&s->rings[i].pages[page], memory_order_relaxed))
			atomic_store_explicit(&s->rings[i].pages[page],
				check_calloc(STATS_PAGE_SLOTS, sizeof(struct stats_gauges)), memory_order_release);
}

void stats_slots_init(struct stats *s)
{
	pthread_mutex_init(&s->slots.lock, NULL);
	s->slots.count = 1;
	s->slots.capacity = 16;
	s->slots.slots = check_calloc(s->slots.capacity, sizeof *s->slots.slots);
	s->slots.bucket_count = 64;
	s->slots.buckets = check_calloc(s->slots.bucket_count, sizeof *s->slots.buckets);
	add_page(s, STATS_NO_SLOT);
}

void stats_slots_fini(struct stats *s)
{
	for (uint32_t i = 0; i < s->slots.count; i++) {
		free(s->slots.slots[i].name);
		free(s->slots.slots[i].name2);
	}
	free(s->slots.slots);
	free(s->slots.buckets);
	free(s->slots.released);
	free(s->slots.unused);
	pthread_mutex_destroy(&s->slots.lock);
}

static void *grow(void *array, size_t *capacity, size_t size)
{
	*capacity = *capacity ? *capacity * 2 : 16;
	array = realloc(array, *capacity * size);
	CHECK(array);
	return array;
}

static uint32_t *bucket_of(struct stats_slots *l, enum stats_slot_kind kind, const char *name, const char *name2)
{
	uint64_t hash = hash_byte(hash_text(HASH_START ^ kind, name), 0xff);
	if (name2)
		hash = hash_text(hash, name2);
	return &l->buckets[hash & (l->bucket_count - 1)];
}

static bool texts_equal(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static uint32_t find(struct stats_slots *l, enum stats_slot_kind kind, const char *name, const char *name2)
{
	uint32_t slot = *bucket_of(l, kind, name, name2);
	while (slot &&
		!(l->slots[slot].kind == kind && texts_equal(l->slots[slot].name, name) &&
			texts_equal(l->slots[slot].name2, name2)))
		slot = l->slots[slot].next;
	return slot;
}

static void link_slot(struct stats_slots *l, uint32_t slot)
{
	struct stats_slot *e = &l->slots[slot];
	uint32_t *bucket = bucket_of(l, e->kind, e->name, e->name2);
	e->next = *bucket;
	*bucket = slot;
}

static void unlink_slot(struct stats_slots *l, uint32_t slot)
{
	struct stats_slot *e = &l->slots[slot];
	uint32_t *at = bucket_of(l, e->kind, e->name, e->name2);
	while (*at != slot)
		at = &l->slots[*at].next;
	*at = e->next;
}

static void grow_buckets(struct stats_slots *l)
{
	free(l->buckets);
	l->bucket_count *= 2;
	l->buckets = check_calloc(l->bucket_count, sizeof *l->buckets);
	for (uint32_t slot = 1; slot < l->count; slot++)
		if (l->slots[slot].name)
			link_slot(l, slot);
}

static uint32_t take_number(struct stats *s)
{
	struct stats_slots *l = &s->slots;
	if (l->unused_count)
		return l->unused[--l->unused_count];
	if (l->count == STATS_PAGES * STATS_PAGE_SLOTS) {
		if (!l->full_was_said)
			log_warning("stats", "more than %u names: the others are counted in the totals only", l->count - 1);
		l->full_was_said = true;
		return STATS_NO_SLOT;
	}
	if (l->count == l->capacity) {
		size_t capacity = l->capacity;
		l->slots = grow(l->slots, &capacity, sizeof *l->slots);
		l->capacity = (uint32_t)capacity;
	}
	memset(&l->slots[l->count], 0, sizeof l->slots[l->count]);
	if (l->count >= l->bucket_count)
		grow_buckets(l);
	add_page(s, l->count);
	return l->count++;
}

uint32_t stats_slot_acquire(struct stats *s, enum stats_slot_kind kind, const char *name, const char *name2)
{
	if (!s->enabled)
		return STATS_NO_SLOT;
	struct stats_slots *l = &s->slots;
	pthread_mutex_lock(&l->lock);
	uint32_t slot = find(l, kind, name, name2);
	if (!slot && (slot = take_number(s)) != STATS_NO_SLOT) {
		l->slots[slot].kind = kind;
		l->slots[slot].name = check_strdup(name);
		l->slots[slot].name2 = name2 ? check_strdup(name2) : NULL;
		link_slot(l, slot);
	}
	if (slot)
		l->slots[slot].holders++;
	pthread_mutex_unlock(&l->lock);
	return slot;
}

void stats_slot_release(struct stats *s, uint32_t slot)
{
	if (slot == STATS_NO_SLOT)
		return;
	struct stats_slots *l = &s->slots;
	pthread_mutex_lock(&l->lock);
	CHECK(slot < l->count && l->slots[slot].holders > 0);
	struct stats_slot *e = &l->slots[slot];
	if (--e->holders == 0 && e->released) {
		e->released_again = true;
	} else if (e->holders == 0) {
		if (l->released_count == l->released_capacity)
			l->released = grow(l->released, &l->released_capacity, sizeof *l->released);
		l->released[l->released_count++] = slot;
		e->released = true;
	}
	pthread_mutex_unlock(&l->lock);
}

size_t stats_slots_released(struct stats *s)
{
	struct stats_slots *l = &s->slots;
	pthread_mutex_lock(&l->lock);
	size_t count = l->released_count;
	for (size_t i = 0; i < count; i++)
		l->slots[l->released[i]].released_again = false;
	pthread_mutex_unlock(&l->lock);
	return count;
}

static void forget_slot(struct stats_slots *l, uint32_t slot)
{
	struct stats_slot *e = &l->slots[slot];
	unlink_slot(l, slot);
	free(e->name);
	free(e->name2);
	memset(e, 0, sizeof *e);
	if (l->unused_count == l->unused_capacity)
		l->unused = grow(l->unused, &l->unused_capacity, sizeof *l->unused);
	l->unused[l->unused_count++] = slot;
}

void stats_slots_reclaim(struct stats *s, size_t count, void (*on_slot_gone)(void *, uint32_t), void *context)
{
	if (count == 0)
		return;
	struct stats_slots *l = &s->slots;
	pthread_mutex_lock(&l->lock);
	size_t kept = 0;
	for (size_t i = 0; i < l->released_count; i++) {
		uint32_t slot = l->released[i];
		struct stats_slot *e = &l->slots[slot];
		if (i >= count || (e->holders == 0 && e->released_again)) {
			l->released[kept++] = slot;
		} else if (e->holders == 0) {
			forget_slot(l, slot);
			on_slot_gone(context, slot);
		} else {
			e->released = false;
		}
	}
	l->released_count = kept;
	pthread_mutex_unlock(&l->lock);
}

bool stats_slot_name(struct stats *s, uint32_t slot, enum stats_slot_kind *kind, const char **name,
	const char **name2)
{
	struct stats_slots *l = &s->slots;
	pthread_mutex_lock(&l->lock);
	bool known = slot < l->count && l->slots[slot].name;
	if (known) {
		*kind = l->slots[slot].kind;
		*name = l->slots[slot].name;
		*name2 = l->slots[slot].name2;
	}
	pthread_mutex_unlock(&l->lock);
	return known;
}

uint32_t stats_slot_count(struct stats *s)
{
	pthread_mutex_lock(&s->slots.lock);
	uint32_t count = s->slots.count;
	pthread_mutex_unlock(&s->slots.lock);
	return count;
}
