/* admission against a real redis-server: workers with loops of their own, requests started, settled and
 * cancelled from outside, Redis stopped and killed. The snapshot is a double that counts references. */
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

#include <cjson/cJSON.h>
#include <hiredis/hiredis.h>

#include "base/check.h"
#include "path/admission.h"
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
	(void)s;
	atomic_fetch_sub(&references, 1);
}

static struct mapping plain = {.prefix = "/plain", .auth_required = true, .enabled = true};
static struct subject client;
static char client_id[32];
static unsigned clients;

/* A client nobody has met yet. */
static void fresh_client(struct limits limits)
{
	snprintf(client_id, sizeof client_id, "client-%u", ++clients);
	client = (struct subject){.id = client_id, .name = "", .enabled = true, .limits = limits};
}

/* ---- Redis ---- */

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static uint64_t clock_ms(void)
{
	return loop_now_us() / 1000;
}

static int start_server(void **state)
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
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket_path, "--save", "", "--dir", directory,
		       "--logfile", "redis.log", (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 200 && access(socket_path, F_OK) != 0; i++)
		pause_ms(25);
	return access(socket_path, F_OK);
}

static int stop_server(void **state)
{
	char command[128];
	(void)state;
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	snprintf(command, sizeof command, "rm -rf %s", directory);
	redis_address_fini(&address);
	return system(command);
}

static long long ask(const char *format, ...)
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
	struct job *job;
	const struct admission_result *result;
	enum admission_outcome outcome;
	unsigned status;
	uint64_t retry_after_ms;
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

