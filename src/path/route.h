/* route: from the request target to where it goes. Pure: no state, any thread. */
#ifndef APIPROXY_PATH_ROUTE_H
#define APIPROXY_PATH_ROUTE_H

#include <stdbool.h>

#include "base/http1.h"

/* Splits a target in origin or absolute form (RFC 9112, 3.2.2: no user, a valid host and port). Spans point into it;
 * query has its "?", or is empty. */
bool route_split(struct http_span target, struct http_span *path, struct http_span *query)
	__attribute__((warn_unused_result)); /* false: neither form */

/* Has it a segment "." or "..", in whatever disguise? */
bool route_has_dot_segment(struct http_span path);

/* Is the path answered by apiproxy itself? */
bool route_is_reserved(struct http_span path);

#endif
