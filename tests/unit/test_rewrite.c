/* rewrite: the heads that go out, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "path/rewrite.h"

#define SPAN(text) ((struct http_span){text, strlen(text)})

static struct http_head head;

static struct rewrite_request request_of(const char *bytes)
{
	assert_int_equal(http_parse_request(&head, bytes, strlen(bytes), NULL), HTTP_COMPLETE);
	return (struct rewrite_request){
		.head = &head,
		.authority = "api.example:81",
		.absolute_prefix = "",
		.base_path = "",
		.rest = SPAN("/v1/x"),
		.query = SPAN(""),
	};
}

static void check_request(const struct rewrite_request *r, const char *expected)
{
	struct buf out = {0};
	assert_true(rewrite_request(r, &out));
	if (buf_length(&out) != strlen(expected) || memcmp(buf_bytes(&out), expected, strlen(expected)) != 0)
		fail_msg("%.*s", (int)buf_length(&out), buf_bytes(&out));
	buf_free(&out);
}

static void test_transparent(void **state)
{
	(void)state;
	struct rewrite_request r = request_of(
		"PoST /a HTTP/1.1\r\nx-B:  two  words \r\nhOST: me\r\nCookie: a\r\nX-B:3\r\nCookie: a\r\nEmpty:\r\n"
		"Content-Length: 3\r\nAuthorization: Bearer s\r\nExpect: 100-continue\r\n\r\n");
	check_request(&r,
		"PoST /v1/x HTTP/1.1\r\nx-B:  two  words\r\nhOST: api.example:81\r\nCookie: a\r\nX-B:3\r\nCookie: a\r\nEmpty:\r\n"
		"Content-Length: 3\r\nAuthorization: Bearer s\r\nExpect: 100-continue\r\n\r\n");
	r.drop_expect = true;
	r.length = "77";
	check_request(&r,
		"PoST /v1/x HTTP/1.1\r\nx-B:  two  words\r\nhOST: api.example:81\r\nCookie: a\r\nX-B:3\r\nCookie: a\r\nEmpty:\r\n"
		"Content-Length: 77\r\nAuthorization: Bearer s\r\n\r\n");
}

static void test_hops(void **state)
{
	(void)state;
	struct rewrite_request r =
		request_of("GET /a HTTP/1.1\r\nHost: me\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n"
				   "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nTE: trailers\r\nTrailer: T\r\n"
				   "Upgrade: h2c\r\nVia: 1.1 a\r\n\r\n");
	check_request(&r, "GET /v1/x HTTP/1.1\r\nHost: api.example:81\r\nVia: 1.1 a\r\n\r\n");
	r = request_of("POST /a HTTP/1.1\r\nHost: me\r\nTransfer-Encoding: Chunked\r\nA: b\r\n\r\n");
	r.chunked = true;
	check_request(&r, "POST /v1/x HTTP/1.1\r\nHost: api.example:81\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n");
	r = request_of(
		"GET /a HTTP/1.1\r\nHost: me\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n");
	r.websocket = true;
	check_request(&r,
		"GET /v1/x HTTP/1.1\r\nHost: api.example:81\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n");
}

static void test_targets(void **state)
{
	static const struct {
		const char *prefix, *base, *rest, *query, *line;
	} samples[] = {
		{"", "", "", "", "GET / HTTP/1.1"},
		{"", "", "", "?x", "GET /?x HTTP/1.1"},
		{"", "/v1", "", "?", "GET /v1? HTTP/1.1"},
		{"", "/v1", "/", "", "GET /v1/ HTTP/1.1"},
		{"", "", "/a%2F//b", "?a=%2F&b", "GET /a%2F//b?a=%2F&b HTTP/1.1"},
		{"http://h:8", "/b", "/c", "?d", "GET http://h:8/b/c?d HTTP/1.1"},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		char expected[256];
		struct rewrite_request r = request_of("GET /a HTTP/1.0\r\n\r\n");
		r.absolute_prefix = samples[i].prefix;
		r.base_path = samples[i].base;
		r.rest = SPAN(samples[i].rest);
		r.query = SPAN(samples[i].query);
		snprintf(expected, sizeof expected, "%s\r\nHost: api.example:81\r\n\r\n", samples[i].line);
		check_request(&r, expected);
	}
}

static void test_keys(void **state)
{
	static const char bytes[] =
		"GET /a HTTP/1.1\r\nHost: me\r\nAuthorization: Bearer mine\r\nX-API-KEY: mine\r\nx-goog-api-key: mine\r\n"
		"api-key: mine\r\nauthorization: again\r\nA: b\r\n\r\n";
	(void)state;
	struct rewrite_request r = request_of(bytes);
	r.drop_fields = 1u << HTTP_AUTHORIZATION | 1u << HTTP_X_API_KEY | 1u << HTTP_X_GOOG_API_KEY | 1u << HTTP_API_KEY;
	check_request(&r, "GET /v1/x HTTP/1.1\r\nHost: api.example:81\r\nA: b\r\n\r\n");
	r.key_field = "authorization";
	r.key_prefix = "Bearer ";
	r.key = "sk-vendor";
	check_request(&r,
		"GET /v1/x HTTP/1.1\r\nHost: api.example:81\r\nAuthorization: Bearer sk-vendor\r\nA: b\r\n\r\n");
	r.key_field = "X-Other";
	r.key_prefix = "";
	check_request(&r, "GET /v1/x HTTP/1.1\r\nHost: api.example:81\r\nA: b\r\nX-Other: sk-vendor\r\n\r\n");
	r = request_of(bytes);
	r.key_field = "x-api-key";
	r.key_prefix = "";
	r.key = "sk-vendor";
	check_request(&r,
		"GET /v1/x HTTP/1.1\r\nHost: api.example:81\r\nAuthorization: Bearer mine\r\nX-API-KEY: sk-vendor\r\n"
		"x-goog-api-key: mine\r\napi-key: mine\r\nauthorization: again\r\nA: b\r\n\r\n");
	r.drop_fields = 1u << HTTP_AUTHORIZATION | 1u << HTTP_X_API_KEY;
	check_request(&r,
		"GET /v1/x HTTP/1.1\r\nHost: api.example:81\r\nX-API-KEY: sk-vendor\r\nx-goog-api-key: mine\r\napi-key: mine\r\n"
		"A: b\r\n\r\n");
}

static void test_private_and_extra(void **state)
{
	static const char *const private_fields[] = {"x-peer", NULL};
	(void)state;
	struct rewrite_request r = request_of("GET /a HTTP/1.1\r\nHost: me\r\nX-Peer: forged\r\n\r\n");
	r.private_fields = private_fields;
	r.extra = "x-peer: true\r\n";
	r.proxy_authorization = "Basic eA==";
	check_request(&r,
		"GET /v1/x HTTP/1.1\r\nHost: api.example:81\r\nProxy-Authorization: Basic eA==\r\nx-peer: true\r\n\r\n");
}

/* ---- responses ---- */

