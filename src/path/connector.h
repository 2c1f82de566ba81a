/* connector: from a target to a connected socket, by libcurl (CURLOPT_CONNECT_ONLY): names, both
 * address families, TLS that is always verified, egress proxies. One per worker, on its loop.
 *
 * Trusted are the system's certificate authorities (or those that SSL_CERT_FILE and SSL_CERT_DIR name
 * in their place, as for OpenSSL), and those in CURL_CA_BUNDLE. */
#ifndef APIPROXY_PATH_CONNECTOR_H
#define APIPROXY_PATH_CONNECTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"

typedef struct ssl_st SSL;
struct target;
struct connector;

enum connect_outcome { CONNECT_DONE, CONNECT_FAILED, CONNECT_TIMED_OUT };

struct connection {
	void *handle; /* plain: NULL. TLS: libcurl's, which owns the SSL: first give it to connector_release() */
	SSL *tls;     /* borrowed of handle */
	int fd;       /* the receiver's to close */
};

struct connect_job {
	/* Called from the loop, once, never from within connector_start(). text: why it failed. */
	void (*on_done)(struct connect_job *job, enum connect_outcome outcome, const struct connection *c, const char *text);
	void *handle; /* private; NULL: not under way */
	SSL *tls;     /* private */
};

struct connector *connector_new(struct loop *l);
void connector_free(struct connector *c);

/* false: out of memory. */
bool connector_start(struct connector *c, struct connect_job *job, const struct target *target, uint64_t timeout_ms)
	__attribute__((warn_unused_result));
void connector_cancel(struct connector *c, struct connect_job *job); /* on_done will not be called */
void connector_release(struct connector *c, void *handle);

#endif
