/* What the tests of admission share: a real redis-server, workers with loops of their own, and requests that are
 * started, settled and cancelled from outside. The snapshot is a double that counts references. Included once a
 * program. */
#ifndef TESTS_UNIT_ADMISSION_FIXTURE_H
#define TESTS_UNIT_ADMISSION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "base/clock.h"
#include "path/admission_internal.h"
#include "state/redis_sync.h"
#include "state/redis_url.h"

static char directory[] = "/tmp/apiproxy-admission-XXXXXX";
static char socket_path[64];
static pid_t server;
static struct redis_address address;

/* ---- doubles ---- */

static atomic_int references;

struct snapshot *snapshot_ref(struct snapshot *s)
{
	atomic_fetch_add(&references, 1);
	return s;
}

void snapshot_unref(struct snapshot *s)
{
	if (s)
		atomic_fetch_sub(&references, 1);
}

/* The one that every snapshot has. */
static const struct mapping *_Atomic mapping_now;

const struct mapping *snapshot_route(const struct snapshot *s, const char *path, size_t length)
{
	(void)s;
	const struct mapping *m = mapping_now;
	return m && m->prefix && strlen(m->prefix) == length && memcmp(m->prefix, path, length) == 0 ? m : NULL;
}

static struct mapping plain = {.prefix = "/plain", .auth_required = true, .enabled = true};
static struct subject client;
static char client_id[32];
static unsigned clients;

/* A client nobody has met yet. */
static inline void fresh_client(struct limits limits)
{
	snprintf(client_id, sizeof client_id, "client-%u", ++clients);
	client = (struct subject){.id = client_id, .name = "", .enabled = true, .limits = limits};
}

/* ---- Redis ---- */

static inline void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static inline int start_server(void **state)
{
	(void)state;
	if (!socket_path[0]) {
		assert_non_null(mkdtemp(directory));
		snprintf(socket_path, sizeof socket_path, "%s/redis.sock", directory);
		char url[80];
		snprintf(url, sizeof url, "unix://%s", socket_path);
		assert_null(redis_address_parse(url, &address));
	}
	unlink(socket_path);
	server = fork();
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket_path, "--save", "", "--dir",
			directory, "--logfile", "redis.log", (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 200 && access(socket_path, F_OK) != 0; i++)
		pause_ms(25);
	return access(socket_path, F_OK);
}

static inline int stop_server(void **state)
{
	char command[128];
	(void)state;
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	snprintf(command, sizeof command, "rm -rf %s", directory);
	redis_address_fini(&address);
	return system(command);
}

static inline long long ask(const char *format, ...)
{
	va_list arguments;
	redisContext *c = redisConnectUnix(socket_path);
	assert_non_null(c);
	va_start(arguments, format);
	redisReply *reply = redisvCommand(c, format, arguments);
	va_end(arguments);
	assert_non_null(reply);
	long long value = reply->type == REDIS_REPLY_STRING ? atoll(reply->str) : reply->integer;
	freeReplyObject(reply);
	redisFree(c);
	return value;
}

/* ---- workers ---- */

struct worker {
	pthread_t thread;
	struct loop *loop;
	struct admission *admission;
	struct admission_node *node;
};

struct work { /* done on a worker, waited for */
	void (*run)(struct work *work);
	struct worker *worker;
	struct job *job, **jobs;
	const struct admission_result *result;
	enum admission_outcome outcome;
	unsigned status;
	uint64_t retry_after_ms;
	bool usable;
	bool done;
};

