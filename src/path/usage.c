/* usage: the tap. Bytes go through the content coding; their first ones tell what they are, where the Content-Type does
 * not; then they go through the lines of server-sent events if they are such, then to the reader of JSON texts; what is kept is one number per field and a count of the
 * model's text. A plain stream's tap is a single small allocation; a decoder is made at its first byte.
 * Belongs to its exchange.
 *
 * Every vendor's fields are read whatever the mapping's dialect: their names do not collide, and several
 * vendors answer in OpenAI's shape beside their own. */
#include "path/usage.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "path/usage_decode.h"
#include "path/usage_scan.h"
#include "path/usage_text.h"

/* UNTOLD: not yet known. MAYBE_EVENTS: so it is said. */
enum kind { UNTOLD, MAYBE_EVENTS, JSON, EVENTS, NEITHER };
enum line_state { LINE_START, LINE_DATA, LINE_OTHER };

struct usage_tap {
	struct usage_decoder *decoder;
	struct usage_text text;
	uint64_t total_bytes;
	uint64_t found_bytes; /* of events that were scanned because they tell usage: they are not like others */
	uint64_t found_text;
	uint64_t coded_bytes; /* that came, in a content coding */
	uint8_t coding;
	uint8_t kind;
	uint8_t head_length; /* of a byte order mark, or of what may be a field's name */
	char head[8];
	bool begun;    /* behind the byte order mark, or where none is */
	bool indented; /* blanks since the line's begin */
	uint8_t line_state;
	uint8_t line_matched; /* bytes of "data:" */
	bool line_empty;      /* nothing on the line so far */
	bool after_cr;
	bool given_up; /* undecodable from here on */
};

/* ---- server-sent events (WHATWG HTML, 9.2) ---- */

/* A stream that comes in bulk is searched, not scanned, past its first bytes; of an event that is not whole in what was
 * read the head is scanned still, as it tells which object in the root the rest is in. */
enum { BULK_AFTER = USAGE_TEXT_EXACT, BULK_MIN = 4096, HEAD_BYTES = 256, TAIL_BYTES = 4096, TAIL_MIN = 16 * 1024 };

static void end_event(struct usage_tap *t)
{
	usage_text_end(&t->text);
	usage_text_begin(&t->text, t->total_bytes > BULK_AFTER ? HEAD_BYTES : USAGE_TEXT_EXACT);
}

/* true: it was an event's last one, which is empty. */
static bool end_line(struct usage_tap *t)
{
	bool last = t->line_empty;
	if (last)
		end_event(t);
	else if (t->line_state == LINE_DATA)
		usage_text_feed(&t->text, "\n", 1);
	t->line_state = LINE_START;
	t->line_matched = 0;
	t->line_empty = true;
	return last;
}

static const char *start_line(struct usage_tap *t, const char *at, const char *end)
{
	static const char name[] = "data:";
	while (at < end && t->line_matched < sizeof name - 1 && *at == name[t->line_matched]) {
		t->line_matched++;
		at++;
	}
	if (t->line_matched == sizeof name - 1)
		t->line_state = LINE_DATA;
	else if (at < end)
		t->line_state = LINE_OTHER;
	return at;
}

/* What is searched for a line's end is still near when it is read. */
static const char *find_line_end(const char *at, const char *end)
{
	enum { STEP = 16 * 1024 };
	return scan_line_end(at, end - at > STEP ? at + STEP : end);
}

/* Returns end, or the place behind the first event that ends. */
static const char *take_event(struct usage_tap *t, const char *at, const char *end)
{
	while (at < end) {
		bool second = t->after_cr && *at == '\n';
		t->after_cr = false;
		if (second) {
			at++;
			continue;
		}
		if (t->line_state == LINE_START && *at != '\r' && *at != '\n') {
			t->line_empty = false;
			at = start_line(t, at, end);
			continue;
		}
		const char *stop = find_line_end(at, end);
		if (stop > at && t->line_state == LINE_DATA)
			usage_text_feed(&t->text, at, (size_t)(stop - at));
		at = stop;
		if (at == end || (*at != '\r' && *at != '\n'))
			continue;
		t->after_cr = *at++ == '\r';
		if (end_line(t))
			return at;
	}
	return end;
}

