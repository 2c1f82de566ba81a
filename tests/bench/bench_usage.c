/* bench_usage: what the usage tap costs, by kind of answer: CPU seconds a GB (ns a byte). Each segment was just copied
 * to where it is read, as from a socket; the copy is not counted, but for the line that is the copy alone.
 * Prints one line of JSON. Usage: bench_usage [REPEATS [KIND]], default 9 and all of them. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "path/usage.h"

enum {
	REPEATS_MAX = 1001,
	TOTAL = 32 << 20,
	SEGMENT = 256 * 1024,
	BIG_EVENT = 100 * 1000,
	IMAGE_EVENT = 1000 * 1000
};

#define JSON "application/json"
#define EVENTS "text/event-stream"
#define TAIL "],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3}}"
#define EVENTS_TAIL "data: {\"choices\":[" TAIL "\n\ndata: [DONE]\n\n"
#define CHUNK_OF(content, usage) \
	"data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012\",\"object\":\"chat.completion.chunk\",\"created\":1732147200," \
	"\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":" \
	"[{\"index\":0,\"delta\":{\"content\":\"" content "\"},\"logprobs\":null,\"finish_reason\":null}]" usage "}\n\n"
#define SMALL_EVENT \
	"data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" hello\"}}\n\n"
#define FILE_ENTRY "{\"id\":\"file-abc123\",\"object\":\"file\",\"bytes\":175,\"purpose\":\"batch\",\"ok\":true},"
#define CODE "if (argc > 1 && !strcmp(argv[1], \\\"-v\\\"))\\n\\t\\tprintf(\\\"%d\\\\n\\\", usage);\\n\\t"
#define GEMINI \
	"{\n  \"candidates\": [\n    {\n      \"content\": {\n        \"parts\": [\n          {\n            \"text\": \"The " \
	"quick brown fox jumps over the lazy dog\"\n          }\n        ],\n        \"role\": \"model\"\n      }\n    }\n  ],\n" \
	"  \"usageMetadata\": {\n    \"promptTokenCount\": 12,\n    \"candidatesTokenCount\": 9,\n    \"totalTokenCount\": 21\n" \
	"  },\n  \"modelVersion\": \"gemini-2.0-flash\"\n}\n"
#define GEMINI_EVENT \
	"data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"The quick brown fox\"}],\"role\": \"model\"}}]," \
	"\"usageMetadata\": {\"promptTokenCount\": 12,\"candidatesTokenCount\": 9,\"totalTokenCount\": 21}," \
	"\"modelVersion\": \"gemini-2.0-flash\"}\r\n\r\n"

static const struct kind {
	const char *name;
	const char *type;
	const char *head;
	const char *unit; /* again and again */
	const char *tail;
	size_t event; /* not 0: units are put into events as long as this */
} kinds[] = {
	{"image", JSON, "{\"data\":[{\"b64_json\":\"", "iVBORw0KGgoAAAANSUhEUgAAAAUA", "\"}" TAIL, 0},
	{"text", JSON, "{\"choices\":[{\"message\":{\"content\":\"",
		"The quick \\\"brown\\\" fox jumps\\nover the lazy dog. ", "\"}}" TAIL, 0},
	{"code", JSON, "{\"choices\":[{\"message\":{\"content\":\"", CODE, "\"}}" TAIL, 0},
	{"numbers", JSON, "{\"data\":[{\"embedding\":[", "-0.02345678,0.0012345678, 0.7654321,", "1]}" TAIL, 0},
	{"dense", JSON, "{\"data\":[", FILE_ENTRY, "1" TAIL, 0},
	{"gemini_array", JSON, "[" GEMINI, "," GEMINI, "]", 0},
	{"usage_in_a_list", JSON, "{\"data\":[",
		"{\"id\":\"run_abc123\",\"object\":\"thread.run\",\"model\":\"gpt-4o\",\"usage\":{\"prompt_tokens\":5,"
		"\"completion_tokens\":3,\"total_tokens\":8},\"temperature\":1.0,\"status\":\"completed\",\"tools\":[]},",
		"1" TAIL, 0},
	{"events", EVENTS, "", CHUNK_OF(" hello", ",\"usage\":null"), EVENTS_TAIL, 0},
	{"events_code", EVENTS, "", CHUNK_OF(CODE, ""), EVENTS_TAIL, 0},
	{"events_small", EVENTS, "", SMALL_EVENT, EVENTS_TAIL, 0},
	{"events_big", EVENTS, "", FILE_ENTRY, EVENTS_TAIL, BIG_EVENT},
	{"events_image", EVENTS, "", "iVBORw0KGgoAAAANSUhEUgAAAAUA", EVENTS_TAIL, IMAGE_EVENT},
	{"events_usage", EVENTS, "", GEMINI_EVENT, GEMINI_EVENT, 0},
	/* Not what vendors send. */
	{"x_quotes", JSON, "{\"a\":[", "\"\",", "1" TAIL, 0},
	{"x_backslashes", JSON, "{\"a\":[\"", "\\\\\\\"", "\"" TAIL, 0},
	{"x_brackets", JSON, "{\"a\":[", "[{}],", "1" TAIL, 0},
	{"x_usage", JSON, "{\"a\":[", "{\"usage\":{}},", "1" TAIL, 0},
	{"x_events_usage", EVENTS, "", "data:{\"usage\":{}}\n\n", EVENTS_TAIL, 0},
	{"x_line_ends", EVENTS, "", "\n", EVENTS_TAIL, 0},
};

