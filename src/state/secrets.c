/* secrets: thin use of OpenSSL and crypt(3). No state; any thread that may wait. */
#include "state/secrets.h"

#include <crypt.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "base/check.h"
#include "base/text.h"

enum { NONCE_BYTES = 12, TAG_BYTES = 16 };
static const char sealed_prefix[] = "v1.";

void secrets_random(void *bytes, size_t count)
{
	CHECK(count <= INT_MAX && RAND_bytes(bytes, (int)count) == 1);
}

void secrets_free(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

/* ---- base64url without padding (RFC 4648, section 5) ---- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void encode(const uint8_t *bytes, size_t count, char *text)
{
	uint32_t bits = 0;
	unsigned held = 0;
	for (size_t i = 0; i < count; i++) {
		bits = bits << 8 | bytes[i];
		for (held += 8; held >= 6; held -= 6)
			*text++ = alphabet[bits >> (held - 6) & 63];
	}
	if (held)
		*text++ = alphabet[bits << (6 - held) & 63];
	*text = '\0';
}

static bool decode(const char *text, uint8_t *bytes, size_t *count)
{
	uint32_t bits = 0;
	unsigned held = 0;
	*count = 0;
	for (; *text; text++) {
		const char *digit = strchr(alphabet, *text);
		if (!digit)
			return false;
		bits = bits << 6 | (uint32_t)(digit - alphabet);
		held += 6;
		if (held >= 8) {
			held -= 8;
			bytes[(*count)++] = (uint8_t)(bits >> held);
		}
	}
	return true;
}

/* ---- vendor keys at rest: AES-256-GCM, bound to id and pool ---- */

static bool add_names(EVP_CIPHER_CTX *context, bool sealing, const char *id, const char *pool)
{
	/* Neither holds a NUL, so that the two cannot be told apart wrongly. */
	char *names = check_printf("%s%c%s", id, '\0', pool);
	int length = (int)(strlen(id) + 1 + strlen(pool)), done;
	bool ok =
		(sealing ? EVP_EncryptUpdate : EVP_DecryptUpdate)(context, NULL, &done, (unsigned char *)names, length) == 1;
	free(names);
	return ok;
}

char *secrets_seal(const uint8_t master[SECRETS_KEY_BYTES], const char *id, const char *pool, const char *plain)
{
	int length = (int)strlen(plain), done, last;
	size_t size = NONCE_BYTES + (size_t)length + TAG_BYTES;
	uint8_t *sealed = check_calloc(1, size);
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	secrets_random(sealed, NONCE_BYTES);
	CHECK(context && EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, master, sealed) == 1);
	CHECK(add_names(context, true, id, pool));
	CHECK(EVP_EncryptUpdate(context, sealed + NONCE_BYTES, &done, (const unsigned char *)plain, length) == 1);
	CHECK(EVP_EncryptFinal_ex(context, sealed + NONCE_BYTES + done, &last) == 1 && done + last == length);
	CHECK(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, sealed + NONCE_BYTES + length) == 1);
	EVP_CIPHER_CTX_free(context);
	char *text = check_calloc(1, sizeof(sealed_prefix) + (size * 4 + 2) / 3);
	strcpy(text, sealed_prefix);
	encode(sealed, size, text + strlen(sealed_prefix));
	free(sealed);
	return text;
}

static bool decrypt(const uint8_t *master, const char *id, const char *pool, uint8_t *sealed, size_t size,
	char *plain)
{
	int length = (int)(size - NONCE_BYTES - TAG_BYTES), done = 0, last = 0;
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	CHECK(context);
	bool ok = EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, master, sealed) == 1 &&
		add_names(context, false, id, pool) &&
		EVP_DecryptUpdate(context, (unsigned char *)plain, &done, sealed + NONCE_BYTES, length) == 1 &&
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, sealed + NONCE_BYTES + length) == 1 &&
		EVP_DecryptFinal_ex(context, (unsigned char *)plain + done, &last) == 1;
	EVP_CIPHER_CTX_free(context);
	return ok;
}

