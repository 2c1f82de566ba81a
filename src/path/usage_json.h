/* usage_json: the tokens of a JSON text that passes by, in any segmentation, in constant memory.
 *
 * Knows where it is (depth, the keys of KEY_TABLE on the way down) and tells of the strings and
 * scalars behind those keys; everything else is jumped over. Not a validator: what is no JSON gives
 * no or meaningless tokens, never a fault. Texts may follow each other; an array at the root (Gemini)
 * counts as one text after the other. Keys written with escapes are not recognised. Any thread. */
#ifndef APIPROXY_PATH_USAGE_JSON_H
#define APIPROXY_PATH_USAGE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_KEY_TABLE(X) \
	/* where usage is found */ \
	X(USAGE, "usage") X(USAGE_METADATA, "usageMetadata") X(MESSAGE, "message") X(RESPONSE, "response") \
	X(X_GROQ, "x_groq") \
	/* what it says: in the order of enum usage_field */ \
	X(PROMPT_TOKENS, "prompt_tokens") X(COMPLETION_TOKENS, "completion_tokens") X(INPUT_TOKENS, "input_tokens") \
	X(OUTPUT_TOKENS, "output_tokens") X(CACHE_READ, "cache_read_input_tokens") \
	X(CACHE_CREATION, "cache_creation_input_tokens") X(PROMPT_COUNT, "promptTokenCount") \
	X(TOOL_PROMPT_COUNT, "toolUsePromptTokenCount") X(CANDIDATES_COUNT, "candidatesTokenCount") \
	X(THOUGHTS_COUNT, "thoughtsTokenCount") \
	/* what a model wrote */ \
	X(CONTENT, "content") X(TEXT, "text") X(DELTA, "delta") X(THINKING, "thinking") X(PARTIAL_JSON, "partial_json") \
	X(ARGUMENTS, "arguments") X(REASONING_CONTENT, "reasoning_content") X(REASONING, "reasoning") X(REFUSAL, "refusal") \
	/* requests */ \
	X(STREAM, "stream") X(STREAM_OPTIONS, "stream_options") X(INCLUDE_USAGE, "include_usage") \
	X(MAX_TOKENS, "max_tokens") X(MAX_COMPLETION_TOKENS, "max_completion_tokens") \
	X(MAX_OUTPUT_TOKENS, "max_output_tokens") X(MAX_OUTPUT_TOKENS_CAMEL, "maxOutputTokens") X(N, "n") \
	X(BEST_OF, "best_of") X(GENERATION_CONFIG, "generationConfig") X(GENERATION_CONFIG_SNAKE, "generation_config") \
	X(CANDIDATE_COUNT, "candidateCount") X(CANDIDATE_COUNT_SNAKE, "candidate_count")

enum json_key {
	JSON_NO_KEY, /* an element of an array, or a key that nobody asks for */
#define X(id, name) JSON_##id,
	JSON_KEY_TABLE(X)
#undef X
	JSON_KEY_COUNT
};

enum { JSON_LEVELS = 4, JSON_NAME_MAX = 32 };

struct json_scan {
	uint64_t depth;              /* open objects and arrays */
	uint64_t watched;            /* set by the reader: cleared when the container of this depth ends */
	uint64_t floor;              /* set by the reader: behind the end of the container of this depth feeding stops */
	uint32_t tokens;             /* strings, brackets and escaped quotes so far: what scanning costs */
	uint8_t state;               /* private, as what follows */
	uint8_t key;                 /* of the value that comes next */
	uint8_t name_key;            /* what the last string would be as a key */
	bool is_value;               /* of the string */
	bool odd_backslashes;        /* the segment before ended in them */
	bool array_root;
	uint8_t name_length;         /* JSON_NAME_MAX: too long for a key */
	uint8_t path[JSON_LEVELS + 1];
	char name[JSON_NAME_MAX];    /* a key or scalar that a segment's end cuts */
};

/* Pointers are into the bytes fed, except for a scalar that was cut. */
struct json_reader {
	/* An object or array begins behind a known key. */
	void (*open)(void *context, struct json_scan *s, enum json_key key, const char *at);
	/* A part of a string (its raw bytes, escapes and all); first parts have the opening quote before them. */
	void (*string)(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length);
	/* A number, true, false or null behind a known key. */
	void (*scalar)(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length);
	bool all_strings; /* also keys, and strings without a known key */
};

/* Zeroed memory is a scan before its first byte. Returns the end, or the place where it stopped (see floor). */
const char *json_scan_feed(struct json_scan *s, const struct json_reader *reader, void *context, const char *at, size_t length);

/* 1: in the root object (or in an element of an array at the root). */
static inline uint64_t json_level(const struct json_scan *s)
{
	return s->depth - (s->array_root ? 1 : 0);
}

/* The key that the container at `level` (1 to 4; 1 is the root) stands behind. */
static inline enum json_key json_parent(const struct json_scan *s, unsigned level)
{
	unsigned index = level - 1 + (s->array_root ? 1 : 0);
	return index <= JSON_LEVELS ? (enum json_key)s->path[index] : JSON_NO_KEY;
}

enum { JSON_NUMBER_BEYOND = 1ll << 32 };

/* A scalar as a count: 12, 12.0, 3e2; 99.5 is rounded up; above UINT32_MAX it is JSON_NUMBER_BEYOND. false: none, or
 * below 0. */
bool json_number(const char *at, size_t length, uint64_t *value) __attribute__((warn_unused_result));

/* Not in what may be a key, before a value, or in what is watched: nothing that counts is cut if the rest is not fed. */
bool json_scan_may_leave(const struct json_scan *s);

#endif
