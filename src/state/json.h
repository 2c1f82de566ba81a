/* json: text that is JSON (RFC 8259), and nothing else, as cJSON's tree. By itself cJSON takes more: bytes that are no
 * UTF-8, raw control characters, numbers such as 01 and 1., and it cuts a string at an escape for NUL.
 * A name may stand twice in an object: its reader decides. No state; any thread. */
#ifndef APIPROXY_STATE_JSON_H
#define APIPROXY_STATE_JSON_H

#include <stdbool.h>
#include <stddef.h>

struct cJSON;

/* The caller deletes it. NULL: no JSON from *end on (which may be NULL), or nested deeper than cJSON goes. */
struct cJSON *json_parse(const char *text, size_t length, const char **end) __attribute__((warn_unused_result));

/* A string of json_parse()'s tree was written with an escape for NUL, which no C string can hold. In its place
 * stand two bytes that are no UTF-8, so that it can be told where its value is checked. */
bool json_has_nul(const char *string);

#endif
