/* http1: parsing of heads. Stateless: a partial head is parsed again from its start when more of
 * it has come, which is rare and bounded by HTTP_HEAD_MAX. Any thread. */
#include "base/http1.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* RFC 9110, 5.6.2: what a token is made of. */
/* clang-format off */
static const bool token_bytes[256] = {
	['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
	['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1,
	['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};
/* clang-format on */

struct field_name {
	const char *name;
	uint8_t length;
	uint8_t id;
	bool hop;
};

static const struct field_name field_names[] = {
#define X(id, name, hop) {name, sizeof name - 1, HTTP_##id, hop},
	HTTP_FIELD_TABLE(X)
#undef X
};

enum { FIELD_NAME_COUNT = sizeof field_names / sizeof field_names[0], NAMES_SCANNED = 16 };

bool http_is_token(const char *at, size_t length)
{
	if (!length)
		return false;
	for (size_t i = 0; i < length; i++)
		if (!token_bytes[(unsigned char)at[i]])
			return false;
	return true;
}

bool http_span_is(const char *at, size_t length, const char *text)
{
	return strlen(text) == length && strncasecmp(at, text, length) == 0;
}

/* First letters tell most names apart: one comparison of a byte per row for the rest. */
static const struct field_name *find_name(const char *name, size_t length)
{
	for (unsigned i = 0; i < FIELD_NAME_COUNT; i++) {
		const struct field_name *f = &field_names[i];
		if (f->length == length && (name[0] | 0x20) == f->name[0] && strncasecmp(name, f->name, length) == 0)
			return f;
	}
	return NULL;
}

const struct http_field *http_find(const struct http_head *head, enum http_field_id id)
{
	for (unsigned i = 0; i < head->field_count; i++)
		if (head->fields[i].id == id)
			return &head->fields[i];
	return NULL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The next element of a comma list, empty ones left out: *list moves behind it. false: no more. */
static bool next_element(const char **list, const char *end, struct http_span *element)
{
	const char *at = *list;
	while (at < end && (is_blank(*at) || *at == ','))
		at++;
	if (at >= end)
		return false;
	const char *comma = memchr(at, ',', (size_t)(end - at));
	const char *stop = comma ? comma : end;
	*list = stop;
	while (stop > at && is_blank(stop[-1]))
		stop--;
	*element = (struct http_span){at, (size_t)(stop - at)};
	return true;
}

bool http_list_has(const char *list, size_t length, const char *token)
{
	const char *at = list;
	struct http_span element;
	while (next_element(&at, list + length, &element))
		if (http_span_is(element.at, element.length, token))
			return true;
	return false;
}

bool http_connection_has(const struct http_head *head, const char *token)
{
	for (unsigned i = 0; i < head->field_count; i++)
		if (head->fields[i].id == HTTP_CONNECTION &&
			http_list_has(head->fields[i].value, head->fields[i].value_length, token))
			return true;
	return false;
}

bool http_upgrades_to(const struct http_head *head, const char *protocol)
{
	bool named = false;
	for (unsigned i = 0; i < head->field_count; i++) {
		const struct http_field *f = &head->fields[i];
		if (f->id != HTTP_UPGRADE)
			continue;
		if (named || !http_span_is(f->value, f->value_length, protocol))
			return false;
		named = true;
	}
	return named && http_connection_has(head, "upgrade");
}

/* One line from `at`: its length without the line end, *next behind it. false: not all there. */
static bool take_line(const char *at, const char *end, size_t *length, const char **next)
{
	const char *newline = memchr(at, '\n', (size_t)(end - at));
	if (!newline)
		return false;
	*next = newline + 1;
	*length = (size_t)(newline - at);
	if (*length && newline[-1] == '\r')
		(*length)--;
	return true;
}

static bool has_cr_or_nul(const char *at, size_t length)
{
	return memchr(at, '\r', length) || memchr(at, '\0', length);
}

static const char *parse_field(struct http_field *field, const char *line, size_t length)
{
	if (is_blank(line[0]))
		return "a header line starts with white space";
	const char *colon = memchr(line, ':', length);
	if (!colon)
		return "a header line has no colon";
	size_t name_length = (size_t)(colon - line);
	if (!http_is_token(line, name_length))
		return "a header name is not a token";
	if (has_cr_or_nul(colon, length - name_length))
		return "a header value has a CR or NUL";
	const char *value = colon + 1;
	const char *end = line + length;
	while (value < end && is_blank(*value))
		value++;
	while (end > value && is_blank(end[-1]))
		end--;
	const struct field_name *known = find_name(line, name_length);
	*field = (struct http_field){
		.name = line,
		.value = value,
		.name_length = (uint16_t)name_length,
		.value_length = (uint16_t)(end - value),
		.id = known ? known->id : HTTP_OTHER,
		.hop = known && known->hop,
	};
	return NULL;
}

/* By length first: any order will do. */
static int compare_names(const char *a, size_t a_length, const char *b, size_t b_length)
{
	return a_length != b_length ? (a_length < b_length ? -1 : 1) : strncasecmp(a, b, a_length);
}

static int compare_fields(const void *a, const void *b)
{
	const struct http_field *left = *(struct http_field *const *)a, *right = *(struct http_field *const *)b;
	return compare_names(left->name, left->name_length, right->name, right->name_length);
}

/* A message's framing and Host are not Connection's to name; what is marked needs no more. */
static bool can_be_marked(const struct http_field *f)
{
	return !f->hop && f->id != HTTP_CONTENT_LENGTH && f->id != HTTP_HOST;
}

static void mark_by_scan(struct http_head *head, struct http_span name)
{
	for (unsigned i = 0; i < head->field_count; i++) {
		struct http_field *f = &head->fields[i];
		if (f->name_length == name.length && can_be_marked(f) && strncasecmp(f->name, name.at, name.length) == 0)
			f->hop = true;
	}
}

static void mark_by_search(struct http_field *const *sorted, unsigned count, struct http_span name)
{
	unsigned low = 0, high = count;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (compare_names(sorted[middle]->name, sorted[middle]->name_length, name.at, name.length) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < count && can_be_marked(sorted[low]); low++) { /* all of one name or none */
		struct http_field *f = sorted[low];
		if (compare_names(f->name, f->name_length, name.at, name.length) != 0)
			return;
		f->hop = true;
	}
}

/* What Connection names goes no further either. Who names thousands shall not cost thousands times the fields. */
static void mark_named_hops(struct http_head *head)
{
	struct http_field *sorted[HTTP_FIELDS_MAX];
	unsigned names = 0;
	for (unsigned i = 0; i < head->field_count; i++) {
		const struct http_field *f = &head->fields[i];
		const char *at = f->value;
		struct http_span name;
		while (f->id == HTTP_CONNECTION && next_element(&at, f->value + f->value_length, &name)) {
			if (names++ < NAMES_SCANNED) {
				mark_by_scan(head, name);
				continue;
			}
			if (names == NAMES_SCANNED + 1) {
				for (unsigned n = 0; n < head->field_count; n++)
					sorted[n] = &head->fields[n];
				qsort(sorted, head->field_count, sizeof *sorted, compare_fields);
			}
			mark_by_search(sorted, head->field_count, name);
		}
	}
}

static enum http_parse malformed(const char **reason, const char *text)
{
	if (reason)
		*reason = text;
	return HTTP_MALFORMED;
}

static enum http_parse parse_fields(struct http_head *head, const char *start, const char *at, const char *end,
	size_t bytes_max, const char **reason)
{
	const char *first = at;
	head->field_count = 0;
	for (;;) {
		size_t length;
		const char *next;
		bool whole = take_line(at, end, &length, &next);
		if ((size_t)((whole ? next : end) - first) > bytes_max + 2)
			return HTTP_FIELDS_TOO_LARGE;
		if (!whole)
			return HTTP_PARTIAL;
		if (!length) {
			head->bytes = start;
			head->length = (size_t)(next - start);
			break;
		}
		if (head->field_count == HTTP_FIELDS_MAX)
			return HTTP_FIELDS_TOO_LARGE;
		const char *fault = parse_field(&head->fields[head->field_count], at, length);
		if (fault)
			return malformed(reason, fault);
		head->field_count++;
		at = next;
	}
	mark_named_hops(head);
	return HTTP_COMPLETE;
}

static enum http_parse parse_version(const char *at, size_t length, uint8_t *minor)
{
	if (length != 8 || memcmp(at, "HTTP/", 5) != 0 || at[5] < '0' || at[5] > '9' || at[6] != '.' || at[7] < '0' ||
		at[7] > '9')
		return HTTP_MALFORMED;
	if (at[5] != '1')
		return HTTP_VERSION_UNKNOWN;
	*minor = at[7] == '0' ? 0 : 1;
	return HTTP_COMPLETE;
}

static const char *parse_target(struct http_span target)
{
	if (!target.length)
		return "the request target is empty";
	for (size_t i = 0; i < target.length; i++) {
		unsigned char c = (unsigned char)target.at[i];
		if (c <= 0x20 || c == 0x7f)
			return "the request target has a space or control byte";
	}
	return NULL;
}

static enum http_parse parse_request_line(struct http_head *head, const char *line, size_t length,
	const char **reason)
{
	const char *space = memchr(line, ' ', length);
	if (!space)
		return malformed(reason, "the request line is not METHOD TARGET VERSION");
	head->method = (struct http_span){line, (size_t)(space - line)};
	if (!http_is_token(line, head->method.length))
		return malformed(reason, "the method is not a token");
	const char *last = memrchr(line, ' ', length);
	if (last == space)
		return malformed(reason, "the request line is not METHOD TARGET VERSION");
	enum http_parse version = parse_version(last + 1, (size_t)(line + length - last - 1), &head->minor);
	if (version != HTTP_COMPLETE) {
		if (reason)
			*reason = "the HTTP version is unknown";
		return version;
	}
	head->target = (struct http_span){space + 1, (size_t)(last - space - 1)};
	const char *fault = parse_target(head->target);
	return fault ? malformed(reason, fault) : HTTP_COMPLETE;
}

enum http_parse http_parse_request(struct http_head *head, const char *data, size_t length, const char **reason)
{
	const char *at = data;
	const char *end = data + length;
	/* Empty lines before a request: an old client's habit (RFC 9112, 2.2). */
	while (at < end && (*at == '\n' || (*at == '\r' && at + 1 < end && at[1] == '\n')) && at - data < 8)
		at += *at == '\n' ? 1 : 2;
	size_t line_length;
	const char *next;
	bool whole = take_line(at, end, &line_length, &next);
	if ((whole ? line_length : (size_t)(end - at)) > HTTP_LINE_MAX)
		return HTTP_LINE_TOO_LONG;
	if (!whole) {
		if (at < end && *at != '\r' && !token_bytes[(unsigned char)*at])
			return malformed(reason, "the method is not a token");
		return HTTP_PARTIAL;
	}
	enum http_parse result = parse_request_line(head, at, line_length, reason);
	if (result != HTTP_COMPLETE)
		return result;
	return parse_fields(head, data, next, end, HTTP_FIELDS_BYTES_MAX, reason);
}

enum http_parse http_parse_response(struct http_head *head, const char *data, size_t length, const char **reason)
{
	size_t line_length;
	const char *next;
	if (!take_line(data, data + length, &line_length, &next)) {
		if (memcmp(data, "HTTP/", length < 5 ? length : 5) != 0)
			return malformed(reason, "the status line is not HTTP/1.x");
		return length > HTTP_LINE_MAX ? HTTP_LINE_TOO_LONG : HTTP_PARTIAL;
	}
	if (line_length < 12 || parse_version(data, 8, &head->minor) != HTTP_COMPLETE || data[8] != ' ')
		return malformed(reason, "the status line is not HTTP/1.x");
	const char *digits = data + 9;
	head->status = 0;
	for (int i = 0; i < 3; i++) {
		if (digits[i] < '0' || digits[i] > '9')
			return malformed(reason, "the status is not a number");
		head->status = (uint16_t)(head->status * 10 + (digits[i] - '0'));
	}
	if (head->status < 100 || (line_length > 12 && data[12] != ' '))
		return malformed(reason, "the status is not a number from 100 to 999");
	return parse_fields(head, data, next, data + length, HTTP_RESPONSE_FIELDS_BYTES_MAX, reason);
}

/* ---- what a head says of its body ---- */

static const char *parse_length(const struct http_field *field, uint64_t *length)
{
	static const char fault[] = "Content-Length is not a number";
	if (!field->value_length || field->value_length > 19)
		return fault;
	*length = 0;
	for (unsigned i = 0; i < field->value_length; i++) {
		char c = field->value[i];
		if (c < '0' || c > '9')
			return fault;
		*length = *length * 10 + (uint64_t)(c - '0');
	}
	return *length > INT64_MAX ? fault : NULL;
}

struct framing {
	const struct http_field *length; /* the first of each */
	const struct http_field *coding;
	unsigned lengths;
	unsigned codings;
};

static const char *scan_framing(const struct http_head *head, struct framing *found)
{
	*found = (struct framing){0};
	for (unsigned i = 0; i < head->field_count; i++) {
		const struct http_field *f = &head->fields[i];
		if (f->id == HTTP_CONTENT_LENGTH && found->lengths++ == 0)
			found->length = f;
		if (f->id == HTTP_TRANSFER_ENCODING && found->codings++ == 0)
			found->coding = f;
	}
	if (found->codings > 1)
		return "Transfer-Encoding is repeated";
	if (found->codings && !http_span_is(found->coding->value, found->coding->value_length, "chunked"))
		return "the only transfer coding understood is chunked";
	if (found->codings && head->minor == 0)
		return "Transfer-Encoding does not exist in HTTP/1.0";
	return NULL;
}

const char *http_request_body(const struct http_head *head, struct http_body *body)
{
	struct framing found;
	*body = (struct http_body){.framing = HTTP_NO_BODY, .done = true};
	const char *fault = scan_framing(head, &found);
	if (fault)
		return fault;
	if (found.lengths && found.codings)
		return "Content-Length and Transfer-Encoding exclude each other";
	if (found.lengths > 1)
		return "Content-Length is repeated";
	if (found.codings) {
		*body = (struct http_body){.framing = HTTP_CHUNKED};
	} else if (found.lengths) {
		fault = parse_length(found.length, &body->remaining);
		body->framing = HTTP_LENGTH;
		body->done = body->remaining == 0;
	}
	return fault;
}

/* An answer may repeat its length, but not change it. */
static const char *check_lengths(const struct http_head *head, uint64_t first)
{
	for (unsigned i = 0; i < head->field_count; i++) {
		uint64_t value;
		if (head->fields[i].id != HTTP_CONTENT_LENGTH)
			continue;
		const char *fault = parse_length(&head->fields[i], &value);
		if (fault)
			return fault;
		if (value != first)
			return "Content-Lengths differ";
	}
	return NULL;
}

const char *http_response_body(const struct http_head *head, bool answers_head, struct http_body *body)
{
	struct framing found;
	uint64_t length = 0;
	*body = (struct http_body){.framing = HTTP_UNTIL_CLOSE};
	const char *fault = scan_framing(head, &found);
	if (!fault && found.lengths)
		fault = parse_length(found.length, &length);
	if (!fault)
		fault = check_lengths(head, length);
	if (fault)
		return fault;
	if (answers_head || head->status == 204 || head->status == 304 || head->status / 100 == 1)
		*body = (struct http_body){.framing = HTTP_NO_BODY, .done = true};
	else if (found.codings)
		*body = (struct http_body){.framing = HTTP_CHUNKED, .lax = true};
	else if (found.lengths)
		*body = (struct http_body){.framing = HTTP_LENGTH, .remaining = length, .done = length == 0};
	return NULL;
}

/* ---- Host ---- */

static bool is_host_byte(unsigned char c)
{
	return token_bytes[c] || c == '(' || c == ')' || c == ',' || c == ';' || c == '=';
}

bool http_is_host(const char *at, size_t length)
{
	const char *end = at + length;
	if (at < end && *at == '[') {
		const char *close = memchr(at, ']', length);
		if (!close || close == at + 1)
			return false;
		for (at++; at < close; at++)
			if (!strchr("0123456789abcdefABCDEF:.", *at) || !*at)
				return false;
		at = close + 1;
	} else {
		const char *start = at;
		while (at < end && *at != ':' && is_host_byte((unsigned char)*at) && !strchr("#^`|", *at))
			at++;
		if (at == start)
			return false;
	}
	if (at == end)
		return true;
	if (*at++ != ':' || end - at > 5)
		return false;
	unsigned port = 0;
	for (; at < end; at++) {
		if (*at < '0' || *at > '9')
			return false;
		port = port * 10 + (unsigned)(*at - '0');
	}
	return port <= 65535;
}

const char *http_check_host(const struct http_head *head)
{
	const struct http_field *host = NULL;
	for (unsigned i = 0; i < head->field_count; i++) {
		if (head->fields[i].id != HTTP_HOST)
			continue;
		if (host)
			return "Host is repeated";
		host = &head->fields[i];
	}
	if (!host)
		return head->minor == 0 ? NULL : "Host is missing";
	return http_is_host(host->value, host->value_length) ? NULL : "Host is invalid";
}
