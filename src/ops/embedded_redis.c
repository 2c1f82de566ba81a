/* embedded_redis: the private redis-server.
 *
 * The supervisor thread owns the child, from fork to wait: the kernel ties the child's life to the
 * thread that forked it. data_dir/lock is locked (flock) by this process and, through an inherited
 * descriptor, by the child: whoever gets the lock knows that no redis-server of a predecessor still
 * writes to the append-only file. The child is killed hard when this process dies: what Redis has
 * answered for it has also written, and a server that hangs goes too.
 * Other threads read the pid (atomic) and ask for the end (an eventfd). */
#include "ops/embedded_redis.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/child.h"
#include "ops/secret_file.h"
#include "state/journal.h"
#include "state/settings.h"

#define MODULE "redis"
#define LOG_FILE "redis.log"

enum {
	READY_POLL_MS = 2,
	READY_LIMIT_MS = 10000,
	LOADING_LIMIT_MS = 60000,
	LOCK_WAIT_MS = 3000, /* for a predecessor's child to be gone */
	STOP_GRACE_MS = 10000,
	BACKOFF_FIRST_MS = 100,
	BACKOFF_LAST_MS = 5000,
	STABLE_MS = 10000, /* has run so long: the next restart is at once again */
	PING_EVERY_MS = 1000,
	PING_WAIT_MS = 1000,
	SILENT_PINGS_MAX = 5, /* with the second that each waits: 10 s, longer than a slow disk holds it up */
	LOG_FILE_BYTES = 4 << 20,
};

struct embedded_redis {
	char *program;
	char *directory; /* data_dir/redis, absolute */
	char *socket_path;
	char *url;
	char *socket_directory; /* of our own outside of data_dir, NULL mostly */
	int lock_fd, stop_fd;
	struct child child; /* the supervisor's */
	_Atomic int pid;
	pthread_t supervisor;
	bool supervised;
	pthread_mutex_t lock;
	pthread_cond_t told;
	bool first_start_done, first_start_good;
};

/* --- files and places --- */

static bool take_lock(struct embedded_redis *r, const char *data_dir)
{
	char *path = check_printf("%s/lock", data_dir), holder[32] = "";
	bool locked = false;
	r->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	for (int64_t end = clock_monotonic_ms() + LOCK_WAIT_MS; r->lock_fd >= 0; poll(NULL, 0, 20)) {
		locked = flock(r->lock_fd, LOCK_EX | LOCK_NB) == 0;
		if (locked || errno != EWOULDBLOCK || clock_monotonic_ms() >= end)
			break;
	}
	if (locked) {
		if (ftruncate(r->lock_fd, 0) != 0 || dprintf(r->lock_fd, "%d\n", (int)getpid()) < 0)
			log_debug(MODULE, "%s: %s", path, strerror(errno));
	} else if (r->lock_fd >= 0 && errno == EWOULDBLOCK) {
		ssize_t length = pread(r->lock_fd, holder, sizeof holder - 1, 0);
		holder[length > 0 ? strcspn(holder, "\n") : 0] = 0;
		log_error(MODULE,
			"data_dir %s is in use by another apiproxy (process %s): give each its own "
			"server.data_dir, or a common redis.url",
			data_dir, *holder ? holder : "unknown");
	} else {
		log_error(MODULE, "%s: %s", path, strerror(errno));
	}
	free(path);
	return locked;
}

static bool is_private_directory(const char *path)
{
	struct stat status;
	return (mkdir(path, 0700) == 0 || errno == EEXIST) && lstat(path, &status) == 0 && S_ISDIR(status.st_mode) &&
		status.st_uid == geteuid() && (status.st_mode & 077) == 0;
}

/* For data directories too deep for sun_path. The name follows from the directory, so that a
 * start after a crash finds the same one again. */
