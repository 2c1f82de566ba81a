/* arena: memory that is given back all at once. Blocks grow with use; what it hands out is zeroed,
 * aligned for anything, and lives until arena_free(). One thread at a time; dies when out of memory. */
#ifndef APIPROXY_BASE_ARENA_H
#define APIPROXY_BASE_ARENA_H

#include <stddef.h>

struct arena;

struct arena *arena_new(void);
void arena_free(struct arena *a); /* NULL is fine; contents are wiped first (secrets live there) */
void *arena_alloc(struct arena *a, size_t bytes) __attribute__((returns_nonnull));
char *arena_strdup(struct arena *a, const char *text) __attribute__((returns_nonnull));
char *arena_strndup(struct arena *a, const char *text, size_t length) __attribute__((returns_nonnull));

#endif
