/* http1_body: taking chunked framing off, strictly: hexadecimal size without prefix or blanks (but
 * from a vendor, behind it), CRLF at each line's end, bounded extensions and trailers, which are
 * dropped. A small state machine over bytes; payload is compacted in place, a single chunk in a read is not moved at all. */
#include "base/http1.h"

#include <string.h>

#include "base/text.h"

enum chunk_state {
	SIZE_FIRST, /* the first digit of a size */
	SIZE,
	SIZE_BLANK, /* white space before an extension (RFC 9112, 7.1.1: BWS) */
	EXTENSION,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER_START, /* a trailer line, or the end */
	TRAILER_NAME,
	TRAILER_VALUE,
	TRAILER_LF,
	END_LF,
};

enum { SIZE_DIGITS_MAX = 32, EXTENSION_MAX = 4096, TRAILERS_MAX = 16384 };

static bool is_text(unsigned char c)
{
	return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static bool size_byte(struct http_body *b, char c)
{
	int digit = text_hex_digit(c);
	if (digit >= 0) {
		if (b->remaining >> 59 || ++b->line_bytes > SIZE_DIGITS_MAX)
			return false;
		b->remaining = b->remaining * 16 + (unsigned)digit;
		b->state = SIZE;
		return true;
	}
	if (b->state == SIZE_FIRST)
		return false;
	b->line_bytes = 0;
	b->state = c == ';' ? EXTENSION : c == '\r' ? SIZE_LF : SIZE_BLANK;
	return c == ';' || c == '\r' || c == ' ' || c == '\t';
}

static bool trailer_byte(struct http_body *b, char c)
{
	if (++b->trailer_bytes > TRAILERS_MAX)
		return false;
	if (b->state == TRAILER_NAME && c == ':') {
		b->state = TRAILER_VALUE;
		return true;
	}
	if (b->state == TRAILER_NAME)
		return http_is_token(&c, 1);
	if (c == '\r') {
		b->state = TRAILER_LF;
		return true;
	}
	return is_text((unsigned char)c);
}

/* Any byte of the framing: false if it may not be there. */
static bool framing_byte(struct http_body *b, char c)
{
	switch ((enum chunk_state)b->state) {
	case SIZE_FIRST:
	case SIZE:
		return size_byte(b, c);
	case SIZE_BLANK:
		if (c == ';' || (c == '\r' && b->lax)) {
			b->state = c == ';' ? EXTENSION : SIZE_LF;
			return true;
		}
		return (c == ' ' || c == '\t') && ++b->line_bytes <= EXTENSION_MAX;
	case EXTENSION:
		if (c == '\r')
			b->state = SIZE_LF;
		return c == '\r' || (is_text((unsigned char)c) && ++b->line_bytes <= EXTENSION_MAX);
	case SIZE_LF:
		b->state = b->remaining ? DATA : TRAILER_START;
		return c == '\n';
	case DATA_CR:
		b->state = DATA_LF;
		return c == '\r';
	case DATA_LF:
		b->state = SIZE_FIRST;
		b->line_bytes = 0;
		return c == '\n';
	case TRAILER_START:
		if (c == '\r') {
			b->state = END_LF;
			return true;
		}
		b->state = TRAILER_NAME;
		return c != ':' && trailer_byte(b, c);
	case TRAILER_NAME:
	case TRAILER_VALUE:
		return trailer_byte(b, c);
	case TRAILER_LF:
		b->state = TRAILER_START;
		return c == '\n';
	case END_LF:
		b->done = true;
		return c == '\n';
	case DATA:
		break;
	}
	return false;
}

static bool decode_chunked(struct http_body *b, char *data, size_t length, size_t *consumed, char **payload,
	size_t *payload_length)
{
	size_t at = 0;
	char *out = NULL;
	size_t out_length = 0;
	bool fine = true;
	while (at < length && !b->done) {
		if (b->state != DATA) {
			fine = framing_byte(b, data[at++]);
			if (!fine)
				break;
			continue;
		}
		size_t take = length - at < b->remaining ? length - at : (size_t)b->remaining;
		if (!out)
			out = data + at;
		else
			memmove(out + out_length, data + at, take);
		out_length += take;
		at += take;
		b->remaining -= take;
		if (!b->remaining)
			b->state = DATA_CR;
	}
	*consumed = at;
	*payload = out ? out : data;
	*payload_length = out_length;
	return fine;
}

bool http_body_decode(struct http_body *body, char *data, size_t length, size_t *consumed, char **payload,
	size_t *payload_length)
{
	if (body->framing == HTTP_CHUNKED)
		return decode_chunked(body, data, length, consumed, payload, payload_length);
	size_t take = length;
	if (body->framing == HTTP_NO_BODY || body->done)
		take = 0;
	else if (body->framing == HTTP_LENGTH && take > body->remaining)
		take = (size_t)body->remaining;
	if (body->framing == HTTP_LENGTH) {
		body->remaining -= take;
		body->done = body->remaining == 0;
	}
	*consumed = *payload_length = take;
	*payload = data;
	return true;
}

size_t http_chunk_head(char out[HTTP_CHUNK_HEAD_MAX + 1], size_t size)
{
	static const char digits[] = "0123456789abcdef";
	int shift = 0;
	size_t at = 0;
	while (shift < 60 && size >> (shift + 4))
		shift += 4;
	for (; shift >= 0; shift -= 4)
		out[at++] = digits[(size >> shift) & 15];
	out[at++] = '\r';
	out[at++] = '\n';
	return at;
}

struct reason {
	unsigned status;
	const char *phrase;
};

/* The IANA registry of HTTP status codes. */
/* clang-format off */
static const struct reason reasons[] = {
	{100, "Continue"}, {101, "Switching Protocols"}, {200, "OK"}, {201, "Created"}, {202, "Accepted"},
	{203, "Non-Authoritative Information"}, {204, "No Content"}, {205, "Reset Content"}, {206, "Partial Content"},
	{207, "Multi-Status"}, {208, "Already Reported"}, {226, "IM Used"}, {300, "Multiple Choices"},
	{301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"}, {304, "Not Modified"}, {305, "Use Proxy"},
	{307, "Temporary Redirect"}, {308, "Permanent Redirect"}, {400, "Bad Request"}, {401, "Unauthorized"},
	{402, "Payment Required"}, {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
	{406, "Not Acceptable"}, {407, "Proxy Authentication Required"}, {408, "Request Timeout"}, {409, "Conflict"},
	{410, "Gone"}, {411, "Length Required"}, {412, "Precondition Failed"}, {413, "Content Too Large"},
	{414, "URI Too Long"}, {415, "Unsupported Media Type"}, {416, "Range Not Satisfiable"},
	{417, "Expectation Failed"}, {421, "Misdirected Request"}, {422, "Unprocessable Content"}, {423, "Locked"},
	{424, "Failed Dependency"}, {425, "Too Early"}, {426, "Upgrade Required"}, {428, "Precondition Required"},
	{429, "Too Many Requests"}, {431, "Request Header Fields Too Large"}, {451, "Unavailable For Legal Reasons"},
	{500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"},
	{504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"}, {506, "Variant Also Negotiates"},
	{507, "Insufficient Storage"}, {508, "Loop Detected"}, {511, "Network Authentication Required"},
};
/* clang-format on */

const char *http_reason_phrase(unsigned status)
{
	for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
		if (reasons[i].status == status)
			return reasons[i].phrase;
	return "";
}
