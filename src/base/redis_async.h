/* redis_async: one pipelined connection to Redis on a loop, for scripts.
 *
 * Every call gets exactly one answer within its deadline: a reply, or NULL where Redis failed. A call that is
 * not answered in time fails all that are under way and the connection: Redis counts as down, calls
 * fail at once (no waiting), and a probe goes on in the background until it answers again. Where only the
 * connection ends, calls under way fail, and the next ones wait for another connection, within their deadline.
 * Scripts are loaded when the connection opens, and again when Redis has forgotten them
 * (NOSCRIPT): the call is then sent once more. Host names are looked up off the loop's thread, anew for each
 * connection; their addresses are tried in turn until one can be connected to (base/addresses.h).
 * One thread: the loop's. on_change tells when the state changes; nothing is logged here. */
#ifndef APIPROXY_BASE_REDIS_ASYNC_H
#define APIPROXY_BASE_REDIS_ASYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct redisReply;
struct redis_async;

struct redis_async_script {
	const char *text; /* lives as long as the connection */
	size_t length;
	char sha1[41];    /* filled by redis_async_script_init() */
};

void redis_async_script_init(struct redis_async_script *script, const char *text, size_t length);

struct redis_async_options { /* strings are copied */
	bool tls;                  /* verified against the system's authorities */
	const char *unix_path;     /* NULL: TCP */
	const char *host;
	uint16_t port;
	const char *user;          /* NULL: none */
	const char *password;      /* NULL: no AUTH */
	unsigned db;
	unsigned deadline_ms;      /* of a call */
	const struct redis_async_script *scripts; /* lives as long as the connection */
	size_t script_count;
	void (*on_change)(void *context, bool up, const char *reason); /* NULL: nobody cares */
	void *context;
};

/* reply: NULL where Redis failed; else valid during the call, an error reply of Redis' included. */
typedef void redis_async_answer(void *argument, const struct redisReply *reply);

struct redis_async_bytes {
	const void *data;
	size_t length;
};

struct redis_async *redis_async_new(struct loop *l, const struct redis_async_options *options);
/* Calls under way are answered with NULL first. */
void redis_async_free(struct redis_async *r);

/* Whether a call would be sent: connected, or connecting and not down. */
bool redis_async_usable(const struct redis_async *r);

/* EVALSHA with the first key_count of the parts as keys. on_answer may be NULL. false: down, nothing
 * was sent and on_answer is not called. It is never called before this returns. */
bool redis_async_call(struct redis_async *r, const struct redis_async_script *script, const struct redis_async_bytes *parts,
	size_t part_count, size_t key_count, redis_async_answer *on_answer, void *argument)
	__attribute__((warn_unused_result));

/* Writes what was called, instead of at the end of the turn: for one who calls there. From an answer's callback
 * nothing is written before the end of the turn. */
void redis_async_flush(struct redis_async *r);

#endif
