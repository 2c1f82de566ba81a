/* store: entries of each kind, against a real redis-server. */
#include "store_fixture.h"

#include "state/secrets.h"
#include "files_fixture.h"

static void test_bootstraps_once(void **state)
{
	assert_true(is_routed(*state, "/openai/v1/models"));
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:mappings /openai"), "https://api.openai.com");
	assert_string_equal(redis_fixture_do(&redis, "HLEN apiproxy:mappings"), "19");
	redis_fixture_do(&redis, "DEL apiproxy:mappings");
	assert_false(is_routed(*state, "/openai"));
	struct store *restarted = new_store(NULL);
	assert_false(is_routed(restarted, "/openai"));
	store_free(restarted);
}

static void test_bootstraps_from_a_file(void **state)
{
	char path[128];
	(void)state;
	snprintf(path, sizeof(path), "%s/bootstrap.json", redis.directory);
	files_write(path,
		"{\"mappings\":[{\"prefix\":\"/a\",\"target\":\"http://h\"}],"
		"\"keys\":[{\"id\":\"k\",\"pool\":\"p\",\"key\":\"vendor-secret-1\"}],"
		"\"clients\":[{\"id\":\"c\",\"key_sha256\":\"00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff\"}],"
		"\"users\":[{\"username\":\"u\",\"password\":\"pw\"}]}");
	struct store *s = new_store(path);
	struct snapshot *snapshot = refresh(s);
	assert_non_null(route(snapshot, "/a"));
	assert_string_equal(snapshot_pool(snapshot, "p")->keys[0]->secret, "vendor-secret-1");
	assert_non_null(snapshot_client(snapshot, "c"));
	assert_true(secrets_check_password("pw", snapshot_user(snapshot, "u")->password_hash));
	assert_null(strstr(redis_fixture_do(&redis, "HGET apiproxy:keys k"), "vendor-secret"));
	snapshot_unref(snapshot);
	store_free(s);

	redis_fixture_do(&redis, "FLUSHALL");
	files_write(path,
		"{\"mappings\":[{\"prefix\":\"/a\",\"target\":\"nonsense\"}],\"clients\":[{\"id\":\"x\",\"rpm\":-1}]}");
	s = new_store(path);
	size_t before = count_in_journal("bootstrap: ");
	assert_false(is_routed(s, "/a"));
	redis_fixture_do(&redis, "HSET apiproxy:mappings /b http://h");
	assert_true(is_routed(s, "/b"));
	assert_int_equal(count_in_journal("bootstrap: "), before + 2);
	store_free(s);
	unlink(path);
}

static void test_mappings(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h:1\"}"), STORE_OK);
	assert_said("\"connect_timeout_seconds\":10");
	assert_not_said("pool");
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:mappings /x"), "http://h:1");
	assert_true(is_routed(s, "/x/y"));
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h:2\"}"), STORE_EXISTS);
	assert_int_equal(update(s, SCHEMA_MAPPING, "/x", "{\"queue\":{\"rate_per_second\":0.5},\"timeout_seconds\":2}"),
		STORE_OK);
	assert_said("\"target\":\"http://h:1\"");
	assert_said("\"capacity\":20");
	assert_int_equal(update(s, SCHEMA_MAPPING, "/x", "{\"queue\":{\"capacity\":3},\"timeout_seconds\":null}"),
		STORE_OK);
	assert_said("\"rate_per_second\":0.5");
	assert_said("\"capacity\":3");
	assert_said("\"timeout_seconds\":0");
	struct snapshot *snapshot = refresh(s);
	assert_true(route(snapshot, "/x")->has_queue);
	assert_int_equal(route(snapshot, "/x")->queue_timeout_ms, 5000);
	snapshot_unref(snapshot);
	assert_int_equal(update(s, SCHEMA_MAPPING, "/nowhere", "{}"), STORE_MISSING);
	assert_int_equal(remove_entry(s, SCHEMA_MAPPING, "/x"), STORE_OK);
	assert_int_equal(remove_entry(s, SCHEMA_MAPPING, "/x"), STORE_MISSING);
	assert_int_equal(get(s, SCHEMA_MAPPING, "/x"), STORE_MISSING);
	assert_false(is_routed(s, "/x/y"));
}

