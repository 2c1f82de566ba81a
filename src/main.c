/* main: boot order, top to bottom; then signals; then everything in reverse. */
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/control.h"
#include "admin/figures.h"
#include "base/check.h"
#include "base/log.h"
#include "base/version.h"
#include "ops/acme.h"
#include "ops/certificates.h"
#include "ops/embedded_redis.h"
#include "ops/flusher.h"
#include "ops/listen.h"
#include "ops/node_name.h"
#include "ops/secret_file.h"
#include "ops/trim.h"
#include "ops/watcher.h"
#include "path/admission.h"
#include "path/egress.h"
#include "state/faults.h"
#include "state/redis_url.h"
#include "state/settings.h"
#include "state/snapshot.h"
#include "state/stats.h"
#include "state/stats_aggregate.h"
#include "state/stats_store.h"
#include "state/store.h"
#include "worker.h"

enum {
	WORKERS_MAX = 256,
	DESCRIPTORS_OF_OUR_OWN = 112,
	DESCRIPTORS_OF_OUR_OWN_LEAST = 24, /* without what names being looked up and bursts take */
	DESCRIPTORS_OF_A_WORKER = 8,
	CONNECTIONS_LEAST = 4,
};

struct program {
	struct settings settings;
	struct settings_options options;
	struct secret admin_token;
	uint8_t master_key[32];
	unsigned worker_count;
	int listen_fds[WORKERS_MAX];
	int ops_fds[WORKERS_MAX];
	struct embedded_redis *embedded;
	struct redis_address redis;
	char *node;
	struct stats *stats;
	struct stats_aggregate *aggregate;
	struct stats_store *stats_store;
	struct flusher *flusher;
	struct store *store;
	struct watcher *watcher;
	struct admission_node *admission;
	struct figures_sources figures;
	struct control *control;
	struct acme *acme;
	struct worker *workers[WORKERS_MAX];
	unsigned workers_running;
	_Atomic uint32_t connections; /* of clients, open */
};

/* ---- waiting for all workers ---- */

struct rendezvous {
	pthread_mutex_t lock;
	pthread_cond_t met;
	unsigned missing;
};

static void rendezvous_init(struct rendezvous *r, unsigned count)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->met, &monotonic);
	pthread_condattr_destroy(&monotonic);
	r->missing = count;
}

static void arrive(void *context)
{
	struct rendezvous *r = context;
	pthread_mutex_lock(&r->lock);
	if (--r->missing == 0)
		pthread_cond_signal(&r->met);
	pthread_mutex_unlock(&r->lock);
}

static void rendezvous_wait(struct rendezvous *r)
{
	pthread_mutex_lock(&r->lock);
	while (r->missing)
		pthread_cond_wait(&r->met, &r->lock);
	pthread_mutex_unlock(&r->lock);
	pthread_cond_destroy(&r->met);
	pthread_mutex_destroy(&r->lock);
}

/* The watcher's sink: every worker has the snapshot when this returns. */
static void publish(void *context, struct snapshot *s)
{
	struct program *p = context;
	struct rendezvous all;
	rendezvous_init(&all, p->workers_running);
	for (unsigned i = 0; i < p->workers_running; i++)
		worker_publish(p->workers[i], snapshot_ref(s), arrive, &all);
	rendezvous_wait(&all);
}

static void given_back(void *context, const char *prefix)
{
	admission_node_given_back(((struct program *)context)->admission, prefix);
}

/* ---- where figures come from ---- */

static struct snapshot *figures_snapshot(void *context)
{
	return watcher_snapshot(((struct program *)context)->watcher);
}

static bool figures_redis_is_up(void *context)
{
	struct watcher_status status;
	struct program *p = context;
	watcher_status(p->watcher, &status);
	return status.redis_ok && admission_node_redis_is_up(p->admission);
}

static uint64_t figures_reloads(void *context)
{
	struct watcher_status status;
	watcher_status(((struct program *)context)->watcher, &status);
	return status.reloads;
}

/* ---- boot ---- */

static unsigned core_count(void)
{
	cpu_set_t cores;
	if (sched_getaffinity(0, sizeof cores, &cores) != 0)
		return 1;
	return (unsigned)CPU_COUNT(&cores);
}

static uint64_t raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return 1024;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur == RLIM_INFINITY ? 1048576 : limit.rlim_cur;
}

/* Each client may need a second descriptor, to its vendor. Where there are few, half of them are ours. */
static uint64_t connections_allowed(uint64_t descriptors, unsigned workers)
{
	uint64_t own = DESCRIPTORS_OF_OUR_OWN + (uint64_t)workers * DESCRIPTORS_OF_A_WORKER;
	uint64_t least = DESCRIPTORS_OF_OUR_OWN_LEAST + (uint64_t)workers * DESCRIPTORS_OF_A_WORKER;
	if (own > descriptors / 2)
		own = descriptors / 2 > least ? descriptors / 2 : least;
	return descriptors > own + 2 * CONNECTIONS_LEAST ? (descriptors - own) / 2 : CONNECTIONS_LEAST;
}

