/* The documents name what the tables in the source have: vendors, fields, codes, metrics, alerts. Runs in the
 * project's root. (The table of settings: test_settings_docs.c.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state/problem.h"
#include "state/schema_fields.h"
#include "files_fixture.h"

/* `name` in the document, in backquotes. */
static void expect_code(const char *text, const char *path, const char *name)
{
	char quoted[128];
	snprintf(quoted, sizeof quoted, "`%s`", name);
	if (!strstr(text, quoted))
		fail_msg("%s says nothing of %s", path, quoted);
}

static void test_vendors(void **state)
{
	(void)state;
	char *readme = files_read("README.md"), *list = files_read("src/state/vendors.json");
	cJSON *vendors = cJSON_Parse(list);
	const cJSON *mapping;
	assert_non_null(vendors);
	cJSON_ArrayForEach(mapping, cJSON_GetObjectItem(vendors, "mappings")) {
		const char *target = cJSON_GetStringValue(cJSON_GetObjectItem(mapping, "target"));
		expect_code(readme, "README.md", cJSON_GetStringValue(cJSON_GetObjectItem(mapping, "prefix")));
		if (!strstr(readme, target))
			fail_msg("README.md says nothing of %s", target);
	}
	cJSON_Delete(vendors);
	free(readme);
	free(list);
}

static void expect_fields(const char *text, const struct field *fields)
{
	for (; fields->name; fields++) {
		if (!(fields->flags & FIELD_STORED_ONLY) && strcmp(fields->name, "health") != 0)
			expect_code(text, "docs/api.md", fields->name);
		if (fields->fields)
			expect_fields(text, fields->fields);
	}
}

static void test_fields(void **state)
{
	(void)state;
	char *text = files_read("docs/api.md");
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		expect_fields(text, schema_fields[kind]);
	free(text);
}

static void test_problems(void **state)
{
	(void)state;
	char *text = files_read("README.md");
	for (int id = PROBLEM_NONE + 1; id < PROBLEM_COUNT; id++)
		expect_code(text, "README.md", problem_table[id].code);
	free(text);
}

static void test_metrics(void **state)
{
	(void)state;
	char *text = files_read("docs/operations.md");
#define METRIC(type, name, writer, help) expect_code(text, "docs/operations.md", name);
#include "state/metrics.def"
#undef METRIC
	free(text);
}

static void test_alerts(void **state)
{
	(void)state;
	static const char mark[] = "- alert: ";
	char *text = files_read("docs/operations.md"), *rules = files_read("monitoring/alerts.yml"), name[64];
	int count = 0;
	for (const char *at = rules; (at = strstr(at, mark)); count++) {
		at += strlen(mark);
		snprintf(name, sizeof name, "%.*s", (int)strcspn(at, "\n"), at);
		expect_code(text, "docs/operations.md", name);
	}
	assert_true(count > 0);
	free(text);
	free(rules);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vendors),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_alerts),
	};
	return cmocka_run_group_tests_name("docs", tests, NULL, NULL);
}
