/* text: addresses, every byte as a digit, UTF-8 at its edges, escapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/text.h"

static void test_hex_digits(void **state)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	(void)state;
	for (int c = 1; c < 256; c++) {
		const char *at = strchr(digits, c);
		assert_int_equal(text_hex_digit((char)c), at ? (at - digits) % 16 : -1);
	}
	assert_int_equal(text_hex_digit('\0'), -1);
}

/* Of all code points those are text that are neither surrogates nor beyond the last one. */
static void test_utf8(void **state)
{
	(void)state;
	for (uint32_t point = 0x80; point < 0x200000; point++) {
		char text[5] = {0};
		size_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
		for (size_t i = length - 1; i > 0; i--)
			text[i] = (char)(0x80 | (point >> (6 * (length - 1 - i)) & 0x3f));
		text[0] = (char)((0xf00 >> length & 0xff) | point >> (6 * (length - 1)));
		bool is_text = point < 0x110000 && (point < 0xd800 || point > 0xdfff);
		assert_int_equal(text_utf8_length(text, SIZE_MAX), is_text ? length : 0);
		assert_int_equal(text_utf8_length(text, length - 1), 0);
		text[length - 1] = '\0';
		assert_int_equal(text_utf8_length(text, SIZE_MAX), 0);
	}
	assert_int_equal(text_utf8_length("a", 1), 1);
	assert_int_equal(text_utf8_length("a", 0), 0);
	assert_int_equal(text_utf8_length("\xc1\xbf", 2), 0);
	assert_int_equal(text_utf8_length("\xe0\x9f\xbf", 3), 0);
	assert_int_equal(text_utf8_length("\xf0\x8f\xbf\xbf", 4), 0);
	assert_int_equal(text_utf8_length("\x80", 1), 0);
}

static void test_addresses(void **state)
{
	static const char *const good[] = {"127.0.0.1", "::1", "::ffff:1.2.3.4"};
	static const char *const bad[] = {"", "localhost", "1.2.3", "[::1]", "1.2.3.4:80"};
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_true(text_is_ip_address(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(text_is_ip_address(bad[i]));
}

static void test_escapes(void **state)
{
	static const char *const bad[] = {"%", "a%4", "%4g", "%00", "%%41"};
	(void)state;
	char *text = text_percent_decoded("a%2Fb%2f%63+%C3%BC", 18);
	assert_string_equal(text, "a/b/c+\xc3\xbc");
	free(text);
	text = text_percent_decoded("%41%42", 3);
	assert_string_equal(text, "A");
	free(text);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_null(text_percent_decoded(bad[i], strlen(bad[i])));
}

static void test_scrub(void **state)
{
	(void)state;
	char text[] = "a\xff\xc3\xbc\xe2\x82z\xf5";
	text_scrub(text);
	assert_string_equal(text, "a?\xc3\xbc??z?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hex_digits),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_scrub),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
