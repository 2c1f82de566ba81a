/* load: the clients of the benchmark: one thread, one epoll, keep-alive, no pipelining.
 *
 *   load requests   a closed loop: each connection sends a small POST as soon as its last was answered
 *   load rate       an open loop: `rate` small POSTs a second over idle connections
 *   load streams    `connections` SSE streams of vendor, an event each `interval_us`
 *   load download   one download of `bytes` on each connection
 *   load upload     one upload of `bytes` on each connection
 *
 * Options are NAME=NUMBER or NAME=TEXT (see the table below). The first three run for warm_ms, then
 * measure for measure_ms; the last two measure from the first request to the last answer. What the
 * processes in `pids` and `more_pids` spent of the CPU meanwhile is read from /proc, at the same borders.
 * Prints one line of JSON, times in ns. With hold=1 it then stays, streams open, until its input ends. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>

#include "load_response.h"
#include "tool.h"

enum {
	CONNECTIONS_MAX = 19000,
	SAMPLES_MAX = 1 << 21,
	SCRATCH_BYTES = 1 << 18,
	ZEROS_BYTES = 1 << 20,
	EVENTS_PER_TURN = 256,
	OPENING_MAX = 64, /* connections that wait for the head of their stream */
	STREAM_TIMEOUT_S = 30,
};

struct conn {
	struct response response;
	int fd;
	uint64_t sent_ns;
	uint64_t upload_left;
	uint64_t sequence; /* of the last event seen */
};

struct option {
	const char *name;
	uint64_t *number;
	const char **text;
};

static uint64_t port, connections = 64, rate, warm_ms = 100, measure_ms = 500, bytes, interval_us, hold;
static const char *path = "/bench/v1/chat/completions", *key = "sk-bench-0123456789abcdef", *pids = "",
				  *more_pids = "";

static const struct option OPTIONS[] = {
	{"port", &port, NULL},
	{"connections", &connections, NULL},
	{"rate", &rate, NULL},
	{"warm_ms", &warm_ms, NULL},
	{"measure_ms", &measure_ms, NULL},
	{"bytes", &bytes, NULL},
	{"interval_us", &interval_us, NULL},
	{"hold", &hold, NULL},
	{"path", NULL, &path},
	{"key", NULL, &key},
	{"pids", NULL, &pids},
	{"more_pids", NULL, &more_pids},
};

static int epoll_fd, zeros_fd;
static struct conn *conns;
static char request[2048];
static size_t request_length;
static char scratch[SCRATCH_BYTES + 1];
static uint32_t *samples;
static size_t sample_count;
static uint64_t answered, errors, lost, begun_streams, opened, finished;
static bool measuring;
static uint64_t idle_top, *idle; /* connections without a request, a stack */
static void (*on_answer)(struct conn *c);
static void (*on_broken)(struct conn *c);

/* ---- figures ---- */

