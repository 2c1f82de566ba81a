/* vendor: a vendor for the benchmark, that costs as little as it can. One thread, one epoll; HTTP/1.1
 * with Content-Length, keep-alive, no pipelining. What a request gets is decided by its path:
 *
 *   …/events?interval_us=N   an SSE stream, one event each N us, until the client goes
 *   …/download?bytes=N       N zeros; with &text=json or &text=sse such a text, as if a model had written it;
 *                            with &opaque=1 it says application/octet-stream
 *   anything else            1 KB of JSON, after the body (of any length) was read
 *
 * An event carries its number and the time at which it was written. Streams of one interval are spread
 * evenly over it. Prints the port that it listens on; ends when its standard input does. */
#include <errno.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>

#include "tool.h"

enum {
	HEAD_MAX = 4096,
	SCRATCH_BYTES = 1 << 18,
	CONTENT_BYTES = 1 << 20,
	EVENTS_PER_TURN = 256,
	DESCRIPTORS_MAX = 1 << 16,
	ANSWER_BYTES = 1024,
};

struct conn {
	int fd;
	uint64_t body_left;     /* of the request, to be thrown away */
	uint64_t download_left; /* of the answer */
	size_t download_at;     /* in its content */
	const struct content *content;
	uint64_t due_ns; /* of a stream's next event; 0: no stream */
	uint64_t interval_ns;
	uint64_t sequence;
	size_t place; /* in the heap */
	char *head;   /* begun, not yet complete */
	size_t head_length;
	char path[128];
};

/* What downloads are made of: all of it, then again and again what is behind its start. */
struct content {
	const char *name, *type, *start, *item;
	size_t length;
	int fd;
};

static struct content contents[] = {
	{.name = "text=json",
		.type = "application/json",
		.start = "{\"object\":\"list\",\"data\":[",
		.item = "{\"object\":\"embedding\",\"index\":%06u,\"embedding\":[0.0123046875,-0.0456054688,0.00078964233,"
				"-0.0234375,0.0119628906,0.0345458984,-0.00946044922]},"},
	{.name = "text=sse",
		.type = "text/event-stream",
		.start = "",
		.item = "data: {\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
				"\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token %06u\"},"
				"\"finish_reason\":null}]}\n\n"},
	{.name = "", .type = "application/octet-stream"}, /* the last one: zeros */
};

static int epoll_fd;
static struct conn *conns[DESCRIPTORS_MAX];
static struct conn *heap[DESCRIPTORS_MAX]; /* streams, the next event first */
static size_t heap_count;
static uint64_t streams_begun;
static char answer[ANSWER_BYTES + 256];
static size_t answer_length;
static char scratch[SCRATCH_BYTES + HEAD_MAX + 1];

/* ---- streams by the time of their next event ---- */

static void heap_put(size_t place, struct conn *c)
{
	heap[place] = c;
	c->place = place;
}

static void heap_up(size_t place, struct conn *c)
{
	for (; place && heap[(place - 1) / 2]->due_ns > c->due_ns; place = (place - 1) / 2)
		heap_put(place, heap[(place - 1) / 2]);
	heap_put(place, c);
}

static void heap_down(size_t place, struct conn *c)
{
	for (;;) {
		size_t child = 2 * place + 1;
		if (child + 1 < heap_count && heap[child + 1]->due_ns < heap[child]->due_ns)
			child++;
		if (child >= heap_count || heap[child]->due_ns >= c->due_ns)
			break;
		heap_put(place, heap[child]);
		place = child;
	}
	heap_put(place, c);
}

static void heap_remove(struct conn *c)
{
	struct conn *last = heap[--heap_count];
	if (last == c)
		return;
	heap_put(c->place, last);
	heap_up(last->place, last);
	heap_down(last->place, last);
}

/* ---- connections ---- */

static void conn_close(struct conn *c)
{
	if (c->due_ns)
		heap_remove(c);
	close(c->fd);
	conns[c->fd] = NULL;
	free(c->head);
	free(c);
}

static void watch(struct conn *c, uint32_t events, int operation)
{
	struct epoll_event e = {.events = events, .data.fd = c->fd};
	if (epoll_ctl(epoll_fd, operation, c->fd, &e) != 0)
		tool_die("vendor: epoll_ctl failed");
}

