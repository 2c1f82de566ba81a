/* exchange: the story of a request.
 *
 *     route → identify → collect → admit → send → relay → settle
 *                                   ↑___ next key ___|   (before the first byte to the client only)
 *     any step → answer (a problem) → settle
 *
 * A step returns the next one, or STEP_STAY to be run again at the next wake-up. Callbacks of libraries
 * and sockets only note what happened and wake: steps run from the loop's task alone, at the end of a
 * turn, so no step is ever entered from inside another. enter() is the only place where ex->step is
 * written. Memory goes at the end of the turn in which the exchange ends. */
#include "path/exchange.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "path/dialect.h"
#include "path/exchange_state.h"
#include "path/rewrite.h"
#include "path/route.h"
#include "state/journal.h"
#include "state/settings.h"
#include "state/stats.h"

static enum step step_route(struct exchange *ex);
static enum step step_settle(struct exchange *ex);

struct step_row {
	const char *name;
	enum step (*run)(struct exchange *ex);
	bool needs_client; /* a client that hangs up ends it */
};

static const struct step_row steps[] = {
	[STEP_ROUTE] = {"route", step_route, false},
	[STEP_IDENTIFY] = {"identify", step_identify, true},
	[STEP_COLLECT] = {"collect", step_collect, true},
	[STEP_ADMIT] = {"admit", step_admit, true},
	[STEP_SEND] = {"send", step_send, true},
	[STEP_RELAY] = {"relay", step_relay, true},
	[STEP_NEXT_KEY] = {"next key", step_next_key, true},
	[STEP_ANSWER] = {"answer", step_answer, true},
	[STEP_SETTLE] = {"settle", step_settle, false},
};

static void enter(struct exchange *ex, enum step step)
{
	log_debug("exchange", "%p %s -> %s", (void *)ex, steps[ex->step].name,
		step == STEP_END ? "end" : steps[step].name);
	ex->step = (int8_t)step;
}

/* FIN counts as RST does, as with nginx, where a vendor would go on working for nobody. Answers of our own are short:
 * who has said all gets them, unless nothing of them is taken for long. A tunnel has two ends that close by themselves. */
static bool client_has_gone(const struct exchange *ex)
{
	if (ex->client_gone || ex->front->io.dead)
		return true;
	if (exchange_is_own(ex))
		return ex->timed_out;
	return !ex->tunnel && io_has_hung_up(&ex->front->io);
}

static void dispose(struct exchange *ex)
{
	ex->magic = 0;
	loop_free_later(ex->plane->loop, ex);
}

static void run(struct loop_task *task)
{
	struct exchange *ex = container_of(task, struct exchange, task);
	CHECK(ex->magic == EXCHANGE_MAGIC);
	if (ex->dead) {
		dispose(ex);
		return;
	}
	while (!ex->dead) {
		enum step next = STEP_SETTLE;
		if (steps[ex->step].needs_client && client_has_gone(ex))
			ex->client_gone = true;
		else
			next = steps[ex->step].run(ex);
		if (next == STEP_STAY)
			return;
		if (next == STEP_END)
			break;
		enter(ex, next);
	}
	ex->dead = true;
	if (!ex->task.queued) /* else woken before its end: the loop still knows the task */
		dispose(ex);
}

void exchange_wake(struct exchange *ex)
{
	if (!ex->dead)
		loop_defer(ex->plane->loop, &ex->task);
}

static void on_deadline(struct loop_timer *t)
{
	struct exchange *ex = container_of(t, struct exchange, deadline);
	ex->timed_out = true;
	exchange_wake(ex);
}

static void on_patience_over(struct loop_timer *t)
{
	struct exchange *ex = container_of(t, struct exchange, patience);
	ex->impatient = true;
	exchange_wake(ex);
}