static void take_lines(struct usage_tap *t, const char *at, const char *end)
{
	while (at < end)
		at = take_event(t, at, end);
}

/* Behind the first blank line, or NULL. */
static const char *behind_event(const char *at, const char *end)
{
	while ((at = memchr(at, '\n', (size_t)(end - at)))) {
		at++;
		if (at < end && *at == '\n')
			return at + 1;
		if (end - at >= 2 && at[0] == '\r' && at[1] == '\n')
			return at + 2;
	}
	return NULL;
}

/* Behind the last blank line before end, or start. */
static const char *behind_last_event(const char *start, const char *end)
{
	const char *line;
	while ((line = memrchr(start, '\n', (size_t)(end - start)))) {
		const char *before = line > start && line[-1] == '\r' ? line - 1 : line;
		if (before > start && before[-1] == '\n')
			return line + 1;
		end = line;
	}
	return start;
}

/* What the last events tell is all, if it has in it each field that was ever told, and both counts. */
static bool tells_all(const struct usage_told *told, const struct usage_told *before)
{
	enum {
		INPUT = 1 << PROMPT_TOKENS | 1 << PROMPT_COUNT | 1 << INPUT_TOKENS,
		OUTPUT = 1 << COMPLETION_TOKENS | 1 << CANDIDATES_COUNT | 1 << OUTPUT_TOKENS,
	};
	return (told->seen & INPUT) && (told->seen & OUTPUT) && !(before->seen & ~told->seen);
}

static void take_found(struct usage_tap *t, const char *at, const char *end)
{
	while (at < end) {
		const char *usage = usage_text_find(at, end, '\0');
		const char *event = usage < end ? behind_last_event(at, usage) : end;
		t->text.skipped += (uint64_t)(event - at);
		at = usage < end ? behind_event(usage, end) : end;
		if (!at)
			at = end;
		uint64_t text_before = t->text.text_bytes;
		take_lines(t, event, at);
		t->found_bytes += (uint64_t)(at - event);
		t->found_text += t->text.text_bytes - text_before;
	}
}

/* The last place of usage, if it is in the last TAIL_BYTES; or end. */
static const char *find_last(const char *at, const char *end)
{
	const char *last = end;
	if (end - at < TAIL_MIN)
		return end;
	for (at = end - TAIL_BYTES; (at = usage_text_find(at, end, '\0')) < end; at++)
		last = at;
	return last;
}

/* Whole events, from at to end. Where each tells usage, later ones replace what earlier ones tell: the last
 * one is looked at first. */
static void take_bulk(struct usage_tap *t, const char *at, const char *end)
{
	struct usage_told before = t->text.told;
	const char *tail = find_last(at, end);
	if (tail == end) {
		take_found(t, at, end);
		return;
	}
	tail = behind_last_event(at, tail);
	t->text.told = (struct usage_told){0};
	take_found(t, tail, end);
	struct usage_told last = t->text.told;
	t->text.told = before;
	if (tells_all(&last, &before))
		t->text.skipped += (uint64_t)(tail - at);
	else
		take_found(t, at, tail);
	usage_told_merge(&t->text.told, &last);
}

static void take_events(struct usage_tap *t, const char *at, const char *end)
{
	bool bulk = t->total_bytes > BULK_AFTER && end - at >= BULK_MIN;
	t->total_bytes += (uint64_t)(end - at);
	if (bulk) {
		/* The rest of the event that was cut, whole events, the begin of another one. */
		at = take_event(t, at, end);
		const char *last = behind_last_event(at, end);
		if (last > at) {
			t->after_cr = t->after_cr && *at != '\n';
			take_bulk(t, at, last);
			at = last;
		}
	}
	take_lines(t, at, end);
}