static bool send_all(struct conn *c, const char *bytes, size_t length)
{
	if (write(c->fd, bytes, length) == (ssize_t)length)
		return true;
	conn_close(c); /* the client went, or has not read for long: it will count what it lost */
	return false;
}

static void begin_stream(struct conn *c, uint64_t interval_us)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
							   "Transfer-Encoding: chunked\r\n\r\n";
	if (!send_all(c, head, sizeof head - 1))
		return;
	double turns = (double)++streams_begun * 0.6180339887498949; /* of the golden angle: even for any count */
	c->interval_ns = (interval_us ? interval_us : 1000) * TOOL_NS_PER_US;
	c->due_ns = tool_now_ns() + (uint64_t)((turns - (double)(uint64_t)turns) * (double)c->interval_ns) + 1;
	heap_up(heap_count++, c);
}

static void send_event(struct conn *c)
{
	char event[512];
	int length = snprintf(event, sizeof event,
		"ca\r\ndata: {\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\","
		"\"seq\":%010llu,\"at\":%020llu,\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},"
		"\"logprobs\":null,\"finish_reason\":null}]}\n\n\r\n",
		(unsigned long long)++c->sequence, (unsigned long long)tool_now_ns());
	c->due_ns += c->interval_ns;
	heap_down(c->place, c);
	send_all(c, event, (size_t)length);
}

static void send_download(struct conn *c)
{
	const struct content *content = c->content;
	off_t from = (off_t)c->download_at;
	size_t rest = content->length - c->download_at;
	ssize_t sent = sendfile(c->fd, content->fd, &from, c->download_left < rest ? (size_t)c->download_left : rest);
	if (sent < 0 && errno != EAGAIN) {
		conn_close(c);
		return;
	}
	if (sent > 0) {
		c->download_left -= (uint64_t)sent;
		c->download_at += (size_t)sent;
	}
	if (c->download_at == content->length)
		c->download_at = content->start ? strlen(content->start) : 0;
	if (!c->download_left)
		watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

static void begin_download(struct conn *c, uint64_t bytes)
{
	const struct content *content = contents;
	while (!strstr(c->path, content->name))
		content++;
	char head[160];
	int length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %llu\r\n\r\n",
		strstr(c->path, "opaque=1") ? "application/octet-stream" : content->type, (unsigned long long)bytes);
	if (!send_all(c, head, (size_t)length))
		return;
	c->content = content;
	c->download_at = 0;
	c->download_left = bytes;
	if (bytes)
		watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
}

static uint64_t query_number(const char *path, const char *name)
{
	const char *at = strstr(path, name);
	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void respond(struct conn *c)
{
	if (strstr(c->path, "/events"))
		begin_stream(c, query_number(c->path, "interval_us="));
	else if (strstr(c->path, "/download"))
		begin_download(c, query_number(c->path, "bytes="));
	else
		send_all(c, answer, answer_length);
}

/* ---- requests ---- */

static bool keep_head(struct conn *c, const char *bytes, size_t length)
{
	if (length >= HEAD_MAX) {
		conn_close(c);
		return false;
	}
	if (!c->head)
		c->head = malloc(HEAD_MAX);
	memcpy(c->head, bytes, length);
	c->head_length = length;
	return true;
}

/* One request at the start of bytes; what is behind its head is body. */
static void take_head(struct conn *c, char *bytes, size_t length)
{
	char *end = strstr(bytes, "\r\n\r\n");
	if (!end) {
		(void)keep_head(c, bytes, length);
		return;
	}
	const char *path = strchr(bytes, ' '), *body_length = tool_field(bytes, "content-length");
	size_t path_length = path ? strcspn(path + 1, " ") : 0, body = length - (size_t)(end + 4 - bytes);
	if (!path || path_length >= sizeof c->path) {
		conn_close(c);
		return;
	}
	memcpy(c->path, path + 1, path_length);
	c->path[path_length] = 0;
	c->head_length = 0;
	c->body_left = body_length ? strtoull(body_length, NULL, 10) : 0;
	if (body > c->body_left)
		tool_die("vendor: more than one request at once");
	c->body_left -= body;
	if (!c->body_left)
		respond(c);
}

/* Body bytes are counted, not copied. */
static ssize_t read_body(struct conn *c)
{
	size_t most = c->body_left < CONTENT_BYTES ? (size_t)c->body_left : CONTENT_BYTES;
	ssize_t got = recv(c->fd, NULL, most, MSG_TRUNC | MSG_DONTWAIT);
	if (got > 0) {
		c->body_left -= (uint64_t)got;
		if (!c->body_left)
			respond(c);
	}
	return got;
}

static void on_readable(struct conn *c)
{
	ssize_t got;
	if (c->body_left) {
		got = read_body(c);
	} else {
		size_t before = c->head_length;
		memcpy(scratch, c->head ? c->head : "", before);
		got = recv(c->fd, scratch + before, SCRATCH_BYTES, MSG_DONTWAIT);
		if (got > 0) {
			scratch[before + (size_t)got] = 0;
			take_head(c, scratch, before + (size_t)got);
		}
	}
	if (got == 0 || (got < 0 && errno != EAGAIN))
		conn_close(c);
}

static void on_listener(int listener)
{
	int fd;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		if (fd >= DESCRIPTORS_MAX)
			tool_die("vendor: too many connections");
		tool_no_delay(fd);
		conns[fd] = calloc(1, sizeof **conns);
		conns[fd]->fd = fd;
		watch(conns[fd], EPOLLIN, EPOLL_CTL_ADD);
	}
}

