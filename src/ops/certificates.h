/* certificates: the front's TLS: one current SSL_CTX, swapped as a whole.
 *
 * From tls.cert and tls.key (PEM, chain), or acme's files once there, or a
 * self-signed EC P-256 one (localhost, this host's name, acme.domains, 127.0.0.1, ::1) kept in
 * data_dir/tls. TLS 1.2 and up, session tickets, ALPN http/1.1 only. A reload that fails keeps the
 * old one and goes to the journal. Any thread. */
#ifndef APIPROXY_OPS_CERTIFICATES_H
#define APIPROXY_OPS_CERTIFICATES_H

#include <stdbool.h>

struct settings;
struct ssl_ctx_st;

/* tls.cert and tls.key, before anything is made: NULL where they can be used, or are not to be. Else what is
 * wrong with which of the two, *key (caller frees the text). */
char *certificates_check(const struct settings *s, const char **key) __attribute__((warn_unused_result));

/* At boot, only where tls.enabled. Keeps s. false: logged. */
bool certificates_init(const struct settings *s) __attribute__((warn_unused_result));
/* SIGHUP, or acme has a new one: reads the files again. false: the old one stays, see the journal. */
bool certificates_reload(void);
/* A reference of the caller's own (SSL_CTX_free it); NULL where TLS is off. One short lock: take it
 * per accepted connection, or keep it while certificates_generation() does not change. */
struct ssl_ctx_st *certificates_current(void);
unsigned certificates_generation(void); /* one atomic load; grows with each swap */
void certificates_fini(void);

/* Where ACME's files are: data_dir/acme/HOST-OF-THE-DIRECTORY-URL. Caller frees. */
char *certificates_acme_directory(const struct settings *s);

#endif