static struct exchange *new_exchange(struct plane *p, struct front *f)
{
	struct exchange *ex = calloc(1, sizeof *ex);
	if (!ex)
		return NULL;
	ex->magic = EXCHANGE_MAGIC;
	ex->plane = p;
	ex->front = f;
	ex->task.run = run;
	ex->deadline.on_due = on_deadline;
	ex->patience.on_due = on_patience_over;
	ex->begun_us = clock_monotonic_us();
	ex->pin = plane_pin(p);
	ex->up.finished = true;
	ex->awaited = !p->draining;
	p->awaited_count += ex->awaited;
	return ex;
}

/* The head outlives the bytes it was read from: fields and bytes in one piece of memory. */
static struct http_head *copy_head(const struct http_head *head)
{
	size_t fields = offsetof(struct http_head, fields) + head->field_count * sizeof head->fields[0];
	struct http_head *copy = malloc(fields + head->length);
	if (!copy)
		return NULL;
	char *text = (char *)copy + fields;
	memcpy(copy, head, fields);
	memcpy(text, head->bytes, head->length);
	copy->bytes = text;
	copy->method.at = text + (head->method.at - head->bytes);
	copy->target.at = text + (head->target.at - head->bytes);
	for (unsigned i = 0; i < copy->field_count; i++) {
		copy->fields[i].name = text + (head->fields[i].name - head->bytes);
		copy->fields[i].value = text + (head->fields[i].value - head->bytes);
	}
	return copy;
}

static void discard(struct exchange *ex)
{
	ex->plane->awaited_count -= ex->awaited;
	plane_unpin(ex->pin);
	free(ex->request);
	free(ex);
}

struct exchange *exchange_begin(struct plane *p, struct front *f)
{
	struct exchange *ex = new_exchange(p, f);
	if (!ex)
		return NULL;
	ex->request = copy_head(&p->head);
	if (ex->request)
		return ex;
	discard(ex);
	return NULL;
}

struct exchange *exchange_begin_refused(struct plane *p, struct front *f, enum problem_id problem,
	const char *message)
{
	struct exchange *ex = new_exchange(p, f);
	if (!ex)
		return NULL;
	ex->refused = true;
	ex->must_close = true;
	if (exchange_fail(ex, problem, message) == STEP_ANSWER) {
		ex->step = STEP_ANSWER;
		return ex;
	}
	discard(ex);
	return NULL;
}

void exchange_abort(struct exchange *ex)
{
	ex->client_gone = true;
	enter(ex, STEP_SETTLE);
	run(&ex->task);
}

/* ---- answers of our own ---- */

/* The rest of the body is not wanted: where all of it is there the connection can be kept. */
static void skip_body(struct exchange *ex)
{
	struct http_body *body = &ex->up.body;
	struct buf *unread = &ex->front->unread;
	if (body->done || ex->refused)
		return;
	if (!ex->must_close && body->framing == HTTP_LENGTH && body->remaining <= buf_length(unread)) {
		buf_consume(unread, (size_t)body->remaining);
		body->done = true;
	} else {
		ex->must_close = true;
	}
}

static bool write_answer(struct exchange *ex, unsigned status, const char *content_type, const struct buf *fields,
	const struct buf *body)
{
	struct buf *out = &ex->down.pending;
	skip_body(ex);
	const char *connection = ex->must_close || !ex->client_keeps ? "Connection: close\r\n" :
		ex->http10                                               ? "Connection: keep-alive\r\n" :
																   "";
	if (!buf_printf(out, "HTTP/1.1 %u %s\r\n%s", status, http_reason_phrase(status), rewrite_date_line()))
		return false;
	if (content_type && !buf_printf(out, "Content-Type: %s\r\n", content_type))
		return false;
	if (status != 204 && !buf_printf(out, "Content-Length: %zu\r\n", buf_length(body)))
		return false;
	if (!buf_append(out, connection, strlen(connection)) || !buf_append(out, buf_bytes(fields), buf_length(fields)) ||
		!buf_append(out, "\r\n", 2))
		return false;
	ex->down.finished = true;
	ex->began = true;
	ex->status = (uint16_t)status;
	return ex->head_method || buf_append(out, buf_bytes(body), buf_length(body));
}

