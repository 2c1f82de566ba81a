/* identity: places, precedence, tokens and their tricks, the query's key. The snapshot is a double with
 * two clients, two users and a secret. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <jwt.h>

#include "path/identity.h"
#include "state/secrets.h"

enum { NOW_S = 1700000000 };
static const int64_t now_ms = (int64_t)NOW_S * 1000;

static const char *secret = "0123456789abcdef0123456789abcdef";
static const char *only_openai[] = {"/openai"};
static struct subject client = {.id = "c1", .name = "", .enabled = true};
static struct subject other = {.id = "c2", .name = "", .enabled = true};
static struct subject user = {.id = "ann",
	.name = "",
	.enabled = true,
	.is_user = true,
	.password_hash = "$y$j9T$salt$hash"};
static char *client_key, *other_key;
static struct mapping mapping = {.prefix = "/openai", .auth_required = true};
static struct identity *identity;

const struct subject *snapshot_client_by_sha256(const struct snapshot *s, const uint8_t sha256[32])
{
	(void)s;
	if (memcmp(client.key_sha256, sha256, 32) == 0)
		return &client;
	return memcmp(other.key_sha256, sha256, 32) == 0 ? &other : NULL;
}

const struct subject *snapshot_user(const struct snapshot *s, const char *name)
{
	(void)s;
	return strcmp(name, user.id) == 0 ? &user : NULL;
}

const char *snapshot_jwt_secret(const struct snapshot *s)
{
	(void)s;
	return secret;
}

static int reset(void **state)
{
	(void)state;
	secret = "0123456789abcdef0123456789abcdef";
	client = (struct subject){.id = "c1", .name = "", .enabled = true};
	other = (struct subject){.id = "c2", .name = "", .enabled = true};
	user = (struct subject){.id = "ann",
		.name = "",
		.enabled = true,
		.is_user = true,
		.password_hash = "$y$j9T$salt$hash"};
	secrets_free(client_key);
	secrets_free(other_key);
	client_key = secrets_new_client_key();
	other_key = secrets_new_client_key();
	secrets_sha256(client_key, strlen(client_key), client.key_sha256);
	secrets_sha256(other_key, strlen(other_key), other.key_sha256);
	identity_free(identity);
	identity = identity_new();
	return 0;
}

static enum problem_id decide(const struct identity_credential *c, size_t count, const struct subject **subject)
{
	return identity_decide(identity, NULL, &mapping, c, count, now_ms, subject);
}

static enum problem_id one(enum identity_place place, const char *text)
{
	const struct subject *subject = NULL;
	struct identity_credential c = {place, text, strlen(text)};
	enum problem_id problem = decide(&c, 1, &subject);
	assert_true((problem == PROBLEM_NONE) == (subject && (subject == &client || subject == &user)));
	return problem;
}

static enum problem_id token(const char *text)
{
	char *field = NULL;
	assert_true(asprintf(&field, "Bearer %s", text) > 0);
	enum problem_id problem = one(IDENTITY_AUTHORIZATION, field);
	free(field);
	return problem;
}

static void each_place_admits_a_client(void **state)
{
	char text[200];
	(void)state;
	snprintf(text, sizeof text, "bEaReR   %s", client_key);
	assert_int_equal(one(IDENTITY_AUTHORIZATION, text), PROBLEM_NONE);
	assert_int_equal(one(IDENTITY_X_API_KEY, client_key), PROBLEM_NONE);
	assert_int_equal(one(IDENTITY_X_GOOG_API_KEY, client_key), PROBLEM_NONE);
	assert_int_equal(one(IDENTITY_API_KEY, client_key), PROBLEM_NONE);
	snprintf(text, sizeof text, "alt=sse&key=%s&x=1", client_key);
	assert_int_equal(one(IDENTITY_QUERY, text), PROBLEM_NONE);
	snprintf(text, sizeof text, "k%%65y=sk%%2Dap-%s", client_key + 6);
	assert_int_equal(one(IDENTITY_QUERY, text), PROBLEM_NONE);
	snprintf(text, sizeof text, "key=wrong&key=%s", client_key);
	assert_int_equal(one(IDENTITY_QUERY, text), PROBLEM_NONE);
}

static void what_is_no_credential_is_401(void **state)
{
	char text[200];
	const struct subject *subject;
	(void)state;
	assert_int_equal(decide(NULL, 0, &subject), PROBLEM_INVALID_CREDENTIALS);
	assert_int_equal(one(IDENTITY_AUTHORIZATION, client_key), PROBLEM_INVALID_CREDENTIALS);
	snprintf(text, sizeof text, "Basic %s", client_key);
	assert_int_equal(one(IDENTITY_AUTHORIZATION, text), PROBLEM_INVALID_CREDENTIALS);
	assert_int_equal(one(IDENTITY_AUTHORIZATION, "Bearer "), PROBLEM_INVALID_CREDENTIALS);
	assert_int_equal(one(IDENTITY_X_API_KEY, ""), PROBLEM_INVALID_CREDENTIALS);
	snprintf(text, sizeof text, "%s ", client_key);
	assert_int_equal(one(IDENTITY_X_API_KEY, text), PROBLEM_INVALID_CREDENTIALS);
	snprintf(text, sizeof text, "%.*s", (int)strlen(client_key) - 1, client_key);
	assert_int_equal(one(IDENTITY_X_API_KEY, text), PROBLEM_INVALID_CREDENTIALS);
	snprintf(text, sizeof text, "monkey=%s&keys=%s", client_key, client_key);
	assert_int_equal(one(IDENTITY_QUERY, text), PROBLEM_INVALID_CREDENTIALS);
	assert_int_equal(one(IDENTITY_QUERY, "key"), PROBLEM_INVALID_CREDENTIALS);
}

static void the_first_valid_one_decides(void **state)
{
	const struct subject *subject = NULL;
	char field[200];
	(void)state;
	snprintf(field, sizeof field, "Bearer %s", other_key);
	struct identity_credential c[] = {
		{IDENTITY_API_KEY, client_key, strlen(client_key)},
		{IDENTITY_AUTHORIZATION, field, strlen(field)},
		{IDENTITY_X_API_KEY, "sk-ant-unknown", 14},
	};
	assert_int_equal(decide(c, 3, &subject), PROBLEM_NONE);
	assert_ptr_equal(subject, &other);
	c[1].text = "Bearer sk-proj-of-the-vendor", c[1].length = strlen(c[1].text);
	assert_int_equal(decide(c, 3, &subject), PROBLEM_NONE);
	assert_ptr_equal(subject, &client);
}

static void disabled_expired_and_elsewhere(void **state)
{
	const struct subject *subject = NULL;
	(void)state;
	client.enabled = false;
	assert_int_equal(one(IDENTITY_X_API_KEY, client_key), PROBLEM_NOT_ALLOWED);
	struct identity_credential both[] = {{IDENTITY_X_API_KEY, client_key, strlen(client_key)},
		{IDENTITY_API_KEY, other_key, strlen(other_key)}};
	assert_int_equal(decide(both, 2, &subject), PROBLEM_NONE);
	assert_ptr_equal(subject, &other);
	client.enabled = true;
	client.expires_at_ms = now_ms;
	assert_int_equal(one(IDENTITY_X_API_KEY, client_key), PROBLEM_INVALID_CREDENTIALS);
	client.expires_at_ms = now_ms + 1;
	assert_int_equal(one(IDENTITY_X_API_KEY, client_key), PROBLEM_NONE);
	client.mappings = only_openai;
	client.mapping_count = 1;
	assert_int_equal(one(IDENTITY_X_API_KEY, client_key), PROBLEM_NONE);
	mapping.prefix = "/openai/x";
	struct identity_credential c = {IDENTITY_X_API_KEY, client_key, strlen(client_key)};
	assert_int_equal(decide(&c, 1, &subject), PROBLEM_NOT_ALLOWED);
	mapping.prefix = "/openai";
}

/* ---- tokens ---- */