static void run_work(void *argument)
{
	struct work *work = argument;
	work->run(work);
	pthread_mutex_lock(&lock);
	work->done = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void on_worker(struct worker *w, struct work *work)
{
	work->worker = w;
	loop_post(w->loop, run_work, work);
	pthread_mutex_lock(&lock);
	while (!work->done)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void *run_loop(void *argument)
{
	struct worker *w = argument;
	loop_run(w->loop);
	return NULL;
}

static void work_new(struct work *work)
{
	work->worker->admission = admission_new(work->worker->node, work->worker->loop);
}

static void work_free(struct work *work)
{
	admission_free(work->worker->admission);
}

static void work_nothing(struct work *work)
{
	(void)work;
}

static void worker_start(struct worker *w, struct admission_node *node)
{
	w->node = node;
	w->loop = loop_new();
	assert_int_equal(pthread_create(&w->thread, NULL, run_loop, w), 0);
	on_worker(w, &(struct work){.run = work_new});
}

static void worker_stop(struct worker *w)
{
	on_worker(w, &(struct work){.run = work_free});
	on_worker(w, &(struct work){.run = work_nothing}); /* a turn for what is freed later */
	loop_stop(w->loop);
	pthread_join(w->thread, NULL);
	loop_free(w->loop);
}

static struct admission_node *node_new(enum admission_failure_policy policy)
{
	return admission_node_new(&address, "test", policy);
}

/* One node with one worker, for most tests. */
static struct worker one;

static int start_one(void **state)
{
	(void)state;
	worker_start(&one, node_new(ADMISSION_LOCAL));
	for (int i = 0; i < 200 && !admission_redis_up(one.node); i++)
		pause_ms(5);
	return !admission_redis_up(one.node);
}

static int stop_one(void **state)
{
	(void)state;
	worker_stop(&one);
	admission_node_free(one.node);
	return atomic_load(&references);
}

/* ---- jobs ---- */

static void note(struct admission_request *rq, bool decided)
{
	struct job *j = container_of(rq, struct job, rq);
	pthread_mutex_lock(&lock);
	j->decided |= decided;
	j->waiting |= !decided;
	j->at_ms = clock_ms();
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void on_decided(struct admission_request *rq)
{
	note(rq, true);
}

static void on_waiting(struct admission_request *rq)
{
	note(rq, false);
}

static void work_start(struct work *work)
{
	if (admission_start(work->worker->admission, &work->job->rq))
		on_decided(&work->job->rq);
}

static struct job *begin(struct worker *w, const struct subject *s, const struct mapping *m, uint64_t input, uint64_t output)
{
	struct job *j = check_calloc(1, sizeof *j);
	j->worker = w;
	j->rq = (struct admission_request){.snapshot = (struct snapshot *)(uintptr_t)&client, .mapping = m, .subject = s,
		.input_tokens = input, .output_tokens = output, .on_decided = on_decided, .on_waiting = on_waiting};
	on_worker(w, &(struct work){.run = work_start, .job = j});
	return j;
}

static bool wait_for(struct job *j, bool for_waiting, unsigned ms)
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

static enum problem_id decided(struct job *j)
{
	assert_true(wait_for(j, false, 5000));
	return j->rq.problem;
}

static void work_settle(struct work *work)
{
	admission_settle(&work->job->rq, work->result);
}

static void work_cancel(struct work *work)
{
	admission_cancel(&work->job->rq);
}

static void settle(struct job *j, const struct admission_result *result)
{
	on_worker(j->worker, &(struct work){.run = work_settle, .job = j, .result = result});
	free(j);
}

static void done(struct job *j)
{
	settle(j, &(struct admission_result){.sent = true, .outcome = ADMISSION_SUCCESS, .status = 200});
}

static void done_with(struct job *j, uint64_t input, uint64_t output)
{
	settle(j, &(struct admission_result){.sent = true, .tokens_known = true, .input_tokens = input, .output_tokens = output,
		.outcome = ADMISSION_SUCCESS, .status = 200});
}

static void failed_before_sending(struct job *j)
{
	settle(j, &(struct admission_result){.sent = false});
}

static void cancel(struct job *j)
{
	on_worker(j->worker, &(struct work){.run = work_cancel, .job = j});
	free(j);
}

static void work_next_key(struct work *work)
{
	if (admission_next_key(&work->job->rq, work->outcome, work->status, work->retry_after_ms))
		on_decided(&work->job->rq);
}

static enum problem_id next_key(struct job *j, unsigned status, uint64_t retry_after_ms)
{
	j->decided = false;
	on_worker(j->worker, &(struct work){.run = work_next_key, .job = j, .outcome = admission_outcome_of_status(status),
		.status = status, .retry_after_ms = retry_after_ms});
	return decided(j);
}

/* ---- concurrency and windows ---- */

static void without_limits_nothing_is_asked(void **state)
{
	(void)state;
	fresh_client((struct limits){0});
	struct job *j = begin(&one, &client, &plain, 10, 10);
	assert_true(j->decided);
	assert_int_equal(j->rq.problem, PROBLEM_NONE);
	assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].limit, 0);
	done(j);
}

static void requests_stop_at_the_limit(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 5});
	for (int i = 0; i < 5; i++) {
		struct job *j = begin(&one, &client, &plain, 1, 1);
		assert_int_equal(decided(j), PROBLEM_NONE);
		assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].limit, 5);
		assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].remaining, 4 - i);
		assert_in_range(j->rq.figures[ADMISSION_REQUESTS].reset_ms, 59900, 60000);
		done(j);
	}
	struct job *j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_RATE_LIMIT);
	assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].remaining, 0);
	assert_in_range(j->rq.retry_after_ms, 58000, 60000);
	cancel(j);
}

static void what_was_not_sent_is_given_back(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 1, .input_tpm = 100, .max_concurrency = 1});
	for (int i = 0; i < 3; i++) {
		struct job *j = begin(&one, &client, &plain, 100, 0);
		assert_int_equal(decided(j), PROBLEM_NONE);
		failed_before_sending(j);
	}
	struct job *j = begin(&one, &client, &plain, 100, 0);
	assert_int_equal(decided(j), PROBLEM_NONE);
	done(j);
	j = begin(&one, &client, &plain, 1, 0);
	assert_int_equal(decided(j), PROBLEM_RATE_LIMIT);
	cancel(j);
}

