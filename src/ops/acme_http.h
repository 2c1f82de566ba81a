/* acme_http: the plain-HTTP listener beside the front: answers ACME's http-01 challenges (RFC 8555
 * section 8.3) from files, redirects everything else to https, path and query as they are: 301 for
 * GET and HEAD, 308 for other methods, which keep theirs. */
#ifndef APIPROXY_OPS_ACME_HTTP_H
#define APIPROXY_OPS_ACME_HTTP_H

#include <stdbool.h>
#include <stdint.h>

struct acme_http;

/* listen: settings_parse_listen(). challenges: a directory with a file for each token. https_port:
 * named in redirects unless 443. host: for requests that name none. NULL: *why (caller frees). */
struct acme_http *acme_http_start(const char *listen, const char *challenges, uint16_t https_port,
	const char *host, char **why) __attribute__((warn_unused_result));
void acme_http_stop(struct acme_http *h); /* NULL is fine */

#endif