static char *short_directory(const char *directory)
{
	struct stat status;
	const char *const places[] = {getenv("XDG_RUNTIME_DIR"), "/tmp"};
	if (stat(directory, &status) != 0)
		return NULL;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		if (!places[i] || *places[i] != '/' || strlen(places[i]) > 40)
			continue;
		char *path = check_printf("%s/apiproxy-%x-%lx-%lx", places[i], (unsigned)geteuid(),
			(unsigned long)status.st_dev, (unsigned long)status.st_ino);
		if (is_private_directory(path))
			return path;
		free(path);
	}
	char *path = check_strdup("/tmp/apiproxy-XXXXXX");
	if (mkdtemp(path))
		return path;
	free(path);
	return NULL;
}

static bool place_socket(struct embedded_redis *r)
{
	const char *place = r->directory;
	if (strlen(r->directory) + strlen("/redis.sock") >= sizeof((struct sockaddr_un *)0)->sun_path) {
		r->socket_directory = short_directory(r->directory);
		if (!r->socket_directory) {
			log_error(MODULE, "no place for a socket: %s is too long and /tmp is not usable", r->directory);
			return false;
		}
		place = r->socket_directory;
	}
	r->socket_path = check_printf("%s/redis.sock", place);
	char *url = check_calloc(strlen(r->socket_path) * 3 + 8, 1), *out = stpcpy(url, "unix://");
	for (const char *p = r->socket_path; *p; p++)
		out += sprintf(out, *p == '%' || *p == '?' || *p == '#' ? "%%%02X" : "%c", *p);
	r->url = url;
	return true;
}

static bool prepare(struct embedded_redis *r, const char *data_dir)
{
	r->program = child_find_program("redis-server");
	if (!r->program)
		r->program = child_find_program("valkey-server");
	if (!r->program) {
		log_error(MODULE,
			"redis-server is not installed: install it (apt-get install redis-server) "
			"or set redis.url (API_PROXY_REDIS_URL)");
		return false;
	}
	char *directory = check_printf("%s/redis", data_dir);
	bool ok = data_dir_make(directory);
	r->directory = ok ? realpath(directory, NULL) : NULL;
	free(directory);
	if (!r->directory || chmod(r->directory, 0700) != 0) {
		if (ok)
			log_error(MODULE, "%s/redis: %s", data_dir, strerror(errno));
		return false;
	}
	return take_lock(r, data_dir) && place_socket(r);
}

/* --- the child --- */

static int open_log(const struct embedded_redis *r)
{
	struct stat status;
	char *path = check_printf("%s/" LOG_FILE, r->directory), *old = check_printf("%s.1", path);
	if (stat(path, &status) == 0 && status.st_size > LOG_FILE_BYTES && rename(path, old) != 0)
		log_warning(MODULE, "%s: %s", path, strerror(errno));
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	free(path);
	free(old);
	return fd;
}

static bool start_child(struct embedded_redis *r)
{
	/* clang-format off */
	const char *const arguments[] = {
		"redis-server", "--port", "0", "--unixsocket", r->socket_path, "--unixsocketperm", "700",
		"--dir", ".", "--logfile", LOG_FILE, "--daemonize", "no", "--databases", "1", "--save", "",
		"--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-min-size", "16mb",
		"--notify-keyspace-events", "Kgh$x", "--set-proc-title", "no", NULL};
	/* clang-format on */
	/* Whoever removes the directories under it gets them again, and the nodes' configuration in them. */
	if (!data_dir_make(r->directory) || (r->socket_directory && !is_private_directory(r->socket_directory)))
		return false;
	int log_fd = open_log(r);
	if (log_fd < 0)
		return false;
	struct child_options options = {
		.program = r->program,
		.arguments = arguments,
		.directory = r->directory,
		.output_fd = log_fd,
		.keep_fd = r->lock_fd,
	};
	bool ok = child_start(&r->child, &options);
	close(log_fd);
	return ok;
}

/* PING_NOT_SENT: the lack is ours, and says nothing about the server. */
enum ping { PING_SILENT, PING_NOT_SENT, PING_LOADING, PING_ERROR, PING_GOOD };

