/* usage_text: what JSON texts tell of usage, in any segmentation and in bounded state.
 *
 * A text is scanned, with its exact depth. Where that is slow (many tokens a byte) and the text is long, it goes on
 * as a search for a key "usage" or "usageMetadata" with an object behind it. In JSON these bytes, with a quote that is
 * not escaped, are a key and nothing else. How deep it stands is seen from there to the end: it counts if the object it
 * is in turns out to be the root (or stands in the root behind message, response or x_groq, as the text began). In an
 * array, which only Gemini's answers are, the elements' own usageMetadata counts, and nothing called usage.
 *
 * So of a valid text the same is told as by scanning all of it, but for this: what a text that breaks off had not
 * made sure does not count; in an array at the root, objects of lists in its elements count like elements, if they have
 * usageMetadata; and where many elements in a row have it, in bulk, the last ones are read, of which each tells as much
 * as those before.
 * Not a validator. One thread. */
#ifndef APIPROXY_PATH_USAGE_TEXT_H
#define APIPROXY_PATH_USAGE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "path/usage_json.h"

/* In the order of the keys of JSON_KEY_TABLE. */
enum usage_field {
	PROMPT_TOKENS,
	COMPLETION_TOKENS,
	INPUT_TOKENS,
	OUTPUT_TOKENS,
	CACHE_READ,
	CACHE_CREATION,
	PROMPT_COUNT,
	TOOL_PROMPT_COUNT,
	CANDIDATES_COUNT,
	THOUGHTS_COUNT,
	FIELD_COUNT,
};

struct usage_told {
	uint32_t fields[FIELD_COUNT];
	uint32_t first_output; /* Anthropic's message_start: a beginning, no result */
	uint16_t seen;         /* a bit for each field */
	bool beyond;           /* one of them was too large to be true */
};

enum { USAGE_TEXT_EXACT = 64 * 1024 }; /* what is scanned of a text at least, unless its reader says less */

struct usage_text {
	struct usage_told told;
	uint64_t text_bytes; /* the model's, in what was scanned */
	uint64_t skipped;    /* bytes that were searched only */
	struct json_scan scan; /* private, as what follows */
	struct usage_told near[3]; /* in the object that the scan is in, the one it was in, the one before */
	uint32_t block;        /* bytes: after each it is seen how dense they were */
	uint32_t block_left;
	uint32_t block_tokens; /* the scan's, at its start */
	uint8_t mode;
	uint8_t matched;       /* bytes of "usage that a segment's end cut */
	uint8_t listed;        /* objects that told usage and were followed by others */
	uint8_t wrapper;       /* enum json_key: of the object in the root that the search began in */
	char before;           /* the byte before the segment */
	bool array_root;
	bool beginning;        /* inside message_start's usage */
};

/* Zeroed memory, then this for each text; `exact` bytes of it are scanned at least. */
void usage_text_begin(struct usage_text *t, uint32_t exact);
void usage_text_feed(struct usage_text *t, const char *at, size_t length);
void usage_text_end(struct usage_text *t);

/* What `later` tells replaces what `told` says, but for a 0 of Anthropic's, which are sums so far. */
void usage_told_merge(struct usage_told *told, const struct usage_told *later);

/* The first place of a key "usage" or "usageMetadata" that has an object behind it, or may have behind a line's
 * end or `end`; or end. `before`: the byte before `at`. */
const char *usage_text_find(const char *at, const char *end, char before);

#endif
