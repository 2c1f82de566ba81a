/* usage: token counts, read from what passes by. Bounded state, no copy of a body, any
 * segmentation. Pure: belongs to whoever holds it.
 *
 * Reads OpenAI `usage` (chat, completions, responses, embeddings), Anthropic message_start and
 * message_delta usage, Gemini usageMetadata; in JSON, in server-sent events and in Gemini's JSON
 * array; plain, gzip, deflate, br and zstd. */
#ifndef APIPROXY_PATH_USAGE_H
#define APIPROXY_PATH_USAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/http1.h"

struct usage {
	bool input_known;   /* the vendor said so */
	bool output_known;
	bool beyond;        /* he said more than can be true: neither is known then, and a reservation stands */
	uint64_t input_tokens;
	uint64_t output_tokens;   /* not known: the estimate */
	uint64_t output_estimate; /* from the text that passed by; 0: no model output seen. Where a content coding could
	                           * not be taken off to the end: from the bytes that came, or what was told till then */
};

/* An estimate counts the model's text (or the request's) as it stands in the JSON, escapes and all. */
enum { USAGE_BYTES_PER_TOKEN = 4 };

struct usage_tap;

/* For an answer with these fields (spans may be empty). Where the type is missing or text/plain, the first bytes that are
 * no blanks decide: an open bracket is JSON, a comment or field at a line's begin is an event's, anything else is not read
 * on. An open bracket is JSON also where the type says events. NULL: nothing to read in such an
 * answer: another type, or a coding that is not read (or no memory): then nothing is fed. */
struct usage_tap *usage_tap_new(struct http_span content_type, struct http_span content_encoding);
void usage_tap_feed(struct usage_tap *t, const char *bytes, size_t length);
void usage_tap_read(const struct usage_tap *t, struct usage *out); /* so far; also after a broken end */
void usage_tap_free(struct usage_tap *t); /* NULL is fine */

/* ---- requests ---- */

struct usage_request {
	bool is_json;               /* a JSON object begins there */
	uint64_t input_estimate;    /* tokens, 1 to UINT32_MAX: a quarter of the bytes of all strings; base64 (pictures,
	                             * sounds, documents) counts 256 and one per KiB */
	uint64_t max_output_tokens; /* the largest of max_tokens, max_completion_tokens, max_output_tokens and
	                             * generationConfig.maxOutputTokens, times n, best_of or candidateCount; 0: none named */
	bool stream;                /* "stream": true */
	/* private: of what was read */
	uint64_t bytes, text_bytes, blob_tokens;
	bool cut_in_blob;
};

/* body: the request's body, or its first part (`whole` false; total_length then says how long it is,
 * 0: unknown). What is not there is taken to be like what is. */
void usage_request_read(const char *body, size_t length, bool whole, uint64_t total_length, struct usage_request *out);

/* The input estimate, had the body this length: an announced one is not always what comes. */
uint64_t usage_request_estimate(const struct usage_request *r, uint64_t total_length);

/* An OpenAI chat or completions request (its path tells that, which is the caller's to see) that streams and does not
 * ask for usage: writes the same body to the empty `out`, with stream_options.include_usage set to true, also where
 * it was false (the mapping wants it), all other bytes as they were. false: nothing to change, no whole
 * JSON object, or no memory; out is untouched. */
bool usage_request_include(const char *body, size_t length, struct buf *out) __attribute__((warn_unused_result));

#endif
