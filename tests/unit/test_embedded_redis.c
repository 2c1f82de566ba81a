/* embedded_redis: ready, private, kept alive, ended with its parent, data kept. Skipped where no
 * redis-server is installed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <hiredis/hiredis.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/child.h"
#include "ops/embedded_redis.h"
#include "state/redis_url.h"
#include "state/settings.h"
#include "files_fixture.h"

static char directory[] = "/tmp/apiproxy-redis-XXXXXX";
static struct settings settings;

static int enter(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	log_configure(LOG_ERROR + 1, false);
	return 0;
}

static int leave(void **state)
{
	(void)state;
	return files_remove(directory);
}

static int begin(void **state)
{
	static int number;
	(void)state;
	char *program = child_find_program("redis-server");
	if (!program)
		skip();
	free(program);
	free(settings.server_data_dir);
	settings.server_data_dir = check_printf("%s/d%d", directory, number++);
	return 0;
}

static redisContext *connect_to(const char *url)
{
	struct redis_address address;
	assert_null(redis_address_parse(url, &address));
	assert_non_null(address.unix_path);
	redisContext *context = redisConnectUnix(address.unix_path);
	redis_address_fini(&address);
	if (context && context->err) {
		redisFree(context);
		return NULL;
	}
	return context;
}

/* The text of the reply to a command without spaces in its words; "" for nil. */
static char *ask(const char *url, const char *command)
{
	redisContext *context = connect_to(url);
	assert_non_null(context);
	redisReply *reply = redisCommand(context, command);
	assert_non_null(reply);
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) /* CONFIG GET */
		assert_non_null(reply->element[1]->str);
	const char *text = reply->type == REDIS_REPLY_ARRAY ? reply->elements == 2 ? reply->element[1]->str : "" :
		reply->str                                      ? reply->str :
														  "";
	char *copy = check_strdup(text);
	freeReplyObject(reply);
	redisFree(context);
	return copy;
}

static void expect(const char *url, const char *command, const char *expected)
{
	char *text = ask(url, command);
	assert_string_equal(text, expected);
	free(text);
}

static void test_start_and_data(void **state)
{
	struct stat status;
	(void)state;
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	expect(embedded_redis_url(r), "SET a 1", "OK");
	expect(embedded_redis_url(r), "CONFIG GET port", "0");
	expect(embedded_redis_url(r), "CONFIG GET appendonly", "yes");
	char *path = check_printf("%s/redis", settings.server_data_dir);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0700);
	free(path);
	int pid = embedded_redis_pid(r);
	assert_int_equal(kill(pid, 0), 0);
	embedded_redis_stop(r);
	assert_int_equal(kill(pid, 0), -1);

	r = embedded_redis_start(&settings);
	assert_non_null(r);
	expect(embedded_redis_url(r), "GET a", "1");
	embedded_redis_stop(r);
}

static void test_lock(void **state)
{
	(void)state;
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	assert_null(embedded_redis_start(&settings));
	expect(embedded_redis_url(r), "PING", "PONG");
	embedded_redis_stop(r);
}

static void wait_for_another(const struct embedded_redis *r, int pid, int seconds)
{
	for (int i = 0; i < seconds * 100 && (embedded_redis_pid(r) == pid || !embedded_redis_pid(r)); i++)
		poll(NULL, 0, 10);
	assert_true(embedded_redis_pid(r) > 0 && embedded_redis_pid(r) != pid);
}

static void test_restart(void **state)
{
	(void)state;
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	expect(embedded_redis_url(r), "SET a 2", "OK");
	for (int round = 0; round < 2; round++) {
		int killed = embedded_redis_pid(r);
		assert_int_equal(kill(killed, SIGKILL), 0);
		wait_for_another(r, killed, 5);
		expect(embedded_redis_url(r), "GET a", "2");
	}
	embedded_redis_stop(r);
}

