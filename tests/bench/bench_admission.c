/* bench_admission: what an admission and its settlement cost Redis, µs of its CPU (INFO cpu), with all
 * limits on: places, three windows, a vendor key with a window of its own, the day's figures; and a trivial
 * EVALSHA of as many arguments beside it. As a busy worker asks: in turns of 32 requests, those of one client in one call; a private redis-server, with and without
 * its append-only file. Prints one line of JSON. Usage: bench_admission [REQUESTS], default 100000. */
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "path/admission_internal.h"

enum { DEPTH = 32, UNDER_WAY = 4 * DEPTH };

struct scene {
	const char *name;
	unsigned clients;
	unsigned nodes;
	double rpm;
};

static const struct scene scenes[] = {
	{"one_client", 1, 1, 1e8},
	{"three_nodes", 1000, 3, 1e8},
	{"nine_nodes", 1000, 9, 1e8},
	{"clients_100000", 100000, 1, 1e8},
	{"rpm_1000000", 1, 1, 1000000},
};

static char directory[] = "/tmp/apiproxy-bench-XXXXXX";
static struct redis_async_script *scripts;
static redisContext *redis;
static pid_t server;

static void start(const char *append_only)
{
	char path[64];
	snprintf(path, sizeof path, "%s/redis.sock", directory);
	unlink(path);
	server = fork();
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", directory,
			"--appendonly", append_only, "--logfile", "redis.log", (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 200 && access(path, F_OK) != 0; i++)
		nanosleep(&(struct timespec){0, 25000000}, NULL);
	redis = redisConnectUnix(path);
	CHECK(redis && !redis->err);
	for (int s = 0; s < ADMISSION_SCRIPTS; s++)
		freeReplyObject(redisCommand(redis, "SCRIPT LOAD %b", scripts[s].text, scripts[s].length));
}

static void stop(void)
{
	redisFree(redis);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
}

static double cpu_us(void)
{
	double total = 0;
	redisReply *info = redisCommand(redis, "INFO cpu");
	static const char *const names[] = {"used_cpu_sys:", "used_cpu_user:"};
	for (int i = 0; i < 2; i++)
		total += atof(strstr(info->str, names[i]) + strlen(names[i])) * 1e6;
	freeReplyObject(info);
	return total;
}

static void send_script(int script, size_t keys, size_t count, const char **parts, const size_t *lengths)
{
	const char *all[20] = {"EVALSHA", scripts[script].sha1, keys == 1 ? "1" : keys == 2 ? "2" : "3"};
	size_t sizes[20] = {7, 40, 1};
	for (size_t i = 0; i < count; i++) {
		all[3 + i] = parts[i];
		sizes[3 + i] = lengths ? lengths[i] : strlen(parts[i]);
	}
	redisAppendCommandArgv(redis, (int)count + 3, all, sizes);
}

static redisReply *receive(void)
{
	redisReply *reply = NULL;
	CHECK(redisGetReply(redis, (void **)&reply) == REDIS_OK && reply->type != REDIS_REPLY_ERROR);
	return reply;
}

struct request {
	char subject[64], usage[64], worker[9];
	double event, made;
};

static void name_request(struct request *r, const struct scene *scene, unsigned number)
{
	unsigned client = (unsigned)((uint64_t)number * 7919 % scene->clients);
	snprintf(r->subject, sizeof r->subject, "apiproxy:limit:{c%u}:c", client);
	snprintf(r->usage, sizeof r->usage, "apiproxy:usage:{c%u}:c", client);
	snprintf(r->worker, sizeof r->worker, "worker%02u", number % scene->nodes % 100);
}

/* As a worker asks at the end of a turn: one call for requests of one client. */
static void send_admissions(struct request *r, int count, const struct scene *scene)
{
	double n[8 + 7 * DEPTH] = {STAGE_SUBJECT | STAGE_POOL, ADMISSION_SPAN_MS, ADMISSION_LEASE_MS, 1e6, scene->rpm,
		1e12, 1e12, count};
	for (int i = 0; i < count; i++)
		memcpy(&n[8 + 7 * i], (double[]){500, 1000, 2, 1 + i % 2, 1e8, 2 - i % 2, 1e8}, 7 * sizeof *n);
	const char *parts[] = {r->subject, r->subject, "apiproxy:limit:{pool}", (char *)n, "", r->worker, "k1", "k2"};
	size_t lengths[] = {strlen(r->subject), strlen(r->subject), 21, sizeof *n * (8 + 7 * (size_t)count), 0, 8, 2, 2};
	send_script(SCRIPT_ADMIT, 3, 8, parts, lengths);
}