/* Of descriptors or memory: what keeps a socket from being made. */
static bool is_lack(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static enum ping ask(redisContext *context)
{
	enum ping result = PING_SILENT;
	redisReply *reply = redisCommand(context, "PING");
	if (reply && reply->type == REDIS_REPLY_STATUS)
		result = PING_GOOD;
	else if (reply && reply->type == REDIS_REPLY_ERROR)
		result = strncmp(reply->str, "LOADING", 7) == 0 ? PING_LOADING : PING_ERROR;
	freeReplyObject(reply);
	return result;
}

/* A connection each time: it is also to show that the socket is still in its place. */
static enum ping ping(const struct embedded_redis *r)
{
	const struct timeval wait = {PING_WAIT_MS / 1000, PING_WAIT_MS % 1000 * 1000};
	errno = 0;
	redisContext *context = redisConnectUnixWithTimeout(r->socket_path, wait);
	int error = context ? errno : ENOMEM;
	bool connected = context && !context->err && redisSetTimeout(context, wait) == REDIS_OK;
	enum ping result = connected ? ask(context) : is_lack(error) ? PING_NOT_SENT : PING_SILENT;
	if (context)
		redisFree(context);
	return result;
}

/* True: it answers. False: *why says what happened (malloc); NULL where the end was asked for. */
static bool wait_until_ready(struct embedded_redis *r, char **why)
{
	int64_t started = clock_monotonic_ms(), limit = started + READY_LIMIT_MS;
	for (enum ping state = PING_SILENT;;) {
		int status;
		switch (child_wait(&r->child, r->stop_fd, state == PING_LOADING ? 50 : READY_POLL_MS, &status)) {
		case CHILD_ENDED: {
			char *text = child_describe_status(status);
			*why = check_printf("%s ended at its start with %s: see %s/" LOG_FILE, r->program, text, r->directory);
			free(text);
			return false;
		}
		case CHILD_STOP_ASKED:
			return false;
		case CHILD_TIMEOUT:
			break;
		}
		state = access(r->socket_path, F_OK) == 0 ? ping(r) : PING_SILENT;
		if (state == PING_GOOD)
			return true;
		if (state == PING_LOADING)
			limit = started + LOADING_LIMIT_MS;
		if (clock_monotonic_ms() > limit) {
			*why = state == PING_NOT_SENT ?
				check_printf("%s cannot be asked: there is no descriptor left for it", r->program) :
				check_printf("%s does not answer: see %s/" LOG_FILE, r->program, r->directory);
			return false;
		}
	}
}

static bool bring_up(struct embedded_redis *r, char **why)
{
	unlink(r->socket_path); /* a predecessor's: it must not be taken for ready */
	if (!start_child(r)) {
		*why = check_printf("%s cannot be started: %s", r->program, strerror(errno));
		return false;
	}
	if (!wait_until_ready(r, why)) {
		child_stop(&r->child, STOP_GRACE_MS);
		return false;
	}
	atomic_store(&r->pid, r->child.pid);
	return true;
}

/* --- the supervisor --- */

static void tell_first_start(struct embedded_redis *r, bool good)
{
	pthread_mutex_lock(&r->lock);
	r->first_start_done = true;
	r->first_start_good = good;
	pthread_cond_signal(&r->told);
	pthread_mutex_unlock(&r->lock);
}

/* False: the end was asked for. */
static bool pause_before_restart(struct embedded_redis *r, int pause_ms)
{
	struct pollfd stop = {.fd = r->stop_fd, .events = POLLIN};
	int events;
	do
		events = poll(&stop, 1, pause_ms);
	while (events < 0 && errno == EINTR);
	return events == 0;
}

/* Until the child has ended, by itself or, because it was silent for too long, by us. False: the end of
 * both was asked for. Unanswered pings are counted, not seconds: a machine that was suspended goes on
 * where it was. */
static bool wait_for_end(struct embedded_redis *r, int *status)
{
	for (int silent = 0;;) {
		switch (child_wait(&r->child, r->stop_fd, PING_EVERY_MS, status)) {
		case CHILD_ENDED:
			return true;
		case CHILD_STOP_ASKED:
			return false;
		case CHILD_TIMEOUT:
			break;
		}
		enum ping state = ping(r);
		if (state == PING_NOT_SENT)
			continue;
		silent = state == PING_SILENT ? silent + 1 : 0;
		if (silent == SILENT_PINGS_MAX) {
			journal_add(MODULE, "the embedded redis-server has not answered %d pings in a row: it is ended",
				SILENT_PINGS_MAX);
			kill(r->child.pid, SIGKILL);
			return child_wait(&r->child, -1, -1, status) == CHILD_ENDED;
		}
	}
}

/* Runs it until the end is asked for. */
static void keep_alive(struct embedded_redis *r)
{
	for (int pause_ms = 0;;) {
		int64_t started = clock_monotonic_ms();
		int status = 0;
		if (r->child.pid && !wait_for_end(r, &status))
			break;
		if (atomic_exchange(&r->pid, 0)) {
			char *text = child_describe_status(status);
			journal_add(MODULE, "the embedded redis-server ended with %s; starting it again", text);
			free(text);
		}
		if (clock_monotonic_ms() - started > STABLE_MS)
			pause_ms = 0;
		if (!pause_before_restart(r, pause_ms))
			break;
		pause_ms = pause_ms ? 2 * pause_ms : BACKOFF_FIRST_MS;
		pause_ms = pause_ms > BACKOFF_LAST_MS ? BACKOFF_LAST_MS : pause_ms;
		char *why = NULL;
		if (bring_up(r, &why))
			log_info(MODULE, "the embedded redis-server runs again, process %d", (int)r->child.pid);
		else if (why)
			journal_add(MODULE, "%s", why);
		free(why);
	}
}

static void *supervise(void *argument)
{
	struct embedded_redis *r = argument;
	char *why = NULL;
	bool good = bring_up(r, &why);
	if (!good)
		log_error(MODULE, "%s", why ? why : "stopped");
	free(why);
	tell_first_start(r, good);
	if (good)
		keep_alive(r);
	atomic_store(&r->pid, 0);
	child_stop(&r->child, STOP_GRACE_MS);
	return NULL;
}

/* Signals are for the main thread. */
static bool start_supervisor(struct embedded_redis *r)
{
	sigset_t all, kept;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &kept);
	r->supervised = pthread_create(&r->supervisor, NULL, supervise, r) == 0;
	pthread_sigmask(SIG_SETMASK, &kept, NULL);
	if (!r->supervised)
		return false;
	pthread_setname_np(r->supervisor, "redis-keeper");
	pthread_mutex_lock(&r->lock);
	while (!r->first_start_done)
		pthread_cond_wait(&r->told, &r->lock);
	pthread_mutex_unlock(&r->lock);
	return r->first_start_good;
}

