/* usage_memory: what decoders hold is counted, bounded, and all given back; who gets none is an estimate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <brotli/encode.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "path/usage.h"
#include "path/usage_memory.h"

#define SPAN(text) ((struct http_span){text, strlen(text)})
enum { KIB = 1024, TEXT_LENGTH = 2 << 20, TAPS_MAX = 8000 };

static void test_small_blocks(void **state)
{
	struct usage_memory m = {0};
	(void)state;
	char *a = usage_memory_take(&m, 5000);
	char *b = usage_memory_take(&m, 1);
	assert_non_null(a);
	assert_non_null(b);
	memset(a, 1, 5000);
	*b = 2;
	assert_int_equal((uintptr_t)a % 16, 0);
	assert_in_range(usage_memory_used(), 5001, 5100);
	usage_memory_give(&m, a);
	usage_memory_give(&m, b);
	usage_memory_give(&m, NULL);
	assert_int_equal(usage_memory_used(), 0);
}

/* Counted as they are written to, and no more than they are. */
static void test_large_blocks(void **state)
{
	struct usage_memory m = {0};
	(void)state;
	char *a = usage_memory_take(&m, 300 * KIB);
	char *b = usage_memory_take(&m, 16 * KIB * KIB);
	assert_non_null(a);
	assert_non_null(b);
	assert_int_equal(usage_memory_used(), 0);
	assert_true(usage_memory_note(&m, 1));
	assert_in_range(usage_memory_used(), 1, 64 * KIB);
	assert_true(usage_memory_note(&m, 1000 * KIB));
	assert_true(usage_memory_note(&m, 10 * KIB));
	assert_in_range(usage_memory_used(), 1000 * KIB, 1064 * KIB);
	usage_memory_give(&m, b);
	assert_in_range(usage_memory_used(), 300 * KIB, 301 * KIB);
	assert_true(usage_memory_note(&m, 2000 * KIB));
	assert_in_range(usage_memory_used(), 300 * KIB, 301 * KIB);
	usage_memory_give(&m, a);
	assert_int_equal(usage_memory_used(), 0);
}

static void test_the_bound(void **state)
{
	struct usage_memory m = {0}, other = {0};
	(void)state;
	void *a = usage_memory_take(&m, 2ul * USAGE_MEMORY_MAX);
	assert_non_null(a);
	assert_true(usage_memory_note(&m, USAGE_MEMORY_MAX - 50 * KIB));
	assert_false(usage_memory_note(&m, USAGE_MEMORY_MAX + 1ul));
	assert_null(usage_memory_take(&other, 60 * KIB));
	usage_memory_give(&m, a);
	a = usage_memory_take(&other, 60 * KIB);
	assert_non_null(a);
	usage_memory_give(&other, a);
	assert_int_equal(usage_memory_used(), 0);
	assert_null(usage_memory_take(&other, SIZE_MAX));
	assert_null(usage_memory_take(&other, SIZE_MAX / 2));
}

/* ---- through the tap ---- */

static char text[TEXT_LENGTH];
static char coded[2 * TEXT_LENGTH];

static size_t flush_gzip(size_t length)
{
	z_stream z = {0};
	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (uint8_t *)text;
	z.avail_in = (unsigned)length;
	z.next_out = (uint8_t *)coded;
	z.avail_out = sizeof coded;
	assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
	deflateEnd(&z);
	return sizeof coded - z.avail_out;
}

static size_t flush_brotli(size_t length)
{
	size_t room = sizeof coded;
	const uint8_t *at = (uint8_t *)text;
	uint8_t *out = (uint8_t *)coded;
	BrotliEncoderState *s = BrotliEncoderCreateInstance(NULL, NULL, NULL);
	BrotliEncoderSetParameter(s, BROTLI_PARAM_QUALITY, 3);
	BrotliEncoderSetParameter(s, BROTLI_PARAM_LGWIN, 24);
	assert_true(BrotliEncoderCompressStream(s, BROTLI_OPERATION_FLUSH, &length, &at, &room, &out, NULL));
	BrotliEncoderDestroyInstance(s);
	return sizeof coded - room;
}

