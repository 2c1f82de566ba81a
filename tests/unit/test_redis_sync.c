/* redis_sync: TLS, passwords, databases, deadlines, reconnecting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "redis_fixture.h"
#include "state/redis_sync.h"
#include "../support/names.c"

static struct redis_fixture redis;

static int set_up(void **state)
{
	(void)state;
	redis_fixture_init(&redis);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	redis_fixture_fini(&redis);
	return 0;
}

static void assert_reply(redisReply *take_reply, const char *expected)
{
	assert_non_null(take_reply);
	assert_string_equal(take_reply->str, expected);
	freeReplyObject(take_reply);
}

static void test_user_password_database(void **state)
{
	struct redis_address address = redis.address;
	(void)state;
	redis_fixture_do(&redis, "ACL SETUSER ann on >p%s ~* &* +@all", "w");
	redis_fixture_do(&redis, "CONFIG SET requirepass secret");
	address.password = (char *)"wrong";
	struct redis_sync *r = redis_sync_new(&address, 1000);
	assert_null(redis_sync_command(r, "PING"));
	assert_non_null(strstr(redis_sync_error(r), "WRONGPASS"));
	assert_null(strstr(redis_sync_error(r), "wrong"));
	address.password = (char *)"secret";
	address.db = 3;
	assert_reply(redis_sync_command(r, "SET key %s", "value of 3"), "OK");
	redis_sync_close(r);
	address.user = (char *)"ann";
	address.password = (char *)"pw";
	assert_reply(redis_sync_command(r, "GET key"), "value of 3");
	assert_reply(redis_sync_command(r, "ACL WHOAMI"), "ann");
	redis_sync_close(r);
	address.db = 99;
	assert_null(redis_sync_command(r, "PING"));
	assert_non_null(strstr(redis_sync_error(r), "SELECT"));
	redis_sync_free(r);
}

static void test_reconnects(void **state)
{
	struct redis_sync *r = redis_sync_new(&redis.address, 1000);
	(void)state;
	assert_reply(redis_sync_command(r, "PING"), "PONG");
	redis_fixture_kill(&redis);
	assert_null(redis_sync_command(r, "PING"));
	assert_int_equal(redis_sync_fd(r), -1);
	assert_false(redis_sync_append(r, "PING"));
	redis_fixture_start(&redis);
	assert_reply(redis_sync_command(r, "PING"), "PONG");
	/* Closed by Redis while at rest: the next command does not fail for it. */
	redis_fixture_do(&redis, "CLIENT KILL TYPE normal SKIPME yes");
	usleep(50000);
	assert_reply(redis_sync_command(r, "PING"), "PONG");
	redis_sync_free(r);
}

static void test_deadline(void **state)
{
	struct redis_sync *r = redis_sync_new(&redis.address, 250);
	(void)state;
	assert_reply(redis_sync_command(r, "PING"), "PONG");
	kill(redis.pid, SIGSTOP);
	int64_t start_ms = clock_monotonic_ms();
	assert_null(redis_sync_command(r, "PING"));
	int64_t waited_ms = clock_monotonic_ms() - start_ms;
	kill(redis.pid, SIGCONT);
	assert_true(waited_ms > 200 && waited_ms < 1000);
	assert_non_null(strstr(redis_sync_error(r), "no answer within 250 ms"));
	redis_sync_free(r);
}

/* The name's first address refuses. */
static void test_next_address(void **state)
{
	(void)state;
	redis_fixture_serve_tcp(&redis);
	struct redis_address address = {.host = (char *)"redis.test", .port = redis.port};
	struct redis_sync *r = redis_sync_new(&address, 1000);
	setenv("NAMES", "redis.test 127.0.0.3 127.0.0.2 127.0.0.1", 1);
	assert_reply(redis_sync_command(r, "PING"), "PONG");
	redis_sync_close(r);
	setenv("NAMES", "redis.test 127.0.0.3 127.0.0.2", 1);
	assert_null(redis_sync_command(r, "PING"));
	assert_string_equal(redis_sync_error(r), "connect: Connection refused");
	setenv("NAMES", "redis.test", 1);
	assert_null(redis_sync_command(r, "PING"));
	assert_non_null(strstr(redis_sync_error(r), "connect: "));
	redis_sync_free(r);
}

/* SSL_CERT_FILE is read once in a process, so the good and the bad case share one authority. */
static void test_tls(void **state)
{
	char command[1024], path[128];
	struct redis_address address = {.tls = true, .host = (char *)"localhost", .port = free_port()};
	(void)state;
	snprintf(command, sizeof(command),
		"cd %s && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2"
		" -subj /CN=localhost -addext subjectAltName=DNS:localhost >/dev/null 2>&1",
		redis.directory);
	assert_int_equal(system(command), 0);
	snprintf(path, sizeof(path), "%s/cert.pem", redis.directory);
	setenv("SSL_CERT_FILE", path, 1);
	redis_fixture_do(&redis,
		"CONFIG SET tls-cert-file %s/cert.pem tls-key-file %s/key.pem tls-ca-cert-file %s/cert.pem tls-auth-clients no",
		redis.directory, redis.directory, redis.directory);
	const char *said = redis_fixture_do(&redis, "CONFIG SET tls-port %d", address.port);
	if (strcmp(said, "OK") != 0) {
		print_message("this redis-server has no TLS: %s\n", said);
		skip();
	}
	struct redis_sync *r = redis_sync_new(&address, 2000);
	redisReply *reply = redis_sync_command(r, "PING");
	if (!reply)
		fail_msg("%s", redis_sync_error(r));
	assert_reply(reply, "PONG");
	usleep(50000);
	assert_reply(redis_sync_command(r, "PING"), "PONG");
	redis_sync_close(r);
	address.host = (char *)"127.0.0.1"; /* not in the certificate */
	assert_null(redis_sync_command(r, "PING"));
	assert_non_null(strstr(redis_sync_error(r), "mismatch"));
	redis_sync_free(r);
	unlink(path);
	snprintf(path, sizeof(path), "%s/key.pem", redis.directory);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_user_password_database, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reconnects, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_deadline, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_next_address, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tls, set_up, tear_down),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