static void receive_admissions(struct request *r, int count)
{
	redisReply *reply = receive();
	struct admission_answer answer;
	CHECK(count == 1 || (reply->type == REDIS_REPLY_ARRAY && reply->elements == (size_t)count));
	for (int i = 0; i < count; i++) {
		CHECK(admission_answer_read(&answer, count == 1 ? reply : reply->element[i]) &&
			answer.numbers[ANSWER_VERDICT] == VERDICT_ADMITTED);
		r[i].event = answer.numbers[ANSWER_EVENT];
		r[i].made = answer.numbers[ANSWER_MADE];
	}
	freeReplyObject(reply);
}

static void send_settlements(struct request *r, int count)
{
	struct admission_settlement s = {.day = (double)(time(NULL) / 86400),
		.places = count,
		.usage = {count, 400.0 * count, 700.0 * count}};
	for (int i = 0; i < count; i++) {
		size_t last = (size_t)s.change_count;
		if (!last || s.changes[last - 1].event != r[i].event)
			s.changes[last++] = (struct admission_change){.event = r[i].event, .made = r[i].made};
		CHECK(last < ADMISSION_CHANGES_MAX);
		s.changes[last - 1].amounts[1] += 400 - 500;
		s.changes[last - 1].amounts[2] += 700 - 1000;
		s.change_count = (double)last;
	}
	const char *parts[] = {r->subject, r->usage, (char *)&s, r->worker};
	size_t lengths[] = {strlen(r->subject), strlen(r->usage),
		offsetof(struct admission_settlement, changes) + (size_t)s.change_count * sizeof *s.changes, 8};
	send_script(SCRIPT_SETTLE, 2, 4, parts, lengths);
}

/* Admissions in turns; each is settled when four turns are under way. */
static double play(const struct scene *scene, unsigned requests)
{
	static struct request ring[UNDER_WAY];
	int step = scene->clients == 1 ? DEPTH : 1;
	double before = cpu_us();
	for (unsigned done = 0; done < requests; done += DEPTH) {
		struct request *turn = &ring[done % UNDER_WAY];
		for (int i = 0; i < DEPTH && done >= UNDER_WAY; i += step)
			send_settlements(&turn[i], step);
		for (int i = 0; i < DEPTH && done >= UNDER_WAY; i += step)
			freeReplyObject(receive());
		for (int i = 0; i < DEPTH; i++)
			name_request(&turn[i], scene, done + (unsigned)i);
		for (int i = 0; i < DEPTH; i += step)
			send_admissions(&turn[i], step, scene);
		for (int i = 0; i < DEPTH; i += step)
			receive_admissions(&turn[i], step);
	}
	return (cpu_us() - before) / requests;
}

static double play_trivial(unsigned requests)
{
	freeReplyObject(redisCommand(redis, "SCRIPT LOAD %s", "return 0"));
	struct redis_async_script trivial;
	redis_async_script_init(&trivial, "return 0", 8);
	double before = cpu_us();
	for (unsigned done = 0; done < requests; done += DEPTH) {
		for (int i = 0; i < DEPTH; i++)
			redisAppendCommand(redis,
				"EVALSHA %s 3 apiproxy:limit:{c}:c apiproxy:limit:{c}:c apiproxy:limit:{pool} %s x worker01 k1 k2",
				trivial.sha1,
				"----------------------------------------------------------------------------------------");
		for (int i = 0; i < DEPTH; i++)
			freeReplyObject(receive());
	}
	return (cpu_us() - before) / requests;
}

static void measure(const char *append_only, unsigned requests)
{
	start(append_only);
	printf("\"append_only_%s\":{\"trivial_evalsha_us\":%.2f", append_only, play_trivial(requests));
	for (size_t s = 0; s < sizeof scenes / sizeof *scenes; s++) {
		freeReplyObject(redisCommand(redis, "FLUSHALL"));
		play(&scenes[s], scenes[s].clients > 1000 ? scenes[s].clients / DEPTH * DEPTH : 1024); /* each is known */
		printf(",\"%s_us\":%.2f", scenes[s].name, play(&scenes[s], requests));
	}
	redisReply *bytes = redisCommand(redis, "MEMORY USAGE apiproxy:limit:{c0}:c:e");
	printf(",\"rpm_1000000_list_bytes\":%lld}", bytes->type == REDIS_REPLY_INTEGER ? bytes->integer : 0);
	freeReplyObject(bytes);
	stop();
}

int main(int argc, char **argv)
{
	unsigned requests = argc > 1 ? (unsigned)atoi(argv[1]) / DEPTH * DEPTH : 99840;
	char command[80];
	CHECK(mkdtemp(directory) && requests);
	scripts = admission_scripts_new();
	printf("{\"requests\":%u,", requests);
	measure("no", requests);
	printf(",");
	measure("yes", requests);
	printf("}\n");
	admission_scripts_free(scripts);
	snprintf(command, sizeof command, "rm -rf %s", directory);
	return system(command) != 0;
}
