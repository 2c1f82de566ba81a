/* usage: what is read from answers, in every segmentation and coding; what must not fool it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <brotli/encode.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "path/usage.h"
#include "path/usage_decode.h"
#include "path/usage_memory.h"

#define SPAN(text) ((struct http_span){text, strlen(text)})
#define JSON "application/json; charset=utf-8"
#define EVENTS "text/event-stream"
enum { UNKNOWN = -1 };

struct answer {
	const char *what;
	const char *type;
	const char *body;
	int64_t input;  /* UNKNOWN: not said */
	int64_t output; /* UNKNOWN: not said */
	uint64_t estimate;
};

/* clang-format off */
static const struct answer answers[] = {
	{"chat", JSON, "{\"id\":\"x\",\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Hello there\"}}],"
		"\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21,"
		"\"prompt_tokens_details\":{\"prompt_tokens\":77,\"cached_tokens\":1}}}", 9, 12, 3},
	{"usage first, blanks", JSON, " {\n \"usage\" :\t{ \"completion_tokens\" : 2 ,\r\n\"prompt_tokens\" : 1 } , \"choices\" : [ ] }", 1, 2, 0},
	{"responses", JSON, "{\"usage\":{\"input_tokens\":36,\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":87,"
		"\"output_tokens_details\":{\"reasoning_tokens\":5},\"total_tokens\":123}}", 36, 87, 0},
	{"embeddings", JSON, "{\"data\":[{\"embedding\":[0.1,-2e-05,3]}],\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}", 8, UNKNOWN, 0},
	{"cache tokens", JSON, "{\"content\":[{\"type\":\"text\",\"text\":\"abcd\"}],\"usage\":{\"input_tokens\":3,"
		"\"cache_creation_input_tokens\":10,\"cache_read_input_tokens\":200,\"cache_creation\":{\"input_tokens\":9},"
		"\"output_tokens\":5}}", 213, 5, 1},
	{"prompt_tokens have the cache in them", JSON, "{\"usage\":{\"prompt_tokens\":30,\"cache_read_input_tokens\":20,"
		"\"completion_tokens\":1}}", 30, 1, 0},
	{"Gemini", JSON, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"12345678\"}]}}],\"usageMetadata\":"
		"{\"promptTokenCount\":4,\"toolUsePromptTokenCount\":6,\"candidatesTokenCount\":5,\"thoughtsTokenCount\":7,"
		"\"promptTokensDetails\":[{\"modality\":\"TEXT\",\"tokenCount\":4}]}}", 10, 12, 2},
	{"Gemini's array: the last one", JSON, "[{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":1}}\n,\r\n"
		"{\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":2,\"thoughtsTokenCount\":3}}]", 4, 5, 0},
	{"no usage: an estimate", JSON, "{\"choices\":[{\"text\":\"123456789\"}],\"usage\":null}", UNKNOWN, UNKNOWN, 3},
	{"not a token count", JSON, "{\"usage\":{\"prompt_tokens\":-1,\"completion_tokens\":\"7\"}}", UNKNOWN, UNKNOWN, 0},
	{"a number of another form", JSON, "{\"usage\":{\"prompt_tokens\":1e3,\"completion_tokens\":1.5}}", 1000, 2, 0},
	{"not a number", JSON, "{\"usage\":{\"prompt_tokens\":1e,\"completion_tokens\":true}}", UNKNOWN, UNKNOWN, 0},
	{"a float that is whole", JSON, "{\"usage\":{\"prompt_tokens\":12.0,\"completion_tokens\":0}}", 12, 0, 0},
	{"a huge power", JSON, "{\"usage\":{\"prompt_tokens\":1e10,\"completion_tokens\":1e999}}", UNKNOWN, UNKNOWN, 0},
	{"huge numbers", JSON, "{\"usage\":{\"prompt_tokens\":4294967296,\"completion_tokens\":"
		"999999999999999999999999999999}}", UNKNOWN, UNKNOWN, 0},
	{"one huge number", JSON, "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":5000000000}}", UNKNOWN, UNKNOWN, 0},
	{"huge parts", JSON, "{\"usageMetadata\":{\"promptTokenCount\":1,\"candidatesTokenCount\":9007199254740992,"
		"\"thoughtsTokenCount\":1e300}}", UNKNOWN, UNKNOWN, 0},
	{"what is no number is not said", JSON, "{\"usage\":{\"prompt_tokens\":[5],\"completion_tokens\":3}}", UNKNOWN, 3, 0},
	{"the largest", JSON, "{\"usage\":{\"prompt_tokens\":4294967295,\"completion_tokens\":1}}", 4294967295, 1, 0},
	{"text that looks like usage", JSON, "{\"choices\":[{\"message\":{\"content\":\"{\\\"usage\\\":{\\\"prompt_tokens\\\":5}} "
		"\\\\\\\"usage\\\":{ \\\\\"}}],\"a\\\"usage\":{\"prompt_tokens\":6},\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}", 1, 2, 13},
	{"usage elsewhere", JSON, "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2},\"content\":[{\"input\":{\"usage\":"
		"{\"prompt_tokens\":50,\"completion_tokens\":60}}}],\"other\":{\"usage\":{\"prompt_tokens\":70}},"
		"\"data\":[{\"usage\":{\"prompt_tokens\":80}}],\"list\":[\"usage\",{\"prompt_tokens\":90}]}", 1, 2, 0},
	{"not directly in it", JSON, "{\"usage\":{\"details\":{\"prompt_tokens\":50},\"list\":[{\"prompt_tokens\":51}],\"prompt_tokens\":3},"
		"\"prompt_tokens\":52}", 3, UNKNOWN, 0},
	{"an array is not usage", JSON, "{\"usage\":[{\"prompt_tokens\":50}],\"message\":[{\"usage\":{\"prompt_tokens\":51}}]}", UNKNOWN, UNKNOWN, 0},
	{"broken off in usage", JSON, "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2", 1, UNKNOWN, 0},
	{"not JSON", JSON, "<html>}}]]\"usage\":{\"prompt_tokens\":1}", UNKNOWN, UNKNOWN, 0},
	{"one text after another", "application/x-ndjson", "{\"usage\":{\"prompt_tokens\":1}}\n{\"usage\":{\"prompt_tokens\":2}}\n", 2, UNKNOWN, 0},
	{"chat stream", EVENTS, ": ping\r\n\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\r\n\r\n"
		"data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}],\"usage\":null}\r\n\r\n"
		"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10}}\r\n\r\ndata: [DONE]\r\n\r\n", 19, 10, 2},
	{"chat stream without usage", EVENTS, "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n"
		"data: {\"choices\":[{\"delta\":{\"content\":\" you!\"}}]}\n\ndata: [DONE]\n\n", UNKNOWN, UNKNOWN, 3},
	{"no space, lone CR, many lines", EVENTS, "event: a\rdata:{\"usage\":\rdata: {\"prompt_tokens\":\rdata: 1\rdata:}}\r\r", 1, UNKNOWN, 0},
	{"cut event does not reach into the next", EVENTS, "data: {\"a\":[{\n\ndata: {\"usage\":{\"prompt_tokens\":4}}\n\n", 4, UNKNOWN, 0},
	{"other fields are not data", EVENTS, "event: {\"usage\":{\"prompt_tokens\":4}}\ndataset: {\"usage\":{\"prompt_tokens\":5}}\n"
		"data\n:data: {\"usage\":{\"prompt_tokens\":6}}\n data: {\"usage\":{\"prompt_tokens\":7}}\n\n", UNKNOWN, UNKNOWN, 0},
	{"responses stream", EVENTS, "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"abcdefgh\"}\n\n"
		"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":"
		"{\"input_tokens\":11,\"output_tokens\":22}}}\n\n", 11, 22, 2},
	{"Groq's place", EVENTS, "data: {\"x_groq\":{\"id\":\"r\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6}}}\n\n", 5, 6, 0},
	{"Anthropic stream", EVENTS, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\"usage\":"
		"{\"input_tokens\":25,\"cache_read_input_tokens\":1000,\"cache_creation_input_tokens\":7,\"output_tokens\":1}}}\n\n"
		"event: ping\ndata: {\"type\": \"ping\"}\n\n"
		"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n"
		"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":15}}\n\n"
		"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"input_tokens\":26,\"output_tokens\":17}}\n\n", 1033, 17, 2},
	{"Anthropic stream, broken off", EVENTS, "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":3}}}\n\n"
		"data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n", 25, UNKNOWN, 3},
	{"Anthropic stream, 0 for what was said", EVENTS, "data: {\"type\":\"message_start\",\"message\":{\"usage\":"
		"{\"input_tokens\":10,\"cache_read_input_tokens\":100,\"cache_creation_input_tokens\":1000,\"output_tokens\":1}}}\n\n"
		"data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n"
		"data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":0,\"cache_read_input_tokens\":0,\"cache_creation_input_tokens\":0,"
		"\"output_tokens\":0}}\n\n", 1110, 15, 1},
	{"Anthropic stream, all of it at its end", EVENTS, "data: {\"type\":\"message_start\",\"message\":{\"usage\":"
		"{\"input_tokens\":1000,\"cache_read_input_tokens\":0,\"output_tokens\":0}}}\n\n"
		"data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":100,\"cache_read_input_tokens\":900,\"output_tokens\":15}}\n\n", 1000, 15, 0},
	{"nothing is said but 0", JSON, "{\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}", 0, 0, 0},
	{"Gemini's events", EVENTS, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"abcd\"}]}}],\"usageMetadata\":{\"promptTokenCount\":6}}\r\n\r\n"
		"data: {\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":6,\"candidatesTokenCount\":9,\"thoughtsTokenCount\":1}}\r\n\r\n", 6, 10, 1},
	{"a byte order mark", JSON, "\xef\xbb\xbf{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":5}}", 4, 5, 0},
	{"events behind a byte order mark", EVENTS, "\xef\xbb\xbf" "data: {\"usage\":{\"prompt_tokens\":4}}\n\n", 4, UNKNOWN, 0},
	{"no whole byte order mark", EVENTS, "\xef\xbb" "data: {\"usage\":{\"prompt_tokens\":4}}\ndata: {}\n\n", UNKNOWN, UNKNOWN, 0},
	{"JSON called events", EVENTS, " \r\n{\"choices\":[{\"message\":{\"content\":\"abcdefgh\"}}],\"usage\":{\"prompt_tokens\":4}}", 4, UNKNOWN, 2},
	{"Gemini's array called events", EVENTS, "[{\"usageMetadata\":{\"promptTokenCount\":4}}\n]", 4, UNKNOWN, 0},
	{"events behind blank lines", EVENTS, "\r\n\n\ndata: {\"usage\":{\"prompt_tokens\":4}}\n\n", 4, UNKNOWN, 0},
	{"an indented line is no data", EVENTS, "\n data: {\"usage\":{\"prompt_tokens\":4}}\n\n", UNKNOWN, UNKNOWN, 0},
	{"nothing said, JSON", "", "\t\n {\"content\":[{\"text\":\"abcd\"}],\"usage\":{\"input_tokens\":4,\"output_tokens\":5}}", 4, 5, 1},
	{"nothing said, an array", "", "[{\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":5}}]", 4, 5, 0},
	{"plain text, JSON", "Text/Plain ; charset=utf-8", "\xef\xbb\xbf{\"usage\":{\"prompt_tokens\":4}}", 4, UNKNOWN, 0},
	{"plain text, data", "text/plain", "data: {\"usage\":{\"prompt_tokens\":4}}\n\n", 4, UNKNOWN, 0},
	{"nothing said, a comment", "", ": ping\n\ndata: {\"usage\":{\"prompt_tokens\":4}}\n\n", 4, UNKNOWN, 0},
	{"nothing said, an event", "", "\xef\xbb\xbf\r\nevent: a\r\ndata: {\"usage\":{\"prompt_tokens\":4}}\r\n\r\n", 4, UNKNOWN, 0},
	{"nothing said, an id", "", "id: 1\rdata: {\"usage\":{\"prompt_tokens\":4}}\r\r", 4, UNKNOWN, 0},
	{"nothing said, a retry", "", "retry:9\ndata:{\"usage\":{\"prompt_tokens\":4}}\n\n", 4, UNKNOWN, 0},
	{"nothing said, broken off", "", "retr", UNKNOWN, UNKNOWN, 0},
	{"nothing said, blanks", "", " \n\n ", UNKNOWN, UNKNOWN, 0},
	{"plain text", "text/plain", "dat: {\"text\":\"abcd\"}\n\ndata: {\"usage\":{\"prompt_tokens\":4}}\n\n", UNKNOWN, UNKNOWN, 0},
	{"plain text, indented", "text/plain", " data: {\"usage\":{\"prompt_tokens\":4}}\n\n", UNKNOWN, UNKNOWN, 0},
	{"plain text, a word", "text/plain", "\"usage\":{\"prompt_tokens\":4}", UNKNOWN, UNKNOWN, 0},
	{"plain text, not at its begin", "text/plain", "see: {\"usage\":{\"prompt_tokens\":4}}", UNKNOWN, UNKNOWN, 0},
};
/* clang-format on */

