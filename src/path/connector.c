/* connector: one CURLM on the worker's loop. libcurl asks for sockets to be watched (level triggered) and for
 * one timer. Once it has connected (through a tunnel, where a proxy is named), the socket is duplicated and
 * the handle goes: libcurl considers connections of its own as idle and may close them at any time. TLS is
 * then spoken by tls_client.
 *
 * Descriptors: a job has its socket alone; for a moment, one more each worker, when the socket changes hands. To
 * look a name up takes a few more. A job that finds none left is begun anew a little later. */
#include "path/connector.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io.h"
#include "path/egress.h"
#include "state/snapshot.h"

enum {
	LACK_RETRY_MS = 25,
	LACK_PATIENCE_MS = 2000, /* a burst is over by then; who lacks one for longer is told */
};

struct connector {
	struct loop *loop;
	void (*make_room)(void *context);
	void *context;
	uint64_t lack_ms; /* when there was no descriptor, last */
	CURLM *multi;
	struct loop_timer timer;
	struct socket_watch **watches; /* by descriptor */
	size_t watch_capacity;
};

/* libcurl closes connections by on_close_socket(). What a lookup wakes it by it may close before it says so, and the
 * number is somebody else's then: of that a duplicate is watched. (7.88 to 8.1 also close a socket that is not yet
 * connected before they say so. It has left the epoll with that; who has the number now is not in this one.) */
struct socket_watch {
	struct loop_watch watch;
	int fd;     /* libcurl's */
	int own_fd; /* the duplicate; -1: none */
	struct connector *connector;
};

static void collect(struct connector *c);

static void on_socket_ready(struct loop_watch *w, uint32_t events)
{
	struct socket_watch *s = container_of(w, struct socket_watch, watch);
	struct connector *c = s->connector;
	int action = (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		(events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
	int running;
	curl_multi_socket_action(c->multi, s->fd, action, &running);
	collect(c);
}

static void unwatch_socket(struct connector *c, curl_socket_t fd)
{
	struct socket_watch *s = (size_t)fd < c->watch_capacity ? c->watches[fd] : NULL;
	if (!s)
		return;
	c->watches[fd] = NULL;
	loop_unwatch(c->loop, &s->watch);
	if (s->own_fd >= 0)
		close(s->own_fd);
	loop_free_later(c->loop, s);
}

static int on_close_socket(void *user, curl_socket_t fd)
{
	unwatch_socket(user, fd);
	return close(fd);
}

static bool is_connection(int fd)
{
	int domain;
	socklen_t length = sizeof domain;
	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && (domain == AF_INET || domain == AF_INET6);
}

static bool is_lack(int error)
{
	return error == EMFILE || error == ENFILE;
}

static struct socket_watch *watch_of(struct connector *c, curl_socket_t fd)
{
	if ((size_t)fd >= c->watch_capacity) {
		size_t capacity = (size_t)fd * 2 + 64;
		c->watches = realloc(c->watches, capacity * sizeof *c->watches);
		CHECK(c->watches);
		memset(c->watches + c->watch_capacity, 0, (capacity - c->watch_capacity) * sizeof *c->watches);
		c->watch_capacity = capacity;
	}
	if (!c->watches[fd]) {
		struct socket_watch *s = c->watches[fd] = check_calloc(1, sizeof *s);
		s->watch = (struct loop_watch){.fd = -1, .on_event = on_socket_ready};
		s->connector = c;
		s->fd = fd;
		s->own_fd = is_connection(fd) ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	return c->watches[fd];
}

/* No descriptor is left for the duplicate. Telling libcurl of it here would end all that connect. */
static void begin_anew(struct connector *c, CURL *easy)
{
	struct connect_job *job = NULL;
	c->lack_ms = loop_now_ms(c->loop);
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &job);
	if (job)
		loop_timer_set(c->loop, &job->again, loop_now_ms(c->loop));
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *per_socket)
{
	struct connector *c = user;
	(void)per_socket;
	if (what == CURL_POLL_REMOVE) {
		unwatch_socket(c, fd);
		return 0;
	}
	struct socket_watch *s = watch_of(c, fd);
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	int watched = s->own_fd < 0 && is_connection(fd) ? fd : s->own_fd;
	if (watched < 0 || !loop_watch_level(c->loop, &s->watch, watched, events))
		begin_anew(c, easy);
	return 0;
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

struct connector *connector_new(struct loop *l, void (*make_room)(void *context), void *context)
{
	struct connector *c = check_calloc(1, sizeof *c);
	c->loop = l;
	c->make_room = make_room;
	c->context = context;
	c->timer.on_due = on_timer_due;
	c->multi = curl_multi_init();
	CHECK(c->multi);
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
	loop_timer_cancel(c->loop, &c->timer);
	free(c->watches);
	free(c);
}

static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct connect_job *job = user;
	(void)purpose;
	int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
	if (fd < 0 && is_lack(errno))
		job->lacked = true;
	if (fd < 0)
		return CURL_SOCKET_BAD;
	io_keep_alive(fd);
	return fd;
}

static bool set_up(struct connector *c, CURL *easy, struct connect_job *job, uint64_t timeout_ms)
{
	const struct target *target = job->target;
	struct egress_route egress = egress_route(target);
	char url[512];
	bool numeric6 = strchr(target->host, ':') != NULL;
	snprintf(url, sizeof url, "http://%s%s%s:%u/", numeric6 ? "[" : "", target->host, numeric6 ? "]" : "",
		target->port);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, job);
	curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 1024L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PROXY, egress.curl_proxy ? egress.curl_proxy : "");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)timeout_ms);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, job);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, c);
	curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, egress.curl_proxy ? 1L : 0L);
	return curl_easy_setopt(easy, CURLOPT_URL, egress.connect_url ? egress.connect_url : url) == CURLE_OK;
}

