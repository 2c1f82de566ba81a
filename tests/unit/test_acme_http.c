/* acme_http: challenges, redirects, and what gets neither. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "ops/acme_http.h"
#include "files_fixture.h"

static char directory[] = "/tmp/apiproxy-acme-XXXXXX";
static struct acme_http *server;
static struct sockaddr_in address = {.sin_family = AF_INET};

static void write_file(const char *name, const char *text)
{
	char *path = check_printf("%s/%s", directory, name);
	files_write(path, text);
	free(path);
}

static int enter(void **state)
{
	socklen_t length = sizeof address;
	char *why = NULL, listen_text[32];
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	write_file("token-1_A", "the answer");
	write_file("no.token", "secret");
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0); /* finds a port that is free */
	if (bind(fd, (struct sockaddr *)&address, length) != 0 ||
		getsockname(fd, (struct sockaddr *)&address, &length) != 0)
		return -1;
	close(fd);
	snprintf(listen_text, sizeof listen_text, "127.0.0.1:%u", ntohs(address.sin_port));
	server = acme_http_start(listen_text, directory, 8443, "first.example", &why);
	if (!server)
		print_error("%s\n", why);
	free(why);
	return server ? 0 : -1;
}

static int leave(void **state)
{
	(void)state;
	acme_http_stop(server);
	return files_remove(directory);
}

/* The whole answer, until the server closes. */
static const char *ask(const char *request)
{
	static char answer[8192];
	size_t length = 0;
	ssize_t got;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(write(fd, request, strlen(request)), strlen(request));
	while ((got = read(fd, answer + length, sizeof answer - 1 - length)) > 0)
		length += (size_t)got;
	close(fd);
	answer[length] = 0;
	return answer;
}

static void expect(const char *request, const char *status, const char *part)
{
	const char *answer = ask(request);
	if (strncmp(answer, status, strlen(status)) != 0 || !strstr(answer, part))
		fail_msg("%s\n-> %s", request, answer);
}

#define HOST "Host: one.example:80\r\n\r\n"

static void test_challenge(void **state)
{
	(void)state;
	expect("GET /.well-known/acme-challenge/token-1_A HTTP/1.1\r\n" HOST, "HTTP/1.1 200", "\r\n\r\nthe answer");
	expect("GET /.well-known/acme-challenge/token HTTP/1.1\r\n" HOST, "HTTP/1.1 404", "");
	expect("GET /.well-known/acme-challenge/no.token HTTP/1.1\r\n" HOST, "HTTP/1.1 404", "");
	expect("GET /.well-known/acme-challenge/ HTTP/1.1\r\n" HOST, "HTTP/1.1 404", "");
	expect("GET /.well-known/acme-challenge/../../etc/passwd HTTP/1.1\r\n" HOST, "HTTP/1.1 404", "");
}

static void test_redirect(void **state)
{
	(void)state;
	expect("GET /a/b?c=%2F&d HTTP/1.1\r\n" HOST, "HTTP/1.1 301",
		"\r\nLocation: https://one.example:8443/a/b?c=%2F&d\r\n");
	expect("HEAD / HTTP/1.1\r\n" HOST, "HTTP/1.1 301", "\r\nLocation: https://one.example:8443/\r\n");
	expect("POST /a HTTP/1.1\r\nContent-Length: 5\r\n" HOST "hello", "HTTP/1.1 308",
		"\r\nLocation: https://one.example:8443/a\r\n");
	expect("GET http://other.example/x?y HTTP/1.1\r\n" HOST, "HTTP/1.1 301", "/x?y\r\n");
	expect("GET /a HTTP/1.0\r\n\r\n", "HTTP/1.", "\r\nLocation: https://first.example:8443/a\r\n");
	expect("GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "HTTP/1.1 301", "\r\nLocation: https://[::1]:8443/a\r\n");
}

static void test_refused(void **state)
{
	(void)state;
	expect("GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n", "HTTP/1.1 400", "");
	expect("GET /a HTTP/1.1\r\nHost: a\"b\r\n\r\n", "HTTP/1.1 400", "");
	expect("GET /\xc3\xa9 HTTP/1.1\r\n" HOST, "HTTP/1.1 400", "");
	expect("OPTIONS * HTTP/1.1\r\n" HOST, "HTTP/1.1 400", "");
}

static void test_port_in_use(void **state)
{
	char *why = NULL, *text = check_printf("127.0.0.1:%u", ntohs(address.sin_port));
	(void)state;
	assert_null(acme_http_start(text, directory, 443, "x", &why));
	assert_non_null(strstr(why, "Address already in use"));
	free(why);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_challenge), cmocka_unit_test(test_redirect),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_port_in_use)};
	return cmocka_run_group_tests_name("acme_http", tests, enter, leave);
}
