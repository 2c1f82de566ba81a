/* dispatch: which handler answers a request of the control plane, and who may ask it.
 *
 * A pattern is a path whose last part may be "*" (the rest, one byte at least, slashes included) and
 * one of whose segments may be "{}" (any one segment). The first row that matches path and method wins.
 * In this order: no row for the path 404, no right to ask 401, no row for the method 405 with Allow.
 * HEAD is answered like GET; libmicrohttpd leaves the body out. */
#ifndef APIPROXY_ADMIN_DISPATCH_H
#define APIPROXY_ADMIN_DISPATCH_H

#include "admin/admin.h"

/* When a request needs no admin token; a sum. 0: it always does. */
enum dispatch_free {
	FREE_ALWAYS = 1,
	FREE_PUBLIC_STATS = 2, /* while server.public_stats is on */
	FREE_OPS = 4,          /* over ops_listen */
};

/* Where a handler runs: in libmicrohttpd's thread (must not block), or in a lane for what waits for
 * Redis, or in the lane for what computes password hashes. */
enum dispatch_lane { LANE_NONE, LANE_STORE, LANE_HASH };

struct dispatch_row {
	const char *method;
	const char *pattern;
	unsigned free;
	enum dispatch_lane lane;
	admin_handler *handler;
	size_t body_bytes_max; /* 0: a body is read and dropped */
};

/* The row for a request whose method and path are set, its tail set to malloc()ed text (the
 * caller frees it in any case); or NULL, and reply says why. authorization: the field's value or NULL.
 * method "HEAD" is replaced by "GET". */
const struct dispatch_row *dispatch_find(struct admin_request *request, const char *authorization,
					 struct admin_reply *reply) __attribute__((warn_unused_result));

#endif
