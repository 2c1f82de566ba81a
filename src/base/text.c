/* text: addresses, digits, sequences, escapes. */
#include "base/text.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

bool text_is_ip_address(const char *text)
{
	struct in6_addr address;
	return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

int text_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t text_utf8_length(const char *at, size_t left)
{
	/* clang-format off */
	static const struct { unsigned char low, high, second_low, second_high, length; } rows[] = {
		{0x00, 0x7f, 0,    0,    1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	/* clang-format on */
	const unsigned char *text = (const unsigned char *)at;
	for (size_t row = 0; left && row < sizeof rows / sizeof *rows; row++) {
		if (text[0] < rows[row].low || text[0] > rows[row].high)
			continue;
		size_t length = rows[row].length;
		if (length > left || (length > 1 && (text[1] < rows[row].second_low || text[1] > rows[row].second_high)))
			return 0;
		for (size_t i = 2; i < length; i++)
			if ((text[i] & 0xc0) != 0x80)
				return 0;
		return length;
	}
	return 0;
}

void text_scrub(char *text)
{
	size_t left = strlen(text), step;
	for (; left; text += step, left -= step)
		if ((step = text_utf8_length(text, left)) == 0) {
			*text = '?';
			step = 1;
		}
}

char *text_percent_decoded(const char *text, size_t length)
{
	char *decoded = check_calloc(1, length + 1), *out = decoded;
	for (size_t i = 0; i < length; i++, out++) {
		*out = text[i];
		if (text[i] != '%')
			continue;
		int high = i + 2 < length ? text_hex_digit(text[i + 1]) : -1;
		int low = i + 2 < length ? text_hex_digit(text[i + 2]) : -1;
		if (high < 0 || low < 0 || high + low == 0) {
			free(decoded);
			return NULL;
		}
		*out = (char)(high * 16 + low);
		i += 2;
	}
	return decoded;
}
