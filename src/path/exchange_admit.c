/* exchange_admit: managed mappings: who asks, how much, which vendor key, and what became of it.
 * A transparent request passes through these steps without a look. */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "path/exchange_state.h"
#include "path/identity.h"
#include "state/stats.h"

enum {
	CREDENTIALS_MAX = HTTP_FIELDS_MAX + 1, /* all fields, and the query */
	RETRY_MAX_SECONDS = 24 * 3600,         /* whatever a vendor says: a key is tried once a day */
	RETRY_MAX_MS = RETRY_MAX_SECONDS * 1000,
};

/* ---- identify ---- */

static size_t gather_credentials(const struct exchange *ex, struct identity_credential out[CREDENTIALS_MAX])
{
	size_t count = 0;
	for (unsigned i = 0; i < ex->request->field_count; i++) {
		const struct http_field *f = &ex->request->fields[i];
		enum identity_place place = identity_place_of_field((enum http_field_id)f->id);
		if (place != IDENTITY_NO_PLACE)
			out[count++] = (struct identity_credential){place, f->value, f->value_length};
	}
	if (ex->query.length > 1)
		out[count++] = (struct identity_credential){IDENTITY_QUERY, ex->query.at + 1, ex->query.length - 1};
	return count;
}

enum problem_id exchange_identify(const struct exchange *ex, const struct snapshot *s, const struct mapping *m,
	const struct subject **subject)
{
	struct identity_credential credentials[CREDENTIALS_MAX];
	size_t count = gather_credentials(ex, credentials);
	return identity_decide(ex->plane->identity, s, m, credentials, count, clock_shared_ms(), subject);
}

enum step step_identify(struct exchange *ex)
{
	if (!ex->managed)
		return STEP_SEND;
	if (!ex->mapping->auth_required)
		return STEP_COLLECT;
	enum problem_id problem = exchange_identify(ex, ex->pin->snapshot, ex->mapping, &ex->managed->subject);
	ex->managed->known = problem == PROBLEM_NONE;
	return problem == PROBLEM_NONE ? STEP_COLLECT : exchange_fail(ex, problem, NULL);
}

/* ---- collect ---- */

static bool ends_in(struct http_span path, const char *end)
{
	size_t length = strlen(end);
	return path.length >= length && memcmp(path.at + path.length - length, end, length) == 0;
}

/* Calls that only count tokens, of Anthropic, OpenAI and Gemini: no model reads them, they take none. */
static bool only_counts(const struct exchange *ex)
{
	static const char *const ends[] = {"/messages/count_tokens", "/responses/input_tokens", ":countTokens"};
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		if (ends_in(ex->path, ends[i]))
			return true;
	return false;
}

/* Chat and the older completions, at OpenAI, Azure and those like them: other calls do not know stream_options, however
 * much their bodies look alike. */
static bool is_completion(const struct exchange *ex)
{
	const char *base = ex->mapping->target.base_path;
	size_t prefix = ex->mapping->prefix_length;
	struct http_span rest = {ex->path.at + prefix, ex->path.length - prefix};
	return ends_in(rest.length ? rest : (struct http_span){base, strlen(base)}, "/completions");
}

static bool needs_body(const struct exchange *ex)
{
	const struct subject *s = ex->managed->subject;
	if (ex->mapping->include_usage && is_completion(ex))
		return true;
	return s && (s->limits.input_tpm || s->limits.output_tpm) && !only_counts(ex);
}

/* The one case in which a body is changed: the mapping asks for it. */
static void include_usage(struct exchange *ex)
{
	struct buf changed = {0};
	if (!ex->mapping->include_usage || ex->mapping->dialect != DIALECT_OPENAI || !is_completion(ex))
		return;
	if (!ex->up.body.done || !ex->keeping)
		return;
	if (!usage_request_include(buf_bytes(&ex->kept), buf_length(&ex->kept), &changed))
		return;
	buf_free(&ex->kept);
	ex->kept = changed;
	snprintf(ex->managed->length, sizeof ex->managed->length, "%zu", buf_length(&changed));
}

static uint64_t announced_length(const struct exchange *ex)
{
	return ex->up.body.framing == HTTP_LENGTH ? ex->body_bytes + ex->up.body.remaining : 0;
}

/* How long the client takes for its body is the client's time. */
static enum step wait_for_body(struct managed *m)
{
	m->body_since_us = clock_monotonic_us();
	return STEP_STAY;
}

static void end_wait(struct managed *m)
{
	if (m->body_since_us)
		m->body_waited_us += clock_monotonic_us() - m->body_since_us;
	m->body_since_us = 0;
}

