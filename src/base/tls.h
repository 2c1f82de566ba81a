/* tls: the client's side of TLS, to vendors and to Redis. The peer is always verified: its chain against the
 * trusted authorities, its name or address against the host that was asked for. TLS 1.2 and up.
 *
 * Trusted are the system's certificate authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name in their
 * place (OpenSSL's own rule). */
#ifndef APIPROXY_BASE_TLS_H
#define APIPROXY_BASE_TLS_H

typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_st SSL;

SSL_CTX *tls_context_new(void); /* NULL: no memory, or the authorities cannot be read */

/* A session with that host: a name, or an address without brackets. NULL: no memory. context may be NULL: so is the session. */
SSL *tls_session_new(SSL_CTX *context, const char *host);

#endif
