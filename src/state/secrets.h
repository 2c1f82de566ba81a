/* secrets: keys and passwords at rest. Random bytes, hashes and AES-256-GCM from OpenSSL, passwords
 * with crypt(3) yescrypt. Texts returned are the caller's to free (wipe first: secrets_free). */
#ifndef APIPROXY_STATE_SECRETS_H
#define APIPROXY_STATE_SECRETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SECRETS_KEY_BYTES = 32, SECRETS_HEX_CHARS = 64 };

void secrets_random(void *bytes, size_t count); /* dies if the system has none */
void secrets_free(char *text);                  /* wipes, frees; NULL is fine */

/* A vendor key sealed for one id and pool: "v1." and base64url of nonce, ciphertext and tag. */
char *secrets_seal(const uint8_t master[SECRETS_KEY_BYTES], const char *id, const char *pool, const char *plain);
char *secrets_open(const uint8_t master[SECRETS_KEY_BYTES], const char *id, const char *pool, const char *sealed); /* NULL: not with this key, id and pool */

enum { SECRETS_MARK_CHARS = 8 };
/* Hex digits that tell two vendor keys apart, the same on all nodes; say nothing of the key without the master key. */
void secrets_mark(const uint8_t master[SECRETS_KEY_BYTES], const char *plain, char mark[SECRETS_MARK_CHARS + 1]);

/* Tens of milliseconds each: never on a worker's thread. */
char *secrets_hash_password(const char *password);                     /* $y$… */
bool secrets_check_password(const char *password, const char *hash);   /* any scheme that crypt(3) knows */

char *secrets_new_client_key(void); /* sk-ap- and 43 base64url characters: 256 random bits */
char *secrets_new_token(void);      /* 43 base64url characters */
char *secrets_new_id(void);         /* 16 lower-case hex digits */

void secrets_sha256(const void *bytes, size_t count, uint8_t digest[32]);
void secrets_to_hex(const uint8_t digest[32], char text[SECRETS_HEX_CHARS + 1]);
bool secrets_from_hex(const char *text, uint8_t digest[32]); /* exactly 64 hex digits, any case */

#endif