/* An older version edits what a newer one has written. */
static void test_unknown_fields_outlive_an_edit(void **state)
{
	struct store *s = *state;
	const char *digest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	is_routed(s, "/x");
	redis_fixture_do(&redis, "HSET apiproxy:mappings /new %s",
		"{\"target\":\"http://h\",\"queue\":{\"rate_per_second\":1,\"mood\":\"glad\"},\"later\":{\"a\":[1]},\"health\":1}");
	redis_fixture_do(&redis, "HSET apiproxy:clients %s %s", digest,
		"{\"id\":\"c\",\"key\":\"not ours\",\"later\":true}");
	assert_int_equal(update(s, SCHEMA_MAPPING, "/new", "{\"timeout_seconds\":3}"), STORE_OK);
	assert_not_said("later");
	assert_not_said("mood");
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:mappings /new"),
		"{\"target\":\"http://h\",\"timeout_seconds\":3,\"queue\":{\"rate_per_second\":1,\"mood\":\"glad\"},"
		"\"later\":{\"a\":[1]},\"health\":1}");
	assert_int_equal(update(s, SCHEMA_CLIENT, "c", "{\"rpm\":1}"), STORE_OK);
	assert_not_said("not ours");
	assert_int_equal(replace(s,
						 "{\"mappings\":[{\"prefix\":\"/new\",\"target\":\"http://i\"}],\"keys\":[],"
						 "\"clients\":[{\"id\":\"c\"}],\"users\":[]}"),
		STORE_OK);
	assert_not_said("not ours");
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:mappings /new"),
		"{\"target\":\"http://i\",\"later\":{\"a\":[1]},\"health\":1}");
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:clients %s", digest),
		"{\"id\":\"c\",\"key\":\"not ours\",\"later\":true}");
	assert_int_equal(rotate(s, "c"), STORE_OK);
	assert_not_said("not ours");
	assert_string_equal(redis_fixture_do(&redis, "HLEN apiproxy:clients"), "1");
	assert_non_null(
		strstr(redis_fixture_do(&redis, "EVAL %s 1 apiproxy:clients", "return redis.call('HVALS', KEYS[1])[1]"),
			"\"later\":true"));
}

static void test_a_secret_is_not_unset(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_USER, "{\"username\":\"u\",\"password\":\"pw\"}"), STORE_OK);
	assert_int_equal(create(s, SCHEMA_KEY, "{\"id\":\"k\",\"pool\":\"p\",\"key\":\"sk-vendor-1234567890\"}"),
		STORE_OK);
	assert_int_equal(create(s, SCHEMA_CLIENT, "{\"id\":\"c\",\"key_sha256\":null}"), STORE_OK);
	assert_int_equal(update(s, SCHEMA_USER, "u", "{\"password\":null}"), STORE_INVALID);
	assert_said("password: cannot be unset");
	assert_int_equal(update(s, SCHEMA_KEY, "k", "{\"key\":null}"), STORE_INVALID);
	assert_said("key: cannot be unset");
	assert_int_equal(update(s, SCHEMA_CLIENT, "c", "{\"key_sha256\":null}"), STORE_INVALID);
	assert_said("key_sha256: cannot be unset");
	assert_int_equal(update(s, SCHEMA_KEY, "k", "{\"pool\":null}"), STORE_INVALID);
	assert_said("pool: is required");
	assert_int_equal(update(s, SCHEMA_KEY, "k", "{\"id\":null}"), STORE_INVALID);
	assert_said("id: cannot be changed");
}

