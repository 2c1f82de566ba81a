/* http1: HTTP/1.x heads and bodies as bytes, for both sides of a proxy (RFC 9112).
 *
 * Accepts a head line by line; a lone LF ends a line as CRLF does, since heads are written anew.
 * Refuses what two parsers could read differently: no-token methods and names, space before the
 * colon, folded lines, bare CR, NUL, control bytes in the target, doubtful lengths and codings.
 * Parsing copies nothing: spans point into the caller's bytes. */
#ifndef APIPROXY_BASE_HTTP1_H
#define APIPROXY_BASE_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HTTP_LINE_MAX = 32 * 1024,   /* the request line */
	HTTP_FIELDS_BYTES_MAX = 32 * 1024,
	HTTP_FIELDS_MAX = 200,
	HTTP_RESPONSE_FIELDS_BYTES_MAX = 60 * 1024,
	HTTP_HEAD_MAX = HTTP_LINE_MAX + HTTP_FIELDS_BYTES_MAX + 16,
};

/* Fields that the proxy looks at. HTTP_HOP ones are never passed on as they are. */
#define HTTP_FIELD_TABLE(X) \
	X(CONNECTION, "connection", true) \
	X(KEEP_ALIVE, "keep-alive", true) \
	X(PROXY_CONNECTION, "proxy-connection", true) \
	X(PROXY_AUTHORIZATION, "proxy-authorization", true) \
	X(TE, "te", true) \
	X(TRAILER, "trailer", true) \
	X(TRANSFER_ENCODING, "transfer-encoding", true) \
	X(UPGRADE, "upgrade", true) \
	X(HOST, "host", false) \
	X(CONTENT_LENGTH, "content-length", false) \
	X(CONTENT_TYPE, "content-type", false) \
	X(CONTENT_ENCODING, "content-encoding", false) \
	X(EXPECT, "expect", false) \
	X(DATE, "date", false) \
	X(RETRY_AFTER, "retry-after", false) \
	X(ORIGIN, "origin", false) \
	X(AUTHORIZATION, "authorization", false) \
	X(X_API_KEY, "x-api-key", false) \
	X(X_GOOG_API_KEY, "x-goog-api-key", false) \
	X(API_KEY, "api-key", false) \
	X(X_ACCEL_BUFFERING, "x-accel-buffering", false) \
	X(REQUEST_METHOD, "access-control-request-method", false) \
	X(REQUEST_HEADERS, "access-control-request-headers", false)

enum http_field_id {
	HTTP_OTHER,
#define X(id, name, hop) HTTP_##id,
	HTTP_FIELD_TABLE(X)
#undef X
	HTTP_FIELD_ID_COUNT
};

struct http_span {
	const char *at;
	size_t length;
};

struct http_field {
	const char *name;
	const char *value; /* outer white space left out */
	uint16_t name_length;
	uint16_t value_length;
	uint8_t id;        /* enum http_field_id */
	bool hop;          /* hop by hop, by its name or because Connection names it */
};

struct http_head {
	struct http_span method; /* requests */
	struct http_span target;
	uint16_t status;         /* responses */
	uint8_t minor;           /* HTTP/1.minor: 0 or 1 */
	uint16_t field_count;
	const char *bytes;       /* where the head starts, */
	size_t length;           /* and its length, the empty line included */
	struct http_field fields[HTTP_FIELDS_MAX];
};

enum http_parse {
	HTTP_COMPLETE,
	HTTP_PARTIAL,         /* more bytes are needed */
	HTTP_MALFORMED,
	HTTP_LINE_TOO_LONG,
	HTTP_FIELDS_TOO_LARGE,
	HTTP_VERSION_UNKNOWN,
};

/* On HTTP_LINE_TOO_LONG, HTTP_FIELDS_TOO_LARGE and HTTP_MALFORMED, *reason (if not NULL) says what. */
enum http_parse http_parse_request(struct http_head *head, const char *data, size_t length, const char **reason);
enum http_parse http_parse_response(struct http_head *head, const char *data, size_t length, const char **reason);

const struct http_field *http_find(const struct http_head *head, enum http_field_id id); /* the first one */
bool http_connection_has(const struct http_head *head, const char *token); /* in any Connection field */
/* To this protocol alone? What is offered besides would be spoken unseen in a tunnel. */
bool http_upgrades_to(const struct http_head *head, const char *protocol);
bool http_span_is(const char *at, size_t length, const char *text); /* without regard to case */
/* Is `token` in a comma list? */
bool http_list_has(const char *list, size_t length, const char *token);
bool http_is_token(const char *at, size_t length);

/* ---- bodies ---- */

enum http_framing { HTTP_NO_BODY, HTTP_LENGTH, HTTP_CHUNKED, HTTP_UNTIL_CLOSE };

struct http_body {
	uint64_t remaining;    /* of the length, or of the chunk */
	uint16_t trailer_bytes;
	uint16_t line_bytes;
	uint8_t framing;       /* enum http_framing */
	uint8_t state;         /* private */
	bool done;             /* the last byte was seen */
	bool lax;              /* an answer's: some vendors write blanks behind a chunk's size */
};

/* The body that this head announces. NULL, or why the head must be refused (RFC 9112, section 6). */
const char *http_request_body(const struct http_head *head, struct http_body *body) __attribute__((warn_unused_result));
const char *http_response_body(const struct http_head *head, bool answers_head, struct http_body *body)
	__attribute__((warn_unused_result));

bool http_is_host(const char *at, size_t length); /* HOST or HOST:PORT, as in Host */
/* Host: missing, repeated or invalid? NULL, or what is wrong. */
const char *http_check_host(const struct http_head *head) __attribute__((warn_unused_result));

/* Takes framing off `length` bytes at `data`, in place. *payload and *payload_length name the
 * content found (compacted), *consumed how many bytes belonged to this body: what follows is the
 * next message's. false: malformed behind the content found. */
bool http_body_decode(struct http_body *body, char *data, size_t length, size_t *consumed, char **payload,
	size_t *payload_length) __attribute__((warn_unused_result));

enum { HTTP_CHUNK_HEAD_MAX = 18 };
/* Writes "SIZE\r\n" at `out`; returns its length. */
size_t http_chunk_head(char out[HTTP_CHUNK_HEAD_MAX + 1], size_t size);

const char *http_reason_phrase(unsigned status); /* "" where none is registered */

#endif
