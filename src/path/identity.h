/* identity: who is asking. From the credentials of a request to a client or user of the snapshot.
 *
 * Places, in the order in which they decide: Authorization: Bearer, x-api-key, x-goog-api-key,
 * api-key, query `key`. The first valid one decides. Valid is a client key (sk-ap-…, or any text
 * whose SHA-256 a client was given) that is neither expired nor unknown, or a token of ours (below). A disabled client
 * is refused with 403 unless a later place holds a valid credential; 403 too where the subject's
 * list of mappings leaves this one out. All else is 401.
 * Tokens: JWT, HS256 and nothing else (RFC 7519, RFC 7518 3.2), `exp` and `sub` required, `pw` ties
 * it to the user's password hash: it dies when the password changes, the user goes, expires or is disabled.
 * Nothing here blocks. struct identity belongs to one thread; the token functions are for any. */
#ifndef APIPROXY_PATH_IDENTITY_H
#define APIPROXY_PATH_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/http1.h"
#include "state/problem.h"
#include "state/snapshot.h"

enum identity_place {
	IDENTITY_AUTHORIZATION, /* the field's value, "Bearer" included */
	IDENTITY_X_API_KEY,
	IDENTITY_X_GOOG_API_KEY,
	IDENTITY_API_KEY,
	IDENTITY_QUERY,         /* the whole raw query, without "?": every key= in it counts */
	IDENTITY_NO_PLACE,
};

struct identity_credential { /* borrowed bytes as they came; fields repeated are several of these */
	enum identity_place place;
	const char *text;
	size_t length;
};

/* Which of the four fields this is, or IDENTITY_NO_PLACE. */
enum identity_place identity_place_of_field(enum http_field_id id);

struct identity; /* a worker's memory of tokens already verified: at most 4096 of up to 1 KiB */

struct identity *identity_new(void);
void identity_free(struct identity *identity);

/* Credentials in any order. now_ms: Unix time. PROBLEM_NONE: *subject lives as long as the
 * snapshot. Else PROBLEM_INVALID_CREDENTIALS or PROBLEM_NOT_ALLOWED. */
enum problem_id identity_decide(struct identity *identity, const struct snapshot *s, const struct mapping *m,
	const struct identity_credential *credentials, size_t count, int64_t now_ms, const struct subject **subject)
	__attribute__((warn_unused_result));

/* Writes the query without its key= parameters (names are compared with escapes decoded) to out,
 * which has room for length bytes and may be query itself; all other bytes and their order stay.
 * Returns the new length; 0: nothing is left, and the "?" goes too. */
size_t identity_scrub_query(const char *query, size_t length, char *out);

/* ---- tokens: any thread ---- */

enum { IDENTITY_MARK_LENGTH = 16 };

/* Hex digits that stand for this password hash under this secret: claim `pw`. */
void identity_password_mark(const char *secret, const char *password_hash, char mark[IDENTITY_MARK_LENGTH + 1]);

/* When a token of this user ends that is wanted until then: never later than the user. Unix seconds. */
int64_t identity_token_end(const struct subject *user, int64_t wanted);

/* A token of this user; NULL: no memory or no password hash. Caller frees. Unix seconds. */
char *identity_token_issue(const char *secret, const struct subject *user, int64_t issued_at, int64_t expires_at)
	__attribute__((warn_unused_result));

/* The user whose token this is, or NULL; *expires_at where not NULL. Looks at no cache. */
const struct subject *identity_token_verify(const struct snapshot *s, const char *token, size_t length, int64_t now_ms,
	int64_t *expires_at);

#endif
