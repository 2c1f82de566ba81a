/* connector: one CURLM on the worker's loop. libcurl asks for sockets to be watched (level
 * triggered) and for one timer. A handle lives from connector_start() to the end of its connection
 * where TLS is in use, since libcurl owns the SSL object; the socket is duplicated, and without TLS the
 * handle goes at once. SSL_set_fd() gives the SSL object a BIO of its own on the duplicate, so that
 * reads and writes need no libcurl. libcurl holds a connection that is only connected for unused, and
 * closes it where it looks dead or old: its descriptor is made one that is quiet for ever. */
#include "path/connector.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "path/egress.h"
#include "state/snapshot.h"

struct connector {
	struct loop *loop;
	CURLM *multi;
	struct loop_timer timer;
	int quiet[2]; /* a pair of sockets that nobody writes to */
};

struct socket_watch {
	struct loop_watch watch;
	struct connector *connector;
};

static void collect(struct connector *c);

static void on_socket_ready(struct loop_watch *w, uint32_t events)
{
	struct connector *c = container_of(w, struct socket_watch, watch)->connector;
	int action = (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		(events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
	int running;
	curl_multi_socket_action(c->multi, w->fd, action, &running);
	collect(c);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *per_socket)
{
	struct connector *c = user;
	struct socket_watch *s = per_socket;
	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (s) {
			loop_unwatch(c->loop, &s->watch);
			loop_free_later(c->loop, s);
			curl_multi_assign(c->multi, fd, NULL);
		}
		return 0;
	}
	if (!s) {
		s = check_calloc(1, sizeof *s);
		s->watch = (struct loop_watch){.fd = -1, .on_event = on_socket_ready};
		s->connector = c;
		curl_multi_assign(c->multi, fd, s);
	}
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	return loop_watch_level(c->loop, &s->watch, fd, events) ? 0 : -1;
}

static void on_timer_due(struct loop_timer *t)
{
	struct connector *c = container_of(t, struct connector, timer);
	int running;
	curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	collect(c);
}

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
	struct connector *c = user;
	(void)multi;
	if (timeout_ms < 0)
		loop_timer_cancel(c->loop, &c->timer);
	else
		loop_timer_set(c->loop, &c->timer, loop_now_ms(c->loop) + (uint64_t)timeout_ms);
	return 0;
}

struct connector *connector_new(struct loop *l)
{
	struct connector *c = check_calloc(1, sizeof *c);
	c->loop = l;
	c->timer.on_due = on_timer_due;
	c->multi = curl_multi_init();
	CHECK(c->multi);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, c->quiet) == 0);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	return c;
}

void connector_free(struct connector *c)
{
	if (!c)
		return;
	curl_multi_cleanup(c->multi);
	close(c->quiet[0]);
	close(c->quiet[1]);
	loop_timer_cancel(c->loop, &c->timer);
	free(c);
}

/* ---- whom to trust ---- */

static X509_STORE *authorities;
static pthread_once_t authorities_once = PTHREAD_ONCE_INIT;

/* Once for all workers, at the first TLS connection: a bundle read per connection costs milliseconds.
 * OpenSSL's default paths heed SSL_CERT_FILE and SSL_CERT_DIR. */
static void load_authorities(void)
{
	const char *bundle = getenv("CURL_CA_BUNDLE");
	authorities = X509_STORE_new();
	CHECK(authorities);
	if (X509_STORE_set_default_paths(authorities) != 1)
		log_error("connector", "the system's certificate authorities cannot be read");
	if (bundle && *bundle && X509_STORE_load_file(authorities, bundle) != 1)
		log_error("connector", "CURL_CA_BUNDLE cannot be read");
	ERR_clear_error();
	X509_STORE_set_flags(authorities, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
}

/* libcurl names the SSL object only while a transfer runs (CURLINFO_TLS_SSL_PTR): OpenSSL tells it. */
static void on_tls_progress(const SSL *tls, int where, int result)
{
	struct connect_job *job = SSL_CTX_get_app_data(SSL_get_SSL_CTX(tls));
	(void)result;
	if (job && where & SSL_CB_HANDSHAKE_DONE)
		job->tls = (SSL *)tls;
}

static CURLcode on_tls_context(CURL *easy, void *context, void *job)
{
	(void)easy;
	SSL_CTX_set1_cert_store(context, authorities);
	SSL_CTX_set_app_data(context, job);
	SSL_CTX_set_info_callback(context, on_tls_progress);
	return CURLE_OK;
}

static void set_up_tls(CURL *easy, struct connect_job *job)
{
	pthread_once(&authorities_once, load_authorities);
	job->tls = NULL;
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, job);
	curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls_context);
}