static void tokens_are_reserved_then_settled(void **state)
{
	(void)state;
	fresh_client((struct limits){.input_tpm = 1000, .output_tpm = 500});
	struct job *a = begin(&one, &client, &plain, 600, 100);
	assert_int_equal(decided(a), PROBLEM_NONE);
	struct job *b = begin(&one, &client, &plain, 600, 100);
	assert_int_equal(decided(b), PROBLEM_RATE_LIMIT);
	cancel(b);
	done_with(a, 200, 50);
	b = begin(&one, &client, &plain, 600, 100);
	assert_int_equal(decided(b), PROBLEM_NONE);
	assert_int_equal(b->rq.figures[ADMISSION_INPUT_TOKENS].remaining, 200);
	assert_int_equal(b->rq.figures[ADMISSION_OUTPUT_TOKENS].remaining, 350);
	done_with(b, 600, 900); /* more than it reserved: over the limit, and then nothing goes */
	b = begin(&one, &client, &plain, 1, 0);
	assert_int_equal(decided(b), PROBLEM_RATE_LIMIT);
	assert_int_equal(b->rq.figures[ADMISSION_OUTPUT_TOKENS].remaining, 0);
	cancel(b);
}

static void places_are_for_all_nodes(void **state)
{
	struct worker two;
	(void)state;
	worker_start(&two, node_new(ADMISSION_LOCAL));
	fresh_client((struct limits){.max_concurrency = 2});
	struct job *a = begin(&one, &client, &plain, 1, 1), *b = begin(&two, &client, &plain, 1, 1);
	assert_int_equal(decided(a), PROBLEM_NONE);
	assert_int_equal(decided(b), PROBLEM_NONE);
	struct job *c = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(c), PROBLEM_CONCURRENCY_LIMIT);
	assert_true(c->rq.retry_after_ms > 0);
	cancel(c);
	done(b);
	pause_ms(20);
	c = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(c), PROBLEM_NONE);
	done(a);
	done(c);
	worker_stop(&two);
	admission_node_free(two.node);
}

static void scripts_that_were_forgotten_come_back(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 2});
	struct job *j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	ask("SCRIPT FLUSH");
	done(j);
	j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	done(j);
	j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_RATE_LIMIT);
	cancel(j);
}

static void usage_is_counted_by_day(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 100});
	static const uint64_t tokens[2][2] = {{11, 22}, {100, 200}};
	for (int i = 0; i < 2; i++) {
		struct job *j = begin(&one, &client, &plain, 5, 5);
		assert_int_equal(decided(j), PROBLEM_NONE);
		done_with(j, tokens[i][0], tokens[i][1]);
	}
	pause_ms(50);
	ask("HSET apiproxy:usage:{%s}:c %lld %s", client.id, (long long)(time(NULL) / 86400 - 3), "7 8 9");
	struct redis_sync *redis = redis_sync_new(&address, 1000);
	cJSON *json = admission_usage_json(redis, &client);
	assert_non_null(json);
	cJSON *current = cJSON_GetObjectItem(json, "current"), *days = cJSON_GetObjectItem(json, "days");
	assert_int_equal(cJSON_GetObjectItem(current, "requests")->valueint, 2);
	assert_int_equal(cJSON_GetArraySize(days), 30);
	cJSON *today = cJSON_GetArrayItem(days, 0), *before = cJSON_GetArrayItem(days, 3);
	assert_int_equal(cJSON_GetObjectItem(today, "requests")->valueint, 2);
	assert_int_equal(cJSON_GetObjectItem(today, "input_tokens")->valueint, 111);
	assert_int_equal(cJSON_GetObjectItem(today, "output_tokens")->valueint, 222);
	assert_int_equal(cJSON_GetObjectItem(before, "requests")->valueint, 7);
	assert_int_equal(strlen(cJSON_GetObjectItem(today, "date")->valuestring), 10);
	cJSON_Delete(json);
	redis_sync_free(redis);
}

/* ---- queue ---- */

static struct mapping line = {.prefix = "/line", .auth_required = true, .has_queue = true, .queue_rate_per_second = 5,
	.queue_capacity = 3, .queue_timeout_ms = 5000};

