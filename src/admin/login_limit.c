/* login_limit: the script's caller, and this node's own record of wrong passwords: a ring of the last
 * ones, under a lock. A wrong password costs a hash of tens of milliseconds on one of a few threads, so
 * the ring outlasts a minute. */
#include "admin/login_limit.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "admin/admin.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/embedded.h"
#include "base/hash.h"
#include "state/redis_sync.h"
#include "state/secrets.h"

enum {
	SPAN_MS = 60000,
	USER_LIMIT = 10,
	ADDRESS_LIMIT = 100,
	ATTEMPT_LEASE_MS = 10000,
	PAUSE_MS = 20,
	PATIENCE_MS = 5000,
	SEEN = 8192,
};

struct wrong {
	uint64_t at_ms;
	uint64_t user, address;
};

static struct {
	pthread_mutex_t lock;
	struct wrong ring[SEEN];
	size_t next;
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

void login_key_name(const char *username, char out[80])
{
	static const char valid[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t length = strlen(username);
	uint8_t digest[32];
	out[0] = '?';
	if (length && length <= 64 && strspn(username, valid) == length)
		memcpy(out, username, length + 1);
	else {
		secrets_sha256(username, length, digest);
		secrets_to_hex(digest, out + 1);
	}
}

/* ---- this node ---- */

static void remember(const struct login_attempt *a)
{
	pthread_mutex_lock(&seen.lock);
	seen.ring[seen.next++ % SEEN] =
		(struct wrong){clock_monotonic_ms(), hash_text(HASH_START, a->user), hash_text(HASH_START, a->address)};
	pthread_mutex_unlock(&seen.lock);
}

/* When the limit-th last of those since the edge leaves the window; 0: there are fewer. */
static uint64_t recall(const struct login_attempt *a, uint64_t now_ms)
{
	uint64_t user = hash_text(HASH_START, a->user), address = hash_text(HASH_START, a->address), free_at = 0;
	unsigned users = 0, addresses = 0;
	pthread_mutex_lock(&seen.lock);
	for (size_t back = 1; back <= SEEN && back <= seen.next; back++) {
		const struct wrong *w = &seen.ring[(seen.next - back) % SEEN];
		if (w->at_ms + SPAN_MS < now_ms)
			break;
		users += w->user == user;
		addresses += w->address == address;
		bool fills =
			(w->user == user && users == USER_LIMIT) || (w->address == address && addresses == ADDRESS_LIMIT);
		if (fills && w->at_ms + SPAN_MS + 1 > free_at)
			free_at = w->at_ms + SPAN_MS + 1;
	}
	pthread_mutex_unlock(&seen.lock);
	return free_at;
}

/* ---- all nodes ---- */

enum verdict { GO_ON, REFUSED, ASK_AGAIN, NO_REDIS };

static enum verdict call(const struct login_attempt *a, const char *what, uint64_t *retry_ms)
{
	const struct embedded_file *script = embedded_find("login.lua");
	enum verdict verdict = NO_REDIS;
	CHECK(script);
	struct redis_sync *redis = admin_redis_acquire(a->admin);
	redisReply *reply = redis_sync_command(redis,
		"EVAL %b 2 apiproxy:login:{%s}:user apiproxy:login:{%s}:address %s %d %d %d %s %d", script->data,
		script->length, a->user, a->address, what, SPAN_MS, USER_LIMIT, ADDRESS_LIMIT, a->name, ATTEMPT_LEASE_MS);
	if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements &&
		reply->element[0]->type == REDIS_REPLY_INTEGER) {
		verdict = (enum verdict)reply->element[0]->integer;
		if (reply->elements > 1)
			*retry_ms = (uint64_t)reply->element[1]->integer;
	}
	freeReplyObject(reply);
	admin_redis_release(a->admin);
	return verdict;
}

uint64_t login_limit_begin(struct login_attempt *a, struct admin *admin, const char *username, const char *peer)
{
	uint64_t began_ms = clock_monotonic_ms(), retry_ms = 0, random;
	enum verdict verdict;
	memset(a, 0, sizeof *a);
	a->admin = admin;
	login_key_name(username, a->user);
	snprintf(a->address, sizeof a->address, "%s", *peer ? peer : "?");
	secrets_random(&random, sizeof random);
	snprintf(a->name, sizeof a->name, "%016" PRIx64, random);
	while ((verdict = call(a, "try", &retry_ms)) == ASK_AGAIN) {
		if (clock_monotonic_ms() - began_ms > PATIENCE_MS)
			return 1000;
		usleep(PAUSE_MS * 1000);
	}
	if (verdict == REFUSED)
		return retry_ms ? retry_ms : 1;
	a->announced = verdict == GO_ON;
	if (a->announced)
		return 0;
	uint64_t now_ms = clock_monotonic_ms(), free_at = recall(a, now_ms);
	return free_at > now_ms ? free_at - now_ms : 0;
}

void login_limit_end(struct login_attempt *a, bool wrong)
{
	uint64_t unused = 0;
	if (wrong)
		remember(a);
	if (a->announced)
		(void)call(a, wrong ? "wrong" : "right", &unused);
}