/* ---- what it is ---- */

static void take_events_or_json(struct usage_tap *t, const char *at, size_t length)
{
	if (t->kind == EVENTS) {
		take_events(t, at, at + length);
	} else if (t->kind == JSON) {
		t->total_bytes += length;
		usage_text_feed(&t->text, at, length);
	}
}

/* Events begin with a comment or a field. UNTOLD: it may become one. */
static enum kind kind_of_head(const struct usage_tap *t)
{
	static const char *const names[] = {"data:", "event:", "id:", "retry:", ":"};
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strncmp(names[i], t->head, t->head_length) == 0)
			return names[i][t->head_length] ? UNTOLD : EVENTS;
	return NEITHER;
}

/* Goes on with a byte order mark. false: what came is none, or it is over. */
static bool match_mark(struct usage_tap *t, char c)
{
	static const char mark[] = "\xef\xbb\xbf";
	if (t->begun || c != mark[t->head_length])
		return false;
	t->head[t->head_length++] = c;
	t->begun = t->head_length == sizeof mark - 1;
	if (t->begun)
		t->head_length = 0;
	return true;
}

static void decide(struct usage_tap *t, char c)
{
	if (match_mark(t, c))
		return;
	t->begun = true;
	if (!t->head_length && (unsigned char)c <= ' ') {
		t->indented = c != '\r' && c != '\n';
		return;
	}
	t->head[t->head_length++] = c;
	if (t->head_length == 1 && (c == '{' || c == '['))
		t->kind = JSON;
	else if (t->kind == MAYBE_EVENTS)
		t->kind = EVENTS;
	else
		t->kind = (uint8_t)(t->indented ? NEITHER : kind_of_head(t));
	if (t->kind == EVENTS && t->indented)
		take_events_or_json(t, " ", 1);
	if (t->kind != UNTOLD)
		take_events_or_json(t, t->head, t->head_length);
}

static void take_text(void *context, const char *text, size_t length)
{
	struct usage_tap *t = context;
	const char *end = text + length;
	while (t->kind <= MAYBE_EVENTS && text < end) {
		const char *first = t->head_length ? text : scan_text(text, end);
		if (first > text)
			decide(t, first[-1]);
		if (first < end)
			decide(t, *first++);
		text = first;
	}
	if (text < end)
		take_events_or_json(t, text, (size_t)(end - text));
}

/* ---- the tap ---- */

static bool contains(struct http_span text, const char *word)
{
	size_t length = strlen(word);
	for (size_t i = 0; i + length <= text.length; i++)
		if ((text.at[i] | 0x20) == *word && strncasecmp(text.at + i, word, length) == 0)
			return true;
	return false;
}

static enum kind kind_of_type(struct http_span type)
{
	const char *parameters = type.length ? memchr(type.at, ';', type.length) : NULL;
	if (parameters)
		type.length = (size_t)(parameters - type.at);
	while (type.length && (type.at[type.length - 1] == ' ' || type.at[type.length - 1] == '\t'))
		type.length--;
	if (contains(type, "text/event-stream"))
		return MAYBE_EVENTS;
	if (contains(type, "json"))
		return JSON;
	return !type.length || http_span_is(type.at, type.length, "text/plain") ? UNTOLD : NEITHER;
}

struct usage_tap *usage_tap_new(struct http_span content_type, struct http_span content_encoding)
{
	enum usage_coding coding;
	enum kind kind = kind_of_type(content_type);
	if (kind == NEITHER || !usage_coding_find(content_encoding, &coding))
		return NULL;
	struct usage_tap *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->coding = (uint8_t)coding;
	t->kind = (uint8_t)kind;
	t->line_empty = true;
	usage_text_begin(&t->text, USAGE_TEXT_EXACT);
	return t;
}

