/* load_response: reads one answer after another off a connection, for load. Understands Content-Length
 * and chunked; bodies with a length are counted and thrown away, chunked ones are taken apart into the
 * events of vendor. A head is at most 4 KB, an event at most 512 bytes; anything else is a fault. */
#ifndef BENCH_LOAD_RESPONSE_H
#define BENCH_LOAD_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RESPONSE_HEAD_MAX = 4096, RESPONSE_EVENT_MAX = 512 };

enum response_progress { RESPONSE_MORE, RESPONSE_COMPLETE, RESPONSE_FAULT };

enum response_part { RESPONSE_HEAD, RESPONSE_BODY, RESPONSE_SIZE, RESPONSE_CHUNK, RESPONSE_CHUNK_END };

struct response {
	enum response_part part;
	int status;
	uint64_t left; /* of the body or the chunk */
	char *partial; /* a head or an event that has begun */
	size_t partial_length;
	void (*on_event)(void *context, const char *event); /* ends with a NUL */
	void *context;
};

/* bytes are writable and have room for one more behind length. */
enum response_progress response_feed(struct response *r, char *bytes, size_t length);

/* So that the next answer on the connection can be read; on_event and context stay. */
void response_reset(struct response *r);

#endif
