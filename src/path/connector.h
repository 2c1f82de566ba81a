/* connector: from a target to a connection: names, both address families and egress proxies by libcurl
 * (CURLOPT_CONNECT_ONLY), TLS by tls_client. One per worker, on its loop. Where no descriptor is left, a job waits
 * for one, two seconds at most. */
#ifndef APIPROXY_PATH_CONNECTOR_H
#define APIPROXY_PATH_CONNECTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "path/tls_client.h"

struct target;
struct connector;

enum connect_outcome { CONNECT_DONE, CONNECT_FAILED, CONNECT_TIMED_OUT, CONNECT_NO_MEMORY };

struct connection {  /* the receiver's: to close and to free */
	int fd;
	SSL *tls;    /* NULL: plain */
};

struct connect_job { /* embedded; zeroed before its first use */
	/* Called from the loop, once, never from within connector_start(). text: why it failed. c: where it is done. */
	void (*on_done)(struct connect_job *job, enum connect_outcome outcome, const struct connection *c, const char *text);
	struct connector *connector;  /* private from here on */
	void *handle;
	struct loop_timer again;       /* it waits for a descriptor */
	const struct target *target;
	uint64_t due_ms, patient_until_ms;
	bool lacked;                   /* there was no descriptor for it */
	bool shaking;
	struct tls_handshake handshake;
};

/* Is it under way? */
static inline bool connect_job_is_running(const struct connect_job *job)
{
	return job->handle || job->shaking || job->again.due_ms;
}

/* make_room is called where a job lacks a descriptor: what is kept open without need may be closed. */
struct connector *connector_new(struct loop *l, void (*make_room)(void *context), void *context);
void connector_free(struct connector *c);

/* target must live until on_done or connector_cancel(). false: out of memory. */
bool connector_start(struct connector *c, struct connect_job *job, const struct target *target, uint64_t timeout_ms)
	__attribute__((warn_unused_result));
void connector_cancel(struct connector *c, struct connect_job *job); /* on_done will not be called */

#endif
