/* pages: types, entity tags, the security policy, and what is embedded but not given out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "base/embedded.h"

static const char *header(const struct admin_reply *reply, const char *name)
{
	for (size_t i = 0; i < reply->header_count; i++)
		if (strcmp(reply->headers[i].name, name) == 0)
			return reply->headers[i].value;
	return "";
}

static unsigned get(const char *tail, const char *if_none_match, struct admin_reply *reply)
{
	char name[100];
	snprintf(name, sizeof name, "%s", tail);
	struct admin_request request = {.path = "/static/…", .tail = name, .if_none_match = if_none_match};
	*reply = (struct admin_reply){0};
	page_get_static(&request, reply);
	return reply->status;
}

static void test_types(void **state)
{
	(void)state;
	static const struct {
		const char *name, *type;
	} cases[] = {
		{"chart.min.js", "text/javascript; charset=utf-8"},
		{"style.css", "text/css; charset=utf-8"},
		{"favicon.svg", "image/svg+xml"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct admin_reply reply;
		assert_int_equal(get(cases[i].name, NULL, &reply), 200);
		assert_string_equal(reply.content_type, cases[i].type);
		assert_int_equal(reply.length, embedded_find(cases[i].name)->length);
		assert_true(reply.length > 0);
		assert_non_null(strstr(header(&reply, "Content-Security-Policy"), "default-src 'none'"));
		assert_string_equal(header(&reply, "Cache-Control"), "no-cache");
		admin_reply_free(&reply);
	}
}

static void test_pages(void **state)
{
	(void)state;
	for (int page = PAGE_INDEX; page <= PAGE_ADMIN; page++) {
		struct admin_request request = {.path = "/", .detail = page};
		struct admin_reply reply = {0};
		page_get(&request, &reply);
		assert_int_equal(reply.status, 200);
		assert_string_equal(reply.content_type, "text/html; charset=utf-8");
		/* The policy would keep inline scripts and styles from working. */
		assert_null(strstr(reply.static_body, "<script>"));
		assert_null(strstr(reply.static_body, "<style"));
		assert_null(strstr(reply.static_body, " style=\""));
		admin_reply_free(&reply);
	}
}

static void test_entity_tags(void **state)
{
	(void)state;
	struct admin_reply first, reply;
	char list[100];
	assert_int_equal(get("style.css", NULL, &first), 200);
	const char *tag = header(&first, "ETag");
	assert_int_equal(strlen(tag), 18);
	snprintf(list, sizeof list, "\"other\", W/%s", tag);
	const char *known[] = {tag, list, "*"};
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(get("style.css", known[i], &reply), 304);
		assert_int_equal(reply.length, 0);
		assert_string_equal(header(&reply, "ETag"), tag);
		admin_reply_free(&reply);
	}
	assert_int_equal(get("style.css", "\"0123456789abcdef\"", &reply), 200);
	admin_reply_free(&reply);
	assert_int_equal(get("favicon.svg", tag, &reply), 200);
	admin_reply_free(&reply);
	admin_reply_free(&first);
}

static void test_not_given_out(void **state)
{
	(void)state;
	static const char *const names[] = {"stats_flush.lua", "index.html", "nothing.js", ".js", "../index.html",
		"a/b.js", ""};
	assert_non_null(embedded_find("stats_flush.lua"));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct admin_reply reply;
		assert_int_equal(get(names[i], NULL, &reply), 404);
		admin_reply_free(&reply);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_entity_tags),
		cmocka_unit_test(test_not_given_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
