/* exchange_reply: the answer comes back: heads as soon as they are there, content as it arrives.
 *
 * Reading stops while the client has not taken what it was given (back pressure); at most one read of
 * PLANE_HELD_MAX bytes waits for it. An upstream connection is given back as soon as the last byte of
 * the answer was read, not when the client has it. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "path/exchange_state.h"
#include "path/rewrite.h"
#include "state/settings.h"

enum {
	READS_PER_TURN = 16,
	HALF_TUNNEL_SECONDS = 5, /* with nothing more to pass on */
	STALL_MS = 60000,        /* without a byte of an answer of our own, or of a half-closed tunnel, being taken */
};

/* A vendor's answer has no time limit but its mapping's. */
static void watch_for_stall(struct exchange *ex, uint64_t taken_before)
{
	struct loop *loop = ex->plane->loop;
	if (!exchange_is_own(ex))
		return;
	if (!buf_length(&ex->down.pending))
		loop_timer_cancel(loop, &ex->deadline);
	else if (!ex->deadline.due_ms || ex->down.taken != taken_before)
		loop_timer_set(loop, &ex->deadline, loop_now_ms(loop) + STALL_MS);
}

static enum step pass_down(struct exchange *ex, const char *content, size_t length, bool finish)
{
	uint64_t taken_before = ex->down.taken;
	enum relay_result result = relay_send(&ex->down, &ex->front->io, content, length, finish);
	watch_for_stall(ex, taken_before);
	if (result == RELAY_OK)
		return STEP_STAY;
	ex->client_gone = result == RELAY_SINK_GONE;
	ex->broken = true;
	return STEP_SETTLE;
}

/* The last of the answer, or not yet. */
static enum step finish_down(struct exchange *ex, const char *content, size_t length, bool finish)
{
	if (finish)
		exchange_settle_early(ex);
	if (!ex->held_back)
		return pass_down(ex, content, length, finish);
	if (relay_store(&ex->down, content, length, finish))
		return STEP_STAY;
	ex->broken = true;
	return STEP_SETTLE;
}

static bool was_held_back(struct exchange *ex)
{
	bool held_back = ex->held_back;
	ex->held_back = false;
	return held_back;
}

enum step exchange_tell_continue(struct exchange *ex)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	ex->expects = false;
	if (ex->told || ex->began)
		return STEP_STAY;
	ex->told = true;
	if (!buf_append(&ex->down.pending, go_on, sizeof go_on - 1))
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	return pass_down(ex, NULL, 0, false);
}

/* ---- the head ---- */

static enum step open_tunnel(struct exchange *ex, const struct http_head *head)
{
	const struct http_field *to = http_find(head, HTTP_UPGRADE);
	if (!ex->websocket || (to && !http_span_is(to->value, to->value_length, "websocket")))
		return exchange_fail(ex, PROBLEM_UPSTREAM_ERROR, "The upstream switched protocols unasked.");
	ex->tunnel = true;
	ex->up.body = (struct http_body){.framing = HTTP_UNTIL_CLOSE};
	ex->down.body = (struct http_body){.framing = HTTP_UNTIL_CLOSE};
	ex->up.finished = ex->up.chunked = false;
	loop_timer_cancel(ex->plane->loop, &ex->deadline);
	return STEP_STAY;
}

static struct http_span value_of(const struct http_head *head, enum http_field_id id)
{
	const struct http_field *f = http_find(head, id);
	return f ? (struct http_span){f->value, f->value_length} : (struct http_span){"", 0};
}

