/* usage_decode: one streaming decoder of zlib, libbrotlidec or libzstd behind a row of a table.
 * Owns the library's state, in memory of usage_memory; the slice is on the stack. */
#include "path/usage_decode.h"

#define ZSTD_STATIC_LINKING_ONLY /* for the allocator; the shared library has it too */
#include <brotli/decode.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "path/usage_memory.h"

struct coding;

struct usage_decoder {
	const struct coding *coding;
	union {
		z_stream zlib;
		BrotliDecoderState *brotli;
		ZSTD_DStream *zstd;
	};
	struct usage_memory memory;
	uint64_t credit; /* bytes that may come out */
	uint64_t out;    /* bytes, so far */
	uint8_t held[2]; /* deflate: the bytes that tell zlib's head from none */
	uint8_t held_count;
	bool begun;
	bool between; /* a gzip member or zstd frame has ended, and no other begun to tell */
	bool ended;   /* what follows is not ours */
};

/* Takes from *at, writes up to USAGE_DECODE_SLICE bytes. */
typedef bool step_function(struct usage_decoder *d, const uint8_t **at, size_t *length, uint8_t *slice,
	size_t *written);

struct coding {
	const char *name;
	bool (*begin)(struct usage_decoder *d);
	step_function *step;
	void (*end)(struct usage_decoder *d);
};

/* ---- zlib ---- */

enum { WINDOW_GZIP = 16 + MAX_WBITS, WINDOW_ZLIB = MAX_WBITS, WINDOW_RAW = -MAX_WBITS };

static void *take_items(void *memory, unsigned items, unsigned size)
{
	return usage_memory_take(memory, (size_t)items * size);
}

static bool begin_zlib(struct usage_decoder *d, int window)
{
	d->zlib = (z_stream){.zalloc = take_items, .zfree = usage_memory_give, .opaque = &d->memory};
	return inflateInit2(&d->zlib, window) == Z_OK;
}

static bool begin_gzip(struct usage_decoder *d)
{
	return begin_zlib(d, WINDOW_GZIP);
}

static bool begin_deflate(struct usage_decoder *d)
{
	bool zlib = (d->held[0] & 0x0f) == Z_DEFLATED && ((d->held[0] << 8) | d->held[1]) % 31 == 0;
	return begin_zlib(d, zlib ? WINDOW_ZLIB : WINDOW_RAW);
}

static bool step_zlib(struct usage_decoder *d, const uint8_t **at, size_t *length, uint8_t *slice, size_t *written)
{
	d->zlib.next_in = (uint8_t *)*at;
	d->zlib.avail_in = (unsigned)*length;
	d->zlib.next_out = slice;
	d->zlib.avail_out = USAGE_DECODE_SLICE;
	int result = inflate(&d->zlib, Z_NO_FLUSH);
	*at = d->zlib.next_in;
	*length = d->zlib.avail_in;
	*written = USAGE_DECODE_SLICE - d->zlib.avail_out;
	if (result == Z_STREAM_END) {
		/* gzip members may follow each other (RFC 1952, 2.2). */
		d->between = d->coding->begin == begin_gzip;
		d->ended = !d->between;
		return d->ended || inflateReset(&d->zlib) == Z_OK;
	}
	d->between = d->between && !*written;
	return result == Z_OK || result == Z_BUF_ERROR;
}

static void end_zlib(struct usage_decoder *d)
{
	inflateEnd(&d->zlib);
}

/* ---- brotli ---- */

static bool begin_brotli(struct usage_decoder *d)
{
	d->brotli = BrotliDecoderCreateInstance(usage_memory_take, usage_memory_give, &d->memory);
	return d->brotli;
}

static bool step_brotli(struct usage_decoder *d, const uint8_t **at, size_t *length, uint8_t *slice, size_t *written)
{
	size_t room = USAGE_DECODE_SLICE;
	uint8_t *next = slice;
	BrotliDecoderResult result = BrotliDecoderDecompressStream(d->brotli, length, at, &room, &next, NULL);
	*written = USAGE_DECODE_SLICE - room;
	d->ended = result == BROTLI_DECODER_RESULT_SUCCESS;
	return result != BROTLI_DECODER_RESULT_ERROR;
}

static void end_brotli(struct usage_decoder *d)
{
	if (d->brotli)
		BrotliDecoderDestroyInstance(d->brotli);
}

/* ---- zstd ---- */