static void a_queue_paces_and_refuses_one_too_many(void **state)
{
	struct job *jobs[9];
	(void)state;
	fresh_client((struct limits){.rpm = 100});
	line.prefix = "/line/1";
	uint64_t began = clock_ms();
	for (int i = 0; i < 9; i++)
		jobs[i] = begin(&one, &client, &line, 1, 1);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		assert_false(jobs[i]->rq.queued);
	}
	assert_int_equal(decided(jobs[8]), PROBLEM_QUEUE_FULL);
	assert_true(jobs[8]->rq.retry_after_ms > 0);
	uint64_t last = 0;
	for (int i = 5; i < 8; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		assert_true(jobs[i]->rq.queued);
		assert_true(jobs[i]->at_ms >= last);
		assert_in_range(jobs[i]->at_ms - began, 1000, 1200);
		last = jobs[i]->at_ms;
	}
	cancel(jobs[8]);
	for (int i = 0; i < 8; i++)
		done(jobs[i]);
}

static void a_waiter_times_out_and_leaves_nothing(void **state)
{
	struct job *jobs[3];
	(void)state;
	fresh_client((struct limits){.rpm = 100, .max_concurrency = 2});
	struct mapping m = line;
	m.prefix = "/line/2";
	m.queue_rate_per_second = 0.5;
	m.queue_timeout_ms = 200;
	for (int i = 0; i < 2; i++)
		jobs[i] = begin(&one, &client, &m, 1, 1);
	assert_int_equal(decided(jobs[0]), PROBLEM_NONE);
	assert_int_equal(decided(jobs[1]), PROBLEM_QUEUE_TIMEOUT);
	assert_in_range(jobs[1]->rq.waited_ms, 190, 320);
	assert_in_range(jobs[1]->rq.retry_after_ms, 1000, 2000);
	cancel(jobs[1]);
	pause_ms(20);
	jobs[2] = begin(&one, &client, &plain, 1, 1); /* its place is free again */
	assert_int_equal(decided(jobs[2]), PROBLEM_NONE);
	assert_int_equal(jobs[2]->rq.figures[ADMISSION_REQUESTS].remaining, 98);
	done(jobs[0]);
	done(jobs[2]);
}

static void who_leaves_moves_the_others_forward(void **state)
{
	struct job *jobs[4];
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = line;
	m.prefix = "/line/3";
	m.queue_rate_per_second = 1;
	m.queue_capacity = 2;
	uint64_t began = clock_ms();
	for (int i = 0; i < 3; i++)
		jobs[i] = begin(&one, &client, &m, 1, 1);
	assert_true(wait_for(jobs[2], true, 1000));
	jobs[3] = begin(&one, &client, &m, 1, 1);
	assert_int_equal(decided(jobs[3]), PROBLEM_QUEUE_FULL);
	cancel(jobs[3]);
	cancel(jobs[1]);
	pause_ms(30);
	jobs[3] = begin(&one, &client, &m, 1, 1); /* takes the start that was given back, the second */
	assert_true(wait_for(jobs[3], true, 1000));
	assert_int_equal(decided(jobs[2]), PROBLEM_NONE);
	assert_in_range(jobs[2]->at_ms - began, 1000, 1200);
	assert_int_equal(decided(jobs[3]), PROBLEM_NONE);
	assert_in_range(jobs[3]->at_ms - began, 2010, 2250);
	done(jobs[0]);
	done(jobs[2]);
	done(jobs[3]);
}

/* ---- vendor keys ---- */

static struct vendor_key keys[] = {
	{.id = "k1", .secret = "s", .weight = 3, .enabled = true},
	{.id = "k2", .secret = "s", .weight = 1, .enabled = true},
	{.id = "k3", .secret = "s", .weight = 9, .enabled = false},
};
static const struct vendor_key *const key_list[] = {&keys[0], &keys[1], &keys[2]};
static struct pool pool = {.key_count = 3, .keys = key_list};
static struct mapping pooled = {.auth_required = false, .enabled = true, .pool = &pool};
static char pool_name[32], pooled_prefix[32];
static unsigned pools;

