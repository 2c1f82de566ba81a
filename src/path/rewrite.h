/* rewrite: the heads that go out, from the heads that came in: end-to-end fields in their order, their
 * case, their values; hop-by-hop fields left out; what the mapping and the answer ask for is put in. */
#ifndef APIPROXY_PATH_REWRITE_H
#define APIPROXY_PATH_REWRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/http1.h"

struct rewrite_request {
	const struct http_head *head;
	const char *authority;            /* for Host */
	const char *absolute_prefix;      /* "http://host:port" for an egress proxy, else "" */
	const char *proxy_authorization;  /* NULL: none */
	const char *base_path;            /* what replaces the prefix */
	struct http_span rest;            /* the path behind the prefix */
	struct http_span query;           /* with "?", or empty */
	bool chunked;                     /* the body is sent chunked */
	bool websocket;                   /* Connection and Upgrade go along */
	bool drop_expect;
	uint32_t drop_fields;             /* a client's credentials: a bit, 1 << id, for each enum http_field_id left out */
	const char *length;               /* replaces Content-Length; NULL: as it is */
	const char *key_field;            /* NULL: no vendor key is put in */
	const char *key_prefix;
	const char *key;
	const char *const *private_fields; /* dropped, ends with NULL; NULL: none */
	const char *extra;                /* whole lines with CRLF; NULL: none */
};

bool rewrite_request(const struct rewrite_request *r, struct buf *out) __attribute__((warn_unused_result));

/* What a response says of CORS. */
struct rewrite_cors {
	bool ours;            /* server.cors_origins is set: no Access-Control-* of the upstream's goes on */
	bool by_origin;       /* it depends on who asks */
	const char *origin;   /* to allow; NULL: this one is not */
};

struct rewrite_response {
	const struct http_head *head;
	bool chunked;          /* framing for the client */
	bool drop_length;      /* Content-Length says nothing about what is sent */
	bool websocket;        /* 101: Connection and Upgrade go along */
	bool close;            /* Connection: close */
	bool keep_alive;       /* Connection: keep-alive, for HTTP/1.0 */
	struct rewrite_cors cors;
	const char *extra;     /* whole lines with CRLF; NULL: none. Those x-apiproxy-… among them replace the upstream's */
};

bool rewrite_response(const struct rewrite_response *r, struct buf *out) __attribute__((warn_unused_result));

/* What we say in place of the upstream; nothing where it is not ours to say. */
bool rewrite_cors_fields(const struct rewrite_cors *cors, struct buf *out) __attribute__((warn_unused_result));

/* "Date: …\r\n" of the current second; any thread. */
const char *rewrite_date_line(void);

#endif
