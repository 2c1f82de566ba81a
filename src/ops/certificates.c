/* certificates: which files, and the current context.
 *
 * current and its generation change under one lock, held for a pointer's copy only; contexts are
 * built outside of it. A context is never changed once it is current: connections that have the
 * old one finish with it. Reloads (main thread, acme's thread) exclude each other. */
#include "ops/certificates.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/self_signed.h"
#include "state/journal.h"
#include "state/settings.h"

#define MODULE "tls"

static const struct settings *settings;
static pthread_mutex_t reload_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t current_lock = PTHREAD_MUTEX_INITIALIZER;
static SSL_CTX *current;
static _Atomic unsigned generation;

/* RFC 7301; nothing else is spoken here. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
	unsigned in_length, void *argument)
{
	static const unsigned char spoken[] = "\x08http/1.1";
	(void)ssl;
	(void)argument;
	unsigned char *chosen;
	if (SSL_select_next_proto(&chosen, out_length, spoken, sizeof spoken - 1, in, in_length) !=
		OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* Nobody is there to type a pass phrase. */
static int on_pass_phrase(char *out, int size, int writing, void *argument)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)argument;
	return 0;
}

static char *openssl_error(const char *what, const char *accepted)
{
	unsigned long error = ERR_peek_error();
	const char *reason = ERR_SYSTEM_ERROR(error) ? strerror(ERR_GET_REASON(error)) : ERR_reason_error_string(error);
	char *text = check_printf("%s: %s; accepted: %s", what, reason ? reason : "unknown error", accepted);
	ERR_clear_error();
	return text;
}

static void warn_of_dates(SSL_CTX *context, const char *cert_path)
{
	const X509 *certificate = SSL_CTX_get0_certificate(context);
	if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
		journal_add(MODULE, "%s has expired", cert_path);
	else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		journal_add(MODULE, "%s is not valid yet", cert_path);
}

/* NULL: context has both. Else what is wrong (malloc) with *path, one of the two. */
static char *load(SSL_CTX *context, const char *cert_path, const char *key_path, const char **path)
{
	static const char accepts_cert[] = "a certificate chain, PEM";
	static const char accepts_key[] = "the certificate's private key, PEM, without a pass phrase";
	ERR_clear_error();
	SSL_CTX_set_default_passwd_cb(context, on_pass_phrase);
	*path = cert_path;
	if (SSL_CTX_use_certificate_chain_file(context, cert_path) != 1)
		return openssl_error("no usable certificate", accepts_cert);
	*path = key_path;
	if (SSL_CTX_use_PrivateKey_file(context, key_path, SSL_FILETYPE_PEM) != 1)
		return openssl_error("no usable private key for the certificate", accepts_key);
	if (SSL_CTX_check_private_key(context) != 1)
		return openssl_error("not the key of the certificate", accepts_key);
	return NULL;
}

/* NULL: *why says what (malloc). */
static SSL_CTX *build(const char *cert_path, const char *key_path, char **why)
{
	static const unsigned char session_context[] = "apiproxy";
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	CHECK(context);
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context,
		SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(context,
		SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets: the client keeps the session */
	SSL_CTX_set_session_id_context(context, session_context, sizeof session_context - 1);
	SSL_CTX_set_alpn_select_cb(context, on_alpn, NULL);
	const char *path;
	char *fault = load(context, cert_path, key_path, &path);
	if (!fault) {
		warn_of_dates(context, cert_path);
		return context;
	}
	*why = check_printf("%s: %s", path, fault);
	free(fault);
	SSL_CTX_free(context);
	return NULL;
}

static SSL_CTX *build_self_signed(char **why)
{
	char *directory = check_printf("%s/tls", settings->server_data_dir);
	char *cert_path = check_printf("%s/cert.pem", directory), *key_path = check_printf("%s/key.pem", directory);
	SSL_CTX *context =
		self_signed_ensure(directory, settings->acme_domains, why) ? build(cert_path, key_path, why) : NULL;
	free(directory);
	free(cert_path);
	free(key_path);
	return context;
}

char *certificates_acme_directory(const struct settings *s)
{
	const char *host = s->acme_directory_url + strlen("https://");
	int length = (int)strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:");
	return check_printf("%s/acme/%.*s", s->server_data_dir, length, host);
}

/* Where uacme keeps them: by the first name. NULL, without *why: none yet. */
static SSL_CTX *build_acme(char **why)
{
	const char *first = settings->acme_domains + strspn(settings->acme_domains, " \t");
	int length = (int)strcspn(first, ", \t");
	char *directory = certificates_acme_directory(settings);
	char *cert_path = check_printf("%s/%.*s/cert.pem", directory, length, first);
	char *key_path = check_printf("%s/private/%.*s/key.pem", directory, length, first);
	SSL_CTX *context = access(cert_path, F_OK) == 0 ? build(cert_path, key_path, why) : NULL;
	free(directory);
	free(cert_path);
	free(key_path);
	return context;
}

static SSL_CTX *build_from_settings(char **why)
{
	if (*settings->tls_cert)
		return build(settings->tls_cert, settings->tls_key, why);
	SSL_CTX *context = settings->acme_enabled ? build_acme(why) : NULL;
	if (context || *why)
		return context;
	return build_self_signed(why);
}

static void swap(SSL_CTX *take_context)
{
	pthread_mutex_lock(&current_lock);
	SSL_CTX *old = current;
	current = take_context;
	pthread_mutex_unlock(&current_lock);
	atomic_fetch_add(&generation, 1);
	SSL_CTX_free(old);
}

char *certificates_check(const struct settings *s, const char **key)
{
	const char *path;
	if (!s->tls_enabled || !*s->tls_cert)
		return NULL;
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	CHECK(context);
	char *fault = load(context, s->tls_cert, s->tls_key, &path);
	*key = path == s->tls_cert ? "cert" : "key";
	SSL_CTX_free(context);
	return fault;
}

bool certificates_init(const struct settings *s)
{
	char *why = NULL;
	settings = s;
	SSL_CTX *context = build_from_settings(&why);
	if (!context && s->acme_enabled && why) { /* a broken one of acme's: it will get another */
		journal_add(MODULE, "%s", why);
		free(why);
		why = NULL;
		context = build_self_signed(&why);
	}
	if (context)
		swap(context);
	else
		log_error(MODULE, "%s", why);
	free(why);
	return context != NULL;
}

bool certificates_reload(void)
{
	char *why = NULL;
	if (!settings)
		return true; /* TLS is off */
	pthread_mutex_lock(&reload_lock);
	SSL_CTX *context = build_from_settings(&why);
	if (context)
		swap(context);
	pthread_mutex_unlock(&reload_lock);
	if (context)
		log_info(MODULE, "certificates were read again");
	else
		journal_add(MODULE, "%s; the certificate before stays in use", why);
	free(why);
	return context != NULL;
}

SSL_CTX *certificates_current(void)
{
	pthread_mutex_lock(&current_lock);
	SSL_CTX *context = current;
	if (context)
		SSL_CTX_up_ref(context);
	pthread_mutex_unlock(&current_lock);
	return context;
}

unsigned certificates_generation(void)
{
	return atomic_load(&generation);
}

void certificates_fini(void)
{
	swap(NULL);
	settings = NULL;
}
