/* dispatch: the table of what the control plane answers, and how a request finds its row. No state. */
#include "admin/dispatch.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "state/schema.h"
#include "state/secrets.h"
#include "state/settings.h"

enum {
	DOCUMENT = ADMIN_BODY_BYTES_MAX,
	ENTRY = 1024 * 1024,
	LOGIN_BYTES_MAX = 16 * 1024, /* strangers send it */
};

static void not_found(const struct admin_request *request, struct admin_reply *reply)
{
	admin_reply_problem(reply, PROBLEM_NO_MAPPING, "There is nothing at %s.", request->path);
}

/* clang-format off */
/* The verbs that all four kinds of entries have. */
#define RESOURCE(path, kind) \
	{"GET",    path,       0, LANE_STORE, resource_list,   kind, 0, false}, \
	{"POST",   path,       0, LANE_STORE, resource_create, kind, ENTRY, false}
#define RESOURCE_ENTRY(path, kind) \
	{"GET",    path,       0, LANE_STORE, resource_get,    kind, 0, false}, \
	{"PUT",    path,       0, LANE_STORE, resource_update, kind, ENTRY, false}, \
	{"DELETE", path,       0, LANE_STORE, resource_delete, kind, 0, false}

static const struct dispatch_row rows[] = {
	{"GET",  "/",            OPEN_PUBLIC_STATS, LANE_NONE, page_get, PAGE_INDEX, 0, true},
	{"GET",  "/index.html",  OPEN_PUBLIC_STATS, LANE_NONE, page_get, PAGE_INDEX, 0, true},
	{"GET",  "/admin",       OPEN_ALWAYS,       LANE_NONE, page_get, PAGE_ADMIN, 0, true},
	{"GET",  "/admin/",      OPEN_ALWAYS,       LANE_NONE, page_get_admin_slash, 0, 0, false},
	{"GET",  "/static/*",    OPEN_ALWAYS,       LANE_NONE, page_get_static, 0, 0, false},
	{"GET",  "/health",      OPEN_ALWAYS,       LANE_NONE, health_get, 0, 0, false},
	{"GET",  "/stats",       OPEN_PUBLIC_STATS | OPEN_OPS, LANE_FIGURES, stats_get, 0, 0, false},
	{"GET",  "/metrics",     OPEN_OPS,          LANE_FIGURES, metrics_get, 0, 0, false},
	{"GET",  "/performance", OPEN_OPS,          LANE_FIGURES, performance_get, 0, 0, false},
	{"GET",  "/errors",      OPEN_OPS,          LANE_FIGURES, errors_get, 0, 0, false},
	{"POST", "/auth/login",  OPEN_ALWAYS,       LANE_HASH, login_post, 0, LOGIN_BYTES_MAX, false},
	RESOURCE("/api/mappings", SCHEMA_MAPPING),
	RESOURCE_ENTRY("/api/mappings/*", SCHEMA_MAPPING),
	RESOURCE("/api/keys", SCHEMA_KEY),
	RESOURCE_ENTRY("/api/keys/{}", SCHEMA_KEY),
	{"POST", "/api/keys/{}/reset",     0, LANE_STORE, resource_reset, SCHEMA_KEY, 0, false},
	RESOURCE("/api/clients", SCHEMA_CLIENT),
	RESOURCE_ENTRY("/api/clients/{}", SCHEMA_CLIENT),
	{"POST", "/api/clients/{}/rotate", 0, LANE_STORE, resource_rotate, SCHEMA_CLIENT, 0, false},
	{"GET",  "/api/clients/{}/usage",  0, LANE_STORE, usage_get, SCHEMA_CLIENT, 0, false},
	RESOURCE("/api/users", SCHEMA_USER),
	RESOURCE_ENTRY("/api/users/{}", SCHEMA_USER),
	{"GET",  "/api/users/{}/usage",    0, LANE_STORE, usage_get, SCHEMA_USER, 0, false},
	{"GET",  "/api/config",            0, LANE_STORE, config_get, 0, 0, false},
	{"PUT",  "/api/config",            0, LANE_STORE, config_put, 0, DOCUMENT, false},
	{NULL,   "/api",                   0, LANE_NONE, not_found, 0, 0, false},
	{NULL,   "/api/",                  0, LANE_NONE, not_found, 0, 0, false},
	{NULL,   "/api/*",                 0, LANE_NONE, not_found, 0, 0, false}, /* to strangers it is 401 */
};
/* clang-format on */