enum { ANSWERS = sizeof answers / sizeof answers[0] };

static void feed_in_pieces(struct usage_tap *t, const char *bytes, size_t length, size_t piece)
{
	for (size_t at = 0; at < length; at += piece) {
		size_t take = length - at < piece ? length - at : piece;
		char *copy = malloc(take); /* its ends are known to AddressSanitizer */
		assert_non_null(copy);
		memcpy(copy, bytes + at, take);
		usage_tap_feed(t, copy, take);
		free(copy);
	}
}

static void check_read(const struct answer *a, const struct usage_tap *t, const char *how, size_t piece)
{
	struct usage u;
	usage_tap_read(t, &u);
	if (u.input_known == (a->input == UNKNOWN) || u.output_known == (a->output == UNKNOWN) ||
		(a->input != UNKNOWN && u.input_tokens != (uint64_t)a->input) ||
		(a->output != UNKNOWN && u.output_tokens != (uint64_t)a->output) || u.output_estimate != a->estimate)
		fail_msg("%s (%s, %zu): input %d %llu, output %d %llu, estimate %llu", a->what, how, piece, u.input_known,
			(unsigned long long)u.input_tokens, u.output_known, (unsigned long long)u.output_tokens,
			(unsigned long long)u.output_estimate);
	if (!u.output_known)
		assert_int_equal(u.output_tokens, u.output_estimate);
}

