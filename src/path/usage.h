/* usage: token counts, read from what passes by (contract section 4, Metering). Bounded state, no
 * copy of a body, any segmentation. Pure: belongs to whoever holds it.
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
#include "state/snapshot.h"

struct usage {
	bool input_known;   /* the vendor said so */
	bool output_known;
	uint64_t input_tokens;
	uint64_t output_tokens;
	uint64_t output_estimate; /* from the text that passed by, where output_known is false; 0: no model output seen */
};

struct usage_tap;

/* For an answer with these fields (spans may be empty). NULL: nothing to read in such an answer
 * (or no memory): then nothing is fed. */
struct usage_tap *usage_tap_new(enum dialect_id dialect, struct http_span content_type, struct http_span content_encoding);
void usage_tap_feed(struct usage_tap *t, const char *bytes, size_t length);
void usage_tap_read(struct usage_tap *t, struct usage *out); /* so far; also after a broken end */
void usage_tap_free(struct usage_tap *t);

/* ---- requests ---- */

struct usage_request {
	bool is_json;                  /* a JSON object was there */
	uint64_t input_estimate;       /* tokens, from the length and kind of the content; at least 1 */
	uint64_t max_output_tokens;    /* max_tokens, max_completion_tokens, max_output_tokens, generationConfig.maxOutputTokens; 0: none named */
	bool stream;                   /* "stream": true */
};

/* body: the request's body, or its first part (`whole` false; total_length then says how long it is, 0: unknown). */
void usage_request_read(enum dialect_id dialect, const char *body, size_t length, bool whole, uint64_t total_length,
	struct usage_request *out);

/* An OpenAI chat or completions request that streams and does not ask for usage: writes the same
 * body with "stream_options":{"include_usage":true} put in (other bytes unchanged where possible) to
 * out. false: nothing to change (or no memory); out is untouched. */
bool usage_request_include(const char *body, size_t length, struct buf *out);

#endif