static void fresh_pool(uint64_t limit1, uint64_t limit2)
{
	snprintf(pool_name, sizeof pool_name, "pool-%u", ++pools);
	snprintf(pooled_prefix, sizeof pooled_prefix, "/pooled-%u", pools);
	pool.name = pooled.pool_name = pool_name;
	pooled.prefix = pooled_prefix;
	keys[0].max_requests_per_minute = limit1;
	keys[1].max_requests_per_minute = limit2;
	keys[0].pool = keys[1].pool = pool_name;
}

static struct job *with_key(enum problem_id problem)
{
	struct job *j = begin(&one, NULL, &pooled, 0, 0);
	assert_int_equal(decided(j), problem);
	assert_int_equal(j->rq.key != NULL, problem == PROBLEM_NONE);
	return j;
}

static void keys_go_by_weight(void **state)
{
	int first = 0;
	(void)state;
	fresh_pool(0, 0);
	for (int i = 0; i < 40; i++) {
		struct job *j = with_key(PROBLEM_NONE);
		first += j->rq.key == &keys[0];
		done(j);
	}
	assert_int_equal(first, 30);
}

static void keys_stop_at_their_limits(void **state)
{
	int first = 0;
	(void)state;
	fresh_pool(3, 2);
	for (int i = 0; i < 5; i++) {
		struct job *j = with_key(PROBLEM_NONE);
		first += j->rq.key == &keys[0];
		done(j);
	}
	assert_int_equal(first, 3);
	struct job *j = with_key(PROBLEM_UPSTREAM_RATE_LIMIT);
	assert_in_range(j->rq.retry_after_ms, 58000, 60000);
	cancel(j);
}

static void a_throttled_key_cools_for_what_the_vendor_asked(void **state)
{
	(void)state;
	fresh_pool(0, 0);
	struct job *j = with_key(PROBLEM_NONE);
	assert_ptr_equal(j->rq.key, &keys[0]);
	assert_int_equal(next_key(j, 429, 1200), PROBLEM_NONE);
	assert_ptr_equal(j->rq.key, &keys[1]);
	assert_int_equal(next_key(j, 429, 60000), PROBLEM_NO_UPSTREAM_KEY); /* each was tried: the answer is the vendor's */
	settle(j, &(struct admission_result){.sent = true, .status = 429});
	j = with_key(PROBLEM_UPSTREAM_RATE_LIMIT);
	assert_in_range(j->rq.retry_after_ms, 1000, 1200);
	cancel(j);
	pause_ms(1250);
	struct job *trial = with_key(PROBLEM_NONE); /* one goes first */
	assert_ptr_equal(trial->rq.key, &keys[0]);
	cancel(with_key(PROBLEM_UPSTREAM_RATE_LIMIT));
	done(trial);
	pause_ms(1050); /* what this node believed of the key */
	for (int i = 0; i < 4; i++) {
		j = with_key(PROBLEM_NONE);
		assert_ptr_equal(j->rq.key, &keys[0]);
		done(j);
	}
}

/* Requests go on until one has met the first key; the others are well. */
static void first_key_answers(unsigned status)
{
	for (bool met = false; !met;) {
		struct job *j = with_key(PROBLEM_NONE);
		met = j->rq.key == &keys[0];
		unsigned got = met ? status : 200;
		settle(j, &(struct admission_result){.sent = true, .status = got, .outcome = admission_outcome_of_status(got)});
	}
}

static void three_failures_in_a_row_cool(void **state)
{
	struct redis_sync *redis = redis_sync_new(&address, 1000);
	struct admission_key_health health;
	(void)state;
	fresh_pool(0, 0);
	static const unsigned statuses[] = {500, 502, 200, 504, 529, 400}; /* a success starts the count again, a 400 says nothing */
	for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
		first_key_answers(statuses[i]);
	assert_true(admission_key_health(redis, &keys[0], &health));
	assert_int_equal(health.state, ADMISSION_KEY_OK);
	first_key_answers(0);
	pause_ms(20);
	assert_true(admission_key_health(redis, &keys[0], &health));
	assert_int_equal(health.state, ADMISSION_KEY_COOLING);
	assert_string_equal(health.reason, "connection failure");
	assert_in_range(health.until_ms - (int64_t)time(NULL) * 1000, 8000, 11000);
	assert_true(admission_key_reset(redis, &keys[0]));
	assert_true(admission_key_health(redis, &keys[0], &health));
	assert_int_equal(health.state, ADMISSION_KEY_OK);
	redis_sync_free(redis);
}