/* Behind the last byte that there is room for, chunks have yet to say that they end: until one more is announced. */
static bool wants_more(const struct exchange *ex)
{
	const struct http_body *body = &ex->up.body;
	return !body->done && (buf_length(&ex->kept) < EXCHANGE_KEPT_MAX || !body->remaining);
}

/* Keeps what is there of the body, as far as there is room for it. STEP_STAY: fine. */
static enum step collect(struct exchange *ex)
{
	while (wants_more(ex)) {
		char *content;
		size_t length;
		enum step next = exchange_take_body(ex, &content, &length);
		if (next != STEP_STAY)
			return next;
		if (!ex->keeping) /* no memory: what was taken is lost */
			return exchange_fail(ex, PROBLEM_OUT_OF_MEMORY, NULL);
		if (!length && !ex->up.body.done && !exchange_has_more(ex))
			break;
	}
	return STEP_STAY;
}

enum step step_collect(struct exchange *ex)
{
	if (!needs_body(ex))
		return STEP_ADMIT;
	end_wait(ex->managed);
	if (ex->timed_out)
		return exchange_fail(ex, PROBLEM_UPSTREAM_TIMEOUT, "The request's body did not arrive in time.");
	if (ex->expects) {
		enum step next = exchange_tell_continue(ex);
		if (next != STEP_STAY)
			return next;
	}
	enum step next = collect(ex);
	if (next != STEP_STAY)
		return next;
	if (wants_more(ex))
		return wait_for_body(ex->managed);
	usage_request_read(buf_bytes(&ex->kept), buf_length(&ex->kept), ex->up.body.done, announced_length(ex),
		&ex->managed->request);
	include_usage(ex);
	return STEP_ADMIT;
}

/* ---- admit ---- */

static struct exchange *owner_of(struct admission_request *rq);

static void leave_line(struct exchange *ex)
{
	if (!ex->managed->in_line)
		return;
	ex->managed->in_line = false;
	stats_queue_length(ex->plane->stats, ex->stats_slot, -1);
}

static void on_decided(struct admission_request *rq)
{
	struct exchange *ex = owner_of(rq);
	ex->managed->decided = true;
	leave_line(ex);
	exchange_wake(ex);
}

static void on_waiting(struct admission_request *rq)
{
	struct exchange *ex = owner_of(rq);
	ex->managed->in_line = true;
	stats_queue_length(ex->plane->stats, ex->stats_slot, 1);
	exchange_wake(ex);
}

static enum problem_id on_turn(struct admission_request *rq)
{
	return exchange_renew(owner_of(rq));
}

static struct exchange *owner_of(struct admission_request *rq)
{
	return container_of(rq, struct managed, admission)->exchange;
}

static void start(struct exchange *ex)
{
	struct managed *m = ex->managed;
	uint64_t named = m->request.max_output_tokens;
	m->exchange = ex;
	m->started = true;
	m->admission.snapshot = ex->pin->snapshot;
	m->admission.mapping = ex->mapping;
	m->admission.subject = m->subject;
	if (!only_counts(ex)) {
		m->admission.input_tokens = m->request.input_estimate;
		m->admission.output_tokens = named ? named : ex->mapping->reserve_output_tokens;
	}
	m->admission.on_decided = on_decided;
	m->admission.on_waiting = on_waiting;
	m->admission.on_turn = on_turn;
	m->decided = admission_start(ex->plane->admission, &m->admission);
}

enum step step_admit(struct exchange *ex)
{
	struct managed *m = ex->managed;
	if (!m->started) {
		enum problem_id problem = m->body_waited_us ? exchange_renew(ex) : PROBLEM_NONE;
		if (problem != PROBLEM_NONE)
			return exchange_fail(ex, problem, NULL);
		start(ex);
	}
	if (!m->decided && ex->timed_out)
		return exchange_fail(ex, PROBLEM_UPSTREAM_TIMEOUT, "The time ended in the queue.");
	if (!m->decided) /* the client's end is seen only behind its body */
		return m->in_line ? collect(ex) : STEP_STAY;
	if (m->admission.problem != PROBLEM_NONE)
		return exchange_refuse(ex);
	m->admitted = true;
	m->attempt_us = clock_monotonic_us();
	return STEP_SEND;
}

/* ---- the vendor key's fate ---- */

bool exchange_should_fail_over(struct exchange *ex, unsigned status)
{
	const struct managed *m = ex->managed;
	return m && m->admission.key && !m->no_more_keys && ex->keeping &&
		admission_outcome_of_status(status) >= ADMISSION_THROTTLED;
}

