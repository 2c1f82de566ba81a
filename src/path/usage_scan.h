/* usage_scan: searches through bytes at the speed of memory: 64 bytes at a time, 128 where the processor has AVX2.
 * Each gives the first place in [at, end), or end; nothing outside is read. Pure. */
#ifndef APIPROXY_PATH_USAGE_SCAN_H
#define APIPROXY_PATH_USAGE_SCAN_H

/* A quote, or any of [ \ ] { } and what else ASCII has from '[' on: outside strings, what numbers, commas and
 * blanks are not. */
const char *scan_structural(const char *at, const char *end);

/* CR or LF. */
const char *scan_line_end(const char *at, const char *end);

/* Neither a blank nor another control character. */
const char *scan_text(const char *at, const char *end);

/* "usage with its quote, whatever follows; but not "usage":null (written without blanks), which many events have. */
const char *scan_usage(const char *at, const char *end);

#endif
