/* egress: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY (also in lower case), read once at start.
 *
 * https targets go through a CONNECT tunnel, which libcurl makes; plain http targets are asked for
 * in absolute form at an http:// proxy, as curl does; socks proxies are libcurl's for both.
 * NO_PROXY: a comma or space list of names (with their subdomains, with or without a leading dot),
 * addresses, CIDR blocks, or `*`; with ":PORT" behind it, for that port alone.
 * A bad proxy URL stops the start; so does https://, which would need TLS in TLS. */
#ifndef APIPROXY_PATH_EGRESS_H
#define APIPROXY_PATH_EGRESS_H

#include <stdbool.h>

struct target;

struct egress_route {
	const char *curl_proxy;    /* for CURLOPT_PROXY; NULL: none */
	const char *connect_url;   /* connect here and ask in absolute form; NULL: the target itself */
	const char *authorization; /* value of Proxy-Authorization in absolute form; NULL: none */
};

/* false: said in one line on stderr that names the variable, its value and what is accepted. */
bool egress_init(void) __attribute__((warn_unused_result));
void egress_fini(void);

/* Any thread after egress_init(). Borrowed strings live until egress_fini(). */
struct egress_route egress_route(const struct target *target);

#endif
