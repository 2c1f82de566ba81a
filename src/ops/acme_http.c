/* acme_http: a libmicrohttpd daemon with one thread of its own. Immutable once started. */
#include "ops/acme_http.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "ops/listen.h"
#include "state/settings.h"

#define CHALLENGE_PREFIX "/.well-known/acme-challenge/"

enum { CONNECTIONS = 256, TIMEOUT_SECONDS = 10, CONNECTION_BYTES = 16384, CHALLENGE_BYTES = 4096, BACKLOG = 128 };

struct acme_http {
	struct MHD_Daemon *daemon;
	char *challenges, *host;
	uint16_t https_port;
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *location,
	const char *type, const char *body, size_t length)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(length, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO;
	if (location)
		MHD_add_response_header(response, MHD_HTTP_HEADER_LOCATION, location);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	enum MHD_Result result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status, const char *text)
{
	return answer(connection, status, NULL, "text/plain", text, strlen(text));
}

static enum MHD_Result answer_challenge(const struct acme_http *h, struct MHD_Connection *connection,
	const char *token)
{
	static const char token_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char content[CHALLENGE_BYTES];
	size_t length = strspn(token, token_characters);
	if (length == 0 || length > 200 || token[length])
		return answer_text(connection, MHD_HTTP_NOT_FOUND, "not found\n");
	char *path = check_printf("%s/%s", h->challenges, token);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	free(path);
	ssize_t read_bytes = fd >= 0 ? read(fd, content, sizeof content) : -1;
	if (fd >= 0)
		close(fd);
	if (read_bytes < 0)
		return answer_text(connection, MHD_HTTP_NOT_FOUND, "not found\n");
	return answer(connection, MHD_HTTP_OK, NULL, "application/octet-stream", content, (size_t)read_bytes);
}

/* The name in a Host field without its port, "" where it is none. */
static void host_of(const char *field, char out[256])
{
	size_t length = *field == '[' ? strcspn(field, "]") + 1 : strcspn(field, ":");
	out[0] = 0;
	if (length == 0 || length > 255 || length > strlen(field) ||
		strspn(field, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]") < length)
		return;
	memcpy(out, field, length);
	out[length] = 0;
}

static enum MHD_Result redirect(const struct acme_http *h, struct MHD_Connection *connection, const char *method,
	const char *path)
{
	char host[256], port[8] = "";
	const char *field = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
	host_of(field ? field : h->host, host);
	for (const unsigned char *p = (const unsigned char *)path; *p; p++)
		if (*p <= ' ' || *p >= 0x7f)
			host[0] = 0;
	if (*path != '/' || !*host)
		return answer_text(connection, MHD_HTTP_BAD_REQUEST, "bad request\n");
	if (h->https_port != 443)
		snprintf(port, sizeof port, ":%u", h->https_port);
	char *location = check_printf("https://%s%s%s", host, port, path);
	bool safe = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
	enum MHD_Result result = answer(connection, safe ? MHD_HTTP_MOVED_PERMANENTLY : MHD_HTTP_PERMANENT_REDIRECT,
		location, "text/plain", "", 0);
	free(location);
	return result;
}

/* The target as it came, query included; freed by on_completed. */
static void *on_uri(void *argument, const char *uri, struct MHD_Connection *connection)
{
	(void)argument;
	(void)connection;
	if (strncasecmp(uri, "http://", 7) == 0) { /* the absolute form */
		uri += 7 + strcspn(uri + 7, "/?");
		return *uri == '/' ? strdup(uri) : check_printf("/%s", uri);
	}
	return strdup(uri);
}

static void on_completed(void *argument, struct MHD_Connection *connection, void **state,
	enum MHD_RequestTerminationCode code)
{
	(void)argument;
	(void)connection;
	(void)code;
	free(*state);
	*state = NULL;
}

static enum MHD_Result on_request(void *argument, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *body, size_t *body_length, void **state)
{
	const struct acme_http *h = argument;
	const char *target = *state;
	(void)url;
	(void)version;
	(void)body;
	(void)body_length;
	if (!target)
		return MHD_NO;
	if (strncmp(target, CHALLENGE_PREFIX, strlen(CHALLENGE_PREFIX)) == 0)
		return answer_challenge(h, connection, target + strlen(CHALLENGE_PREFIX));
	return redirect(h, connection, method, target);
}

/* -1: *why. */
static int listen_on(const char *text, char **why)
{
	struct listen_address address;
	struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	char port[8];
	int one = 1, fd = -1;
	CHECK(settings_parse_listen(text, &address));
	snprintf(port, sizeof port, "%u", address.port);
	int error = getaddrinfo(address.host, port, &hints, &found);
	if (error) {
		*why = check_printf("acme.http_listen %s: %s", text, gai_strerror(error));
		return -1;
	}
	const struct addrinfo *taken = listen_preferred(found);
	fd = socket(taken->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
		bind(fd, taken->ai_addr, taken->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
		*why = check_printf("acme.http_listen %s: %s", text, strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	return fd;
}

struct acme_http *acme_http_start(const char *listen, const char *challenges, uint16_t https_port, const char *host,
	char **why)
{
	struct acme_http *h = check_calloc(1, sizeof *h);
	h->challenges = check_strdup(challenges);
	h->host = check_strdup(host);
	h->https_port = https_port;
	int fd = listen_on(listen, why);
	if (fd >= 0) {
		/* clang-format off */
		h->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, 0, NULL, NULL,
			on_request, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL,
			MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
			MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_SECONDS,
			MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);
		/* clang-format on */
		if (!h->daemon) {
			close(fd);
			*why = check_printf("acme.http_listen %s: libmicrohttpd does not start", listen);
		}
	}
	if (h->daemon)
		return h;
	acme_http_stop(h);
	return NULL;
}

void acme_http_stop(struct acme_http *h)
{
	if (!h)
		return;
	if (h->daemon)
		MHD_stop_daemon(h->daemon); /* closes the socket */
	free(h->challenges);
	free(h->host);
	free(h);
}
