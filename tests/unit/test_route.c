/* route: splitting of targets, dot segments in every disguise, reserved paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "path/route.h"
#include "state/rules.h"

#define SPAN(text) ((struct http_span){text, strlen(text)})

static bool is(struct http_span span, const char *text)
{
	return span.length == strlen(text) && memcmp(span.at, text, span.length) == 0;
}

static void test_split(void **state)
{
	static const struct {
		const char *target;
		const char *path; /* NULL: neither form */
		const char *query;
	} samples[] = {
		{"/", "/", ""},
		{"/a/b?c=d?e", "/a/b", "?c=d?e"},
		{"/a?", "/a", "?"},
		{"//a", "//a", ""},
		{"/a#b", "/a#b", ""},
		{"http://h/a?b", "/a", "?b"},
		{"HTTPS://h:1/a", "/a", ""},
		{"http://h", "/", ""},
		{"http://h?q", "/", "?q"},
		{"http://h/a//b", "/a//b", ""},
		{"http://[::1]:1/@:x", "/@:x", ""},
		{"*", NULL, NULL},
		{"a/b", NULL, NULL},
		{"ftp://h/", NULL, NULL},
		{"http:///a", NULL, NULL},
		{"http://", NULL, NULL},
		{"http://u@h/a", NULL, NULL},
		{"http://u:p@h:1/a", NULL, NULL},
		{"http://h:99x/a", NULL, NULL},
		{"http://h:65536/a", NULL, NULL},
		{"http://:80/a", NULL, NULL},
		{"http://[::1/a", NULL, NULL},
		{"http://h#/a", NULL, NULL},
		{"h:443", NULL, NULL},
		{"?a", NULL, NULL},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		struct http_span path;
		struct http_span query;
		bool fine = route_split(SPAN(samples[i].target), &path, &query);
		if (fine != (samples[i].path != NULL) ||
			(fine && !(is(path, samples[i].path) && is(query, samples[i].query))))
			fail_msg("%s", samples[i].target);
	}
}

static void test_dot_segments(void **state)
{
	static const char *const dotted[] = {
		"/.",
		"/..",
		"/a/.",
		"/a/..",
		"/./a",
		"/../a",
		"/a/./b",
		"/a/../b",
		"/%2e",
		"/%2E%2e/a",
		"/.%2e/a",
		"/%2e./a",
		"/a%2f..",
		"/a%2F%2e%2E%2fb",
		"/a/..%2fb",
		"/a%2f.%2Fb",
		"//../",
	};
	static const char *const plain[] = {
		"/",
		"/a",
		"/...",
		"/a/.../b",
		"/.a",
		"/..a",
		"/a.",
		"/a..",
		"/a../b",
		"/%2e%2e%2e",
		"/.well-known",
		"/a%2e/b",
		"/%252e%252e/a",
		"/a%2",
		"/%2",
		"/a.b/c..d",
	};
	(void)state;
	for (unsigned i = 0; i < sizeof dotted / sizeof dotted[0]; i++)
		if (!route_has_dot_segment(SPAN(dotted[i])))
			fail_msg("%s was let through", dotted[i]);
	for (unsigned i = 0; i < sizeof dotted / sizeof dotted[0]; i++) { /* nor may a mapping bring one in */
		char target[64];
		snprintf(target, sizeof target, "http://h%s", dotted[i]);
		if (!rules_check_target(target) || !rules_check_prefix(dotted[i]))
			fail_msg("%s may be mapped", dotted[i]);
	}
	for (unsigned i = 0; i < sizeof plain / sizeof plain[0]; i++)
		if (route_has_dot_segment(SPAN(plain[i])))
			fail_msg("%s was taken for dotted", plain[i]);
}

static void test_reserved(void **state)
{
	static const char *const ours[] = {
		"/",
		"/index.html",
		"/static/a.js",
		"/stats",
		"/stats/",
		"/admin",
		"/api/mappings/a/b",
		"/auth/login",
		"/health",
		"/metrics",
		"/performance",
		"/errors",
		"/.well-known/acme-challenge/x",
	};
	static const char *const others[] = {"/statsx", "/apix/a", "/v1", "/index.htm", "/index.html5", "/a/admin",
		"/Admin", "//"};
	(void)state;
	for (unsigned i = 0; i < sizeof ours / sizeof ours[0]; i++)
		if (!route_is_reserved(SPAN(ours[i])))
			fail_msg("%s", ours[i]);
	for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++)
		if (route_is_reserved(SPAN(others[i])))
			fail_msg("%s", others[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_dot_segments),
		cmocka_unit_test(test_reserved),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