/* Nothing more can be read, or has to be. */
static void end_decoding(struct usage_tap *t)
{
	usage_decoder_free(t->decoder);
	t->decoder = NULL;
}

void usage_tap_feed(struct usage_tap *t, const char *bytes, size_t length)
{
	if (!length || t->kind == NEITHER)
		return;
	if (t->coding == USAGE_PLAIN) {
		take_text(t, bytes, length);
		return;
	}
	t->coded_bytes += length;
	if (t->given_up)
		return;
	if (!t->decoder)
		t->decoder = usage_decoder_new((enum usage_coding)t->coding);
	if (!t->decoder || !usage_decoder_feed(t->decoder, bytes, length, take_text, t))
		t->given_up = true;
	if (t->given_up || t->kind == NEITHER)
		end_decoding(t);
}

static bool has(const struct usage_told *told, enum usage_field field)
{
	return told->seen & (1u << field);
}

static uint64_t sum(const struct usage_told *told, enum usage_field first, enum usage_field last)
{
	uint64_t total = 0;
	for (unsigned i = first; i <= last; i++)
		total += told->fields[i];
	return total < UINT32_MAX ? total : UINT32_MAX;
}

/* Past its beginning, the whole is taken to be as dense with text as what was scanned. Of what could not be decoded
 * to its end nothing is known but what came: no more text than that. */
static uint64_t estimate(const struct usage_tap *t)
{
	uint64_t text = t->given_up ? t->coded_bytes : t->text.text_bytes;
	uint64_t others = t->text.skipped + t->found_bytes;
	if (t->kind == UNTOLD || t->kind == NEITHER)
		return 0;
	if (!t->given_up && others && t->total_bytes > others)
		text =
			(uint64_t)((double)(text - t->found_text) * (double)t->total_bytes / (double)(t->total_bytes - others));
	return (text + USAGE_BYTES_PER_TOKEN - 1) / USAGE_BYTES_PER_TOKEN;
}

void usage_tap_read(const struct usage_tap *t, struct usage *out)
{
	struct usage_text text = t->text;
	usage_text_end(&text);
	const struct usage_told *told = &text.told;
	*out = (struct usage){.output_estimate = estimate(t)};
	if (out->output_estimate < told->first_output)
		out->output_estimate = told->first_output;
	if (has(told, PROMPT_TOKENS))
		out->input_tokens = told->fields[PROMPT_TOKENS];
	else if (has(told, PROMPT_COUNT))
		out->input_tokens = sum(told, PROMPT_COUNT, TOOL_PROMPT_COUNT);
	else
		out->input_tokens = told->fields[INPUT_TOKENS] + sum(told, CACHE_READ, CACHE_CREATION);
	out->input_known = has(told, PROMPT_TOKENS) || has(told, PROMPT_COUNT) || has(told, INPUT_TOKENS);
	out->output_known = true;
	if (has(told, COMPLETION_TOKENS))
		out->output_tokens = told->fields[COMPLETION_TOKENS];
	else if (has(told, CANDIDATES_COUNT) || has(told, THOUGHTS_COUNT))
		out->output_tokens = sum(told, CANDIDATES_COUNT, THOUGHTS_COUNT);
	else if (has(told, OUTPUT_TOKENS))
		out->output_tokens = told->fields[OUTPUT_TOKENS];
	else
		out->output_known = false;
	/* Nobody knows whether that was the last word. */
	if (t->given_up && out->output_known && out->output_tokens > out->output_estimate)
		out->output_estimate = out->output_tokens;
	out->beyond = told->beyond;
	out->input_known = out->input_known && !told->beyond;
	out->output_known = out->output_known && !told->beyond && !t->given_up;
	if (!out->output_known)
		out->output_tokens = out->output_estimate;
}

void usage_tap_free(struct usage_tap *t)
{
	if (t)
		usage_decoder_free(t->decoder);
	free(t);
}
