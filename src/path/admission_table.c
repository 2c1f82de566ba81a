/* admission_table: names to items. Grows, never shrinks. Whoever holds the table's lock, or its
 * only thread. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "path/admission_internal.h"

static struct admission_item *find(const struct admission_table *t, const char *name, uint64_t hash)
{
	struct admission_item *item = t->size ? t->buckets[hash & (t->size - 1)] : NULL;
	while (item && (item->hash != hash || strcmp(item->name, name) != 0))
		item = item->next;
	return item;
}

struct admission_item *admission_table_find(const struct admission_table *t, const char *name)
{
	return find(t, name, hash_text(HASH_START, name));
}

static void grow(struct admission_table *t)
{
	size_t size = t->size ? t->size * 2 : 64;
	struct admission_item **buckets = check_calloc(size, sizeof *buckets);
	for (size_t b = 0; b < t->size; b++) {
		struct admission_item *next;
		for (struct admission_item *item = t->buckets[b]; item; item = next) {
			next = item->next;
			item->next = buckets[item->hash & (size - 1)];
			buckets[item->hash & (size - 1)] = item;
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->size = size;
}

struct admission_item *admission_table_get(struct admission_table *t, const char *name, size_t size)
{
	uint64_t hash = hash_text(HASH_START, name);
	struct admission_item *item = find(t, name, hash);
	if (item)
		return item;
	if (t->count >= t->size)
		grow(t);
	item = check_calloc(1, size);
	item->hash = hash;
	item->name = check_strdup(name);
	item->next = t->buckets[hash & (t->size - 1)];
	t->buckets[hash & (t->size - 1)] = item;
	t->count++;
	return item;
}

void admission_table_remove(struct admission_table *t, struct admission_item *item)
{
	struct admission_item **link = &t->buckets[item->hash & (t->size - 1)];
	while (*link != item)
		link = &(*link)->next;
	*link = item->next;
	t->count--;
	free(item->name);
	free(item);
}

void admission_table_fini(struct admission_table *t, void (*fini)(struct admission_item *item))
{
	for (size_t b = 0; b < t->size; b++)
		while (t->buckets[b]) {
			if (fini)
				fini(t->buckets[b]);
			admission_table_remove(t, t->buckets[b]);
		}
	free(t->buckets);
}
