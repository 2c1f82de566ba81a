/* control: libmicrohttpd behind a socketpair, and the way of one request through it.
 *
 *   the URI as it came (on_uri) -> head: may it ask, how long may its body be -> body, kept or dropped
 *   -> the handler, in this thread or in a lane while the connection is suspended -> the answer
 *
 * A struct call is one request: made when its URI is there, freed when libmicrohttpd is done with it
 * (on_completed). Between lane_push() and MHD_resume_connection() it is the lane's, else the daemon
 * thread's; a suspended connection cannot complete. What the head alone refuses is answered at once: libmicrohttpd
 * then asks for no body (100), and ends the connection where one is still to come. */
#include "admin/control.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/dispatch.h"
#include "admin/lane.h"
#include "base/check.h"
#include "base/log.h"
#include "path/plane.h"

enum {
	MAGIC = 0x63616c6c,
	CONNECTIONS_MAX = 20000,
	QUIET_SECONDS = 60, /* within a body; longer than the data plane keeps a connection for the next request */
	/* The longest head that the data plane passes is 64 KiB; pages that are not touched cost nothing. */
	CONNECTION_MEMORY = 96 * 1024,
	STACK_BYTES = 128 * 1024,
};

struct control {
	struct admin admin;
	struct MHD_Daemon *daemon;
	struct lane *lanes[LANE_COUNT]; /* [LANE_NONE] is NULL */
};

enum call_state { CALL_NEW, CALL_BODY, CALL_RUNNING, CALL_DONE };

struct call {
	unsigned magic;
	enum call_state state;
	struct control *control;
	struct MHD_Connection *connection;
	const struct dispatch_row *row; /* NULL: refused, the reply says why */
	struct lane_task task;
	char *uri; /* request.path and request.query are parts of it */
	char *body;
	size_t body_size;
	struct admin_request request;
	struct admin_reply reply;
};

static const struct {
	enum dispatch_lane lane;
	const char *name;
	unsigned threads;
} lane_table[] = {
	{LANE_FIGURES, "figures", 1},
	{LANE_STORE, "store", 2},
	{LANE_HASH, "login", 2},
};

static void *on_uri(void *context, const char *uri, struct MHD_Connection *connection)
{
	struct call *call = check_calloc(1, sizeof *call);
	call->magic = MAGIC;
	call->control = context;
	call->connection = connection;
	call->uri = check_strdup(uri);
	char *query = strchr(call->uri, '?');
	if (query)
		*query++ = '\0';
	call->request.path = call->uri;
	call->request.query = query ? query : "";
	return call;
}

/* Keys and passwords come in bodies: none is left in memory that others get. */
static void drop_body(struct call *call)
{
	if (call->body)
		explicit_bzero(call->body, call->request.length);
	free(call->body);
	call->body = NULL;
	call->body_size = 0;
}

/* realloc(3) would leave what it moves. */
static bool grow_body(struct call *call, size_t size)
{
	char *body = malloc(size);
	if (!body)
		return false;
	if (call->body)
		memcpy(body, call->body, call->request.length);
	drop_body(call);
	call->body = body;
	call->body_size = size;
	return true;
}

static void on_completed(void *context, struct MHD_Connection *connection, void **request_context,
	enum MHD_RequestTerminationCode code)
{
	(void)context, (void)connection, (void)code;
	struct call *call = *request_context;
	if (!call)
		return;
	CHECK(call->magic == MAGIC && call->state != CALL_RUNNING);
	*request_context = NULL;
	admin_reply_free(&call->reply);
	free(call->request.tail);
	drop_body(call);
	free(call->uri);
	call->magic = 0;
	free(call);
}

