/* A text fed to usage_text in pieces, each in memory of its own length, so that a sanitizer sees what is read
 * beyond it. For the unit test and the fuzzer. */
#ifndef TESTS_UNIT_USAGE_PIECES_H
#define TESTS_UNIT_USAGE_PIECES_H

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "path/usage_text.h"

static inline struct usage_text usage_text_of_pieces(uint32_t exact, const char *bytes, size_t length, size_t piece)
{
	struct usage_text t = {0};
	usage_text_begin(&t, exact);
	for (size_t at = 0; at < length; at += piece) {
		size_t take = length - at < piece ? length - at : piece;
		char *copy = malloc(take);
		CHECK(copy);
		memcpy(copy, bytes + at, take);
		usage_text_feed(&t, copy, take);
		free(copy);
	}
	usage_text_end(&t);
	return t;
}

#endif