static size_t flush_zstd(size_t length)
{
	ZSTD_CStream *s = ZSTD_createCStream();
	ZSTD_inBuffer in = {text, length, 0};
	ZSTD_outBuffer out = {coded, sizeof coded, 0};
	ZSTD_CCtx_setParameter(s, ZSTD_c_windowLog, 23);
	assert_int_equal(ZSTD_compressStream2(s, &out, &in, ZSTD_e_flush), 0);
	ZSTD_freeCStream(s);
	return out.pos;
}

static const struct kind {
	const char *coding;
	size_t (*flush)(size_t length);
	size_t quiet_most; /* bytes that 4 KiB of events are counted for */
	size_t quiet_least;
	size_t window;
} kinds[] = {
	{"gzip", flush_gzip, 48 * KIB, 36 * KIB, 0},
	{"br", flush_brotli, 64 * KIB, 4 * KIB, TEXT_LENGTH},
	{"zstd", flush_zstd, 96 * KIB, 32 * KIB, TEXT_LENGTH},
};

static const char usage_event[] = "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n";

/* Events that do not compress too well. */
static void fill_text(void)
{
	uint32_t seed = 1;
	memset(text, '\n', sizeof text);
	for (size_t at = sizeof usage_event - 1; at + 64 < sizeof text; at += 64) {
		memcpy(text + at, "data: {\"text\":\"", 15);
		for (size_t i = 15; i < 60; i++, seed = seed * 1103515245 + 12345)
			text[at + i] = (char)('a' + (seed >> 16) % 26);
		memcpy(text + at + 60, "\"}\n\n", 4);
	}
	memcpy(text, usage_event, sizeof usage_event - 1);
}

static struct usage_tap *feed(const char *coding, size_t length, struct usage *u)
{
	struct usage_tap *t = usage_tap_new(SPAN("text/event-stream"), SPAN(coding));
	assert_non_null(t);
	usage_tap_feed(t, coded, length);
	usage_tap_read(t, u);
	return t;
}

static void test_streams(void **state)
{
	struct usage u;
	(void)state;
	fill_text();
	for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		const struct kind *k = &kinds[i];
		struct usage_tap *t = feed(k->coding, k->flush(4 * KIB), &u);
		assert_int_equal(u.output_tokens, 4);
		assert_in_range(usage_memory_used(), k->quiet_least, k->quiet_most);
		usage_tap_free(t);
		assert_int_equal(usage_memory_used(), 0);
		t = feed(k->coding, k->flush(TEXT_LENGTH), &u);
		assert_in_range(usage_memory_used(), k->window, k->window + 256 * KIB);
		usage_tap_free(t);
		assert_int_equal(usage_memory_used(), 0);
	}
}

/* The first ones are read, then others are not; when one has ended there is room for another. */
static void test_too_many_streams(void **state)
{
	static struct usage_tap *taps[TAPS_MAX];
	struct usage u;
	(void)state;
	fill_text();
	for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		const struct kind *k = &kinds[i];
		size_t length = k->flush(4 * KIB);
		unsigned count = 0;
		do
			taps[count++] = feed(k->coding, length, &u);
		while (u.output_known && count < TAPS_MAX);
		assert_in_range(count, USAGE_MEMORY_MAX / k->quiet_most, USAGE_MEMORY_MAX / k->quiet_least);
		assert_true(usage_memory_used() <= USAGE_MEMORY_MAX);
		assert_true(usage_memory_used() > USAGE_MEMORY_MAX - 256 * KIB);
		assert_true(u.output_tokens >= (length + 3) / 4);
		usage_tap_free(taps[0]);
		taps[0] = feed(k->coding, length, &u);
		assert_true(u.output_known);
		while (count)
			usage_tap_free(taps[--count]);
		assert_int_equal(usage_memory_used(), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_blocks),
		cmocka_unit_test(test_large_blocks),
		cmocka_unit_test(test_the_bound),
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_too_many_streams),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
