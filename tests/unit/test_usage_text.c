/* usage_text: a text that is searched tells the same as one that is scanned, wherever the scan leaves it and
 * however it is cut. Texts are made by chance, with usage in the right and in wrong places. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "path/usage_text.h"
#include "usage_pieces.h"

enum { TEXT_MAX = 1 << 20 };

static char text[TEXT_MAX];
static size_t length;
static uint32_t seed;

static uint32_t next(void)
{
	seed = seed * 1103515245 + 12345;
	return seed >> 16;
}

static void add(const char *part)
{
	assert_true(length + strlen(part) < TEXT_MAX);
	memcpy(text + length, part, strlen(part));
	length += strlen(part);
}

static void add_usage(void)
{
	static const char *const fields[] = {"prompt_tokens", "completion_tokens", "promptTokenCount", "output_tokens"};
	static const char *const forms[] = {"\"usage\":{", "\"usage\" : { ", "\"usageMetadata\":\t{", "\"usage\":\n{"};
	char number[64];
	add(forms[next() % 4]);
	for (unsigned i = next() % 3; i < 4; i += 2) {
		snprintf(number, sizeof number, "\"%s\": %u,", fields[i], next());
		add(number);
	}
	add("\"details\":{\"prompt_tokens\":7,\"usage\":{\"prompt_tokens\":8}},\"total\":1}");
}

/* Wrong places: in strings, in objects, and (but in an array at the root) in objects of lists. */
static void add_value(unsigned depth, bool lists)
{
	static const char *const values[] = {"null", "-1.5e3", "\"\"", "\"usage\"",
		"\"\\\"usage\\\":{\\\"prompt_tokens\\\":5}\"", "\"\\\\\"", "\"\\\\\\\"usage\\\":{\"", "\"{[\\\"\"",
		"\"a\\nb\\u00e4}]\"", "[1,2,[3],\"usage\",[]]"};
	unsigned kind = next() % 14;
	if (kind < 10 || !depth) {
		add(values[next() % 10]);
		return;
	}
	bool list = lists && kind == 10;
	add(list ? "[{" : "{");
	for (unsigned i = next() % 4; i; i--) {
		if (next() % 3 == 0) {
			add_usage();
		} else {
			add("\"key\":");
			add_value(depth - 1, lists);
		}
		add(",");
	}
	add(list ? "\"z\":0},{\"usage\":{\"prompt_tokens\":3}}]" : "\"z\":0}");
}

static void add_object(bool lists)
{
	add("{");
	for (unsigned i = next() % 20; i; i--) {
		if (next() % 9 == 0)
			add_usage();
		else
			add(next() % 2 ? "\"a\" : 1" : "\"usage\":null");
		add(", \"b\":");
		add_value(4, lists);
		add(next() % 2 ? ",\r\n " : ",");
	}
	if (next() % 2) {
		add_usage();
		add(",");
	}
	add("\"usage\":null}");
}

static struct usage_told read_text(uint32_t exact, size_t piece)
{
	return usage_text_of_pieces(exact, text, length, piece).told;
}

static void check_text(void)
{
	static const uint32_t heads[] = {1, 7, 40, 200};
	struct usage_told expected = read_text(TEXT_MAX, length);
	for (unsigned i = 0; i < 4; i++) {
		for (size_t piece = 1; piece < 4 * length; piece = piece * 3 + i) {
			struct usage_told told = read_text(heads[i], piece);
			if (memcmp(&told, &expected, sizeof told) != 0)
				fail_msg("seen %x, not %x, after %u in pieces of %zu: %.*s", told.seen, expected.seen, heads[i],
					piece, (int)length, text);
		}
	}
}

static void test_objects(void **state)
{
	unsigned told = 0;
	(void)state;
	for (seed = 1; seed < 3000; seed++) {
		uint32_t kept = seed;
		length = 0;
		add_object(true);
		check_text();
		told += read_text(1, length).seen != 0;
		seed = kept;
	}
	assert_in_range(told, 1000, 2800);
}

static void test_texts_in_a_row(void **state)
{
	(void)state;
	for (seed = 1; seed < 300; seed++) {
		uint32_t kept = seed;
		length = 0;
		for (int i = 0; i < 3; i++) {
			add("{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"output_tokens\":3,\"promptTokenCount\":4},\"a\":");
			add_value(4, true);
			add("}\n");
		}
		check_text();
		seed = kept;
	}
}

static void test_arrays(void **state)
{
	(void)state;
	for (seed = 1; seed < 1000; seed++) {
		uint32_t kept = seed;
		length = 0;
		add("[");
		for (unsigned i = next() % 5; i; i--) {
			add_object(false);
			add(next() % 2 ? "\n,\r\n" : ",");
		}
		add_object(false);
		add("]");
		check_text();
		seed = kept;
	}
}

