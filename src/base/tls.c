/* tls: what all client sessions have in common. Stateless; any thread. */
#include "base/tls.h"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/text.h"

SSL_CTX *tls_context_new(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	if (!context || SSL_CTX_set_default_verify_paths(context) != 1) {
		SSL_CTX_free(context);
		return NULL;
	}
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	return context;
}

static bool expect_peer(SSL *session, const char *host)
{
	if (text_is_ip_address(host))
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), host) == 1;
	return SSL_set1_host(session, host) == 1 && SSL_set_tlsext_host_name(session, host) == 1;
}

SSL *tls_session_new(SSL_CTX *context, const char *host)
{
	SSL *session = context ? SSL_new(context) : NULL;
	if (!session || expect_peer(session, host))
		return session;
	SSL_free(session);
	return NULL;
}
