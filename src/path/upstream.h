/* upstream: connections to vendors (and to the control plane), and the ones kept for the next
 * request. One pool per worker; shared is that descriptors are short.
 *
 * A kept connection on which anything happens (the vendor closes it, or says something unasked) is
 * closed at once, so that what upstream_take() gives was open a moment ago. */
#ifndef APIPROXY_PATH_UPSTREAM_H
#define APIPROXY_PATH_UPSTREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io.h"

struct connection;
struct target;
struct upstream_group;
struct upstream_pool;

enum {
	UPSTREAM_IDLE_MAX = 2048,      /* kept connections of a worker; the oldest goes first */
	UPSTREAM_IDLE_SECONDS = 55,
};

struct upstream {
	struct io io;
	void (*on_event)(struct upstream *u, void *owner); /* readiness has changed; set by the owner */
	void *owner;
	bool reused;                   /* it has served a request before */
	/* private */
	struct upstream *newer, *older;
	struct upstream *group_next, *group_previous;
	struct upstream_group *group;
	uint64_t idle_since_ms;
};

struct upstream_pool *upstream_pool_new(struct loop *l);
void upstream_pool_free(struct upstream_pool *p); /* closes the kept ones; none may be in use */

/* A kept connection to the target, the one used last; NULL: none. */
struct upstream *upstream_take(struct upstream_pool *p, const struct target *target);
/* Makes an upstream of a new connection, which it owns then. NULL: no memory, the connection is closed. */
struct upstream *upstream_adopt(struct upstream_pool *p, const struct target *target, const struct connection *c);
void upstream_keep(struct upstream_pool *p, struct upstream *u);  /* the answer was read to its end */
void upstream_close(struct upstream_pool *p, struct upstream *u);
/* Closes it in the middle of a request: the vendor learns of it now, not behind what it has not read yet. */
void upstream_break_off(struct upstream_pool *p, struct upstream *u);
void upstream_make_room(void *pool); /* a descriptor is needed: the oldest kept one is closed, or some of others' */

#endif
