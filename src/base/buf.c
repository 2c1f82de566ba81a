/* buf: bytes are appended behind `end` and taken from `start`; what was taken is reclaimed when
 * room is needed. Memory is given back as soon as the queue is empty, so that ten thousand quiet
 * streams hold none. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { CAPACITY_MIN = 256, CAPACITY_MAX = 1 << 30 };

bool buf_reserve(struct buf *b, size_t more)
{
	size_t length = buf_length(b);
	if (more > CAPACITY_MAX - length)
		return false;
	if (b->capacity - b->end >= more)
		return true;
	if (b->start && b->capacity - length >= more) {
		memmove(b->data, b->data + b->start, length);
		b->start = 0;
		b->end = (uint32_t)length;
		return true;
	}
	size_t capacity = b->capacity + b->capacity / 2;
	if (capacity < length + more)
		capacity = length + more;
	if (capacity < CAPACITY_MIN)
		capacity = CAPACITY_MIN;
	char *data = malloc(capacity);
	if (!data)
		return false;
	if (length)
		memcpy(data, b->data + b->start, length);
	free(b->data);
	*b = (struct buf){.data = data, .end = (uint32_t)length, .capacity = (uint32_t)capacity};
	return true;
}

bool buf_append(struct buf *b, const void *data, size_t length)
{
	if (!length)
		return true;
	if (!buf_reserve(b, length))
		return false;
	memcpy(b->data + b->end, data, length);
	b->end += (uint32_t)length;
	return true;
}

bool buf_printf(struct buf *b, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	if (length < 0 || !buf_reserve(b, (size_t)length + 1))
		return false;
	va_start(arguments, format);
	vsnprintf(b->data + b->end, (size_t)length + 1, format, arguments);
	va_end(arguments);
	b->end += (uint32_t)length;
	return true;
}

void buf_consume(struct buf *b, size_t length)
{
	CHECK(length <= buf_length(b));
	b->start += (uint32_t)length;
	if (b->start == b->end)
		buf_free(b);
}

void buf_free(struct buf *b)
{
	free(b->data);
	*b = (struct buf){0};
}
