/* rules: what a text must look like to be a prefix, a target, an id, a time. The checks return NULL,
 * or an English text that completes "prefix: …". They do not keep what they are given.
 * Source: docs/api.md. Any thread. */
#ifndef APIPROXY_STATE_RULES_H
#define APIPROXY_STATE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RULES_PREFIX_CHARS_MAX = 128 };

struct arena;
struct target;

const char *rules_check_prefix(const char *text);   /* 1 to 128 characters, unreserved segments, not reserved */
const char *rules_check_target(const char *text);   /* what rules_parse_target() takes */
const char *rules_check_id(const char *text);       /* [A-Za-z0-9._-]{1,64}, but not "." or ".." */
const char *rules_check_username(const char *text); /* 1 to 128 bytes of UTF-8; no space, control or any of / ? # % \ " { } < > */
const char *rules_check_header(const char *text);   /* a field name that may carry a credential */
const char *rules_check_secret(const char *text);   /* a vendor's key: visible ASCII, up to 4096 */
const char *rules_check_password(const char *text); /* 1 to 511 bytes */
const char *rules_check_sha256(const char *text);   /* 64 hex digits */
const char *rules_check_text(const char *text);     /* UTF-8 without control characters */

/* Does apiproxy answer this path (it starts with a slash) itself: "/", or a reserved one and all below it? */
bool rules_is_reserved(const char *path, size_t length);

/* Has the path a segment "." or "..", plain or percent-encoded, also where an encoded slash ends it? Of
 * requests, prefixes and targets alike. */
bool rules_has_dot_segment(const char *path, size_t length);

/* Splits a target URL; strings go into the arena. NULL, or what is wrong. */
const char *rules_parse_target(const char *text, struct arena *arena, struct target *target);

/* RFC 3339 date-time (section 5.6: "T", then "Z" or an offset; a fraction of seconds is allowed) -> Unix time in ms. */
bool rules_parse_time(const char *text, int64_t *unix_ms);

#endif
