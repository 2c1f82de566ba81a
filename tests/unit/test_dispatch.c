/* dispatch: which row answers, who may ask, what the open part of a path is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "admin/dispatch.h"
#include "admin_fakes.h"
#include "state/schema.h"

#define TOKEN "correct-horse-battery-staple"
#define WITH_TOKEN "Bearer " TOKEN

static struct settings settings;
static struct admin admin;

static int set_up(void **state)
{
	(void)state;
	settings = (struct settings){.server_public_stats = true};
	admin_init(&admin, &(struct admin_setup){.settings = &settings, .admin_token = TOKEN});
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	admin_fini(&admin);
	return 0;
}

/* The status of the refusal, or 200 and what the handler says. */
static unsigned ask(const char *method, const char *path, const char *authorization, bool ops, char *text,
	size_t size)
{
	struct admin_request request =
		{.admin = &admin, .method = method, .path = path, .query = "", .peer = "", .ops = ops};
	struct admin_reply reply = {0};
	const struct dispatch_row *row = dispatch_find(&request, authorization, &reply);
	if (row)
		row->handler(&request, &reply);
	unsigned status = reply.status;
	int used = snprintf(text, size, "%s", reply.body);
	for (size_t i = 0; i < reply.header_count; i++)
		used += snprintf(text + used, size - (size_t)used, "\n%s: %s", reply.headers[i].name, reply.headers[i].value);
	admin_reply_free(&reply);
	free(request.tail);
	return status;
}

static void test_rows(void **state)
{
	(void)state;
	static const struct {
		const char *method, *path, *handler;
		int detail;
		const char *tail;
	} cases[] = {
		{"GET", "/", "page_get", PAGE_INDEX, ""},
		{"HEAD", "/index.html", "page_get", PAGE_INDEX, ""},
		{"GET", "/admin", "page_get", PAGE_ADMIN, ""},
		{"GET", "/admin/", "page_get_admin_slash", 0, ""},
		{"GET", "/static/a.js", "page_get_static", 0, "a.js"},
		{"POST", "/auth/login", "login_post", 0, ""},
		{"GET", "/api/mappings", "resource_list", SCHEMA_MAPPING, ""},
		{"POST", "/api/keys", "resource_create", SCHEMA_KEY, ""},
		{"GET", "/api/mappings/a", "resource_get", SCHEMA_MAPPING, "a"},
		{"GET", "/api/mappings/a/b/c", "resource_get", SCHEMA_MAPPING, "a/b/c"},
		{"PUT", "/api/mappings/a%2Fb", "resource_update", SCHEMA_MAPPING, "a/b"},
		{"DELETE", "/api/mappings/a/", "resource_delete", SCHEMA_MAPPING, "a/"},
		{"DELETE", "/api/users/J%c3%bcrgen", "resource_delete", SCHEMA_USER, "J\xc3\xbcrgen"},
		{"GET", "/api/clients/reset", "resource_get", SCHEMA_CLIENT, "reset"},
		{"POST", "/api/keys/k.1/reset", "resource_reset", SCHEMA_KEY, "k.1"},
		{"POST", "/api/clients/c/rotate", "resource_rotate", SCHEMA_CLIENT, "c"},
		{"GET", "/api/clients/c/usage", "usage_get", SCHEMA_CLIENT, "c"},
		{"HEAD", "/api/users/u/usage", "usage_get", SCHEMA_USER, "u"},
		{"PUT", "/api/config", "config_put", 0, ""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[512], expected[512];
		assert_int_equal(ask(cases[i].method, cases[i].path, WITH_TOKEN, false, text, sizeof text), 200);
		snprintf(expected, sizeof expected, "%s %d tail=%s query= length=0 peer=", cases[i].handler, cases[i].detail,
			cases[i].tail);
		assert_string_equal(text, expected);
	}
}

static void test_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *method, *path;
		unsigned status;
		const char *says;
	} cases[] = {
		{"GET", "/nothing", 404, "no_mapping"},
		{"GET", "/static/", 404, "no_mapping"},
		{"GET", "/healthy", 404, "no_mapping"},
		{"GET", "/api", 404, "no_mapping"},
		{"GET", "/api/", 404, "no_mapping"},
		{"GET", "/api/mappings/", 404, "no_mapping"},
		{"GET", "/api/keys/a/b", 404, "no_mapping"},
		{"GET", "/api/keys//reset", 404, "no_mapping"},
		{"POST", "/api/keys/a/rotate", 404, "no_mapping"},
		{"PATCH", "/api/mappings", 405, "\nAllow: GET, HEAD, POST"},
		{"POST", "/api/mappings/a", 405, "\nAllow: GET, HEAD, PUT, DELETE"},
		{"GET", "/api/keys/a/reset", 405, "\nAllow: POST"},
		{"GET", "/auth/login", 405, "method_not_allowed"},
		{"POST", "/", 405, "\nAllow: GET, HEAD"},
		{"get", "/health", 405, "\nAllow: GET, HEAD"},
		{"GET", "/api/mappings/a%2", 400, "bad_request"},
		{"GET", "/api/mappings/a%zz", 400, "bad_request"},
		{"GET", "/api/mappings/a%00b", 400, "bad_request"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[512];
		assert_int_equal(ask(cases[i].method, cases[i].path, WITH_TOKEN, false, text, sizeof text), cases[i].status);
		assert_non_null(strstr(text, cases[i].says));
	}
}

