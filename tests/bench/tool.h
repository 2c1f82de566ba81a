/* tool: what the two programs of the benchmark, vendor and load, share: a clock, sockets, lists of
 * samples. Times are ns of CLOCK_MONOTONIC, which both read on one machine, so that a timestamp of one
 * means something to the other. Faults end the program: it is a tool of a test. Loopback only. */
#ifndef BENCH_TOOL_H
#define BENCH_TOOL_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TOOL_NS_PER_US = 1000, TOOL_NS_PER_MS = 1000000, TOOL_NS_PER_S = 1000000000 };

__attribute__((noreturn, format(printf, 1, 2))) static inline void tool_die(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	exit(1);
}

static inline uint64_t tool_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * TOOL_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* What every tool needs first: many descriptors, exact timers, and errors where a peer has gone. */
static inline void tool_init(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1L);
}

static inline void tool_no_delay(int fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline struct sockaddr_in tool_loopback(unsigned port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* A file of zeros in memory, for sendfile: the side that makes the bytes should not pay for them. */
static inline int tool_zeros(size_t bytes)
{
	int fd = memfd_create("zeros", MFD_CLOEXEC);
	static const char block[1 << 16];
	if (fd < 0)
		tool_die("memfd_create failed");
	for (size_t done = 0; done < bytes; done += sizeof block)
		if (write(fd, block, sizeof block) != sizeof block)
			tool_die("cannot fill the file of zeros");
	return fd;
}

/* The value of a header field in a head (which ends with an empty line), or NULL. */
static inline const char *tool_field(const char *head, const char *name)
{
	size_t length = strlen(name);
	for (const char *line = strstr(head, "\r\n"); line && line[2] != '\r'; line = strstr(line + 2, "\r\n"))
		if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':')
			return line + 3 + length + strspn(line + 3 + length, " ");
	return NULL;
}

#endif
