/* identity_token: tokens of users, JWT by libjwt. Stateless, any thread.
 *
 * The algorithm is fixed on both sides: libjwt checks the signature by the algorithm that the token
 * names, so whatever it says is well is asked again whether it was HS256, written so (RFC 7515 4.1.1), and
 * asks for no extension (4.1.11). Who has the secret may sign tokens too: `sub` and `exp` are enough. Ours say
 * with a mark in `pw` which password they are of. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jwt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/check.h"
#include "path/identity.h"

void identity_password_mark(const char *secret, const char *password_hash, char mark[IDENTITY_MARK_LENGTH + 1])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned size = 0;
	CHECK(HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)password_hash, strlen(password_hash),
			  digest, &size) &&
		size == 32);
	for (int i = 0; i < IDENTITY_MARK_LENGTH / 2; i++)
		snprintf(mark + 2 * i, 3, "%02x", digest[i]);
}

int64_t identity_token_end(const struct subject *user, int64_t wanted)
{
	int64_t last = user->expires_at_ms / 1000;
	return user->expires_at_ms && last < wanted ? last : wanted;
}

char *identity_token_issue(const char *secret, const struct subject *user, int64_t issued_at, int64_t expires_at)
{
	char mark[IDENTITY_MARK_LENGTH + 1], *token = NULL;
	jwt_t *jwt = NULL;
	if (!user->password_hash || jwt_new(&jwt) != 0)
		return NULL;
	identity_password_mark(secret, user->password_hash, mark);
	if (jwt_set_alg(jwt, JWT_ALG_HS256, (const unsigned char *)secret, (int)strlen(secret)) != 0 ||
		jwt_add_grant(jwt, "sub", user->id) != 0 || jwt_add_grant(jwt, "pw", mark) != 0 ||
		jwt_add_grant_int(jwt, "iat", (long)issued_at) != 0 || jwt_add_grant_int(jwt, "exp", (long)expires_at) != 0)
		goto out;
	token = jwt_encode_str(jwt);
out:
	jwt_free(jwt);
	return token;
}

/* A time, in whole seconds, though it may have a fraction (RFC 7519, NumericDate); 0 where it is none or missing. */
static int64_t time_of(jwt_t *jwt, const char *name)
{
	char *text = jwt_get_grants_json(jwt, name), *end = text;
	double value = text ? strtod(text, &end) : 0;
	bool is_number = text && end != text && !*end && value > 0 && value < 9e15;
	free(text);
	return is_number ? (int64_t)value : 0;
}

static bool is_hs256(jwt_t *jwt)
{
	const char *alg = jwt_get_header(jwt, "alg");
	char *extensions = jwt_get_headers_json(jwt, "crit");
	bool plain = !extensions;
	free(extensions);
	return plain && alg && strcmp(alg, "HS256") == 0 && jwt_get_alg(jwt) == JWT_ALG_HS256;
}

/* Whether it says nothing of a password, or is of the one that holds. */
static bool has_right_mark(const struct snapshot *s, const struct subject *user, jwt_t *jwt)
{
	char mark[IDENTITY_MARK_LENGTH + 1];
	const char *pw = jwt_get_grant(jwt, "pw");
	char *any = pw ? NULL : jwt_get_grants_json(jwt, "pw");
	bool is_absent = !pw && !any;
	free(any);
	if (is_absent || !pw)
		return is_absent;
	identity_password_mark(snapshot_jwt_secret(s), user->password_hash, mark);
	return strlen(pw) == IDENTITY_MARK_LENGTH && CRYPTO_memcmp(pw, mark, IDENTITY_MARK_LENGTH) == 0;
}

static const struct subject *user_of(const struct snapshot *s, jwt_t *jwt, int64_t now_ms, int64_t *expires_at)
{
	const char *sub = jwt_get_grant(jwt, "sub");
	int64_t exp = time_of(jwt, "exp"), nbf = time_of(jwt, "nbf");
	if (!is_hs256(jwt) || !sub || exp <= now_ms / 1000 || nbf > now_ms / 1000)
		return NULL;
	const struct subject *user = snapshot_user(s, sub);
	if (!subject_is_valid(user, now_ms) || !user->password_hash || !has_right_mark(s, user, jwt))
		return NULL;
	if (expires_at)
		*expires_at = exp;
	return user;
}

/* Three parts of base64url and nothing else: what libjwt's decoder would skip is not a token. */
static bool is_compact(const char *token, size_t length)
{
	int dots = 0;
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)token[i], letter = c | 0x20;
		if (c == '.')
			dots++;
		else if (!(letter >= 'a' && letter <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_')
			return false;
	}
	return dots == 2;
}

const struct subject *identity_token_verify(const struct snapshot *s, const char *token, size_t length,
	int64_t now_ms, int64_t *expires_at)
{
	const struct subject *user = NULL;
	const char *secret = snapshot_jwt_secret(s);
	jwt_t *jwt = NULL;
	char *text = is_compact(token, length) && *secret ? malloc(length + 1) : NULL;
	if (text)
		*(char *)mempcpy(text, token, length) = 0;
	if (text && jwt_decode(&jwt, text, (const unsigned char *)secret, (int)strlen(secret)) == 0)
		user = user_of(s, jwt, now_ms, expires_at);
	jwt_free(jwt);
	free(text);
	return user;
}