static bool set_up(CURL *easy, struct connect_job *job, const struct target *target, uint64_t timeout_ms)
{
	struct egress_route egress = egress_route(target);
	char url[512];
	bool numeric6 = strchr(target->host, ':') != NULL;
	snprintf(url, sizeof url, "%s://%s%s%s:%u/", target->tls ? "https" : "http", numeric6 ? "[" : "", target->host,
		numeric6 ? "]" : "", target->port);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, job);
	curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)INT32_MAX);
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 1024L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PROXY, egress.curl_proxy ? egress.curl_proxy : "");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)timeout_ms);
	if (target->tls)
		set_up_tls(easy, job);
	return curl_easy_setopt(easy, CURLOPT_URL, egress.connect_url ? egress.connect_url : url) == CURLE_OK;
}

bool connector_start(struct connector *c, struct connect_job *job, const struct target *target, uint64_t timeout_ms)
{
	CURL *easy = curl_easy_init();
	if (!easy)
		return false;
	if (!set_up(easy, job, target, timeout_ms) || curl_multi_add_handle(c->multi, easy) != CURLM_OK) {
		curl_easy_cleanup(easy);
		return false;
	}
	job->handle = easy;
	return true;
}

void connector_release(struct connector *c, void *handle)
{
	curl_multi_remove_handle(c->multi, handle);
	curl_easy_cleanup(handle);
}

void connector_cancel(struct connector *c, struct connect_job *job)
{
	if (!job->handle)
		return;
	connector_release(c, job->handle);
	job->handle = NULL;
}

static bool take_tls(const struct connector *c, CURL *easy, SSL *tls, curl_socket_t fd, struct connection *out)
{
	int own = tls ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
	if (own < 0)
		return false;
	SSL_CTX *context = SSL_get_SSL_CTX(tls);
	SSL_CTX_set_info_callback(context, NULL);
	SSL_CTX_set_app_data(context, NULL);
	SSL_CTX_sess_set_new_cb(context, NULL); /* libcurl expects such calls within its own only */
	SSL_set_mode(tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (SSL_set_fd(tls, own) != 1 || dup3(c->quiet[0], fd, O_CLOEXEC) < 0) {
		close(own);
		return false;
	}
	*out = (struct connection){.handle = easy, .tls = tls, .fd = own};
	return true;
}

/* The socket of a handle that has connected. Where out->handle is NULL, the handle is done with. */
static bool take_connection(const struct connector *c, CURL *easy, const struct connect_job *job, struct connection *out)
{
	curl_socket_t fd = CURL_SOCKET_BAD;
	char *url = NULL;
	if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
		return false;
	curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
	if (url && strncmp(url, "https", 5) == 0)
		return take_tls(c, easy, job->tls, fd, out);
	out->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return out->fd >= 0;
}

static void finish(struct connector *c, CURL *easy, CURLcode code)
{
	struct connect_job *job = NULL;
	struct connection connection = {.fd = -1};
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &job);
	job->handle = NULL;
	bool taken = code == CURLE_OK && take_connection(c, easy, job, &connection);
	if (!connection.handle)
		connector_release(c, easy);
	if (taken)
		job->on_done(job, CONNECT_DONE, &connection, NULL);
	else
		job->on_done(job, code == CURLE_OPERATION_TIMEDOUT ? CONNECT_TIMED_OUT : CONNECT_FAILED, NULL,
			code == CURLE_OK ? "no socket was given" : curl_easy_strerror(code));
}

static void collect(struct connector *c)
{
	CURLMsg *message;
	int left;
	while ((message = curl_multi_info_read(c->multi, &left)))
		if (message->msg == CURLMSG_DONE)
			finish(c, message->easy_handle, message->data.result);
}
