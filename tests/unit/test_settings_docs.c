/* .env.example and the README's table of settings say what the table in the source says. Runs in the
 * project's root; `apiproxy --print-env-example` and `--print-settings-table` print the right text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state/settings.h"
#include "files_fixture.h"

#define TABLE_START "<!-- settings -->\n"

static char *generated(void (*print)(FILE *out))
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	assert_non_null(out);
	print(out);
	fclose(out);
	return text;
}

static void test_env_example(void **state)
{
	(void)state;
	char *expected = generated(settings_print_env_example), *file = files_read(".env.example");
	assert_string_equal(file, expected);
	free(expected);
	free(file);
}

static void test_readme(void **state)
{
	(void)state;
	if (access("README.md", F_OK) != 0)
		skip();
	char *table = generated(settings_print_markdown), *file = files_read("README.md");
	const char *start = strstr(file, TABLE_START);
	if (!start)
		fail_msg("README.md has no line " TABLE_START);
	start += strlen(TABLE_START);
	while (*start == '\n')
		start++;
	if (strncmp(start, table, strlen(table)) != 0)
		fail_msg("the table of settings in README.md differs from apiproxy --print-settings-table");
	start += strlen(table);
	while (*start == '\n')
		start++;
	if (strncmp(start, TABLE_START, strlen(TABLE_START) - 1) != 0 && strncmp(start, "<!-- /settings -->", 18) != 0)
		fail_msg("in README.md more follows the table of settings before its end mark");
	free(table);
	free(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_env_example), cmocka_unit_test(test_readme)};
	return cmocka_run_group_tests_name("settings_docs", tests, NULL, NULL);
}