/* False: the answer has no such field, or it is too long. */
static bool field_text(const struct http_head *answer, enum http_field_id id, char text[64])
{
	const struct http_field *f = answer ? http_find(answer, id) : NULL;
	if (!f || !f->value_length || f->value_length >= 64)
		return false;
	memcpy(text, f->value, f->value_length);
	text[f->value_length] = 0;
	return true;
}

/* 0: the vendor said nothing that can be read; "now" is one millisecond. A date is told from the vendor's own
 * Date where there is one: whose clock is wrong, its or ours, does not matter then. */
static uint64_t retry_after_ms(const struct http_head *answer)
{
	char text[64], date[64], *end;
	if (!field_text(answer, HTTP_RETRY_AFTER, text))
		return 0;
	double seconds = strtod(text, &end);
	if (!*end && !text[strspn(text, "0123456789.")]) /* strtod knows more forms */
		return seconds < RETRY_MAX_SECONDS ? (uint64_t)(seconds * 1000) + !(seconds * 1000 >= 1) : RETRY_MAX_MS;
	time_t at = curl_getdate(text, NULL);
	time_t now = field_text(answer, HTTP_DATE, date) ? curl_getdate(date, NULL) : -1;
	if (at == -1)
		return 0;
	if (now == -1)
		now = (time_t)(clock_shared_ms() / 1000);
	if (at - now > RETRY_MAX_SECONDS)
		return RETRY_MAX_MS;
	return at > now ? (uint64_t)(at - now) * 1000 : 1;
}

static void count_attempt(struct exchange *ex, unsigned status)
{
	struct managed *m = ex->managed;
	uint64_t now_us = clock_monotonic_us();
	struct stats_event event = {
		.kind = STATS_ATTEMPT,
		.status = (uint16_t)status,
		.slot = m->admission.key->stats_slot,
		.duration_us = now_us - m->attempt_us,
	};
	stats_attempt(ex->plane->stats, &event);
	m->attempt_us = now_us;
}

void exchange_report_key(struct exchange *ex, const struct http_head *answer)
{
	struct managed *m = ex->managed;
	if (!m || !m->admission.key || m->reported)
		return;
	m->reported = true;
	count_attempt(ex, answer->status);
	admission_report(&m->admission, admission_outcome_of_status(answer->status), answer->status,
		retry_after_ms(answer));
}

/* The answer that failed waits in ex->partial, if there was one. Who may not ask any more gets no other key. */
static void ask_next_key(struct exchange *ex)
{
	struct managed *m = ex->managed;
	struct http_head *head = &ex->plane->head;
	enum admission_outcome outcome = ADMISSION_NOTHING;
	unsigned status = 0;
	uint64_t retry_ms = 0;
	if (buf_length(&ex->partial) &&
		http_parse_response(head, buf_bytes(&ex->partial), buf_length(&ex->partial), NULL) == HTTP_COMPLETE) {
		status = head->status;
		retry_ms = retry_after_ms(head);
	}
	m->asked = true;
	if (!m->key_void) {
		count_attempt(ex, status);
		outcome = admission_outcome_of_status(status);
	}
	enum problem_id problem = exchange_renew(ex);
	if (problem == PROBLEM_NONE) {
		m->decided = admission_next_key(&m->admission, outcome, status, retry_ms);
	} else {
		admission_report(&m->admission, outcome, status, retry_ms);
		m->admission.problem = problem;
		m->decided = true;
	}
}

void exchange_drop_aside(struct exchange *ex)
{
	struct managed *m = ex->managed;
	if (!m || !m->aside)
		return;
	upstream_break_off(ex->plane->upstreams, m->aside);
	m->aside = NULL;
	buf_free(&m->aside_read);
}

/* The next key may get no answer at all: then this one is the last. It is read no further meanwhile. */
static void set_aside(struct exchange *ex)
{
	struct managed *m = ex->managed;
	if (!buf_length(&ex->partial))
		return;
	exchange_drop_aside(ex);
	m->aside = ex->upstream;
	m->aside_read = ex->partial;
	ex->upstream = NULL;
	ex->partial = (struct buf){0};
}

/* Of the request it gets no more: it had answered before the end of it. */
static bool take_back(struct exchange *ex)
{
	struct managed *m = ex->managed;
	if (!m->aside)
		return false;
	exchange_drop_upstream(ex, false);
	buf_free(&ex->up.pending);
	ex->up_failed = true;
	ex->upstream = m->aside;
	ex->partial = m->aside_read;
	m->aside = NULL;
	m->aside_read = (struct buf){0};
	return true;
}