static void test_publishes_each_change(void **state)
{
	redisContext *listener = redisConnectUnix(redis.socket);
	redisReply *reply;
	is_routed(*state, "/x");
	freeReplyObject(redisCommand(listener, "SUBSCRIBE apiproxy:changed"));
	assert_int_equal(create(*state, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\"}"), STORE_OK);
	assert_int_equal(redisGetReply(listener, (void **)&reply), REDIS_OK);
	assert_string_equal(reply->element[2]->str, "apiproxy:mappings");
	freeReplyObject(reply);
	redisFree(listener);
}

static void test_notices_raw_changes_and_skips_bad_ones(void **state)
{
	struct store *s = *state;
	struct snapshot *one = refresh(s), *two = refresh(s);
	assert_ptr_equal(one, two);
	size_t told = count_in_journal("/bad: skipped: target: ");
	redis_fixture_do(&redis, "HSET apiproxy:mappings /raw %s /bad ftp://x /json %s", "https://example.com/v1",
		"{\"target\":\"http://h\",\"timeout_seconds\":1.5,\"from_the_future\":{}}");
	struct snapshot *three = refresh(s);
	assert_ptr_not_equal(two, three);
	assert_string_equal(route(three, "/raw/a")->target.base_path, "/v1");
	assert_int_equal(route(three, "/json")->timeout_ms, 1500);
	assert_null(route(three, "/bad"));
	assert_non_null(route(three, "/openai"));
	redis_fixture_do(&redis, "HSET apiproxy:mappings /raw2 http://h");
	assert_true(is_routed(s, "/raw2"));
	assert_int_equal(count_in_journal("/bad: skipped: target: "), told + 1);
	assert_int_equal(update(s, SCHEMA_MAPPING, "/bad", "{\"target\":\"http://good\"}"), STORE_MISSING);
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/bad\",\"target\":\"http://good\"}"), STORE_OK);
	assert_true(is_routed(s, "/bad"));
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/bad\",\"target\":\"http://good\"}"), STORE_EXISTS);
	redis_fixture_do(&redis, "DEL apiproxy:mappings");
	redis_fixture_do(&redis, "SET apiproxy:mappings nonsense");
	assert_true(is_routed(s, "/raw"));
	snapshot_unref(one);
	snapshot_unref(two);
	snapshot_unref(three);
}

static void test_many_bad_values_are_named(void **state)
{
	is_routed(*state, "/x");
	size_t told = count_in_journal(": skipped: ");
	for (int i = 0; i < 60; i++)
		redis_fixture_do(&redis, "HSET apiproxy:users u%s 1", (char[]){(char)('!' + i), '\0'});
	is_routed(*state, "/x");
	assert_int_equal(count_in_journal(": skipped: "), told + 60);
}

/* Whoever puts a client's key where its digest belongs does not find it in the log. */
static void test_a_client_key_by_mistake_is_not_told(void **state)
{
	is_routed(*state, "/x");
	redis_fixture_do(&redis,
		"HSET apiproxy:clients sk-ap-0123 %s fedcba98765432100123456789abcdef0123456789abcdef0123456789abcdef 1",
		"{\"id\":\"c\"}");
	is_routed(*state, "/x");
	assert_int_equal(count_in_journal("sk-ap"), 0);
	assert_int_equal(count_in_journal(
						 "apiproxy:clients (a field that is no SHA-256): skipped: key_sha256: must be 64"),
		1);
	assert_int_equal(count_in_journal("apiproxy:clients fedcba987654…: skipped: "), 1);
}

