/* snapshot: sealed once, then only read; the last reference frees it.
 *
 * Routes: an open-addressed table of prefixes. A path is hashed once from its start, the hash kept
 * at each segment's end, and the ends are looked up from the longest to the shortest, skipping
 * lengths that no prefix has. */
#include "state/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/hash.h"
#include "state/rules.h"
#include "state/snapshot_build.h"
#include "state/stats.h"

struct list { /* grows; of pointers */
	void **items;
	size_t count, room;
};

struct subjects {
	unsigned references;
	struct arena *arena;
	struct list list;    /* sorted by id once sealed */
	uint32_t *by_sha256; /* index + 1; 0: free */
	size_t mask;
};

struct snapshot {
	unsigned references;
	struct arena *arena;
	struct stats *stats;
	const char *jwt_secret;
	struct list mappings, keys, pools; /* sorted */
	struct subjects *clients, *users;
	const struct mapping **routes; /* NULL: free */
	size_t route_mask;
	bool has_length[RULES_PREFIX_CHARS_MAX + 1];
};

static void *list_add(struct list *list, void *item)
{
	if (list->count == list->room) {
		list->room = list->room ? list->room * 2 : 16;
		list->items = realloc(list->items, list->room * sizeof(*list->items));
		CHECK(list->items);
	}
	list->items[list->count++] = item;
	return item;
}

/* At least twice as many places as items, a power of two. */
static size_t table_mask(size_t items)
{
	size_t places = 16;
	while (places < items * 2)
		places *= 2;
	return places - 1;
}

/* ---- clients and users ---- */

struct subjects *subjects_new(void)
{
	struct subjects *set = check_calloc(1, sizeof(*set));
	set->references = 1;
	set->arena = arena_new();
	return set;
}

struct arena *subjects_arena(struct subjects *set)
{
	return set->arena;
}

struct subject *subjects_add(struct subjects *set)
{
	return list_add(&set->list, arena_alloc(set->arena, sizeof(struct subject)));
}

static struct subjects *subjects_ref(struct subjects *set)
{
	__atomic_add_fetch(&set->references, 1, __ATOMIC_RELAXED);
	return set;
}

