/* schema, rules, secrets: what is taken, what is refused and how that is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <cjson/cJSON.h>

#include "base/arena.h"
#include "state/faults.h"
#include "state/rules.h"
#include "state/schema.h"
#include "state/secrets.h"
#include "state/snapshot.h"

static void test_prefixes(void **state)
{
	static const char *const good[] = {"/x", "/openai", "/a/b.c/d~e/f-g_h", "/...", "/apis", "/stats2/x",
		"/index.htm", "/static.js", "/A"};
	static const char *const bad[] = {"", "/", "x", "/x/", "//x", "/x//y", "/.", "/..", "/x/./y", "/x/..", "/a b",
		"/a%20", "/a?b", "/ä", "/index.html", "/static", "/stats", "/admin", "/admin/x", "/api", "/api/mappings",
		"/auth", "/health", "/metrics", "/performance", "/errors", "/.well-known", "/.well-known/acme"};
	char longest[131] = "/";
	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		if (rules_check_prefix(good[i]))
			fail_msg("%s: %s", good[i], rules_check_prefix(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (!rules_check_prefix(bad[i]))
			fail_msg("%s is taken", bad[i]);
	memset(longest + 1, 'a', 127);
	assert_null(rules_check_prefix(longest));
	longest[128] = 'a';
	assert_non_null(rules_check_prefix(longest));
}

static void test_targets(void **state)
{
	static const struct {
		const char *url, *host, *authority, *base_path;
		uint16_t port;
		bool tls;
	} good[] = {
		{"https://api.openai.com", "api.openai.com", "api.openai.com", "", 443, true},
		{"http://h/", "h", "h", "", 80, false},
		{"HTTP://h:8080/v1", "h", "h:8080", "/v1", 8080, false},
		{"https://[2001:db8::1]:8443/a/b", "2001:db8::1", "[2001:db8::1]:8443", "/a/b", 8443, true},
		{"https://[::1]", "::1", "[::1]", "", 443, true},
		{"http://127.0.0.1:65535/v1/", "127.0.0.1", "127.0.0.1:65535", "/v1/", 65535, false},
		{"http://h/..a/b..%2F...", "h", "h", "/..a/b..%2F...", 80, false},
		{"http://my_host.local.:1/a%2Fb", "my_host.local.", "my_host.local.:1", "/a%2Fb", 1, false},
	};
	static const char *const bad[] = {"", "x", "ftp://h", "https://", "https:///x", "http://:80",
		"http://h:", "http://h:0", "http://h:65536", "http://h:8a", "http://u@h", "http://u:p@h/", "http://h?x",
		"http://h/x?y", "http://h/#f", "http://h h", "http://h/a b", "http://h/\"", "http://h/%zz", "http://h/a/../b",
		"http://h/%2e%2E/b", "http://h/.", "http://h/a/..%2fb", "http://h/a%2F..", "http://h/a%2f%2e%2Fb",
		"http://[::1", "http://[::g]", "http://[]", "http://[::1]x", "http://1.2.3", "http://1.2.3.256", "http://-a",
		"http://a-", "http://a..b", "http://.a", "http://ä.de", "http://h\r\nX: y", "//h", "https:/h", "https://h\\x",
		"http://a:b:c"};
	char longest[2060] = "http://h/";
	struct arena *arena = arena_new();
	struct target t;
	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		const char *fault = rules_parse_target(good[i].url, arena, &t);
		if (fault)
			fail_msg("%s: %s", good[i].url, fault);
		assert_string_equal(t.url, good[i].url);
		assert_string_equal(t.host, good[i].host);
		assert_string_equal(t.authority, good[i].authority);
		assert_string_equal(t.base_path, good[i].base_path);
		assert_int_equal(t.port, good[i].port);
		assert_int_equal(t.tls, good[i].tls);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (!rules_check_target(bad[i]))
			fail_msg("%s is taken", bad[i]);
	memset(longest + 9, 'a', 2048 - 9);
	assert_null(rules_check_target(longest));
	longest[2048] = 'a';
	assert_non_null(rules_check_target(longest));
	arena_free(arena);
}

static void test_times(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} good[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"2030-01-01T00:00:00Z", 1893456000000},
		{"2030-01-01T01:30:00.1239+01:30", 1893456000123},
		{"2024-02-29t23:59:59z", 1709251199000},
		{"2000-02-29T00:00:00-00:00", 951782400000},
		{"2029-12-31T19:00:00-05:00", 1893456000000},
	};
	static const char *const bad[] = {"", "2030-01-01", "2030-01-01T00:00:00", "2030-1-1T00:00:00Z",
		"2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2030-13-01T00:00:00Z", "2030-00-01T00:00:00Z",
		"2030-01-32T00:00:00Z", "2030-01-01T24:00:00Z", "2030-01-01T00:60:00Z", "2030-01-01T00:00:61Z",
		"2030-01-01T00:00:00.Z", "2030-01-01T00:00:00Zx", "2030-01-01T00:00:00+1:00", "2030-01-01T00:00:00+24:00",
		"2030-01-01 00:00:00Z", "tomorrow", "1893456000", " 2030-01-01T00:00:00Z"};
	int64_t ms;
	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_true(rules_parse_time(good[i].text, &ms));
		assert_true(ms == good[i].ms);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (rules_parse_time(bad[i], &ms))
			fail_msg("%s is taken", bad[i]);
}

static void test_names(void **state)
{
	(void)state;
	assert_null(rules_check_id("A-z_0.9"));
	assert_non_null(rules_check_id(""));
	assert_non_null(rules_check_id("a b"));
	assert_non_null(rules_check_id(".."));
	assert_non_null(rules_check_id("12345678901234567890123456789012345678901234567890123456789012345"));
	assert_null(rules_check_username("ann@example.com"));
	assert_null(rules_check_username("小明"));
	assert_non_null(rules_check_username("a/b"));
	assert_non_null(rules_check_username("a{b}"));
	assert_non_null(rules_check_username("\xc3\x28"));
	assert_non_null(rules_check_username("a\x7f"));
	assert_null(rules_check_header("api-key"));
	assert_non_null(rules_check_header("Content-Length"));
	assert_non_null(rules_check_header("a:b"));
	assert_non_null(rules_check_secret("a\r\nX: y"));
	assert_non_null(rules_check_secret(""));
	assert_non_null(rules_check_text("\xed\xa0\x80"));
	assert_non_null(rules_check_text("\xc0\x80"));
}

static char *create(enum schema_kind kind, const char *json)
{
	struct faults faults = {0};
	cJSON *input = cJSON_Parse(json);
	assert_non_null(input);
	cJSON *entry = schema_create(kind, input, "", &faults);
	assert_true((entry != NULL) == (faults.count == 0));
	char *text = entry ? schema_to_redis(kind, entry, NULL) : faults_join(&faults);
	cJSON_Delete(entry);
	cJSON_Delete(input);
	faults_fini(&faults);
	return text;
}

static void assert_created(enum schema_kind kind, const char *json, const char *expected)
{
	char *text = create(kind, json);
	assert_string_equal(text, expected);
	free(text);
}

static void test_what_is_stored(void **state)
{
	(void)state;
	assert_created(SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\"}", "http://h");
	assert_created(SCHEMA_MAPPING,
		"{\"prefix\":\"/x\",\"target\":\"https://api.anthropic.com\",\"dialect\":\"anthropic\",\"auth\":\"none\","
		"\"timeout_seconds\":0,\"connect_timeout_seconds\":10,\"enabled\":true,\"description\":\"\",\"pool\":null,\"key_header\":\"\"}",
		"https://api.anthropic.com");
	assert_created(SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\",\"enabled\":false}",
		"{\"target\":\"http://h\",\"enabled\":false}");
	assert_created(SCHEMA_CLIENT, "{\"id\":\"c\",\"rpm\":1000000000000,\"mappings\":[]}",
		"{\"id\":\"c\",\"rpm\":1000000000000}");
}

static void test_every_fault_is_named(void **state)
{
	(void)state;
	assert_created(SCHEMA_MAPPING, "{\"prefix\":\"/x\"}", "target: is required");
	assert_created(SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":null}", "target: is required");
	assert_created(SCHEMA_MAPPING, "{\"prefix\":1,\"target\":[],\"nope\":1}",
		"prefix: must be a string; target: must be a string; nope: is not a known field");
	assert_created(SCHEMA_MAPPING,
		"{\"prefix\":\"/x\",\"target\":\"http://h\",\"auth\":\"maybe\",\"enabled\":1,\"timeout_seconds\":\"5\",\"dialect\":\"cohere\"}",
		"auth: must be none or required; enabled: must be true or false; timeout_seconds: must be a number from 0 to 604800; "
		"dialect: must be openai, anthropic or gemini");
	assert_created(SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\",\"queue\":{\"capacity\":1.5,\"x\":1}}",
		"queue.capacity: must be a whole number from 0 to 1000000; queue.x: is not a known field; queue.rate_per_second: is required");
	assert_created(SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\",\"queue\":{\"rate_per_second\":0}}",
		"queue.rate_per_second: must be a number from 0.001 to 1000000");
	assert_created(SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\",\"queue\":7}",
		"queue: must be an object");
	assert_created(SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"prefix\":\"/y\",\"target\":\"http://h\"}",
		"prefix: is given more than once");
	assert_created(SCHEMA_MAPPING, "[]", "must be a JSON object");
	assert_created(SCHEMA_CLIENT, "{\"mappings\":[\"/a\",\"b\",3],\"rpm\":-1,\"expires_at\":\"soon\"}",
		"mappings[1]: must start with /; mappings[2]: must be a string; rpm: must be a whole number from 0 to 1000000000000; "
		"expires_at: must be an RFC 3339 time such as 2030-01-31T12:00:00Z");
	assert_created(SCHEMA_USER, "{\"username\":\"u\",\"password\":\"\"}", "password: must have 1 to 511 bytes");
	assert_created(SCHEMA_USER, "{\"username\":\"u\",\"password_hash\":\"$y$\"}",
		"password_hash: is not a known field");
	assert_created(SCHEMA_KEY, "{\"key_encrypted\":\"v1.x\",\"pool\":\"p\"}", "key_encrypted: is not a known field");
}

static void test_ids_cannot_change(void **state)
{
	struct faults faults = {0};
	cJSON *entry = cJSON_Parse("{\"prefix\":\"/x\",\"target\":\"http://h\"}");
	cJSON *same = cJSON_Parse("{\"prefix\":\"/x\",\"pool\":\"p\"}"), *other = cJSON_Parse("{\"prefix\":\"/y\"}");
	(void)state;
	cJSON *merged = schema_merge(SCHEMA_MAPPING, entry, same, "", &faults);
	assert_non_null(merged);
	assert_string_equal(cJSON_GetObjectItem(merged, "pool")->valuestring, "p");
	assert_null(schema_merge(SCHEMA_MAPPING, entry, other, "", &faults));
	assert_string_equal(faults.items[0], "prefix: cannot be changed");
	faults_fini(&faults);
	cJSON_Delete(merged);
	cJSON_Delete(entry);
	cJSON_Delete(same);
	cJSON_Delete(other);
}

static void test_api_shows_all_in_force(void **state)
{
	struct faults faults = {0};
	cJSON *entry = schema_from_redis(SCHEMA_MAPPING, "/g", "https://generativelanguage.googleapis.com", 41, &faults);
	(void)state;
	cJSON *shown = schema_to_api(SCHEMA_MAPPING, entry);
	char *text = cJSON_PrintUnformatted(shown);
	assert_string_equal(text,
		"{\"prefix\":\"/g\",\"target\":\"https://generativelanguage.googleapis.com\",\"dialect\":\"gemini\",\"auth\":\"none\","
		"\"timeout_seconds\":0,\"connect_timeout_seconds\":10,\"reserve_output_tokens\":0,\"max_body_bytes\":0,\"include_usage\":false,"
		"\"enabled\":true,\"description\":\"\"}");
	free(text);
	cJSON_Delete(shown);
	cJSON_Delete(entry);
}

static void test_lenient_reading(void **state)
{
	static const char value[] = "{\"target\":\"http://h\",\"prefix\":\"/other\",\"new\":[1],\"pool\":null}";
	struct faults faults = {0};
	(void)state;
	cJSON *entry = schema_from_redis(SCHEMA_MAPPING, "/x", value, strlen(value), &faults);
	assert_non_null(entry);
	assert_string_equal(schema_id(SCHEMA_MAPPING, entry), "/x");
	assert_null(cJSON_GetObjectItem(entry, "new"));
	cJSON_Delete(entry);
	assert_null(schema_from_redis(SCHEMA_MAPPING, "/admin", "http://h", 8, &faults));
	assert_null(schema_from_redis(SCHEMA_KEY, "k", "{\"pool\":\"p\"}", 12, &faults));
	assert_null(schema_from_redis(SCHEMA_KEY, "k", "nonsense", 8, &faults));
	assert_null(schema_from_redis(SCHEMA_USER, "u", "{\"password\":\"x\"}", 16, &faults));
	assert_int_equal(faults.count, 4);
	faults_fini(&faults);
}

static void test_faults_are_bounded(void **state)
{
	struct faults faults = {0};
	(void)state;
	for (int i = 0; i < 10050; i++)
		faults_add(&faults, "x", "%d", i);
	char *text = faults_join(&faults);
	assert_int_equal(faults.count, 10000);
	assert_non_null(strstr(text, "x: 9999; and 50 more"));
	free(text);
	faults_fini(&faults);
}

static void test_sealing(void **state)
{
	uint8_t master[32] = {1}, other[32] = {2};
	(void)state;
	char *one = secrets_seal(master, "id", "pool", "sk-plain"), *two = secrets_seal(master, "id", "pool", "sk-plain");
	assert_string_not_equal(one, two);
	char *opened = secrets_open(master, "id", "pool", one);
	assert_string_equal(opened, "sk-plain");
	secrets_free(opened);
	assert_null(secrets_open(other, "id", "pool", one));
	assert_null(secrets_open(master, "id2", "pool", one));
	assert_null(secrets_open(master, "id", "pool2", one));
	assert_null(secrets_open(master, "idpool", "", one));
	one[20] = one[20] == 'A' ? 'B' : 'A';
	assert_null(secrets_open(master, "id", "pool", one));
	assert_null(secrets_open(master, "id", "pool", "v1."));
	assert_null(secrets_open(master, "id", "pool", "sk-plain"));
	free(one);
	free(two);
}

static void test_passwords_and_keys(void **state)
{
	uint8_t digest[32], again[32];
	char hex[SECRETS_HEX_CHARS + 1];
	(void)state;
	char *hash = secrets_hash_password("päss");
	assert_memory_equal(hash, "$y$", 3);
	assert_true(secrets_check_password("päss", hash));
	assert_false(secrets_check_password("pass", hash));
	assert_false(secrets_check_password("päss", "*0"));
	assert_false(secrets_check_password("", ""));
	free(hash);
	char *key = secrets_new_client_key();
	assert_memory_equal(key, "sk-ap-", 6);
	assert_int_equal(strlen(key), 49);
	free(key);
	secrets_sha256("abc", 3, digest);
	secrets_to_hex(digest, hex);
	assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_true(secrets_from_hex(hex, again));
	assert_memory_equal(digest, again, 32);
	hex[63] = 'g';
	assert_false(secrets_from_hex(hex, again));
	assert_false(secrets_from_hex("ab", again));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_what_is_stored),
		cmocka_unit_test(test_every_fault_is_named),
		cmocka_unit_test(test_ids_cannot_change),
		cmocka_unit_test(test_api_shows_all_in_force),
		cmocka_unit_test(test_lenient_reading),
		cmocka_unit_test(test_faults_are_bounded),
		cmocka_unit_test(test_sealing),
		cmocka_unit_test(test_passwords_and_keys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
