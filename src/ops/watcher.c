/* watcher: a thread with one connection that only listens; loading is the store's.
 *
 * A message only says "look": what changed is found by looking, which is cheap when nothing did.
 * So lost messages cost at most the second until the next look. reload_mutex serialises
 * load-and-publish between this thread and control threads; state_mutex guards what others read and
 * is never held while waiting. */
#include "ops/watcher.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "base/clock.h"
#include "path/admission.h"
#include "state/faults.h"
#include "state/redis_sync.h"
#include "state/redis_url.h"
#include "state/snapshot.h"
#include "state/store.h"

enum { LOOK_MS = 1000, DEBOUNCE_MS = 30, LISTEN_DEADLINE_MS = 1000 };

struct watcher {
	struct store *store;
	const struct redis_address *address;
	struct watcher_sink sink;
	struct redis_sync *listener;
	bool listening; /* the listener's subscriptions are made */
	pthread_t thread;
	bool started;
	int stop_fd;

	pthread_mutex_t reload_mutex;
	pthread_mutex_t state_mutex;
	struct snapshot *published; /* NULL: none yet */
	struct watcher_status status;
};

struct watcher *watcher_new(struct store *store, const struct redis_address *address, struct watcher_sink sink)
{
	struct watcher *w = check_calloc(1, sizeof(*w));
	w->store = store;
	w->address = address;
	w->sink = sink;
	w->listener = redis_sync_new(address, LISTEN_DEADLINE_MS);
	w->stop_fd = eventfd(0, EFD_CLOEXEC);
	CHECK(w->stop_fd >= 0);
	CHECK(pthread_mutex_init(&w->reload_mutex, NULL) == 0 && pthread_mutex_init(&w->state_mutex, NULL) == 0);
	return w;
}

/* ---- load and publish ---- */

/* Takes the reference. */
static void publish(struct watcher *w, struct snapshot *take_snapshot)
{
	w->sink.publish(w->sink.ctx, take_snapshot);
	pthread_mutex_lock(&w->state_mutex);
	struct snapshot *before = w->published;
	w->published = take_snapshot;
	w->status.reloads++;
	pthread_mutex_unlock(&w->state_mutex);
	snapshot_unref(before);
}

static void note(struct watcher *w, bool ok, const struct faults *faults)
{
	pthread_mutex_lock(&w->state_mutex);
	w->status.redis_ok = ok;
	snprintf(w->status.redis_error, sizeof(w->status.redis_error), "%s", ok ? "" : faults->items[0]);
	if (ok)
		w->status.loaded_at_ms = clock_unix_ms();
	pthread_mutex_unlock(&w->state_mutex);
}

bool watcher_reload_now(struct watcher *w)
{
	struct faults faults = {0};
	struct snapshot *snapshot = NULL;
	pthread_mutex_lock(&w->reload_mutex);
	bool ok = store_refresh(w->store, &snapshot, &faults) == STORE_OK;
	if (snapshot != w->published)
		publish(w, snapshot);
	else
		snapshot_unref(snapshot);
	note(w, ok, &faults);
	pthread_mutex_unlock(&w->reload_mutex);
	faults_fini(&faults);
	return ok;
}

/* ---- listening ---- */

static void given_back(struct watcher *w, const char *prefix)
{
	if (w->sink.given_back)
		w->sink.given_back(w->sink.ctx, prefix);
}

/* The channels by their names: a pattern would bring a message for every limiter key, too. */
static bool subscribe(struct watcher *w)
{
	static const char *const hashes[] = {"mappings", "keys", "clients", "users", "jwt_secret"};
	enum { COUNT = sizeof(hashes) / sizeof(*hashes) };
	unsigned db = w->address->db;
	bool ok = redis_sync_connect(w->listener) &&
		redis_sync_append(w->listener, "SUBSCRIBE apiproxy:changed " ADMISSION_GIVEN_BACK);
	for (size_t i = 0; ok && i < COUNT; i++)
		ok = redis_sync_append(w->listener, "SUBSCRIBE __keyspace@%u__:apiproxy:%s", db, hashes[i]);
	for (size_t i = 0; ok && i < COUNT + 2; i++) {
		redisReply *reply = redis_sync_read(w->listener);
		ok = reply && reply->type != REDIS_REPLY_ERROR;
		freeReplyObject(reply);
	}
	if (!ok)
		redis_sync_close(w->listener);
	else
		given_back(w, NULL);
	return ok;
}