/* How the body is framed for this client, and whether either connection lives on. */
static void choose_framing(struct exchange *ex, const struct http_head *head)
{
	uint8_t framing = ex->down.body.framing;
	bool unknown_length = framing == HTTP_CHUNKED || framing == HTTP_UNTIL_CLOSE;
	/* With both framings it may have ended elsewhere for whoever wrote it. */
	bool one_framing = framing != HTTP_CHUNKED || !http_find(head, HTTP_CONTENT_LENGTH);
	ex->reusable = framing != HTTP_UNTIL_CLOSE && one_framing &&
		(head->minor == 1 ? !http_connection_has(head, "close") : http_connection_has(head, "keep-alive"));
	ex->down.chunked = unknown_length && !ex->http10;
	if (unknown_length && ex->http10)
		ex->client_keeps = false;
	if (!ex->up.body.done || ex->plane->draining)
		ex->must_close = true;
}

struct rewrite_cors exchange_cors(const struct exchange *ex, char origin[EXCHANGE_ORIGIN_BYTES])
{
	const char *allowed = ex->plane->settings->server_cors_origins;
	const struct http_field *asked = ex->request ? http_find(ex->request, HTTP_ORIGIN) : NULL;
	if (!*allowed || strcmp(allowed, "*") == 0)
		return (struct rewrite_cors){.ours = *allowed, .origin = *allowed ? "*" : NULL};
	struct rewrite_cors cors = {.ours = true, .by_origin = true};
	if (!asked || asked->value_length >= EXCHANGE_ORIGIN_BYTES)
		return cors;
	memcpy(origin, asked->value, asked->value_length);
	origin[asked->value_length] = 0;
	cors.origin = http_list_has(allowed, strlen(allowed), origin) ? origin : NULL;
	return cors;
}

static bool write_head(struct exchange *ex, const struct http_head *head)
{
	char origin[EXCHANGE_ORIGIN_BYTES];
	struct buf extra = {0};
	bool close = ex->must_close || !ex->client_keeps;
	bool fine = exchange_admission_fields(ex, &extra) && (!buf_length(&extra) || buf_append(&extra, "", 1));
	struct rewrite_response r = {
		.head = head,
		.chunked = ex->down.chunked && !ex->tunnel,
		.drop_length = ex->down.body.framing == HTTP_CHUNKED,
		.websocket = ex->tunnel,
		.close = close && !ex->tunnel,
		.keep_alive = ex->http10 && !close,
		.cors = exchange_cors(ex, origin),
		.extra = buf_length(&extra) ? buf_bytes(&extra) : NULL,
	};
	fine = fine && rewrite_response(&r, &ex->down.pending);
	buf_free(&extra);
	return fine;
}

static void forget_request(struct exchange *ex)
{
	ex->keeping = false;
	buf_free(&ex->kept);
	if (plane_logs_access(ex->plane))
		return;
	free(ex->request);
	ex->request = NULL;
}

static enum step begin_answer(struct exchange *ex, const struct http_head *head)
{
	const char *fault = http_response_body(head, ex->head_method, &ex->down.body);
	if (fault)
		return exchange_fail(ex, PROBLEM_UPSTREAM_ERROR, fault);
	if (head->status == 101) {
		enum step next = open_tunnel(ex, head);
		if (next != STEP_STAY)
			return next;
		exchange_wake(ex); /* what the client has sent behind its handshake goes up */
	}
	choose_framing(ex, head);
	if (ex->tunnel)
		ex->down.chunked = ex->reusable = false;
	if (!write_head(ex, head))
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	/* A managed request is settled by what it used, whether figures are shown or not. */
	if (!ex->internal && !ex->tunnel && (ex->plane->settings->stats_enabled || ex->managed))
		ex->tap = usage_tap_new(value_of(head, HTTP_CONTENT_TYPE), value_of(head, HTTP_CONTENT_ENCODING));
	exchange_report_key(ex, head);
	exchange_drop_aside(ex);
	ex->began = true;
	ex->status = head->status;
	forget_request(ex);
	return STEP_STAY;
}

/* ---- content ---- */

static void release_upstream(struct exchange *ex, bool clean)
{
	bool reusable = ex->reusable && clean && relay_is_done(&ex->up) && !ex->up_failed;
	exchange_drop_upstream(ex, reusable);
}

