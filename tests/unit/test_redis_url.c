/* redis_url: what is taken, what is refused, and that no password is shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "state/redis_url.h"

static void same(const char *got, const char *expected)
{
	assert_int_equal(!got, !expected);
	if (expected)
		assert_string_equal(got, expected);
}

static void test_good(void **state)
{
	(void)state;
	static const struct {
		const char *url;
		struct redis_address a;
	} cases[] = {
		{"redis://localhost", {.host = "localhost", .port = 6379}},
		{"REDIS://localhost/", {.host = "localhost", .port = 6379}},
		{"redis://", {.host = "127.0.0.1", .port = 6379}},
		{"redis://:6380", {.host = "127.0.0.1", .port = 6380}},
		{"redis://h:1/15", {.host = "h", .port = 1, .db = 15}},
		{"redis://h?db=3", {.host = "h", .port = 6379, .db = 3}},
		{"redis://:p%40ss@h", {.host = "h", .port = 6379, .password = "p@ss"}},
		{"redis://u:a@b@h:2", {.host = "h", .port = 2, .user = "u", .password = "a@b"}},
		{"rediss://u%3a:p:q@[::1]:6380/2",
			{.tls = true, .host = "::1", .port = 6380, .user = "u:", .password = "p:q", .db = 2}},
		{"unix:///run/redis.sock", {.host = "", .unix_path = "/run/redis.sock"}},
		{"unix://u:p@/run/a%20b?db=4", {.host = "", .unix_path = "/run/a b", .user = "u", .password = "p", .db = 4}},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct redis_address a;
		const char *error = redis_address_parse(cases[i].url, &a);
		if (error)
			fail_msg("%s: %s", cases[i].url, error);
		assert_int_equal(a.tls, cases[i].a.tls);
		same(a.unix_path, cases[i].a.unix_path);
		same(a.host, cases[i].a.host);
		assert_int_equal(a.port, cases[i].a.port);
		same(a.user, cases[i].a.user);
		same(a.password, cases[i].a.password);
		assert_int_equal(a.db, cases[i].a.db);
		redis_address_fini(&a);
	}
}

static void test_bad(void **state)
{
	(void)state;
	static const char *const urls[] = {"", "localhost", "http://h", "redis:/h", "redis://h:0", "redis://h:65536",
		"redis://h:x", "redis://h/x", "redis://h/-1", "redis://h/1/2", "redis://[::1", "redis://[::1]x",
		"redis://[h]", "redis://::1:6379", "redis://u@h", "redis://u:@h", "redis://:%zz@h", "redis://:%00@h",
		"redis://:%4@h", "redis://h h", "redis://h?password=x", "redis://h#1", "unix://", "unix://relative",
		"unix:///", "unix://x/y", "unix:///a?timeout=1",
		"unix:///aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
		struct redis_address a;
		if (!redis_address_parse(urls[i], &a))
			fail_msg("accepted: %s", urls[i]);
	}
}

static void test_hidden(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"redis://h:1/2", "redis://h:1/2"},
		{"redis://u:secret@h/1", "redis://u:***@h/1"},
		{"redis://:sec@ret@h", "redis://:***@h"},
		{"redis://:se/cret@h", "redis://:***@h"},
		{"secret@h", "***@h"},
		{"redis://h?password=secret", "redis://h?***"},
		{"unix://u:secret@/a?db=1", "unix://u:***@/a?db=1"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *shown = redis_url_without_password(cases[i][0]);
		assert_string_equal(shown, cases[i][1]);
		free(shown);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad),
		cmocka_unit_test(test_hidden)};
	return cmocka_run_group_tests_name("redis_url", tests, NULL, NULL);
}