struct job {
	struct admission_request rq;
	struct worker *worker;
	bool decided, waiting; /* under `lock` */
	uint64_t at_ms;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static inline void run_work(void *argument)
{
	struct work *work = argument;
	work->run(work);
	pthread_mutex_lock(&lock);
	work->done = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static inline void on_worker(struct worker *w, struct work *work)
{
	work->worker = w;
	loop_post(w->loop, run_work, work);
	pthread_mutex_lock(&lock);
	while (!work->done)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static inline void *run_loop(void *argument)
{
	struct worker *w = argument;
	loop_run(w->loop);
	return NULL;
}

static inline void work_new(struct work *work)
{
	work->worker->admission = admission_new(work->worker->node, work->worker->loop);
}

static inline void work_free(struct work *work)
{
	admission_free(work->worker->admission);
}

static inline void work_nothing(struct work *work)
{
	(void)work;
}

static inline void worker_start(struct worker *w, struct admission_node *node)
{
	w->node = node;
	w->loop = loop_new();
	assert_int_equal(pthread_create(&w->thread, NULL, run_loop, w), 0);
	on_worker(w, &(struct work){.run = work_new});
}

static inline void work_look(struct work *work)
{
	work->usable = redis_async_usable(work->worker->admission->redis);
}

static inline bool redis_is_usable(struct worker *w)
{
	struct work work = {.run = work_look};
	on_worker(w, &work);
	return work.usable;
}

static inline bool redis_gets_usable(struct worker *w)
{
	for (int i = 0; i < 400 && !redis_is_usable(w); i++)
		pause_ms(10);
	return redis_is_usable(w);
}

static inline void worker_stop(struct worker *w)
{
	on_worker(w, &(struct work){.run = work_free});
	on_worker(w, &(struct work){.run = work_nothing}); /* a turn for what is freed later */
	loop_stop(w->loop);
	pthread_join(w->thread, NULL);
	loop_free(w->loop);
}

static inline struct admission_node *node_new(enum admission_failure_policy policy)
{
	return admission_node_new(&address, policy);
}

/* One node with one worker, for most tests. */
static struct worker one;

static inline int start_one(void **state)
{
	(void)state;
	worker_start(&one, node_new(ADMISSION_LOCAL));
	return !redis_gets_usable(&one);
}

static inline int stop_one(void **state)
{
	(void)state;
	worker_stop(&one);
	admission_node_free(one.node);
	return atomic_load(&references);
}

/* ---- jobs ---- */

static inline void note(struct admission_request *rq, bool decided)
{
	struct job *j = container_of(rq, struct job, rq);
	pthread_mutex_lock(&lock);
	j->decided |= decided;
	j->waiting |= !decided;
	j->at_ms = clock_monotonic_ms();
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static inline void on_decided(struct admission_request *rq)
{
	note(rq, true);
}

static inline void on_waiting(struct admission_request *rq)
{
	note(rq, false);
}

static inline void work_start(struct work *work)
{
	if (admission_start(work->worker->admission, &work->job->rq))
		on_decided(&work->job->rq);
}

static inline struct job *job_new(struct worker *w, const struct subject *s, const struct mapping *m, uint64_t input,
	uint64_t output)
{
	struct job *j = check_calloc(1, sizeof *j);
	j->worker = w;
	j->rq = (struct admission_request){.snapshot = (struct snapshot *)(uintptr_t)&client,
		.mapping = m,
		.subject = s,
		.input_tokens = input,
		.output_tokens = output,
		.on_decided = on_decided,
		.on_waiting = on_waiting};
	return j;
}

static inline struct job *begin(struct worker *w, const struct subject *s, const struct mapping *m, uint64_t input,
	uint64_t output)
{
	struct job *j = job_new(w, s, m, input, output);
	on_worker(w, &(struct work){.run = work_start, .job = j});
	return j;
}

static inline bool wait_for(struct job *j, bool for_waiting, unsigned ms)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&lock);
	int failed = 0;
	while (!failed && !j->decided && !(for_waiting && j->waiting))
		failed = pthread_cond_timedwait(&changed, &lock, &until);
	bool fine = j->decided || (for_waiting && j->waiting);
	pthread_mutex_unlock(&lock);
	return fine;
}

static inline enum problem_id decided(struct job *j)
{
	assert_true(wait_for(j, false, 5000));
	return j->rq.problem;
}

static inline void work_settle(struct work *work)
{
	admission_settle(&work->job->rq, work->result);
}

static inline void work_take_snapshot(struct work *work)
{
	admission_take_snapshot(work->worker->admission, (struct snapshot *)(uintptr_t)mapping_now);
}

/* From now on this mapping, or none, is all that there is. */
static inline void change_to(struct worker *w, const struct mapping *m)
{
	static const struct mapping none;
	mapping_now = m ? m : &none;
	on_worker(w, &(struct work){.run = work_take_snapshot});
}

static inline void work_cancel(struct work *work)
{
	admission_cancel(&work->job->rq);
}

static inline void settle(struct job *j, const struct admission_result *result)
{
	on_worker(j->worker, &(struct work){.run = work_settle, .job = j, .result = result});
	free(j);
}

static inline void done(struct job *j)
{
	settle(j, &(struct admission_result){.sent = true, .outcome = ADMISSION_SUCCESS, .status = 200});
}

static inline void done_with(struct job *j, uint64_t input, uint64_t output)
{
	settle(j,
		&(struct admission_result){.sent = true,
			.tokens_known = true,
			.input_tokens = input,
			.output_tokens = output,
			.outcome = ADMISSION_SUCCESS,
			.status = 200});
}

static inline void failed_before_sending(struct job *j)
{
	settle(j, &(struct admission_result){.sent = false});
}

static inline void cancel(struct job *j)
{
	on_worker(j->worker, &(struct work){.run = work_cancel, .job = j});
	free(j);
}

static inline void work_next_key(struct work *work)
{
	if (admission_next_key(&work->job->rq, work->outcome, work->status, work->retry_after_ms))
		on_decided(&work->job->rq);
}

static inline enum problem_id next_key(struct job *j, unsigned status, uint64_t retry_after_ms)
{
	j->decided = false;
	on_worker(j->worker,
		&(struct work){.run = work_next_key,
			.job = j,
			.outcome = admission_outcome_of_status(status),
			.status = status,
			.retry_after_ms = retry_after_ms});
	return decided(j);
}

#endif
