/* store: the configuration in Redis: names, loading, changing, publishing.
 *
 *   apiproxy:mappings apiproxy:keys apiproxy:clients apiproxy:users   the hashes (state/schema)
 *   apiproxy:changed        channel; payload: the name of the hash that changed
 *   apiproxy:bootstrapped   there once the store has been filled, and since when (ms): tells "all
 *                           deleted" from "lost", and which of two fillings is the older one
 *   apiproxy:restored       when (ms) a node last put back what Redis had lost: so the other nodes say so, too
 *   apiproxy:jwt_secret     shared by the nodes where auth.jwt_secret is not set
 *
 * It keeps the last load: the raw values and the snapshot made of them. WATCH tells whether that is
 * still what Redis has, in one round trip, however it was changed (raw HSET and FLUSHALL too). Every
 * change is checked against a fresh load and made in a transaction that fails if anything moved.
 * A Redis that comes back empty gets the configuration back from the nodes that had loaded it, also
 * where somebody has written to it since, or a node that started meanwhile has filled it anew.
 *
 * Thread safe (one mutex); blocking: for control threads and the watcher. */
#ifndef APIPROXY_STATE_STORE_H
#define APIPROXY_STATE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/schema.h"

struct cJSON;
struct faults;
struct redis_address;
struct snapshot;
struct stats;
struct store;

struct store_options {
	const struct redis_address *address; /* borrowed; outlives the store */
	uint8_t master_key[32];
	const char *jwt_secret;              /* NULL or "": shared in Redis, made once */
	const char *bootstrap_file;          /* NULL or "": the built-in vendors */
	struct stats *stats;                 /* NULL: no slots (tests) */
};

struct store *store_new(const struct store_options *options); /* connects to nothing yet */
void store_free(struct store *s);

enum store_result {
	STORE_OK,
	STORE_INVALID,     /* 400: every fault is in faults */
	STORE_MISSING,     /* 404 */
	STORE_EXISTS,      /* 409 */
	STORE_UNAVAILABLE, /* 503: Redis; nothing was changed as far as is known */
};

/* Whatever the result but STORE_OK, faults holds at least one line for the reader; faults is the
 * caller's, empty, not NULL. Objects and arrays are in the API's form (schema_to_api; vendor keys
 * with "key_hint"), the caller deletes them; NULL unless STORE_OK. A change holds for this node once
 * the caller has called watcher_reload_now(). id: prefix with its slash, id, or username. */
enum store_result store_list(struct store *s, enum schema_kind kind, struct cJSON **array, struct faults *faults);
enum store_result store_get(struct store *s, enum schema_kind kind, const char *id, struct cJSON **object,
	struct faults *faults);
enum store_result store_create(struct store *s, enum schema_kind kind, const struct cJSON *input,
	struct cJSON **object, struct faults *faults); /* a client's object has "key", this once */
enum store_result store_update(struct store *s, enum schema_kind kind, const char *id, const struct cJSON *patch,
	struct cJSON **object, struct faults *faults);
enum store_result store_delete(struct store *s, enum schema_kind kind, const char *id, struct faults *faults);
enum store_result store_rotate(struct store *s, const char *client_id, struct cJSON **object,
	struct faults *faults); /* with "key", this once */

/* {"mappings":[],"keys":[],"clients":[],"users":[]}: what store_replace_all() takes. */
enum store_result store_export(struct store *s, struct cJSON **document, struct faults *faults);
enum store_result store_replace_all(struct store *s, const struct cJSON *document, struct cJSON **result,
	struct faults *faults); /* the document, with "key" in clients that are new */

/* Is a bootstrap document good, as far as that can be told without the store? */
bool store_check_bootstrap(const char *file, struct faults *faults);

/* What Redis has now: loads if anything changed since the last load, fills an empty store. *snapshot
 * gets a reference to the newest one known, also when Redis is away (an empty one before the first load). */
enum store_result store_refresh(struct store *s, struct snapshot **snapshot, struct faults *faults);

#endif