static bool put_cors(struct exchange *ex, struct buf *out)
{
	char origin[EXCHANGE_ORIGIN_BYTES];
	struct rewrite_cors cors = exchange_cors(ex, origin);
	return rewrite_cors_fields(&cors, out);
}

static struct dialect_limit limit_of(const struct admission_figure *f)
{
	return (struct dialect_limit){f->limit, f->remaining, f->reset_ms};
}

static enum step answer_problem(struct exchange *ex, const struct dialect_refusal *refusal)
{
	enum dialect_id dialect = ex->mapping ? ex->mapping->dialect : DIALECT_OPENAI;
	const struct problem *p = &problem_table[refusal->problem];
	struct buf fields = {0};
	struct buf body = {0};
	exchange_drop_upstream(ex, false);
	loop_timer_cancel(ex->plane->loop, &ex->deadline);
	ex->timed_out = false;
	buf_free(&ex->partial);
	ex->problem = (uint16_t)refusal->problem;
	bool fine = buf_printf(&fields, "x-apiproxy-error: %s\r\n", p->code) &&
		dialect_error_fields(dialect, refusal, &fields) && exchange_admission_fields(ex, &fields) &&
		put_cors(ex, &fields) && dialect_error_body(dialect, refusal, &body);
	if (p->status == 401)
		fine = fine && buf_printf(&fields, "WWW-Authenticate: Bearer\r\n");
	if (p->status == 405) /* CONNECT alone is refused; of all others these have a name */
		fine = fine && buf_printf(&fields, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
	fine = fine && write_answer(ex, p->status, "application/json", &fields, &body);
	buf_free(&fields);
	buf_free(&body);
	ex->broken = ex->broken || !fine;
	if (fine)
		exchange_settle_early(ex);
	return fine ? STEP_ANSWER : STEP_SETTLE;
}

/* What is the operator's to know: not what clients do wrong. */
static void note_failure(const struct exchange *ex, enum problem_id problem, const char *message)
{
	if (problem_table[problem].status < 500 || problem == PROBLEM_DRAINING || problem == PROBLEM_HTTP_VERSION)
		return;
	journal_add(ex->mapping ? "upstream" : "exchange", "%s: %s", ex->mapping ? ex->mapping->prefix : "-",
		message ? message : problem_table[problem].message);
}

enum step exchange_fail(struct exchange *ex, enum problem_id problem, const char *message)
{
	note_failure(ex, problem, message);
	if (ex->began) {
		ex->broken = true;
		return STEP_SETTLE;
	}
	return answer_problem(ex, &(struct dialect_refusal){.problem = problem, .message = message});
}

/* A request that alone asks for more tokens than a minute has is told so. */
static bool is_too_large(const struct admission_request *a, char *message, size_t size)
{
	const struct {
		const char *about, *kind;
		uint64_t asked, limit;
	} rows[] = {
		{"about ", "input", a->input_tokens, a->figures[ADMISSION_INPUT_TOKENS].limit},
		{"", "output", a->output_tokens, a->figures[ADMISSION_OUTPUT_TOKENS].limit},
	};
	for (size_t i = 0; i < 2; i++)
		if (a->problem == PROBLEM_RATE_LIMIT && rows[i].limit && rows[i].asked > rows[i].limit) {
			snprintf(message, size, "This request alone needs %s%llu %s tokens; the limit is %llu a minute.",
				rows[i].about, (unsigned long long)rows[i].asked, rows[i].kind, (unsigned long long)rows[i].limit);
			return true;
		}
	return false;
}

enum step exchange_refuse(struct exchange *ex)
{
	const struct admission_request *a = &ex->managed->admission;
	char message[160];
	bool hopeless = is_too_large(a, message, sizeof message);
	return answer_problem(ex,
		&(struct dialect_refusal){
			.problem = a->problem,
			.message = hopeless ? message : NULL,
			.hopeless = hopeless,
			.retry_after_ms = a->retry_after_ms,
			.requests = limit_of(&a->figures[ADMISSION_REQUESTS]),
			.input_tokens = limit_of(&a->figures[ADMISSION_INPUT_TOKENS]),
			.output_tokens = limit_of(&a->figures[ADMISSION_OUTPUT_TOKENS]),
		});
}

/* ---- CORS (server.cors_origins) ---- */

/* An origin that is not allowed is told so by what the answer does not say: no upstream is asked. */
static enum step answer_preflight(struct exchange *ex)
{
	char origin[EXCHANGE_ORIGIN_BYTES];
	struct rewrite_cors cors = exchange_cors(ex, origin);
	const struct http_field *headers = http_find(ex->request, HTTP_REQUEST_HEADERS);
	const struct http_field *method = http_find(ex->request, HTTP_REQUEST_METHOD);
	struct buf fields = {0};
	struct buf body = {0};
	bool fine = !cors.origin ||
		buf_printf(&fields,
			"Access-Control-Allow-Origin: %s\r\nAccess-Control-Allow-Methods: %.*s\r\n"
			"Access-Control-Allow-Headers: %.*s\r\nAccess-Control-Max-Age: 86400\r\n",
			cors.origin, (int)method->value_length, method->value, headers ? (int)headers->value_length : 1,
			headers ? headers->value : "*");
	fine = fine &&
		buf_printf(&fields, "Vary: %sAccess-Control-Request-Method, Access-Control-Request-Headers\r\n",
			cors.by_origin ? "Origin, " : "") &&
		write_answer(ex, 204, NULL, &fields, &body);
	buf_free(&fields);
	return fine ? STEP_ANSWER : exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
}

/* ---- route ---- */

static const char *const idempotent_methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};