/* What the root's object in which the head ends is called is known: usage in it counts, behind it too. */
static void test_wrapped(void **state)
{
	static const char *const wrappers[] = {"message", "response", "x_groq", "other"};
	(void)state;
	for (seed = 1; seed < 1000; seed++) {
		uint32_t kept = seed;
		char head[64];
		struct usage_told expected, told;
		snprintf(head, sizeof head, "{\"%s\":{\"a\":[", wrappers[seed % 4]);
		length = 0;
		add(head);
		uint32_t exact = (uint32_t)length;
		add_value(4, true);
		add("],");
		add_usage();
		add(",\"b\":");
		add_value(4, true);
		add(next() % 2 ? "},\"c\":1}" : "}}");
		expected = read_text(TEXT_MAX, length);
		assert_true((expected.seen != 0 || expected.first_output) == (kept % 4 != 3));
		for (size_t piece = 1; piece < 4 * length; piece *= 3) {
			told = read_text(exact, piece);
			assert_int_equal(told.seen, expected.seen);
			assert_int_equal(told.first_output, expected.first_output);
			for (unsigned i = 0; i < FIELD_COUNT; i++)
				assert_true(!(told.seen & (1u << i)) || told.fields[i] == expected.fields[i]);
		}
		seed = kept;
	}
}

/* Of an array in bulk the last elements are read. */
static void test_bulk_array(void **state)
{
	(void)state;
	length = 0;
	add("[");
	for (int i = 0; i < 1000; i++)
		add("{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hello\"}]}}],\"usageMetadata\":{\"promptTokenCount\":4,"
			"\"candidatesTokenCount\":5}},\n");
	add("{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":6,\"candidatesTokenCount\":7,\"thoughtsTokenCount\":8}}]");
	for (size_t piece = 100; piece < 4 * length; piece *= 3) {
		struct usage_told told = read_text(100, piece);
		assert_int_equal(told.fields[PROMPT_COUNT], 6);
		assert_int_equal(told.fields[CANDIDATES_COUNT], 7);
		assert_int_equal(told.fields[THOUGHTS_COUNT], 8);
	}
}

static void test_merge(void **state)
{
	static const struct usage_told empty = {.seen = 1 << INPUT_TOKENS | 1 << PROMPT_TOKENS | 1 << OUTPUT_TOKENS};
	struct usage_told told = {.seen = 1 << INPUT_TOKENS | 1 << PROMPT_TOKENS, .fields = {7, 7, 7, 7}};
	(void)state;
	usage_told_merge(&told, &empty);
	assert_int_equal(told.seen, empty.seen);
	assert_int_equal(told.fields[INPUT_TOKENS], 7);
	assert_int_equal(told.fields[PROMPT_TOKENS], 0);
	assert_int_equal(told.fields[OUTPUT_TOKENS], 0);
}

/* The root's own word, among many things that have theirs. */
static void test_bulk_list(void **state)
{
	static const uint32_t heads[] = {100, USAGE_TEXT_EXACT};
	static const char *const keys[] = {"{\"data\":[", "],\"more\":["};
	(void)state;
	for (int where = 0; where < 3; where++) {
		length = 0;
		for (int i = 0; i < 2; i++) {
			add(keys[i]);
			for (int k = 0; k < 3000; k++)
				add("{\"id\":\"x\",\"usage\":{\"prompt_tokens\":77,\"completion_tokens\":78},\"a\":[1,{}]},\n");
			if (where == i)
				add("1],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3},\"list\":[");
		}
		add(where == 2 ? "1],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}" : "1]}");
		for (size_t piece = 100; piece < 4 * length; piece *= 3) {
			struct usage_told told = read_text(heads[piece % 2], piece);
			assert_int_equal(told.fields[PROMPT_TOKENS], 9);
			assert_int_equal(told.fields[COMPLETION_TOKENS], 3);
		}
	}
}

/* What a model wrote into lists is called usage, and is none of Gemini's. */
static void test_usage_in_an_array(void **state)
{
	static const char written[] = "{\"functionCall\":{\"args\":{\"l\":[{\"usage\":{\"prompt_tokens\":999,"
								  "\"completion_tokens\":999}},{\"usage\":{\"completion_tokens\":998}}]}}}";
	(void)state;
	for (int before = 0; before < 2; before++) {
		length = 0;
		add("[{\"candidates\":[{\"content\":{\"parts\":[{\"inlineData\":{\"data\":\"");
		for (int i = 0; i < 700 * before; i++)
			add("xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx ");
		add("\"}},");
		add(written);
		add("]}}],\"usage\":{\"prompt_tokens\":997},\"usageMetadata\":{\"promptTokenCount\":5,\"candidatesTokenCount\":6}}]");
		for (size_t piece = 1; piece < 4 * length; piece = piece * 3 + 1) {
			struct usage_told told = read_text(before ? USAGE_TEXT_EXACT : 90, piece);
			assert_int_equal(told.seen, 1 << PROMPT_COUNT | 1 << CANDIDATES_COUNT);
			assert_int_equal(told.fields[PROMPT_COUNT], 5);
			assert_int_equal(told.fields[CANDIDATES_COUNT], 6);
		}
	}
}

/* What is not sure to be the root's does not count. */
static void test_broken_off(void **state)
{
	(void)state;
	length = 0;
	add("{\"a\":[1,2,3],\"usage\":{\"prompt_tokens\":1},\"b\":2");
	assert_int_equal(read_text(6, length).seen, 0);
	add("}");
	assert_int_equal(read_text(6, length).seen, 1);
	add("]");
	assert_int_equal(read_text(6, length).seen, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_objects),
		cmocka_unit_test(test_texts_in_a_row),
		cmocka_unit_test(test_arrays),
		cmocka_unit_test(test_wrapped),
		cmocka_unit_test(test_bulk_array),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_bulk_list),
		cmocka_unit_test(test_usage_in_an_array),
		cmocka_unit_test(test_broken_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
