/* io: a non-blocking connection, plain or TLS, registered once with the loop (edge triggered).
 *
 * `readable` and `writable` say that a call may succeed: set by events, cleared when a call finds
 * nothing. `hangup` says that the peer will send no more (FIN, RST or an error was seen); what it
 * sent before may still be read. */
#ifndef APIPROXY_BASE_IO_H
#define APIPROXY_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "base/loop.h"

typedef struct ssl_st SSL;

struct io {
	struct loop_watch watch; /* watch.fd: the socket, -1 = none */
	SSL *tls;                /* NULL: plain */
	bool readable;
	bool writable;
	bool hangup;
	bool dead; /* RST or an error was seen: writing is of no use */
};

enum { IO_END = 0, IO_AGAIN = -1, IO_ERROR = -2 };

/* Takes the socket. on_event gets what epoll says and hands it to io_note() before it looks at this io.
 * false: not registered, still the caller's. */
bool io_open(struct io *io, struct loop *l, int fd, void (*on_event)(struct loop_watch *w, uint32_t events))
	__attribute__((warn_unused_result));
void io_note(struct io *io, uint32_t events); /* stores the readiness that events tell of */
void io_close(struct io *io, struct loop *l);       /* frees tls, closes the socket; twice is fine */
void io_set_reset_on_close(struct io *io);          /* the peer shall see RST, not FIN */

long io_read(struct io *io, void *data, size_t length);             /* bytes, or IO_… */
long io_write(struct io *io, const struct iovec *parts, int count); /* bytes, or IO_AGAIN, IO_ERROR */
/* hangup, also where the peer says it inside of TLS (close_notify) and no event tells: looks for it behind
 * what was read, and reads nothing. */
bool io_has_hung_up(struct io *io);
/* How many bytes the kernel would take now, at least; 0 where it does not say (TLS). */
size_t io_room(const struct io *io);
/* How many bytes the kernel has taken and could not send yet: a FIN would wait behind them. */
size_t io_unsent(const struct io *io);
int io_handshake(struct io *io); /* TLS, either side: 1 done, IO_AGAIN, IO_ERROR */
void io_shutdown_write(struct io *io); /* close_notify where TLS, then FIN */

/* TCP asks a peer of whom nothing was heard for 60 s, every 10 s, six times: one that vanished counts as gone
 * after two minutes. What a listening socket accepts inherits it. */
void io_keep_alive(int fd);

#endif