static uint32_t connections_max(const struct program *p)
{
	uint64_t descriptors = raise_descriptor_limit();
	uint64_t most = connections_allowed(descriptors, p->worker_count);
	uint64_t asked = (uint64_t)p->settings.server_max_connections;
	if (asked > most)
		log_warning("main",
			"server.max_connections = %llu is more than the limit of %llu open files allows: it is %llu",
			(unsigned long long)asked, (unsigned long long)descriptors, (unsigned long long)most);
	else if (asked)
		most = asked;
	return most > UINT32_MAX ? UINT32_MAX : (uint32_t)most;
}

static bool open_listeners(struct program *p)
{
	for (unsigned i = 0; i < p->worker_count; i++)
		p->ops_fds[i] = -1;
	return listen_open(p->settings.server_listen, p->listen_fds, p->worker_count) &&
		(!*p->settings.server_ops_listen || listen_open(p->settings.server_ops_listen, p->ops_fds, p->worker_count));
}

static bool find_redis(struct program *p)
{
	const char *url = p->settings.redis_url;
	if (!*url) {
		p->embedded = embedded_redis_start(&p->settings);
		if (!p->embedded)
			return false;
		url = embedded_redis_url(p->embedded);
	}
	const char *fault = redis_address_parse(url, &p->redis);
	if (fault)
		log_error("redis", "redis.url: %s", fault);
	return !fault;
}

static void start_state(struct program *p)
{
	p->node = node_name_load(p->settings.server_data_dir);
	p->stats = stats_new(p->worker_count, p->settings.stats_enabled);
	p->aggregate = stats_aggregate_new(p->stats);
	p->stats_store = stats_store_new(&p->redis, p->node, p->embedded == NULL);
	struct store_options options = {
		.address = &p->redis,
		.jwt_secret = p->settings.auth_jwt_secret,
		.bootstrap_file = p->settings.bootstrap_file,
		.stats = p->stats,
	};
	memcpy(options.master_key, p->master_key, sizeof options.master_key);
	p->store = store_new(&options);
	explicit_bzero(options.master_key, sizeof options.master_key);
	explicit_bzero(p->master_key, sizeof p->master_key); /* the store has its own */
	p->admission = admission_node_new(&p->redis, (enum admission_failure_policy)p->settings.limits_on_redis_failure);
	p->watcher = watcher_new(p->store, &p->redis, (struct watcher_sink){publish, p, given_back});
	p->figures = (struct figures_sources){
		.version = APIPROXY_VERSION,
		.node = p->node,
		.aggregate = p->aggregate,
		.store = p->stats_store,
		.get_snapshot = figures_snapshot,
		.redis_is_up = figures_redis_is_up,
		.config_reloads = figures_reloads,
		.context = p,
	};
}

static bool start_control(struct program *p)
{
	p->control = control_start(&(struct admin_setup){
		.settings = &p->settings,
		.store = p->store,
		.admission = p->admission,
		.watcher = p->watcher,
		.figures = &p->figures,
		.redis = &p->redis,
		.admin_token = p->admin_token.value,
	});
	return p->control != NULL;
}

static int connect_control(void *control)
{
	return control_connect(control);
}

static void start_workers(struct program *p)
{
	uint32_t most = connections_max(p);
	for (unsigned i = 0; i < p->worker_count; i++)
		p->workers[i] = worker_start(i,
			&(struct worker_setup){
				.settings = &p->settings,
				.stats = stats_ring(p->stats, i),
				.admission = p->admission,
				.control_connect = connect_control,
				.control = p->control,
				.connections = &p->connections,
				.connections_max = most,
				.listen_fd = p->listen_fds[i],
				.ops_fd = p->ops_fds[i],
			});
	p->workers_running = p->worker_count;
}

static bool boot(struct program *p)
{
	p->worker_count = p->settings.server_workers ? (unsigned)p->settings.server_workers : core_count();
	if (p->worker_count > WORKERS_MAX)
		p->worker_count = WORKERS_MAX;
	if (!open_listeners(p) || !data_dir_make(p->settings.server_data_dir) ||
		!admin_token_load(&p->settings, &p->admin_token) || !master_key_load(&p->settings, p->master_key))
		return false;
	if (p->settings.tls_enabled && !certificates_init(&p->settings))
		return false;
	if (!find_redis(p))
		return false;
	start_state(p);
	if (!start_control(p))
		return false;
	start_workers(p);
	watcher_start(p->watcher);
	p->flusher = flusher_start(p->aggregate, p->stats_store);
	if (p->settings.acme_enabled && !(p->acme = acme_start(&p->settings)))
		return false;
	for (unsigned i = 0; i < p->worker_count; i++)
		worker_listen(p->workers[i]);
	trim_memory();
	log_info("main", "apiproxy %s is ready on %s://%s (%u worker%s)", APIPROXY_VERSION,
		p->settings.tls_enabled ? "https" : "http", p->settings.server_listen, p->worker_count,
		p->worker_count == 1 ? "" : "s");
	return true;
}

/* ---- signals ---- */

static void block_signals(sigset_t *set)
{
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, set, NULL); /* before any thread: all inherit it */
}

