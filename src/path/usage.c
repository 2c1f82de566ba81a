/* usage: the tap. Bytes go through the content coding, then through the lines of server-sent events if
 * they are such, then through the JSON scanner; what is kept is one number per field and a count of the
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
#include "path/usage_json.h"

enum usage_field {
	PROMPT_TOKENS,
	COMPLETION_TOKENS,
	INPUT_TOKENS,
	OUTPUT_TOKENS,
	CACHE_READ,
	CACHE_CREATION,
	PROMPT_COUNT,
	TOOL_PROMPT_COUNT,
	CANDIDATES_COUNT,
	THOUGHTS_COUNT,
	FIELD_COUNT,
};

enum line_state { LINE_START, LINE_DATA, LINE_OTHER };

struct usage_tap {
	struct usage_decoder *decoder;
	struct json_scan scan;
	uint64_t text_bytes;
	uint64_t event_bytes; /* seen of an event stream */
	uint32_t fields[FIELD_COUNT];
	uint32_t first_output; /* Anthropic's message_start: a beginning, no result */
	uint16_t seen;         /* a bit for each field */
	uint8_t coding;
	uint8_t line_state;
	uint8_t line_matched; /* bytes of "data:" */
	bool events;
	bool line_empty; /* nothing on the line so far */
	bool after_cr;
	bool ended;     /* undecodable from here on */
	bool beginning; /* inside message_start's usage */
};

/* ---- fields ---- */

static bool has(const struct usage_tap *t, enum usage_field field)
{
	return t->seen & (1u << field);
}

/* Objects that may hold usage: the root's own, and that of a few objects in it. */
static void on_open(void *context, struct json_scan *s, enum json_key key, const char *at)
{
	struct usage_tap *t = context;
	uint64_t level = json_level(s);
	if (*at != '{' || (key != JSON_USAGE && key != JSON_USAGE_METADATA))
		return;
	enum json_key parent = level == 3 ? json_parent(s, 2) : JSON_NO_KEY;
	if (level != 2 && parent != JSON_MESSAGE && parent != JSON_RESPONSE && parent != JSON_X_GROQ)
		return;
	s->watched = s->depth;
	t->beginning = parent == JSON_MESSAGE;
}

static void on_string(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	struct usage_tap *t = context;
	(void)s;
	(void)at;
	if (key >= JSON_CONTENT && key <= JSON_REFUSAL)
		t->text_bytes += length;
}

static void on_scalar(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	struct usage_tap *t = context;
	uint32_t value;
	if (s->depth != s->watched || key < JSON_PROMPT_TOKENS || key > JSON_THOUGHTS_COUNT)
		return;
	if (!json_whole_number(at, length, &value))
		return;
	if (t->beginning && key == JSON_OUTPUT_TOKENS) {
		t->first_output = value;
		return;
	}
	unsigned field = key - JSON_PROMPT_TOKENS;
	t->fields[field] = value;
	t->seen |= (uint16_t)(1u << field);
}

static const struct json_reader reader = {.open = on_open, .string = on_string, .scalar = on_scalar};

/* ---- server-sent events (WHATWG HTML, 9.2) ---- */

