/* listen: which of several addresses is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include <sys/socket.h>

#include "ops/listen.h"
#include "redis_fixture.h"
#include "../support/names.c"

static bool takes(const char *address, uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
	bool taken = connect(fd, (struct sockaddr *)&in, sizeof in) == 0;
	close(fd);
	return taken;
}

static void listens(const char *host, const char *addresses, const char *at, const char *not_at)
{
	char address[64];
	int fds[2];
	uint16_t port = free_port();
	setenv("NAMES", addresses, 1);
	snprintf(address, sizeof address, "%s:%u", host, port);
	assert_true(listen_open(address, fds, 2));
	assert_true(takes(at, port));
	assert_false(takes(not_at, port));
	close(fds[0]);
	close(fds[1]);
}

static void test_ipv4_goes_first(void **state)
{
	(void)state;
	listens("both.test", "both.test ::1 127.0.0.1", "127.0.0.1", "127.0.0.2");
	listens("both.test", "both.test 127.0.0.2 127.0.0.1 ::1", "127.0.0.2", "127.0.0.1");
}

static void test_any_address_takes_both_kinds(void **state)
{
	char address[32];
	int fd;
	uint16_t port = free_port();
	(void)state;
	snprintf(address, sizeof address, "[::]:%u", port);
	if (!listen_open(address, &fd, 1))
		skip(); /* no IPv6 here */
	assert_true(takes("127.0.0.1", port));
	close(fd);
}

static void test_taken(void **state)
{
	char address[32];
	int first, second;
	(void)state;
	snprintf(address, sizeof address, "127.0.0.1:%u", free_port());
	assert_true(listen_open(address, &first, 1));
	assert_false(listen_open(address, &second, 1));
	close(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ipv4_goes_first),
		cmocka_unit_test(test_any_address_takes_both_kinds),
		cmocka_unit_test(test_taken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