static struct rewrite_response response_of(const char *bytes)
{
	assert_int_equal(http_parse_response(&head, bytes, strlen(bytes), NULL), HTTP_COMPLETE);
	return (struct rewrite_response){.head = &head};
}

static void check_response(const struct rewrite_response *r, const char *expected)
{
	struct buf out = {0};
	assert_true(rewrite_response(r, &out));
	if (buf_length(&out) != strlen(expected) || memcmp(buf_bytes(&out), expected, strlen(expected)) != 0)
		fail_msg("%.*s", (int)buf_length(&out), buf_bytes(&out));
	buf_free(&out);
}

#define DATE "Date: Sat, 01 Jan 2000 00:00:00 GMT\r\n"

static void test_responses(void **state)
{
	(void)state;
	struct rewrite_response r =
		response_of("HTTP/1.0 429 Slow down!\r\n" DATE "set-cookie: a\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n"
					"Set-Cookie: b\r\nContent-Length: 5\r\nX:\r\nContent-Length: 5\r\nVary: a\r\n\r\n");
	check_response(&r,
		"HTTP/1.1 429 Too Many Requests\r\n" DATE
		"set-cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\nX:\r\nVary: a\r\n\r\n");
	r.close = true;
	r.drop_length = r.chunked = true;
	r.extra = "x-apiproxy-limit-requests: 1\r\n";
	check_response(&r,
		"HTTP/1.1 429 Too Many Requests\r\n" DATE "set-cookie: a\r\nSet-Cookie: b\r\nX:\r\nVary: a\r\n"
		"Transfer-Encoding: chunked\r\nConnection: close\r\nx-apiproxy-limit-requests: 1\r\n\r\n");
	r = response_of(
		"HTTP/1.1 200 OK\r\n" DATE "X-Apiproxy-Limit-Requests: 9\r\nx-apiproxy-limit-requests: 8\r\n"
		"x-apiproxy-limit-request: 7\r\nx-apiproxy-limit-requests-x: 6\r\nx-apiproxy-limit-input-tokens: 5\r\n"
		"x-apiproxy-: 4\r\nx-apiproxy-error: rate_limit\r\nreset: 3\r\n\r\n");
	r.extra = "x-apiproxy-limit-requests: 1\r\nx-apiproxy-reset-requests: 2\r\n";
	check_response(&r,
		"HTTP/1.1 200 OK\r\n" DATE "x-apiproxy-limit-request: 7\r\nx-apiproxy-limit-requests-x: 6\r\n"
		"x-apiproxy-limit-input-tokens: 5\r\nx-apiproxy-: 4\r\nx-apiproxy-error: rate_limit\r\nreset: 3\r\n"
		"x-apiproxy-limit-requests: 1\r\nx-apiproxy-reset-requests: 2\r\n\r\n");
	r = response_of("HTTP/1.1 299 Odd\r\n" DATE "\r\n");
	r.keep_alive = true;
	check_response(&r, "HTTP/1.1 299 \r\n" DATE "Connection: keep-alive\r\n\r\n");
	r = response_of("HTTP/1.1 101 Go\r\n" DATE "Connection: upgrade\r\nUpgrade: websocket\r\nKeep-Alive: 1\r\n\r\n");
	r.websocket = true;
	check_response(&r,
		"HTTP/1.1 101 Switching Protocols\r\n" DATE "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n");
}