static void test_keys_are_sealed(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_KEY, "{\"id\":\"k1\",\"pool\":\"p\",\"weight\":0}"), STORE_INVALID);
	assert_said("weight: must be a whole number from 1");
	assert_said("key: is required");
	assert_int_equal(create(s, SCHEMA_KEY, "{\"id\":\"k1\",\"pool\":\"p\",\"key\":\"sk-vendor-1234567890\"}"),
		STORE_OK);
	assert_said("\"key_hint\":\"…7890\"");
	assert_not_said("sk-vendor");
	assert_null(strstr(redis_fixture_do(&redis, "HGET apiproxy:keys k1"), "sk-vendor"));
	assert_int_equal(update(s, SCHEMA_KEY, "k1", "{\"pool\":\"q\",\"weight\":5,\"key_hint\":\"sent back\"}"),
		STORE_OK);
	struct snapshot *snapshot = refresh(s);
	assert_null(snapshot_pool(snapshot, "p"));
	assert_string_equal(snapshot_pool(snapshot, "q")->keys[0]->secret, "sk-vendor-1234567890");
	assert_int_equal(snapshot_pool(snapshot, "q")->keys[0]->weight, 5);
	snapshot_unref(snapshot);
	assert_int_equal(list(s, SCHEMA_KEY), STORE_OK);
	assert_not_said("sk-vendor");
	assert_not_said("key_encrypted");
}

static void test_plain_key_in_redis_is_sealed_in_place(void **state)
{
	redis_fixture_do(&redis, "HSET apiproxy:keys raw %s",
		"{\"pool\":\"p\",\"key\":\"sk-plain-text-key\",\"Key\":1,\"later\":2}");
	struct snapshot *snapshot = refresh(*state);
	assert_string_equal(snapshot_pool(snapshot, "p")->keys[0]->secret, "sk-plain-text-key");
	snapshot_unref(snapshot);
	const char *now = redis_fixture_do(&redis, "HGET apiproxy:keys raw");
	assert_null(strstr(now, "sk-plain"));
	assert_non_null(strstr(now, "key_encrypted"));
	assert_non_null(strstr(now, "later"));
}

static void test_wrong_master_key(void **state)
{
	assert_int_equal(create(*state, SCHEMA_KEY, "{\"id\":\"mine\",\"pool\":\"p\",\"key\":\"sk-vendor-1234567890\"}"),
		STORE_OK);
	char *before = strdup(redis_fixture_do(&redis, "HGET apiproxy:keys mine"));
	struct store_options options = {.address = &redis.address};
	struct store *other = store_new(&options);
	size_t told = count_in_journal("mine: left as it is, unused");
	struct snapshot *snapshot = refresh(other);
	assert_null(snapshot_pool(snapshot, "p")->keys[0]->secret);
	snapshot_unref(snapshot);
	assert_int_equal(count_in_journal("mine: left as it is, unused"), told + 1);
	assert_int_equal(update(other, SCHEMA_KEY, "mine", "{\"pool\":\"other\"}"), STORE_INVALID);
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:keys mine"), before);
	assert_int_equal(update(other, SCHEMA_KEY, "mine", "{\"weight\":2}"), STORE_OK);
	snapshot = refresh(*state);
	assert_string_equal(snapshot_pool(snapshot, "p")->keys[0]->secret, "sk-vendor-1234567890");
	snapshot_unref(snapshot);
	store_free(other);
	free(before);
}

static void key_from_said(char key[64])
{
	const char *at = strstr(said, "\"key\":\"sk-ap-");
	assert_non_null(at);
	assert_int_equal(sscanf(at, "\"key\":\"%49[^\"]", key), 1);
	assert_int_equal(strlen(key), 49);
}

static const struct subject *client_of(struct snapshot *snapshot, const char *key)
{
	uint8_t digest[32];
	secrets_sha256(key, strlen(key), digest);
	return snapshot_client_by_sha256(snapshot, digest);
}

