/* bench_usage: what the usage tap costs a byte, by kind of answer, beside a copy of the same bytes (what a
 * kernel does at least twice for each byte that is passed on).
 * Prints one line of JSON, in bytes per nanosecond of CPU (GB/s). Usage: bench_usage [REPEATS], default 15. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "path/usage.h"

enum { REPEATS_MAX = 1001, TOTAL = 32 << 20, SEGMENT = 64 * 1024 };

static char *body;
static char target[SEGMENT];

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* The body is `unit` again and again, cut to whole ones. */
static size_t fill(const char *head, const char *unit, const char *tail)
{
	size_t at = (size_t)sprintf(body, "%s", head);
	size_t length = strlen(unit);
	for (; at + length < TOTAL; at += length)
		memcpy(body + at, unit, length);
	return at + (size_t)sprintf(body + at, "%s", tail);
}

static double feed(struct usage_tap *t, size_t length)
{
	double start = now_ns();
	for (size_t at = 0; at < length; at += SEGMENT) {
		/* A segment was just received: it is in the cache, and is again when it is sent. */
		size_t take = length - at < SEGMENT ? length - at : SEGMENT;
		if (t)
			usage_tap_feed(t, body + at, take);
		else
			memcpy(target, body + at, take);
	}
	return now_ns() - start;
}

static double measure(const char *type, size_t length, int repeats)
{
	static double results[REPEATS_MAX];
	for (int i = 0; i < repeats; i++) {
		struct usage u = {0};
		struct usage_tap *t =
			type ? usage_tap_new((struct http_span){type, strlen(type)}, (struct http_span){"", 0}) : NULL;
		results[i] = (double)length / feed(t, length);
		if (t)
			usage_tap_read(t, &u);
		if (type && u.input_tokens != 12) {
			fprintf(stderr, "bench_usage: the usage was not read\n");
			exit(1);
		}
		usage_tap_free(t);
	}
	qsort(results, (size_t)repeats, sizeof *results, compare);
	return results[repeats / 2];
}

#define TAIL "],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3}}"
#define CHUNK \
	"data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012\",\"object\":\"chat.completion.chunk\",\"created\":1732147200," \
	"\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":" \
	"[{\"index\":0,\"delta\":{\"content\":\" hello\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n"

int main(int argc, char **argv)
{
	int repeats = argc > 1 ? atoi(argv[1]) : 15;
	body = malloc(TOTAL + 4096);
	if (!body || repeats < 1 || repeats > REPEATS_MAX)
		return 2;
	size_t length = fill("{\"data\":[{\"b64_json\":\"", "iVBORw0KGgoAAAANSUhEUgAAAAUA", "\"}" TAIL);
	double copy = measure(NULL, length, repeats);
	double image = measure("application/json", length, repeats);
	length = fill("{\"choices\":[{\"message\":{\"content\":\"",
		"The quick \\\"brown\\\" fox jumps\\nover the lazy dog. ", "\"}}" TAIL);
	double text = measure("application/json", length, repeats);
	length = fill("{\"data\":[{\"embedding\":[", "-0.02345678,0.0012345678, 0.7654321,", "1]}" TAIL);
	double numbers = measure("application/json", length, repeats);
	length = fill("{\"data\":[",
		"{\"id\":\"file-abc123\",\"object\":\"file\",\"bytes\":175,\"purpose\":\"batch\",\"ok\":true},", "1" TAIL);
	double dense = measure("application/json", length, repeats);
	length = fill("", CHUNK, "data: {\"choices\":[" TAIL "\n\ndata: [DONE]\n\n");
	double events = measure("text/event-stream", length, repeats);
	printf(
		"{\"bench\":\"usage\",\"unit\":\"GB/s\",\"copy\":%.1f,\"json_image\":%.1f,\"json_text\":%.1f,\"json_numbers\":%.1f,"
		"\"json_dense\":%.2f,\"events\":%.2f}\n",
		copy, image, text, numbers, dense, events);
	free(body);
	return 0;
}