enum { ROW_COUNT = sizeof rows / sizeof *rows };

/* Whether path is what the pattern says; the open part is tail[0..length). */
static bool matches(const char *pattern, const char *path, const char **tail, size_t *length)
{
	size_t fixed = strcspn(pattern, "*{");
	if (strncmp(pattern, path, fixed) != 0)
		return false;
	const char *open = pattern + fixed, *rest = path + fixed;
	*tail = rest;
	*length = 0;
	if (*open == '\0')
		return *rest == '\0';
	*length = *open == '*' ? strlen(rest) : strcspn(rest, "/");
	const char *after = open + (*open == '*' ? 1 : 2);
	return *length > 0 && strcmp(after, rest + *length) == 0;
}

static const struct dispatch_row *find_pattern(const char *path, const char **tail, size_t *length)
{
	for (const struct dispatch_row *row = rows; row < rows + ROW_COUNT; row++)
		if (matches(row->pattern, path, tail, length))
			return row;
	return NULL;
}

static const struct dispatch_row *find_method(const struct dispatch_row *first, const char *method)
{
	for (const struct dispatch_row *row = first; row < rows + ROW_COUNT; row++)
		if (strcmp(row->pattern, first->pattern) == 0 && (!row->method || strcmp(row->method, method) == 0))
			return row;
	return NULL;
}

static void reply_method_not_allowed(const struct dispatch_row *first, struct admin_reply *reply)
{
	char allow[64] = "";
	for (const struct dispatch_row *row = first; row < rows + ROW_COUNT; row++) {
		if (strcmp(row->pattern, first->pattern) != 0)
			continue;
		size_t used = strlen(allow);
		snprintf(allow + used, sizeof allow - used, "%s%s%s", used ? ", " : "", row->method,
			strcmp(row->method, "GET") == 0 ? ", HEAD" : "");
	}
	admin_reply_problem(reply, PROBLEM_METHOD_NOT_ALLOWED, "Allowed here: %s.", allow);
	admin_reply_header(reply, "Allow", "%s", allow);
}

/* SHA-256s are compared, so that neither length nor bytes of the token show in the time it takes. */
static bool has_token(const struct admin *admin, const char *authorization)
{
	static const char scheme[] = "Bearer ";
	if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
		return false;
	const char *token = authorization + sizeof scheme - 1;
	token += strspn(token, " ");
	uint8_t sha256[32];
	secrets_sha256(token, strlen(token), sha256);
	return CRYPTO_memcmp(sha256, admin->token_sha256, sizeof sha256) == 0;
}

static bool may_ask(const struct dispatch_row *row, const struct admin_request *request, const char *authorization)
{
	return (row->open_when & OPEN_ALWAYS) ||
		((row->open_when & OPEN_PUBLIC_STATS) && request->admin->setup.settings->server_public_stats) ||
		((row->open_when & OPEN_OPS) && request->ops) || has_token(request->admin, authorization);
}

static void reply_unauthorized(const struct dispatch_row *row, struct admin_reply *reply)
{
	if (row->is_page)
		page_reply_denied(reply);
	else
		admin_reply_problem(reply, PROBLEM_INVALID_CREDENTIALS,
			"The admin token is needed: Authorization: Bearer ADMIN_TOKEN.");
	admin_reply_header(reply, "WWW-Authenticate", "Bearer realm=\"apiproxy\"");
}

const struct dispatch_row *dispatch_find(struct admin_request *request, const char *authorization,
	struct admin_reply *reply)
{
	const char *tail;
	size_t length;
	if (strcmp(request->method, "HEAD") == 0)
		request->method = "GET";
	const struct dispatch_row *first = find_pattern(request->path, &tail, &length);
	if (!first) {
		not_found(request, reply);
		return NULL;
	}
	const struct dispatch_row *row = find_method(first, request->method);
	if (!may_ask(first, request, authorization)) {
		reply_unauthorized(first, reply);
	} else if (first->handler == not_found) {
		not_found(request, reply);
	} else if (!row) {
		reply_method_not_allowed(first, reply);
	} else if (!(request->tail = text_percent_decoded(tail, length))) {
		admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "The path has a %% that is no escape: %s", request->path);
	} else {
		request->detail = row->detail;
		return row;
	}
	return NULL;
}