static void release(struct connector *c, struct connect_job *job)
{
	CURL *easy = job->handle;
	job->handle = NULL;
	loop_timer_cancel(c->loop, &job->again);
	curl_multi_remove_handle(c->multi, easy);
	curl_easy_cleanup(easy);
}

static bool begin(struct connector *c, struct connect_job *job)
{
	CURL *easy = curl_easy_init();
	uint64_t now = loop_now_ms(c->loop);
	if (!easy)
		return false;
	job->lacked = false;
	if (!set_up(c, easy, job, job->due_ms > now ? job->due_ms - now : 1) ||
		curl_multi_add_handle(c->multi, easy) != CURLM_OK) {
		curl_easy_cleanup(easy);
		return false;
	}
	job->handle = easy;
	return true;
}

static void wait_for_room(struct connector *c, struct connect_job *job)
{
	uint64_t now = loop_now_ms(c->loop);
	if (now >= job->patient_until_ms || now >= job->due_ms) {
		job->on_done(job, CONNECT_FAILED, NULL, "too many open files");
		return;
	}
	c->make_room(c->context);
	loop_timer_set(c->loop, &job->again, now + LACK_RETRY_MS);
}

static void on_again(struct loop_timer *t)
{
	struct connect_job *job = container_of(t, struct connect_job, again);
	struct connector *c = job->connector;
	if (job->handle) {
		release(c, job);
		wait_for_room(c, job);
	} else if (!begin(c, job)) {
		job->on_done(job, CONNECT_NO_MEMORY, NULL, "out of memory");
	}
}

bool connector_start(struct connector *c, struct connect_job *job, const struct target *target, uint64_t timeout_ms)
{
	job->again.on_due = on_again;
	job->connector = c;
	job->target = target;
	job->due_ms = loop_now_ms(c->loop) + timeout_ms;
	job->patient_until_ms = loop_now_ms(c->loop) + LACK_PATIENCE_MS;
	return begin(c, job);
}

void connector_cancel(struct connector *c, struct connect_job *job)
{
	if (job->handle)
		release(c, job);
	loop_timer_cancel(c->loop, &job->again);
	if (job->shaking)
		tls_handshake_cancel(&job->handshake);
	job->shaking = false;
}

static void on_shaken(struct tls_handshake *h, enum tls_outcome outcome, int fd, SSL *tls, const char *text)
{
	static const enum connect_outcome outcomes[] = {
		[TLS_DONE] = CONNECT_DONE,
		[TLS_FAILED] = CONNECT_FAILED,
		[TLS_TIMED_OUT] = CONNECT_TIMED_OUT,
	};
	struct connect_job *job = container_of(h, struct connect_job, handshake);
	job->shaking = false;
	job->on_done(job, outcomes[outcome], &(struct connection){.fd = fd, .tls = tls}, text);
}

static void shake_hands(struct connector *c, struct connect_job *job, int fd)
{
	job->handshake.on_done = on_shaken;
	job->shaking = tls_handshake_start(&job->handshake, c->loop, fd, job->target->host, job->due_ms);
	if (!job->shaking)
		job->on_done(job, CONNECT_NO_MEMORY, NULL, "out of memory");
}

static int take_socket(CURL *easy, struct connect_job *job)
{
	curl_socket_t socket = CURL_SOCKET_BAD;
	if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &socket) != CURLE_OK || socket == CURL_SOCKET_BAD)
		return -1;
	int fd = fcntl(socket, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 && is_lack(errno))
		job->lacked = true;
	return fd;
}

static bool has_room(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	if (fd < 0)
		return !is_lack(errno);
	close(fd);
	return true;
}

static bool has_lacked(struct connector *c, const struct connect_job *job, CURLcode code)
{
	uint64_t now = loop_now_ms(c->loop);
	bool is_told = code == CURLE_OK || code == CURLE_COULDNT_CONNECT || code == CURLE_OPERATION_TIMEDOUT;
	if (job->lacked || (!is_told && !has_room()))
		c->lack_ms = now;
	/* A lookup does not tell what it lacked, and that may be there again by now. */
	return job->lacked || (!is_told && c->lack_ms && now - c->lack_ms < LACK_PATIENCE_MS);
}

static void finish(struct connector *c, CURL *easy, CURLcode code)
{
	struct connect_job *job = NULL;
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &job);
	int fd = code == CURLE_OK ? take_socket(easy, job) : -1;
	release(c, job);
	if (fd < 0 && has_lacked(c, job, code))
		wait_for_room(c, job);
	else if (fd < 0)
		job->on_done(job, code == CURLE_OPERATION_TIMEDOUT ? CONNECT_TIMED_OUT : CONNECT_FAILED, NULL,
			code == CURLE_OK ? "no socket was given" : curl_easy_strerror(code));
	else if (job->target->tls)
		shake_hands(c, job, fd);
	else
		job->on_done(job, CONNECT_DONE, &(struct connection){.fd = fd}, NULL);
}

static void collect(struct connector *c)
{
	CURLMsg *message;
	int left;
	while ((message = curl_multi_info_read(c->multi, &left)))
		if (message->msg == CURLMSG_DONE)
			finish(c, message->easy_handle, message->data.result);
}