static bool method_is(const struct exchange *ex, const char *name)
{
	return ex->request->method.length == strlen(name) && memcmp(ex->request->method.at, name, strlen(name)) == 0;
}

static void note_connection(struct exchange *ex)
{
	const struct http_head *head = ex->request;
	const struct http_field *expect = http_find(head, HTTP_EXPECT);
	ex->http10 = head->minor == 0;
	ex->client_keeps = !ex->plane->draining &&
		(ex->http10 ? http_connection_has(head, "keep-alive") : !http_connection_has(head, "close"));
	ex->head_method = method_is(ex, "HEAD");
	for (size_t i = 0; i < sizeof idempotent_methods / sizeof idempotent_methods[0]; i++)
		ex->idempotent |= method_is(ex, idempotent_methods[i]);
	ex->websocket = !ex->http10 && ex->up.body.done && method_is(ex, "GET") && http_upgrades_to(head, "websocket");
	ex->expects = expect && !ex->http10 && !ex->up.body.done &&
		http_list_has(expect->value, expect->value_length, "100-continue");
}

static bool is_preflight(const struct exchange *ex)
{
	return *ex->plane->settings->server_cors_origins && method_is(ex, "OPTIONS") &&
		http_find(ex->request, HTTP_ORIGIN) && http_find(ex->request, HTTP_REQUEST_METHOD);
}

static enum step route_internal(struct exchange *ex)
{
	if (is_preflight(ex))
		return answer_preflight(ex);
	ex->internal = true;
	ex->websocket = false;
	return STEP_SEND;
}

