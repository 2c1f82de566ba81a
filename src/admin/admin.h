/* admin: what a handler of the control plane gets and gives. One row of the table in dispatch.c
 * leads a request to its handler; access was checked before. */
#ifndef APIPROXY_ADMIN_ADMIN_H
#define APIPROXY_ADMIN_ADMIN_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/problem.h"

struct admission_node;
struct cJSON;
struct faults;
struct figures_sources;
struct redis_address;
struct redis_sync;
struct settings;
struct snapshot;
struct store;
struct watcher;

/* What main has put together. Borrowed: all of it outlives the control plane. */
struct admin_setup {
	const struct settings *settings;
	const struct figures_sources *figures; /* also who knows version and node */
	struct store *store;
	struct admission_node *admission;
	struct watcher *watcher;
	const struct redis_address *redis;
	const char *admin_token;
};

struct admin {
	struct admin_setup setup;
	uint8_t token_sha256[32];
	bool draining;              /* admin_draining() */
	uint64_t started_ms;        /* monotonic */
	pthread_mutex_t redis_lock; /* admin_redis_acquire() */
	struct redis_sync *redis;
};

enum { ADMIN_BODY_BYTES_MAX = 64 * 1024 * 1024 }; /* of a whole configuration: 100,000 clients fit */

struct admin_request {
	struct admin *admin;
	int detail;          /* the row's: which of several things one handler answers for */
	const char *method;  /* "GET" for HEAD too */
	const char *path;    /* as it came, escapes kept, without the query */
	char *tail;          /* what the row's pattern leaves open ("*" or "{}"), escapes decoded; "" where nothing */
	const char *query;   /* raw, without "?"; "" where none */
	const char *body;    /* a NUL follows the last byte; "" where none */
	size_t length;
	const char *peer;    /* the client's address; "" where unknown */
	bool ops;            /* came in over ops_listen */
	const char *if_none_match; /* field value or NULL */
};

enum { ADMIN_HEADERS_MAX = 8 };

struct admin_reply {
	unsigned status;
	const char *content_type;  /* static text; NULL: no body */
	char *body;                /* malloc()ed, the reply's */
	const char *static_body;   /* instead of body: lives as long as the process */
	size_t length;
	size_t header_count;
	struct { const char *name; char *value; } headers[ADMIN_HEADERS_MAX]; /* name static, value the reply's */
};

/* A handler runs in a thread where it may block, unless its row says otherwise. It fills a zeroed
 * reply with the functions below; the caller frees it. */
typedef void admin_handler(const struct admin_request *request, struct admin_reply *reply);

void admin_reply_json(struct admin_reply *reply, unsigned status, struct cJSON *take_json); /* compact, application/json */
void admin_reply_text(struct admin_reply *reply, unsigned status, const char *content_type, char *take_text);
void admin_reply_static(struct admin_reply *reply, unsigned status, const char *content_type, const char *data, size_t length);
void admin_reply_header(struct admin_reply *reply, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* {"error":{"code","message"}} with the problem's status and code; format NULL: its own message.
 * Replaces what the reply held before. */
void admin_reply_problem(struct admin_reply *reply, enum problem_id id, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with a status and code that the table of problems does not have (409 conflict). */
void admin_reply_error(struct admin_reply *reply, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* 400 bad_request with all faults, joined in "message" and one by one in "faults". */
void admin_reply_faults(struct admin_reply *reply, const struct faults *faults);

void admin_reply_free(struct admin_reply *reply); /* what it holds, not itself */

/* The body as a JSON object, for admin_json_free(); or NULL, and reply is the 400 that says where.
 * What a name that stands twice in an object, or a NUL in a string means, is its reader's (state/json). */
struct cJSON *admin_request_json(const struct admin_request *request, struct admin_reply *reply)
	__attribute__((warn_unused_result));
void admin_json_free(struct cJSON *json); /* wipes its texts: keys and passwords are among them; NULL is fine */

/* Whether the query has name=value (both without escapes). */
bool admin_query_is(const char *query, const char *name, const char *value);

bool admin_draining(const struct admin *admin);

/* The connection to Redis that handlers share, for short calls (each wait at most 250 ms); held until
 * released. Only in rows with a lane. */
struct redis_sync *admin_redis_acquire(struct admin *admin);
void admin_redis_release(struct admin *admin);

/* The configuration in force, with a reference: snapshot_unref(). Does not block. */
struct snapshot *admin_snapshot(const struct admin_request *request);

void admin_init(struct admin *admin, const struct admin_setup *setup);
void admin_fini(struct admin *admin);

/* Handlers, by the file they are in. */
admin_handler page_get;        /* detail: enum page_name */
admin_handler page_get_static;
admin_handler page_get_admin_slash;
admin_handler health_get, stats_get, metrics_get, performance_get, errors_get;
admin_handler login_post;      /* POST /auth/login */
admin_handler resource_list, resource_create, resource_get, resource_update, resource_delete; /* detail: enum schema_kind */
admin_handler resource_rotate; /* clients */
admin_handler resource_reset;  /* keys */
admin_handler usage_get;       /* detail: SCHEMA_CLIENT or SCHEMA_USER */
admin_handler config_get, config_put;

enum page_name { PAGE_INDEX, PAGE_ADMIN };

/* What a browser sees at / without the token where statistics are not public. */
void page_reply_denied(struct admin_reply *reply);

#endif