static void test_access(void **state)
{
	(void)state;
	enum { MAIN = 1, OPS = 2, MAIN_NOT_PUBLIC = 4, OPS_NOT_PUBLIC = 8, EVER = 15 };
	static const struct {
		const char *path;
		int without_token;
	} cases[] = {
		{"/health", EVER},
		{"/admin", EVER},
		{"/static/a.js", EVER},
		{"/", MAIN | OPS},
		{"/index.html", MAIN | OPS},
		{"/stats", MAIN | OPS | OPS_NOT_PUBLIC},
		{"/metrics", OPS | OPS_NOT_PUBLIC},
		{"/performance", OPS | OPS_NOT_PUBLIC},
		{"/errors", OPS | OPS_NOT_PUBLIC},
		{"/api/mappings", 0},
		{"/api/keys/a", 0},
		{"/api/config", 0},
		{"/api/users/u/usage", 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int where = 0; where < 4; where++) {
			char text[512];
			settings.server_public_stats = where < 2;
			bool open = cases[i].without_token & 1 << where;
			assert_int_equal(ask("GET", cases[i].path, NULL, where & 1, text, sizeof text), open ? 200 : 401);
			assert_true(open || strstr(text, "\nWWW-Authenticate: Bearer"));
			assert_int_equal(ask("GET", cases[i].path, WITH_TOKEN, where & 1, text, sizeof text), 200);
		}
}

static void test_token(void **state)
{
	(void)state;
	static const char *const wrong[] = {
		"",
		"Bearer",
		"Bearer ",
		TOKEN,
		"Basic " TOKEN,
		"Bearer " TOKEN "x",
		"Bearer correct-horse",
		"Bearer " TOKEN " x",
		"Bearer\t" TOKEN,
	};
	char text[512];
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		assert_int_equal(ask("GET", "/api/config", wrong[i], true, text, sizeof text), 401);
		assert_non_null(strstr(text, "invalid_credentials"));
	}
	assert_int_equal(ask("GET", "/api/config", "bearer  " TOKEN, false, text, sizeof text), 200);
	/* Who may not ask does not learn what there is. */
	assert_int_equal(ask("GET", "/api/nothing", NULL, false, text, sizeof text), 401);
	assert_int_equal(ask("PATCH", "/api/config", NULL, false, text, sizeof text), 401);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rows, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_access, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_token, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