char *secrets_open(const uint8_t master[SECRETS_KEY_BYTES], const char *id, const char *pool, const char *sealed)
{
	size_t size = 0;
	if (strncmp(sealed, sealed_prefix, strlen(sealed_prefix)) != 0 || strlen(sealed) > 65536)
		return NULL;
	uint8_t *bytes = check_calloc(1, strlen(sealed) + 1);
	char *plain = NULL;
	if (decode(sealed + strlen(sealed_prefix), bytes, &size) && size > NONCE_BYTES + TAG_BYTES) {
		plain = check_calloc(1, size);
		if (!decrypt(master, id, pool, bytes, size, plain)) {
			explicit_bzero(plain, size);
			free(plain);
			plain = NULL;
		}
	}
	free(bytes);
	return plain;
}

void secrets_mark(const uint8_t master[SECRETS_KEY_BYTES], const char *plain, char mark[SECRETS_MARK_CHARS + 1])
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	char hex[SECRETS_HEX_CHARS + 1];
	unsigned size = 0;
	CHECK(HMAC(EVP_sha256(), master, SECRETS_KEY_BYTES, (const unsigned char *)plain, strlen(plain), digest, &size) &&
		size == SECRETS_HEX_CHARS / 2);
	secrets_to_hex(digest, hex);
	snprintf(mark, SECRETS_MARK_CHARS + 1, "%.*s", SECRETS_MARK_CHARS, hex);
}

/* ---- passwords ---- */

char *secrets_hash_password(const char *password)
{
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];
	struct crypt_data *data = check_calloc(1, sizeof(*data)); /* 32 KiB: not for a stack */
	CHECK(crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof(setting)));
	const char *hash = crypt_rn(password, setting, data, sizeof(*data));
	CHECK(hash && hash[0] == '$');
	char *copy = check_strdup(hash);
	explicit_bzero(data, sizeof(*data));
	free(data);
	return copy;
}

bool secrets_check_password(const char *password, const char *hash)
{
	struct crypt_data *data = check_calloc(1, sizeof(*data));
	const char *again = crypt_rn(password, hash, data, sizeof(*data));
	size_t length = strlen(hash);
	bool same = again && again[0] != '*' && strlen(again) == length && CRYPTO_memcmp(again, hash, length) == 0;
	explicit_bzero(data, sizeof(*data));
	free(data);
	return same;
}

/* ---- new keys, digests ---- */

static char *random_text(const char *prefix)
{
	uint8_t bytes[SECRETS_KEY_BYTES];
	char *text = check_calloc(1, strlen(prefix) + 44);
	secrets_random(bytes, sizeof(bytes));
	strcpy(text, prefix);
	encode(bytes, sizeof(bytes), text + strlen(prefix));
	explicit_bzero(bytes, sizeof(bytes));
	return text;
}

char *secrets_new_client_key(void)
{
	return random_text("sk-ap-");
}

char *secrets_new_token(void)
{
	return random_text("");
}

char *secrets_new_id(void)
{
	uint64_t number;
	secrets_random(&number, sizeof(number));
	return check_printf("%016llx", (unsigned long long)number);
}

/* Fetched once, for the life of the process: OpenSSL looks a digest up under locks each time it is asked. */
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;

static void fetch_sha256(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	CHECK(sha256);
}

void secrets_sha256(const void *bytes, size_t count, uint8_t digest[32])
{
	unsigned size = 0;
	pthread_once(&sha256_once, fetch_sha256);
	CHECK(EVP_Digest(bytes, count, digest, &size, sha256, NULL) == 1 && size == 32);
}

void secrets_to_hex(const uint8_t digest[32], char text[SECRETS_HEX_CHARS + 1])
{
	for (int i = 0; i < 32; i++) {
		text[2 * i] = "0123456789abcdef"[digest[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
	}
	text[SECRETS_HEX_CHARS] = '\0';
}

bool secrets_from_hex(const char *text, uint8_t digest[32])
{
	for (int i = 0; i < 32; i++) {
		int high = text_hex_digit(text[2 * i]);
		int low = high < 0 ? -1 : text_hex_digit(text[2 * i + 1]);
		if (low < 0)
			return false;
		digest[i] = (uint8_t)(high << 4 | low);
	}
	return text[SECRETS_HEX_CHARS] == '\0';
}
