/* load_response: a decoder that trusts its vendor's form and checks what a proxy may get wrong. */
#include "load_response.h"

#include <strings.h>

#include "tool.h"

void response_reset(struct response *r)
{
	free(r->partial);
	*r = (struct response){.on_event = r->on_event, .context = r->context};
}

static enum response_progress keep_partial(struct response *r, const char *bytes, size_t length, size_t most)
{
	if (r->partial_length + length > most)
		return RESPONSE_FAULT;
	if (!r->partial)
		r->partial = malloc(RESPONSE_HEAD_MAX + 1);
	memcpy(r->partial + r->partial_length, bytes, length);
	r->partial_length += length;
	r->partial[r->partial_length] = 0;
	return RESPONSE_MORE;
}

/* ---- events ---- */

static enum response_progress take_events(struct response *r, const char *bytes, size_t length)
{
	if (keep_partial(r, bytes, length, RESPONSE_HEAD_MAX) == RESPONSE_FAULT)
		return RESPONSE_FAULT;
	char *event = r->partial, *end;
	while ((end = strstr(event, "\n\n"))) {
		*end = 0;
		r->on_event(r->context, event);
		event = end + 2;
	}
	r->partial_length -= (size_t)(event - r->partial);
	memmove(r->partial, event, r->partial_length + 1);
	return RESPONSE_MORE;
}

static enum response_progress take_size(struct response *r, char byte)
{
	static const char digits[] = "0123456789abcdef";
	const char *digit = strchr(digits, byte | 0x20);
	if (byte == '\n') {
		r->part = r->left ? RESPONSE_CHUNK : RESPONSE_CHUNK_END;
		return r->left ? RESPONSE_MORE : RESPONSE_COMPLETE;
	}
	if (byte != '\r' && !digit)
		return RESPONSE_FAULT;
	if (byte != '\r')
		r->left = r->left * 16 + (uint64_t)(digit - digits);
	return RESPONSE_MORE;
}

static enum response_progress take_chunked(struct response *r, const char *bytes, size_t length)
{
	enum response_progress progress = RESPONSE_MORE;
	while (length && progress == RESPONSE_MORE) {
		size_t taken = 1;
		if (r->part == RESPONSE_SIZE) {
			progress = take_size(r, *bytes);
		} else if (r->part == RESPONSE_CHUNK) {
			taken = length < r->left ? length : (size_t)r->left;
			progress = take_events(r, bytes, taken);
			r->left -= taken;
			r->part = r->left ? RESPONSE_CHUNK : RESPONSE_CHUNK_END;
		} else if (*bytes == '\n') {
			r->part = RESPONSE_SIZE;
		}
		bytes += taken;
		length -= taken;
	}
	return progress;
}

/* ---- heads, and bodies with a length ---- */

static enum response_progress take_body(struct response *r, size_t length)
{
	if (length > r->left)
		return RESPONSE_FAULT;
	r->left -= length;
	return r->left ? RESPONSE_MORE : RESPONSE_COMPLETE;
}

static enum response_progress take_head(struct response *r, const char *head, size_t length)
{
	const char *end = strstr(head, "\r\n\r\n");
	if (!end)
		return RESPONSE_MORE;
	const char *body_length = tool_field(head, "content-length");
	size_t head_length = (size_t)(end + 4 - head);
	if (sscanf(head, "HTTP/1.1 %d", &r->status) != 1)
		return RESPONSE_FAULT;
	r->part = body_length ? RESPONSE_BODY : RESPONSE_SIZE;
	r->left = body_length ? strtoull(body_length, NULL, 10) : 0;
	return body_length ? take_body(r, length - head_length) :
						 take_chunked(r, head + head_length, length - head_length);
}

static enum response_progress feed_head(struct response *r, char *bytes, size_t length)
{
	bytes[length] = 0;
	if (!r->partial) {
		enum response_progress progress = take_head(r, bytes, length);
		return r->part == RESPONSE_HEAD ? keep_partial(r, bytes, length, RESPONSE_HEAD_MAX) : progress;
	}
	if (keep_partial(r, bytes, length, RESPONSE_HEAD_MAX) == RESPONSE_FAULT)
		return RESPONSE_FAULT;
	char *head = r->partial;
	size_t head_length = r->partial_length;
	r->partial = NULL;
	r->partial_length = 0;
	enum response_progress progress = take_head(r, head, head_length);
	if (r->part == RESPONSE_HEAD) {
		r->partial = head;
		r->partial_length = head_length;
	} else {
		free(head);
	}
	return progress;
}

enum response_progress response_feed(struct response *r, char *bytes, size_t length)
{
	if (r->part == RESPONSE_HEAD)
		return feed_head(r, bytes, length);
	return r->part == RESPONSE_BODY ? take_body(r, length) : take_chunked(r, bytes, length);
}
