/* fuzz_usage: any bytes as an answer, in any pieces. The first byte picks kind and coding, the second the
 * pieces. However a plain answer is cut, the same is read from it. Then the same bytes as a text that is left to the
 * search that early. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "path/usage.h"
#include "path/usage_text.h"
#include "../unit/usage_pieces.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct usage usage_of_pieces(const char *type, const char *coding, const char *bytes, size_t length,
	size_t piece)
{
	struct usage u;
	struct usage_tap *t =
		usage_tap_new((struct http_span){type, strlen(type)}, (struct http_span){coding, strlen(coding)});
	CHECK(t);
	for (size_t at = 0; at < length; at += piece) {
		size_t take = length - at < piece ? length - at : piece;
		char *copy = malloc(take);
		CHECK(copy);
		memcpy(copy, bytes + at, take);
		usage_tap_feed(t, copy, take);
		free(copy);
	}
	usage_tap_read(t, &u);
	usage_tap_free(t);
	return u;
}

static void search(const char *bytes, size_t length, size_t piece)
{
	struct usage_text t = usage_text_of_pieces((uint32_t)piece, bytes, length, piece);
	CHECK(t.skipped <= length && t.text_bytes <= length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const types[] = {"application/json", "text/event-stream", "", "text/plain"};
	static const char *const codings[] = {"", "gzip", "deflate", "br", "zstd"};
	if (size < 3)
		return 0;
	const char *type = types[data[0] % 2 + data[0] / 10 % 2 * 2];
	const char *coding = codings[data[0] / 2 % 5];
	size_t piece = data[1] ? data[1] : size;
	struct usage whole = usage_of_pieces(type, coding, (const char *)data + 2, size - 2, size);
	struct usage cut = usage_of_pieces(type, coding, (const char *)data + 2, size - 2, piece);
	CHECK(whole.input_tokens <= 3ull * UINT32_MAX && whole.output_tokens <= 2ull * UINT32_MAX);
	if (!*coding)
		CHECK(whole.input_known == cut.input_known && whole.output_known == cut.output_known &&
			whole.input_tokens == cut.input_tokens && whole.output_tokens == cut.output_tokens &&
			whole.output_estimate == cut.output_estimate);
	search((const char *)data + 2, size - 2, piece);
	search((const char *)data + 2, size - 2, 1 + size / 2);
	return 0;
}
