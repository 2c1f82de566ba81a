/* usage_decode: content codings taken off for reading, beside the stream: gzip, deflate (with zlib's
 * head or without), br, zstd. Output comes in small slices and is not kept. What expands too much is
 * given up (see USAGE_DECODE_…): the caller then knows no more than it read before.
 * Sources: RFC 9110 8.4.1, RFC 7932, RFC 8878 (window of at most 8 MiB, RFC 9659). One thread. */
#ifndef APIPROXY_PATH_USAGE_DECODE_H
#define APIPROXY_PATH_USAGE_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/http1.h"

enum usage_coding { USAGE_PLAIN, USAGE_GZIP, USAGE_DEFLATE, USAGE_BR, USAGE_ZSTD };

/* The first FREE bytes out may have been coded to anything. Beyond that each byte in stands for RATIO_MAX bytes out; what
 * of these is not used fills the free ones up again, to no more. So a bomb takes of one read (512 KiB at most)
 * 80 MiB, once: 0.15 to 0.25 s of a worker's time, 0.4 s where it was made for this reader. */
enum {
	USAGE_DECODE_SLICE = 8192,
	USAGE_DECODE_RATIO_MAX = 32,
	USAGE_DECODE_FREE = 64 * 1024 * 1024,
};

struct usage_decoder;

/* The value of Content-Encoding. false: another coding, or several. */
bool usage_coding_find(struct http_span encoding, enum usage_coding *coding) __attribute__((warn_unused_result));

struct usage_decoder *usage_decoder_new(enum usage_coding coding); /* NULL: USAGE_PLAIN, or no memory */
void usage_decoder_free(struct usage_decoder *d);

/* false: corrupt, given up, or no memory (usage_memory.h): nothing more can be fed. */
bool usage_decoder_feed(struct usage_decoder *d, const char *bytes, size_t length,
	void (*sink)(void *context, const char *text, size_t length), void *context) __attribute__((warn_unused_result));

#endif
