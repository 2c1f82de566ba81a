/* usage_memory: what decoders hold, all of the process together, bounded. A decoder's windows can be 16 MiB, and there
 * are as many decoders as compressed answers that pass by: who gets no more memory is not decoded.
 *
 * What is counted is what is resident: small blocks whole, large ones (which are mapped, and given back at once) as far
 * as they can have been written to. Any thread; one `usage_memory` belongs to one decoder. */
#ifndef APIPROXY_PATH_USAGE_MEMORY_H
#define APIPROXY_PATH_USAGE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { USAGE_MEMORY_MAX = 128 * 1024 * 1024 }; /* bytes, in the process */

struct usage_memory {
	size_t mapped;  /* in large blocks */
	size_t written; /* of these, as counted */
};

/* NULL: there is none, or no more for decoders. As the libraries want their allocators: `memory` is a usage_memory. */
void *usage_memory_take(void *memory, size_t size);
void usage_memory_give(void *memory, void *block); /* NULL is fine */

/* So many bytes at most were written to the large blocks. false: that is more than there is for all. */
bool usage_memory_note(struct usage_memory *m, uint64_t written) __attribute__((warn_unused_result));

size_t usage_memory_used(void); /* by all decoders */

#endif