static void keys_that_are_rejected_leave_none(void **state)
{
	(void)state;
	fresh_pool(0, 0);
	struct job *j = with_key(PROBLEM_NONE);
	assert_int_equal(next_key(j, 401, 0), PROBLEM_NONE);
	assert_int_equal(next_key(j, 403, 0), PROBLEM_NO_UPSTREAM_KEY);
	settle(j, &(struct admission_result){.sent = true, .status = 403});
	cancel(with_key(PROBLEM_NO_UPSTREAM_KEY));
	struct mapping empty = pooled;
	empty.pool = NULL;
	j = begin(&one, NULL, &empty, 0, 0);
	assert_int_equal(decided(j), PROBLEM_NO_UPSTREAM_KEY);
	cancel(j);
}

static void a_refusal_at_the_key_takes_nothing_before_it(void **state)
{
	(void)state;
	fresh_pool(1, 1);
	fresh_client((struct limits){.rpm = 10, .max_concurrency = 5});
	for (int i = 0; i < 4; i++) {
		struct job *j = begin(&one, &client, &pooled, 1, 1);
		assert_int_equal(decided(j), i < 2 ? PROBLEM_NONE : PROBLEM_UPSTREAM_RATE_LIMIT);
		assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].remaining, i < 2 ? 9 - i : 8);
		if (i < 2)
			done(j);
		else
			cancel(j);
	}
}

/* ---- Redis fails ---- */

static void a_hung_redis_is_replaced_at_once(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 6, .max_concurrency = 3});
	struct job *open = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(open), PROBLEM_NONE);
	struct job *j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	done(j);
	pause_ms(20);
	kill(server, SIGSTOP);
	uint64_t began = clock_ms();
	j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	assert_in_range(clock_ms() - began, 0, 400);
	done(j);
	began = clock_ms();
	for (int i = 3; i < 7; i++) { /* what this node saw before counts too */
		j = begin(&one, &client, &plain, 1, 1);
		assert_int_equal(decided(j), i < 6 ? PROBLEM_NONE : PROBLEM_RATE_LIMIT);
		if (i < 6)
			done(j);
		else
			cancel(j);
	}
	assert_in_range(clock_ms() - began, 0, 100);
	assert_false(admission_redis_up(one.node));
	kill(server, SIGCONT);
	for (int i = 0; i < 400 && !admission_redis_up(one.node); i++)
		pause_ms(10);
	assert_true(admission_redis_up(one.node));
	j = begin(&one, &client, &plain, 1, 1); /* Redis has seen two or three of the six, this node all */
	assert_int_equal(decided(j), PROBLEM_RATE_LIMIT);
	cancel(j);
	done(open);
}

static void the_other_policies(void **state)
{
	(void)state;
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	pause_ms(50);
	static const struct { enum admission_failure_policy policy; enum problem_id first, second; } cases[] = {
		{ADMISSION_LOCAL, PROBLEM_NONE, PROBLEM_RATE_LIMIT},
		{ADMISSION_ALLOW, PROBLEM_NONE, PROBLEM_NONE},
		{ADMISSION_DENY, PROBLEM_REDIS_UNAVAILABLE, PROBLEM_REDIS_UNAVAILABLE},
	};
	for (size_t i = 0; i < 3; i++) {
		struct worker w;
		fresh_client((struct limits){.rpm = 1});
		worker_start(&w, node_new(cases[i].policy));
		struct job *a = begin(&w, &client, &plain, 1, 1), *b;
		assert_int_equal(decided(a), cases[i].first);
		b = begin(&w, &client, &plain, 1, 1);
		assert_int_equal(decided(b), cases[i].second);
		cancel(b);
		if (cases[i].first == PROBLEM_NONE)
			done(a);
		else
			cancel(a);
		worker_stop(&w);
		admission_node_free(w.node);
	}
	assert_int_equal(start_server(NULL), 0);
	for (int i = 0; i < 400 && !admission_redis_up(one.node); i++)
		pause_ms(10);
	assert_true(admission_redis_up(one.node));
}

