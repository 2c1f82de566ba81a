/* hash: FNV-1a, 64 bits, for tables in memory. Anyone who may choose the input can make collisions: where
 * that would matter, bound the table or hash what nobody can choose. */
#ifndef APIPROXY_BASE_HASH_H
#define APIPROXY_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START UINT64_C(14695981039346656037)

static inline uint64_t hash_byte(uint64_t hash, unsigned char byte)
{
	return (hash ^ byte) * UINT64_C(1099511628211);
}

static inline uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t length)
{
	for (const unsigned char *b = bytes; length--; b++)
		hash = hash_byte(hash, *b);
	return hash;
}

static inline uint64_t hash_text(uint64_t hash, const char *text)
{
	for (; *text; text++)
		hash = hash_byte(hash, (unsigned char)*text);
	return hash;
}

#endif
