/* fuzz_http1: any bytes as a head (request, response) and as a chunked body. A head that is complete is
 * complete with more bytes behind it, and not with fewer; what is taken for a field is one; a body gives
 * the same content however it is cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef enum http_parse parse_function(struct http_head *head, const char *data, size_t length, const char **reason);

static void check_head(parse_function *parse, const char *data, size_t length)
{
	static struct http_head head, part;
	struct http_body body;
	const char *reason = NULL;
	enum http_parse result = parse(&head, data, length, &reason);
	CHECK(result != HTTP_MALFORMED || reason);
	if (result != HTTP_COMPLETE)
		return;
	CHECK(head.length <= length && head.bytes == data && head.field_count <= HTTP_FIELDS_MAX);
	for (unsigned i = 0; i < head.field_count; i++) {
		const struct http_field *f = &head.fields[i];
		CHECK(http_is_token(f->name, f->name_length));
		CHECK(f->name >= data && f->value + f->value_length <= data + head.length);
		CHECK(!memchr(f->value, '\r', f->value_length) && !memchr(f->value, '\n', f->value_length) &&
			!memchr(f->value, 0, f->value_length));
	}
	if (head.length)
		CHECK(parse(&part, data, head.length - 1, NULL) == HTTP_PARTIAL);
	CHECK(parse(&part, data, head.length, NULL) == HTTP_COMPLETE && part.field_count == head.field_count);
	const char *fault =
		parse == http_parse_request ? http_request_body(&head, &body) : http_response_body(&head, false, &body);
	if (parse == http_parse_request)
		fault = http_check_host(&head);
	CHECK(!fault || *fault);
}

/* All content and how much was consumed; SIZE_MAX: malformed. */
static size_t decode_in_pieces(const char *data, size_t length, bool lax, size_t piece, char *content,
	size_t *content_length)
{
	struct http_body body = {.framing = HTTP_CHUNKED, .lax = lax};
	size_t total = 0;
	*content_length = 0;
	while (total < length && !body.done) {
		size_t take = length - total < piece ? length - total : piece;
		size_t consumed;
		char *payload;
		size_t payload_length;
		char *copy = malloc(take);
		CHECK(copy);
		memcpy(copy, data + total, take);
		bool fine = http_body_decode(&body, copy, take, &consumed, &payload, &payload_length);
		if (fine) {
			CHECK(consumed <= take && payload >= copy && payload + payload_length <= copy + take);
			CHECK(consumed == take || body.done);
			memcpy(content + *content_length, payload, payload_length);
			*content_length += payload_length;
			total += consumed;
		}
		free(copy);
		if (!fine)
			return SIZE_MAX;
	}
	return total;
}

static void check_chunks(const char *data, size_t length, bool lax, size_t piece)
{
	char *one = malloc(length + 1);
	char *other = malloc(length + 1);
	size_t one_length;
	size_t other_length;
	CHECK(one && other);
	size_t whole = decode_in_pieces(data, length, lax, length + 1, one, &one_length);
	size_t cut = decode_in_pieces(data, length, lax, piece, other, &other_length);
	CHECK(whole == cut);
	if (whole != SIZE_MAX)
		CHECK(one_length == other_length && memcmp(one, other, one_length) == 0);
	free(one);
	free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	size_t length = size - 2;
	char *bytes = malloc(length ? length : 1); /* its ends are known to AddressSanitizer */
	CHECK(bytes);
	memcpy(bytes, data + 2, length);
	if (data[0] % 3 == 0)
		check_head(http_parse_request, bytes, length);
	else if (data[0] % 3 == 1)
		check_head(http_parse_response, bytes, length);
	else
		check_chunks(bytes, length, data[0] / 3 % 2, data[1] ? data[1] : 1);
	free(bytes);
	return 0;
}
