/* text: what several readers of text need to know of its bytes. Pure; any thread. */
#ifndef APIPROXY_BASE_TEXT_H
#define APIPROXY_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

bool text_is_ip_address(const char *text); /* IPv4, or IPv6 without brackets */

int text_hex_digit(char c); /* its value; -1: it is none */

/* Length of the UTF-8 sequence at `at` (RFC 3629: no surrogates, no overlong forms), 0 where there is
 * none within `left` bytes. Where a NUL ends the text, left may be SIZE_MAX. */
size_t text_utf8_length(const char *at, size_t left);

/* Puts "?" for what is no UTF-8, so that JSON may hold it. */
void text_scrub(char *text);

/* A copy with %XX decoded (RFC 3986, section 2.1). NULL: an escape that is none, or that stands for NUL.
 * Caller frees. */
char *text_percent_decoded(const char *text, size_t length);

#endif
