/* snapshot: routes, pools, shared sets, slots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/arena.h"
#include "state/snapshot.h"
#include "state/snapshot_build.h"
#include "state/stats.h"

static struct mapping *add_mapping(struct snapshot *s, const char *prefix)
{
	struct mapping *mapping = snapshot_add_mapping(s);
	mapping->prefix = arena_strdup(snapshot_arena(s), prefix);
	mapping->prefix_length = strlen(prefix);
	mapping->enabled = true;
	return mapping;
}

static void add_key(struct snapshot *s, const char *id, const char *pool)
{
	struct vendor_key *key = snapshot_add_key(s);
	key->id = id;
	key->pool = pool;
}

static void assert_route(const struct snapshot *s, const char *path, const char *prefix)
{
	const struct mapping *mapping = snapshot_route(s, path, strlen(path));
	const char *found = mapping ? mapping->prefix : "none";
	if (strcmp(found, prefix) != 0)
		fail_msg("%s goes to %s, not %s", path, found, prefix);
}

static void test_longest_prefix_wins(void **state)
{
	struct snapshot *s = snapshot_new(NULL, "secret");
	char longest[129] = "/", path[300];
	(void)state;
	memset(longest + 1, 'z', 127);
	add_mapping(s, "/v1");
	add_mapping(s, "/v1/chat/deep");
	add_mapping(s, "/openai");
	add_mapping(s, "/off/on");
	add_mapping(s, "/off/off")->enabled = false;
	add_mapping(s, "/off");
	add_mapping(s, longest);
	snapshot_seal(s, NULL, NULL);
	assert_route(s, "/v1", "/v1");
	assert_route(s, "/v1/", "/v1");
	assert_route(s, "/v1/chat", "/v1");
	assert_route(s, "/v1/chat/deeper", "/v1");
	assert_route(s, "/v1/chat/deep", "/v1/chat/deep");
	assert_route(s, "/v1/chat/deep//x", "/v1/chat/deep");
	assert_route(s, "/v1//chat/deep", "/v1");
	assert_route(s, "/openaix", "none");
	assert_route(s, "/opena", "none");
	assert_route(s, "/", "none");
	assert_route(s, "", "none");
	assert_route(s, "/V1", "none");
	assert_route(s, "/off/off/x", "none");
	assert_route(s, "/off/on/x", "/off/on");
	assert_route(s, "/off/x", "/off");
	snprintf(path, sizeof(path), "%s/x", longest);
	assert_route(s, longest, longest);
	assert_route(s, path, longest);
	snprintf(path, sizeof(path), "%sz/x", longest);
	assert_route(s, path, "none");
	memset(path, '/', 250);
	path[250] = '\0';
	assert_route(s, path, "none");
	assert_null(snapshot_route(s, "/v1x", 2));
	assert_non_null(snapshot_route(s, "/v1x", 3));
	assert_string_equal(snapshot_mapping_at(s, 0)->prefix, "/off");
	assert_int_equal(snapshot_mapping_count(s), 7);
	snapshot_unref(s);
}

static void test_many_routes(void **state)
{
	struct snapshot *s = snapshot_new(NULL, "secret");
	char path[64];
	(void)state;
	for (int i = 0; i < 5000; i++) {
		snprintf(path, sizeof(path), "/m%d/s%d", i / 10, i);
		add_mapping(s, path);
	}
	snapshot_seal(s, NULL, NULL);
	for (int i = 0; i < 5000; i++) {
		char rest[80];
		snprintf(path, sizeof(path), "/m%d/s%d", i / 10, i);
		snprintf(rest, sizeof(rest), "%s/x/y", path);
		assert_route(s, rest, path);
	}
	snapshot_unref(s);
}

static void test_pools(void **state)
{
	struct snapshot *s = snapshot_new(NULL, "secret");
	(void)state;
	add_key(s, "b", "two");
	add_key(s, "c", "one");
	add_key(s, "a", "two");
	add_mapping(s, "/x")->pool_name = "two";
	add_mapping(s, "/y")->pool_name = "later";
	snapshot_seal(s, NULL, NULL);
	const struct pool *two = snapshot_pool(s, "two");
	assert_int_equal(two->key_count, 2);
	assert_string_equal(two->keys[0]->id, "a");
	assert_string_equal(two->keys[1]->id, "b");
	assert_int_equal(snapshot_pool(s, "one")->key_count, 1);
	assert_null(snapshot_pool(s, "three"));
	assert_ptr_equal(snapshot_route(s, "/x", 2)->pool, two);
	assert_null(snapshot_route(s, "/y", 2)->pool);
	assert_string_equal(snapshot_key_at(s, 0)->id, "a");
	for (size_t i = 0; i < snapshot_key_count(s); i++)
		assert_int_equal(snapshot_key_index(s, snapshot_key_at(s, i)->id), i);
	assert_int_equal(snapshot_key_index(s, "aa"), SIZE_MAX);
	snapshot_unref(s);
}

static void on_repeated(void *context, const struct subject *subject)
{
	assert_int_equal(subject->limits.rpm, 2);
	++*(int *)context;
}

static void test_subjects_outlive_their_snapshot(void **state)
{
	struct subjects *set = subjects_new();
	int repeated = 0;
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct subject *subject = subjects_add(set);
		subject->id = i == 2 ? "a" : i ? "b" : "a";
		subject->limits.rpm = (uint64_t)i;
		subject->key_sha256[31] = (uint8_t)i;
	}
	subjects_seal(set, on_repeated, &repeated);
	assert_int_equal(repeated, 1);
	struct snapshot *one = snapshot_new(NULL, "s"), *two = snapshot_new(NULL, "s");
	snapshot_seal(one, set, NULL);
	snapshot_seal(two, set, set);
	subjects_unref(set);
	snapshot_unref(one);
	uint8_t digest[32] = {0};
	digest[31] = 1;
	assert_string_equal(snapshot_client_by_sha256(two, digest)->id, "b");
	digest[31] = 2;
	assert_null(snapshot_client_by_sha256(two, digest));
	assert_int_equal(snapshot_user(two, "a")->limits.rpm, 0);
	assert_null(snapshot_client(two, "c"));
	snapshot_unref(two);
}

static void test_slots_follow_the_configuration(void **state)
{
	struct stats *stats = stats_new(1, true);
	(void)state;
	struct snapshot *one = snapshot_new(stats, "s"), *two = snapshot_new(stats, "s");
	add_mapping(one, "/x");
	add_key(one, "k", "p");
	snapshot_seal(one, NULL, NULL);
	add_mapping(two, "/w");
	add_mapping(two, "/x");
	snapshot_seal(two, NULL, NULL);
	uint32_t slot = snapshot_mapping_at(one, 0)->stats_slot;
	assert_int_not_equal(slot, STATS_NO_SLOT);
	assert_int_equal(snapshot_mapping_at(two, 1)->stats_slot, slot);
	assert_int_not_equal(snapshot_mapping_at(two, 0)->stats_slot, slot);
	assert_int_not_equal(snapshot_key_at(one, 0)->stats_slot, slot);
	snapshot_unref(one);
	snapshot_unref(two);
	stats_free(stats);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_longest_prefix_wins),
		cmocka_unit_test(test_many_routes),
		cmocka_unit_test(test_pools),
		cmocka_unit_test(test_subjects_outlive_their_snapshot),
		cmocka_unit_test(test_slots_follow_the_configuration),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
