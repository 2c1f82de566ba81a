/* listen: opened before anything is started, so that a taken port is the first thing one is told. */
#include "ops/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "state/settings.h"

enum { BACKLOG = 4096 };

static int open_one(const struct addrinfo *address, bool shared)
{
	int on = 1;
	int off = 0;
	int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (shared)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
	if (address->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	io_keep_alive(fd);
	if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && (!shared || listen(fd, BACKLOG) == 0))
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

static bool open_all(const struct addrinfo *address, int *fds, unsigned count)
{
	int probe = open_one(address, false); /* without SO_REUSEPORT: fails if anybody has the address */
	if (probe < 0)
		return false;
	close(probe);
	for (unsigned i = 0; i < count; i++) {
		fds[i] = open_one(address, true);
		if (fds[i] >= 0)
			continue;
		int error = errno;
		while (i--)
			close(fds[i]);
		errno = error;
		return false;
	}
	return true;
}

const struct addrinfo *listen_preferred(const struct addrinfo *found)
{
	const struct addrinfo *address = found;
	while (address && address->ai_family != AF_INET)
		address = address->ai_next;
	return address ? address : found;
}

bool listen_open(const char *address, int *fds, unsigned count)
{
	struct listen_address parsed;
	struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	char port[8];
	if (!settings_parse_listen(address, &parsed)) {
		fprintf(stderr, "apiproxy: cannot listen on %s: not an address\n", address);
		return false;
	}
	snprintf(port, sizeof port, "%u", parsed.port);
	int fault = getaddrinfo(parsed.host, port, &hints, &found);
	if (fault) {
		fprintf(stderr, "apiproxy: cannot listen on %s: %s\n", address, gai_strerror(fault));
		return false;
	}
	bool fine = open_all(listen_preferred(found), fds, count);
	if (!fine)
		fprintf(stderr, "apiproxy: cannot listen on %s: %s\n", address, strerror(errno));
	freeaddrinfo(found);
	return fine;
}