void subjects_unref(struct subjects *set)
{
	if (!set || __atomic_sub_fetch(&set->references, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	arena_free(set->arena);
	free(set->list.items);
	free(set->by_sha256);
	free(set);
}

/* Digests may be given by hand, and then be anything: all of it counts. */
static uint64_t sha256_hash(const uint8_t sha256[32])
{
	uint64_t words[4], hash = 0;
	memcpy(words, sha256, sizeof(words));
	for (int i = 0; i < 4; i++)
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15u, hash ^= hash >> 32;
	return hash;
}

static void index_sha256(struct subjects *set)
{
	set->mask = table_mask(set->list.count);
	set->by_sha256 = check_calloc(set->mask + 1, sizeof(*set->by_sha256));
	for (size_t i = 0; i < set->list.count; i++) {
		const struct subject *subject = set->list.items[i];
		size_t at = sha256_hash(subject->key_sha256) & set->mask;
		while (set->by_sha256[at])
			at = (at + 1) & set->mask;
		set->by_sha256[at] = (uint32_t)i + 1;
	}
}

struct ordered {
	struct subject *subject;
	size_t order;
};

static int compare_subjects(const void *left, const void *right)
{
	const struct ordered *a = left, *b = right;
	int difference = strcmp(a->subject->id, b->subject->id);
	return difference ? difference : a->order < b->order ? -1 : a->order > b->order;
}

void subjects_seal(struct subjects *set, void (*on_repeated)(void *context, const struct subject *subject),
	void *context)
{
	size_t count = set->list.count, kept = 0;
	struct ordered *sorted = check_calloc(count + 1, sizeof(*sorted));
	for (size_t i = 0; i < count; i++)
		sorted[i] = (struct ordered){set->list.items[i], i};
	qsort(sorted, count, sizeof(*sorted), compare_subjects);
	for (size_t i = 0; i < count; i++) {
		const struct subject *last = kept ? set->list.items[kept - 1] : NULL;
		if (last && strcmp(last->id, sorted[i].subject->id) == 0)
			on_repeated(context, sorted[i].subject);
		else
			set->list.items[kept++] = sorted[i].subject;
	}
	set->list.count = kept;
	free(sorted);
	index_sha256(set);
}

static int compare_id(const void *id, const void *item)
{
	return strcmp(id, (*(const struct subject *const *)item)->id);
}

static const struct subject *find_subject(const struct subjects *set, const char *id)
{
	if (!set || !set->list.count)
		return NULL;
	void **found = bsearch(id, set->list.items, set->list.count, sizeof(void *), compare_id);
	return found ? *found : NULL;
}

const struct subject *snapshot_client_by_sha256(const struct snapshot *s, const uint8_t sha256[32])
{
	const struct subjects *set = s->clients;
	if (!set)
		return NULL;
	for (size_t at = sha256_hash(sha256) & set->mask; set->by_sha256[at]; at = (at + 1) & set->mask) {
		const struct subject *subject = set->list.items[set->by_sha256[at] - 1];
		if (CRYPTO_memcmp(subject->key_sha256, sha256, 32) == 0)
			return subject;
	}
	return NULL;
}

const struct subject *snapshot_client(const struct snapshot *s, const char *id)
{
	return find_subject(s->clients, id);
}

const struct subject *snapshot_user(const struct snapshot *s, const char *username)
{
	return find_subject(s->users, username);
}

/* ---- building ---- */

struct snapshot *snapshot_new(struct stats *stats, const char *jwt_secret)
{
	struct snapshot *s = check_calloc(1, sizeof(*s));
	s->references = 1;
	s->arena = arena_new();
	s->stats = stats;
	s->jwt_secret = arena_strdup(s->arena, jwt_secret);
	return s;
}

struct arena *snapshot_arena(struct snapshot *s)
{
	return s->arena;
}

struct mapping *snapshot_add_mapping(struct snapshot *s)
{
	return list_add(&s->mappings, arena_alloc(s->arena, sizeof(struct mapping)));
}

struct vendor_key *snapshot_add_key(struct snapshot *s)
{
	return list_add(&s->keys, arena_alloc(s->arena, sizeof(struct vendor_key)));
}

static int compare_prefixes(const void *a, const void *b)
{
	return strcmp((*(const struct mapping *const *)a)->prefix, (*(const struct mapping *const *)b)->prefix);
}

static int compare_key_ids(const void *a, const void *b)
{
	return strcmp((*(const struct vendor_key *const *)a)->id, (*(const struct vendor_key *const *)b)->id);
}

static int compare_key_pools(const void *a, const void *b)
{
	const struct vendor_key *left = *(const struct vendor_key *const *)a,
							*right = *(const struct vendor_key *const *)b;
	int difference = strcmp(left->pool, right->pool);
	return difference ? difference : strcmp(left->id, right->id);
}

static void list_sort(struct list *list, int (*compare)(const void *, const void *))
{
	if (list->count)
		qsort(list->items, list->count, sizeof(void *), compare);
}

static void make_pools(struct snapshot *s)
{
	size_t count = s->keys.count;
	const struct vendor_key **sorted = arena_alloc(s->arena, (count + 1) * sizeof(*sorted));
	if (count)
		memcpy(sorted, s->keys.items, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), compare_key_pools);
	for (size_t i = 0, next; i < count; i = next) {
		for (next = i + 1; next < count && strcmp(sorted[next]->pool, sorted[i]->pool) == 0; next++)
			;
		struct pool *pool = list_add(&s->pools, arena_alloc(s->arena, sizeof(*pool)));
		pool->name = sorted[i]->pool;
		pool->keys = sorted + i;
		pool->key_count = next - i;
	}
}

static size_t hash_place(uint64_t hash, size_t mask)
{
	return (hash ^ hash >> 32) & mask;
}

static void make_routes(struct snapshot *s)
{
	s->route_mask = table_mask(s->mappings.count);
	s->routes = arena_alloc(s->arena, (s->route_mask + 1) * sizeof(*s->routes));
	for (size_t i = 0; i < s->mappings.count; i++) {
		const struct mapping *mapping = s->mappings.items[i];
		CHECK(mapping->prefix_length <= RULES_PREFIX_CHARS_MAX);
		uint64_t hash = hash_bytes(HASH_START, mapping->prefix, mapping->prefix_length);
		size_t at = hash_place(hash, s->route_mask);
		while (s->routes[at])
			at = (at + 1) & s->route_mask;
		s->routes[at] = mapping;
		s->has_length[mapping->prefix_length] = true;
	}
}

static void acquire_slots(struct snapshot *s)
{
	for (size_t i = 0; s->stats && i < s->mappings.count; i++) {
		struct mapping *mapping = s->mappings.items[i];
		mapping->stats_slot = stats_slot_acquire(s->stats, STATS_MAPPING, mapping->prefix, NULL);
	}
	for (size_t i = 0; s->stats && i < s->keys.count; i++) {
		struct vendor_key *key = s->keys.items[i];
		key->stats_slot = stats_slot_acquire(s->stats, STATS_KEY, key->id, key->pool);
	}
}

static void release_slots(struct snapshot *s)
{
	for (size_t i = 0; s->stats && i < s->mappings.count; i++)
		stats_slot_release(s->stats, ((struct mapping *)s->mappings.items[i])->stats_slot);
	for (size_t i = 0; s->stats && i < s->keys.count; i++)
		stats_slot_release(s->stats, ((struct vendor_key *)s->keys.items[i])->stats_slot);
}

void snapshot_seal(struct snapshot *s, struct subjects *clients, struct subjects *users)
{
	list_sort(&s->mappings, compare_prefixes);
	list_sort(&s->keys, compare_key_ids);
	make_pools(s);
	for (size_t i = 0; i < s->mappings.count; i++) {
		struct mapping *mapping = s->mappings.items[i];
		mapping->pool = mapping->pool_name ? snapshot_pool(s, mapping->pool_name) : NULL;
	}
	make_routes(s);
	acquire_slots(s);
	s->clients = clients ? subjects_ref(clients) : NULL;
	s->users = users ? subjects_ref(users) : NULL;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
	__atomic_add_fetch(&s->references, 1, __ATOMIC_RELAXED);
	return s;
}

void snapshot_unref(struct snapshot *s)
{
	if (!s || __atomic_sub_fetch(&s->references, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	release_slots(s);
	subjects_unref(s->clients);
	subjects_unref(s->users);
	free(s->mappings.items);
	free(s->keys.items);
	free(s->pools.items);
	arena_free(s->arena);
	free(s);
}

/* ---- reading ---- */

static const struct mapping *find_route(const struct snapshot *s, const char *path, size_t length, uint64_t hash)
{
	for (size_t at = hash_place(hash, s->route_mask); s->routes[at]; at = (at + 1) & s->route_mask) {
		const struct mapping *mapping = s->routes[at];
		if (mapping->prefix_length == length && memcmp(mapping->prefix, path, length) == 0)
			return mapping;
	}
	return NULL;
}

const struct mapping *snapshot_route(const struct snapshot *s, const char *path, size_t length)
{
	struct {
		uint64_t hash;
		size_t length;
	} ends[RULES_PREFIX_CHARS_MAX / 2 + 2];
	size_t count = 0;
	uint64_t hash = HASH_START;
	for (size_t i = 0; i <= length && i <= RULES_PREFIX_CHARS_MAX; i++) {
		if (i && (i == length || path[i] == '/') && s->has_length[i]) {
			ends[count].hash = hash;
			ends[count++].length = i;
			if (count == sizeof(ends) / sizeof(*ends))
				break; /* more than a prefix can have segments: empty ones, which match nothing */
		}
		if (i < length)
			hash = hash_byte(hash, (unsigned char)path[i]);
	}
	while (count--) {
		const struct mapping *mapping = find_route(s, path, ends[count].length, ends[count].hash);
		if (mapping)
			return mapping->enabled ? mapping : NULL;
	}
	return NULL;
}

static int compare_pool_name(const void *name, const void *item)
{
	return strcmp(name, (*(const struct pool *const *)item)->name);
}

const struct pool *snapshot_pool(const struct snapshot *s, const char *name)
{
	if (!s->pools.count)
		return NULL;
	void **found = bsearch(name, s->pools.items, s->pools.count, sizeof(void *), compare_pool_name);
	return found ? *found : NULL;
}

const char *snapshot_jwt_secret(const struct snapshot *s)
{
	return s->jwt_secret;
}

size_t snapshot_mapping_count(const struct snapshot *s)
{
	return s->mappings.count;
}

const struct mapping *snapshot_mapping_at(const struct snapshot *s, size_t index)
{
	return s->mappings.items[index];
}

size_t snapshot_key_count(const struct snapshot *s)
{
	return s->keys.count;
}

const struct vendor_key *snapshot_key_at(const struct snapshot *s, size_t index)
{
	return s->keys.items[index];
}

static int compare_key_id(const void *id, const void *item)
{
	return strcmp(id, (*(const struct vendor_key *const *)item)->id);
}

size_t snapshot_key_index(const struct snapshot *s, const char *id)
{
	if (!s->keys.count)
		return SIZE_MAX;
	void **found = bsearch(id, s->keys.items, s->keys.count, sizeof(void *), compare_key_id);
	return found ? (size_t)(found - s->keys.items) : SIZE_MAX;
}
