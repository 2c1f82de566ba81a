/* usage_scan: each search is a test of a vector of places, in a macro of the vector's type. A step looks at four
 * vectors and says only whether there is a hit; narrower steps find it. A load is what a step costs, so the widest
 * ones ask a cheaper test first, that leaves nothing out. No state. */
#include "path/usage_scan.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef signed char bytes16 __attribute__((vector_size(16), aligned(1), may_alias));

#define BYTES(vector, at, offset) (*(const vector *)((at) + (offset)))

/* ---- the tests ---- */

static const char usage_name[] = "\"usage";
enum { NAME_LENGTH = sizeof usage_name - 1, NAME_REACH = 8 }; /* the test looks at a byte this far behind the place */

/* COARSE_X: true wherever X is. */
#define STRUCTURAL(vector, at) ((BYTES(vector, at, 0) == '"') | (BYTES(vector, at, 0) >= '['))
#define LINE_END(vector, at) ((BYTES(vector, at, 0) == '\r') | (BYTES(vector, at, 0) == '\n'))
#define TEXT(vector, at) ((BYTES(vector, at, 0) > ' ') | (BYTES(vector, at, 0) < 0))
#define COARSE_STRUCTURAL STRUCTURAL
#define COARSE_LINE_END LINE_END
#define COARSE_TEXT TEXT
#define COARSE_USAGE(vector, at) ((BYTES(vector, at, 0) == '"') & (BYTES(vector, at, 1) == 'u'))
/* Two of the name's letters: one alone is met too often, the second in "url, the third in "%s, the fifth in ": "gpt. */
#define USAGE(vector, at) \
	((BYTES(vector, at, 0) == '"') & (BYTES(vector, at, 2) == 's') & (BYTES(vector, at, 4) == 'g') & \
		(BYTES(vector, at, NAME_REACH) != 'n'))

static inline bool is_structural(const char *at, const char *end)
{
	(void)end;
	return *at == '"' || (signed char)*at >= '[';
}

static inline bool is_line_end(const char *at, const char *end)
{
	(void)end;
	return *at == '\r' || *at == '\n';
}

static inline bool is_text(const char *at, const char *end)
{
	(void)end;
	return (unsigned char)*at > ' ';
}

static inline bool is_usage(const char *at, const char *end)
{
	return end - at >= NAME_LENGTH && memcmp(at, usage_name, NAME_LENGTH) == 0 &&
		!(end - at > NAME_REACH && at[NAME_REACH] == 'n');
}

/* ---- vectors ---- */

static inline bool any(bytes16 lanes)
{
	uint64_t halves[2];
	memcpy(halves, &lanes, sizeof halves);
	return (halves[0] | halves[1]) != 0;
}

#define STEP(vector, test, at) \
	(test(vector, at) | test(vector, (at) + sizeof(vector)) | test(vector, (at) + 2 * sizeof(vector)) | \
		test(vector, (at) + 3 * sizeof(vector)))

#ifdef __x86_64__
typedef signed char bytes32 __attribute__((vector_size(32), aligned(1), may_alias));
typedef char lanes32 __attribute__((vector_size(32)));

#define WIDE_STEPS(test, reach) \
	__attribute__((target("avx2"))) static const char *test##_wide(const char *at, const char *end) \
	{ \
		for (; end - at >= 128 + (reach); at += 128) \
			if (__builtin_ia32_pmovmskb256((lanes32)STEP(bytes32, COARSE_##test, at)) && \
				__builtin_ia32_pmovmskb256((lanes32)STEP(bytes32, test, at))) \
				break; \
		return at; \
	}
#define WIDE(test) test##_wide
#define HAS_WIDE __builtin_cpu_supports("avx2")
#else
#define WIDE_STEPS(test, reach)
#define WIDE(test) unused
#define HAS_WIDE false
static const char *unused(const char *at, const char *end)
{
	(void)end;
	return at;
}
#endif

/* What is near is found before the wide search is asked. */
#define SEARCH(name, test, is_hit, reach) \
	WIDE_STEPS(test, reach) \
	const char *name(const char *at, const char *end) \
	{ \
		while (at < end) { \
			const char *near = end - at > 256 && HAS_WIDE ? at + 256 : end; \
			for (; near - at >= 64 + (reach); at += 64) \
				if (any(STEP(bytes16, test, at))) \
					break; \
			if (near != end && near - at < 64 + (reach)) \
				at = WIDE(test)(at, end); \
			for (; end - at >= 16 + (reach); at += 16) \
				if (any(test(bytes16, at))) \
					break; \
			const char *stop = end - at > 16 ? at + 16 : end; \
			for (; at < stop; at++) \
				if (is_hit(at, end)) \
					return at; \
		} \
		return end; \
	}

SEARCH(scan_structural, STRUCTURAL, is_structural, 0)
SEARCH(scan_line_end, LINE_END, is_line_end, 0)
SEARCH(scan_text, TEXT, is_text, 0)
SEARCH(scan_usage, USAGE, is_usage, NAME_REACH)
