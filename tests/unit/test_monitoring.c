/* What monitoring/ asks for must be what /metrics has. Runs in the repository's root. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>
#include <cmocka.h>

#include "files_fixture.h"

static const struct {
	const char *type;
	const char *name;
} metrics[] = {
#define METRIC(type, name, writer, help) {#type, name},
#include "state/metrics.def"
#undef METRIC
};
enum { METRICS = sizeof metrics / sizeof *metrics };

/* The metric that a name in an expression means: a histogram has three names. -1: none. */
static int metric_of(const char *name, size_t length)
{
	static const char *const parts[] = {"_bucket", "_sum", "_count"};
	for (int i = 0; i < METRICS; i++) {
		size_t own = strlen(metrics[i].name);
		if (strncmp(name, metrics[i].name, own) != 0)
			continue;
		if (strcmp(metrics[i].type, "histogram") != 0 && length == own)
			return i;
		for (size_t part = 0; part < 3 && strcmp(metrics[i].type, "histogram") == 0; part++)
			if (length == own + strlen(parts[part]) && strncmp(name + own, parts[part], length - own) == 0)
				return i;
	}
	return -1;
}

static void check_names(const char *path, bool *used)
{
	char *text = files_read(path);
	for (char *at = text; *at;) {
		size_t length = 0;
		while (isalnum((unsigned char)at[length]) || at[length] == '_')
			length++;
		if (strncmp(at, "apiproxy_", 9) == 0 || strncmp(at, "process_", 8) == 0) {
			int metric = metric_of(at, length);
			if (metric < 0)
				fail_msg("%s: no metric %.*s", path, (int)length, at);
			used[metric] = true;
		}
		at += length ? length : 1;
	}
	free(text);
}

static void test_names_are_those_of_the_page(void **state)
{
	(void)state;
	bool used[METRICS] = {false}, ignored[METRICS] = {false};
	check_names("monitoring/alerts.yml", ignored);
	check_names("monitoring/alerts_test.yml", ignored);
	check_names("monitoring/grafana-dashboard.json", used);
	for (int i = 0; i < METRICS; i++)
		if (strncmp(metrics[i].name, "apiproxy_", 9) == 0 && !used[i])
			fail_msg("the dashboard does not show %s", metrics[i].name);
}

static void test_dashboard_is_json(void **state)
{
	(void)state;
	char *text = files_read("monitoring/grafana-dashboard.json");
	cJSON *root = cJSON_Parse(text);
	assert_non_null(root);
	assert_true(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, "panels")) > 10);
	cJSON_Delete(root);
	free(text);
}

static void test_promtool_takes_the_files(void **state)
{
	(void)state;
	if (system("command -v promtool >/dev/null") != 0)
		skip();
	assert_int_equal(system("promtool check config monitoring/prometheus.yml >/dev/null"), 0);
	assert_int_equal(system("promtool check rules monitoring/alerts.yml >/dev/null"), 0);
	assert_int_equal(system("promtool test rules monitoring/alerts_test.yml >/dev/null"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_are_those_of_the_page),
		cmocka_unit_test(test_dashboard_is_json),
		cmocka_unit_test(test_promtool_takes_the_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