/* ---- the program ---- */

static void make_answer(void)
{
	static char body[ANSWER_BYTES + 1];
	static const char begin[] =
		"{\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion\",\"created\":1700000000,"
		"\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
	static const char end[] =
		"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":120,\"completion_tokens\":16,"
		"\"total_tokens\":136}}";
	memset(body, 'a', ANSWER_BYTES);
	memcpy(body, begin, sizeof begin - 1);
	memcpy(body + ANSWER_BYTES - (sizeof end - 1), end, sizeof end - 1);
	answer_length = (size_t)snprintf(answer, sizeof answer,
		"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
		"x-request-id: req_0123456789abcdef\r\nContent-Length: %d\r\n\r\n%s",
		ANSWER_BYTES, body);
}

static void make_content(struct content *content)
{
	char item[512];
	content->length = CONTENT_BYTES;
	content->fd = tool_zeros(CONTENT_BYTES);
	if (!content->start)
		return;
	ssize_t at = pwrite(content->fd, content->start, strlen(content->start), 0);
	for (unsigned number = 0; at + (ssize_t)sizeof item <= CONTENT_BYTES; number++)
		at += pwrite(content->fd, item, (size_t)snprintf(item, sizeof item, content->item, number), at);
	content->length = (size_t)at;
}

static int listen_anywhere(void)
{
	struct sockaddr_in address = tool_loopback(0);
	socklen_t length = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, 4096) != 0 ||
		getsockname(fd, (struct sockaddr *)&address, &length) != 0)
		tool_die("vendor: cannot listen on 127.0.0.1");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

static void add(int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0)
		tool_die("vendor: epoll_ctl failed");
}

static int wait_for(struct epoll_event *events)
{
	if (!heap_count)
		return epoll_wait(epoll_fd, events, EVENTS_PER_TURN, -1);
	uint64_t now = tool_now_ns(), rest = heap[0]->due_ns > now ? heap[0]->due_ns - now : 0;
	struct timespec t = {.tv_sec = (time_t)(rest / TOOL_NS_PER_S), .tv_nsec = (long)(rest % TOOL_NS_PER_S)};
	return epoll_pwait2(epoll_fd, events, EVENTS_PER_TURN, &t, NULL);
}

int main(void)
{
	struct epoll_event events[EVENTS_PER_TURN];
	tool_init();
	make_answer();
	for (size_t i = 0; i < sizeof contents / sizeof *contents; i++)
		make_content(&contents[i]);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int listener = listen_anywhere();
	add(listener);
	add(STDIN_FILENO);
	for (;;) {
		int count = wait_for(events);
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (fd == STDIN_FILENO)
				return 0;
			if (fd == listener)
				on_listener(listener);
			else if (conns[fd] && conns[fd]->download_left && (events[i].events & EPOLLOUT))
				send_download(conns[fd]);
			else if (conns[fd])
				on_readable(conns[fd]);
		}
		for (uint64_t now = tool_now_ns(); heap_count && heap[0]->due_ns <= now;)
			send_event(heap[0]);
	}
}
