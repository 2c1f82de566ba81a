/* rewrite: writing heads. Appends to a buf that has room for the whole head from the start, so that
 * a field costs a copy. */
#include "path/rewrite.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static bool put(struct buf *out, const char *text)
{
	return buf_append(out, text, strlen(text));
}

static bool put_span(struct buf *out, struct http_span span)
{
	return buf_append(out, span.at, span.length);
}

/* The line as it came, without the white space at its end. */
static bool put_field(struct buf *out, const struct http_field *f)
{
	return buf_append(out, f->name, (size_t)(f->value + f->value_length - f->name)) && buf_append(out, "\r\n", 2);
}

static bool put_named(struct buf *out, const struct http_field *f, const char *value)
{
	return buf_append(out, f->name, f->name_length) && buf_append(out, ": ", 2) && put(out, value) &&
		buf_append(out, "\r\n", 2);
}

static bool put_request_line(const struct rewrite_request *r, struct buf *out)
{
	bool no_path = !*r->base_path && !r->rest.length;
	return put_span(out, r->head->method) && put(out, " ") && put(out, r->absolute_prefix) &&
		put(out, r->base_path) && put(out, no_path ? "/" : "") && put_span(out, r->rest) && put_span(out, r->query) &&
		put(out, " HTTP/1.1\r\n");
}

static bool is_private(const struct rewrite_request *r, const struct http_field *f)
{
	for (const char *const *name = r->private_fields; name && *name; name++)
		if (http_span_is(f->name, f->name_length, *name))
			return true;
	return false;
}

static bool put_key(const struct rewrite_request *r, struct buf *out, const struct http_field *at)
{
	if (at ? !buf_append(out, at->name, at->name_length) : !put(out, r->key_field))
		return false;
	return put(out, ": ") && put(out, r->key_prefix) && put(out, r->key) && put(out, "\r\n");
}

static bool put_request_field(const struct rewrite_request *r, struct buf *out, const struct http_field *f,
	bool *key_put)
{
	if (f->id == HTTP_HOST)
		return put_named(out, f, r->authority);
	if (f->id == HTTP_TRANSFER_ENCODING && r->chunked)
		return put_named(out, f, "chunked");
	if (r->websocket && f->id == HTTP_UPGRADE)
		return put_field(out, f);
	if (r->websocket && f->id == HTTP_CONNECTION)
		return f != http_find(r->head, HTTP_CONNECTION) || put_named(out, f, "Upgrade");
	if (f->hop || (r->drop_expect && f->id == HTTP_EXPECT) || is_private(r, f))
		return true;
	if (r->length && f->id == HTTP_CONTENT_LENGTH)
		return put_named(out, f, r->length);
	if (r->key_field && http_span_is(f->name, f->name_length, r->key_field)) {
		if (*key_put)
			return true;
		*key_put = true;
		return put_key(r, out, f);
	}
	return (r->drop_fields & 1u << f->id) || put_field(out, f);
}

bool rewrite_request(const struct rewrite_request *r, struct buf *out)
{
	bool key_put = false;
	if (!buf_reserve(out, r->head->length + strlen(r->authority) + strlen(r->base_path) + 512) ||
		!put_request_line(r, out))
		return false;
	if (!http_find(r->head, HTTP_HOST) && !(put(out, "Host: ") && put(out, r->authority) && put(out, "\r\n")))
		return false;
	for (unsigned i = 0; i < r->head->field_count; i++)
		if (!put_request_field(r, out, &r->head->fields[i], &key_put))
			return false;
	if (r->key_field && !key_put && !put_key(r, out, NULL))
		return false;
	if (r->proxy_authorization &&
		!(put(out, "Proxy-Authorization: ") && put(out, r->proxy_authorization) && put(out, "\r\n")))
		return false;
	return put(out, r->extra ? r->extra : "") && put(out, "\r\n");
}

const char *rewrite_date_line(void)
{
	static __thread char line[64];
	static __thread time_t written_at;
	time_t now = time(NULL);
	if (now != written_at) {
		struct tm utc;
		gmtime_r(&now, &utc);
		strftime(line, sizeof line, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
		written_at = now;
	}
	return line;
}

struct seen {
	bool date;
	bool accel;
	bool event_stream;
	bool length;
};

static bool is_event_stream(const struct http_field *f)
{
	static const char type[] = "text/event-stream";
	size_t length = sizeof type - 1;
	return f->value_length >= length && strncasecmp(f->value, type, length) == 0 &&
		(f->value_length == length || strchr("; \t", f->value[length]));
}

static bool is_cors(const struct http_field *f)
{
	static const char prefix[] = "access-control-";
	return f->name_length >= sizeof prefix - 1 && strncasecmp(f->name, prefix, sizeof prefix - 1) == 0;
}

/* Another apiproxy behind this one has limits of its own: what is told twice could be read as either. */
static bool is_replaced(const struct rewrite_response *r, const struct http_field *f)
{
	static const char ours[] = "x-apiproxy-";
	if (!r->extra || f->name_length < sizeof ours || strncasecmp(f->name, ours, sizeof ours - 1) != 0)
		return false;
	for (const char *line = r->extra; *line; line = strchr(line, '\n') + 1)
		if (strncasecmp(line, f->name, f->name_length) == 0 && line[f->name_length] == ':')
			return true;
	return false;
}

static bool put_response_field(const struct rewrite_response *r, struct buf *out, const struct http_field *f,
	struct seen *seen)
{
	if (r->websocket && (f->id == HTTP_UPGRADE || f->id == HTTP_CONNECTION))
		return put_field(out, f);
	if (f->hop || (r->cors.ours && is_cors(f)) || is_replaced(r, f))
		return true;
	if (f->id == HTTP_CONTENT_LENGTH) {
		if (r->drop_length || seen->length) /* equal ones were let through: one is enough */
			return true;
		seen->length = true;
	}
	seen->date |= f->id == HTTP_DATE;
	seen->accel |= f->id == HTTP_X_ACCEL_BUFFERING;
	seen->event_stream |= f->id == HTTP_CONTENT_TYPE && is_event_stream(f);
	return put_field(out, f);
}

bool rewrite_cors_fields(const struct rewrite_cors *cors, struct buf *out)
{
	return (!cors->origin ||
			   buf_printf(out, "Access-Control-Allow-Origin: %s\r\nAccess-Control-Expose-Headers: *\r\n",
				   cors->origin)) &&
		(!cors->by_origin || put(out, "Vary: Origin\r\n"));
}

bool rewrite_response(const struct rewrite_response *r, struct buf *out)
{
	struct seen seen = {0};
	const char *connection = r->close ? "Connection: close\r\n" : r->keep_alive ? "Connection: keep-alive\r\n" : "";
	if (!buf_reserve(out, r->head->length + 256) || !put(out, "HTTP/1.1 ") ||
		!buf_append_number(out, r->head->status) || !put(out, " ") ||
		!put(out, http_reason_phrase(r->head->status)) || !put(out, "\r\n"))
		return false;
	for (unsigned i = 0; i < r->head->field_count; i++)
		if (!put_response_field(r, out, &r->head->fields[i], &seen))
			return false;
	return (seen.date || put(out, rewrite_date_line())) &&
		(!seen.event_stream || seen.accel || put(out, "X-Accel-Buffering: no\r\n")) &&
		rewrite_cors_fields(&r->cors, out) && (!r->chunked || put(out, "Transfer-Encoding: chunked\r\n")) &&
		put(out, connection) && put(out, r->extra ? r->extra : "") && put(out, "\r\n");
}
