/* upstream: kept connections by target, and no memory for another. The module is built in here, with an
 * allocator that fails when it is told to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int calls_left = -1; /* until one fails; -1: none does */

static void *failing_calloc(size_t count, size_t size)
{
	if (calls_left >= 0 && calls_left-- == 0)
		return NULL;
	return calloc(count, size);
}

#define calloc failing_calloc
#include "path/upstream.c"
#undef calloc

static const struct target one = {.host = "one.example", .port = 443, .tls = true};
static const struct target other = {.host = "one.example", .port = 80};

static struct connection open_pair(int *peer)
{
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	*peer = pair[1];
	return (struct connection){.fd = pair[0]};
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0 || errno != EBADF;
}

static void test_kept_connections_are_of_their_target(void **state)
{
	struct loop *l = loop_new();
	struct upstream_pool *p = upstream_pool_new(l);
	int peers[2];
	(void)state;
	struct connection c = open_pair(&peers[0]), d = open_pair(&peers[1]);
	struct upstream *u = upstream_adopt(p, &one, &c), *v = upstream_adopt(p, &one, &d);
	assert_non_null(u);
	assert_non_null(v);
	upstream_keep(p, u);
	upstream_keep(p, v);
	assert_null(upstream_take(p, &other));
	assert_ptr_equal(upstream_take(p, &one), v);
	assert_ptr_equal(upstream_take(p, &one), u);
	assert_null(upstream_take(p, &one));
	upstream_close(p, u);
	assert_false(is_open(c.fd));
	upstream_keep(p, v);
	upstream_pool_free(p);
	assert_false(is_open(d.fd));
	loop_free(l);
	close(peers[0]);
	close(peers[1]);
}

static void test_without_memory_the_connection_is_closed(void **state)
{
	struct loop *l = loop_new();
	struct upstream_pool *p = upstream_pool_new(l);
	int peer;
	(void)state;
	for (int fine = 0; fine < 2; fine++) { /* it, then its group */
		struct connection c = open_pair(&peer);
		calls_left = fine;
		assert_null(upstream_adopt(p, &one, &c));
		assert_int_equal(calls_left, -1);
		assert_false(is_open(c.fd));
		assert_null(upstream_take(p, &one));
		close(peer);
	}
	struct connection c = open_pair(&peer);
	struct upstream *u = upstream_adopt(p, &one, &c);
	assert_non_null(u);
	upstream_close(p, u);
	upstream_pool_free(p);
	loop_free(l);
	close(peer);
}

/* No group is left behind where the loop does not take the socket. */
static void test_a_connection_that_cannot_be_watched(void **state)
{
	struct loop *l = loop_new();
	struct upstream_pool *p = upstream_pool_new(l);
	(void)state;
	struct connection c = {.fd = open("/dev/null", O_RDWR)}; /* epoll takes none such */
	assert_null(upstream_adopt(p, &one, &c));
	assert_false(is_open(c.fd));
	for (size_t i = 0; i < GROUP_BUCKETS; i++)
		assert_null(p->buckets[i]);
	upstream_pool_free(p);
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept_connections_are_of_their_target),
		cmocka_unit_test(test_without_memory_the_connection_is_closed),
		cmocka_unit_test(test_a_connection_that_cannot_be_watched),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
