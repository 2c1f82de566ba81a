/* histogram: cells of a log-linear scale. Invariant: count is the sum of all cells; a cell that
 * would pass 32 bits stays at their end and the sum with it. No thread of its own. */
#include "state/histogram.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { STEP_BITS = 5 };
_Static_assert(1 << STEP_BITS == HISTOGRAM_STEPS, "steps are a power of two");

uint32_t histogram_cell_of(uint64_t us)
{
	if (us < HISTOGRAM_STEPS)
		return (uint32_t)us;
	unsigned exponent = 63 - (unsigned)__builtin_clzll(us);
	unsigned octave = exponent - STEP_BITS + 1;
	if (octave >= HISTOGRAM_OCTAVES)
		return HISTOGRAM_CELLS - 1;
	return octave * HISTOGRAM_STEPS + ((uint32_t)(us >> (exponent - STEP_BITS)) & (HISTOGRAM_STEPS - 1));
}

uint64_t histogram_cell_middle(uint32_t cell)
{
	unsigned octave = cell / HISTOGRAM_STEPS;
	if (octave == 0)
		return cell;
	uint64_t width = UINT64_C(1) << (octave - 1);
	return (HISTOGRAM_STEPS + cell % HISTOGRAM_STEPS) * width + width / 2;
}

void histogram_fini(struct histogram *h)
{
	for (size_t i = 0; i < HISTOGRAM_OCTAVES; i++)
		free(h->octaves[i]);
	memset(h, 0, sizeof *h);
}

static void add_cell(struct histogram *h, uint32_t cell, uint32_t count)
{
	if (cell >= HISTOGRAM_CELLS || count == 0)
		return;
	uint32_t **octave = &h->octaves[cell / HISTOGRAM_STEPS];
	if (!*octave)
		*octave = check_calloc(HISTOGRAM_STEPS, sizeof **octave);
	uint32_t *counter = &(*octave)[cell % HISTOGRAM_STEPS];
	uint32_t room = UINT32_MAX - *counter;
	if (count > room)
		count = room;
	*counter += count;
	h->count += count;
}

void histogram_record(struct histogram *h, uint64_t us)
{
	add_cell(h, histogram_cell_of(us), 1);
}

void histogram_add(struct histogram *h, const struct histogram *other)
{
	for (uint32_t cell = 0; cell < HISTOGRAM_CELLS; cell++) {
		const uint32_t *octave = other->octaves[cell / HISTOGRAM_STEPS];
		if (octave)
			add_cell(h, cell, octave[cell % HISTOGRAM_STEPS]);
		else
			cell += HISTOGRAM_STEPS - 1;
	}
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
	if (h->count == 0)
		return 0;
	uint64_t rank = (uint64_t)ceil(percent / 100.0 * (double)h->count);
	if (rank < 1)
		rank = 1;
	if (rank > h->count)
		rank = h->count;
	uint64_t seen = 0;
	for (uint32_t cell = 0; cell < HISTOGRAM_CELLS; cell++) {
		const uint32_t *octave = h->octaves[cell / HISTOGRAM_STEPS];
		if (octave)
			seen += octave[cell % HISTOGRAM_STEPS];
		else
			cell += HISTOGRAM_STEPS - 1;
		if (seen >= rank)
			return histogram_cell_middle(cell);
	}
	check_failed(__FILE__, __LINE__, "count is the sum of all cells");
}

static size_t cells_in_use(const struct histogram *h)
{
	size_t used = 0;
	for (size_t octave = 0; octave < HISTOGRAM_OCTAVES; octave++)
		for (size_t step = 0; h->octaves[octave] && step < HISTOGRAM_STEPS; step++)
			used += h->octaves[octave][step] > 0;
	return used;
}

void histogram_pack(const struct histogram *h, struct histogram_packed *out)
{
	out->length = 0;
	out->cells = NULL;
	size_t used = cells_in_use(h);
	if (used == 0)
		return;
	out->cells = check_calloc(used, sizeof *out->cells);
	for (uint32_t cell = 0; cell < HISTOGRAM_CELLS; cell++) {
		const uint32_t *octave = h->octaves[cell / HISTOGRAM_STEPS];
		if (octave && octave[cell % HISTOGRAM_STEPS])
			out->cells[out->length++] = (struct histogram_cell){cell, octave[cell % HISTOGRAM_STEPS]};
	}
}

void histogram_packed_fini(struct histogram_packed *p)
{
	free(p->cells);
	p->cells = NULL;
	p->length = 0;
}

void histogram_subtract(struct histogram *h, const struct histogram_packed *p)
{
	for (size_t i = 0; i < p->length; i++) {
		uint32_t *octave = h->octaves[p->cells[i].cell / HISTOGRAM_STEPS];
		CHECK(octave && octave[p->cells[i].cell % HISTOGRAM_STEPS] >= p->cells[i].count);
		octave[p->cells[i].cell % HISTOGRAM_STEPS] -= p->cells[i].count;
		h->count -= p->cells[i].count;
	}
}

char *histogram_to_text(const struct histogram *h)
{
	struct histogram_packed packed;
	char *text = NULL;
	size_t length;
	histogram_pack(h, &packed);
	FILE *out = open_memstream(&text, &length);
	CHECK(out);
	for (size_t i = 0; i < packed.length; i++)
		fprintf(out, "%s%u:%u", i ? "," : "", packed.cells[i].cell, packed.cells[i].count);
	fclose(out);
	CHECK(text);
	histogram_packed_fini(&packed);
	return text;
}

bool histogram_add_text(struct histogram *h, const char *text)
{
	while (*text) {
		unsigned cell, count;
		int used = 0;
		if (sscanf(text, "%5u:%10u%n", &cell, &count, &used) != 2 || cell >= HISTOGRAM_CELLS)
			return false;
		add_cell(h, cell, count);
		text += used;
		if (*text == ',')
			text++;
		else if (*text)
			return false;
	}
	return true;
}