static char *issue(int64_t expires_in)
{
	char *t = identity_token_issue(secret, &user, NOW_S, NOW_S + expires_in);
	assert_non_null(t);
	return t;
}

/* A token with these claims and this algorithm, well signed. */
static char *forge(jwt_alg_t alg, const char *key, const char *claims)
{
	jwt_t *jwt;
	assert_int_equal(jwt_new(&jwt), 0);
	assert_int_equal(jwt_set_alg(jwt, alg, (const unsigned char *)key, key ? (int)strlen(key) : 0), 0);
	assert_int_equal(jwt_add_grants_json(jwt, claims), 0);
	char *t = jwt_encode_str(jwt);
	assert_non_null(t);
	jwt_free(jwt);
	return t;
}

static enum problem_id forged(jwt_alg_t alg, const char *key, const char *claims)
{
	char *t = forge(alg, key, claims);
	enum problem_id problem = token(t);
	free(t);
	return problem;
}

static void a_token_lives_until_it_expires(void **state)
{
	const struct subject *subject = NULL;
	int64_t expires_at = 0;
	(void)state;
	char *t = issue(60);
	for (int twice = 0; twice < 2; twice++) {
		assert_int_equal(token(t), PROBLEM_NONE);
		assert_int_equal(one(IDENTITY_X_GOOG_API_KEY, t), PROBLEM_NONE);
	}
	assert_ptr_equal(identity_token_verify(NULL, t, strlen(t), now_ms, &expires_at), &user);
	assert_int_equal(expires_at, NOW_S + 60);
	struct identity_credential c = {IDENTITY_X_API_KEY, t, strlen(t)};
	assert_int_equal(identity_decide(identity, NULL, &mapping, &c, 1, now_ms + 59999, &subject), PROBLEM_NONE);
	assert_int_equal(identity_decide(identity, NULL, &mapping, &c, 1, now_ms + 60000, &subject),
		PROBLEM_INVALID_CREDENTIALS);
	free(t);
}