static enum step take_content(struct exchange *ex, char *data, size_t length)
{
	size_t consumed;
	char *content;
	size_t content_length;
	bool fine = http_body_decode(&ex->down.body, data, length, &consumed, &content, &content_length);
	if (ex->tap && content_length)
		usage_tap_feed(ex->tap, content, content_length);
	bool finish = fine && ex->down.body.done;
	enum step next = finish_down(ex, content, content_length, finish);
	if (!fine)
		ex->broken = ex->down.finished = true;
	if (finish)
		release_upstream(ex, consumed == length);
	return next;
}

/* An answer that says nothing final: 100 goes to a client that waits for it, others go nowhere. */
static enum step take_interim(struct exchange *ex, unsigned status)
{
	return status == 100 && ex->expects ? exchange_tell_continue(ex) : STEP_STAY;
}

static enum step store_partial(struct exchange *ex, const char *data, size_t length)
{
	struct buf rest = {0};
	if (!buf_append(&rest, data, length))
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	buf_free(&ex->partial);
	ex->partial = rest;
	return STEP_STAY;
}

/* `data` is in the scratch memory or in ex->partial. */
static enum step take_head(struct exchange *ex, char *data, size_t length)
{
	struct http_head *head = &ex->plane->head;
	for (;;) {
		const char *reason = "The upstream's answer is malformed.";
		enum http_parse result = http_parse_response(head, data, length, &reason);
		if (result == HTTP_PARTIAL)
			return store_partial(ex, data, length);
		if (result != HTTP_COMPLETE)
			return exchange_fail(ex, PROBLEM_UPSTREAM_ERROR, reason);
		if (head->status >= 200 || head->status == 101)
			break;
		ex->heard = true;
		enum step next = take_interim(ex, head->status);
		if (next != STEP_STAY)
			return next;
		data += head->length;
		length -= head->length;
		if (!length) {
			buf_free(&ex->partial);
			return STEP_STAY;
		}
	}
	if (exchange_should_fail_over(ex, head->status)) {
		enum step next = store_partial(ex, data, length);
		return next == STEP_STAY ? STEP_NEXT_KEY : next;
	}
	uint64_t read_us = clock_monotonic_us();
	size_t head_length = head->length;
	enum step next = begin_answer(ex, head);
	if (next == STEP_STAY)
		next = take_content(ex, data + head_length, length - head_length);
	buf_free(&ex->partial);
	ex->answered_us = clock_monotonic_us();
	ex->overhead_us += (uint32_t)(ex->answered_us - read_us);
	return next;
}

static enum step take_bytes(struct exchange *ex, char *data, size_t length)
{
	if (ex->began)
		return take_content(ex, data, length);
	if (!buf_length(&ex->partial))
		return take_head(ex, data, length);
	if (!buf_append(&ex->partial, data, length))
		return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
	if (!memchr(data, '\n', length) && buf_length(&ex->partial) <= HTTP_LINE_MAX)
		return STEP_STAY; /* no line more than before */
	return take_head(ex, ex->partial.data + ex->partial.start, buf_length(&ex->partial));
}

/* ---- the end ---- */

static enum step upstream_ended(struct exchange *ex, bool clean)
{
	if (!ex->began) {
		bool nothing = !ex->heard && !buf_length(&ex->partial);
		if (nothing && ex->upstream->reused && ex->idempotent && ex->keeping && !ex->resent) {
			ex->resent = true;
			return exchange_retry(ex);
		}
		if (nothing && exchange_should_fail_over(ex, 0))
			return STEP_NEXT_KEY;
		if (ex->internal && !ex->up.body.done) /* the control plane waits for a body only so long */
			return exchange_fail(ex, PROBLEM_REQUEST_TIMEOUT, NULL);
		return exchange_fail(ex, PROBLEM_UPSTREAM_ERROR, "The upstream closed the connection before it answered.");
	}
	ex->down.body.done = ex->down.body.framing == HTTP_UNTIL_CLOSE && clean;
	exchange_drop_upstream(ex, false);
	if (ex->down.body.done)
		return finish_down(ex, NULL, 0, true);
	ex->broken = ex->down.finished = true;
	return STEP_STAY;
}