static char *body;
static char segment[SEGMENT];

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

static size_t fill(const struct kind *k)
{
	size_t at = (size_t)sprintf(body, "%s", k->head);
	size_t length = strlen(k->unit);
	while (at + length < TOTAL) {
		size_t stop = k->event && at + k->event < TOTAL ? at + k->event : TOTAL;
		if (k->event)
			at += (size_t)sprintf(body + at, "data: {\"type\":\"x\",\"a\":[%s", *k->unit == '{' ? "" : "\"");
		for (; at + length < stop; at += length)
			memcpy(body + at, k->unit, length);
		if (k->event)
			at += (size_t)sprintf(body + at, "%s]}\n\n", *k->unit == '{' ? "1" : "\"");
	}
	return at + (size_t)sprintf(body + at, "%s", k->tail);
}

/* What asking for the time adds to what was measured. */
static double clock_ns(void)
{
	enum { TIMES = 10000 };
	double start = now_ns();
	for (int i = 1; i < TIMES; i++)
		now_ns();
	return (now_ns() - start) / TIMES;
}

/* tap: NULL: the copy. */
static double feed(struct usage_tap *tap, size_t length)
{
	double spent = 0;
	double clock = clock_ns();
	for (size_t at = 0; at < length; at += SEGMENT) {
		size_t take = length - at < SEGMENT ? length - at : SEGMENT;
		double start = now_ns();
		memcpy(segment, body + at, take);
		if (tap) {
			start = now_ns();
			usage_tap_feed(tap, segment, take);
		}
		spent += now_ns() - start - clock;
	}
	return spent / (double)length;
}

static double measure(const char *type, size_t length, int repeats)
{
	static double results[REPEATS_MAX];
	for (int i = 0; i < repeats; i++) {
		struct usage u = {0};
		struct usage_tap *t =
			type ? usage_tap_new((struct http_span){type, strlen(type)}, (struct http_span){"", 0}) : NULL;
		results[i] = feed(t, length);
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

int main(int argc, char **argv)
{
	int repeats = argc > 1 ? atoi(argv[1]) : 9;
	body = malloc(TOTAL + 4096);
	if (!body || repeats < 1 || repeats > REPEATS_MAX)
		return 2;
	memset(body, 'x', TOTAL);
	printf("{\"bench\":\"usage\",\"unit\":\"CPU s/GB\",\"copy\":%.3f", measure(NULL, TOTAL, repeats));
	for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		if (argc > 2 && strcmp(argv[2], kinds[i].name) != 0)
			continue;
		size_t length = fill(&kinds[i]);
		printf(",\"%s\":%.3f", kinds[i].name, measure(kinds[i].type, length, repeats));
	}
	printf("}\n");
	free(body);
	return 0;
}
