/* store_internal: what the parts of state/store share: store.c (the operations), store_load.c (what
 * Redis has), store_commit.c (what goes there), store_document.c (whole configurations). Everything under the store's mutex. */
#ifndef APIPROXY_STATE_STORE_INTERNAL_H
#define APIPROXY_STATE_STORE_INTERNAL_H

#include <pthread.h>

#include "state/store.h"

struct redis_sync;
struct subjects;

#define STORE_CHANNEL "apiproxy:changed"
#define STORE_MARKER "apiproxy:bootstrapped"
#define STORE_RESTORED "apiproxy:restored"
#define STORE_JWT_SECRET "apiproxy:jwt_secret"
#define STORE_CONTENT "apiproxy:mappings apiproxy:keys apiproxy:clients apiproxy:users " STORE_MARKER

enum { STORE_DEADLINE_MS = 250, STORE_BULK_DEADLINE_MS = 5000 }; /* for each wait; loads and whole configurations have more */

struct image_entry {
	char *field, *value; /* a NUL follows each */
	size_t field_length, value_length;
};

struct image { /* one hash as it is in Redis, sorted by field */
	struct image_entry *entries;
	size_t count, room;
};

struct bad_values { /* fingerprints of the values that were told to be bad, sorted */
	uint64_t *items;
	size_t count;
};

struct store {
	pthread_mutex_t mutex;
	const struct redis_address *address;
	uint8_t master_key[32];
	char *given_jwt_secret; /* "": shared */
	char *bootstrap_file;   /* "": built in */
	struct stats *stats;

	struct redis_sync *main;      /* loads, changes */
	struct redis_sync *guards[2]; /* one of them watches since before the last load, in turns */
	int guard;                    /* that one; -1: none */

	bool loaded;                  /* images are from Redis */
	uint64_t generation;          /* of that, as its marker says; 0: not loaded, or there was none */
	uint64_t read_us;             /* when they were read, by Redis' clock */
	uint64_t restored;            /* when a node last put back what Redis had lost, as far as is told; 0: never */
	bool down;                    /* told so */
	bool bootstrap_failed;        /* told so: not again */
	struct image images[SCHEMA_KINDS];
	struct bad_values bad[SCHEMA_KINDS];
	struct subjects *clients, *users;
	char *jwt_secret;
	struct snapshot *latest;      /* never NULL */
};

/* ---- store_image.c ---- */
void image_add(struct image *image, const char *field, size_t field_length, const char *value, size_t value_length);
void image_seal(struct image *image); /* sorts */
bool image_equals(const struct image *a, const struct image *b);
const struct image_entry *image_find(const struct image *image, const char *field); /* NULL: not there */
void image_fini(struct image *image);

/* ---- store_build.c ---- */
void store_rebuild(struct store *s, const bool changed[SCHEMA_KINDS]); /* images -> snapshot */

/* ---- store_load.c ---- */
/* Brings images and snapshot up to date. */
enum store_result store_load_if_changed(struct store *s, struct faults *faults);
/* The same, and main WATCHes the hashes (one kind, or all: SCHEMA_KINDS) since before. */
enum store_result store_begin(struct store *s, enum schema_kind kind, struct faults *faults);

/* ---- store_commit.c ---- */
struct redisReply;
/* Frees a reply; false where it is none or an error, which goes to faults. */
bool store_accept(struct redis_sync *r, struct redisReply *take_reply, struct faults *faults);
uint64_t store_generation(const struct redisReply *marker); /* 0: there is none; of STORE_RESTORED, too */

struct store_change {
	const char *field, *value; /* value NULL: deleted */
};
enum commit_result { COMMIT_DONE, COMMIT_LOST, COMMIT_FAILED }; /* LOST: somebody else was quicker, begin again */
enum commit_result store_commit(struct store *s, enum schema_kind kind, const struct store_change *changes, size_t count,
	struct faults *faults);
/* Replaces all hashes after store_begin(…, SCHEMA_KINDS). */
enum commit_result store_commit_all(struct store *s, const struct image images[SCHEMA_KINDS], struct faults *faults);
/* Only where Redis is still empty: whoever comes second finds it filled. */
bool store_fill(struct store *s, const struct image images[SCHEMA_KINDS], uint64_t generation, struct faults *faults);
/* What this node knows of these kinds goes back to a Redis that has lost it. found: its marker, 0 or that of
 * a node that began anew. What was written since by hand stays and wins; what that node filled in (filled) does not.
 * now: by Redis' clock; tells the other nodes. */
enum commit_result store_put_back(struct store *s, const bool kinds[SCHEMA_KINDS], uint64_t found, uint64_t now,
	const struct image filled[SCHEMA_KINDS], struct faults *faults);

/* ---- store_entry.c: one entry and its secret ---- */
/* What is stored under an id: NULL where it is not there or (entry) not good. The entry is the caller's. */
const struct image_entry *store_find_raw(const struct store *s, enum schema_kind kind, const char *id);
struct cJSON *store_find_entry(const struct store *s, enum schema_kind kind, const char *id);

/* Puts an entry's secret into its stored form, taking the one of stored (NULL: nothing stored) where
 * it has none. *client_key gets the key made for a client that has neither, else NULL. */
bool store_resolve_secret(const struct store *s, enum schema_kind kind, struct cJSON *entry, const struct cJSON *stored,
	const char *place, char **client_key, struct faults *faults);
void store_hash_password(struct cJSON *entry); /* slow; nothing where there is none */
const char *store_field(enum schema_kind kind, const struct cJSON *entry); /* of the hash */
struct cJSON *store_show(const struct store *s, enum schema_kind kind, const struct cJSON *entry); /* for the API */

/* ---- store_document.c: whole configurations ---- */
void store_sort(enum schema_kind kind, struct cJSON *array); /* objects of the API, by id */
/* The bootstrap document as images, sealed. False: faults. */
bool store_read_bootstrap(struct store *s, struct image images[SCHEMA_KINDS], struct faults *faults);

#endif