static void read_answer(const struct answer *a, const char *coding, const char *bytes, size_t length, size_t piece)
{
	struct usage_tap *t = usage_tap_new(SPAN(a->type), SPAN(coding));
	assert_non_null(t);
	feed_in_pieces(t, bytes, length, piece);
	check_read(a, t, coding, piece);
	usage_tap_free(t);
}

static void test_answers(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ANSWERS; i++)
		for (size_t piece = strlen(answers[i].body); piece; piece--)
			read_answer(&answers[i], "", answers[i].body, strlen(answers[i].body), piece);
}

static void test_every_two_pieces(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ANSWERS; i++) {
		const struct answer *a = &answers[i];
		for (size_t cut = 0; cut <= strlen(a->body); cut++) {
			struct usage_tap *t = usage_tap_new(SPAN(a->type), SPAN(""));
			assert_non_null(t);
			usage_tap_feed(t, a->body, cut);
			usage_tap_feed(t, a->body + cut, strlen(a->body) - cut);
			check_read(a, t, "cut", cut);
			usage_tap_free(t);
		}
	}
}

/* ---- codings ---- */

enum { ENCODED_MAX = 1 << 20 };

static size_t deflate_with(int window, const char *text, size_t length, char *out)
{
	z_stream z = {0};
	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (uint8_t *)text;
	z.avail_in = (unsigned)length;
	z.next_out = (uint8_t *)out;
	z.avail_out = ENCODED_MAX;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	size_t written = ENCODED_MAX - z.avail_out;
	deflateEnd(&z);
	return written;
}

