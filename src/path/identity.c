/* identity: the five places, the query, and the decision. What a client sent is compared only by its
 * SHA-256 (client keys) or verified by its signature (tokens). A worker remembers verified tokens,
 * bounded, and asks the snapshot again each time: nothing is trusted longer than it is valid. */
#include "path/identity.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/text.h"
#include "state/secrets.h"

enum { REMEMBERED = 4096, TOKEN_MAX = 4096, REMEMBERED_TOKEN_MAX = 1024 };

static const char key_prefix[] = "sk-ap-";

struct remembered {
	size_t length;      /* 0: free */
	int64_t expires_at; /* Unix seconds */
	char *token;
	char *username;
	char *password_hash; /* the one that the token was verified with */
};

struct identity {
	char *secret; /* that all of these were verified with */
	struct remembered tokens[REMEMBERED];
};

/* ---- places ---- */

enum identity_place identity_place_of_field(enum http_field_id id)
{
	switch (id) {
	case HTTP_AUTHORIZATION:
		return IDENTITY_AUTHORIZATION;
	case HTTP_X_API_KEY:
		return IDENTITY_X_API_KEY;
	case HTTP_X_GOOG_API_KEY:
		return IDENTITY_X_GOOG_API_KEY;
	case HTTP_API_KEY:
		return IDENTITY_API_KEY;
	default:
		return IDENTITY_NO_PLACE;
	}
}

/* "Bearer" 1*SP token, RFC 6750 2.1; the scheme in any case. */
static bool bearer(const char **text, size_t *length)
{
	const char *p = *text, *end = p + *length;
	if (*length < 7 || strncasecmp(p, "bearer", 6) != 0 || (p[6] != ' ' && p[6] != '\t'))
		return false;
	for (p += 7; p < end && (*p == ' ' || *p == '\t'); p++) {
	}
	*text = p;
	*length = (size_t)(end - p);
	return true;
}

/* One byte of a query, escapes decoded; *used: how many it took. */
static unsigned char query_byte(const char *p, const char *end, size_t *used)
{
	*used = 1;
	if (*p != '%' || end - p < 3 || text_hex_digit(p[1]) < 0 || text_hex_digit(p[2]) < 0)
		return (unsigned char)*p;
	*used = 3;
	return (unsigned char)(text_hex_digit(p[1]) << 4 | text_hex_digit(p[2]));
}

/* Whether the parameter [p, end) is called key; its value starts at *value (end where it has none). */
static bool is_key(const char *p, const char *end, const char **value)
{
	const char *name_end = memchr(p, '=', (size_t)(end - p));
	*value = name_end ? name_end + 1 : end;
	if (!name_end)
		name_end = end;
	for (const char *want = "key"; *want; want++) {
		size_t used;
		if (p >= name_end || query_byte(p, name_end, &used) != (unsigned char)*want)
			return false;
		p += used;
	}
	return p == name_end;
}

size_t identity_scrub_query(const char *query, size_t length, char *out)
{
	const char *p = query, *end = query + length, *value;
	size_t kept = 0;
	bool any = false;
	while (p <= end && length) {
		const char *stop = memchr(p, '&', (size_t)(end - p));
		if (!stop)
			stop = end;
		if (!is_key(p, stop, &value)) {
			if (any)
				out[kept++] = '&';
			memmove(out + kept, p, (size_t)(stop - p));
			kept += (size_t)(stop - p);
			any = true;
		}
		p = stop + 1;
	}
	return kept;
}

/* ---- tokens remembered ---- */

struct identity *identity_new(void)
{
	return check_calloc(1, sizeof(struct identity));
}

static void forget(struct remembered *r)
{
	free(r->token);
	free(r->username);
	free(r->password_hash);
	memset(r, 0, sizeof *r);
}

static void forget_all(struct identity *identity)
{
	for (size_t i = 0; i < REMEMBERED; i++)
		forget(&identity->tokens[i]);
	free(identity->secret);
	identity->secret = NULL;
}

void identity_free(struct identity *identity)
{
	if (!identity)
		return;
	forget_all(identity);
	free(identity);
}

/* By the end of the token: its signature, which nobody can choose. */
static struct remembered *slot(struct identity *identity, const char *token, size_t length)
{
	size_t tail = length < 32 ? length : 32;
	return &identity->tokens[hash_bytes(HASH_START, token + length - tail, tail) % REMEMBERED];
}

static const struct subject *recall(struct identity *identity, const struct snapshot *s, const char *token,
	size_t length, int64_t now_ms)
{
	const char *secret = snapshot_jwt_secret(s);
	if (!identity->secret || strcmp(identity->secret, secret) != 0) {
		forget_all(identity);
		identity->secret = strdup(secret); /* no memory: nothing is remembered */
	}
	if (!identity->secret)
		return NULL;
	struct remembered *r = slot(identity, token, length);
	if (r->length != length || CRYPTO_memcmp(r->token, token, length) != 0)
		return NULL;
	const struct subject *user = snapshot_user(s, r->username);
	bool valid = subject_is_valid(user, now_ms) && user->password_hash &&
		strcmp(user->password_hash, r->password_hash) == 0 && r->expires_at > now_ms / 1000;
	if (!valid)
		forget(r);
	return valid ? user : NULL;
}

