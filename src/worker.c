/* worker: the thread of one core. Everything in struct worker belongs to it once it runs; others post
 * messages to its loop. */
#include "worker.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/certificates.h"
#include "path/admission.h"
#include "path/connector.h"
#include "path/front.h"
#include "path/identity.h"
#include "path/plane.h"
#include "path/upstream.h"
#include "state/settings.h"
#include "state/snapshot.h"

enum { ACCEPTS_PER_TURN = 64, FULL_PAUSE_MS = 100 };

struct listener {
	struct loop_watch watch;
	struct worker *worker;
	int fd;
	bool ops;
};

struct worker {
	struct plane plane;
	struct worker_setup setup;
	pthread_t thread;
	struct listener main, ops;
	struct loop_timer pause; /* no descriptors or no room: try again */
	SSL_CTX *tls;
	unsigned tls_generation;
	void (*on_idle)(void *context);
	void *idle_context;
};

struct message {
	struct worker *worker;
	struct snapshot *snapshot;
	void (*callback)(void *context);
	void *context;
};

static struct message *new_message(struct worker *w, void (*callback)(void *context), void *context)
{
	struct message *m = check_calloc(1, sizeof *m);
	*m = (struct message){.worker = w, .callback = callback, .context = context};
	return m;
}

/* ---- clients ---- */

static bool is_full(const struct worker *w)
{
	return *w->setup.connections >= w->setup.connections_max;
}

static void stop_accepting(struct worker *w, struct listener *l)
{
	loop_unwatch(w->plane.loop, &l->watch);
}

/* Another worker may make room: this one looks again soon. */
static void pause_accepting(struct worker *w, struct listener *l)
{
	stop_accepting(w, l);
	loop_timer_set(w->plane.loop, &w->pause, loop_now_ms(w->plane.loop) + FULL_PAUSE_MS);
}

static SSL_CTX *current_tls(struct worker *w)
{
	if (!w->setup.settings->tls_enabled)
		return NULL;
	unsigned generation = certificates_generation();
	if (!w->tls || generation != w->tls_generation) {
		SSL_CTX_free(w->tls);
		w->tls = certificates_current();
		w->tls_generation = generation;
	}
	return w->tls;
}

/* false: nobody is waiting, or nobody can be taken. */
static bool accept_one(struct worker *w, struct listener *l)
{
	struct sockaddr_storage peer;
	socklen_t length = sizeof peer;
	int fd = accept4(l->fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		front_accept(&w->plane, fd, &peer, l->ops ? NULL : current_tls(w), l->ops);
		return true;
	}
	if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
		pause_accepting(w, l);
		return false;
	}
	return errno == ECONNABORTED || errno == EINTR;
}

static void on_listener_ready(struct loop_watch *watch, uint32_t events)
{
	struct listener *l = container_of(watch, struct listener, watch);
	struct worker *w = l->worker;
	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		if (!l->ops && is_full(w)) { /* the rest waits in the kernel's queue */
			pause_accepting(w, l);
			return;
		}
		if (!accept_one(w, l))
			return;
	}
}

static void accept_again(struct worker *w, struct listener *l)
{
	if (l->fd >= 0 && l->watch.fd < 0 && !loop_watch_level(w->plane.loop, &l->watch, l->fd, EPOLLIN))
		log_error("worker", "cannot watch a listener: %s", strerror(errno));
}

static void on_pause_over(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, pause);
	accept_again(w, &w->main);
	accept_again(w, &w->ops);
}

static void on_less(struct plane *p)
{
	struct worker *w = container_of(p, struct worker, plane);
	if (p->draining && !p->awaited_count && w->on_idle) {
		void (*on_idle)(void *context) = w->on_idle;
		w->on_idle = NULL;
		on_idle(w->idle_context);
	}
}

/* ---- messages ---- */

static void take_snapshot(void *argument)
{
	struct message *m = argument;
	plane_publish(&m->worker->plane, m->snapshot);
	admission_take_snapshot(m->worker->plane.admission, m->snapshot);
	m->callback(m->context);
	free(m);
}

void worker_publish(struct worker *w, struct snapshot *take, void (*on_taken)(void *context), void *context)
{
	struct message *m = new_message(w, on_taken, context);
	m->snapshot = take;
	loop_post(w->plane.loop, take_snapshot, m);
}

static void start_listening(void *argument)
{
	struct worker *w = argument;
	w->main.fd = w->setup.listen_fd;
	w->ops.fd = w->setup.ops_fd;
	accept_again(w, &w->main);
	accept_again(w, &w->ops);
}

void worker_listen(struct worker *w)
{
	loop_post(w->plane.loop, start_listening, w);
}

static void close_listener(struct worker *w, struct listener *l)
{
	stop_accepting(w, l);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

static void start_draining(void *argument)
{
	struct message *m = argument;
	struct worker *w = m->worker;
	w->plane.draining = true;
	w->on_idle = m->callback;
	w->idle_context = m->context;
	free(m);
	on_less(&w->plane);
}

/* Who was waiting is served: what they have sent comes up before the message behind it. */
static void stop_listening(void *argument)
{
	struct message *m = argument;
	struct worker *w = m->worker;
	while (w->main.fd >= 0 && !is_full(w) && accept_one(w, &w->main)) {
	}
	close_listener(w, &w->main);
	loop_post(w->plane.loop, start_draining, m);
}

void worker_drain(struct worker *w, void (*on_idle)(void *context), void *context)
{
	loop_post(w->plane.loop, stop_listening, new_message(w, on_idle, context));
}

static void shut_down(void *argument)
{
	struct worker *w = argument;
	w->on_idle = NULL;
	close_listener(w, &w->main);
	close_listener(w, &w->ops);
	w->plane.draining = true;
	while (w->plane.fronts)
		front_close(w->plane.fronts);
	loop_stop(w->plane.loop);
}

/* ---- life ---- */

static void *run(void *argument)
{
	struct worker *w = argument;
	loop_run(w->plane.loop);
	return NULL;
}

struct worker *worker_start(unsigned number, const struct worker_setup *setup)
{
	struct worker *w = check_calloc(1, sizeof *w);
	char name[16];
	w->setup = *setup;
	w->main = (struct listener){{.fd = -1, .on_event = on_listener_ready}, w, -1, false};
	w->ops = (struct listener){{.fd = -1, .on_event = on_listener_ready}, w, -1, true};
	w->pause.on_due = on_pause_over;
	struct plane *p = &w->plane;
	p->loop = loop_new();
	p->settings = setup->settings;
	p->stats = setup->stats;
	p->control_connect = setup->control_connect;
	p->control = setup->control;
	p->on_less = on_less;
	p->connections = setup->connections;
	p->upstreams = upstream_pool_new(p->loop);
	p->connector = connector_new(p->loop, upstream_make_room, p->upstreams);
	p->identity = identity_new();
	p->admission = admission_new(setup->admission, p->loop);
	CHECK(pthread_create(&w->thread, NULL, run, w) == 0);
	snprintf(name, sizeof name, "worker-%u", number);
	pthread_setname_np(w->thread, name);
	return w;
}

void worker_stop(struct worker *w)
{
	struct plane *p = &w->plane;
	loop_post(p->loop, shut_down, w);
	pthread_join(w->thread, NULL);
	upstream_pool_free(p->upstreams);
	connector_free(p->connector);
	admission_free(p->admission);
	identity_free(p->identity);
	plane_unpin(p->pin);
	SSL_CTX_free(w->tls);
	loop_free(p->loop);
	free(w);
}