static void a_token_dies_with_password_user_and_secret(void **state)
{
	(void)state;
	char *t = issue(60);
	assert_int_equal(token(t), PROBLEM_NONE);
	user.password_hash = "$y$j9T$salt$other";
	assert_int_equal(token(t), PROBLEM_INVALID_CREDENTIALS);
	user.password_hash = "$y$j9T$salt$hash";
	assert_int_equal(token(t), PROBLEM_NONE);
	user.enabled = false;
	assert_int_equal(token(t), PROBLEM_INVALID_CREDENTIALS);
	user.enabled = true;
	user.id = "bob";
	assert_int_equal(token(t), PROBLEM_INVALID_CREDENTIALS);
	user.id = "ann";
	assert_int_equal(token(t), PROBLEM_NONE);
	secret = "another secret, as long as the first one";
	assert_int_equal(token(t), PROBLEM_INVALID_CREDENTIALS);
	free(t);
}

static void a_token_dies_with_its_user(void **state)
{
	const struct subject *subject = NULL;
	(void)state;
	char *t = issue(60);
	struct identity_credential c = {IDENTITY_X_API_KEY, t, strlen(t)};
	for (int remembered = 0; remembered < 2; remembered++) {
		user.expires_at_ms = now_ms + 30000;
		assert_int_equal(identity_decide(identity, NULL, &mapping, &c, 1, now_ms + 29999, &subject), PROBLEM_NONE);
		assert_non_null(identity_token_verify(NULL, t, strlen(t), now_ms + 29999, NULL));
		assert_int_equal(identity_decide(identity, NULL, &mapping, &c, 1, now_ms + 30000, &subject),
			PROBLEM_INVALID_CREDENTIALS);
		assert_null(identity_token_verify(NULL, t, strlen(t), now_ms + 30000, NULL));
		user.expires_at_ms = 0;
		assert_int_equal(token(t), PROBLEM_NONE);
	}
	user.expires_at_ms = 1;
	assert_int_equal(token(t), PROBLEM_INVALID_CREDENTIALS);
	free(t);
}

