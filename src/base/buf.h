/* buf: a queue of bytes that owns memory only while it holds some. Zeroed memory is an empty buf. */
#ifndef APIPROXY_BASE_BUF_H
#define APIPROXY_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	char *data;
	uint32_t start;
	uint32_t end;
	uint32_t capacity;
};

static inline size_t buf_length(const struct buf *b)
{
	return b->end - b->start;
}

static inline const char *buf_bytes(const struct buf *b)
{
	return b->data ? b->data + b->start : ""; /* never NULL, which even no bytes may not be read from */
}

/* false: no memory; the buf is as it was. Takes up to 1 GiB. */
bool buf_append(struct buf *b, const void *data, size_t length) __attribute__((warn_unused_result));
bool buf_reserve(struct buf *b, size_t more) __attribute__((warn_unused_result)); /* room behind the end */
bool buf_printf(struct buf *b, const char *format, ...)
	__attribute__((warn_unused_result, format(printf, 2, 3)));
/* The decimal digits of a number; returns how many: 20 at most, no NUL. printf takes some 300 ns for one. */
size_t buf_digits(char out[20], uint64_t number);
bool buf_append_number(struct buf *b, uint64_t number) __attribute__((warn_unused_result));
void buf_consume(struct buf *b, size_t length); /* frees the memory when nothing is left */
void buf_free(struct buf *b);                   /* empty again, ready for use */

#endif
