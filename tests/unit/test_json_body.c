/* json_body: what is taken as a JSON object, and that a refusal says where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "admin/admin.h"

static void refused(const char *body, size_t length, const char *says)
{
	struct admin_request request = {.body = body, .length = length};
	struct admin_reply reply = {0};
	assert_null(admin_request_json(&request, &reply));
	assert_int_equal(reply.status, 400);
	assert_non_null(strstr(reply.body, "\"code\":\"bad_request\""));
	if (!strstr(reply.body, says))
		fail_msg("%s does not say %s", reply.body, says);
	admin_reply_free(&reply);
}

static void test_refuses(void **state)
{
	(void)state;
	static const struct {
		const char *body, *says;
	} cases[] = {
		{"", "empty"},
		{"{\"a\":1", "line 1, column 7"},
		{"{\"a\":\n01}", "line 2, column 2"},
		{"{\"a\":1}x", "line 1, column 8"},
		{"{\"a\":1} {}", "line 1, column 9"},
		{"{\n  \"a\": tru\n}", "line 2, column"},
		{"[]", "must be a JSON object"},
		{"3", "must be a JSON object"},
		{"{\"a\":\"\xff\"}", "line 1, column 7"},
		{"{\"a\":\"\xc0\xaf\"}", "line 1, column 7"},
		{"{\"a\":\"\xed\xa0\x80\"}", "line 1, column 7"},
		{"{\"a\":\"\xe2\x82\"}", "line 1, column 7"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refused(cases[i].body, strlen(cases[i].body), cases[i].says);
	refused("{}\0", 3, "line 1, column 3");
	char deep[4096];
	memset(deep, '[', sizeof deep);
	refused(deep, sizeof deep, "line 1, column");
}

static void test_takes(void **state)
{
	(void)state;
	static const char *const bodies[] = {
		"{}",
		" \r\n\t{\"a\":[1,2]} \n",
		"{\"a\":{\"b\":1},\"c\":{\"b\":1}}",
		"{\"a\":1,\"a\":\"\\u0000\"}",
		"{\"a\":\"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\"}",
		"{\"a\":null}",
	};
	for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
		struct admin_request request = {.body = bodies[i], .length = strlen(bodies[i])};
		struct admin_reply reply = {0};
		cJSON *json = admin_request_json(&request, &reply);
		assert_non_null(json);
		assert_int_equal(reply.status, 0);
		admin_json_free(json);
	}
}

static bool leaked;

static void watching_free(void *memory)
{
	leaked |= memory && strncmp(memory, "s3cret", 6) == 0;
	free(memory);
}

static void test_wipes(void **state)
{
	static const char body[] = "{\"a\":\"s3cret\",\"b\":[{\"c\":\"s3cret, too\"},\"s3cret\"],\"d\":1}";
	struct admin_request request = {.body = body, .length = sizeof body - 1};
	struct admin_reply reply = {0};
	(void)state;
	cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = malloc, .free_fn = watching_free});
	cJSON *json = admin_request_json(&request, &reply);
	assert_non_null(json);
	admin_json_free(json);
	assert_false(leaked);
	cJSON_Delete(admin_request_json(&request, &reply));
	assert_true(leaked);
	admin_json_free(NULL);
	cJSON_InitHooks(NULL);
}

static void test_query(void **state)
{
	(void)state;
	assert_true(admin_query_is("scope=cluster", "scope", "cluster"));
	assert_true(admin_query_is("a=1&scope=cluster&b", "scope", "cluster"));
	assert_false(admin_query_is("", "scope", "cluster"));
	assert_false(admin_query_is("scope=clusters", "scope", "cluster"));
	assert_false(admin_query_is("xscope=cluster", "scope", "cluster"));
	assert_false(admin_query_is("scope", "scope", "cluster"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_takes),
		cmocka_unit_test(test_wipes),
		cmocka_unit_test(test_query),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
