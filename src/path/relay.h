/* relay: one direction of an exchange's bytes: framing off at the source, framing on for the sink,
 * and what the sink has not taken yet. Zeroed memory is an empty relay. */
#ifndef APIPROXY_PATH_RELAY_H
#define APIPROXY_PATH_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/http1.h"

struct io;

struct relay {
	struct http_body body; /* framing at the source */
	struct buf pending;    /* framed for the sink, not yet taken by it */
	uint64_t bytes;        /* content passed on */
	uint64_t taken;        /* by the sink, framing included */
	bool chunked;          /* framing for the sink */
	bool finished;         /* nothing follows what is pending */
};

enum relay_result { RELAY_OK, RELAY_SINK_GONE, RELAY_NO_MEMORY };

/* Sends what is pending and `length` bytes of content behind it, in one system call where it can;
 * stores what the sink does not take. finish: nothing follows (ends chunked framing). */
enum relay_result relay_send(struct relay *r, struct io *sink, const char *content, size_t length, bool finish)
	__attribute__((warn_unused_result));

/* Stores framed content without sending. */
bool relay_store(struct relay *r, const char *content, size_t length, bool finish) __attribute__((warn_unused_result));

static inline bool relay_is_done(const struct relay *r)
{
	return r->finished && buf_length(&r->pending) == 0;
}

void relay_free(struct relay *r);

#endif