static const char *field(struct call *call, const char *name)
{
	return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

static unsigned long long declared_length(struct call *call)
{
	const char *length = field(call, MHD_HTTP_HEADER_CONTENT_LENGTH);
	return length ? strtoull(length, NULL, 10) : 0;
}

/* Is one still to come? An answer that does not wait for it ends the connection, one without a body does not. */
static bool has_body(struct call *call)
{
	return declared_length(call) > 0 || field(call, MHD_HTTP_HEADER_TRANSFER_ENCODING);
}

static void refuse_body(struct call *call)
{
	admin_reply_problem(&call->reply, PROBLEM_BODY_TOO_LARGE, "The body may have %zu bytes here.",
		call->row->body_bytes_max);
	call->row = NULL;
	drop_body(call);
}

static void take_head(struct call *call, const char *method)
{
	struct admin_request *request = &call->request;
	const char *peer = field(call, PLANE_PEER_FIELD), *listener = field(call, PLANE_LISTENER_FIELD);
	request->admin = &call->control->admin;
	request->method = method;
	request->body = "";
	request->peer = peer ? peer : "";
	request->ops = listener && strcmp(listener, "ops") == 0;
	request->if_none_match = field(call, MHD_HTTP_HEADER_IF_NONE_MATCH);
	call->row = dispatch_find(request, field(call, MHD_HTTP_HEADER_AUTHORIZATION), &call->reply);
	if (call->row && call->row->body_bytes_max > 0 && declared_length(call) > call->row->body_bytes_max)
		refuse_body(call);
}

static void take_body(struct call *call, const char *data, size_t size)
{
	struct admin_request *request = &call->request;
	if (!call->row || call->row->body_bytes_max == 0)
		return;
	if (request->length + size > call->row->body_bytes_max) {
		refuse_body(call);
		return;
	}
	if (request->length + size + 1 > call->body_size && !grow_body(call, 2 * (request->length + size + 1))) {
		admin_reply_problem(&call->reply, PROBLEM_OUT_OF_MEMORY, NULL);
		call->row = NULL;
		return;
	}
	memcpy(call->body + request->length, data, size);
	request->length += size;
	call->body[request->length] = '\0';
	request->body = call->body;
}

static bool has_header(const struct admin_reply *reply, const char *name)
{
	for (size_t i = 0; i < reply->header_count; i++)
		if (strcasecmp(reply->headers[i].name, name) == 0)
			return true;
	return false;
}

static struct MHD_Response *make_response(struct admin_reply *reply)
{
	void *bytes = reply->body ? reply->body : (void *)(uintptr_t)reply->static_body; /* which is only read */
	struct MHD_Response *response = MHD_create_response_from_buffer(reply->length, bytes,
		reply->body ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	if (!response)
		return NULL;
	reply->body = NULL;
	for (size_t i = 0; i < reply->header_count; i++)
		MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
	if (reply->content_type && reply->status != 304)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->content_type);
	if (!has_header(reply, MHD_HTTP_HEADER_CACHE_CONTROL))
		MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	return response;
}

static enum MHD_Result answer(struct call *call)
{
	struct MHD_Response *response = make_response(&call->reply);
	if (!response)
		return MHD_NO;
	enum MHD_Result result = MHD_queue_response(call->connection, call->reply.status, response);
	MHD_destroy_response(response);
	return result;
}

static void on_lane(struct lane_task *task, bool cancelled)
{
	struct call *call = container_of(task, struct call, task);
	if (cancelled)
		admin_reply_problem(&call->reply, PROBLEM_DRAINING, NULL);
	else
		call->row->handler(&call->request, &call->reply);
	call->state = CALL_DONE;
	MHD_resume_connection(call->connection); /* from here on it is the daemon thread's */
}

static enum MHD_Result run_handler(struct call *call)
{
	if (call->row->lane == LANE_NONE) {
		call->row->handler(&call->request, &call->reply);
		call->state = CALL_DONE;
		return answer(call);
	}
	call->state = CALL_RUNNING;
	MHD_suspend_connection(call->connection);
	call->task.run = on_lane;
	lane_push(call->control->lanes[call->row->lane], &call->task);
	return MHD_YES;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *data, size_t *size, void **request_context)
{
	(void)context, (void)connection, (void)url, (void)version;
	struct call *call = *request_context;
	CHECK(call && call->magic == MAGIC);
	if (call->state == CALL_NEW) {
		take_head(call, method);
		call->state = CALL_BODY;
		return !call->row && has_body(call) ? answer(call) : MHD_YES;
	}
	if (*size > 0) {
		take_body(call, data, *size);
		*size = 0;
		return MHD_YES;
	}
	if (call->state == CALL_DONE || !call->row)
		return answer(call);
	return run_handler(call);
}

void control_finish(struct control *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < LANE_COUNT; i++)
		lane_stop(c->lanes[i]);
}

static void free_control(struct control *c)
{
	for (size_t i = 0; i < LANE_COUNT; i++)
		lane_free(c->lanes[i]);
	admin_fini(&c->admin);
	free(c);
}

struct control *control_start(const struct admin_setup *setup)
{
	struct control *c = check_calloc(1, sizeof *c);
	admin_init(&c->admin, setup);
	for (size_t i = 0; i < sizeof lane_table / sizeof *lane_table; i++)
		c->lanes[lane_table[i].lane] = lane_start(lane_table[i].name, lane_table[i].threads);
	/* clang-format off */
	c->daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
		on_request, c,
		MHD_OPTION_URI_LOG_CALLBACK, on_uri, c,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, c,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)QUIET_SECONDS,
		MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES,
		MHD_OPTION_END);
	/* clang-format on */
	if (c->daemon)
		return c;
	log_error("control", "libmicrohttpd does not start: %s", strerror(errno));
	control_finish(c);
	free_control(c);
	return NULL;
}

int control_connect(struct control *c)
{
	int pair[2];
	static const struct sockaddr address = {.sa_family = AF_UNIX};
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	/* Closes its end itself where it fails. */
	if (MHD_add_connection(c->daemon, pair[1], &address, sizeof address) == MHD_YES)
		return pair[0];
	int error = errno;
	close(pair[0]);
	errno = error;
	return -1;
}

void control_set_draining(struct control *c)
{
	__atomic_store_n(&c->admin.draining, true, __ATOMIC_RELAXED);
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	control_finish(c); /* resumes what is suspended: a daemon must not stop before */
	MHD_stop_daemon(c->daemon);
	free_control(c);
}
