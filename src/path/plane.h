/* plane: what a request finds around it on its worker. All of it belongs to the worker's thread,
 * but what is const or said to be shared. */
#ifndef APIPROXY_PATH_PLANE_H
#define APIPROXY_PATH_PLANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/http1.h"
#include "base/loop.h"

struct admission;
struct connector;
struct front;
struct identity;
struct settings;
struct snapshot;
struct stats_ring;
struct upstream_pool;

enum {
	PLANE_HELD_MAX = 64 * 1024,     /* per direction and request */
	PLANE_BULK_MAX = 512 * 1024,    /* one read, where the kernel takes what goes beyond PLANE_HELD_MAX */
	PLANE_SCRATCH = PLANE_BULK_MAX,
};

/* What the control plane is told of a request, and no client can say. */
#define PLANE_PEER_FIELD "x-apiproxy-peer"
#define PLANE_LISTENER_FIELD "x-apiproxy-listener"

/* A snapshot and how many exchanges of this worker still read it. */
struct pinned_snapshot {
	struct snapshot *snapshot; /* this worker's reference */
	uint32_t users;            /* exchanges, and 1 while it is the current one */
};

struct plane {
	struct loop *loop;
	const struct settings *settings;
	struct pinned_snapshot *pin;       /* the current one, never NULL while serving */
	struct connector *connector;
	struct upstream_pool *upstreams;
	struct stats_ring *stats;
	struct identity *identity;
	struct admission *admission;
	int (*control_connect)(void *control); /* a socket to the control plane; shared */
	void *control;
	struct front *fronts;              /* all client connections */
	_Atomic uint32_t *connections;     /* of all workers, those on ops_listen left out; shared */
	uint32_t awaited_count;            /* exchanges under way that had begun before draining */
	bool draining;
	void (*on_less)(struct plane *p);  /* a client connection or an exchange has ended */
	/* Bytes just read live here until they are written or stored: quiet streams need no buffer. */
	char scratch[PLANE_SCRATCH];       /* its tail is touched by bulk alone */
	struct http_head head;             /* the head being looked at */
};

bool plane_logs_access(const struct plane *p); /* SIGHUP may change it */
struct pinned_snapshot *plane_pin(struct plane *p);
void plane_unpin(struct pinned_snapshot *pin);
void plane_publish(struct plane *p, struct snapshot *take_snapshot); /* the new current one */

#endif
