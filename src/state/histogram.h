/* histogram: how often which duration was seen, for percentiles.
 *
 * Log-linear: exact below 32 µs, then 32 equal steps in each power of two up to 2^36 µs (19 hours);
 * longer durations count as the longest. A percentile is the middle of its step, so it is off by at
 * most 1/64 (1.6 %). Steps of a power of two take memory (128 bytes) once one of them is used.
 * Not thread safe. Zeroed memory is an empty histogram. */
#ifndef APIPROXY_STATE_HISTOGRAM_H
#define APIPROXY_STATE_HISTOGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_STEPS = 32, HISTOGRAM_OCTAVES = 32, HISTOGRAM_CELLS = HISTOGRAM_STEPS * HISTOGRAM_OCTAVES };

struct histogram {
	uint64_t count;
	uint32_t *octaves[HISTOGRAM_OCTAVES]; /* NULL: all zero */
};

/* The cells that are not zero, in order: what a finished histogram needs at most. */
struct histogram_cell {
	uint32_t cell;
	uint32_t count;
};
struct histogram_packed {
	size_t length;
	struct histogram_cell *cells; /* NULL when length is 0 */
};

void histogram_fini(struct histogram *h); /* empty again, memory given back */

void histogram_record(struct histogram *h, uint64_t us);
void histogram_add(struct histogram *h, const struct histogram *other);

/* The duration that percent (0 to 100] of all are not above, in µs; 0 where there is none. */
uint64_t histogram_percentile(const struct histogram *h, double percent);

uint32_t histogram_cell_of(uint64_t us);
uint64_t histogram_cell_middle(uint32_t cell);

void histogram_pack(const struct histogram *h, struct histogram_packed *out); /* the caller's: histogram_packed_fini */
void histogram_packed_fini(struct histogram_packed *p);
void histogram_subtract(struct histogram *h, const struct histogram_packed *p); /* what was in h before */

/* "cell:count,cell:count" and back (added to h). Text from elsewhere: false where it is malformed. */
char *histogram_to_text(const struct histogram *h);
bool histogram_add_text(struct histogram *h, const char *text) __attribute__((warn_unused_result));

#endif