static size_t encode_gzip(const char *text, size_t length, char *out)
{
	return deflate_with(31, text, length, out);
}

static size_t encode_members(const char *text, size_t length, char *out)
{
	size_t first = encode_gzip(text, length / 2, out);
	return first + encode_gzip(text + length / 2, length - length / 2, out + first);
}

static size_t encode_zlib(const char *text, size_t length, char *out)
{
	return deflate_with(15, text, length, out);
}

static size_t encode_raw(const char *text, size_t length, char *out)
{
	return deflate_with(-15, text, length, out);
}

static size_t encode_brotli(const char *text, size_t length, char *out)
{
	size_t written = ENCODED_MAX;
	assert_true(
		BrotliEncoderCompress(5, 22, BROTLI_MODE_TEXT, length, (const uint8_t *)text, &written, (uint8_t *)out));
	return written;
}

static size_t encode_zstd(const char *text, size_t length, char *out)
{
	size_t written = ZSTD_compress(out, ENCODED_MAX, text, length, 3);
	assert_false(ZSTD_isError(written));
	return written;
}

static const struct {
	const char *name;
	size_t (*encode)(const char *text, size_t length, char *out);
} codings[] = {
	{"gzip", encode_gzip},
	{"x-gzip", encode_gzip},
	{"GZIP", encode_members},
	{"deflate", encode_zlib},
	{"deflate", encode_raw},
	{"br", encode_brotli},
	{"zstd", encode_zstd},
};

