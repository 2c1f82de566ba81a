/* redis_sync: hiredis, blocking, with deadlines. A connection is either fully ready (TLS, AUTH and
 * SELECT done) or not there. TLS sessions are made here because hiredis does not check host names. */
#include "state/redis_sync.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/ssl.h>

#include "base/addresses.h"
#include "base/check.h"
#include "base/tls.h"
#include "state/redis_url.h"

struct redis_sync {
	const struct redis_address *address;
	unsigned deadline_ms;
	redisContext *context; /* NULL: not connected */
	char error[256];
};

struct redis_sync *redis_sync_new(const struct redis_address *address, unsigned deadline_ms)
{
	struct redis_sync *r = check_calloc(1, sizeof(*r));
	r->address = address;
	r->deadline_ms = deadline_ms;
	return r;
}

void redis_sync_close(struct redis_sync *r)
{
	if (r->context)
		redisFree(r->context);
	r->context = NULL;
}

void redis_sync_free(struct redis_sync *r)
{
	if (r)
		redis_sync_close(r);
	free(r);
}

int redis_sync_fd(const struct redis_sync *r)
{
	return r->context ? r->context->fd : -1;
}

const char *redis_sync_error(const struct redis_sync *r)
{
	return r->error;
}

static struct timeval deadline(const struct redis_sync *r)
{
	return (struct timeval){.tv_sec = r->deadline_ms / 1000, .tv_usec = r->deadline_ms % 1000 * 1000};
}

void redis_sync_set_deadline(struct redis_sync *r, unsigned deadline_ms)
{
	r->deadline_ms = deadline_ms;
	if (r->context)
		redisSetTimeout(r->context, deadline(r));
}

static bool fail(struct redis_sync *r, const char *what)
{
	bool late = r->context && r->context->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
	if (late)
		snprintf(r->error, sizeof(r->error), "%s: no answer within %u ms", what, r->deadline_ms);
	else
		snprintf(r->error, sizeof(r->error), "%s: %s", what, r->context ? r->context->errstr : "out of memory");
	redis_sync_close(r);
	return false;
}

/* ---- TLS ---- */

static SSL_CTX *tls_context;

static void make_tls_context(void)
{
	tls_context = tls_context_new();
}

static bool secure(struct redis_sync *r)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, make_tls_context);
	SSL *ssl = tls_session_new(tls_context, r->address->host);
	if (!ssl) {
		snprintf(r->error, sizeof(r->error), "TLS cannot be set up");
		redis_sync_close(r);
		return false;
	}
	if (redisInitiateSSL(r->context, ssl) == REDIS_OK) /* owns ssl from now on */
		return true;
	long verified = SSL_get_verify_result(ssl);
	if (verified != X509_V_OK)
		snprintf(r->context->errstr, sizeof(r->context->errstr), "%s", X509_verify_cert_error_string(verified));
	bool result = fail(r, "TLS");
	SSL_free(ssl);
	return result;
}

/* ---- connecting ---- */

static bool expect_ok(struct redis_sync *r, const char *what, redisReply *take_reply)
{
	if (!take_reply)
		return fail(r, what);
	bool ok = take_reply->type != REDIS_REPLY_ERROR;
	if (!ok) {
		snprintf(r->error, sizeof(r->error), "%s: %s", what, take_reply->str);
		redis_sync_close(r);
	}
	freeReplyObject(take_reply);
	return ok;
}

static bool authenticate(struct redis_sync *r)
{
	const struct redis_address *a = r->address;
	if (!a->password)
		return true;
	return expect_ok(r, "AUTH",
		a->user ? redisCommand(r->context, "AUTH %s %s", a->user, a->password) :
				  redisCommand(r->context, "AUTH %s", a->password));
}

/* The first of the name's addresses where somebody is, or the last one's error. hiredis by itself tries one. */
static bool open_socket(struct redis_sync *r)
{
	const struct redis_address *a = r->address;
	struct addresses found;
	if (a->unix_path) {
		r->context = redisConnectUnixWithTimeout(a->unix_path, deadline(r));
		return (r->context && !r->context->err) || fail(r, "connect");
	}
	const char *fault = addresses_find(&found, a->host);
	if (fault) {
		snprintf(r->error, sizeof(r->error), "connect: %s", fault);
		return false;
	}
	for (size_t i = 0; i < found.count; i++) {
		r->context = redisConnectWithTimeout(found.text[i], a->port, deadline(r));
		if (r->context && !r->context->err)
			return true;
		fail(r, "connect");
	}
	return false;
}

static bool open_connection(struct redis_sync *r)
{
	const struct redis_address *a = r->address;
	if (!open_socket(r))
		return false;
	if (redisSetTimeout(r->context, deadline(r)) != REDIS_OK)
		return fail(r, "timeout");
	if (!a->unix_path)
		redisEnableKeepAlive(r->context);
	if (a->tls && !secure(r))
		return false;
	if (!authenticate(r))
		return false;
	return a->db == 0 || expect_ok(r, "SELECT", redisCommand(r->context, "SELECT %u", a->db));
}

/* A connection at rest has nothing to read, unless its other end is gone. */
static bool is_stale(const struct redis_sync *r)
{
	struct pollfd p = {.fd = r->context->fd, .events = POLLIN | POLLRDHUP};
	char byte;
	if (poll(&p, 1, 0) == 0)
		return false;
	if (p.revents & (POLLHUP | POLLERR | POLLRDHUP))
		return true;
	/* TLS may have sent a session ticket. */
	return !r->address->tls || recv(r->context->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

bool redis_sync_connect(struct redis_sync *r)
{
	if (r->context && is_stale(r))
		redis_sync_close(r);
	return r->context || open_connection(r);
}

/* ---- commands ---- */

bool redis_sync_append(struct redis_sync *r, const char *format, ...)
{
	va_list arguments;
	if (!r->context)
		return false;
	va_start(arguments, format);
	int result = redisvAppendCommand(r->context, format, arguments);
	va_end(arguments);
	return result == REDIS_OK || fail(r, "send");
}

bool redis_sync_append_argv(struct redis_sync *r, int count, const char **arguments, const size_t *lengths)
{
	if (!r->context)
		return false;
	return redisAppendCommandArgv(r->context, count, arguments, lengths) == REDIS_OK || fail(r, "send");
}

redisReply *redis_sync_read(struct redis_sync *r)
{
	void *reply = NULL;
	if (!r->context)
		return NULL;
	errno = 0;
	if (redisGetReply(r->context, &reply) != REDIS_OK || !reply)
		fail(r, "read");
	return reply;
}

redisReply *redis_sync_read_buffered(struct redis_sync *r)
{
	void *reply = NULL;
	struct pollfd p = {.fd = redis_sync_fd(r), .events = POLLIN};
	if (!r->context)
		return NULL;
	if (redisGetReplyFromReader(r->context, &reply) != REDIS_OK) {
		fail(r, "read");
		return NULL;
	}
	if (reply || poll(&p, 1, 0) != 1)
		return reply;
	errno = 0;
	if (redisBufferRead(r->context) != REDIS_OK || redisGetReplyFromReader(r->context, &reply) != REDIS_OK) {
		fail(r, "read");
		return NULL;
	}
	return reply;
}

redisReply *redis_sync_command(struct redis_sync *r, const char *format, ...)
{
	va_list arguments;
	if (!redis_sync_connect(r))
		return NULL;
	va_start(arguments, format);
	int result = redisvAppendCommand(r->context, format, arguments);
	va_end(arguments);
	if (result == REDIS_OK)
		return redis_sync_read(r);
	fail(r, "send");
	return NULL;
}
