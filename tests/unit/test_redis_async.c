/* redis_async: which of a name's addresses it connects to, and what it says of Redis meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>
#include <cmocka.h>

#include "base/addresses.h"
#include "base/clock.h"
#include "base/loop.h"
#include "base/redis_async.h"
#include "redis_fixture.h"
#include "../support/names.c"

static const char script_text[] = "return 7";
static struct redis_async_script script;

struct connection {
	struct loop *loop;
	pthread_t thread;
	struct redis_async *redis;
	atomic_int ups, downs, answers, failures;
	char reason[160]; /* of the last change; read once the loop has ended */
};

static struct redis_fixture redis;

static int set_up(void **state)
{
	(void)state;
	redis_fixture_init(&redis);
	redis_fixture_serve_tcp(&redis);
	redis_async_script_init(&script, script_text, sizeof script_text - 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	redis_fixture_fini(&redis);
	return 0;
}

static void on_change(void *context, bool up, const char *reason)
{
	struct connection *c = context;
	snprintf(c->reason, sizeof c->reason, "%s", reason);
	atomic_fetch_add(up ? &c->ups : &c->downs, 1);
}

static void *run(void *argument)
{
	loop_run(((struct connection *)argument)->loop);
	return NULL;
}

static void connect_to(struct connection *c, const char *host, uint16_t port)
{
	memset(c, 0, sizeof *c);
	c->loop = loop_new();
	c->redis = redis_async_new(c->loop,
		&(struct redis_async_options){.host = host,
			.port = port,
			.deadline_ms = 250,
			.scripts = &script,
			.script_count = 1,
			.on_change = on_change,
			.context = c});
	assert_int_equal(pthread_create(&c->thread, NULL, run, c), 0);
}

static void end(struct connection *c)
{
	loop_stop(c->loop);
	pthread_join(c->thread, NULL);
	redis_async_free(c->redis);
	loop_free(c->loop);
}

static bool reaches(atomic_int *counter, int wanted, int within_ms)
{
	for (int64_t end_ms = clock_monotonic_ms() + within_ms; *counter < wanted && clock_monotonic_ms() < end_ms;)
		usleep(2000);
	return *counter >= wanted;
}

static void on_answer(void *argument, const struct redisReply *reply)
{
	struct connection *c = argument;
	atomic_fetch_add(reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == 7 ? &c->answers : &c->failures,
		1);
}

static void call(void *argument)
{
	struct connection *c = argument;
	if (!redis_async_call(c->redis, &script, NULL, 0, 0, on_answer, c))
		atomic_fetch_add(&c->failures, 1);
}

static void assert_answers(struct connection *c)
{
	int before = c->answers;
	loop_post(c->loop, call, c);
	assert_true(reaches(&c->answers, before + 1, 2000));
}

static void test_order(void **state)
{
	struct addresses found;
	(void)state;
	setenv("NAMES", "redis.test ::1 127.0.0.2 ::2 127.0.0.1", 1);
	assert_null(addresses_find(&found, "redis.test"));
	assert_int_equal(found.count, 4);
	assert_string_equal(found.text[0], "127.0.0.2");
	assert_string_equal(found.text[1], "127.0.0.1");
	assert_string_equal(found.text[2], "::1");
	assert_string_equal(found.text[3], "::2");
	assert_null(addresses_find(&found, "::ffff:1.2.3.4"));
	assert_string_equal(found.text[0], "::ffff:1.2.3.4");
	setenv("NAMES", "redis.test", 1);
	assert_non_null(addresses_find(&found, "redis.test"));
	assert_int_equal(found.count, 0);
}

static void test_next_address(void **state)
{
	struct connection c;
	(void)state;
	setenv("NAMES", "redis.test 127.0.0.3 127.0.0.2 127.0.0.1", 1);
	connect_to(&c, "redis.test", redis.port);
	assert_true(reaches(&c.ups, 1, 2000));
	assert_answers(&c);
	assert_int_equal(c.downs, 0);

	redis_fixture_kill(&redis);
	assert_true(reaches(&c.downs, 1, 2000));
	redis_fixture_start(&redis);
	assert_true(reaches(&c.ups, 2, 2000));
	assert_answers(&c);
	end(&c);
}

/* A listener whose queue is full takes nobody: connecting waits until it gives up. */
static void test_silent_address(void **state)
{
	struct connection c;
	struct sockaddr_in silent = {.sin_family = AF_INET, .sin_port = htons(redis.port)};
	int fds[4];
	(void)state;
	inet_pton(AF_INET, "127.0.0.2", &silent.sin_addr);
	for (int i = 0; i < 4; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | (i ? SOCK_NONBLOCK : 0), 0);
		if (i)
			assert_true(connect(fds[i], (struct sockaddr *)&silent, sizeof silent) <= 0);
		else
			assert_int_equal(bind(fds[0], (struct sockaddr *)&silent, sizeof silent) || listen(fds[0], 0), 0);
	}
	setenv("NAMES", "redis.test 127.0.0.2 127.0.0.1", 1);
	connect_to(&c, "redis.test", redis.port);
	assert_true(reaches(&c.ups, 1, 4000));
	assert_int_equal(c.downs, 0);
	assert_answers(&c);
	end(&c);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

static void test_nobody(void **state)
{
	struct connection c;
	(void)state;
	setenv("NAMES", "redis.test 127.0.0.3 127.0.0.2", 1);
	connect_to(&c, "redis.test", redis.port);
	assert_true(reaches(&c.downs, 1, 2000));
	loop_post(c.loop, call, &c);
	assert_true(reaches(&c.failures, 1, 2000));
	usleep(600 * 1000); /* two more rounds */
	end(&c);
	assert_int_equal(c.downs, 1);
	assert_int_equal(c.ups, 0);
	assert_string_equal(c.reason, "cannot connect");
}

/* Somebody answers at the first address: that is Redis, though it refuses. */
static void test_refusal_is_an_answer(void **state)
{
	struct connection c;
	(void)state;
	redis_fixture_do(&redis, "CONFIG SET requirepass secret");
	setenv("NAMES", "redis.test 127.0.0.1 127.0.0.2", 1);
	connect_to(&c, "redis.test", redis.port);
	assert_true(reaches(&c.downs, 1, 2000));
	end(&c);
	assert_non_null(strstr(c.reason, "NOAUTH"));
}

static void test_unknown_name(void **state)
{
	struct connection c;
	(void)state;
	setenv("NAMES", "redis.test", 1);
	connect_to(&c, "redis.test", redis.port);
	assert_true(reaches(&c.downs, 1, 2000));
	end(&c);
	assert_string_equal(c.reason, "its host name is not known");
}

/* The resolver hangs: Redis counts as down, and as there once it has been found. */
static void test_slow_name(void **state)
{
	struct connection c;
	(void)state;
	setenv("NAMES", "redis.test 127.0.0.1", 1);
	setenv("NAMES_MS", "1600", 1);
	connect_to(&c, "redis.test", redis.port);
	assert_true(reaches(&c.downs, 1, 1500));
	assert_int_equal(c.ups, 0);
	assert_true(reaches(&c.ups, 1, 2000));
	unsetenv("NAMES_MS");
	assert_answers(&c);
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test_setup_teardown(test_next_address, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_silent_address, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nobody, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refusal_is_an_answer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_slow_name, set_up, tear_down),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
