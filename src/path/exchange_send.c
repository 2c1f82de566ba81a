/* exchange_send: the request goes out: a connection, the head, the body as it comes.
 *
 * What was read of the body is kept where it may have to be sent again: for another vendor key (up to
 * 1 MiB), and for an idempotent request on a connection that was kept and may have died (64 KiB).
 * At most PLANE_HELD_MAX bytes of the body wait for the upstream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "path/dialect.h"
#include "path/egress.h"
#include "path/exchange_state.h"
#include "path/identity.h"
#include "path/rewrite.h"

enum {
	READS_PER_TURN = 16,
	DEFAULT_CONNECT_MS = 10000,
	PATIENCE_MS = 1000, /* Expect: 100-continue */
};

static const struct target control_target = {
	.url = "",
	.host = "(control)",
	.authority = "apiproxy",
	.base_path = "",
};
static const char *const control_fields[] = {PLANE_PEER_FIELD, PLANE_LISTENER_FIELD, NULL};

static const struct target *target_of(const struct exchange *ex)
{
	return ex->internal ? &control_target : &ex->mapping->target;
}

static void on_upstream_event(struct upstream *u, void *owner)
{
	(void)u;
	exchange_wake(owner);
}

static void use_upstream(struct exchange *ex, struct upstream *u)
{
	u->on_event = on_upstream_event;
	u->owner = ex;
	ex->upstream = u;
}

void exchange_drop_upstream(struct exchange *ex, bool reusable)
{
	connector_cancel(ex->plane->connector, &ex->connecting);
	if (!ex->upstream)
		return;
	if (reusable)
		upstream_keep(ex->plane->upstreams, ex->upstream);
	else if (ex->down.body.done ||
		(ex->tunnel && !ex->client_gone)) /* it has answered: what is under way may arrive */
		upstream_close(ex->plane->upstreams, ex->upstream);
	else
		upstream_break_off(ex->plane->upstreams, ex->upstream);
	ex->upstream = NULL;
}

/* ---- connecting ---- */

static void on_connected(struct connect_job *job, enum connect_outcome outcome, const struct connection *c,
	const char *text)
{
	struct exchange *ex = container_of(job, struct exchange, connecting);
	ex->connect_done = true;
	ex->connect_outcome = outcome;
	if (outcome == CONNECT_DONE) {
		struct upstream *u = upstream_adopt(ex->plane->upstreams, target_of(ex), c);
		if (u)
			use_upstream(ex, u);
		else
			ex->connect_outcome = CONNECT_NO_MEMORY;
	} else {
		snprintf(ex->connect_error, sizeof ex->connect_error, "%s", text);
	}
	exchange_wake(ex);
}

static enum step connect_control(struct exchange *ex)
{
	struct connection c = {.fd = ex->plane->control_connect(ex->plane->control)};
	struct upstream *u = c.fd >= 0 ? upstream_adopt(ex->plane->upstreams, &control_target, &c) : NULL;
	if (!u)
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, "The control plane takes no connection.");
	use_upstream(ex, u);
	return STEP_STAY;
}

static enum step start_connecting(struct exchange *ex)
{
	ex->connecting.on_done = on_connected;
	ex->connect_done = false;
	uint64_t ms = ex->mapping->connect_timeout_ms ? ex->mapping->connect_timeout_ms : DEFAULT_CONNECT_MS;
	if (!connector_start(ex->plane->connector, &ex->connecting, &ex->mapping->target, ms))
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	return STEP_STAY;
}

static enum step connect_failed(struct exchange *ex)
{
	char text[160];
	if (ex->connect_outcome == CONNECT_NO_MEMORY) /* another key would not help, and this one is not to blame */
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	if (exchange_should_fail_over(ex, 0))
		return STEP_NEXT_KEY;
	snprintf(text, sizeof text, "The upstream could not be reached: %s.", ex->connect_error);
	return exchange_fail(ex,
		ex->connect_outcome == CONNECT_TIMED_OUT ? PROBLEM_UPSTREAM_TIMEOUT : PROBLEM_UPSTREAM_ERROR, text);
}

/* ---- the head ---- */

static void fill_internal(struct exchange *ex, struct rewrite_request *r, char *extra, size_t size)
{
	char peer[INET6_ADDRSTRLEN];
	snprintf(extra, size, PLANE_PEER_FIELD ": %s\r\n" PLANE_LISTENER_FIELD ": %s\r\n",
		front_peer_text(ex->front, peer), ex->front->ops ? "ops" : "main");
	r->extra = extra;
	r->private_fields = control_fields;
	r->rest = ex->path;
}

