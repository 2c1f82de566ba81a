/* journal and log: order, bound, counting, one line whatever the message holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "state/journal.h"

static int kept_stderr = -1;
static FILE *captured;

static void capture(void)
{
	fflush(stderr);
	captured = tmpfile();
	assert_non_null(captured);
	kept_stderr = dup(2);
	dup2(fileno(captured), 2);
}

static const char *release(void)
{
	static char text[65536];
	dup2(kept_stderr, 2);
	close(kept_stderr);
	rewind(captured);
	text[fread(text, 1, sizeof text - 1, captured)] = 0;
	fclose(captured);
	return text;
}

static const char *string_of(const cJSON *list, int index, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetArrayItem(list, index), name));
}

static void test_journal(void **state)
{
	(void)state;
	capture();
	for (int i = 0; i < 150; i++)
		journal_add("redis", "fault %d", i);
	for (int i = 0; i < 3; i++)
		journal_add("redis", "fault again");
	const char *lines = release();
	assert_non_null(strstr(lines, " warning redis: fault 149\n"));
	const char *again = strstr(lines, "fault again");
	assert_non_null(again);
	assert_null(strstr(again + 1, "fault again"));

	cJSON *document = journal_to_json();
	const cJSON *errors = cJSON_GetObjectItem(document, "errors");
	assert_int_equal(cJSON_GetArraySize(errors), 100);
	assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(document, "count")), 100);
	assert_string_equal(string_of(errors, 0, "message"), "fault again");
	assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(cJSON_GetArrayItem(errors, 0), "count")), 3);
	assert_string_equal(string_of(errors, 1, "message"), "fault 149");
	assert_string_equal(string_of(errors, 99, "message"), "fault 51");
	assert_string_equal(string_of(errors, 99, "source"), "redis");
	const char *at = string_of(errors, 0, "at");
	assert_int_equal(strlen(at), strlen("2026-11-21T03:38:45.123Z"));
	assert_int_equal(at[10], 'T');
	cJSON_Delete(document);
}

static unsigned times(const char *lines, const char *text)
{
	unsigned count = 0;
	for (; (lines = strstr(lines, text)); lines++)
		count++;
	return count;
}

static void test_faults_in_turn(void **state)
{
	(void)state;
	cJSON *before = journal_to_json();
	capture();
	for (int i = 0; i < 150; i++)
		journal_add("upstream", "dead %d", i % 3);
	journal_add("key", "dead 0");
	journal_add("upstream", "dead 1");
	const char *lines = release();
	assert_int_equal(times(lines, "warning upstream: dead "), 3);
	assert_int_equal(times(lines, "warning key: dead 0\n"), 1);

	static const struct {
		const char *source, *message;
		int count;
	} first[] = {{"upstream", "dead 1", 51}, {"key", "dead 0", 1}, {"upstream", "dead 2", 50},
		{"upstream", "dead 0", 50}};
	cJSON *document = journal_to_json();
	const cJSON *errors = cJSON_GetObjectItem(document, "errors");
	assert_int_equal(cJSON_GetArraySize(errors), 100);
	for (int i = 0; i < 4; i++) {
		assert_string_equal(string_of(errors, i, "source"), first[i].source);
		assert_string_equal(string_of(errors, i, "message"), first[i].message);
		assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(cJSON_GetArrayItem(errors, i), "count")),
			first[i].count);
	}
	/* Four of the oldest went; the others are as they were. */
	for (int i = 4; i < 100; i++)
		assert_true(cJSON_Compare(cJSON_GetArrayItem(errors, i),
			cJSON_GetArrayItem(cJSON_GetObjectItem(before, "errors"), i - 4), true));
	cJSON_Delete(document);
	cJSON_Delete(before);
}

static void test_log_text(void **state)
{
	(void)state;
	capture();
	log_configure(LOG_WARNING, false);
	log_info("x", "hidden");
	log_warning("mod", "a\nb\x1b\xff\xc3\xa9 %d", 7);
	log_configure(LOG_INFO, false);
	const char *line = release();
	assert_int_equal(line[23], 'Z');
	assert_string_equal(line + 24, " warning mod: a?b??\xc3\xa9 7\n");
}

static void test_log_json(void **state)
{
	(void)state;
	char long_text[5000];
	memset(long_text, 1, sizeof long_text - 1);
	long_text[sizeof long_text - 1] = 0;
	capture();
	log_configure(LOG_DEBUG, true);
	log_debug("mod", "a\n\"b\\ \xff\xc3\xa9");
	log_error("mod", "%s", long_text);
	log_configure(LOG_INFO, false);
	const char *lines = release();
	const char *end;
	cJSON *document = cJSON_ParseWithOpts(lines, &end, false);
	assert_non_null(document);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(document, "message")), "a\n\"b\\ ?\xc3\xa9");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(document, "level")), "debug");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(document, "module")), "mod");
	assert_non_null(cJSON_GetObjectItem(document, "at"));
	cJSON_Delete(document);
	document = cJSON_ParseWithOpts(end + 1, &end, false);
	assert_non_null(document);
	assert_string_equal(end, "\n");
	cJSON_Delete(document);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_journal), cmocka_unit_test(test_faults_in_turn),
		cmocka_unit_test(test_log_text), cmocka_unit_test(test_log_json)};
	return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