static void test_what_is_added(void **state)
{
	char expected[512];
	(void)state;
	struct rewrite_response r =
		response_of("HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\n");
	snprintf(expected, sizeof expected,
		"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n%sX-Accel-Buffering: no\r\n\r\n",
		rewrite_date_line());
	check_response(&r, expected);
	r = response_of("HTTP/1.1 200 OK\r\n" DATE "Content-Type: text/event-stream\r\nx-accel-buffering: yes\r\n\r\n");
	check_response(&r,
		"HTTP/1.1 200 OK\r\n" DATE "Content-Type: text/event-stream\r\nx-accel-buffering: yes\r\n\r\n");
}

#define VENDORS_CORS \
	"Access-Control-Allow-Origin: other\r\naccess-control-allow-credentials: true\r\n" \
	"ACCESS-CONTROL-EXPOSE-HEADERS: x\r\nAccess-Control-Max-Age: 1\r\n"

static void test_cors(void **state)
{
	(void)state;
	struct rewrite_response r =
		response_of("HTTP/1.1 200 OK\r\n" DATE VENDORS_CORS "Access-Control: kept\r\nVary: Accept\r\n\r\n");
	check_response(&r, "HTTP/1.1 200 OK\r\n" DATE VENDORS_CORS "Access-Control: kept\r\nVary: Accept\r\n\r\n");
	r.cors = (struct rewrite_cors){.ours = true, .by_origin = true, .origin = "https://a.example"};
	check_response(&r,
		"HTTP/1.1 200 OK\r\n" DATE
		"Access-Control: kept\r\nVary: Accept\r\nAccess-Control-Allow-Origin: https://a.example\r\n"
		"Access-Control-Expose-Headers: *\r\nVary: Origin\r\n\r\n");
	r.cors.origin = NULL;
	check_response(&r, "HTTP/1.1 200 OK\r\n" DATE "Access-Control: kept\r\nVary: Accept\r\nVary: Origin\r\n\r\n");
	r.cors = (struct rewrite_cors){.ours = true, .origin = "*"};
	check_response(&r,
		"HTTP/1.1 200 OK\r\n" DATE "Access-Control: kept\r\nVary: Accept\r\nAccess-Control-Allow-Origin: *\r\n"
		"Access-Control-Expose-Headers: *\r\n\r\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transparent),
		cmocka_unit_test(test_hops),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_private_and_extra),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_what_is_added),
		cmocka_unit_test(test_cors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
