/* secret_file: a secret that is given by a setting, or made once and kept in data_dir/NAME with
 * mode 0600 (data_dir 0700, made when missing). The secret itself is never logged.
 * Several processes that start at once agree on one secret. */
#ifndef APIPROXY_OPS_SECRET_FILE_H
#define APIPROXY_OPS_SECRET_FILE_H

#include <stdbool.h>
#include <stdint.h>

struct settings;

struct secret {
	char *value; /* NUL terminated, never logged */
	char *path;  /* the file it is kept in, NULL where a setting gave it */
	bool created; /* just now */
};

/* 43 characters of base64url, 256 bits. The path is logged. false: said in the log. */
bool admin_token_load(const struct settings *s, struct secret *out) __attribute__((warn_unused_result));
/* 64 hex digits, decoded. A file with anything else is an error, never overwritten. */
bool master_key_load(const struct settings *s, uint8_t key[32]) __attribute__((warn_unused_result));
void secret_fini(struct secret *secret); /* wipes */

/* data_dir and directories below it: made with mode 0700 when missing. false: logged. */
bool data_dir_make(const char *path) __attribute__((warn_unused_result));

#endif