static bool begin_zstd(struct usage_decoder *d)
{
	enum { WINDOW_LOG_MAX = 23 };
	d->zstd = ZSTD_createDStream_advanced((ZSTD_customMem){usage_memory_take, usage_memory_give, &d->memory});
	return d->zstd && !ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX));
}

static bool step_zstd(struct usage_decoder *d, const uint8_t **at, size_t *length, uint8_t *slice, size_t *written)
{
	ZSTD_inBuffer in = {*at, *length, 0};
	ZSTD_outBuffer out = {slice, USAGE_DECODE_SLICE, 0};
	size_t result = ZSTD_decompressStream(d->zstd, &out, &in);
	*at += in.pos;
	*length -= in.pos;
	*written = out.pos;
	d->between = result == 0 || (d->between && !out.pos);
	return !ZSTD_isError(result);
}

static void end_zstd(struct usage_decoder *d)
{
	ZSTD_freeDStream(d->zstd);
}

/* ---- all of them ---- */

static const struct coding codings[] = {
	[USAGE_PLAIN] = {"identity", NULL, NULL, NULL},
	[USAGE_GZIP] = {"gzip", begin_gzip, step_zlib, end_zlib},
	[USAGE_DEFLATE] = {"deflate", begin_deflate, step_zlib, end_zlib},
	[USAGE_BR] = {"br", begin_brotli, step_brotli, end_brotli},
	[USAGE_ZSTD] = {"zstd", begin_zstd, step_zstd, end_zstd},
};

bool usage_coding_find(struct http_span encoding, enum usage_coding *coding)
{
	*coding = USAGE_PLAIN;
	if (!encoding.length)
		return true;
	if (http_span_is(encoding.at, encoding.length, "x-gzip")) {
		*coding = USAGE_GZIP;
		return true;
	}
	for (unsigned i = 0; i < sizeof codings / sizeof codings[0]; i++) {
		if (!http_span_is(encoding.at, encoding.length, codings[i].name))
			continue;
		*coding = (enum usage_coding)i;
		return true;
	}
	return false;
}

struct usage_decoder *usage_decoder_new(enum usage_coding coding)
{
	struct usage_decoder *d = coding == USAGE_PLAIN ? NULL : calloc(1, sizeof *d);
	if (d)
		*d = (struct usage_decoder){.coding = &codings[coding], .credit = USAGE_DECODE_FREE};
	return d;
}

void usage_decoder_free(struct usage_decoder *d)
{
	if (d && d->begun)
		d->coding->end(d);
	free(d);
}

/* To large blocks: to a window what came out; zstd has its tables in one too, and a block with its literals. */
static uint64_t written_at_most(const struct usage_decoder *d)
{
	enum { TABLES = 32 * 1024, BLOCK = 192 * 1024 };
	return TABLES + d->out + (2 * d->out < BLOCK ? 2 * d->out : BLOCK);
}

static bool decode(struct usage_decoder *d, const uint8_t *at, size_t length,
	void (*sink)(void *context, const char *text, size_t length), void *context)
{
	uint8_t slice[USAGE_DECODE_SLICE];
	size_t written = 0;
	if (d->credit > USAGE_DECODE_FREE)
		d->credit = USAGE_DECODE_FREE;
	d->credit += (uint64_t)length * USAGE_DECODE_RATIO_MAX;
	/* A full slice may mean that there is more of it. */
	while (!d->ended && (length || written == sizeof slice)) {
		size_t before = length;
		if (!d->coding->step(d, &at, &length, slice, &written)) /* padding behind the last one is no fault */
			return d->ended = d->between;
		if (written > d->credit || (length && length == before && !written && !d->ended))
			return false;
		d->credit -= written;
		d->out += written;
		if (!usage_memory_note(&d->memory, written_at_most(d)))
			return false;
		sink(context, (const char *)slice, written);
	}
	return true;
}

bool usage_decoder_feed(struct usage_decoder *d, const char *bytes, size_t length,
	void (*sink)(void *context, const char *text, size_t length), void *context)
{
	const uint8_t *at = (const uint8_t *)bytes;
	if (d->coding->begin == begin_deflate && d->held_count < sizeof d->held) {
		while (length && d->held_count < sizeof d->held) {
			d->held[d->held_count++] = *at++;
			length--;
		}
		if (d->held_count < sizeof d->held)
			return true;
	}
	if (!d->begun) {
		d->begun = true;
		if (!d->coding->begin(d) || (d->held_count && !decode(d, d->held, d->held_count, sink, context)))
			return false;
	}
	return decode(d, at, length, sink, context);
}
