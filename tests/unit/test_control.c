/* control: HTTP/1.1 over the socketpair, as the data plane speaks it: keep-alive, bodies, limits, lanes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "admin/control.h"
#include "admin_fakes.h"
#include "base/clock.h"

#define TOKEN "correct-horse-battery-staple"
#define AUTHORIZATION "Authorization: Bearer " TOKEN "\r\n"

enum { PATIENCE_MS = 5000 };

static struct settings settings = {.server_public_stats = true};

static int set_up(void **state)
{
	*state = control_start(&(struct admin_setup){.settings = &settings, .admin_token = TOKEN});
	return *state ? 0 : -1;
}

static int tear_down(void **state)
{
	control_stop(*state);
	return 0;
}

static bool wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	return poll(&p, 1, PATIENCE_MS) == 1;
}

static void send_bytes(int fd, const char *bytes, size_t length)
{
	while (length) {
		assert_true(wait_for(fd, POLLOUT));
		ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
		assert_true(sent > 0);
		bytes += sent;
		length -= (size_t)sent;
	}
}

static void send_text(int fd, const char *text)
{
	send_bytes(fd, text, strlen(text));
}

/* One answer with a Content-Length; returns its status, text has head and body. */
static unsigned receive(int fd, char *text, size_t size)
{
	size_t used = 0;
	for (;;) {
		assert_true(used + 1 < size && wait_for(fd, POLLIN));
		ssize_t got = recv(fd, text + used, size - 1 - used, 0);
		assert_true(got > 0);
		used += (size_t)got;
		text[used] = '\0';
		const char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\r\nContent-Length:");
		if (end && (!length || used >= (size_t)(end + 4 - text) + strtoul(length + 17, NULL, 10)))
			break;
	}
	return (unsigned)strtoul(text + strlen("HTTP/1.1 "), NULL, 10);
}

static unsigned ask(int fd, const char *request, char *text, size_t size)
{
	send_text(fd, request);
	return receive(fd, text, size);
}

static int connect_to(void **state)
{
	int fd = control_connect(*state);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	return fd;
}

static void test_keeps_the_connection(void **state)
{
	char text[4096];
	int fd = connect_to(state);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ask(fd, "GET /health HTTP/1.1\r\nHost: apiproxy\r\n\r\n", text, sizeof text), 200);
		assert_non_null(strstr(text, "health_get"));
		assert_non_null(strstr(text, "X-Content-Type-Options: nosniff"));
		assert_int_equal(ask(fd, "GET /nothing HTTP/1.1\r\nHost: apiproxy\r\n\r\n", text, sizeof text), 404);
		assert_int_equal(ask(fd, "POST /api/keys HTTP/1.1\r\nHost: apiproxy\r\nContent-Length: 0\r\n\r\n", text,
							 sizeof text),
			401);
		assert_int_equal(ask(fd,
							 "POST /api/keys HTTP/1.1\r\nHost: apiproxy\r\n" AUTHORIZATION
							 "Content-Length: 5\r\n\r\nhello",
							 text, sizeof text),
			200);
		assert_non_null(strstr(text, "length=5"));
	}
	close(fd);
}

static void test_passes_path_query_and_peer(void **state)
{
	char text[4096];
	int fd = connect_to(state);
	assert_int_equal(ask(fd,
						 "GET /api/mappings/a%2Fb/%63+d?x=%20&y HTTP/1.1\r\nHost: apiproxy\r\n" AUTHORIZATION
						 "x-apiproxy-peer: 192.0.2.7\r\nx-apiproxy-listener: main\r\n\r\n",
						 text, sizeof text),
		200);
	assert_non_null(strstr(text, "tail=a/b/c+d query=x=%20&y length=0 peer=192.0.2.7"));
	close(fd);
}

static void test_ops_listener_needs_no_token(void **state)
{
	char text[4096];
	int fd = connect_to(state);
	assert_int_equal(ask(fd, "GET /metrics HTTP/1.1\r\nHost: a\r\nx-apiproxy-listener: main\r\n\r\n", text,
						 sizeof text),
		401);
	assert_int_equal(ask(fd, "GET /metrics HTTP/1.1\r\nHost: a\r\nx-apiproxy-listener: ops\r\n\r\n", text,
						 sizeof text),
		200);
	assert_int_equal(ask(fd, "GET /api/keys HTTP/1.1\r\nHost: a\r\nx-apiproxy-listener: ops\r\n\r\n", text,
						 sizeof text),
		401);
	close(fd);
}