static void test_clients(void **state)
{
	struct store *s = *state;
	char first[64], second[64];
	assert_int_equal(
		create(s, SCHEMA_CLIENT,
			"{\"id\":\"c1\",\"name\":\"Ann\",\"rpm\":5,\"mappings\":[\"/x\"],\"expires_at\":\"2030-01-01T00:00:00Z\"}"),
		STORE_OK);
	key_from_said(first);
	assert_not_said("sha256");
	assert_int_equal(create(s, SCHEMA_CLIENT, "{\"id\":\"c1\"}"), STORE_EXISTS);
	assert_int_equal(get(s, SCHEMA_CLIENT, "c1"), STORE_OK);
	assert_not_said("\"key\"");
	assert_said("\"name\":\"Ann\"");
	struct snapshot *snapshot = refresh(s);
	assert_string_equal(client_of(snapshot, first)->id, "c1");
	assert_int_equal(client_of(snapshot, first)->limits.rpm, 5);
	assert_string_equal(client_of(snapshot, first)->mappings[0], "/x");
	assert_true(client_of(snapshot, first)->expires_at_ms == 1893456000000);
	snapshot_unref(snapshot);

	assert_int_equal(rotate(s, "c1"), STORE_OK);
	key_from_said(second);
	assert_int_equal(rotate(s, "nobody"), STORE_MISSING);
	assert_int_equal(update(s, SCHEMA_CLIENT, "c1", "{\"rpm\":7,\"expires_at\":null}"), STORE_OK);
	snapshot = refresh(s);
	assert_null(client_of(snapshot, first));
	assert_int_equal(client_of(snapshot, second)->limits.rpm, 7);
	assert_true(client_of(snapshot, second)->expires_at_ms == 0);
	snapshot_unref(snapshot);
	assert_string_equal(redis_fixture_do(&redis, "HLEN apiproxy:clients"), "1");
	assert_int_equal(remove_entry(s, SCHEMA_CLIENT, "c1"), STORE_OK);
	assert_string_equal(redis_fixture_do(&redis, "HLEN apiproxy:clients"), "0");
}

static void test_client_given_by_digest(void **state)
{
	char digest[65];
	memset(digest, 'A', 64);
	digest[64] = '\0';
	redis_fixture_do(&redis, "HSET apiproxy:clients %s %s", digest, "{\"id\":\"raw\"}");
	assert_int_equal(update(*state, SCHEMA_CLIENT, "raw", "{\"rpm\":3}"), STORE_OK);
	assert_string_equal(redis_fixture_do(&redis, "HLEN apiproxy:clients"), "1");
	memset(digest, 'a', 64);
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:clients %s", digest), "{\"id\":\"raw\",\"rpm\":3}");
	char json[128];
	snprintf(json, sizeof(json), "{\"id\":\"second\",\"key_sha256\":\"%s\"}", digest);
	assert_int_equal(create(*state, SCHEMA_CLIENT, json), STORE_EXISTS);
	/* An id taken twice by hand: one of them is in force, the other is told. */
	memset(digest, 'b', 64);
	redis_fixture_do(&redis, "HSET apiproxy:clients %s %s", digest, "{\"id\":\"raw\",\"rpm\":9}");
	assert_int_equal(list(*state, SCHEMA_CLIENT), STORE_OK);
	assert_not_said("\"rpm\":9");
	assert_true(count_in_journal("another client has the same id") > 0);
}

static void test_users(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_USER, "{\"username\":\"ann@example.com\"}"), STORE_INVALID);
	assert_said("password: is required");
	assert_int_equal(create(s, SCHEMA_USER, "{\"username\":\"ann@example.com\",\"password\":\"secret\",\"rpm\":1}"),
		STORE_OK);
	assert_not_said("secret");
	assert_not_said("$y$");
	assert_null(strstr(redis_fixture_do(&redis, "HGET apiproxy:users ann@example.com"), "secret"));
	assert_int_equal(update(s, SCHEMA_USER, "ann@example.com", "{\"rpm\":2}"), STORE_OK);
	struct snapshot *snapshot = refresh(s);
	assert_true(secrets_check_password("secret", snapshot_user(snapshot, "ann@example.com")->password_hash));
	snapshot_unref(snapshot);
	assert_int_equal(update(s, SCHEMA_USER, "ann@example.com", "{\"password\":\"other\"}"), STORE_OK);
	snapshot = refresh(s);
	assert_false(secrets_check_password("secret", snapshot_user(snapshot, "ann@example.com")->password_hash));
	assert_true(secrets_check_password("other", snapshot_user(snapshot, "ann@example.com")->password_hash));
	snapshot_unref(snapshot);
}