static void test_codings(void **state)
{
	static char encoded[ENCODED_MAX];
	(void)state;
	for (unsigned c = 0; c < sizeof codings / sizeof codings[0]; c++) {
		for (unsigned i = 0; i < ANSWERS; i++) {
			size_t length = codings[c].encode(answers[i].body, strlen(answers[i].body), encoded);
			for (size_t piece = 1; piece <= length; piece = piece < 4 ? piece + 1 : piece * 3)
				read_answer(&answers[i], codings[c].name, encoded, length, piece);
			read_answer(&answers[i], codings[c].name, encoded, length, length);
		}
	}
}

/* Usage behind more text than a slice holds, and than any buffer on the way. */
static void test_long_answers(void **state)
{
	static const char head[] = "{\"choices\":[{\"message\":{\"content\":\"";
	static const char tail[] = "\"}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}";
	static const struct answer expected = {"long", JSON, "", 3, 4, 50000};
	static char encoded[ENCODED_MAX];
	size_t length = strlen(head) + 200000 + strlen(tail);
	char *body = malloc(length + 1);
	(void)state;
	assert_non_null(body);
	strcpy(body, head);
	for (size_t i = 0, seed = 1; i < 200000; i++, seed = seed * 1103515245 + 12345)
		body[strlen(head) + i] = (char)('a' + (seed >> 16) % 26);
	strcpy(body + strlen(head) + 200000, tail);
	for (unsigned c = 0; c < sizeof codings / sizeof codings[0]; c++) {
		size_t encoded_length = codings[c].encode(body, length, encoded);
		read_answer(&expected, codings[c].name, encoded, encoded_length, encoded_length);
		read_answer(&expected, codings[c].name, encoded, encoded_length, 1000);
	}
	read_answer(&expected, "identity", body, length, length);
	free(body);
}

/* A stream in bulk: `usage_every` events have usage (the last one counts), among others that look like it. */
static char *make_stream(size_t events, size_t usage_every, const char *line_end, const char *usage_form)
{
	static const char *const others[] = {
		"{\"choices\":[{\"delta\":{\"content\":\"0123456789abcdef\"}}],\"usage\":null}",
		"{\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{ \\\\\"}}],\"user\":\"u\"}",
		"{\"choices\":[{\"delta\":{\"content\":\"0123456789abcdef\",\"usage\":{\"prompt_tokens\":7}}}]}",
	};
	char *stream = malloc(events * 256 + 1);
	assert_non_null(stream);
	size_t at = 0;
	for (size_t i = 0; i < events; i++) {
		at += (size_t)sprintf(stream + at, "data: %s%s", others[i % 3], line_end);
		if (usage_every && i % usage_every == usage_every - 1)
			at += (size_t)sprintf(stream + at, usage_form, line_end, 1000 + i);
		at += (size_t)sprintf(stream + at, "%s", line_end);
	}
	return stream;
}

static struct usage read_stream(const char *stream, size_t piece)
{
	struct usage u;
	struct usage_tap *t = usage_tap_new(SPAN(EVENTS), SPAN(""));
	assert_non_null(t);
	feed_in_pieces(t, stream, strlen(stream), piece);
	usage_tap_read(t, &u);
	usage_tap_free(t);
	return u;
}

