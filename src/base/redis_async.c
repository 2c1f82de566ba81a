/* redis_async: hiredis' asynchronous connection on our loop.
 *
 * Owns the connection, the calls under way (a list in the order they were sent, which is the order
 * of the answers) and the state: CONNECTING -> UP -> DOWN -> CONNECTING … Calls are written at the
 * end of the loop's turn, all of a turn in one write. Failing frees hiredis' context, which answers
 * whatever is under way with NULL. Thread: the loop's; a host name is looked up on one of its own,
 * which hands its result over through the loop's mailbox. */
#include "base/redis_async.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/epoll.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#include "base/addresses.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "base/tls.h"

enum {
	CONNECT_DEADLINE_MS = 1000,
	PROBE_PAUSE_MS = 250,
	IDLE_CHECK_MS = 1000,
	STEADY_MS = 250, /* a connection that lasted as long was a good one */
	CALL_BYTES_MAX = 1 << 20
};

enum state { DOWN, CONNECTING, UP };

struct call {
	struct call *next;
	struct redis_async *owner;
	uint64_t sent_ms;
	redis_async_answer *on_answer;
	void *argument;
	const struct redis_async_script *script;
	bool again;
	size_t length;
	char bytes[];
};

struct redis_async {
	struct loop *loop;
	uint64_t complained_ms; /* when an error that nobody waited for was last logged */
	uint64_t up_ms;         /* when it was last opened */
	struct redis_async_options options;
	char *unix_path, *host, *user, *password;
	redisAsyncContext *context;
	enum state state;
	bool failed_before; /* DOWN was reached: no first connecting any more */
	bool freeing;
	unsigned greetings; /* answers that the connection's opening still waits for */
	struct loop_watch watch;
	uint32_t events; /* what the watch is registered for */
	bool wants_write;
	struct loop_task flush;
	struct loop_timer deadline, probe; /* probe: when to connect again; while UP: when to look whether it lives */
	struct call *calls;
	struct call **calls_tail;
	SSL_CTX *tls;
	pthread_t resolver;
	bool resolving; /* addresses are the resolver's */
	struct addresses addresses;
	size_t address;    /* which of them is connected to */
	bool next_address; /* that one is to be tried, without looking the name up again */
};

static void fail(struct redis_async *r, const char *reason);
static void give_up_address(struct redis_async *r, const char *reason);

void redis_async_script_init(struct redis_async_script *script, const char *text, size_t length)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned size = 0;
	script->text = text;
	script->length = length;
	CHECK(EVP_Digest(text, length, digest, &size, EVP_sha1(), NULL) == 1 && size == 20);
	for (unsigned i = 0; i < size; i++)
		snprintf(script->sha1 + 2 * i, 3, "%02x", digest[i]);
}

/* ---- hiredis' wishes ---- */

static void arm(struct redis_async *r, uint32_t events)
{
	if (!r->context || r->events == events)
		return;
	if (loop_watch_level(r->loop, &r->watch, r->context->c.fd, events))
		r->events = events;
}

