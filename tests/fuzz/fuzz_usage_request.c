/* fuzz_usage_request: any bytes as a request's body, whole or cut. What is changed to ask for usage is
 * otherwise what it was; where it was JSON it still is, and asks for usage. */
#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "path/usage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_read(const char *body, size_t length, bool whole, uint64_t total)
{
	struct usage_request r;
	usage_request_read(body, length, whole, total, &r);
	CHECK(r.input_estimate >= 1 && r.max_output_tokens <= UINT32_MAX);
	CHECK(r.is_json || (!r.max_output_tokens && !r.stream));
}

static bool is_valid(const char *body, size_t length)
{
	char *text = strndup(body, length);
	CHECK(text);
	cJSON *root = strlen(text) == length ? cJSON_ParseWithOpts(text, NULL, true) : NULL;
	bool valid = root != NULL;
	cJSON_Delete(root);
	free(text);
	return valid;
}

static void check_include(const char *body, size_t length)
{
	struct buf once = {0};
	struct buf twice = {0};
	if (!usage_request_include(body, length, &once))
		return;
	const char *changed = buf_bytes(&once);
	size_t changed_length = buf_length(&once);
	size_t front = 0;
	size_t back = 0;
	while (front < length && front < changed_length && body[front] == changed[front])
		front++;
	while (back < length - front && back < changed_length - front &&
		body[length - 1 - back] == changed[changed_length - 1 - back])
		back++;
	CHECK(length - front - back <= 32);
	if (is_valid(body, length))
		CHECK(is_valid(changed, changed_length) && !usage_request_include(changed, changed_length, &twice));
	buf_free(&once);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *body = malloc(size ? size : 1); /* its ends are known to AddressSanitizer */
	CHECK(body);
	memcpy(body, data, size);
	check_read(body, size, true, size);
	check_read(body, size, false, 0);
	check_read(body, size, false, UINT64_MAX);
	check_include(body, size);
	free(body);
	return 0;
}