static void serve_until_told(struct program *p, const sigset_t *signals)
{
	for (;;) {
		int number = 0;
		sigwait(signals, &number);
		if (number != SIGHUP)
			return;
		log_info("main", "SIGHUP: the log's settings and certificates are read again");
		settings_reload_log(&p->settings, &p->options);
		if (p->settings.tls_enabled)
			certificates_reload();
		if (p->acme)
			acme_check_now(p->acme);
	}
}

static bool all_idle(struct rendezvous *r)
{
	pthread_mutex_lock(&r->lock);
	bool idle = r->missing == 0;
	pthread_mutex_unlock(&r->lock);
	return idle;
}

/* Waits for what is in flight, at most drain_seconds; a second signal ends the patience. The rendezvous
 * is static because a worker may still come to it when nobody waits any more. */
static void drain(struct program *p, const sigset_t *signals)
{
	static struct rendezvous all;
	struct timespec tick = {.tv_nsec = 20 * 1000000};
	long ticks = p->settings.server_drain_seconds * 50;
	log_info("main", "draining: at most %ld s for what is in flight", p->settings.server_drain_seconds);
	control_set_draining(p->control);
	rendezvous_init(&all, p->worker_count);
	for (unsigned i = 0; i < p->worker_count; i++)
		worker_drain(p->workers[i], arrive, &all);
	while (!all_idle(&all) && ticks-- > 0) {
		int number = sigtimedwait(signals, NULL, &tick);
		if (number == SIGTERM || number == SIGINT)
			return;
	}
}

/* Whoever waits for others ends before them: the threads that publish snapshots (watcher, control) before the workers,
 * which take them; the workers, which connect to the control plane, before its daemon, which asks the watcher. */
static void stop(struct program *p)
{
	acme_stop(p->acme);
	watcher_stop(p->watcher);
	control_finish(p->control);
	while (p->workers_running)
		worker_stop(p->workers[--p->workers_running]);
	control_stop(p->control);
	watcher_free(p->watcher);
	flusher_stop(p->flusher);
	admission_node_free(p->admission);
	store_free(p->store);
	stats_store_free(p->stats_store);
	stats_aggregate_free(p->aggregate);
	stats_free(p->stats);
	redis_address_fini(&p->redis);
	embedded_redis_stop(p->embedded);
	if (p->settings.tls_enabled)
		certificates_fini();
	egress_fini();
	secret_fini(&p->admin_token);
	free(p->node);
	settings_free(&p->settings);
	curl_global_cleanup();
}

static int serve(struct program *p)
{
	sigset_t signals;
	block_signals(&signals);
	log_configure(p->settings.log_level, p->settings.log_format == LOG_FORMAT_JSON);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return 1;
	bool booted = boot(p);
	if (booted) {
		serve_until_told(p, &signals);
		drain(p, &signals);
	}
	stop(p); /* also what a boot that failed had started */
	if (booted)
		log_info("main", "stopped");
	return booted ? 0 : 1;
}

/* ---- what the settings name: known to be good before anything starts ---- */

static bool is_bootstrap_good(const struct settings *s)
{
	struct faults faults = {0};
	bool good = !*s->bootstrap_file || store_check_bootstrap(s->bootstrap_file, &faults);
	if (!good) {
		char *text = faults_join(&faults);
		char *what =
			check_printf("bad bootstrap document: %s; accepted: a configuration document, as for PUT /api/config",
				text);
		settings_refuse(s, "bootstrap", "file", what);
		free(what);
		free(text);
	}
	faults_fini(&faults);
	return good;
}

static bool is_certificate_good(const struct settings *s)
{
	const char *key;
	char *what = certificates_check(s, &key);
	if (what)
		settings_refuse(s, "tls", key, what);
	free(what);
	return !what;
}

static bool are_settings_usable(const struct settings *s)
{
	return egress_init() && is_certificate_good(s) && is_bootstrap_good(s);
}

/* What a full disk did not take is not printed. */
static int printed(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	fprintf(stderr, "apiproxy: standard output: %s\n", strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	static struct program program;
	struct program *p = &program;
	if (!settings_parse_arguments(argc, argv, &p->options))
		return 1;
	switch (p->options.command) {
	case SETTINGS_VERSION:
		printf("apiproxy %s\n", APIPROXY_VERSION);
		return printed();
	case SETTINGS_HELP:
		settings_print_help(stdout);
		return printed();
	case SETTINGS_PRINT_MARKDOWN:
		settings_print_markdown(stdout);
		return printed();
	case SETTINGS_PRINT_ENV_EXAMPLE:
		settings_print_env_example(stdout);
		return printed();
	case SETTINGS_CHECK:
	case SETTINGS_PRINT_CONFIG:
	case SETTINGS_SERVE:
		break;
	}
	if (!settings_load(&p->settings, &p->options))
		return 1;
	if (p->options.command == SETTINGS_PRINT_CONFIG) {
		settings_print_config(&p->settings, stdout);
		return printed();
	}
	if (!are_settings_usable(&p->settings))
		return 1;
	if (p->options.command == SETTINGS_CHECK) {
		settings_print_check(&p->settings, stdout);
		return printed();
	}
	return serve(p);
}
