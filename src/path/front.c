/* front: reading heads. Belongs to its worker's thread. While an exchange is under way the front only
 * passes events on to it. A head usually comes in one read and is parsed where it was read; only
 * a partial one is stored. */
#include "path/front.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "path/exchange.h"
#include "path/plane.h"
#include "state/settings.h"
#include "state/stats.h"

enum { LINGER_MS = 2000 };

static void read_heads(struct front *f);

static void set_timer(struct front *f, uint64_t ms)
{
	loop_timer_set(f->plane->loop, &f->timer, loop_now_ms(f->plane->loop) + ms);
}

void front_close(struct front *f)
{
	struct plane *p = f->plane;
	if (f->exchange) { /* ends with front_exchange_ended(), which comes back here */
		exchange_abort(f->exchange);
		return;
	}
	*(f->previous ? &f->previous->next : &p->fronts) = f->next;
	if (f->next)
		f->next->previous = f->previous;
	if (!f->ops)
		(*p->connections)--;
	stats_connections(p->stats, -1);
	loop_timer_cancel(p->loop, &f->timer);
	buf_free(&f->unread);
	io_close(&f->io, p->loop);
	loop_free_later(p->loop, f);
	p->on_less(p);
}

/* The client may still be sending: closing now would reset the connection and lose our answer. */
static void linger(struct front *f)
{
	buf_free(&f->unread);
	io_shutdown_write(&f->io);
	f->state = FRONT_LINGERING;
	set_timer(f, LINGER_MS);
}

static void drain_lingering(struct front *f)
{
	long count;
	while (f->io.readable && (count = io_read(&f->io, f->plane->scratch, PLANE_HELD_MAX)) != IO_AGAIN) {
		if (count == IO_END || count == IO_ERROR) {
			front_close(f);
			return;
		}
	}
}

void front_exchange_ended(struct front *f, enum front_end end)
{
	f->exchange = NULL;
	f->begun = false;
	f->state = FRONT_READING;
	if (end == FRONT_KEEP && !f->io.dead) {
		set_timer(f, (uint64_t)f->plane->settings->server_idle_timeout_seconds * 1000);
		if (f->io.readable || buf_length(&f->unread))
			read_heads(f);
	} else if (end == FRONT_CLOSE && !f->io.dead) {
		linger(f);
		drain_lingering(f);
	} else {
		if (end == FRONT_BREAK)
			io_set_reset_on_close(&f->io);
		front_close(f);
	}
}

/* ---- heads ---- */

static void begin(struct front *f, struct exchange *ex)
{
	if (!ex) {
		front_close(f);
		return;
	}
	f->exchange = ex;
	f->state = FRONT_EXCHANGE;
	exchange_wake(ex);
}

static const enum problem_id parse_problems[] = {
	[HTTP_MALFORMED] = PROBLEM_BAD_REQUEST,
	[HTTP_LINE_TOO_LONG] = PROBLEM_URI_TOO_LONG,
	[HTTP_FIELDS_TOO_LARGE] = PROBLEM_HEAD_TOO_LARGE,
	[HTTP_VERSION_UNKNOWN] = PROBLEM_HTTP_VERSION,
};

/* true: more bytes are wanted. data is in the scratch memory or in front->unread. */
static bool parse_head(struct front *f, const char *data, size_t length, bool stored)
{
	struct plane *p = f->plane;
	const char *reason = NULL;
	enum http_parse result = http_parse_request(&p->head, data, length, &reason);
	if (result == HTTP_PARTIAL) {
		if (!f->begun)
			set_timer(f, (uint64_t)p->settings->server_header_timeout_seconds * 1000);
		f->begun = true;
		if (stored || buf_append(&f->unread, data, length))
			return true;
		front_close(f);
		return false;
	}
	if (result != HTTP_COMPLETE) {
		buf_free(&f->unread);
		begin(f, exchange_begin_refused(p, f, parse_problems[result], reason));
		return false;
	}
	if (!stored && !buf_append(&f->unread, data + p->head.length, length - p->head.length)) {
		front_close(f);
		return false;
	}
	struct exchange *ex = exchange_begin(p, f);
	if (stored)
		buf_consume(&f->unread, p->head.length);
	begin(f, ex);
	return false;
}

