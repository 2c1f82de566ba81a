/* arena: blocks in a list, the newest first; the newest one is filled from its start. */
#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { FIRST_BLOCK_BYTES = 4096, LARGEST_BLOCK_BYTES = 1 << 20, ALIGNMENT = 16 };

struct block {
	struct block *older;
	size_t used, size;
	unsigned char bytes[] __attribute__((aligned(16)));
};

struct arena {
	struct block *newest;
	size_t next_size;
};

struct arena *arena_new(void)
{
	struct arena *a = check_calloc(1, sizeof(*a));
	a->next_size = FIRST_BLOCK_BYTES;
	return a;
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	for (struct block *b = a->newest, *older; b; b = older) {
		older = b->older;
		explicit_bzero(b->bytes, b->used);
		free(b);
	}
	free(a);
}

static void add_block(struct arena *a, size_t bytes)
{
	size_t size = bytes > a->next_size ? bytes : a->next_size;
	struct block *b = check_calloc(1, sizeof(*b) + size);
	b->size = size;
	b->older = a->newest;
	a->newest = b;
	if (a->next_size < LARGEST_BLOCK_BYTES)
		a->next_size *= 2;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
	CHECK(bytes < SIZE_MAX / 2);
	bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	if (!a->newest || a->newest->size - a->newest->used < bytes)
		add_block(a, bytes);
	void *memory = a->newest->bytes + a->newest->used;
	a->newest->used += bytes;
	return memory;
}

char *arena_strndup(struct arena *a, const char *text, size_t length)
{
	char *copy = arena_alloc(a, length + 1);
	memcpy(copy, text, length);
	return copy;
}

char *arena_strdup(struct arena *a, const char *text)
{
	return arena_strndup(a, text, strlen(text));
}
