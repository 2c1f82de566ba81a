/* buf: bytes are appended behind `end` and taken from `start`; what was taken is reclaimed when
 * room is needed. Memory is given back as soon as the queue is empty, so that ten thousand quiet
 * streams hold none. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { CAPACITY_MIN = 256, CAPACITY_MAX = 1 << 30, PRINT_ROOM = 128 };

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

/* Mostly there is room, and once is enough. */
bool buf_printf(struct buf *b, const char *format, ...)
{
	if (!buf_reserve(b, PRINT_ROOM))
		return false;
	for (;;) {
		size_t room = b->capacity - b->end;
		va_list arguments;
		va_start(arguments, format);
		int length = vsnprintf(b->data + b->end, room, format, arguments);
		va_end(arguments);
		if (length < 0)
			return false;
		if ((size_t)length < room) {
			b->end += (uint32_t)length;
			return true;
		}
		if (!buf_reserve(b, (size_t)length + 1))
			return false;
	}
}

size_t buf_digits(char out[20], uint64_t number)
{
	char reversed[20];
	size_t count = 0;
	do
		reversed[count++] = (char)('0' + number % 10);
	while (number /= 10);
	for (size_t i = 0; i < count; i++)
		out[i] = reversed[count - 1 - i];
	return count;
}

bool buf_append_number(struct buf *b, uint64_t number)
{
	char digits[20];
	return buf_append(b, digits, buf_digits(digits, number));
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
