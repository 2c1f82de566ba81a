/* egress: which variable counts for which target, NO_PROXY in all its forms, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "path/egress.h"
#include "state/snapshot.h"

static const char *const variables[] = {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY",
	"all_proxy", "NO_PROXY", "no_proxy"};

static int clear(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof variables / sizeof variables[0]; i++)
		unsetenv(variables[i]);
	return 0;
}

static int finish(void **state)
{
	egress_fini();
	return clear(state);
}

static struct egress_route route(const char *host, bool tls)
{
	struct target target =
		{.host = host, .authority = host, .url = "", .base_path = "", .port = tls ? 443 : 80, .tls = tls};
	return egress_route(&target);
}

static void test_none(void **state)
{
	(void)state;
	setenv("HTTPS_PROXY", "", 1);
	assert_true(egress_init());
	assert_null(route("a", true).curl_proxy);
	assert_null(route("a", false).curl_proxy);
	assert_null(route("a", false).connect_url);
}

static void test_by_scheme(void **state)
{
	(void)state;
	setenv("HTTP_PROXY", "http://user:p%40ss@plain.example:3128", 1);
	setenv("https_proxy", "secure.example:8080", 1);
	assert_true(egress_init());
	struct egress_route plain = route("a", false);
	assert_null(plain.curl_proxy);
	assert_string_equal(plain.connect_url, "http://plain.example:3128/");
	assert_string_equal(plain.authorization, "Basic dXNlcjpwQHNz");
	struct egress_route secure = route("a", true);
	assert_string_equal(secure.curl_proxy, "http://secure.example:8080");
	assert_null(secure.connect_url);
	assert_null(secure.authorization);
}

static void test_for_all(void **state)
{
	(void)state;
	setenv("ALL_PROXY", "socks5h://s.example:1080", 1);
	setenv("HTTP_PROXY", "http://[::1]:3128", 1);
	assert_true(egress_init());
	assert_string_equal(route("a", true).curl_proxy, "socks5h://s.example:1080");
	assert_string_equal(route("a", false).connect_url, "http://[::1]:3128/");
	egress_fini();
	unsetenv("HTTP_PROXY");
	assert_true(egress_init());
	assert_string_equal(route("a", false).curl_proxy, "socks5h://s.example:1080");
	assert_null(route("a", false).connect_url);
}

static void test_upper_case_first(void **state)
{
	(void)state;
	setenv("HTTPS_PROXY", "http://upper.example:1", 1);
	setenv("https_proxy", "http://lower.example:1", 1);
	assert_true(egress_init());
	assert_string_equal(route("a", true).curl_proxy, "http://upper.example:1");
}

static void test_no_proxy(void **state)
{
	static const char *const direct[] = {"localhost", "a.example", "A.EXAMPLE", "x.a.example", "b.example",
		"x.y.b.example", "10.1.2.3", "10.255.255.255", "192.168.5.130", "fd12::1", "::1", "127.0.0.1", "fe80::9"};
	static const char *const through[] = {"xa.example", "example", "a.example.org", "11.0.0.1", "192.168.5.127",
		"192.168.6.130", "fe12::1", "::2", "1127.0.0.1", "10.x.example"};
	(void)state;
	setenv("HTTPS_PROXY", "http://p:1", 1);
	setenv("NO_PROXY",
		"localhost, a.example,.b.example 10.0.0.0/8,192.168.5.128/25,fd00::/8,[::1],127.0.0.1,fe80::9,/8,10.0.0.0/99,",
		1);
	assert_true(egress_init());
	for (unsigned i = 0; i < sizeof direct / sizeof direct[0]; i++)
		if (route(direct[i], true).curl_proxy)
			fail_msg("%s went through the proxy", direct[i]);
	for (unsigned i = 0; i < sizeof through / sizeof through[0]; i++)
		if (!route(through[i], true).curl_proxy)
			fail_msg("%s went directly", through[i]);
}

static void test_no_proxy_for_a_port(void **state)
{
	static const struct {
		const char *entry, *host;
		bool direct;
	} samples[] = {{"a:443", "a", true}, {"a:80", "a", false}, {"a:443", "b", false}, {".a:443", "x.a", true},
		{"[::1]:443", "::1", true}, {"[::1]:80", "::1", false}, {"::1", "::1", true},
		{"10.0.0.0/8:443", "10.1.1.1", true}, {"*:80", "a", false}, {"*:443", "a", true}, {"a:x", "a", false},
		{":443", "a", false}};
	(void)state;
	setenv("HTTPS_PROXY", "http://p:1", 1);
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		setenv("NO_PROXY", samples[i].entry, 1);
		assert_true(egress_init());
		if (!route(samples[i].host, true).curl_proxy != samples[i].direct)
			fail_msg("%s for %s", samples[i].entry, samples[i].host);
		egress_fini();
	}
}

static void test_no_proxy_at_all(void **state)
{
	(void)state;
	setenv("HTTPS_PROXY", "http://p:1", 1);
	setenv("HTTP_PROXY", "http://p:1", 1);
	setenv("no_proxy", "a,*", 1);
	assert_true(egress_init());
	assert_null(route("b", true).curl_proxy);
	assert_null(route("b", false).connect_url);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {"http://", "http://h:99999", "http://a b:1", "://x", "https://h:1",
		"ftp://h:1"};
	int kept = dup(2);
	int null = open("/dev/null", O_WRONLY);
	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		setenv("HTTPS_PROXY", bad[i], 1);
		dup2(null, 2);
		bool fine = egress_init();
		dup2(kept, 2);
		if (fine)
			fail_msg("%s was accepted", bad[i]);
		egress_fini();
	}
	close(null);
	close(kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_none, clear, finish),
		cmocka_unit_test_setup_teardown(test_by_scheme, clear, finish),
		cmocka_unit_test_setup_teardown(test_for_all, clear, finish),
		cmocka_unit_test_setup_teardown(test_upper_case_first, clear, finish),
		cmocka_unit_test_setup_teardown(test_no_proxy, clear, finish),
		cmocka_unit_test_setup_teardown(test_no_proxy_for_a_port, clear, finish),
		cmocka_unit_test_setup_teardown(test_no_proxy_at_all, clear, finish),
		cmocka_unit_test_setup_teardown(test_refused, clear, finish),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