static void on_event(struct loop_watch *w, uint32_t events)
{
	struct redis_async *r = container_of(w, struct redis_async, watch);
	redisAsyncContext *context = r->context;
	if (context && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		redisAsyncHandleRead(context);
	if (r->context && r->context == context && events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		redisAsyncHandleWrite(context);
}

static void add_read(void *data)
{
	struct redis_async *r = data;
	arm(r, r->events | EPOLLIN);
}

static void del_read(void *data)
{
	struct redis_async *r = data;
	arm(r, r->events & ~(uint32_t)EPOLLIN);
}

/* Writing waits for the end of the turn; only what does not fit then, or is not connected, waits for
 * the socket. */
static void add_write(void *data)
{
	struct redis_async *r = data;
	if (r->wants_write)
		return;
	r->wants_write = true;
	if (r->context && r->context->c.flags & REDIS_CONNECTED)
		loop_defer(r->loop, &r->flush);
	else
		arm(r, r->events | EPOLLOUT);
}

static void del_write(void *data)
{
	struct redis_async *r = data;
	r->wants_write = false;
	arm(r, r->events & ~(uint32_t)EPOLLOUT);
}

void redis_async_flush(struct redis_async *r)
{
	/* In an answer's callback hiredis must not write: the end of the turn does, as add_write() has asked. */
	if (!r->context || !r->wants_write ||
		(r->context->c.flags & (REDIS_CONNECTED | REDIS_IN_CALLBACK)) != REDIS_CONNECTED)
		return;
	redisAsyncHandleWrite(r->context);
	if (r->context && r->wants_write)
		arm(r, r->events | EPOLLOUT);
}

static void run_flush(struct loop_task *t)
{
	redis_async_flush(container_of(t, struct redis_async, flush));
}

static void cleanup(void *data)
{
	struct redis_async *r = data;
	loop_unwatch(r->loop, &r->watch);
	r->events = 0;
	r->wants_write = false;
}

/* ---- calls ---- */

static void arm_deadline(struct redis_async *r)
{
	if (r->state == DOWN)
		return;
	if (r->calls)
		loop_timer_set(r->loop, &r->deadline, r->calls->sent_ms + r->options.deadline_ms);
	else if (r->state == UP)
		loop_timer_cancel(r->loop, &r->deadline);
}

static void append(struct redis_async *r, struct call *c)
{
	c->next = NULL;
	*r->calls_tail = c;
	r->calls_tail = &c->next;
}

static void on_reply(redisAsyncContext *context, void *reply, void *argument);

static bool send_again(struct redis_async *r, struct call *c)
{
	if (!r->context || c->again)
		return false;
	c->again = true;
	if (redisAsyncCommand(r->context, NULL, NULL, "SCRIPT LOAD %b", c->script->text, c->script->length) != REDIS_OK ||
		redisAsyncFormattedCommand(r->context, on_reply, c, c->bytes, c->length) != REDIS_OK)
		return false;
	append(r, c);
	return true;
}

/* Nobody waits for this answer, but an error must not vanish; one line a minute is enough. */
static void log_unheard_error(struct redis_async *r, const char *text)
{
	uint64_t now_ms = loop_now_ms(r->loop);
	if (r->complained_ms && now_ms - r->complained_ms < 60000)
		return;
	r->complained_ms = now_ms;
	log_warning("redis", "a script failed: %s", text);
}

static void on_reply(redisAsyncContext *context, void *data, void *argument)
{
	struct call *c = argument;
	struct redis_async *r = c->owner;
	redisReply *reply = data;
	(void)context;
	CHECK(r->calls == c);
	r->calls = c->next;
	if (!r->calls)
		r->calls_tail = &r->calls;
	bool forgotten = reply && reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOSCRIPT", 8) == 0;
	if (!(forgotten && send_again(r, c))) {
		if (c->on_answer)
			c->on_answer(c->argument, reply);
		else if (reply && reply->type == REDIS_REPLY_ERROR)
			log_unheard_error(r, reply->str);
		free(c);
	}
	arm_deadline(r);
}

static size_t put_count(char *out, char kind, size_t count)
{
	*out = kind;
	size_t length = 1 + buf_digits(out + 1, count);
	memcpy(out + length, "\r\n", 2);
	return length + 2;
}

static size_t put_part(char *out, const void *data, size_t length)
{
	size_t head = put_count(out, '$', length);
	memcpy(out + head, data, length);
	memcpy(out + head + length, "\r\n", 2);
	return head + length + 2;
}

static struct call *format_call(const struct redis_async_script *script, const struct redis_async_bytes *parts,
	size_t part_count, size_t key_count)
{
	size_t room = 160;
	for (size_t i = 0; i < part_count; i++)
		room += parts[i].length + 24;
	struct call *c = room > CALL_BYTES_MAX ? NULL : malloc(sizeof *c + room);
	if (!c)
		return NULL;
	memset(c, 0, sizeof *c);
	char count[24], *p = c->bytes;
	p += put_count(p, '*', part_count + 3);
	p += put_part(p, "EVALSHA", 7);
	p += put_part(p, script->sha1, 40);
	p += put_part(p, count, buf_digits(count, key_count));
	for (size_t i = 0; i < part_count; i++)
		p += put_part(p, parts[i].data, parts[i].length);
	*p = 0; /* hiredis looks for its marks with strchr() */
	c->length = (size_t)(p - c->bytes);
	c->script = script;
	return c;
}

bool redis_async_usable(const struct redis_async *r)
{
	return r->state == UP || (r->state == CONNECTING && !r->failed_before && r->context);
}

static struct call *send_call(struct redis_async *r, struct call *c)
{
	c->owner = r;
	c->sent_ms = loop_now_ms(r->loop);
	if (redisAsyncFormattedCommand(r->context, on_reply, c, c->bytes, c->length) != REDIS_OK) {
		free(c);
		return NULL;
	}
	append(r, c);
	if (r->calls == c)
		arm_deadline(r);
	return c;
}

/* A quiet connection is asked once a second, so that a Redis that hangs is known before it matters. */
static void check_idle(struct redis_async *r)
{
	static const char ping[] = "*1\r\n$4\r\nPING\r\n";
	struct call *c = r->calls ? NULL : calloc(1, sizeof *c + sizeof ping);
	if (c) {
		c->length = sizeof ping - 1;
		memcpy(c->bytes, ping, c->length);
		send_call(r, c);
	}
	loop_timer_set(r->loop, &r->probe, loop_now_ms(r->loop) + IDLE_CHECK_MS);
}

bool redis_async_call(struct redis_async *r, const struct redis_async_script *script,
	const struct redis_async_bytes *parts, size_t part_count, size_t key_count, redis_async_answer *on_answer,
	void *argument)
{
	if (!redis_async_usable(r))
		return false;
	struct call *c = format_call(script, parts, part_count, key_count);
	if (!c)
		return false;
	c->on_answer = on_answer;
	c->argument = argument;
	return send_call(r, c) != NULL;
}

/* A deadline is over, unless the answer is there already and this thread was late itself. */
static void on_deadline(struct loop_timer *t)
{
	struct redis_async *r = container_of(t, struct redis_async, deadline);
	for (int reads = 0; reads < 1000 && r->state == UP && r->calls; reads++) {
		struct pollfd p = {.fd = r->context->c.fd, .events = POLLIN};
		if (poll(&p, 1, 0) <= 0)
			break;
		redisAsyncHandleRead(r->context);
	}
	if (r->state == UP && (!r->calls || r->calls->sent_ms + r->options.deadline_ms > loop_now_ms(r->loop)))
		arm_deadline(r);
	else if (r->state == CONNECTING && r->context && !(r->context->c.flags & REDIS_CONNECTED))
		give_up_address(r, "no answer in time");
	else if (r->state != DOWN)
		fail(r, r->resolving ? "its host name is not found in time" : "no answer in time");
}

/* ---- opening and failing ---- */

static void change(struct redis_async *r, enum state state, const char *reason)
{
	bool was_known = r->state == UP || r->failed_before;
	bool up_before = r->state == UP;
	r->state = state;
	if (state == DOWN) {
		bool first = !r->failed_before || up_before;
		r->failed_before = true;
		if (first && !r->freeing && r->options.on_change)
			r->options.on_change(r->options.context, false, reason);
	} else if (state == UP) {
		r->failed_before = false;
		r->up_ms = loop_now_ms(r->loop);
		if (r->options.on_change)
			r->options.on_change(r->options.context, true, was_known ? "answers again" : "connected");
	}
}

static void fail(struct redis_async *r, const char *reason)
{
	redisAsyncContext *context = r->context;
	if (r->state == DOWN && !context)
		return;
	r->context = NULL;
	loop_timer_cancel(r->loop, &r->deadline);
	change(r, DOWN, reason);
	if (!r->freeing)
		loop_timer_set(r->loop, &r->probe, loop_now_ms(r->loop) + PROBE_PAUSE_MS);
	if (context)
		redisAsyncFree(context);
}

/* Nobody is there: the other addresses of the name come at once, before Redis counts as down. Where somebody is,
 * that is the one Redis, whatever it says: two callers must not end up with two. */
static void give_up_address(struct redis_async *r, const char *reason)
{
	redisAsyncContext *context = r->context;
	if (r->unix_path || r->address + 1 >= r->addresses.count) {
		fail(r, reason);
		return;
	}
	r->address++;
	r->next_address = true;
	r->context = NULL;
	loop_timer_cancel(r->loop, &r->deadline);
	loop_timer_set(r->loop, &r->probe, loop_now_ms(r->loop));
	if (context)
		redisAsyncFree(context);
}

/* The other side has ended a good connection, as a fail-over or a proxy between does: Redis may well be
 * there. So it is not down, and calls wait for the next connection as they do for the first one. */
static void reconnect(struct redis_async *r)
{
	log_warning("redis", "the connection ended: another one is opened");
	r->state = CONNECTING;
	loop_timer_cancel(r->loop, &r->deadline);
	loop_timer_set(r->loop, &r->probe, loop_now_ms(r->loop));
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
	struct redis_async *r = context->data;
	(void)status;
	if (r->context != context)
		return;
	r->context = NULL; /* hiredis frees it after this */
	if (r->state == UP && loop_now_ms(r->loop) - r->up_ms >= STEADY_MS)
		reconnect(r);
	else
		fail(r, "the connection ended");
}

static void on_greeting(redisAsyncContext *context, void *data, void *argument)
{
	struct redis_async *r = argument;
	redisReply *reply = data;
	if (r->context != context || r->state != CONNECTING)
		return;
	if (!reply || reply->type == REDIS_REPLY_ERROR) {
		char reason[160];
		snprintf(reason, sizeof reason, "refused: %.140s", reply ? reply->str : context->errstr);
		fail(r, reason);
	} else if (--r->greetings == 0) {
		change(r, UP, NULL);
		loop_timer_cancel(r->loop, &r->deadline);
		loop_timer_set(r->loop, &r->probe, loop_now_ms(r->loop) + IDLE_CHECK_MS);
		arm_deadline(r);
	}
}

static void on_connect(const redisAsyncContext *context, int status)
{
	struct redis_async *r = context->data;
	if (r->context != context || status == REDIS_OK)
		return;
	r->context = NULL; /* hiredis frees it after this */
	give_up_address(r, "cannot connect");
}

static void greet(struct redis_async *r, int sent)
{
	if (sent == REDIS_OK)
		r->greetings++;
}

static bool start_tls(struct redis_async *r)
{
	if (!r->tls)
		r->tls = tls_context_new();
	SSL *ssl = tls_session_new(r->tls, r->host);
	if (ssl && redisInitiateSSL(&r->context->c, ssl) == REDIS_OK)
		return true;
	SSL_free(ssl);
	return false;
}

static void open_connection(struct redis_async *r)
{
	r->next_address = false;
	r->context = r->unix_path ? redisAsyncConnectUnix(r->unix_path) :
								redisAsyncConnect(r->addresses.text[r->address], r->options.port);
	redisAsyncContext *c = r->context;
	if (!c || c->err) {
		give_up_address(r, "cannot connect");
		return;
	}
	c->data = c->ev.data = r;
	c->ev.addRead = add_read;
	c->ev.delRead = del_read;
	c->ev.addWrite = add_write;
	c->ev.delWrite = del_write;
	c->ev.cleanup = cleanup;
	r->greetings = 0;
	r->state = CONNECTING;
	if (r->options.tls && !start_tls(r)) { /* which finds out first that nobody is there */
		give_up_address(r, "cannot connect with TLS");
		return;
	}
	redisAsyncSetConnectCallback(c, on_connect);
	redisAsyncSetDisconnectCallback(c, on_disconnect);
	if (r->password && r->user)
		greet(r, redisAsyncCommand(c, on_greeting, r, "AUTH %s %s", r->user, r->password));
	else if (r->password)
		greet(r, redisAsyncCommand(c, on_greeting, r, "AUTH %s", r->password));
	if (r->options.db)
		greet(r, redisAsyncCommand(c, on_greeting, r, "SELECT %u", r->options.db));
	for (size_t i = 0; i < r->options.script_count; i++)
		greet(r,
			redisAsyncCommand(c, on_greeting, r, "SCRIPT LOAD %b", r->options.scripts[i].text,
				r->options.scripts[i].length));
	greet(r, redisAsyncCommand(c, on_greeting, r, "PING"));
	loop_timer_set(r->loop, &r->deadline, loop_now_ms(r->loop) + CONNECT_DEADLINE_MS);
}

static void open_first(struct redis_async *r, const char *fault)
{
	r->state = CONNECTING;
	r->address = 0;
	if (fault)
		fail(r, "its host name is not known");
	else
		open_connection(r);
}

static void on_resolved(void *argument)
{
	struct redis_async *r = argument;
	void *fault;
	pthread_join(r->resolver, &fault);
	r->resolving = false;
	open_first(r, fault);
}

static void *resolve(void *argument)
{
	struct redis_async *r = argument;
	const char *fault = addresses_find(&r->addresses, r->host);
	loop_post(r->loop, on_resolved, r);
	return (void *)(uintptr_t)fault;
}

static void connect_now(struct redis_async *r)
{
	r->state = CONNECTING;
	if (r->unix_path || r->next_address) {
		open_connection(r);
	} else if (text_is_ip_address(r->host)) {
		open_first(r, addresses_find(&r->addresses, r->host));
	} else {
		loop_timer_set(r->loop, &r->deadline, loop_now_ms(r->loop) + CONNECT_DEADLINE_MS);
		r->resolving = pthread_create(&r->resolver, NULL, resolve, r) == 0;
		if (!r->resolving)
			fail(r, "no thread to look its name up");
	}
}

static void on_probe(struct loop_timer *t)
{
	struct redis_async *r = container_of(t, struct redis_async, probe);
	if (r->state == UP)
		check_idle(r);
	else if (!r->context && !r->resolving)
		connect_now(r);
}

struct redis_async *redis_async_new(struct loop *l, const struct redis_async_options *options)
{
	struct redis_async *r = check_calloc(1, sizeof *r);
	r->loop = l;
	r->options = *options;
	r->unix_path = options->unix_path ? check_strdup(options->unix_path) : NULL;
	r->host = check_strdup(options->host ? options->host : "");
	r->user = options->user ? check_strdup(options->user) : NULL;
	r->password = options->password ? check_strdup(options->password) : NULL;
	r->watch = (struct loop_watch){.fd = -1, .on_event = on_event};
	r->flush.run = run_flush;
	r->deadline.on_due = on_deadline;
	r->probe.on_due = on_probe;
	r->calls_tail = &r->calls;
	connect_now(r);
	return r;
}

void redis_async_free(struct redis_async *r)
{
	if (!r)
		return;
	r->freeing = true;
	if (r->resolving)
		pthread_join(r->resolver, NULL);
	fail(r, "shutting down");
	loop_timer_cancel(r->loop, &r->probe);
	SSL_CTX_free(r->tls);
	free(r->unix_path);
	free(r->host);
	free(r->user);
	if (r->password)
		explicit_bzero(r->password, strlen(r->password));
	free(r->password);
	loop_free_later(r->loop, r);
}
