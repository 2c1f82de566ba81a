/* login: POST /auth/login. A name and a password for a token (path/identity.h).
 *
 * The password is looked at with crypt(3) on the hash lane, whose threads do nothing else; a name nobody
 * has costs the same work. For login_cache_seconds all nodes give the same token: it is kept in Redis
 * under the user, the mark of the password and the user's own end, so a new password or another end is a new
 * token at once. While Redis is away this node keeps it for itself. Tokens begin and end by the clock that all
 * nodes share, and none ends later than its user. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <hiredis/hiredis.h>

#include "admin/admin.h"
#include "admin/login_limit.h"
#include "base/check.h"
#include "base/clock.h"
#include "path/identity.h"
#include "state/json.h"
#include "state/redis_sync.h"
#include "state/secrets.h"
#include "state/settings.h"
#include "state/snapshot.h"

enum { OWN_TOKENS = 256, TOKEN_KEY_MAX = 160 };

struct own_token {
	char key[TOKEN_KEY_MAX];
	char *token;
	int64_t until; /* Unix seconds */
};

static struct {
	pthread_mutex_t lock;
	struct own_token tokens[OWN_TOKENS];
	size_t next;
} own = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- the password ---- */

/* Of the usual cost; what it is the hash of does not matter. */
static const char *nobody_hash(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char *hash;
	pthread_mutex_lock(&lock);
	if (!hash)
		hash = secrets_hash_password("");
	pthread_mutex_unlock(&lock);
	return hash;
}

static bool password_fits(const struct subject *user, const char *password)
{
	const char *hash = user && user->password_hash ? user->password_hash : nobody_hash();
	bool fits = secrets_check_password(password, hash);
	return fits && user && user->password_hash;
}

/* ---- the token ---- */

static char *own_token(const char *key, const char *token, int64_t now, int64_t until)
{
	char *found = NULL;
	pthread_mutex_lock(&own.lock);
	for (size_t i = 0; i < OWN_TOKENS && !found; i++)
		if (own.tokens[i].until > now && strcmp(own.tokens[i].key, key) == 0)
			found = check_strdup(own.tokens[i].token);
	if (!found) {
		struct own_token *o = &own.tokens[own.next++ % OWN_TOKENS];
		free(o->token);
		snprintf(o->key, sizeof o->key, "%s", key);
		o->token = check_strdup(token);
		o->until = until;
		found = check_strdup(token);
	}
	pthread_mutex_unlock(&own.lock);
	return found;
}

/* Whose is first in Redis is everybody's. NULL: Redis is away. */
static char *shared_token(struct admin *admin, const char *key, const char *token, int64_t seconds)
{
	static const char script[] = "local t = redis.call('GET', KEYS[1]) "
								 "if t then return t end "
								 "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) return ARGV[1]";
	char *found = NULL;
	struct redis_sync *redis = admin_redis_acquire(admin);
	redisReply *reply = redis_sync_command(redis, "EVAL %s 1 %s %s %lld", script, key, token, (long long)seconds);
	if (reply && reply->type == REDIS_REPLY_STRING)
		found = check_strdup(reply->str);
	freeReplyObject(reply);
	admin_redis_release(admin);
	return found;
}

/* The token of this user, new or the one given out before, that ends at `end` at the latest. NULL: out of memory. */
static char *token_for(struct admin *admin, const struct snapshot *s, const struct subject *user, int64_t now,
	int64_t end, int64_t *expires_at)
{
	const char *secret = snapshot_jwt_secret(s);
	int64_t cached = admin->setup.settings->auth_login_cache_seconds;
	char mark[IDENTITY_MARK_LENGTH + 1], key[TOKEN_KEY_MAX], name[80];
	char *fresh = identity_token_issue(secret, user, now, end);
	*expires_at = end;
	if (!fresh || cached <= 0)
		return fresh;
	if (cached > end - now)
		cached = end - now;
	identity_password_mark(secret, user->password_hash, mark);
	login_key_name(user->id, name);
	snprintf(key, sizeof key, "apiproxy:login:{%s}:token:%s:%lld", name, mark, (long long)user->expires_at_ms);
	char *token = shared_token(admin, key, fresh, cached);
	if (!token)
		token = own_token(key, fresh, now, now + cached);
	if (identity_token_verify(s, token, strlen(token), now * 1000, expires_at) == user) {
		free(fresh);
		return token;
	}
	free(token); /* not one of ours, or just over */
	*expires_at = end;
	return fresh;
}