static void no_token_ends_after_its_user(void **state)
{
	(void)state;
	assert_int_equal(identity_token_end(&user, NOW_S + 60), NOW_S + 60);
	user.expires_at_ms = now_ms + 30999;
	assert_int_equal(identity_token_end(&user, NOW_S + 60), NOW_S + 30);
	assert_int_equal(identity_token_end(&user, NOW_S + 20), NOW_S + 20);
	user.expires_at_ms = -1;
	assert_int_equal(identity_token_end(&user, NOW_S + 60), 0);
}

static void other_algorithms_and_claims_are_refused(void **state)
{
	char mark[IDENTITY_MARK_LENGTH + 1], claims[200];
	(void)state;
	identity_password_mark(secret, user.password_hash, mark);
	snprintf(claims, sizeof claims, "{\"sub\":\"ann\",\"pw\":\"%s\",\"exp\":%d}", mark, NOW_S + 60);
	assert_int_equal(forged(JWT_ALG_HS256, secret, claims), PROBLEM_NONE);
	assert_int_equal(forged(JWT_ALG_HS384, secret, claims), PROBLEM_INVALID_CREDENTIALS);
	assert_int_equal(forged(JWT_ALG_HS512, secret, claims), PROBLEM_INVALID_CREDENTIALS);
	assert_int_equal(forged(JWT_ALG_NONE, NULL, claims), PROBLEM_INVALID_CREDENTIALS);
	assert_int_equal(forged(JWT_ALG_HS256, "a key of somebody else, long enough too", claims),
		PROBLEM_INVALID_CREDENTIALS);
	static const char *const lacking[] = {
		"{\"pw\":\"%s\",\"exp\":1700000060}",
		"{\"sub\":\"ann\",\"pw\":\"%s\"}",
		"{\"sub\":\"ann\",\"pw\":\"%s\",\"exp\":\"1700000060\"}",
		"{\"sub\":\"ann\",\"pw\":\"%s\",\"exp\":1699999999}",
		"{\"sub\":\"ann\",\"pw\":\"%s\",\"exp\":-1}",
		"{\"sub\":\"ann\",\"pw\":\"%s\",\"exp\":1700000060,\"nbf\":1700000030}",
		"{\"sub\":\"eve\",\"pw\":\"%s\",\"exp\":1700000060}",
		"{\"sub\":1,\"pw\":\"%s\",\"exp\":1700000060}",
		"{\"sub\":\"ann\",\"pw\":\"x%s\",\"exp\":1700000060}",
		"{\"sub\":\"ann\",\"pw\":[\"%s\"],\"exp\":1700000060}",
		"{\"sub\":\"ann\",\"pw\":null,\"was\":\"%s\",\"exp\":1700000060}",
		"{\"sub\":\"ann\",\"pw\":\"%s\",\"exp\":[1700000060]}",
		"{\"sub\":\"ann\",\"pw\":\"%s\",\"exp\":true}",
	};
	for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++) {
		char text[200];
		snprintf(text, sizeof text, lacking[i], mark);
		assert_int_equal(forged(JWT_ALG_HS256, secret, text), PROBLEM_INVALID_CREDENTIALS);
	}
}

static void who_has_the_secret_may_sign_tokens(void **state)
{
	(void)state;
	assert_int_equal(forged(JWT_ALG_HS256, secret, "{\"sub\":\"ann\",\"exp\":1700000060}"), PROBLEM_NONE);
	assert_int_equal(forged(JWT_ALG_HS256, secret, "{\"sub\":\"ann\",\"exp\":1700000060.25}"), PROBLEM_NONE);
	user.enabled = false;
	assert_int_equal(forged(JWT_ALG_HS256, secret, "{\"sub\":\"ann\",\"exp\":1700000060}"),
		PROBLEM_INVALID_CREDENTIALS);
	user.enabled = true;
}

