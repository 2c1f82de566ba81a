/* io: reads and writes that keep track of readiness. Belongs to its loop's thread.
 *
 * A plain read that fills less than was asked for has emptied the socket: readable is cleared
 * without another call, unless the peer has closed, which only a read of 0 can tell. OpenSSL may
 * hold bytes of its own, so TLS reads go on until it asks for more. */
#include "base/io.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TLS_RECORD = 16 * 1024, PROBE_AFTER_SECONDS = 60, PROBE_EVERY_SECONDS = 10, PROBES = 6 };

bool io_open(struct io *io, struct loop *l, int fd, void (*on_event)(struct loop_watch *w, uint32_t events))
{
	*io = (struct io){.watch = {.fd = -1, .on_event = on_event}};
	return loop_watch_edge(l, &io->watch, fd);
}

void io_note(struct io *io, uint32_t events)
{
	if (events & EPOLLIN)
		io->readable = true;
	if (events & EPOLLOUT)
		io->writable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		io->hangup = io->readable = true;
	if (events & EPOLLERR || (events & EPOLLHUP && events & EPOLLRDHUP))
		io->dead = true;
	if (io->tls && events & (EPOLLIN | EPOLLOUT))
		io->readable = io->writable = true;
}

void io_close(struct io *io, struct loop *l)
{
	int fd = io->watch.fd;
	if (fd < 0)
		return;
	if (io->tls) {
		SSL_set_quiet_shutdown(io->tls, 1);
		SSL_free(io->tls);
		io->tls = NULL;
	}
	loop_unwatch(l, &io->watch);
	close(fd);
}

void io_set_reset_on_close(struct io *io)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	if (io->watch.fd >= 0)
		setsockopt(io->watch.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static long tls_result(struct io *io, int result, bool *wanted)
{
	switch (SSL_get_error(io->tls, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		*wanted = false;
		return IO_AGAIN;
	case SSL_ERROR_ZERO_RETURN:
		io->hangup = true;
		return IO_END;
	default:
		ERR_clear_error();
		io->hangup = io->dead = true;
		return IO_ERROR;
	}
}

static long tls_read(struct io *io, void *data, size_t length)
{
	ERR_clear_error();
	int count = SSL_read(io->tls, data, length > INT32_MAX ? INT32_MAX : (int)length);
	return count > 0 ? count : tls_result(io, count, &io->readable);
}

long io_read(struct io *io, void *data, size_t length)
{
	if (io->tls)
		return tls_read(io, data, length);
	ssize_t count;
	do
		count = recv(io->watch.fd, data, length, 0);
	while (count < 0 && errno == EINTR);
	if (count > 0) {
		if ((size_t)count < length && !io->hangup)
			io->readable = false;
		return count;
	}
	if (count == 0) {
		io->hangup = true;
		return IO_END;
	}
	if (errno == EAGAIN || errno == EWOULDBLOCK) {
		io->readable = false;
		return IO_AGAIN;
	}
	io->hangup = io->dead = true;
	return IO_ERROR;
}

bool io_has_hung_up(struct io *io)
{
	char byte;
	if (io->tls && io->readable && !io->hangup) {
		ERR_clear_error();
		int count = SSL_peek(io->tls, &byte, 1);
		if (count <= 0)
			tls_result(io, count, &io->readable);
	}
	return io->hangup;
}

/* One record from many parts: small parts sent alone would each become a record. A retry after
 * WANT_WRITE starts with the same bytes, which is what OpenSSL asks for. */
static long tls_write(struct io *io, const struct iovec *parts, int count)
{
	static __thread char record[TLS_RECORD];
	long written = 0;
	int part = 0;
	size_t offset = 0;
	while (part < count) {
		size_t length = 0;
		int p = part;
		size_t o = offset;
		while (p < count && length < sizeof record) {
			size_t take = parts[p].iov_len - o;
			if (take > sizeof record - length)
				take = sizeof record - length;
			memcpy(record + length, (const char *)parts[p].iov_base + o, take);
			length += take;
			o += take;
			if (o == parts[p].iov_len) {
				p++;
				o = 0;
			}
		}
		if (!length)
			break;
		ERR_clear_error();
		int sent = SSL_write(io->tls, record, (int)length);
		if (sent <= 0) {
			long result = tls_result(io, sent, &io->writable);
			if (written && result == IO_AGAIN)
				return written;
			return result == IO_END ? IO_ERROR : result;
		}
		written += sent;
		part = p;
		offset = o;
		if ((size_t)sent < length) /* not with whole records, but the interface allows it */
			return written;
	}
	return written;
}

static size_t total_length(const struct iovec *parts, int count)
{
	size_t length = 0;
	for (int i = 0; i < count; i++)
		length += parts[i].iov_len;
	return length;
}

long io_write(struct io *io, const struct iovec *parts, int count)
{
	if (io->tls)
		return tls_write(io, parts, count);
	struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
	ssize_t sent;
	do
		sent = sendmsg(io->watch.fd, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0) {
		if ((size_t)sent < total_length(parts, count))
			io->writable = false;
		return sent;
	}
	if (errno == EAGAIN || errno == EWOULDBLOCK) {
		io->writable = false;
		return IO_AGAIN;
	}
	io->hangup = io->dead = true;
	return IO_ERROR;
}

/* The kernel counts what buffers occupy, not what they hold: half of the free room is safe to fill. */
size_t io_room(const struct io *io)
{
	uint32_t memory[SK_MEMINFO_VARS];
	socklen_t length = sizeof memory;
	if (io->tls || getsockopt(io->watch.fd, SOL_SOCKET, SO_MEMINFO, memory, &length) != 0)
		return 0;
	uint32_t most = memory[SK_MEMINFO_SNDBUF];
	uint32_t queued = memory[SK_MEMINFO_WMEM_QUEUED];
	return queued < most ? (most - queued) / 2 : 0;
}

size_t io_unsent(const struct io *io)
{
	int bytes = 0;
	return io->watch.fd >= 0 && ioctl(io->watch.fd, SIOCOUTQNSD, &bytes) == 0 && bytes > 0 ? (size_t)bytes : 0;
}

int io_handshake(struct io *io)
{
	bool again = true;
	ERR_clear_error();
	int result = SSL_do_handshake(io->tls);
	if (result == 1)
		return 1;
	return tls_result(io, result, &again) == IO_AGAIN ? IO_AGAIN : IO_ERROR;
}

void io_shutdown_write(struct io *io)
{
	if (io->watch.fd < 0)
		return;
	if (io->tls) {
		ERR_clear_error();
		SSL_shutdown(io->tls);
	}
	shutdown(io->watch.fd, SHUT_WR);
}

void io_keep_alive(int fd)
{
	static const int on = 1, after = PROBE_AFTER_SECONDS, every = PROBE_EVERY_SECONDS, count = PROBES;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &after, sizeof after);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}