/* ---- the request ---- */

/* Both fields are there, are texts, and there is no other; else reply is the 400 that says so. */
static bool read_fields(const cJSON *json, const char **username, const char **password, struct admin_reply *reply)
{
	const struct {
		const char *name;
		const char **value;
	} fields[] = {{"username", username}, {"password", password}};
	*username = *password = NULL;
	for (const cJSON *item = json->child; item; item = item->next) {
		size_t f = 0;
		while (f < 2 && strcmp(fields[f].name, item->string) != 0)
			f++;
		if (f == 2) {
			admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "%.64s: there is no such field", item->string);
			return false;
		}
		bool repeated = *fields[f].value;
		*fields[f].value = cJSON_GetStringValue(item);
		const char *fault = repeated       ? "is given more than once" :
			!*fields[f].value              ? "must be a text" :
			json_has_nul(*fields[f].value) ? "has a NUL, which no text may hold" :
											 NULL;
		if (fault) {
			admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "%s: %s", fields[f].name, fault);
			return false;
		}
	}
	for (size_t f = 0; f < 2; f++)
		if (!*fields[f].value) {
			admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "%s: is missing", fields[f].name);
			return false;
		}
	return true;
}

static void reply_token(struct admin_reply *reply, char *token, int64_t expires_at)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "token", token);
	cJSON_AddStringToObject(json, "token_type", "Bearer");
	cJSON_AddNumberToObject(json, "expires_in", (double)(expires_at - clock_shared_ms() / 1000));
	admin_reply_json(reply, 200, json);
	admin_reply_header(reply, "cache-control", "no-store");
	free(token);
}

static void check(const struct admin_request *request, struct snapshot *s, const char *username, const char *password,
	struct admin_reply *reply)
{
	struct login_attempt attempt;
	int64_t expires_at = 0;
	uint64_t wait_ms = login_limit_begin(&attempt, request->admin, username, request->peer);
	if (wait_ms) {
		admin_reply_problem(reply, PROBLEM_LOGIN_LIMIT, NULL);
		admin_reply_header(reply, "retry-after", "%llu",
			(unsigned long long)(wait_ms > 60000 ? 60 : (wait_ms + 999) / 1000));
		return;
	}
	const struct subject *user = snapshot_user(s, username);
	bool fits = password_fits(user, password);
	login_limit_end(&attempt, !fits);
	int64_t now_ms = clock_shared_ms(), now = now_ms / 1000;
	int64_t end = fits ? identity_token_end(user, now + request->admin->setup.settings->auth_token_ttl_seconds) : 0;
	/* A user's last second may be too short for a token, which counts in whole ones. */
	if (!fits || !subject_is_valid(user, now_ms) || end <= now) {
		admin_reply_problem(reply, PROBLEM_INVALID_CREDENTIALS, "The user name or the password is wrong.");
		return;
	}
	char *token = token_for(request->admin, s, user, now, end, &expires_at);
	if (token)
		reply_token(reply, token, expires_at);
	else
		admin_reply_problem(reply, PROBLEM_OUT_OF_MEMORY, NULL);
}

void login_post(const struct admin_request *request, struct admin_reply *reply)
{
	const char *username, *password;
	cJSON *json = admin_request_json(request, reply);
	if (!json)
		return;
	if (read_fields(json, &username, &password, reply)) {
		struct snapshot *s = admin_snapshot(request);
		check(request, s, username, password, reply);
		snapshot_unref(s);
	}
	admin_json_free(json);
}