static void fill_managed(struct exchange *ex, struct rewrite_request *r, char *query)
{
	const struct mapping *m = ex->mapping;
	const struct vendor_key *key = ex->managed->admission.key;
	struct dialect_places drop = {0};
	if (m->auth_required || ex->managed->known)
		drop = dialect_all_places();
	else if (key)
		drop = dialect_places(m->dialect);
	r->drop_fields = drop.fields;
	if (drop.query && ex->query.length) {
		size_t length = identity_scrub_query(ex->query.at + 1, ex->query.length - 1, query + 1);
		query[0] = '?';
		if (length + 1 < ex->query.length) /* else nothing was taken out: also a bare "?" goes on */
			r->query = (struct http_span){query, length ? length + 1 : 0};
	}
	if (key) {
		r->key_field = m->key_header ? m->key_header : dialect_key_field(m->dialect);
		/* A field that the mapping names takes the bare key, unless it is Authorization by name. */
		r->key_prefix = http_span_is(r->key_field, strlen(r->key_field), "authorization") ? "Bearer " : "";
		r->key = key->secret;
	}
}

static bool write_head(struct exchange *ex, const char *length)
{
	const struct target *target = target_of(ex);
	char extra[128];
	char absolute[512] = "";
	char *query = NULL;
	struct rewrite_request r = {
		.head = ex->request,
		.authority = target->authority,
		.absolute_prefix = absolute,
		.base_path = target->base_path,
		.query = ex->query,
		.chunked = ex->up.chunked,
		.websocket = ex->websocket,
		.drop_expect = ex->told,
		.length = length,
	};
	if (ex->internal) {
		fill_internal(ex, &r, extra, sizeof extra);
	} else {
		struct egress_route egress = egress_route(target);
		r.rest = (struct http_span){ex->path.at + ex->mapping->prefix_length,
			ex->path.length - ex->mapping->prefix_length};
		if (egress.connect_url)
			snprintf(absolute, sizeof absolute, "http://%s", target->authority);
		r.proxy_authorization = egress.authorization;
	}
	if (ex->managed) {
		query = malloc(ex->query.length + 2);
		if (!query)
			return false;
		fill_managed(ex, &r, query);
	}
	bool fine = rewrite_request(&r, &ex->up.pending);
	free(query);
	return fine;
}

/* ---- the body ---- */

static void keep(struct exchange *ex, const char *content, size_t length)
{
	size_t most = ex->managed ? EXCHANGE_KEPT_MAX : PLANE_HELD_MAX;
	if (!ex->keeping || !length)
		return;
	if (buf_length(&ex->kept) + length <= most && buf_append(&ex->kept, content, length))
		return;
	ex->keeping = false;
	buf_free(&ex->kept);
}

size_t exchange_read_size(bool bulk, const struct io *sink)
{
	size_t size = PLANE_HELD_MAX;
	if (bulk)
		size += io_room(sink);
	return size < PLANE_BULK_MAX ? size : PLANE_BULK_MAX;
}

/* For what is collected before it is sent: no more than there is room for, or the next byte of the framing. */
static size_t collect_size(const struct exchange *ex)
{
	size_t room = EXCHANGE_KEPT_MAX - buf_length(&ex->kept);
	if (room > PLANE_HELD_MAX)
		return PLANE_HELD_MAX;
	return room ? room : 1;
}

/* What follows a body is the next request, and would be held: bulk is for lengths that are known. */
static size_t body_read_size(const struct exchange *ex)
{
	const struct http_body *body = &ex->up.body;
	if (!ex->upstream)
		return collect_size(ex);
	if (!ex->tunnel && (body->framing != HTTP_LENGTH || body->remaining <= PLANE_BULK_MAX))
		return PLANE_HELD_MAX;
	return exchange_read_size(ex->bulk_up, &ex->upstream->io);
}

/* Bytes of the client into the scratch memory: from what was read before, else from the socket. */
static enum step fill_scratch(struct exchange *ex, size_t *length)
{
	struct front *f = ex->front;
	size_t most = body_read_size(ex);
	*length = buf_length(&f->unread);
	if (*length) {
		*length = *length < most ? *length : most;
		memcpy(ex->plane->scratch, buf_bytes(&f->unread), *length);
		return STEP_STAY;
	}
	long count = f->io.readable ? io_read(&f->io, ex->plane->scratch, most) : IO_AGAIN;
	if (count > 0)
		*length = (size_t)count;
	ex->bulk_up = *length == most;
	if (count >= 0 || count == IO_AGAIN) {
		if (count == IO_END && ex->tunnel)
			ex->up.body.done = true;
		else if (count == IO_END)
			ex->client_gone = true;
		return ex->client_gone ? STEP_SETTLE : STEP_STAY;
	}
	ex->client_gone = true;
	return STEP_SETTLE;
}

enum step exchange_take_body(struct exchange *ex, char **content, size_t *length)
{
	struct front *f = ex->front;
	bool stored = buf_length(&f->unread) > 0;
	size_t count;
	size_t consumed;
	*length = 0;
	if (ex->up.body.done)
		return STEP_STAY;
	enum step next = fill_scratch(ex, &count);
	if (next != STEP_STAY || !count)
		return next;
	if (!http_body_decode(&ex->up.body, ex->plane->scratch, count, &consumed, content, length)) {
		ex->must_close = true;
		return exchange_fail(ex, PROBLEM_BAD_REQUEST, "The chunked body is malformed.");
	}
	ex->expects = false;
	if (stored)
		buf_consume(&f->unread, consumed);
	else if (!buf_append(&f->unread, ex->plane->scratch + consumed, count - consumed))
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	ex->body_bytes += *length;
	if (ex->mapping && ex->mapping->max_body_bytes && ex->body_bytes > ex->mapping->max_body_bytes)
		return exchange_fail(ex, PROBLEM_BODY_TOO_LARGE, NULL);
	keep(ex, *content, *length);
	return STEP_STAY;
}