static enum step route_mapping(struct exchange *ex)
{
	const struct mapping *m = snapshot_route(ex->pin->snapshot, ex->path.at, ex->path.length);
	if (!m)
		return exchange_fail(ex, PROBLEM_NO_MAPPING, NULL);
	ex->mapping = m;
	ex->counted = true;
	ex->stats_slot = m->stats_slot;
	stats_begin(ex->plane->stats, ex->stats_slot);
	if (!ex->awaited)
		return exchange_fail(ex, PROBLEM_DRAINING, NULL);
	if (is_preflight(ex))
		return answer_preflight(ex);
	if (m->max_body_bytes && ex->up.body.framing == HTTP_LENGTH && ex->up.body.remaining > m->max_body_bytes)
		return exchange_fail(ex, PROBLEM_BODY_TOO_LARGE, NULL);
	if (m->timeout_ms)
		loop_timer_set(ex->plane->loop, &ex->deadline, loop_now_ms(ex->plane->loop) + m->timeout_ms);
	if (m->auth_required || m->pool_name || m->has_queue || m->include_usage) {
		ex->managed = calloc(1, sizeof *ex->managed);
		if (!ex->managed)
			return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
		ex->keeping = true;
	}
	return STEP_IDENTIFY;
}

static enum step refuse_malformed(struct exchange *ex, const char *reason)
{
	ex->must_close = true;
	return exchange_fail(ex, PROBLEM_BAD_REQUEST, reason);
}

static enum step step_route(struct exchange *ex)
{
	struct http_head *head = ex->request;
	const char *fault = http_request_body(head, &ex->up.body);
	note_connection(ex);
	if (!fault)
		fault = http_check_host(head);
	if (fault)
		return refuse_malformed(ex, fault);
	ex->up.finished = ex->up.body.done;
	ex->up.chunked = ex->up.body.framing == HTTP_CHUNKED;
	ex->keeping = ex->idempotent || ex->up.body.done;
	if (method_is(ex, "CONNECT"))
		return exchange_fail(ex, PROBLEM_METHOD_NOT_ALLOWED, NULL);
	if (head->target.length == 1 && *head->target.at == '*' && method_is(ex, "OPTIONS"))
		return exchange_fail(ex, PROBLEM_NO_MAPPING, NULL);
	if (!route_split(head->target, &ex->path, &ex->query))
		return refuse_malformed(ex, "The request target is neither a path nor a valid absolute URL.");
	if (route_has_dot_segment(ex->path))
		return exchange_fail(ex, PROBLEM_BAD_REQUEST, "The path has a dot segment.");
	if (route_is_reserved(ex->path))
		return route_internal(ex);
	return ex->front->ops ? exchange_fail(ex, PROBLEM_NO_MAPPING, NULL) : route_mapping(ex);
}

/* ---- settle ---- */

static void log_access(const struct exchange *ex, uint64_t duration_us)
{
	char peer[INET6_ADDRSTRLEN];
	const struct http_head *head = ex->request;
	log_always("access", "%s %.*s %.*s %u %s in=%llu out=%llu %.3fms", front_peer_text(ex->front, peer),
		head ? (int)head->method.length : 1, head ? head->method.at : "-", head ? (int)ex->path.length : 1,
		head && ex->path.length ? ex->path.at : "-", ex->status, ex->problem ? problem_table[ex->problem].code : "-",
		(unsigned long long)ex->up.bytes, (unsigned long long)ex->down.bytes, (double)duration_us / 1000);
}

uint64_t exchange_estimate_input(const struct exchange *ex)
{
	const struct managed *m = ex->managed;
	return m && m->request.input_estimate ? usage_request_estimate(&m->request, ex->body_bytes) :
											ex->body_bytes / USAGE_BYTES_PER_TOKEN;
}

/* What it cost, as the vendor says; else an estimate, where the model has said something. What asked
 * nothing was answered by no model: a file, a list. */
static void estimate_tokens(const struct exchange *ex, struct usage *usage)
{
	if (!usage->output_known && !ex->body_bytes)
		usage->output_tokens = usage->output_estimate = 0;
	if (!usage->input_known && (usage->output_known || usage->output_estimate))
		usage->input_tokens = exchange_estimate_input(ex);
}

static void read_usage(const struct exchange *ex, struct usage *usage)
{
	if (ex->tap)
		usage_tap_read(ex->tap, usage);
	estimate_tokens(ex, usage);
}