static void test_head_has_no_body(void **state)
{
	char text[4096];
	int fd = connect_to(state);
	send_text(fd, "HEAD /health HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n");
	size_t used = 0;
	while (used == 0 || !strstr(text, "health_get")) { /* in the second answer only */
		assert_true(wait_for(fd, POLLIN));
		ssize_t got = recv(fd, text + used, sizeof text - 1 - used, 0);
		assert_true(got > 0);
		used += (size_t)got;
		text[used] = '\0';
	}
	const char *second = strstr(text + 1, "HTTP/1.1 200");
	assert_non_null(second);
	assert_true(strstr(text, "health_get") > second);
	close(fd);
}

static void test_long_bodies(void **state)
{
	char text[4096], head[256];
	size_t longest = ADMIN_BODY_BYTES_MAX;
	char *body = calloc(1, longest);
	int fd = connect_to(state);
	snprintf(head, sizeof head, "PUT /api/config HTTP/1.1\r\nHost: a\r\n" AUTHORIZATION "Content-Length: %zu\r\n\r\n",
		longest);
	send_text(fd, head);
	send_bytes(fd, body, longest);
	assert_int_equal(receive(fd, text, sizeof text), 200);
	assert_non_null(strstr(text, "length=67108864"));
	/* One more, said beforehand: refused before it comes. */
	snprintf(head, sizeof head, "PUT /api/config HTTP/1.1\r\nHost: a\r\n" AUTHORIZATION "Content-Length: %zu\r\n\r\n",
		longest + 1);
	assert_int_equal(ask(fd, head, text, sizeof text), 413);
	assert_non_null(strstr(text, "body_too_large"));
	close(fd);
	/* Not said: read to its end, then refused, and the connection is good for more. */
	fd = connect_to(state);
	send_text(fd, "PUT /api/config HTTP/1.1\r\nHost: a\r\n" AUTHORIZATION "Transfer-Encoding: chunked\r\n\r\n");
	snprintf(head, sizeof head, "%zx\r\n", longest);
	send_text(fd, head);
	send_bytes(fd, body, longest);
	assert_int_equal(ask(fd, "\r\n1\r\nx\r\n0\r\n\r\n", text, sizeof text), 413);
	assert_int_equal(ask(fd, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n", text, sizeof text), 200);
	close(fd);
	free(body);
}

/* No byte of the body is there, and none is asked for. */
static void test_refuses_by_the_head_alone(void **state)
{
	static const struct {
		const char *line, *token;
		unsigned status;
	} cases[] = {
		{"POST /api/keys", "", 401},
		{"POST /api/keys", "Authorization: Bearer wrong\r\n", 401},
		{"POST /nothing", AUTHORIZATION, 404},
		{"PATCH /api/keys", AUTHORIZATION, 405},
	};
	static const char *const framings[] = {"Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
		"Content-Length: 5\r\nExpect: 100-continue\r\n", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"};
	for (size_t i = 0; i < 4 * sizeof cases / sizeof *cases; i++) {
		char head[512], text[4096];
		int fd = connect_to(state);
		snprintf(head, sizeof head, "%s HTTP/1.1\r\nHost: a\r\n%s%s\r\n", cases[i / 4].line, cases[i / 4].token,
			framings[i % 4]);
		assert_int_equal(ask(fd, head, text, sizeof text), cases[i / 4].status);
		assert_non_null(strcasestr(text, "\r\nConnection: close\r\n"));
		assert_int_equal(recv(fd, text, sizeof text, MSG_PEEK | MSG_DONTWAIT) > 0, false);
		close(fd);
	}
}

static void test_goes_on_with_a_body_that_is_wanted(void **state)
{
	char text[4096];
	int fd = connect_to(state);
	send_text(fd,
		"POST /api/keys HTTP/1.1\r\nHost: a\r\n" AUTHORIZATION "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
	assert_int_equal(receive(fd, text, sizeof text), 100);
	assert_int_equal(ask(fd, "hello", text, sizeof text), 200);
	assert_non_null(strstr(text, "length=5"));
	close(fd);
}

static void test_a_stranger_cannot_send_much(void **state)
{
	char text[4096];
	int fd = connect_to(state);
	assert_int_equal(ask(fd, "PUT /api/config HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n", text,
						 sizeof text),
		401);
	close(fd);
	fd = connect_to(state);
	assert_int_equal(ask(fd, "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", text,
						 sizeof text),
		413);
	close(fd);
}

static void test_slow_logins_delay_nobody_else(void **state)
{
	enum { LOGINS = 8 }; /* two threads, 0.2 s each: 0.8 s */
	char text[4096];
	int logins[LOGINS], fd = connect_to(state);
	int64_t start_ms = clock_monotonic_ms();
	for (int i = 0; i < LOGINS; i++) {
		logins[i] = connect_to(state);
		send_text(logins[i], "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
	}
	assert_int_equal(ask(fd, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n", text, sizeof text), 200);
	assert_int_equal(ask(fd, "GET /api/keys HTTP/1.1\r\nHost: a\r\n" AUTHORIZATION "\r\n", text, sizeof text), 200);
	assert_true(clock_monotonic_ms() - start_ms < 600);
	for (int i = 0; i < LOGINS; i++) {
		assert_int_equal(receive(logins[i], text, sizeof text), 200);
		close(logins[i]);
	}
	close(fd);
}

enum { UNDER_WAY = 6 };

static void begin_logins(struct control *control, int fds[UNDER_WAY])
{
	for (int i = 0; i < UNDER_WAY; i++) {
		fds[i] = control_connect(control);
		assert_true(fds[i] >= 0);
		send_text(fds[i], "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
	}
	usleep(50 * 1000);
}

static void test_stops_with_requests_under_way(void **state)
{
	int fds[UNDER_WAY];
	struct control *control = control_start(&(struct admin_setup){.settings = &settings, .admin_token = TOKEN});
	(void)state;
	begin_logins(control, fds);
	int64_t start_ms = clock_monotonic_ms();
	control_stop(control);
	assert_true(clock_monotonic_ms() - start_ms < 2000);
	for (int i = 0; i < UNDER_WAY; i++)
		close(fds[i]);
}

/* The workers are still there, and so is the daemon: whoever asks is answered. */
static void test_finished(void **state)
{
	char text[4096];
	int fds[UNDER_WAY];
	struct control *control = control_start(&(struct admin_setup){.settings = &settings, .admin_token = TOKEN});
	(void)state;
	begin_logins(control, fds);
	control_finish(control);
	unsigned count[2] = {0};
	for (int i = 0; i < UNDER_WAY; i++) {
		unsigned status = receive(fds[i], text, sizeof text);
		assert_true(status == 200 || (status == 503 && strstr(text, "\"draining\"")));
		count[status == 200]++;
	}
	assert_int_equal(count[true], 2); /* each of the two threads had one */
	assert_int_equal(count[false], 4);
	assert_int_equal(ask(fds[0], "GET /api/keys HTTP/1.1\r\nHost: a\r\n" AUTHORIZATION "\r\n", text, sizeof text),
		503);
	assert_int_equal(ask(fds[0], "GET /health HTTP/1.1\r\nHost: a\r\n\r\n", text, sizeof text), 200);
	control_finish(control);
	control_stop(control);
	for (int i = 0; i < UNDER_WAY; i++)
		close(fds[i]);
}

static void test_client_that_leaves(void **state)
{
	char text[4096];
	for (int i = 0; i < 4; i++) {
		int gone = connect_to(state);
		send_text(gone,
			i % 2 ? "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}" : "POST /auth/lo");
		close(gone);
	}
	int fd = connect_to(state);
	assert_int_equal(ask(fd, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n", text, sizeof text), 200);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps_the_connection),
		cmocka_unit_test(test_passes_path_query_and_peer),
		cmocka_unit_test(test_ops_listener_needs_no_token),
		cmocka_unit_test(test_head_has_no_body),
		cmocka_unit_test(test_long_bodies),
		cmocka_unit_test(test_refuses_by_the_head_alone),
		cmocka_unit_test(test_goes_on_with_a_body_that_is_wanted),
		cmocka_unit_test(test_a_stranger_cannot_send_much),
		cmocka_unit_test(test_slow_logins_delay_nobody_else),
		cmocka_unit_test(test_stops_with_requests_under_way),
		cmocka_unit_test(test_finished),
		cmocka_unit_test(test_client_that_leaves),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
