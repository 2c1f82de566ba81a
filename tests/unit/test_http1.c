/* http1: what is accepted and what is refused, of heads, framing, Host and chunks;
 * chunks in every segmentation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/http1.h"

#define BYTES(text) text, sizeof text - 1

static struct http_head head;

struct sample {
	const char *bytes;
	size_t length;
	enum http_parse result;
};

/* ---- request heads ---- */

static void test_requests(void **state)
{
	static const struct sample samples[] = {
		{BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP_COMPLETE},
		{BYTES("GET / HTTP/1.1\nHost: a\n\n"), HTTP_COMPLETE},
		{BYTES("\r\n\r\nGET / HTTP/1.0\r\n\r\n"), HTTP_COMPLETE},
		{BYTES("M-SEARCH!#$%&'*+.^_`|~09 * HTTP/1.1\r\n\r\n"), HTTP_COMPLETE},
		{BYTES("GET http://a/b?c HTTP/1.1\r\n\r\n"), HTTP_COMPLETE},
		{BYTES("GET /\xc3\xa4\xff\"<> HTTP/1.1\r\nX: \xc3\xa4\xff\r\n\r\n"), HTTP_COMPLETE},
		{BYTES("GET / HTTP/1.9\r\n\r\n"), HTTP_COMPLETE},
		{BYTES("GET / HTTP/1.1\r\nX:\r\nY:  \t \r\nZ:a\tb c\r\n\r\n"), HTTP_COMPLETE},
		{BYTES(""), HTTP_PARTIAL},
		{BYTES("\r\n"), HTTP_PARTIAL},
		{BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r"), HTTP_PARTIAL},
		{BYTES("GET / HTTP/2.0\r\n\r\n"), HTTP_VERSION_UNKNOWN},
		{BYTES("GET / HTTP/0.9\r\n\r\n"), HTTP_VERSION_UNKNOWN},
		{BYTES("GET /\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / http/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1 \r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/11\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.10\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET  / HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET /  HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET\t/ HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES(" GET / HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GE(T / HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("G\xc3\xa4T / HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET /a b HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET /a\tb HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET /a\x01 HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET /a\x7f HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET /a\0 HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET /a\rb HTTP/1.1\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("\x16\x03\x01"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX : a\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX\t: a\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\n: a\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX(: a\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\n\xc3\xa4: a\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\n X: a\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX: a\r\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("GET / HTTP/1.1\r\n\0: a\r\n\r\n"), HTTP_MALFORMED},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		const struct sample *s = &samples[i];
		const char *reason = NULL;
		enum http_parse result = http_parse_request(&head, s->bytes, s->length, &reason);
		if (result != s->result)
			fail_msg("%s: %d instead of %d", s->bytes, result, s->result);
		if (result == HTTP_MALFORMED)
			assert_non_null(reason);
		if (result == HTTP_COMPLETE)
			assert_int_equal(head.length, s->length);
		for (size_t cut = 0; cut < s->length && result == HTTP_COMPLETE; cut++)
			assert_int_equal(http_parse_request(&head, s->bytes, cut, NULL), HTTP_PARTIAL);
	}
}

static bool field_is(unsigned index, const char *name, const char *value)
{
	const struct http_field *f = &head.fields[index];
	return index < head.field_count && f->name_length == strlen(name) && memcmp(f->name, name, f->name_length) == 0 &&
		f->value_length == strlen(value) && memcmp(f->value, value, f->value_length) == 0;
}

static void test_fields(void **state)
{
	static const char bytes[] =
		"POST /a?b HTTP/1.0\r\nhOsT:  a:1 \r\nX-A: 1\r\nX-A: 2\r\nconnection: close, x-a ,, Keep-Alive\r\n"
		"TE: trailers\r\nKeep-Alive: 5\r\nConnection: Content-Length,host\r\nContent-Length: 3\r\n\r\nabc";
	(void)state;
	assert_int_equal(http_parse_request(&head, bytes, sizeof bytes - 1, NULL), HTTP_COMPLETE);
	assert_int_equal(head.length, sizeof bytes - 1 - 3);
	assert_int_equal(head.minor, 0);
	assert_int_equal(head.field_count, 8);
	assert_true(head.method.length == 4 && memcmp(head.method.at, "POST", 4) == 0);
	assert_true(head.target.length == 4 && memcmp(head.target.at, "/a?b", 4) == 0);
	assert_true(field_is(0, "hOsT", "a:1") && head.fields[0].id == HTTP_HOST && !head.fields[0].hop);
	assert_true(field_is(1, "X-A", "1") && head.fields[1].id == HTTP_OTHER && head.fields[1].hop);
	assert_true(field_is(2, "X-A", "2") && head.fields[2].hop);
	assert_true(head.fields[3].hop && head.fields[4].hop && head.fields[5].hop && head.fields[6].hop);
	assert_true(field_is(7, "Content-Length", "3") && !head.fields[7].hop);
	assert_ptr_equal(http_find(&head, HTTP_TE), &head.fields[4]);
	assert_null(http_find(&head, HTTP_EXPECT));
}

static size_t with_fields(char *out, size_t line, size_t count, size_t value)
{
	size_t at = (size_t)sprintf(out, "GET /");
	memset(out + at, 'a', line - 14);
	at += line - 14;
	at += (size_t)sprintf(out + at, " HTTP/1.1\r\n");
	for (size_t i = 0; i < count; i++) {
		memcpy(out + at, "X: ", 3);
		memset(out + at + 3, 'v', value);
		memcpy(out + at + 3 + value, "\r\n", 2);
		at += value + 5;
	}
	memcpy(out + at, "\r\n", 2);
	return at + 2;
}

static enum http_parse parse_sized(size_t line, size_t count, size_t value)
{
	static char bytes[4 * HTTP_HEAD_MAX];
	return http_parse_request(&head, bytes, with_fields(bytes, line, count, value), NULL);
}

static void test_sizes(void **state)
{
	static char endless[HTTP_LINE_MAX + 2];
	(void)state;
	assert_int_equal(parse_sized(HTTP_LINE_MAX, 1, 1), HTTP_COMPLETE);
	assert_int_equal(parse_sized(HTTP_LINE_MAX + 1, 1, 1), HTTP_LINE_TOO_LONG);
	assert_int_equal(parse_sized(100, 200, 1), HTTP_COMPLETE);
	assert_int_equal(parse_sized(100, 201, 1), HTTP_FIELDS_TOO_LARGE);
	assert_int_equal(parse_sized(100, 1, HTTP_FIELDS_BYTES_MAX - 5), HTTP_COMPLETE);
	assert_int_equal(parse_sized(100, 1, HTTP_FIELDS_BYTES_MAX - 4), HTTP_FIELDS_TOO_LARGE);
	assert_int_equal(parse_sized(100, 100, 16 * 1024 / 100), HTTP_COMPLETE);
	memset(endless, 'A', sizeof endless);
	assert_int_equal(http_parse_request(&head, endless, HTTP_LINE_MAX, NULL), HTTP_PARTIAL);
	assert_int_equal(http_parse_request(&head, endless, HTTP_LINE_MAX + 1, NULL), HTTP_LINE_TOO_LONG);
}

/* ---- what a request says of its body ---- */

struct framing_sample {
	const char *fields;
	enum http_framing framing;
	uint64_t length;
	bool refused;
};

static void test_request_bodies(void **state)
{
	static const struct framing_sample samples[] = {
		{"", HTTP_NO_BODY, 0, false},
		{"Content-Length: 0\r\n", HTTP_LENGTH, 0, false},
		{"Content-Length: 0012\r\n", HTTP_LENGTH, 12, false},
		{"content-length: 9223372036854775807\r\n", HTTP_LENGTH, INT64_MAX, false},
		{"Transfer-Encoding: chunked\r\n", HTTP_CHUNKED, 0, false},
		{"TRANSFER-ENCODING: Chunked\r\n", HTTP_CHUNKED, 0, false},
		{"Content-Length: 9223372036854775808\r\n", 0, 0, true},
		{"Content-Length: 99999999999999999999\r\n", 0, 0, true},
		{"Content-Length:\r\n", 0, 0, true},
		{"Content-Length: +1\r\n", 0, 0, true},
		{"Content-Length: -1\r\n", 0, 0, true},
		{"Content-Length: 0x1\r\n", 0, 0, true},
		{"Content-Length: 1 1\r\n", 0, 0, true},
		{"Content-Length: 1, 1\r\n", 0, 0, true},
		{"Content-Length: 1\r\nContent-Length: 1\r\n", 0, 0, true},
		{"Content-Length: 1\r\nContent-Length: 2\r\n", 0, 0, true},
		{"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 0, 0, true},
		{"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 0, 0, true},
		{"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 0, 0, true},
		{"Transfer-Encoding: gzip, chunked\r\n", 0, 0, true},
		{"Transfer-Encoding: chunked, chunked\r\n", 0, 0, true},
		{"Transfer-Encoding: chunked;q=1\r\n", 0, 0, true},
		{"Transfer-Encoding: identity\r\n", 0, 0, true},
		{"Transfer-Encoding: \x0b"
		 "chunked\r\n",
			0, 0, true},
		{"Transfer-Encoding: xchunked\r\n", 0, 0, true},
		{"Transfer-Encoding:\r\n", 0, 0, true},
	};
	char bytes[512];
	struct http_body body;
	(void)state;
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		const struct framing_sample *s = &samples[i];
		int length = snprintf(bytes, sizeof bytes, "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n", s->fields);
		assert_int_equal(http_parse_request(&head, bytes, (size_t)length, NULL), HTTP_COMPLETE);
		const char *fault = http_request_body(&head, &body);
		if ((fault != NULL) != s->refused)
			fail_msg("%s: %s", s->fields, fault ? fault : "accepted");
		if (fault)
			continue;
		assert_int_equal(body.framing, s->framing);
		assert_int_equal(body.remaining, s->length);
		assert_int_equal(body.done, s->framing != HTTP_CHUNKED && s->length == 0);
	}
	int length = snprintf(bytes, sizeof bytes, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
	assert_int_equal(http_parse_request(&head, bytes, (size_t)length, NULL), HTTP_COMPLETE);
	assert_non_null(http_request_body(&head, &body));
}

/* ---- Host ---- */

static void test_hosts(void **state)
{
	static const char *const good[] = {"a", "a.b.example", "a:80", "a:", "127.0.0.1:8000", "[::1]", "[fe80::1]:65535",
		"a_b", "A-1"};
	static const char *const bad[] = {"", " ", ":80", "a:x", "a:65536", "a:-1", "a:80:80", "a/b", "a b", "a,b@c",
		"u@a", "[::1", "[]", "[::1]x", "[g::]", "a?b", "a#b", "a\\b", "\"a\"", "a\xff"};
	char bytes[512];
	(void)state;
	for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++) {
		int length = snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
		assert_int_equal(http_parse_request(&head, bytes, (size_t)length, NULL), HTTP_COMPLETE);
		if (http_check_host(&head))
			fail_msg("Host: %s was refused", good[i]);
	}
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		int length = snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
		assert_int_equal(http_parse_request(&head, bytes, (size_t)length, NULL), HTTP_COMPLETE);
		if (!http_check_host(&head))
			fail_msg("Host: %s was accepted", bad[i]);
	}
	assert_int_equal(http_parse_request(&head, BYTES("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), NULL),
		HTTP_COMPLETE);
	assert_non_null(http_check_host(&head));
	assert_int_equal(http_parse_request(&head, BYTES("GET / HTTP/1.1\r\n\r\n"), NULL), HTTP_COMPLETE);
	assert_non_null(http_check_host(&head));
	assert_int_equal(http_parse_request(&head, BYTES("GET / HTTP/1.0\r\n\r\n"), NULL), HTTP_COMPLETE);
	assert_null(http_check_host(&head));
}

/* ---- responses ---- */

static void test_responses(void **state)
{
	static const struct sample samples[] = {
		{BYTES("HTTP/1.1 200 OK\r\n\r\n"), HTTP_COMPLETE},
		{BYTES("HTTP/1.1 200\r\n\r\n"), HTTP_COMPLETE},
		{BYTES("HTTP/1.0 999 \xc3\xa4\nA: b\n\n"), HTTP_COMPLETE},
		{BYTES("HTTP/1.1 200 OK\r\nA: b\r\n"), HTTP_PARTIAL},
		{BYTES("HTTP/1.1 20 OK\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("HTTP/1.1 2000\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("HTTP/1.1 099 No\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("HTTP/1.1 2x0 No\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("HTTP/2.0 200 OK\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("SSH-2.0-OpenSSH_9\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), HTTP_MALFORMED},
		{BYTES("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n"), HTTP_MALFORMED},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		enum http_parse result = http_parse_response(&head, samples[i].bytes, samples[i].length, NULL);
		if (result != samples[i].result)
			fail_msg("%s: %d", samples[i].bytes, result);
	}
}

struct answer_sample {
	const char *head;
	enum http_framing framing;
	uint64_t length;
	bool answers_head;
	bool refused;
};

static void test_response_bodies(void **state)
{
	static const struct answer_sample samples[] = {
		{"HTTP/1.1 200 OK\r\n\r\n", HTTP_UNTIL_CLOSE, 0, false, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HTTP_LENGTH, 5, false, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", HTTP_LENGTH, 5, false, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_CHUNKED, 0, false, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_CHUNKED, 0, false, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HTTP_NO_BODY, 0, true, false},
		{"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", HTTP_NO_BODY, 0, false, false},
		{"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", HTTP_NO_BODY, 0, false, false},
		{"HTTP/1.1 100 Go\r\n\r\n", HTTP_NO_BODY, 0, false, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 0, 0, false, true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", 0, 0, false, true},
		{"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 0, 0, false, true},
		{"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", 0, 0, true, true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 0, 0, false, true},
		{"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, false, true},
	};
	struct http_body body;
	(void)state;
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		const struct answer_sample *s = &samples[i];
		assert_int_equal(http_parse_response(&head, s->head, strlen(s->head), NULL), HTTP_COMPLETE);
		const char *fault = http_response_body(&head, s->answers_head, &body);
		if ((fault != NULL) != s->refused)
			fail_msg("%s: %s", s->head, fault ? fault : "accepted");
		if (fault)
			continue;
		assert_int_equal(body.framing, s->framing);
		assert_int_equal(body.remaining, s->length);
	}
}

/* ---- chunks ---- */

/* Feeds in pieces that end at `cut` and every `piece` bytes. -1: malformed; else what was consumed. */
static bool lax; /* as from a vendor */

static long decode(const char *bytes, size_t length, size_t cut, size_t piece, char *content, size_t *content_length,
	bool *done)
{
	struct http_body body = {.framing = HTTP_CHUNKED, .lax = lax};
	size_t at = 0;
	*content_length = 0;
	while (at < length && !body.done) {
		size_t take = at < cut ? cut - at : piece;
		if (take > length - at)
			take = length - at;
		size_t consumed;
		size_t payload_length;
		char *payload;
		char *copy = malloc(take);
		assert_non_null(copy);
		memcpy(copy, bytes + at, take);
		bool fine = http_body_decode(&body, copy, take, &consumed, &payload, &payload_length);
		if (fine) {
			memcpy(content + *content_length, payload, payload_length);
			*content_length += payload_length;
			at += consumed;
		}
		free(copy);
		if (!fine)
			return -1;
	}
	*done = body.done;
	return (long)at;
}

struct chunks_sample {
	const char *bytes;
	const char *content; /* NULL: malformed */
	bool done;
};

static void check_chunks(const struct chunks_sample *s, size_t cut, size_t piece)
{
	char content[512];
	size_t content_length;
	bool done;
	size_t length = strlen(s->bytes);
	long consumed = decode(s->bytes, length, cut, piece, content, &content_length, &done);
	if ((consumed < 0) != (s->content == NULL))
		fail_msg("%s: %s (%zu, %zu)", s->bytes, consumed < 0 ? "refused" : "accepted", cut, piece);
	if (consumed < 0)
		return;
	assert_int_equal(done, s->done);
	assert_int_equal(content_length, strlen(s->content));
	assert_memory_equal(content, s->content, content_length);
	size_t rest = done ? strlen("NEXT") : 0;
	assert_int_equal(consumed, length - rest);
}

static void check_samples(const struct chunks_sample *samples, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t length = strlen(samples[i].bytes);
		for (size_t piece = 1; piece <= length; piece++)
			check_chunks(&samples[i], 0, piece);
		for (size_t cut = 1; cut < length; cut++)
			check_chunks(&samples[i], cut, length);
	}
}

static void test_chunks(void **state)
{
	static const struct chunks_sample samples[] = {
		{"0\r\n\r\nNEXT", "", true},
		{"5\r\nhello\r\n0\r\n\r\nNEXT", "hello", true},
		{"1\r\na\r\n2\r\nbc\r\n00\r\n\r\nNEXT", "abc", true},
		{"a\r\n0123456789\r\nA;x=\"y\";z\r\n0123456789\r\n0;last\r\n\r\nNEXT", "01234567890123456789", true},
		{"000000000000002\r\nab\r\n0\r\nX-T: a\r\nY:\r\n\r\nNEXT", "ab", true},
		{"5\r\n\r\n\r\n0\r\n0\r\n\r\nNEXT", "\r\n\r\n0", true},
		{"2 ;x\r\nab\r\n0\t ;\r\n\r\nNEXT", "ab", true},
		{"5\r\nhel", "hel", false},
		{"5\r\nhello\r\n0\r\n", "hello", false},
		{"fffffffffffffff\r\nx", "x", false},
		{"\r\n", NULL, false},
		{"x\r\n", NULL, false},
		{"0x5\r\nhello\r\n", NULL, false},
		{"+5\r\nhello\r\n", NULL, false},
		{"-1\r\n", NULL, false},
		{" 5\r\nhello\r\n", NULL, false},
		{"5 \r\nhello\r\n", NULL, false},
		{"5\nhello\n0\n\n", NULL, false},
		{"5\rhello", NULL, false},
		{"5\r\nhelloX\r\n", NULL, false},
		{"5\r\nhello\rX", NULL, false},
		{"5\r\nhello\n0\r\n\r\n", NULL, false},
		{"5\r\nhello0\r\n\r\n", NULL, false},
		{"5;a\nb\r\nhello", NULL, false},
		{"5;a\rb\r\nhello", NULL, false},
		{"5;a\x01\r\nhello", NULL, false},
		{"10000000000000000\r\nx", NULL, false},
		{"ffffffffffffffff1\r\nx", NULL, false},
		{"00000000000000000000000000000000000000005\r\nhello", NULL, false},
		{"0\r\nX : a\r\n\r\n", NULL, false},
		{"0\r\n X: a\r\n\r\n", NULL, false},
		{"0\r\n: a\r\n\r\n", NULL, false},
		{"0\r\nX\r\n\r\n", NULL, false},
		{"0\r\nX: a\n\r\n", NULL, false},
		{"0\r\nX: a\rb\r\n", NULL, false},
		{"0\r\n\n", NULL, false},
		{"0\r\n\rX", NULL, false},
	};
	(void)state;
	check_samples(samples, sizeof samples / sizeof samples[0]);
}

static void test_chunks_of_a_vendor(void **state)
{
	static const struct chunks_sample samples[] = {
		{"2  \r\nab\r\n0  \r\n\r\nNEXT", "ab", true},
		{"2\t \r\nab\r\n1 ;x\r\nc\r\n0\t\r\n\r\nNEXT", "abc", true},
		{"2 \nab\r\n", NULL, false},
		{"2 \rab\r\n", NULL, false},
		{"2 x\r\nab\r\n", NULL, false},
		{"2 0\r\nab\r\n", NULL, false},
		{" 2\r\nab\r\n", NULL, false},
	};
	struct http_body body;
	static const char fields[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
	(void)state;
	assert_int_equal(http_parse_response(&head, BYTES(fields), NULL), HTTP_COMPLETE);
	assert_null(http_response_body(&head, false, &body));
	assert_true(body.lax);
	lax = true;
	check_samples(samples, sizeof samples / sizeof samples[0]);
	lax = false;
}

static void test_chunk_bounds(void **state)
{
	static char bytes[40000];
	char content[8];
	size_t content_length;
	bool done;
	(void)state;
	memset(bytes, 'e', sizeof bytes);
	memcpy(bytes, "1;", 2);
	assert_int_equal(decode(bytes, 4096, 0, 4096, content, &content_length, &done), 4096);
	assert_int_equal(decode(bytes, 5000, 0, 100, content, &content_length, &done), -1);
	memcpy(bytes, "0\r\nX:", 5);
	assert_int_equal(decode(bytes, 16000, 0, 1000, content, &content_length, &done), 16000);
	assert_int_equal(decode(bytes, sizeof bytes, 0, 1000, content, &content_length, &done), -1);
}

static void test_lengths(void **state)
{
	struct http_body body = {.framing = HTTP_LENGTH, .remaining = 5};
	char bytes[] = "helloNEXT";
	size_t consumed;
	size_t length;
	char *payload;
	(void)state;
	assert_true(http_body_decode(&body, bytes, 2, &consumed, &payload, &length));
	assert_true(consumed == 2 && length == 2 && payload == bytes && !body.done);
	assert_true(http_body_decode(&body, bytes + 2, 7, &consumed, &payload, &length));
	assert_true(consumed == 3 && length == 3 && payload == bytes + 2 && body.done);
	assert_true(http_body_decode(&body, bytes + 5, 4, &consumed, &payload, &length));
	assert_true(consumed == 0 && length == 0);
	body = (struct http_body){.framing = HTTP_UNTIL_CLOSE};
	assert_true(http_body_decode(&body, bytes, 9, &consumed, &payload, &length));
	assert_true(consumed == 9 && length == 9 && !body.done);
}

static void test_chunk_heads(void **state)
{
	static const struct {
		size_t size;
		const char *text;
	} samples[] = {{1, "1\r\n"}, {15, "f\r\n"}, {16, "10\r\n"}, {65536, "10000\r\n"},
		{SIZE_MAX, "ffffffffffffffff\r\n"}};
	char out[HTTP_CHUNK_HEAD_MAX + 1];
	(void)state;
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		size_t length = http_chunk_head(out, samples[i].size);
		assert_int_equal(length, strlen(samples[i].text));
		assert_memory_equal(out, samples[i].text, length);
	}
}

static void test_words(void **state)
{
	(void)state;
	assert_true(http_list_has(BYTES(" a ,\tUpgrade,,b"), "upgrade"));
	assert_false(http_list_has(BYTES("upgraded, x-upgrade, up grade"), "upgrade"));
	assert_false(http_list_has(BYTES(""), "a"));
	assert_string_equal(http_reason_phrase(429), "Too Many Requests");
	assert_string_equal(http_reason_phrase(599), "");
}

/* As mark_named_hops() does, the long way. */
static bool is_named(const struct http_field *f)
{
	for (unsigned i = 0; i < head.field_count && f->id != HTTP_HOST && f->id != HTTP_CONTENT_LENGTH; i++) {
		const struct http_field *c = &head.fields[i];
		char name[64];
		snprintf(name, sizeof name, "%.*s", f->name_length, f->name);
		if (c->id == HTTP_CONNECTION && http_list_has(c->value, c->value_length, name))
			return true;
	}
	return false;
}

/* So many names that they are searched for, and so few that they are not; some fields more than once. */
static void test_names_in_connection(void **state)
{
	static char raw[HTTP_FIELDS_BYTES_MAX];
	(void)state;
	for (unsigned names = 0; names < 2000; names = names * 3 / 2 + 1) {
		unsigned random = names, marked = 0;
		size_t length =
			(size_t)sprintf(raw, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nHost: b\r\nConnection: HOST");
		for (unsigned i = 0; i < names; i++) {
			random = random * 1664525 + 1013904223;
			const char *between = i % 100 == 50 ? "\r\nConnection: Content-Length," : ", ,";
			length +=
				(size_t)sprintf(raw + length, "%sx%.*s%u", between, (int)(random >> 30), "YYY", random >> 16 & 31);
		}
		for (unsigned i = 0; i < 150; i++) {
			random = random * 1664525 + 1013904223;
			length += (size_t)sprintf(raw + length, "\r\nX%.*s%u: 1", (int)(random >> 30), "yyy", random >> 16 & 31);
		}
		length += (size_t)sprintf(raw + length, "\r\n\r\n");
		assert_int_equal(http_parse_request(&head, raw, length, NULL), HTTP_COMPLETE);
		for (unsigned i = 0; i < head.field_count; i++) {
			assert_int_equal(head.fields[i].hop, head.fields[i].id == HTTP_CONNECTION || is_named(&head.fields[i]));
			marked += head.fields[i].hop;
		}
		assert_true(names < 100 || marked > 40);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_names_in_connection),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_request_bodies),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_response_bodies),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_chunks_of_a_vendor),
		cmocka_unit_test(test_chunk_bounds),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_chunk_heads),
		cmocka_unit_test(test_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