void exchange_settle_early(struct exchange *ex)
{
	struct usage usage = {0};
	if (!ex->managed || !ex->managed->admitted || ex->managed->settled || ex->tunnel)
		return;
	read_usage(ex, &usage);
	exchange_settle_admission(ex, &usage);
	ex->held_back = true;
	exchange_wake(ex); /* behind the writing to Redis, which was deferred first */
}

/* A stream may last longer than 32 bits of microseconds. */
static uint32_t saturated(uint64_t value)
{
	return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

/* Who went at once has waited, too: 0. */
static bool met_queue(const struct exchange *ex)
{
	const struct managed *m = ex->managed;
	return m && (m->admission.queued || (m->admitted && ex->mapping->has_queue));
}

static void count(struct exchange *ex, const struct usage *usage, uint64_t now_us)
{
	const struct managed *m = ex->managed;
	struct stats_event event = {
		.kind = STATS_REQUEST,
		.flags = (uint8_t)((ex->broken ? STATS_BROKEN_OFF : 0) | (ex->client_gone ? STATS_CLIENT_GONE : 0) |
			(met_queue(ex) ? STATS_QUEUED : 0) | (usage->input_known ? 0 : STATS_INPUT_ESTIMATED) |
			(usage->output_known ? 0 : STATS_OUTPUT_ESTIMATED)),
		.status = ex->status,
		.problem = ex->problem,
		.slot = ex->stats_slot,
		.first_byte_us = ex->answered_us ? saturated(ex->answered_us - ex->begun_us) : 0,
		.overhead_us = ex->overhead_us,
		.queue_wait_us = m ? saturated(m->admission.waited_ms * 1000) : 0,
		.duration_us = now_us - ex->begun_us,
		.bytes_in = ex->up.bytes,
		.bytes_out = ex->down.bytes,
		.input_tokens = saturated(usage->input_tokens),
		.output_tokens = saturated(usage->output_tokens),
	};
	stats_end(ex->plane->stats, &event);
}

/* Only where the framing cannot tell the client does a reset have to: it takes what is not yet
 * acknowledged with it. WebSocket says goodbye in a frame. */
static bool framing_tells_break(const struct exchange *ex)
{
	return ex->tunnel || ex->down.chunked || ex->down.body.framing == HTTP_LENGTH;
}

static enum front_end ending(const struct exchange *ex)
{
	if (ex->client_gone || (ex->broken && !framing_tells_break(ex)))
		return FRONT_BREAK;
	if (ex->broken || ex->tunnel || ex->must_close || !ex->client_keeps || !ex->up.body.done)
		return FRONT_CLOSE;
	return FRONT_KEEP;
}

static void release(struct exchange *ex)
{
	struct plane *p = ex->plane;
	exchange_drop_upstream(ex, false); /* a whole answer has given it back already */
	exchange_drop_aside(ex);
	loop_timer_cancel(p->loop, &ex->deadline);
	loop_timer_cancel(p->loop, &ex->patience);
	relay_free(&ex->up);
	relay_free(&ex->down);
	buf_free(&ex->kept);
	buf_free(&ex->partial);
	free(ex->request);
	usage_tap_free(ex->tap);
	if (ex->managed)
		loop_free_later(p->loop, ex->managed);
	plane_unpin(ex->pin);
}

static enum step step_settle(struct exchange *ex)
{
	uint64_t now_us = clock_monotonic_us();
	struct usage usage = {0};
	struct front *f = ex->front;
	struct plane *p = ex->plane;
	bool awaited = ex->awaited;
	read_usage(ex, &usage);
	if (ex->managed)
		exchange_settle_admission(ex, &usage);
	if (ex->counted)
		count(ex, &usage, now_us);
	if (plane_logs_access(p))
		log_access(ex, now_us - ex->begun_us);
	enum front_end end = ending(ex);
	release(ex);
	ex->dead = true;
	front_exchange_ended(f, end);
	if (awaited) {
		p->awaited_count--;
		p->on_less(p);
	}
	return STEP_END;
}