/* ---- many threads, no Redis ---- */

enum { CROWD = 3, EACH = 60 };

static void *crowd(void *argument)
{
	struct worker *w = argument;
	uintptr_t admitted = 0;
	for (int i = 0; i < EACH; i++) {
		struct job *j = begin(w, &client, &plain, 1, 1);
		bool fine = decided(j) == PROBLEM_NONE;
		admitted += fine;
		if (fine)
			done_with(j, 1, 1);
		else
			cancel(j);
	}
	return (void *)admitted;
}

static void workers_share_the_local_windows(void **state)
{
	struct worker workers[CROWD];
	pthread_t threads[CROWD];
	uintptr_t total = 0;
	struct redis_address nowhere = {.unix_path = (char *)(uintptr_t)"/nonexistent/redis.sock", .host = (char *)(uintptr_t)""};
	struct admission_node *node = admission_node_new(&nowhere, "test", ADMISSION_LOCAL);
	(void)state;
	fresh_client((struct limits){.rpm = 100, .input_tpm = 1000, .max_concurrency = 2});
	client.limits.max_concurrency = CROWD;
	for (int i = 0; i < CROWD; i++)
		worker_start(&workers[i], node);
	for (int i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd, &workers[i]), 0);
	for (int i = 0; i < CROWD; i++) {
		void *admitted;
		pthread_join(threads[i], &admitted);
		total += (uintptr_t)admitted;
	}
	assert_int_equal(total, 100);
	for (int i = 0; i < CROWD; i++)
		worker_stop(&workers[i]);
	admission_node_free(node);
}

/* ---- what stays in Redis ---- */

static void every_key_expires(void **state)
{
	(void)state;
	redisContext *c = redisConnectUnix(socket_path);
	redisReply *all = redisCommand(c, "KEYS *");
	assert_true(all->elements > 3);
	for (size_t i = 0; i < all->elements; i++) {
		long long ttl = ask("PTTL %s", all->element[i]->str);
		if (ttl <= 0 && strncmp(all->element[i]->str, "apiproxy:usage:{client", 22) != 0) /* a test's own */
			fail_msg("%s: %lld", all->element[i]->str, ttl);
	}
	freeReplyObject(all);
	redisFree(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_limits_nothing_is_asked, start_one, stop_one),
		cmocka_unit_test_setup_teardown(requests_stop_at_the_limit, start_one, stop_one),
		cmocka_unit_test_setup_teardown(what_was_not_sent_is_given_back, start_one, stop_one),
		cmocka_unit_test_setup_teardown(tokens_are_reserved_then_settled, start_one, stop_one),
		cmocka_unit_test_setup_teardown(places_are_for_all_nodes, start_one, stop_one),
		cmocka_unit_test_setup_teardown(scripts_that_were_forgotten_come_back, start_one, stop_one),
		cmocka_unit_test_setup_teardown(usage_is_counted_by_day, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_queue_paces_and_refuses_one_too_many, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_waiter_times_out_and_leaves_nothing, start_one, stop_one),
		cmocka_unit_test_setup_teardown(who_leaves_moves_the_others_forward, start_one, stop_one),
		cmocka_unit_test_setup_teardown(keys_go_by_weight, start_one, stop_one),
		cmocka_unit_test_setup_teardown(keys_stop_at_their_limits, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_throttled_key_cools_for_what_the_vendor_asked, start_one, stop_one),
		cmocka_unit_test_setup_teardown(three_failures_in_a_row_cool, start_one, stop_one),
		cmocka_unit_test_setup_teardown(keys_that_are_rejected_leave_none, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_refusal_at_the_key_takes_nothing_before_it, start_one, stop_one),
		cmocka_unit_test_setup_teardown(every_key_expires, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_hung_redis_is_replaced_at_once, start_one, stop_one),
		cmocka_unit_test_setup_teardown(the_other_policies, start_one, stop_one),
		cmocka_unit_test(workers_share_the_local_windows),
	};
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
