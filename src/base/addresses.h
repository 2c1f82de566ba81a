/* addresses: the addresses of a host name, as text, in the order in which they are to be tried: IPv4 first, as
 * redis-cli does, each kind in the resolver's order (RFC 6724). What connects to Redis goes through them until
 * one can be connected to, so that all of a process find the same Redis. */
#ifndef APIPROXY_BASE_ADDRESSES_H
#define APIPROXY_BASE_ADDRESSES_H

#include <stddef.h>

enum { ADDRESSES_MAX = 16, ADDRESSES_TEXT = 64 }; /* a name may have more: they are left out */

struct addresses {
	size_t count;
	char text[ADDRESSES_MAX][ADDRESSES_TEXT];
};

/* NULL, and at least one is found; or static text that says why there is none. Blocks unless the host is an address
 * itself. Any thread. */
const char *addresses_find(struct addresses *found, const char *host) __attribute__((warn_unused_result));

#endif