static void test_bulk(void **state)
{
	static const char *const line_ends[] = {"\n", "\r\n", "\r"};
	static const char *const forms[] = {
		"%sdata: {\"usage\" : {\"prompt_tokens\":%zu}}\n",
		"%s\ndata: {\"response\":{\"usage\":\ndata: \ndata:{\"input_tokens\":%zu}}}\n",
		"%sdata: {\"usageMetadata\":{\"promptTokenCount\":%zu}}\r\n",
	};
	static const size_t pieces[] = {1000, 4096, 5000, 16384, 65536, 100000, 10000000};
	(void)state;
	for (unsigned i = 0; i < 9; i++) {
		for (size_t usage_every = 0; usage_every < 3000; usage_every = usage_every * 7 + 1) {
			char *stream = make_stream(3000, usage_every, line_ends[i % 3], forms[i / 3]);
			struct usage exact = read_stream(stream, 100);
			assert_int_equal(exact.input_known, usage_every != 0);
			for (unsigned k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
				struct usage u = read_stream(stream, pieces[k]);
				assert_int_equal(u.input_known, exact.input_known);
				assert_int_equal(u.input_tokens, exact.input_tokens);
				assert_in_range(u.output_estimate, exact.output_estimate * 8 / 10, exact.output_estimate * 12 / 10);
			}
			free(stream);
		}
	}
}

/* ---- hostile ---- */

/* `length` blanks, then usage. */
static struct usage read_blanks(const char *coding, size_t (*encode)(const char *, size_t, char *), size_t length,
	size_t *came)
{
	static const char usage[] = "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}";
	static char encoded[ENCODED_MAX];
	char *text = malloc(length + sizeof usage);
	struct usage u;
	assert_non_null(text);
	memset(text, ' ', length);
	strcpy(text + length, usage);
	struct usage_tap *t = usage_tap_new(SPAN(JSON), SPAN(coding));
	assert_non_null(t);
	*came = encode(text, length + strlen(usage), encoded);
	usage_tap_feed(t, encoded, *came);
	usage_tap_feed(t, usage, 4); /* behind the end, or given up: this changes nothing */
	*came += 4;
	usage_tap_read(t, &u);
	usage_tap_free(t);
	free(text);
	return u;
}

/* However small it came: what an honest answer may be is read. A bomb is an estimate, by what came. */
static void test_bombs(void **state)
{
	static const unsigned kinds[] = {0, 3, 5, 6};
	size_t came;
	(void)state;
	for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		const char *name = codings[kinds[i]].name;
		struct usage u = read_blanks(name, codings[kinds[i]].encode, 60 << 20, &came);
		if (!u.input_known || !u.output_known || u.output_tokens != 2)
			fail_msg("%s: %d %d %llu", name, u.input_known, u.output_known, (unsigned long long)u.output_tokens);
		u = read_blanks(name, codings[kinds[i]].encode, 140 << 20, &came);
		assert_false(u.input_known);
		assert_false(u.output_known);
		assert_int_equal(u.output_tokens, (came + 3) / 4);
	}
}

/* However long: what was coded as flushed events are is honest. */
static void test_a_long_stream(void **state)
{
	enum { EVENTS_A_PIECE = 8, PIECES = 260000 };
	static const char event[] =
		"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"aaaa\"}}],\"model\":\"m\"}\n\n";
	static const char last[] = "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n";
	static char encoded[ENCODED_MAX];
	static char piece[EVENTS_A_PIECE * sizeof event];
	z_stream z = {0};
	struct usage u;
	size_t in = 0, out = 0;
	(void)state;
	for (int i = 0; i < EVENTS_A_PIECE; i++)
		strcat(piece + i * (sizeof event - 1), event);
	struct usage_tap *t = usage_tap_new(SPAN(EVENTS), SPAN("gzip"));
	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	for (int i = 0; i <= PIECES; i++) {
		const char *text = i < PIECES ? piece : last;
		z.next_in = (uint8_t *)text;
		z.avail_in = (unsigned)strlen(text);
		z.next_out = (uint8_t *)encoded;
		z.avail_out = sizeof encoded;
		assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
		usage_tap_feed(t, encoded, sizeof encoded - z.avail_out);
		in += strlen(text);
		out += sizeof encoded - z.avail_out;
	}
	deflateEnd(&z);
	usage_tap_read(t, &u);
	usage_tap_free(t);
	assert_true(in > 2 * USAGE_DECODE_FREE && in > 20 * out);
	assert_true(u.output_known);
	assert_int_equal(u.output_tokens, 4);
}

