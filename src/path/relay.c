/* relay: writing with as few calls as there can be. */
#include "path/relay.h"

#include <string.h>

#include "base/io.h"

enum { PARTS = 4 };

/* The parts of a frame around content: pending bytes are not among them. */
static int frame(const struct relay *r, struct iovec parts[PARTS], char chunk_head[HTTP_CHUNK_HEAD_MAX + 1],
	const char *content, size_t length, bool finish)
{
	static char last[] = "\r\n0\r\n\r\n";
	int count = 0;
	if (r->chunked && length)
		parts[count++] = (struct iovec){chunk_head, http_chunk_head(chunk_head, length)};
	if (length)
		parts[count++] = (struct iovec){(char *)content, length};
	if (r->chunked && length)
		parts[count++] = (struct iovec){last, finish ? 7 : 2};
	else if (r->chunked && finish)
		parts[count++] = (struct iovec){last + 2, 5};
	return count;
}

static bool store_from(struct relay *r, const struct iovec *parts, int count, size_t skip)
{
	size_t total = 0;
	for (int i = 0; i < count; i++)
		total += parts[i].iov_len;
	if (total <= skip)
		return true;
	if (!buf_reserve(&r->pending, total - skip))
		return false;
	for (int i = 0; i < count; i++) {
		size_t left_out = skip < parts[i].iov_len ? skip : parts[i].iov_len;
		skip -= left_out;
		if (!buf_append(&r->pending, (char *)parts[i].iov_base + left_out, parts[i].iov_len - left_out))
			return false;
	}
	return true;
}

bool relay_store(struct relay *r, const char *content, size_t length, bool finish)
{
	char chunk_head[HTTP_CHUNK_HEAD_MAX + 1];
	struct iovec parts[PARTS];
	int count = frame(r, parts, chunk_head, content, length, finish);
	r->bytes += length;
	r->finished = r->finished || finish;
	return store_from(r, parts, count, 0);
}

enum relay_result relay_send(struct relay *r, struct io *sink, const char *content, size_t length, bool finish)
{
	char chunk_head[HTTP_CHUNK_HEAD_MAX + 1];
	struct iovec parts[PARTS + 1];
	size_t pending = buf_length(&r->pending);
	int first = pending ? 1 : 0;
	if (pending)
		parts[0] = (struct iovec){(char *)buf_bytes(&r->pending), pending};
	int count = frame(r, parts + first, chunk_head, content, length, finish);
	r->bytes += length;
	r->finished = r->finished || finish;
	if (first + count == 0)
		return RELAY_OK;
	long sent = sink->writable ? io_write(sink, parts, first + count) : 0;
	if (sent == IO_ERROR)
		return RELAY_SINK_GONE;
	size_t taken = sent > 0 ? (size_t)sent : 0;
	r->taken += taken;
	size_t of_pending = taken < pending ? taken : pending;
	if (of_pending)
		buf_consume(&r->pending, of_pending);
	return store_from(r, parts + first, count, taken - of_pending) ? RELAY_OK : RELAY_NO_MEMORY;
}

void relay_free(struct relay *r)
{
	buf_free(&r->pending);
}
