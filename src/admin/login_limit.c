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
	UNTOLD_MAX = 2 * (USER_LIMIT + ADDRESS_LIMIT),
	UNTOLD_BYTES = sizeof "1 60000 0123456789abcdef",
};

/* The keys of the script, from 1. */
enum { OF_USER = 1, OF_ADDRESS = 2 };

struct wrong {
	uint64_t at_ms;
	uint64_t user, address;
	uint64_t name;
	uint8_t told; /* a bit, 1 << key, for each that Redis knows of */
};

static struct {
	pthread_mutex_t lock;
	struct wrong ring[SEEN];
	size_t next;
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Those of the last minute that Redis does not know of yet, of one user and one address. */
struct untold {
	unsigned count;
	struct {
		size_t at; /* in the ring */
		uint64_t name;
		unsigned key;
	} items[UNTOLD_MAX];
	char text[UNTOLD_MAX * UNTOLD_BYTES + 1]; /* as the script reads it */
};

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

/* Returns where. */
static size_t remember(const struct login_attempt *a)
{
	struct wrong wrong = {
		.at_ms = clock_monotonic_ms(),
		.user = hash_text(HASH_START, a->user),
		.address = hash_text(HASH_START, a->address),
		.name = a->name,
	};
	pthread_mutex_lock(&seen.lock);
	size_t at = seen.next++ % SEEN;
	seen.ring[at] = wrong;
	pthread_mutex_unlock(&seen.lock);
	return at;
}

static void note_told(size_t at, uint64_t name, unsigned keys)
{
	pthread_mutex_lock(&seen.lock);
	if (seen.ring[at].name == name)
		seen.ring[at].told |= (uint8_t)keys;
	pthread_mutex_unlock(&seen.lock);
}

static void add_untold(struct untold *u, const struct wrong *w, unsigned key, uint64_t now_ms)
{
	char *end = u->text + strlen(u->text);
	if (w->told & 1u << key || u->count == UNTOLD_MAX)
		return;
	u->items[u->count].at = (size_t)(w - seen.ring);
	u->items[u->count].name = w->name;
	u->items[u->count++].key = key;
	snprintf(end, UNTOLD_BYTES + 1, "%u %u %016" PRIx64 ";", key, (unsigned)(now_ms - w->at_ms), w->name);
}

static void find_untold(const struct login_attempt *a, struct untold *u)
{
	uint64_t user = hash_text(HASH_START, a->user), address = hash_text(HASH_START, a->address);
	uint64_t now_ms = clock_monotonic_ms();
	u->count = 0;
	u->text[0] = 0;
	pthread_mutex_lock(&seen.lock);
	for (size_t back = 1; back <= SEEN && back <= seen.next; back++) {
		const struct wrong *w = &seen.ring[(seen.next - back) % SEEN];
		if (w->at_ms + SPAN_MS < now_ms)
			break;
		if (w->user == user)
			add_untold(u, w, OF_USER, now_ms);
		if (w->address == address)
			add_untold(u, w, OF_ADDRESS, now_ms);
	}
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

static enum verdict call(const struct login_attempt *a, const char *what, const char *untold, uint64_t *retry_ms)
{
	const struct embedded_file *script = embedded_find("login.lua");
	enum verdict verdict = NO_REDIS;
	char name[17];
	CHECK(script);
	snprintf(name, sizeof name, "%016" PRIx64, a->name);
	struct redis_sync *redis = admin_redis_acquire(a->admin);
	redisReply *reply = redis_sync_command(redis,
		"EVAL %b 2 apiproxy:login:{%s}:user apiproxy:login:{%s}:address %s %d %d %d %s %d %s", script->data,
		script->length, a->user, a->address, what, SPAN_MS, USER_LIMIT, ADDRESS_LIMIT, name, ATTEMPT_LEASE_MS,
		untold);
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

static enum verdict try(const struct login_attempt *a, uint64_t *retry_ms)
{
	struct untold untold;
	find_untold(a, &untold);
	enum verdict verdict = call(a, "try", untold.text, retry_ms);
	for (unsigned i = 0; verdict != NO_REDIS && i < untold.count; i++)
		note_told(untold.items[i].at, untold.items[i].name, 1u << untold.items[i].key);
	return verdict;
}

uint64_t login_limit_begin(struct login_attempt *a, struct admin *admin, const char *username, const char *peer)
{
	uint64_t began_ms = clock_monotonic_ms(), retry_ms = 0;
	enum verdict verdict;
	memset(a, 0, sizeof *a);
	a->admin = admin;
	login_key_name(username, a->user);
	snprintf(a->address, sizeof a->address, "%s", *peer ? peer : "?");
	secrets_random(&a->name, sizeof a->name);
	while ((verdict = try(a, &retry_ms)) == ASK_AGAIN) {
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
	size_t at = wrong ? remember(a) : 0;
	bool told = a->announced && call(a, wrong ? "wrong" : "right", "", &unused) == GO_ON;
	if (wrong && told)
		note_told(at, a->name, 1u << OF_USER | 1u << OF_ADDRESS);
}