static void a_changed_token_is_refused(void **state)
{
	(void)state;
	char *t = issue(60);
	size_t length = strlen(t);
	assert_int_equal(token(t), PROBLEM_NONE); /* it is remembered now */
	for (size_t i = 0; i < length; i++) {
		char saved = t[i];
		if (i + 1 == length)
			continue; /* its last digit has bits that are not part of the signature */
		t[i] = saved == 'A' ? 'B' : 'A';
		assert_int_equal(token(t), PROBLEM_INVALID_CREDENTIALS);
		t[i] = saved;
	}
	char *longer = NULL;
	assert_true(asprintf(&longer, "%s.x", t) > 0);
	assert_int_equal(token(longer), PROBLEM_INVALID_CREDENTIALS);
	longer[length] = '=', longer[length + 1] = 0;
	assert_int_equal(token(longer), PROBLEM_INVALID_CREDENTIALS);
	free(longer);
	*strrchr(t, '.') = 0;
	assert_int_equal(token(t), PROBLEM_INVALID_CREDENTIALS);
	assert_int_equal(token(".."), PROBLEM_INVALID_CREDENTIALS);
	free(t);
}

/* ---- the rest ---- */

static void queries_lose_key_and_nothing_else(void **state)
{
	static const char *const cases[][2] = {
		{"", ""},
		{"key=x", ""},
		{"key=", ""},
		{"key", ""},
		{"a=1", "a=1"},
		{"a=1&key=x&b=2", "a=1&b=2"},
		{"key=x&a=1", "a=1"},
		{"a=1&key=x", "a=1"},
		{"key=x&key=y", ""},
		{"&&a&&", "&&a&&"},
		{"&key=x&", "&"},
		{"%6bEy=1&KEY=2&keys=3&k=4&monkey=5", "%6bEy=1&KEY=2&keys=3&k=4&monkey=5"},
		{"%6b%65y=1&b", "b"},
		{"a=key=1&b=%26key%3D2", "a=key=1&b=%26key%3D2"},
		{"%=%zz&ke%79=&%", "%=%zz&%"},
		{"=key&key==", "=key"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char out[100];
		strcpy(out, cases[i][0]);
		size_t length = identity_scrub_query(out, strlen(out), out);
		assert_int_equal(length, strlen(cases[i][1]));
		assert_memory_equal(out, cases[i][1], length);
	}
}

static void four_fields_are_places(void **state)
{
	static const enum identity_place places[HTTP_FIELD_ID_COUNT] = {
		[HTTP_AUTHORIZATION] = IDENTITY_AUTHORIZATION + 1,
		[HTTP_X_API_KEY] = IDENTITY_X_API_KEY + 1,
		[HTTP_X_GOOG_API_KEY] = IDENTITY_X_GOOG_API_KEY + 1,
		[HTTP_API_KEY] = IDENTITY_API_KEY + 1,
	};
	(void)state;
	for (int id = 0; id < HTTP_FIELD_ID_COUNT; id++)
		assert_int_equal(identity_place_of_field((enum http_field_id)id),
			places[id] ? places[id] - 1 : IDENTITY_NO_PLACE);
}

static void client_keys_are_long_and_differ(void **state)
{
	(void)state;
	assert_int_equal(strlen(client_key), 49);
	assert_memory_equal(client_key, "sk-ap-", 6);
	assert_int_equal(strspn(client_key + 6, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 43);
	assert_string_not_equal(client_key, other_key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(each_place_admits_a_client, reset),
		cmocka_unit_test_setup(what_is_no_credential_is_401, reset),
		cmocka_unit_test_setup(the_first_valid_one_decides, reset),
		cmocka_unit_test_setup(disabled_expired_and_elsewhere, reset),
		cmocka_unit_test_setup(a_token_lives_until_it_expires, reset),
		cmocka_unit_test_setup(a_token_dies_with_password_user_and_secret, reset),
		cmocka_unit_test_setup(a_token_dies_with_its_user, reset),
		cmocka_unit_test_setup(no_token_ends_after_its_user, reset),
		cmocka_unit_test_setup(other_algorithms_and_claims_are_refused, reset),
		cmocka_unit_test_setup(who_has_the_secret_may_sign_tokens, reset),
		cmocka_unit_test_setup(a_changed_token_is_refused, reset),
		cmocka_unit_test_setup(queries_lose_key_and_nothing_else, reset),
		cmocka_unit_test_setup(four_fields_are_places, reset),
		cmocka_unit_test_setup(client_keys_are_long_and_differ, reset),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	identity_free(identity);
	return failed;
}
