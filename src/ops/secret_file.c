/* secret_file: secrets of this installation. Boot only, one thread.
 *
 * A new secret is written to a file of its own, flushed, and linked to its name: a reader sees a
 * whole secret or none, and of several processes one wins and all use its secret. */
#include "ops/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "state/secrets.h"
#include "state/settings.h"

#define MODULE "secrets"

enum { SECRET_FILE_BYTES = 4096 };

bool data_dir_make(const char *path)
{
	struct stat status;
	char *partial = check_strdup(path);
	bool ok = true;
	for (char *p = partial + 1; ok; p++) {
		char kept = *p;
		if (kept && kept != '/')
			continue;
		*p = 0;
		ok = mkdir(partial, 0700) == 0 || errno == EEXIST || (kept && stat(partial, &status) == 0);
		*p = kept;
		if (!kept)
			break;
	}
	if (ok && (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))) {
		ok = false;
		errno = ENOTDIR;
	}
	if (!ok)
		log_error(MODULE, "directory %s cannot be made: %s", path, strerror(errno));
	free(partial);
	return ok;
}

static bool token_is_valid(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p <= ' ' || *p >= 0x7f)
			return false;
	return *text != 0;
}

static bool master_key_is_valid(const char *text)
{
	return strlen(text) == 64 && strspn(text, "0123456789abcdefABCDEF") == 64;
}

static bool write_all(int fd, const char *text)
{
	size_t length = strlen(text);
	return write(fd, text, length) == (ssize_t)length && write(fd, "\n", 1) == 1 && fsync(fd) == 0;
}

/* False: errno; EEXIST where another process was first. */
static bool create_file(const char *path, const char *value)
{
	char *fresh = check_printf("%s.XXXXXX", path);
	int fd = mkostemp(fresh, O_CLOEXEC); /* mode 0600 */
	bool ok = fd >= 0 && write_all(fd, value) && link(fresh, path) == 0;
	int error = errno;
	if (fd >= 0) {
		close(fd);
		unlink(fresh);
	}
	free(fresh);
	errno = error;
	return ok;
}

/* NULL: errno. Without the line break at the end. */
static char *read_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) == 0 && (status.st_mode & 077)) {
		log_warning(MODULE, "%s was open to other users; its mode is 0600 now", path);
		if (fchmod(fd, 0600) != 0)
			log_warning(MODULE, "%s: %s", path, strerror(errno));
	}
	char *text = check_calloc(SECRET_FILE_BYTES + 1, 1);
	ssize_t length = read(fd, text, SECRET_FILE_BYTES);
	int error = errno;
	close(fd);
	if (length < 0) {
		free(text);
		errno = error;
		return NULL;
	}
	while (length && strchr("\r\n\t ", text[length - 1]))
		text[--length] = 0;
	return text;
}

struct secret_file {
	const char *name;
	char *(*generate)(void);
	bool (*is_valid)(const char *text);
	const char *accepted;
};

static char *generate_master_key(void)
{
	uint8_t bytes[SECRETS_KEY_BYTES];
	char *text = check_calloc(1, SECRETS_HEX_CHARS + 1);
	secrets_random(bytes, sizeof bytes);
	secrets_to_hex(bytes, text);
	explicit_bzero(bytes, sizeof bytes);
	return text;
}

static const struct secret_file admin_token = {
	"admin_token",
	secrets_new_token,
	token_is_valid,
	"printable ASCII without spaces",
};
static const struct secret_file master_key = {
	"master_key",
	generate_master_key,
	master_key_is_valid,
	"64 hex digits",
};

static bool load(const char *data_dir, const struct secret_file *file, struct secret *out)
{
	if (!data_dir_make(data_dir))
		return false;
	out->path = check_printf("%s/%s", data_dir, file->name);
	out->value = read_file(out->path);
	if (!out->value && errno == ENOENT) {
		char *fresh = file->generate();
		out->created = create_file(out->path, fresh);
		int error = errno;
		secrets_free(fresh);
		errno = error;
		if (out->created || errno == EEXIST)
			out->value = read_file(out->path);
	}
	if (!out->value)
		log_error(MODULE, "%s: %s", out->path, strerror(errno));
	else if (!file->is_valid(out->value))
		log_error(MODULE, "%s: bad content; accepted: %s", out->path, file->accepted);
	else
		return true;
	secret_fini(out);
	return false;
}

bool admin_token_load(const struct settings *s, struct secret *out)
{
	*out = (struct secret){0};
	if (*s->admin_token) {
		out->value = check_strdup(s->admin_token);
		return true;
	}
	if (!load(s->server_data_dir, &admin_token, out))
		return false;
	char *whole = realpath(out->path, NULL);
	log_info(MODULE, "the admin token is %s in %s", out->created ? "new," : "kept", whole ? whole : out->path);
	if (!log_enabled(LOG_INFO)) /* who starts it must know where it is */
		fprintf(stderr, "apiproxy: the admin token is in %s\n", whole ? whole : out->path);
	free(whole);
	return true;
}

bool master_key_load(const struct settings *s, uint8_t key[32])
{
	struct secret secret = {0};
	if (*s->secrets_master_key) {
		CHECK(secrets_from_hex(s->secrets_master_key, key)); /* settings have looked */
		return true;
	}
	if (!load(s->server_data_dir, &master_key, &secret))
		return false;
	if (secret.created)
		log_info(MODULE, "a new master key is in %s: keep a copy, vendor keys cannot be read without it",
			secret.path);
	CHECK(secrets_from_hex(secret.value, key));
	secret_fini(&secret);
	return true;
}

void secret_fini(struct secret *secret)
{
	if (secret->value)
		explicit_bzero(secret->value, strlen(secret->value));
	free(secret->value);
	free(secret->path);
	*secret = (struct secret){0};
}