enum step step_next_key(struct exchange *ex)
{
	struct managed *m = ex->managed;
	if (!m->asked)
		ask_next_key(ex);
	if (!m->decided)
		return ex->timed_out ? exchange_fail(ex, PROBLEM_UPSTREAM_TIMEOUT, NULL) : STEP_STAY;
	m->asked = false;
	if (m->admission.problem == PROBLEM_NONE) {
		m->attempt_us = clock_monotonic_us();
		m->key_void = false;
		set_aside(ex);
		return exchange_retry(ex);
	}
	m->no_more_keys = m->reported = true;
	if (buf_length(&ex->partial) || take_back(ex)) {
		ex->reconsider = true;
		return STEP_RELAY;
	}
	if (m->key_void)
		return exchange_refuse(ex);
	return exchange_fail(ex,
		ex->connect_outcome == CONNECT_TIMED_OUT ? PROBLEM_UPSTREAM_TIMEOUT : PROBLEM_UPSTREAM_ERROR, NULL);
}

/* ---- settle ---- */

/* No answer came of this attempt, and that was not the client's doing: a body that broke, grew too large
 * or did not come. */
static bool vendor_failed(const struct exchange *ex)
{
	bool client_owes = !ex->up.body.done && !buf_length(&ex->up.pending) && !ex->up_failed;
	return ex->problem == PROBLEM_UPSTREAM_ERROR || (ex->problem == PROBLEM_UPSTREAM_TIMEOUT && !client_owes);
}

/* The vendor never had all of the request. What was reserved was for what the client had announced. */
static bool cut_short(const struct exchange *ex)
{
	return !ex->up.body.done && !ex->tunnel;
}

void exchange_settle_admission(struct exchange *ex, const struct usage *usage)
{
	struct managed *m = ex->managed;
	if (!m->started || m->settled)
		return;
	m->settled = true;
	leave_line(ex);
	if (!m->admitted) { /* also where it was admitted a moment ago and nobody has looked since */
		admission_cancel(&m->admission);
		return;
	}
	bool failed = ex->status >= 400 || !ex->status;
	bool told = !usage->beyond && (usage->input_known || usage->output_known || usage->output_estimate);
	bool known = told || (failed && !ex->client_gone); /* the latter: nothing */
	bool cut = !known && cut_short(ex);
	struct admission_result result = {
		.sent = ex->sent_us != 0,
		.tokens_known = known || cut,
		.input_tokens = cut && m->admission.input_tokens ? exchange_estimate_input(ex) : usage->input_tokens,
		.output_tokens = usage->output_tokens,
		.outcome = ADMISSION_NOTHING,
	};
	if (m->admission.key && !m->reported && !ex->client_gone && ex->sent_us && vendor_failed(ex)) {
		result.outcome = ADMISSION_FAILED;
		count_attempt(ex, 0);
	}
	admission_settle(&m->admission, &result);
}

enum { FIGURE_ROOM = 3 * (sizeof "x-apiproxy-remaining-output-tokens: \r\n" + 20) };

static char *put_field(char *out, const char *kind, const char *what, uint64_t number)
{
	out = stpcpy(stpcpy(stpcpy(stpcpy(out, "x-apiproxy-"), kind), what), ": ");
	return stpcpy(out + buf_digits(out, number), "\r\n");
}

/* On every managed answer: by hand, because printf would be a fifth of the request's time. */
static char *put_figure(char *out, const char *what, const struct admission_figure *f)
{
	if (!f->limit)
		return out;
	out = put_field(out, "limit-", what, f->limit);
	out = put_field(out, "remaining-", what, f->remaining);
	return put_field(out, "reset-", what, (f->reset_ms + 999) / 1000);
}

bool exchange_admission_fields(struct exchange *ex, struct buf *out)
{
	static const char *const names[ADMISSION_WINDOWS] = {
		[ADMISSION_REQUESTS] = "requests",
		[ADMISSION_INPUT_TOKENS] = "input-tokens",
		[ADMISSION_OUTPUT_TOKENS] = "output-tokens",
	};
	char text[ADMISSION_WINDOWS * FIGURE_ROOM], *end = text;
	if (!ex->managed)
		return true;
	for (int i = 0; i < ADMISSION_WINDOWS; i++)
		end = put_figure(end, names[i], &ex->managed->admission.figures[i]);
	return buf_append(out, text, (size_t)(end - text));
}
