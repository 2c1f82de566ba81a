/* A redis-server of its own for a test: unix socket in a temporary directory, no files; TCP on 127.0.0.1 alone where
 * the test asks for it. */
#ifndef TESTS_UNIT_REDIS_FIXTURE_H
#define TESTS_UNIT_REDIS_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "state/redis_url.h"
#include "files_fixture.h"

struct redis_fixture {
	char directory[64];
	char socket[96];
	pid_t pid;
	uint16_t port; /* 0: no TCP */
	struct redis_address address;
	redisContext *cli;
};

static inline uint16_t free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
	close(fd);
	return ntohs(address.sin_port);
}

static inline void redis_fixture_start(struct redis_fixture *f)
{
	char port[8];
	snprintf(port, sizeof(port), "%u", f->port);
	f->pid = fork();
	CHECK(f->pid >= 0);
	if (f->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		CHECK(freopen("/dev/null", "w", stdout));
		execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--unixsocket", f->socket, "--save", "", "--appendonly", "no",
			"--dir", f->directory, (char *)NULL);
		_exit(127);
	}
	for (int tries = 0; tries < 500; tries++) {
		f->cli = redisConnectUnix(f->socket);
		if (f->cli && !f->cli->err)
			return;
		redisFree(f->cli);
		f->cli = NULL;
		usleep(10000);
	}
	CHECK(!"redis-server does not start");
}

static inline void redis_fixture_kill(struct redis_fixture *f)
{
	redisFree(f->cli);
	f->cli = NULL;
	kill(f->pid, SIGKILL);
	waitpid(f->pid, NULL, 0);
	unlink(f->socket);
}

static inline void redis_fixture_init(struct redis_fixture *f)
{
	memset(f, 0, sizeof(*f));
	strcpy(f->directory, "/tmp/apiproxy-test-XXXXXX");
	CHECK(mkdtemp(f->directory));
	snprintf(f->socket, sizeof(f->socket), "%s/redis.sock", f->directory);
	f->address.unix_path = f->socket;
	f->address.host = (char *)"";
	redis_fixture_start(f);
}

static inline void redis_fixture_fini(struct redis_fixture *f)
{
	redis_fixture_kill(f);
	files_remove(f->directory);
}

/* Again, where TCP finds it too. */
static inline void redis_fixture_serve_tcp(struct redis_fixture *f)
{
	redis_fixture_kill(f);
	f->port = free_port();
	redis_fixture_start(f);
}

/* As redis-cli would: the reply's text (static, "" for nil) or its number as text. */
static inline const char *redis_fixture_do(struct redis_fixture *f, const char *format, ...)
{
	static char text[8192];
	va_list arguments;
	va_start(arguments, format);
	redisReply *reply = redisvCommand(f->cli, format, arguments);
	va_end(arguments);
	CHECK(reply);
	if (reply->type == REDIS_REPLY_INTEGER)
		snprintf(text, sizeof(text), "%lld", reply->integer);
	else
		snprintf(text, sizeof(text), "%s", reply->str ? reply->str : "");
	freeReplyObject(reply);
	return text;
}

#endif
