/* tls_client: one SSL_CTX for all workers; a handshake belongs to its loop's thread. */
#include "path/tls_client.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/tls.h"

static SSL_CTX *client_context;
static pthread_once_t client_context_once = PTHREAD_ONCE_INIT;

/* Besides what base/tls trusts, as curl does. */
static void trust_more(X509_STORE *store)
{
	const char *bundle = getenv("CURL_CA_BUNDLE");
	if (bundle && *bundle && X509_STORE_load_file(store, bundle) != 1)
		log_error("tls", "CURL_CA_BUNDLE cannot be read");
	ERR_clear_error();
	X509_STORE_set_flags(store, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
}

static void make_context(void)
{
	static const unsigned char alpn[] = "\x08http/1.1";
	client_context = tls_context_new();
	CHECK(client_context);
	trust_more(SSL_CTX_get_cert_store(client_context));
	SSL_CTX_set_alpn_protos(client_context, alpn, sizeof alpn - 1);
	SSL_CTX_set_mode(client_context,
		SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static SSL *new_tls(int fd, const char *host)
{
	pthread_once(&client_context_once, make_context);
	SSL *tls = tls_session_new(client_context, host);
	if (!tls)
		return NULL;
	SSL_set_connect_state(tls);
	if (SSL_set_fd(tls, fd) == 1)
		return tls;
	SSL_free(tls);
	return NULL;
}

static void finish(struct tls_handshake *h, enum tls_outcome outcome, const char *text)
{
	int fd = h->io.watch.fd;
	SSL *tls = h->io.tls;
	loop_timer_cancel(h->loop, &h->deadline);
	if (outcome == TLS_DONE)
		loop_unwatch(h->loop, &h->io.watch);
	else
		io_close(&h->io, h->loop);
	h->io.tls = NULL;
	h->on_done(h, outcome, outcome == TLS_DONE ? fd : -1, outcome == TLS_DONE ? tls : NULL, text);
}

static const char *reason(const SSL *tls)
{
	long verdict = SSL_get_verify_result(tls);
	return verdict == X509_V_OK ? "the TLS handshake failed" : X509_verify_cert_error_string(verdict);
}

static void go_on(struct tls_handshake *h)
{
	int result = io_handshake(&h->io);
	if (result == 1)
		finish(h, TLS_DONE, NULL);
	else if (result == IO_ERROR)
		finish(h, TLS_FAILED, reason(h->io.tls));
}

static void on_event(struct loop_watch *w, uint32_t events)
{
	struct tls_handshake *h = container_of(container_of(w, struct io, watch), struct tls_handshake, io);
	io_note(&h->io, events);
	go_on(h);
}

static void on_deadline(struct loop_timer *t)
{
	finish(container_of(t, struct tls_handshake, deadline), TLS_TIMED_OUT, "the TLS handshake took too long");
}

bool tls_handshake_start(struct tls_handshake *h, struct loop *l, int fd, const char *host, uint64_t due_ms)
{
	h->loop = l;
	h->deadline.on_due = on_deadline;
	SSL *tls = new_tls(fd, host);
	if (!tls || !io_open(&h->io, l, fd, on_event)) {
		SSL_free(tls);
		close(fd);
		h->io.watch.fd = -1;
		return false;
	}
	h->io.tls = tls;
	loop_timer_set(l, &h->deadline, due_ms); /* the socket is writable: that event begins it */
	return true;
}

void tls_handshake_cancel(struct tls_handshake *h)
{
	if (!h->loop)
		return;
	loop_timer_cancel(h->loop, &h->deadline);
	io_close(&h->io, h->loop);
}
