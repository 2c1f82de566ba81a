/* certificates: a handshake with what is current; swaps; failures that keep the old one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/certificates.h"
#include "ops/self_signed.h"
#include "state/settings.h"
#include "files_fixture.h"

static char directory[] = "/tmp/apiproxy-tls-XXXXXX";
static char none[] = "";
static char names[] = "one.example, two.example";
static struct settings settings;

static char *in_directory(const char *name)
{
	return check_printf("%s/%s", directory, name);
}

static int enter(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	settings = (struct settings){.server_data_dir = directory,
		.tls_cert = none,
		.tls_key = none,
		.acme_domains = none,
		.tls_enabled = true,
		.tls_self_signed = true};
	log_configure(LOG_ERROR + 1, false);
	return 0;
}

static int leave(void **state)
{
	(void)state;
	return files_remove(directory);
}

/* Shakes hands in memory; *serial (malloc) is the certificate's. False: no handshake. */
static bool shake_hands(const char *alpn, size_t alpn_length, int version, char **serial, char *chosen)
{
	SSL_CTX *server_context = certificates_current(), *client_context = SSL_CTX_new(TLS_client_method());
	assert_non_null(server_context);
	SSL *server = SSL_new(server_context), *client = SSL_new(client_context);
	BIO *one, *other;
	BIO_new_bio_pair(&one, 0, &other, 0);
	SSL_set_bio(server, one, one);
	SSL_set_bio(client, other, other);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
	SSL_set_min_proto_version(client, version);
	SSL_set_max_proto_version(client, version);
	if (alpn)
		SSL_set_alpn_protos(client, (const unsigned char *)alpn, (unsigned)alpn_length);
	for (int i = 0; i < 10 && !(SSL_is_init_finished(server) && SSL_is_init_finished(client)); i++) {
		SSL_do_handshake(client);
		SSL_do_handshake(server);
	}
	bool ok = SSL_is_init_finished(server) && SSL_is_init_finished(client);
	if (ok && serial) {
		X509 *certificate = SSL_get1_peer_certificate(client);
		*serial = i2s_ASN1_INTEGER(NULL, X509_get_serialNumber(certificate));
		X509_free(certificate);
	}
	if (chosen) {
		const unsigned char *protocol;
		unsigned length;
		SSL_get0_alpn_selected(client, &protocol, &length);
		sprintf(chosen, "%.*s", (int)length, (const char *)protocol);
	}
	SSL_free(server);
	SSL_free(client);
	SSL_CTX_free(client_context);
	SSL_CTX_free(server_context);
	return ok;
}

static char *current_serial(void)
{
	char *serial = NULL;
	assert_true(shake_hands(NULL, 0, TLS1_3_VERSION, &serial, NULL));
	return serial;
}

static void expect_serial(const char *expected, bool equal)
{
	char *serial = current_serial();
	assert_int_equal(strcmp(serial, expected) == 0, equal);
	OPENSSL_free(serial);
}

static void test_protocols(void **state)
{
	char chosen[32];
	(void)state;
	assert_true(certificates_init(&settings));
	assert_true(shake_hands(NULL, 0, TLS1_3_VERSION, NULL, chosen));
	assert_string_equal(chosen, "");
	assert_true(shake_hands("\x02h2\x08http/1.1", 12, TLS1_2_VERSION, NULL, chosen));
	assert_string_equal(chosen, "http/1.1");
	assert_false(shake_hands("\x02h2", 3, TLS1_3_VERSION, NULL, NULL));
	assert_false(shake_hands(NULL, 0, TLS1_1_VERSION, NULL, NULL));
	certificates_fini();
	assert_null(certificates_current());
	assert_true(certificates_reload()); /* nothing to do where TLS is off */
}

static void test_self_signed_is_kept(void **state)
{
	struct stat status;
	(void)state;
	assert_true(certificates_init(&settings));
	char *first = current_serial(), *path = in_directory("tls/key.pem");
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	free(path);
	certificates_fini();
	assert_true(certificates_init(&settings));
	expect_serial(first, true);
	certificates_fini();
	settings.acme_domains = names; /* a name it lacks: another one is made */
	assert_true(certificates_init(&settings));
	expect_serial(first, false);
	SSL_CTX *context = certificates_current();
	X509 *certificate = SSL_CTX_get0_certificate(context);
	assert_int_equal(X509_check_host(certificate, "two.example", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(certificate, "localhost", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(certificate, "three.example", 0, 0, NULL), 0);
	assert_int_equal(X509_check_ip_asc(certificate, "127.0.0.1", 0), 1);
	assert_int_equal(X509_check_ip_asc(certificate, "::1", 0), 1);
	SSL_CTX_free(context);
	settings.acme_domains = none;
	certificates_fini();
	OPENSSL_free(first);
}

static void test_reload(void **state)
{
	char *why = NULL, *a = in_directory("a"), *b = in_directory("b");
	(void)state;
	assert_true(self_signed_ensure(a, "", &why));
	assert_true(self_signed_ensure(b, "", &why));
	settings.tls_cert = in_directory("a/cert.pem");
	settings.tls_key = in_directory("a/key.pem");
	char *other_cert = in_directory("b/cert.pem"), *other_key = in_directory("b/key.pem");
	assert_true(certificates_init(&settings));
	char *first = current_serial();
	unsigned generation = certificates_generation();

	assert_int_equal(rename(other_cert, settings.tls_cert), 0); /* with the key of the other */
	assert_false(certificates_reload());
	assert_int_equal(certificates_generation(), generation);
	expect_serial(first, true);
	assert_int_equal(rename(other_key, settings.tls_key), 0);
	SSL_CTX *kept = certificates_current();
	assert_true(certificates_reload());
	assert_int_not_equal(certificates_generation(), generation);
	expect_serial(first, false);
	assert_non_null(SSL_CTX_get0_certificate(kept)); /* who holds the old one may use it */
	SSL_CTX_free(kept);

	char *second = current_serial();
	assert_int_equal(unlink(settings.tls_cert), 0);
	assert_false(certificates_reload());
	expect_serial(second, true);
	certificates_fini();
	assert_false(certificates_init(&settings));
	OPENSSL_free(first);
	OPENSSL_free(second);
	free(other_cert);
	free(other_key);
	free(settings.tls_cert);
	free(settings.tls_key);
	settings.tls_cert = settings.tls_key = none;
	free(a);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_protocols), cmocka_unit_test(test_self_signed_is_kept),
		cmocka_unit_test(test_reload)};
	return cmocka_run_group_tests_name("certificates", tests, enter, leave);
}
