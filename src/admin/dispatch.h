/* dispatch: which handler answers a request of the control plane, and who may ask it.
 *
 * A pattern is a path in which "{}" stands for one segment and a last "*" for the rest (one byte at
 * least, slashes included). The first row whose pattern matches decides which pattern it is; the row
 * of that pattern with the request's method, or with NULL, answers. In this order: no pattern 404,
 * no right to ask 401, no such method 405 with Allow, escapes that cannot be decoded 400.
 * HEAD is answered like GET; libmicrohttpd leaves the body out. Thread safe. */
#ifndef APIPROXY_ADMIN_DISPATCH_H
#define APIPROXY_ADMIN_DISPATCH_H

#include "admin/admin.h"

/* When a request needs no admin token; a sum. 0: it always does. */
enum dispatch_open {
	OPEN_ALWAYS = 1,
	OPEN_PUBLIC_STATS = 2, /* while server.public_stats is on */
	OPEN_OPS = 4,          /* over ops_listen */
};

/* Where a handler runs: LANE_NONE in libmicrohttpd's thread, it must not block; else in a thread of
 * that lane, so that slow logins or a Redis that hangs keep nobody waiting but their like. */
enum dispatch_lane { LANE_NONE, LANE_FIGURES, LANE_STORE, LANE_HASH, LANE_COUNT };

struct dispatch_row {
	const char *method;     /* NULL: any */
	const char *pattern;
	unsigned open_when;
	enum dispatch_lane lane;
	admin_handler *handler;
	int detail;
	size_t body_bytes_max;  /* 0: a body is read and dropped */
	bool is_page;           /* a browser asks: 401 is a page */
};

/* The row for a request whose admin, method, path and ops are set; or NULL, and reply says why.
 * Sets detail and, to malloc()ed text, tail (NULL before; free it in any case); "HEAD" becomes "GET".
 * authorization: the field's value or NULL. */
const struct dispatch_row *dispatch_find(struct admin_request *request, const char *authorization,
	struct admin_reply *reply) __attribute__((warn_unused_result));

#endif