/* Padding, or whatever else is no gzip member and no zstd frame: who has read the answer does not mind it either. */
static void test_behind_the_end(void **state)
{
	static char encoded[ENCODED_MAX];
	static const char *const rests[] = {"\0\0\0\0", "garbage"};
	const struct answer *a = &answers[0];
	(void)state;
	for (unsigned c = 0; c < sizeof codings / sizeof codings[0]; c++) {
		for (unsigned i = 0; i < 2; i++) {
			size_t length = codings[c].encode(a->body, strlen(a->body), encoded);
			memcpy(encoded + length, rests[i], 4);
			read_answer(a, codings[c].name, encoded, length + 4, length + 4);
			read_answer(a, codings[c].name, encoded, length + 4, 1);
		}
	}
}

static void test_corrupt(void **state)
{
	static char encoded[ENCODED_MAX];
	const struct answer *a = &answers[0];
	(void)state;
	for (unsigned c = 0; c < sizeof codings / sizeof codings[0]; c++) {
		size_t length = codings[c].encode(a->body, strlen(a->body), encoded);
		for (size_t i = 0; i < length; i++) {
			struct usage_tap *t = usage_tap_new(SPAN(a->type), SPAN(codings[c].name));
			assert_non_null(t);
			encoded[i] = (char)~encoded[i];
			feed_in_pieces(t, encoded, length, 7);
			encoded[i] = (char)~encoded[i];
			usage_tap_free(t);
		}
	}
}

static void test_deep(void **state)
{
	static const char usage[] = "{\"usage\":{\"prompt_tokens\":1}}";
	static char open[100000];
	struct usage u;
	(void)state;
	memset(open, '[', sizeof open);
	struct usage_tap *t = usage_tap_new(SPAN(JSON), SPAN(""));
	assert_non_null(t);
	for (int i = 0; i < 100; i++)
		usage_tap_feed(t, open, sizeof open);
	usage_tap_feed(t, usage, strlen(usage));
	usage_tap_read(t, &u);
	assert_false(u.input_known);
	memset(open, ']', sizeof open);
	for (int i = 0; i < 100; i++)
		usage_tap_feed(t, open, sizeof open);
	usage_tap_feed(t, usage, strlen(usage));
	usage_tap_read(t, &u);
	assert_true(u.input_known);
	usage_tap_free(t);
}

/* ---- which answers ---- */

static void test_which(void **state)
{
	static const char *const none[][2] = {
		{"text/html", ""},
		{"text/plainer", ""},
		{";a=text/plain", "compress"},
		{"application/octet-stream", ""},
		{"image/png", "gzip"},
		{JSON, "compress"},
		{JSON, "gzip, br"},
		{EVENTS, "unknown"},
	};
	static const char *const some[][2] = {
		{"application/json", ""},
		{"APPLICATION/JSON", "identity"},
		{"application/vnd.x+json", "BR"},
		{"Text/Event-Stream", "zstd"},
		{"", ""},
		{"text/plain", "gzip"},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof none / sizeof none[0]; i++)
		assert_null(usage_tap_new(SPAN(none[i][0]), SPAN(none[i][1])));
	for (unsigned i = 0; i < sizeof some / sizeof some[0]; i++) {
		struct usage_tap *t = usage_tap_new(SPAN(some[i][0]), SPAN(some[i][1]));
		assert_non_null(t);
		usage_tap_free(t);
	}
	struct usage_tap *t = usage_tap_new((struct http_span){NULL, 0}, (struct http_span){NULL, 0});
	assert_non_null(t);
	usage_tap_free(t);
	usage_tap_free(NULL);
}

/* After the tests above, with all that was given up or broken off. */
static void test_nothing_is_left(void **state)
{
	(void)state;
	assert_int_equal(usage_memory_used(), 0);
}

static void test_a_quiet_stream_is_cheap(void **state)
{
	(void)state;
	struct usage_tap *t = usage_tap_new(SPAN(EVENTS), SPAN("gzip"));
	assert_non_null(t);
	assert_in_range(malloc_usable_size(t), 1, 512);
	usage_tap_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_every_two_pieces),
		cmocka_unit_test(test_codings),
		cmocka_unit_test(test_long_answers),
		cmocka_unit_test(test_bulk),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_a_long_stream),
		cmocka_unit_test(test_behind_the_end),
		cmocka_unit_test(test_corrupt),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_which),
		cmocka_unit_test(test_a_quiet_stream_is_cheap),
		cmocka_unit_test(test_nothing_is_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
