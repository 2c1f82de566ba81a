/* tls_client: a TLS handshake with a vendor on a connected socket, on a worker's loop: base/tls with ALPN
 * http/1.1. Trusted are those in CURL_CA_BUNDLE too. All are read once, at the first handshake. */
#ifndef APIPROXY_PATH_TLS_CLIENT_H
#define APIPROXY_PATH_TLS_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io.h"

enum tls_outcome { TLS_DONE, TLS_FAILED, TLS_TIMED_OUT };

struct tls_handshake { /* embedded; zero it before the first start */
	/* Called from the loop, once, never from within tls_handshake_start(). TLS_DONE: *tls and the socket,
	 * no longer watched, are the receiver's; else both are gone and text says why. */
	void (*on_done)(struct tls_handshake *h, enum tls_outcome outcome, int fd, SSL *tls, const char *text);
	struct io io;              /* private from here on */
	struct loop *loop;
	struct loop_timer deadline;
};

/* Takes the socket, also when it fails (false: no memory, on_done is not called). host: a name or an address
 * without brackets, for the call. due_ms: on the loop's clock. */
bool tls_handshake_start(struct tls_handshake *h, struct loop *l, int fd, const char *host, uint64_t due_ms)
	__attribute__((warn_unused_result));
void tls_handshake_cancel(struct tls_handshake *h); /* closes the socket; fine where none is under way */

#endif