struct embedded_redis *embedded_redis_start(const struct settings *s)
{
	struct embedded_redis *r = check_calloc(1, sizeof *r);
	r->lock_fd = r->child.pid_fd = -1;
	r->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(r->stop_fd >= 0);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->told, NULL);
	int64_t started = clock_monotonic_ms();
	if (!data_dir_make(s->server_data_dir) || !prepare(r, s->server_data_dir) || !start_supervisor(r)) {
		embedded_redis_stop(r);
		return NULL;
	}
	log_info(MODULE, "embedded redis-server, process %d, data in %s, ready after %d ms", embedded_redis_pid(r),
		r->directory, (int)(clock_monotonic_ms() - started));
	return r;
}

const char *embedded_redis_url(const struct embedded_redis *r)
{
	return r->url;
}

int embedded_redis_pid(const struct embedded_redis *r)
{
	return atomic_load(&r->pid);
}

void embedded_redis_stop(struct embedded_redis *r)
{
	if (!r)
		return;
	if (r->supervised) {
		eventfd_write(r->stop_fd, 1);
		pthread_join(r->supervisor, NULL);
	}
	if (r->socket_path)
		unlink(r->socket_path);
	if (r->socket_directory)
		rmdir(r->socket_directory);
	if (r->lock_fd >= 0)
		close(r->lock_fd);
	close(r->stop_fd);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->told);
	free(r->program);
	free(r->directory);
	free(r->socket_path);
	free(r->socket_directory);
	free(r->url);
	free(r);
}
