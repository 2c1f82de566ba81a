/* redis_url: where a Redis is.
 *
 *   redis://[user][:password@]host[:port][/db]     rediss:// the same over TLS
 *   redis://:password@[::1]:6379/2                 unix://[user:password@]/path/to/socket[?db=2]
 *
 * Host defaults to 127.0.0.1, port to 6379, database to 0; also ?db=N. User, password and a unix
 * path are percent-decoded. Anything else is refused with a text that shows no password.
 * Source: the redis and rediss schemes as registered with IANA. */
#ifndef APIPROXY_STATE_REDIS_URL_H
#define APIPROXY_STATE_REDIS_URL_H

#include <stdbool.h>
#include <stdint.h>

struct redis_address {
	bool tls;
	char *unix_path; /* NULL: TCP */
	char *host;      /* no brackets; "" with a unix path */
	uint16_t port;
	char *user;      /* NULL: none (AUTH password) */
	char *password;  /* NULL: none (no AUTH) */
	unsigned db;
};

/* NULL: a is filled (redis_address_fini). Else what is wrong, a string that lives for ever. */
const char *redis_address_parse(const char *url, struct redis_address *a) __attribute__((warn_unused_result));
void redis_address_fini(struct redis_address *a);

/* For logs and --print-config: the URL with its password as ***. Caller frees. */
char *redis_url_without_password(const char *url);

#endif