static enum step pump_down(struct exchange *ex)
{
	for (int reads = 0; reads < READS_PER_TURN; reads++) {
		enum step next;
		if (buf_length(&ex->down.pending)) {
			if (!ex->front->io.writable)
				return STEP_STAY;
			next = pass_down(ex, NULL, 0, false);
			if (next != STEP_STAY)
				return next;
			if (buf_length(&ex->down.pending))
				return STEP_STAY;
		}
		if (ex->down.finished)
			return STEP_SETTLE;
		if (!ex->upstream || !ex->upstream->io.readable)
			return STEP_STAY;
		size_t most = exchange_read_size(ex->bulk_down, &ex->front->io);
		long count = io_read(&ex->upstream->io, ex->plane->scratch, most);
		ex->bulk_down = ex->began && count == (long)most;
		if (count == IO_AGAIN)
			return STEP_STAY;
		next = count > 0 ? take_bytes(ex, ex->plane->scratch, (size_t)count) : upstream_ended(ex, count == IO_END);
		if (next != STEP_STAY || was_held_back(ex))
			return next;
	}
	exchange_wake(ex);
	return STEP_STAY;
}

/* A tunnel of which one end has closed goes on while bytes pass. Once there are no more it is over, whether the other
 * end has noticed or not; as long as some wait for a reader that pauses, it may pause as long as any of ours. The
 * kernel sends without a word: hence a look each second. */
static enum step end_half_a_tunnel(struct exchange *ex)
{
	if (!ex->front->io.hangup && ex->upstream && !ex->upstream->io.hangup)
		return STEP_STAY;
	uint64_t unsent = io_unsent(&ex->front->io) + (ex->upstream ? io_unsent(&ex->upstream->io) : 0);
	uint64_t passed = ex->up.taken + ex->down.taken - unsent;
	bool waits = unsent || buf_length(&ex->up.pending) || buf_length(&ex->down.pending);
	if (passed != ex->passed) {
		ex->quiet_seconds = 0;
	} else if (ex->impatient && ++ex->quiet_seconds >= (waits ? STALL_MS / 1000 : HALF_TUNNEL_SECONDS)) {
		ex->broken = ex->broken || buf_length(&ex->down.pending);
		return STEP_SETTLE;
	}
	if (passed != ex->passed || !ex->patience.due_ms)
		loop_timer_set(ex->plane->loop, &ex->patience, loop_now_ms(ex->plane->loop) + 1000);
	ex->impatient = false;
	ex->passed = passed;
	return STEP_STAY;
}

enum step step_relay(struct exchange *ex)
{
	enum step next = STEP_STAY;
	if (ex->timed_out)
		return exchange_fail(ex, PROBLEM_UPSTREAM_TIMEOUT, NULL);
	if (ex->reconsider) {
		ex->reconsider = false;
		next = take_head(ex, ex->partial.data + ex->partial.start, buf_length(&ex->partial));
		if (was_held_back(ex))
			return next;
	}
	if (next == STEP_STAY && ex->impatient && ex->expects)
		next = exchange_tell_continue(ex);
	if (next == STEP_STAY)
		next = exchange_pump_up(ex);
	if (next == STEP_STAY)
		next = pump_down(ex);
	return next == STEP_STAY && ex->tunnel ? end_half_a_tunnel(ex) : next;
}

enum step step_answer(struct exchange *ex)
{
	if (was_held_back(ex))
		return STEP_STAY;
	enum step next = pass_down(ex, NULL, 0, false);
	if (next != STEP_STAY)
		return next;
	return relay_is_done(&ex->down) ? STEP_SETTLE : STEP_STAY;
}