bool exchange_has_more(const struct exchange *ex)
{
	return ex->front->io.readable || buf_length(&ex->front->unread);
}

/* Writes content behind what is pending. The upstream may take no more and still have an answer. */
static enum step pass_up(struct exchange *ex, const char *content, size_t length, bool finish)
{
	switch (relay_send(&ex->up, &ex->upstream->io, content, length, finish)) {
	case RELAY_SINK_GONE:
		ex->up_failed = true;
		buf_free(&ex->up.pending);
		return STEP_STAY;
	case RELAY_NO_MEMORY:
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	case RELAY_OK:
		break;
	}
	if (ex->tunnel && relay_is_done(&ex->up))
		io_shutdown_write(&ex->upstream->io);
	return STEP_STAY;
}

enum step exchange_pump_up(struct exchange *ex)
{
	for (int reads = 0; reads < READS_PER_TURN; reads++) {
		char *content = NULL;
		size_t length = 0;
		if (!ex->upstream || ex->up_failed || relay_is_done(&ex->up))
			return STEP_STAY;
		if (buf_length(&ex->up.pending)) {
			if (!ex->upstream->io.writable)
				return STEP_STAY;
			enum step next = pass_up(ex, NULL, 0, false);
			if (next != STEP_STAY || ex->up_failed || buf_length(&ex->up.pending))
				return next;
			if (ex->up.finished)
				return STEP_STAY;
		}
		enum step next = exchange_take_body(ex, &content, &length);
		if (next != STEP_STAY)
			return next;
		if (!length && !ex->up.body.done) { /* a whole read may have been framing */
			if (!exchange_has_more(ex))
				return STEP_STAY;
			continue;
		}
		next = pass_up(ex, content, length, ex->up.body.done);
		if (next != STEP_STAY)
			return next;
	}
	exchange_wake(ex);
	return STEP_STAY;
}

/* ---- the step ---- */

/* The time in the queue is nobody's fault (it is told in milliseconds, which may be one more than it was), and
 * that of the body's coming is the client's. */
static void count_overhead(struct exchange *ex)
{
	const struct managed *m = ex->managed;
	uint64_t so_far_us = clock_monotonic_us() - ex->begun_us;
	uint64_t waited_us = m ? m->admission.waited_ms * 1000 + m->body_waited_us : 0;
	ex->overhead_us += (uint32_t)(so_far_us > waited_us ? so_far_us - waited_us : 0);
}

/* Head, what was kept of the body and what has come of it since, in one write where they fit. */
static enum step send_first(struct exchange *ex)
{
	char *content = NULL;
	size_t length = 0;
	const char *new_length = ex->managed && *ex->managed->length ? ex->managed->length : NULL;
	ex->up.finished = false;
	ex->up.bytes = 0;
	if (!write_head(ex, new_length))
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	enum step next = STEP_STAY;
	if (buf_length(&ex->kept))
		next = pass_up(ex, buf_bytes(&ex->kept), buf_length(&ex->kept), ex->up.body.done);
	else if ((next = exchange_take_body(ex, &content, &length)) == STEP_STAY)
		next = pass_up(ex, content, length, ex->up.body.done);
	if (next != STEP_STAY)
		return next;
	if (!ex->sent_us)
		ex->sent_us = clock_monotonic_us();
	if (ex->expects)
		loop_timer_set(ex->plane->loop, &ex->patience, loop_now_ms(ex->plane->loop) + PATIENCE_MS);
	return STEP_RELAY;
}

enum step exchange_retry(struct exchange *ex)
{
	exchange_drop_upstream(ex, false);
	buf_free(&ex->up.pending);
	buf_free(&ex->partial);
	ex->connect_done = ex->up_failed = ex->heard = false;
	return STEP_SEND;
}

enum step step_send(struct exchange *ex)
{
	if (ex->timed_out)
		return exchange_fail(ex, PROBLEM_UPSTREAM_TIMEOUT, NULL);
	if (!connect_job_is_running(&ex->connecting) && exchange_key_is_void(ex)) {
		ex->managed->key_void = true; /* connecting has taken its time, or the request goes once more */
		return STEP_NEXT_KEY;
	}
	if (!ex->upstream) {
		if (ex->connect_done)
			return connect_failed(ex);
		if (connect_job_is_running(&ex->connecting))
			return STEP_STAY;
		if (!ex->sent_us && !ex->overhead_us) /* once, not for each key */
			count_overhead(ex);
		struct upstream *u = ex->resent ? NULL : upstream_take(ex->plane->upstreams, target_of(ex));
		if (u) {
			use_upstream(ex, u);
		} else {
			enum step next = ex->internal ? connect_control(ex) : start_connecting(ex);
			if (next != STEP_STAY || !ex->upstream)
				return next;
		}
	}
	return send_first(ex);
}