static void remember(struct identity *identity, const char *token, size_t length, const struct subject *user,
	int64_t expires_at)
{
	struct remembered *r = slot(identity, token, length);
	if (length > REMEMBERED_TOKEN_MAX || !identity->secret)
		return;
	forget(r);
	r->token = malloc(length);
	r->username = strdup(user->id);
	r->password_hash = strdup(user->password_hash);
	if (!r->token || !r->username || !r->password_hash) {
		forget(r);
		return;
	}
	memcpy(r->token, token, length);
	r->length = length;
	r->expires_at = expires_at;
}

/* ---- the decision ---- */

enum worth { WORTHLESS, DISABLED, VALID };

static enum worth weigh_client_key(const struct snapshot *s, const char *text, size_t length, int64_t now_ms,
	const struct subject **subject)
{
	uint8_t sha256[32];
	secrets_sha256(text, length, sha256);
	const struct subject *c = snapshot_client_by_sha256(s, sha256);
	if (!c || subject_has_expired(c, now_ms))
		return WORTHLESS;
	*subject = c;
	return c->enabled ? VALID : DISABLED;
}

static enum worth weigh(struct identity *identity, const struct snapshot *s, const char *text, size_t length,
	int64_t now_ms, const struct subject **subject)
{
	if (!length || length > TOKEN_MAX)
		return WORTHLESS;
	if (length > sizeof key_prefix && memcmp(text, key_prefix, sizeof key_prefix - 1) == 0)
		return weigh_client_key(s, text, length, now_ms, subject);
	if (memchr(text, '.', length)) {
		int64_t expires_at = 0;
		const struct subject *user = recall(identity, s, text, length, now_ms);
		if (!user) {
			user = identity_token_verify(s, text, length, now_ms, &expires_at);
			if (user)
				remember(identity, text, length, user, expires_at);
		}
		*subject = user;
		if (user)
			return VALID;
	}
	/* A key_sha256 that was given may be that of any text. */
	return weigh_client_key(s, text, length, now_ms, subject);
}

/* The best of the values of all key= parameters: the first valid one, else a disabled one. */
static enum worth weigh_query(struct identity *identity, const struct snapshot *s, const char *query, size_t length,
	int64_t now_ms, const struct subject **subject)
{
	const char *p = query, *end = query + length, *value;
	enum worth best = WORTHLESS;
	for (; p < end && best != VALID; p++) {
		const char *stop = memchr(p, '&', (size_t)(end - p));
		char decoded[TOKEN_MAX];
		size_t size = 0, used;
		if (!stop)
			stop = end;
		bool key = is_key(p, stop, &value);
		for (p = value; key && p < stop && size < sizeof decoded; p += used)
			decoded[size++] = (char)query_byte(p, stop, &used);
		if (key && p == stop) {
			enum worth worth = weigh(identity, s, decoded, size, now_ms, subject);
			best = worth > best ? worth : best;
		}
		p = stop;
	}
	return best;
}

static enum worth weigh_credential(struct identity *identity, const struct snapshot *s,
	const struct identity_credential *c, int64_t now_ms, const struct subject **subject)
{
	const char *text = c->text;
	size_t length = c->length;
	if (c->place == IDENTITY_QUERY)
		return weigh_query(identity, s, text, length, now_ms, subject);
	if (c->place == IDENTITY_AUTHORIZATION && !bearer(&text, &length))
		return WORTHLESS;
	return weigh(identity, s, text, length, now_ms, subject);
}

static bool may_use(const struct subject *subject, const struct mapping *m)
{
	for (size_t i = 0; i < subject->mapping_count; i++)
		if (strcmp(subject->mappings[i], m->prefix) == 0)
			return true;
	return subject->mapping_count == 0;
}

enum problem_id identity_decide(struct identity *identity, const struct snapshot *s, const struct mapping *m,
	const struct identity_credential *credentials, size_t count, int64_t now_ms, const struct subject **subject)
{
	bool disabled = false;
	for (int place = 0; place < IDENTITY_NO_PLACE; place++)
		for (size_t i = 0; i < count; i++) {
			const struct subject *found = NULL;
			if ((int)credentials[i].place != place)
				continue;
			enum worth worth = weigh_credential(identity, s, &credentials[i], now_ms, &found);
			if (worth == VALID) {
				*subject = found;
				return may_use(found, m) ? PROBLEM_NONE : PROBLEM_NOT_ALLOWED;
			}
			disabled |= worth == DISABLED;
		}
	return disabled ? PROBLEM_NOT_ALLOWED : PROBLEM_INVALID_CREDENTIALS;
}
