/* usage_memory: one counter for the process. A block has its size before it. */
#include "path/usage_memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { LARGE = 64 * 1024, STEP = 32 * 1024, HEAD = 16 };

static atomic_size_t used;

static bool count(size_t size)
{
	if (atomic_fetch_add_explicit(&used, size, memory_order_relaxed) + size <= USAGE_MEMORY_MAX)
		return true;
	atomic_fetch_sub_explicit(&used, size, memory_order_relaxed);
	return false;
}

static void uncount(size_t size)
{
	atomic_fetch_sub_explicit(&used, size, memory_order_relaxed);
}

size_t usage_memory_used(void)
{
	return atomic_load_explicit(&used, memory_order_relaxed);
}

static size_t *take_large(struct usage_memory *m, size_t size)
{
	void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (block == MAP_FAILED)
		return NULL;
	m->mapped += size;
	return block;
}

static size_t *take_small(size_t size)
{
	if (!count(size))
		return NULL;
	size_t *block = malloc(size);
	if (!block)
		uncount(size);
	return block;
}

void *usage_memory_take(void *memory, size_t size)
{
	if (size > SIZE_MAX - HEAD)
		return NULL;
	size += HEAD;
	size_t *block = size >= LARGE ? take_large(memory, size) : take_small(size);
	if (!block)
		return NULL;
	*block = size;
	return (char *)block + HEAD;
}

void usage_memory_give(void *memory, void *block)
{
	struct usage_memory *m = memory;
	if (!block)
		return;
	size_t *start = (size_t *)((char *)block - HEAD);
	size_t size = *start;
	if (size < LARGE) {
		free(start);
		uncount(size);
		return;
	}
	munmap(start, size);
	m->mapped -= size;
	if (m->written > m->mapped) {
		uncount(m->written - m->mapped);
		m->written = m->mapped;
	}
}

bool usage_memory_note(struct usage_memory *m, uint64_t written)
{
	if (written <= m->written || m->written == m->mapped)
		return true;
	uint64_t steps = (written / STEP + 1) * STEP;
	size_t whole = steps < m->mapped ? (size_t)steps : m->mapped;
	if (!count(whole - m->written))
		return false;
	m->written = whole;
	return true;
}