static void test_replaces_all_or_nothing(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_KEY, "{\"id\":\"k\",\"pool\":\"p\",\"key\":\"sk-vendor-1234567890\"}"),
		STORE_OK);
	assert_int_equal(create(s, SCHEMA_USER, "{\"username\":\"u\",\"password\":\"pw\"}"), STORE_OK);
	assert_int_equal(
		replace(s,
			"{\"mappings\":[{\"prefix\":\"/a\",\"target\":\"http://h\"},{\"prefix\":\"/a\",\"target\":\"x\",\"queue\":{\"capacity\":\"no\"}}],"
			"\"keys\":[{\"id\":\"new\",\"pool\":\"p\"}],\"clients\":[],\"surprise\":1}"),
		STORE_INVALID);
	assert_said("users: is required");
	assert_said("surprise: is not a known field");
	assert_said("mappings[1].target: must start with");
	assert_said("mappings[1].queue.capacity: must be a whole number");
	assert_said("mappings[1].queue.rate_per_second: is required");
	assert_said("keys[0].key: is required");
	assert_true(is_routed(s, "/openai"));

	assert_int_equal(
		replace(s,
			"{\"mappings\":[{\"prefix\":\"/b\",\"target\":\"http://h\"},{\"prefix\":\"/a\",\"target\":\"http://h\"}],"
			"\"keys\":[{\"id\":\"k\",\"pool\":\"other\"}],\"clients\":[{\"id\":\"c\"}],\"users\":[{\"username\":\"u\",\"rpm\":4}]}"),
		STORE_OK);
	char key[64];
	key_from_said(key);
	assert_true(strstr(said, "\"/a\"") < strstr(said, "\"/b\""));
	struct snapshot *snapshot = refresh(s);
	assert_null(route(snapshot, "/openai"));
	assert_string_equal(snapshot_pool(snapshot, "other")->keys[0]->secret, "sk-vendor-1234567890");
	assert_true(secrets_check_password("pw", snapshot_user(snapshot, "u")->password_hash));
	assert_string_equal(client_of(snapshot, key)->id, "c");
	snapshot_unref(snapshot);

	struct faults faults = {0};
	cJSON *document, *result;
	assert_int_equal(store_export(s, &document, &faults), STORE_OK);
	assert_int_equal(store_replace_all(s, document, &result, &faults), STORE_OK);
	assert_true(cJSON_Compare(document, result, true));
	cJSON_Delete(document);
	cJSON_Delete(result);
	snapshot = refresh(s);
	assert_string_equal(client_of(snapshot, key)->id, "c");
	snapshot_unref(snapshot);
	assert_int_equal(replace(s, "{\"mappings\":[],\"keys\":[],\"clients\":[],\"users\":[]}"), STORE_OK);
	assert_string_equal(redis_fixture_do(&redis,
							"EXISTS apiproxy:mappings apiproxy:keys apiproxy:clients apiproxy:users"),
		"0");
	assert_false(is_routed(s, "/a"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bootstraps_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bootstraps_from_a_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_mappings, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown_fields_outlive_an_edit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_secret_is_not_unset, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_publishes_each_change, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_notices_raw_changes_and_skips_bad_ones, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many_bad_values_are_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_client_key_by_mistake_is_not_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_keys_are_sealed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_plain_key_in_redis_is_sealed_in_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wrong_master_key, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clients, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_client_given_by_digest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_users, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_replaces_all_or_nothing, set_up, tear_down),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