static void read_heads(struct front *f)
{
	struct plane *p = f->plane;
	bool more = true;
	if (buf_length(&f->unread) && !f->begun)
		more = parse_head(f, buf_bytes(&f->unread), buf_length(&f->unread), true);
	while (more && f->io.readable) {
		long count = io_read(&f->io, p->scratch, HTTP_HEAD_MAX);
		if (count == IO_AGAIN)
			return;
		if (count == IO_END || count == IO_ERROR) {
			front_close(f);
			return;
		}
		if (!buf_length(&f->unread)) {
			more = parse_head(f, p->scratch, (size_t)count, false);
		} else if (!buf_append(&f->unread, p->scratch, (size_t)count)) {
			front_close(f);
			return;
		} else if (memchr(p->scratch, '\n', (size_t)count) || buf_length(&f->unread) > HTTP_LINE_MAX) {
			more = parse_head(f, buf_bytes(&f->unread), buf_length(&f->unread), true);
		}
	}
}

/* ---- events ---- */

static void shake_hands(struct front *f)
{
	int result = io_handshake(&f->io);
	if (result == IO_ERROR) {
		front_close(f);
	} else if (result == 1) {
		f->state = FRONT_READING;
		read_heads(f);
	}
}

static void on_io_event(struct loop_watch *w, uint32_t events)
{
	struct front *f = container_of(container_of(w, struct io, watch), struct front, io);
	io_note(&f->io, events);
	switch ((enum front_state)f->state) {
	case FRONT_HANDSHAKE:
		shake_hands(f);
		break;
	case FRONT_READING:
		if (f->io.readable)
			read_heads(f);
		break;
	case FRONT_EXCHANGE:
		exchange_wake(f->exchange);
		break;
	case FRONT_LINGERING:
		drain_lingering(f);
		break;
	}
}

static void on_timer_due(struct loop_timer *t)
{
	struct front *f = container_of(t, struct front, timer);
	if (f->state == FRONT_EXCHANGE)
		return; /* set again when the exchange ends */
	if (f->state == FRONT_READING && f->begun) {
		buf_free(&f->unread);
		begin(f, exchange_begin_refused(f->plane, f, PROBLEM_REQUEST_TIMEOUT, NULL));
		return;
	}
	front_close(f);
}

static void note_peer(struct front *f, const struct sockaddr_storage *peer)
{
	if (peer->ss_family == AF_INET6) {
		f->peer = ((const struct sockaddr_in6 *)peer)->sin6_addr;
	} else {
		const struct in_addr *v4 = &((const struct sockaddr_in *)peer)->sin_addr;
		f->peer.s6_addr[10] = f->peer.s6_addr[11] = 0xff;
		memcpy(&f->peer.s6_addr[12], v4, 4);
	}
}

const char *front_peer_text(const struct front *f, char text[INET6_ADDRSTRLEN])
{
	if (IN6_IS_ADDR_V4MAPPED(&f->peer))
		return inet_ntop(AF_INET, &f->peer.s6_addr[12], text, INET6_ADDRSTRLEN);
	return inet_ntop(AF_INET6, &f->peer, text, INET6_ADDRSTRLEN);
}

static bool set_up_tls(struct front *f, SSL_CTX *context)
{
	f->io.tls = SSL_new(context);
	if (!f->io.tls || SSL_set_fd(f->io.tls, f->io.watch.fd) != 1)
		return false;
	SSL_set_accept_state(f->io.tls);
	f->state = FRONT_HANDSHAKE;
	return true;
}

void front_accept(struct plane *p, int fd, const struct sockaddr_storage *peer, SSL_CTX *tls, bool ops)
{
	int one = 1;
	struct front *f = calloc(1, sizeof *f);
	if (!f || !io_open(&f->io, p->loop, fd, on_io_event)) {
		free(f);
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	f->plane = p;
	f->io.writable = true;
	f->state = FRONT_READING;
	f->ops = ops;
	f->timer.on_due = on_timer_due;
	note_peer(f, peer);
	f->next = p->fronts;
	if (f->next)
		f->next->previous = f;
	p->fronts = f;
	if (!ops)
		(*p->connections)++;
	stats_connections(p->stats, 1);
	set_timer(f, (uint64_t)p->settings->server_header_timeout_seconds * 1000);
	if (tls && !set_up_tls(f, tls))
		front_close(f);
}