static void end_line(struct usage_tap *t)
{
	if (t->line_empty)
		t->scan = (struct json_scan){0};
	else if (t->line_state == LINE_DATA)
		json_scan_feed(&t->scan, &reader, t, "\n", 1);
	t->line_state = LINE_START;
	t->line_matched = 0;
	t->line_empty = true;
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

static void take_lines(struct usage_tap *t, const char *at, const char *end)
{
	while (at < end) {
		bool second = t->after_cr && *at == '\n';
		t->after_cr = false;
		if (second) {
			at++;
			continue;
		}
		const char *stop =
			t->line_state == LINE_START && *at != '\r' && *at != '\n' ? at : json_find_either(at, end, '\r', '\n');
		if (stop > at && t->line_state == LINE_DATA)
			json_scan_feed(&t->scan, &reader, t, at, (size_t)(stop - at));
		if (stop == at && *at != '\r' && *at != '\n') {
			t->line_empty = false;
			at = start_line(t, at, end);
			continue;
		}
		if (stop == end)
			return;
		t->after_cr = *stop == '\r';
		end_line(t);
		at = stop + 1;
	}
}

/* Past its first EXACT_BYTES, a stream that comes in bulk is searched, not scanned. In JSON the bytes
 * "usage, with an unescaped quote, can only begin a string; so an event without a `"usage…": {` has no usage
 * to tell, and is not looked at more closely. Its text is taken to be as dense as that of the first
 * SAMPLE_BYTES of the bulk. */
enum { EXACT_BYTES = 64 * 1024, BULK_MIN = 4096, SAMPLE_BYTES = 1024 };

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

/* Is this a key with an object behind it? A line's end in between leaves that to the scanner. */
static bool opens_usage(const char *at, const char *end)
{
	bool colon = false;
	at = memchr(at + 1, '"', (size_t)(end - at - 1));
	for (at = at ? at + 1 : end; at < end; at++) {
		if (*at == '\r' || *at == '\n' || (*at == '{' && colon))
			return true;
		if (*at != ' ' && *at != '\t' && (*at != ':' || colon))
			return false;
		colon = colon || *at == ':';
	}
	return false;
}

static const char *find_usage(const char *at, const char *end)
{
	static const char name[] = "\"usage";
	for (; (at = json_find_pair(at, end, '"', 'u')) < end; at++)
		if ((size_t)(end - at) > sizeof name && memcmp(at, name, sizeof name - 1) == 0 && opens_usage(at, end))
			return at;
	return NULL;
}

/* Whole events, from at to end. */
static void take_bulk(struct usage_tap *t, const char *at, const char *end)
{
	uint64_t text_before = t->text_bytes;
	const char *sampled = behind_event(at + SAMPLE_BYTES, end);
	if (!sampled)
		sampled = end;
	take_lines(t, at, sampled);
	uint64_t skipped = 0;
	uint64_t text = t->text_bytes - text_before;
	uint64_t looked_at = (uint64_t)(sampled - at);
	for (at = sampled; at < end;) {
		const char *usage = find_usage(at, end);
		const char *event = usage ? behind_last_event(at, usage) : end;
		skipped += (uint64_t)(event - at);
		at = usage ? behind_event(usage, end) : end;
		if (!at)
			at = end;
		take_lines(t, event, at);
	}
	t->text_bytes += skipped * text / looked_at;
}

static void take_events(struct usage_tap *t, const char *at, const char *end)
{
	bool bulk = t->event_bytes > EXACT_BYTES && end - at >= BULK_MIN;
	t->event_bytes += (uint64_t)(end - at);
	if (bulk) {
		/* The rest of the event that was cut, whole events, the begin of another one. */
		const char *first = behind_event(at, end);
		const char *last = first ? behind_last_event(first, end) : end;
		take_lines(t, at, first ? first : end);
		at = first ? first : end;
		if (last - at > SAMPLE_BYTES) {
			take_bulk(t, at, last);
			at = last;
		}
	}
	take_lines(t, at, end);
}

/* ---- the tap ---- */

static bool contains(struct http_span text, const char *word)
{
	size_t length = strlen(word);
	for (size_t i = 0; i + length <= text.length; i++)
		if (strncasecmp(text.at + i, word, length) == 0)
			return true;
	return false;
}

struct usage_tap *usage_tap_new(struct http_span content_type, struct http_span content_encoding)
{
	enum usage_coding coding;
	const char *parameters = content_type.length ? memchr(content_type.at, ';', content_type.length) : NULL;
	if (parameters)
		content_type.length = (size_t)(parameters - content_type.at);
	bool events = contains(content_type, "text/event-stream");
	if ((!events && !contains(content_type, "json")) || !usage_coding_find(content_encoding, &coding))
		return NULL;
	struct usage_tap *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->coding = (uint8_t)coding;
	t->events = events;
	t->line_empty = true;
	return t;
}

static void take_text(void *context, const char *text, size_t length)
{
	struct usage_tap *t = context;
	if (t->events)
		take_events(t, text, text + length);
	else
		json_scan_feed(&t->scan, &reader, t, text, length);
}

void usage_tap_feed(struct usage_tap *t, const char *bytes, size_t length)
{
	if (t->ended || !length)
		return;
	if (t->coding == USAGE_PLAIN) {
		take_text(t, bytes, length);
		return;
	}
	if (!t->decoder)
		t->decoder = usage_decoder_new((enum usage_coding)t->coding);
	if (t->decoder && usage_decoder_feed(t->decoder, bytes, length, take_text, t))
		return;
	t->ended = true;
	usage_decoder_free(t->decoder);
	t->decoder = NULL;
}

static uint64_t sum(const struct usage_tap *t, enum usage_field first, enum usage_field last)
{
	uint64_t total = 0;
	for (unsigned i = first; i <= last; i++)
		total += t->fields[i];
	return total < UINT32_MAX ? total : UINT32_MAX;
}

void usage_tap_read(const struct usage_tap *t, struct usage *out)
{
	*out = (struct usage){.output_estimate = (t->text_bytes + USAGE_BYTES_PER_TOKEN - 1) / USAGE_BYTES_PER_TOKEN};
	if (out->output_estimate < t->first_output)
		out->output_estimate = t->first_output;
	if (has(t, PROMPT_TOKENS))
		out->input_tokens = t->fields[PROMPT_TOKENS];
	else if (has(t, PROMPT_COUNT))
		out->input_tokens = sum(t, PROMPT_COUNT, TOOL_PROMPT_COUNT);
	else
		out->input_tokens = t->fields[INPUT_TOKENS] + sum(t, CACHE_READ, CACHE_CREATION);
	out->input_known = has(t, PROMPT_TOKENS) || has(t, PROMPT_COUNT) || has(t, INPUT_TOKENS);
	out->output_known = true;
	if (has(t, COMPLETION_TOKENS))
		out->output_tokens = t->fields[COMPLETION_TOKENS];
	else if (has(t, CANDIDATES_COUNT) || has(t, THOUGHTS_COUNT))
		out->output_tokens = sum(t, CANDIDATES_COUNT, THOUGHTS_COUNT);
	else if (has(t, OUTPUT_TOKENS))
		out->output_tokens = t->fields[OUTPUT_TOKENS];
	else
		out->output_known = false;
	if (!out->output_known)
		out->output_tokens = out->output_estimate;
}

void usage_tap_free(struct usage_tap *t)
{
	if (t)
		usage_decoder_free(t->decoder);
	free(t);
}
