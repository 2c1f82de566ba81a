/* self_signed: made with OpenSSL, written beside and renamed. One caller at a time (certificates). */
#include "ops/self_signed.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/secret_file.h"

enum { VALID_SECONDS = 825 * 86400, RENEW_SECONDS = 30 * 86400, CLOCK_SKEW_SECONDS = 3600, SERIAL_BITS = 127 };

/* "localhost,HOST,names" without blanks and repetitions of localhost. */
static char *all_names(const char *names)
{
	char host[256] = "", *list;
	bool usable = gethostname(host, sizeof host - 1) == 0 && *host && strcmp(host, "localhost") != 0 &&
		strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == strlen(host);
	list = check_printf("localhost%s%s%s%s", usable ? "," : "", usable ? host : "", *names ? "," : "", names);
	char *out = list;
	for (const char *p = list; *p; p++)
		if (!isspace((unsigned char)*p))
			*out++ = *p;
	*out = 0;
	return list;
}

static bool covers(X509 *certificate, const char *names)
{
	char *list = check_strdup(names), *rest = list, *name;
	bool all = true;
	while ((name = strsep(&rest, ",")))
		all = all && (!*name || X509_check_host(certificate, name, 0, 0, NULL) == 1);
	free(list);
	return all;
}

static bool is_good(const char *cert_path, const char *key_path, const char *names)
{
	time_t soon = time(NULL) + RENEW_SECONDS;
	FILE *cert_file = fopen(cert_path, "re"), *key_file = fopen(key_path, "re");
	X509 *certificate = cert_file ? PEM_read_X509(cert_file, NULL, NULL, NULL) : NULL;
	EVP_PKEY *key = key_file ? PEM_read_PrivateKey(key_file, NULL, NULL, (void *)"") : NULL;
	bool good = certificate && key && X509_check_private_key(certificate, key) == 1 &&
		X509_cmp_time(X509_get0_notAfter(certificate), &soon) > 0 && covers(certificate, names);
	X509_free(certificate);
	EVP_PKEY_free(key);
	if (cert_file)
		fclose(cert_file);
	if (key_file)
		fclose(key_file);
	return good;
}

static bool add_extension(X509 *certificate, int kind, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
	bool ok = extension && X509_add_ext(certificate, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return ok;
}

static bool add_alternative_names(X509 *certificate, const char *names)
{
	char *list = check_strdup(names), *rest = list, *name;
	char *value = check_strdup("IP:127.0.0.1,IP:::1");
	while ((name = strsep(&rest, ","))) {
		char *longer = check_printf("%s%s%s", value, *name ? ",DNS:" : "", name);
		free(value);
		value = longer;
	}
	bool ok = add_extension(certificate, NID_subject_alt_name, value);
	free(value);
	free(list);
	return ok;
}

static bool set_serial(X509 *certificate)
{
	BIGNUM *number = BN_new();
	bool ok = number && BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
		BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
	BN_free(number);
	return ok;
}

static X509 *make(EVP_PKEY *key, const char *names)
{
	X509 *certificate = X509_new();
	X509_NAME *subject = certificate ? X509_get_subject_name(certificate) : NULL;
	bool ok = subject && X509_set_version(certificate, 2) == 1 && set_serial(certificate) &&
		X509_gmtime_adj(X509_getm_notBefore(certificate), -CLOCK_SKEW_SECONDS) &&
		X509_gmtime_adj(X509_getm_notAfter(certificate), VALID_SECONDS) &&
		X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)"apiproxy", -1, -1, 0) == 1 &&
		X509_set_issuer_name(certificate, subject) == 1 && X509_set_pubkey(certificate, key) == 1 &&
		add_extension(certificate, NID_basic_constraints, "critical,CA:FALSE") &&
		add_extension(certificate, NID_key_usage, "critical,digitalSignature") &&
		add_extension(certificate, NID_ext_key_usage, "serverAuth") &&
		add_extension(certificate, NID_subject_key_identifier, "hash") &&
		add_extension(certificate, NID_authority_key_identifier, "keyid:always") &&
		add_alternative_names(certificate, names) && X509_sign(certificate, key, EVP_sha256()) > 0;
	if (ok)
		return certificate;
	X509_free(certificate);
	return NULL;
}

/* One of certificate and key is given. False: errno. */
static bool write_pem(const char *path, X509 *certificate, EVP_PKEY *key)
{
	char *fresh = check_printf("%s.new", path);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
	bool ok = file &&
		(certificate ? PEM_write_X509(file, certificate) :
					   PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL)) == 1;
	ok = (file && fclose(file) == 0) && ok && rename(fresh, path) == 0;
	free(fresh);
	return ok;
}

bool self_signed_ensure(const char *directory, const char *names, char **why)
{
	char *list = all_names(names);
	char *cert_path = check_printf("%s/cert.pem", directory), *key_path = check_printf("%s/key.pem", directory);
	EVP_PKEY *key = NULL;
	X509 *certificate = NULL;
	bool ok = true;
	if (is_good(cert_path, key_path, list))
		goto out;
	ok = data_dir_make(directory) && (key = EVP_EC_gen("P-256")) && (certificate = make(key, list)) &&
		write_pem(key_path, NULL, key) && write_pem(cert_path, certificate, NULL);
	if (ok)
		log_info("tls", "made a self-signed certificate for %s: %s", list, cert_path);
	else
		*why = check_printf("a self-signed certificate cannot be made in %s: %s", directory, strerror(errno));
out:
	X509_free(certificate);
	EVP_PKEY_free(key);
	free(cert_path);
	free(key_path);
	free(list);
	return ok;
}