/* Short of that it is left alone; what it had answered for is still there. */
static void test_replaced_when_it_hangs(void **state)
{
	(void)state;
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	expect(embedded_redis_url(r), "SET a 4", "OK");
	int frozen = embedded_redis_pid(r);
	assert_int_equal(kill(frozen, SIGSTOP), 0);
	poll(NULL, 0, 4000);
	assert_int_equal(embedded_redis_pid(r), frozen);
	assert_int_equal(kill(frozen, SIGCONT), 0);
	poll(NULL, 0, 1500);
	assert_int_equal(kill(frozen, SIGSTOP), 0);
	poll(NULL, 0, 8000); /* counted anew */
	assert_int_equal(embedded_redis_pid(r), frozen);
	wait_for_another(r, frozen, 10);
	expect(embedded_redis_url(r), "GET a", "4");
	embedded_redis_stop(r);
}

/* A lack of our own says nothing about the server. */
static void test_kept_where_descriptors_lack(void **state)
{
	struct rlimit limit, none;
	(void)state;
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	int pid = embedded_redis_pid(r);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	poll(NULL, 0, 7500);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(embedded_redis_pid(r), pid);
	expect(embedded_redis_url(r), "PING", "PONG");
	embedded_redis_stop(r);
}

static void test_directory_that_was_removed(void **state)
{
	(void)state;
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	char *command = check_printf("rm -rf %s/redis", settings.server_data_dir);
	assert_int_equal(system(command), 0);
	free(command);
	int killed = embedded_redis_pid(r);
	assert_int_equal(kill(killed, SIGKILL), 0);
	wait_for_another(r, killed, 5);
	expect(embedded_redis_url(r), "PING", "PONG");
	embedded_redis_stop(r);
}

/* A process that is killed takes even a server that hangs along, and the next one starts at once. */
static void test_ends_with_its_parent(void **state)
{
	int ends[2], pid = 0;
	(void)state;
	assert_int_equal(pipe(ends), 0);
	pid_t parent = fork();
	if (parent == 0) {
		struct embedded_redis *r = embedded_redis_start(&settings);
		pid = r ? embedded_redis_pid(r) : 0;
		if (r)
			free(ask(embedded_redis_url(r), "SET a 3"));
		if (write(ends[1], &pid, sizeof pid) != sizeof pid)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ends[0], &pid, sizeof pid), sizeof pid);
	close(ends[0]);
	close(ends[1]);
	assert_true(pid > 0);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(kill(parent, SIGKILL), 0);
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	assert_int_not_equal(embedded_redis_pid(r), pid);
	expect(embedded_redis_url(r), "GET a", "3");
	embedded_redis_stop(r);
}

static void test_deep_directory(void **state)
{
	(void)state;
	char *deep = check_printf("%s/%0100d/with a space %%/?", settings.server_data_dir, 0);
	free(settings.server_data_dir);
	settings.server_data_dir = deep;
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	expect(embedded_redis_url(r), "PING", "PONG");
	embedded_redis_stop(r);
}

static void test_odd_directory(void **state)
{
	(void)state;
	char *odd = check_printf("%s/a b?c%%d\"'\\", settings.server_data_dir);
	free(settings.server_data_dir);
	settings.server_data_dir = odd;
	struct embedded_redis *r = embedded_redis_start(&settings);
	assert_non_null(r);
	expect(embedded_redis_url(r), "PING", "PONG");
	embedded_redis_stop(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_start_and_data, begin),
		cmocka_unit_test_setup(test_lock, begin), cmocka_unit_test_setup(test_restart, begin),
		cmocka_unit_test_setup(test_replaced_when_it_hangs, begin),
		cmocka_unit_test_setup(test_kept_where_descriptors_lack, begin),
		cmocka_unit_test_setup(test_directory_that_was_removed, begin),
		cmocka_unit_test_setup(test_ends_with_its_parent, begin), cmocka_unit_test_setup(test_deep_directory, begin),
		cmocka_unit_test_setup(test_odd_directory, begin)};
	int failed = cmocka_run_group_tests_name("embedded_redis", tests, enter, leave);
	free(settings.server_data_dir);
	return failed;
}
