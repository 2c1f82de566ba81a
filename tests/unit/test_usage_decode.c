/* usage_decode: how much may come out of what. Which codings are read and how: test_usage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "path/usage_decode.h"

static void count_bytes(void *context, const char *text, size_t length)
{
	(void)text;
	*(size_t *)context += length;
}

/* Once the free bytes are used, a read of 512 KiB gives no more than its own share, whatever came before. */
static void test_bomb_in_a_long_answer(void **state)
{
	enum { BEFORE = 4 << 20, BLANKS = 120 << 20 };
	struct usage_decoder *d = usage_decoder_new(USAGE_GZIP);
	char *text = malloc(BLANKS);
	char *encoded = malloc(2 * BEFORE);
	size_t total = 0;
	z_stream z = {0};
	(void)state;
	assert_non_null(text);
	assert_non_null(encoded);
	for (size_t i = 0, seed = 1; i < BEFORE; i++, seed = seed * 1103515245 + 12345)
		text[i] = (char)(seed >> 16);
	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (uint8_t *)text;
	z.avail_in = BEFORE;
	z.next_out = (uint8_t *)encoded;
	z.avail_out = 2 * BEFORE;
	assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
	assert_true(usage_decoder_feed(d, encoded, 2 * BEFORE - z.avail_out, count_bytes, &total));
	assert_int_equal(total, BEFORE);
	memset(text, ' ', BLANKS);
	z.next_in = (uint8_t *)text;
	z.avail_in = BLANKS;
	z.next_out = (uint8_t *)encoded;
	z.avail_out = 2 * BEFORE;
	assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
	size_t came = 2 * BEFORE - z.avail_out;
	total = 0;
	assert_false(usage_decoder_feed(d, encoded, came, count_bytes, &total));
	assert_in_range(total, USAGE_DECODE_FREE, USAGE_DECODE_FREE + came * USAGE_DECODE_RATIO_MAX);
	deflateEnd(&z);
	usage_decoder_free(d);
	free(encoded);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bomb_in_a_long_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