static void add_sample(uint64_t ns)
{
	if (measuring && sample_count < SAMPLES_MAX)
		samples[sample_count++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static uint32_t percentile(double part)
{
	return sample_count ? samples[(size_t)((double)(sample_count - 1) * part)] : 0;
}

static uint64_t process_cpu_ns(long pid)
{
	char pattern[64];
	glob_t threads;
	uint64_t sum = 0, ns;
	snprintf(pattern, sizeof pattern, "/proc/%ld/task/*/schedstat", pid);
	if (glob(pattern, GLOB_NOSORT, NULL, &threads) != 0)
		return 0;
	for (size_t i = 0; i < threads.gl_pathc; i++) {
		FILE *f = fopen(threads.gl_pathv[i], "r");
		if (f && fscanf(f, "%lu", &ns) == 1)
			sum += ns;
		if (f)
			fclose(f);
	}
	globfree(&threads);
	return sum;
}

static uint64_t cpu_ns(const char *list)
{
	uint64_t sum = 0;
	for (char *end; *list; list = *end ? end + 1 : end) {
		long pid = strtol(list, &end, 10);
		if (end == list)
			break;
		sum += process_cpu_ns(pid);
	}
	return sum;
}

static uint64_t started_ns, started_cpu_ns, started_more_cpu_ns;

static void start_measuring(void)
{
	started_cpu_ns = cpu_ns(pids);
	started_more_cpu_ns = cpu_ns(more_pids);
	sample_count = 0;
	answered = 0;
	measuring = true;
	started_ns = tool_now_ns();
}

static void print_result(void)
{
	uint64_t elapsed = tool_now_ns() - started_ns;
	uint64_t cpu = cpu_ns(pids) - started_cpu_ns, more = cpu_ns(more_pids) - started_more_cpu_ns;
	qsort(samples, sample_count, sizeof *samples, compare);
	printf("{\"answered\":%lu,\"errors\":%lu,\"lost\":%lu,\"streams\":%lu,\"elapsed_ns\":%lu,\"cpu_ns\":%lu,"
		   "\"more_cpu_ns\":%lu,\"samples\":%zu,\"p50_ns\":%u,\"p99_ns\":%u,\"max_ns\":%u}\n",
		answered, errors, lost, begun_streams, elapsed, cpu, more, sample_count, percentile(0.5), percentile(0.99),
		percentile(1));
	fflush(stdout);
}

/* ---- connections ---- */

static void watch(struct conn *c, uint32_t events, int operation)
{
	struct epoll_event e = {.events = events, .data.ptr = c};
	if (epoll_ctl(epoll_fd, operation, c->fd, &e) != 0)
		tool_die("load: epoll_ctl failed");
}

/* Over loopback a blocking connect takes some µs. */
static void conn_open(struct conn *c)
{
	struct sockaddr_in address = tool_loopback((unsigned)port);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0)
		tool_die("load: cannot connect to 127.0.0.1:%lu: %s", port, strerror(errno));
	tool_no_delay(c->fd);
	if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0)
		tool_die("load: fcntl failed");
	watch(c, EPOLLIN, EPOLL_CTL_ADD);
}

static void conn_send(struct conn *c)
{
	c->sent_ns = tool_now_ns();
	if (send(c->fd, request, request_length, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)request_length)
		errors++; /* its end will be seen by the next read */
}

/* Ended early, or malformed. */
static void give_up(struct conn *c)
{
	tool_die("load: a connection broke, status %d", c->response.status);
}

static void on_readable(struct conn *c)
{
	bool skip = c->response.part == RESPONSE_BODY;
	size_t most = skip && c->response.left < ZEROS_BYTES ? (size_t)c->response.left :
		skip                                             ? ZEROS_BYTES :
														   SCRATCH_BYTES;
	ssize_t got = recv(c->fd, skip ? NULL : scratch, most, MSG_DONTWAIT | (skip ? MSG_TRUNC : 0));
	if (got < 0 && errno == EAGAIN)
		return;
	enum response_progress progress = got > 0 ? response_feed(&c->response, scratch, (size_t)got) : RESPONSE_FAULT;
	if (progress == RESPONSE_MORE)
		return;
	if (progress == RESPONSE_FAULT) {
		on_broken(c);
		return;
	}
	errors += c->response.status != 200;
	answered++;
	on_answer(c);
}

