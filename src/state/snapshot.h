/* snapshot: the configuration as it is at one moment, immutable, shared by all threads.
 *
 * Built by state/store (state/snapshot_build.h), handed on by the watcher to each worker through
 * its mailbox with a reference of its own. Everything reachable from it lives as long as it does.
 * Absent numbers are 0 (= no limit), absent strings NULL unless said. */
#ifndef APIPROXY_STATE_SNAPSHOT_H
#define APIPROXY_STATE_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dialect_id { DIALECT_OPENAI, DIALECT_ANTHROPIC, DIALECT_GEMINI };

struct target {              /* http(s)://host[:port][/base] */
	const char *url;         /* as it was given */
	const char *host;        /* for connecting: no brackets */
	const char *authority;   /* for the Host field: as given, brackets and port kept */
	const char *base_path;   /* "" or "/v1"; a lone "/" counts as "" */
	uint16_t port;
	bool tls;
};

struct limits {              /* what a client or user may do; 0 = no limit */
	uint64_t rpm;
	uint64_t input_tpm;
	uint64_t output_tpm;
	uint64_t max_concurrency;
};

struct vendor_key {
	const char *id;
	const char *pool;
	const char *secret;      /* plain; NULL where the master key does not open it: never used */
	const char *limit_id;    /* id and a mark of the secret; NULL: no secret. vendor_key_limit_id() */
	uint32_t weight;
	uint64_t max_requests_per_minute;
	bool enabled;
	uint32_t stats_slot;     /* state/stats: STATS_KEY */
};

/* What Redis and the nodes know of a key, its health and window, is known of its secret: under another one it starts anew. */
static inline const char *vendor_key_limit_id(const struct vendor_key *key)
{
	return key->limit_id ? key->limit_id : key->id;
}

struct pool {                /* the vendor keys of one name, disabled ones included */
	const char *name;
	size_t key_count;
	const struct vendor_key *const *keys;
};

struct mapping {
	const char *prefix;
	size_t prefix_length;
	struct target target;
	enum dialect_id dialect;
	bool auth_required;
	bool enabled;
	bool include_usage;
	const char *pool_name;   /* NULL: no vendor key is put in */
	const struct pool *pool; /* NULL: no pool named, or it has no key yet */
	uint64_t timeout_ms;
	uint64_t connect_timeout_ms;
	bool has_queue;
	double queue_rate_per_second;
	uint64_t queue_capacity;
	uint64_t queue_timeout_ms; /* 0: waits as long as it takes */
	const char *key_header;  /* NULL: where the dialect has it */
	uint64_t reserve_output_tokens;
	uint64_t max_body_bytes;
	const char *description; /* "" where absent */
	uint32_t stats_slot;     /* state/stats: STATS_MAPPING */
	uint64_t read_us;        /* when it was read, by Redis' clock: of two nodes' the later one is the newer */
};

struct subject {             /* a client (id) or a user (username) */
	const char *id;
	const char *name;        /* a client's name, "" where absent */
	struct limits limits;
	size_t mapping_count;    /* 0: may go everywhere */
	const char *const *mappings;
	int64_t expires_at_ms;   /* Unix time; 0: never */
	bool enabled;
	bool is_user;
	uint8_t key_sha256[32];  /* clients */
	const char *password_hash; /* users: crypt(3) */
};

/* now_ms: of the clock that all nodes share (base/clock.h), here and below. */
static inline bool subject_has_expired(const struct subject *s, int64_t now_ms)
{
	return s->expires_at_ms && s->expires_at_ms <= now_ms;
}

/* May it come in at all? NULL may not. */
static inline bool subject_is_valid(const struct subject *s, int64_t now_ms)
{
	return s && s->enabled && !subject_has_expired(s, now_ms);
}

struct snapshot;

struct snapshot *snapshot_ref(struct snapshot *s); /* any thread */
void snapshot_unref(struct snapshot *s);           /* any thread; NULL is fine */

/* The mapping with the longest prefix that matches path (query not included) on a segment boundary;
 * NULL where there is none or that one is disabled (a shorter prefix does not step in). No
 * allocation, no lock. */
const struct mapping *snapshot_route(const struct snapshot *s, const char *path, size_t length);

const struct subject *snapshot_client_by_sha256(const struct snapshot *s, const uint8_t sha256[32]); /* constant-time compare */
const struct subject *snapshot_client(const struct snapshot *s, const char *id);
const struct subject *snapshot_user(const struct snapshot *s, const char *username);
const struct pool *snapshot_pool(const struct snapshot *s, const char *name);

/* Secret for JWTs (auth.jwt_secret or the one shared in Redis), never NULL. */
const char *snapshot_jwt_secret(const struct snapshot *s);

/* For iterating (figures, admin): sorted by prefix, id, name. */
size_t snapshot_mapping_count(const struct snapshot *s);
const struct mapping *snapshot_mapping_at(const struct snapshot *s, size_t index);
size_t snapshot_key_count(const struct snapshot *s);
const struct vendor_key *snapshot_key_at(const struct snapshot *s, size_t index);
size_t snapshot_key_index(const struct snapshot *s, const char *id); /* SIZE_MAX: there is none */

#endif