/* True: the configuration may have changed. */
static bool hear(struct watcher *w, const redisReply *message)
{
	bool is_message = message->type == REDIS_REPLY_ARRAY && message->elements == 3 && message->element[1]->str &&
		message->element[2]->str;
	if (!is_message || strcmp(message->element[1]->str, ADMISSION_GIVEN_BACK) != 0)
		return true;
	given_back(w, message->element[2]->str);
	return false;
}

/* Reads what has come; true where it says that the configuration may have changed, or the connection has ended. */
static bool drain(struct watcher *w)
{
	bool any = false;
	redisReply *reply;
	while ((reply = redis_sync_read_buffered(w->listener))) {
		any |= hear(w, reply);
		freeReplyObject(reply);
	}
	if (redis_sync_fd(w->listener) < 0)
		w->listening = false;
	return any || !w->listening;
}

static void listen_again(struct watcher *w, bool redis_ok)
{
	/* Where looking failed, this connection may hang just as well. */
	if (!redis_ok)
		redis_sync_close(w->listener);
	w->listening = redis_ok && (w->listening || subscribe(w));
}

/* True: stop. Else *heard says whether to look soon. */
static bool wait_for_news(struct watcher *w, int64_t timeout_ms, bool *heard)
{
	struct pollfd fds[2] = {
		{.fd = w->stop_fd, .events = POLLIN},
		{.fd = w->listening ? redis_sync_fd(w->listener) : -1, .events = POLLIN},
	};
	*heard = false;
	int count = poll(fds, 2, timeout_ms > 0 ? (int)timeout_ms : 0);
	CHECK(count >= 0 || errno == EINTR);
	if (count <= 0)
		return false;
	if (fds[1].revents)
		*heard = drain(w);
	return fds[0].revents != 0;
}

static void *run(void *argument)
{
	struct watcher *w = argument;
	int64_t now = clock_monotonic_ms(), due = now;
	bool stop = false, heard, was_listening;
	while (!stop) {
		if (now >= due) {
			was_listening = w->listening;
			listen_again(w, watcher_reload_now(w));
			/* What changed before the subscription began is found by one more look. */
			due = clock_monotonic_ms() + (w->listening && !was_listening ? DEBOUNCE_MS : LOOK_MS);
		}
		stop = wait_for_news(w, due - clock_monotonic_ms(), &heard);
		now = clock_monotonic_ms();
		if (heard && due > now + DEBOUNCE_MS)
			due = now + DEBOUNCE_MS;
	}
	return NULL;
}

/* ---- life ---- */

bool watcher_start(struct watcher *w)
{
	bool ok = watcher_reload_now(w);
	CHECK(pthread_create(&w->thread, NULL, run, w) == 0);
	pthread_setname_np(w->thread, "watcher");
	w->started = true;
	return ok;
}

void watcher_stop(struct watcher *w)
{
	uint64_t one = 1;
	if (!w || !w->started)
		return;
	CHECK(write(w->stop_fd, &one, sizeof(one)) == sizeof(one));
	pthread_join(w->thread, NULL);
	w->started = false;
}

void watcher_free(struct watcher *w)
{
	if (!w)
		return;
	watcher_stop(w);
	close(w->stop_fd);
	redis_sync_free(w->listener);
	snapshot_unref(w->published);
	pthread_mutex_destroy(&w->reload_mutex);
	pthread_mutex_destroy(&w->state_mutex);
	free(w);
}

void watcher_status(struct watcher *w, struct watcher_status *status)
{
	pthread_mutex_lock(&w->state_mutex);
	*status = w->status;
	pthread_mutex_unlock(&w->state_mutex);
}

struct snapshot *watcher_snapshot(struct watcher *w)
{
	pthread_mutex_lock(&w->state_mutex);
	struct snapshot *snapshot = w->published ? snapshot_ref(w->published) : NULL;
	pthread_mutex_unlock(&w->state_mutex);
	return snapshot;
}