static void on_writable(struct conn *c)
{
	off_t from = 0;
	size_t most = c->upload_left < ZEROS_BYTES ? (size_t)c->upload_left : ZEROS_BYTES;
	ssize_t sent = sendfile(c->fd, zeros_fd, &from, most);
	if (sent < 0 && errno != EAGAIN)
		tool_die("load: an upload broke off: %s", strerror(errno));
	c->upload_left -= sent > 0 ? (uint64_t)sent : 0;
	if (!c->upload_left)
		watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

/* ---- the loop ---- */

static void turn(uint64_t until_ns)
{
	struct epoll_event events[EVENTS_PER_TURN];
	uint64_t now = tool_now_ns(), rest = until_ns > now ? until_ns - now : 0;
	struct timespec t = {.tv_sec = (time_t)(rest / TOOL_NS_PER_S), .tv_nsec = (long)(rest % TOOL_NS_PER_S)};
	int count = epoll_pwait2(epoll_fd, events, EVENTS_PER_TURN, &t, NULL);
	for (int i = 0; i < count; i++) {
		struct conn *c = events[i].data.ptr;
		if (c->upload_left && (events[i].events & EPOLLOUT))
			on_writable(c);
		else
			on_readable(c);
	}
}

static void run_until(uint64_t end_ns)
{
	while (tool_now_ns() < end_ns)
		turn(end_ns);
}

static void open_all(void)
{
	for (uint64_t i = 0; i < connections; i++)
		conn_open(&conns[i]);
}

/* ---- small requests ---- */

static void answer_and_send(struct conn *c)
{
	add_sample(tool_now_ns() - c->sent_ns);
	response_reset(&c->response);
	conn_send(c);
}

static void open_again(struct conn *c)
{
	if (++errors > 1000)
		give_up(c);
	close(c->fd);
	response_reset(&c->response);
	conn_open(c);
}

static void open_and_send(struct conn *c)
{
	open_again(c);
	conn_send(c);
}

static void run_requests(void)
{
	on_answer = answer_and_send;
	on_broken = open_and_send;
	open_all();
	for (uint64_t i = 0; i < connections; i++)
		conn_send(&conns[i]);
	run_until(tool_now_ns() + warm_ms * TOOL_NS_PER_MS);
	start_measuring();
	run_until(tool_now_ns() + measure_ms * TOOL_NS_PER_MS);
	print_result();
}

static void answer_and_rest(struct conn *c)
{
	add_sample(tool_now_ns() - c->sent_ns);
	response_reset(&c->response);
	idle[idle_top++] = (uint64_t)(c - conns);
}

static void open_and_rest(struct conn *c)
{
	open_again(c);
	idle[idle_top++] = (uint64_t)(c - conns);
}

/* A request that finds no idle connection is counted from when it was due. */
static void run_rate(void)
{
	uint64_t step = TOOL_NS_PER_S / rate, due = tool_now_ns() + step;
	uint64_t warm_end = due + warm_ms * TOOL_NS_PER_MS, end = warm_end + measure_ms * TOOL_NS_PER_MS;
	on_answer = answer_and_rest;
	on_broken = open_and_rest;
	open_all();
	for (uint64_t i = 0; i < connections; i++)
		idle[idle_top++] = i;
	while (due < end) {
		if (!measuring && due >= warm_end)
			start_measuring();
		turn(due);
		uint64_t now = tool_now_ns();
		for (; due <= now && idle_top; due += step) {
			struct conn *c = &conns[idle[--idle_top]];
			conn_send(c);
			if (now - due > step)
				c->sent_ns = due;
		}
		if (!idle_top)
			turn(now + TOOL_NS_PER_MS);
	}
	run_until(end + 20 * TOOL_NS_PER_MS);
	print_result();
}

/* ---- streams ---- */

static void on_stream_event(void *context, const char *event)
{
	struct conn *c = context;
	const char *sequence = strstr(event, "\"seq\":"), *at = strstr(event, "\"at\":");
	if (!sequence || !at)
		tool_die("load: not an event: %.80s", event);
	uint64_t number = strtoull(sequence + 6, NULL, 10);
	lost += number - c->sequence - 1;
	c->sequence = number;
	answered++;
	add_sample(tool_now_ns() - strtoull(at + 5, NULL, 10));
}

static uint64_t count_streams(void)
{
	uint64_t count = 0;
	for (uint64_t i = 0; i < opened; i++)
		count += conns[i].response.part != RESPONSE_HEAD;
	return count;
}

static void open_streams(void)
{
	uint64_t deadline = tool_now_ns() + STREAM_TIMEOUT_S * (uint64_t)TOOL_NS_PER_S;
	while ((begun_streams = count_streams()) < connections) {
		if (tool_now_ns() > deadline)
			tool_die("load: only %lu of %lu streams have begun in %d s", begun_streams, connections,
				STREAM_TIMEOUT_S);
		for (; opened < connections && opened - begun_streams < OPENING_MAX; opened++) {
			struct conn *c = &conns[opened];
			c->response = (struct response){.on_event = on_stream_event, .context = c};
			conn_open(c);
			conn_send(c);
		}
		turn(tool_now_ns() + TOOL_NS_PER_MS);
	}
}

static void run_streams(void)
{
	char byte;
	on_answer = on_broken = give_up;
	open_streams();
	run_until(tool_now_ns() + warm_ms * TOOL_NS_PER_MS);
	start_measuring();
	run_until(tool_now_ns() + measure_ms * TOOL_NS_PER_MS);
	print_result();
	if (hold && read(STDIN_FILENO, &byte, 1) < 0)
		tool_die("load: standard input");
}

/* ---- large bodies ---- */

static void count_finished(struct conn *c)
{
	add_sample(tool_now_ns() - c->sent_ns);
	finished++;
}

static void run_bodies(bool upload)
{
	on_answer = count_finished;
	on_broken = give_up;
	open_all();
	start_measuring();
	for (uint64_t i = 0; i < connections; i++) {
		conn_send(&conns[i]);
		conns[i].upload_left = upload ? bytes : 0;
		if (upload)
			watch(&conns[i], EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
	}
	while (finished < connections)
		turn(tool_now_ns() + TOOL_NS_PER_S);
	print_result();
}

/* ---- the program ---- */

static void parse_option(const char *argument)
{
	size_t length = strcspn(argument, "=");
	for (size_t i = 0; i < sizeof OPTIONS / sizeof *OPTIONS; i++) {
		const struct option *o = &OPTIONS[i];
		if (strlen(o->name) != length || strncmp(o->name, argument, length) != 0 || !argument[length])
			continue;
		if (o->number)
			*o->number = strtoull(argument + length + 1, NULL, 10);
		else
			*o->text = argument + length + 1;
		return;
	}
	tool_die("load: %s is no option", argument);
}

static void make_request(const char *mode)
{
	static const char begin[] =
		"{\"model\":\"bench\",\"max_tokens\":16,\"messages\":[{\"role\":\"user\",\"content\":\"";
	static const char end[] = "\"}]}";
	char body[513];
	bool get = !strcmp(mode, "streams") || !strcmp(mode, "download"), upload = !strcmp(mode, "upload");
	memset(body, 'q', 512);
	memcpy(body, begin, sizeof begin - 1);
	memcpy(body + 512 - (sizeof end - 1), end, sizeof end);
	request_length = (size_t)snprintf(request, sizeof request,
		"%s %s HTTP/1.1\r\nHost: api.example.com\r\nAccept: application/json\r\n"
		"Accept-Encoding: gzip, deflate\r\nUser-Agent: OpenAI/Python 1.55.0\r\n"
		"Authorization: Bearer %s\r\n",
		get ? "GET" : "POST", path, key);
	char *rest = request + request_length;
	size_t room = sizeof request - request_length;
	if (get)
		request_length += (size_t)snprintf(rest, room, "\r\n");
	else
		request_length +=
			(size_t)snprintf(rest, room, "Content-Type: application/json\r\nContent-Length: %lu\r\n\r\n%s",
				upload ? bytes : 512, upload ? "" : body);
	if (request_length >= sizeof request)
		tool_die("load: path or key are too long");
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	for (int i = 2; i < argc; i++)
		parse_option(argv[i]);
	if (!port || !connections || connections > CONNECTIONS_MAX)
		tool_die("load: port, and connections of 1 to %d, are needed", CONNECTIONS_MAX);
	tool_init();
	conns = calloc(connections, sizeof *conns);
	idle = calloc(connections, sizeof *idle);
	samples = calloc(SAMPLES_MAX, sizeof *samples);
	zeros_fd = tool_zeros(ZEROS_BYTES);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	make_request(mode);
	if (!strcmp(mode, "requests"))
		run_requests();
	else if (!strcmp(mode, "rate") && rate)
		run_rate();
	else if (!strcmp(mode, "streams"))
		run_streams();
	else if (!strcmp(mode, "download") || !strcmp(mode, "upload"))
		run_bodies(mode[0] == 'u');
	else
		tool_die("load: no such mode: %s", mode);
	return 0;
}
