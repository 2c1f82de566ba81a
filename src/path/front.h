/* front: a client's connection, from accept to close: TLS handshake, heads one after the other, time
 * limits while no request is under way, lingering so that a last answer is read.
 * An exchange reads the request's body and writes the answer on front->io by itself. */
#ifndef APIPROXY_PATH_FRONT_H
#define APIPROXY_PATH_FRONT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/io.h"

struct exchange;
struct plane;
typedef struct ssl_ctx_st SSL_CTX;

enum front_state { FRONT_HANDSHAKE, FRONT_READING, FRONT_EXCHANGE, FRONT_LINGERING };

struct front {
	struct io io;
	struct plane *plane;
	struct front *next, *previous; /* plane->fronts */
	struct exchange *exchange;     /* in FRONT_EXCHANGE */
	struct buf unread;             /* bytes read and not used yet */
	struct loop_timer timer;
	struct in6_addr peer;          /* IPv4 as ::ffff:a.b.c.d */
	uint8_t state;                 /* enum front_state */
	bool ops;                      /* came in on ops_listen */
	bool begun;                    /* the first bytes of a head have come */
};

/* Takes the socket. tls: NULL for plain. */
void front_accept(struct plane *p, int fd, const struct sockaddr_storage *peer, SSL_CTX *tls, bool ops);

enum front_end {
	FRONT_KEEP,   /* ready for the next request */
	FRONT_CLOSE,  /* the answer is complete; the request may not be */
	FRONT_BREAK,  /* the answer is not complete: the client must notice */
};

/* The exchange is over; it no longer knows the front after this. */
void front_exchange_ended(struct front *f, enum front_end end);

/* "192.0.2.7" or "2001:db8::1". */
const char *front_peer_text(const struct front *f, char text[INET6_ADDRSTRLEN]);

void front_close(struct front *f); /* now, whatever it is doing; an exchange is aborted */

#endif
