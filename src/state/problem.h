/* problem: every failure that apiproxy itself answers, one row each. */
#ifndef APIPROXY_STATE_PROBLEM_H
#define APIPROXY_STATE_PROBLEM_H

#include <stdint.h>

/*        id                    status  code                   default message */
#define PROBLEM_TABLE(X) \
	X(BAD_REQUEST,           400, "bad_request",         "The request is malformed.") \
	X(INVALID_CREDENTIALS,   401, "invalid_credentials", "The credential is missing, wrong or expired.") \
	X(NOT_ALLOWED,           403, "not_allowed",         "This credential may not use this mapping.") \
	X(NO_MAPPING,            404, "no_mapping",          "No mapping matches this path.") \
	X(METHOD_NOT_ALLOWED,    405, "method_not_allowed",  "This method is not allowed here.") \
	X(REQUEST_TIMEOUT,       408, "request_timeout",     "The request did not arrive in time.") \
	X(QUEUE_TIMEOUT,         408, "queue_timeout",       "The request waited too long in the queue.") \
	X(BODY_TOO_LARGE,        413, "body_too_large",      "The body is larger than this mapping allows.") \
	X(URI_TOO_LONG,          414, "head_too_large",      "The request line is longer than 32 KiB.") \
	X(HEAD_TOO_LARGE,        431, "head_too_large",      "The header fields are larger than 32 KiB or more than 200.") \
	X(CONCURRENCY_LIMIT,     429, "concurrency_limit",   "Too many requests at the same time.") \
	X(RATE_LIMIT,            429, "rate_limit",          "A limit per minute is reached.") \
	X(QUEUE_FULL,            429, "queue_full",          "The queue of this mapping is full.") \
	X(LOGIN_LIMIT,           429, "login_limit",         "Too many failed logins.") \
	X(UPSTREAM_RATE_LIMIT,   429, "upstream_rate_limit", "All vendor keys are at their limit.") \
	X(UPSTREAM_ERROR,        502, "upstream_error",      "The upstream could not be reached or broke off.") \
	X(NO_UPSTREAM_KEY,       503, "no_upstream_key",     "No usable vendor key.") \
	X(DRAINING,              503, "draining",            "This node is shutting down.") \
	X(REDIS_UNAVAILABLE,     503, "redis_unavailable",   "Redis is not available.") \
	X(OUT_OF_MEMORY,         503, "out_of_memory",       "Out of memory.") \
	X(UPSTREAM_TIMEOUT,      504, "upstream_timeout",    "The upstream did not answer in time.") \
	X(HTTP_VERSION,          505, "bad_request",         "Only HTTP/1.0 and HTTP/1.1 are spoken here.")

enum problem_id {
	PROBLEM_NONE,
#define X(id, status, code, message) PROBLEM_##id,
	PROBLEM_TABLE(X)
#undef X
	PROBLEM_COUNT
};

struct problem {
	uint16_t status;
	const char *code;
	const char *message;
};

extern const struct problem problem_table[PROBLEM_COUNT]; /* [PROBLEM_NONE] is empty */

#endif
