/* dialect: what differs by vendor, a row of a table each: where the key goes, what an error looks
 * like, which fields tell a limit. So that the vendor's own SDK raises its usual exception.
 * Sources: the vendors' API references on errors and rate limits. Pure, any thread. */
#ifndef APIPROXY_PATH_DIALECT_H
#define APIPROXY_PATH_DIALECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "state/problem.h"
#include "state/snapshot.h"

/* The field that holds the vendor key, in lower case. */
const char *dialect_key_field(enum dialect_id dialect);

/* Where a vendor looks for a credential: beside ours none of the client's may be in any of these. */
struct dialect_places {
	uint32_t fields; /* a bit, 1 << id, for each enum http_field_id */
	bool query;      /* its key= */
};

struct dialect_places dialect_places(enum dialect_id dialect);
struct dialect_places dialect_all_places(void);

struct dialect_limit { /* what a refusal says of one window; limit 0: nothing */
	uint64_t limit;
	uint64_t remaining;
	uint64_t reset_ms;
};

struct dialect_refusal {
	enum problem_id problem;
	const char *message;         /* NULL: the problem's own */
	uint64_t retry_after_ms;     /* 0: not said */
	bool hopeless;               /* the same request will be refused whenever it comes */
	struct dialect_limit requests;
	struct dialect_limit input_tokens;
	struct dialect_limit output_tokens;
};

/* Appends the JSON body. false: no memory. */
bool dialect_error_body(enum dialect_id dialect, const struct dialect_refusal *r, struct buf *out)
	__attribute__((warn_unused_result));
/* Appends the fields that go with it (retry-after, the vendor's limit fields), each with CRLF. */
bool dialect_error_fields(enum dialect_id dialect, const struct dialect_refusal *r, struct buf *out)
	__attribute__((warn_unused_result));

/* Whole seconds, rounded up; at least 1. */
uint64_t dialect_retry_seconds(uint64_t retry_after_ms);

#endif
