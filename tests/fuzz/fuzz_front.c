/* fuzz_front: hostile clients and hostile vendors on the whole data path (front, exchange, relay, upstream),
 * on one loop, over socket pairs. The input is a play: each step is a byte that names it, a byte for who and
 * how much, and where it takes some, bytes. Connecting, admission and the clock are doubles, so that a play
 * is always the same and an hour is a step.
 *
 * What must hold, whatever is said: what reaches a vendor is a sequence of heads and bodies that a strict
 * reader takes; what reaches a client is one too; once all clients have gone nothing is left over: no
 * request, no connection but the kept ones. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/log.h"
#include "path/admission.h"
#include "path/connector.h"
#include "path/exchange.h"
#include "path/front.h"
#include "path/identity.h"
#include "path/plane.h"
#include "path/upstream.h"
#include "state/rules.h"
#include "state/settings.h"
#include "state/snapshot_build.h"
#include "state/stats.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CLIENTS = 4, VENDORS = 8, UNREAD_MAX = 1 << 20, TURNS_TO_END = 64, PLAYED_MAX = 4096 };

/* ---- the clock: monotonic time as it is, and what the play has let pass ---- */

static int64_t passed_ms;

int clock_gettime(clockid_t id, struct timespec *t)
{
	if (syscall(SYS_clock_gettime, id, t) != 0)
		return -1;
	if (id == CLOCK_MONOTONIC)
		t->tv_sec += (time_t)(passed_ms / 1000);
	return 0;
}

/* ---- whoever talks to the gateway, and a strict reader of what it is told ---- */

struct reader {
	char *unread;
	size_t length;
	struct http_body body;
	bool in_body;
	bool blind; /* what comes cannot be judged any more */
};

struct peer {
	int fd; /* -1: none */
	bool stuck;
	bool is_client;
	struct reader reader;
};

static struct peer clients[CLIENTS];
static struct peer vendors[VENDORS];
static unsigned vendors_met;

static void reader_reset(struct reader *r)
{
	free(r->unread);
	*r = (struct reader){0};
}

static bool has_bare_newline(const struct http_head *head)
{
	for (size_t i = 0; i < head->length; i++)
		if (head->bytes[i] == '\n' && (i == 0 || head->bytes[i - 1] != '\r'))
			return true;
	return false;
}

static void judge_request(struct reader *r, const struct http_head *head)
{
	const char *fault = http_request_body(head, &r->body);
	CHECK(!fault);
	fault = http_check_host(head);
	CHECK(!fault && !http_find(head, HTTP_KEEP_ALIVE) && !http_find(head, HTTP_TE) && !http_find(head, HTTP_TRAILER));
	r->blind = http_find(head, HTTP_UPGRADE) != NULL; /* a tunnel may follow */
}

static void judge_answer(struct reader *r, const struct http_head *head)
{
	const char *fault = http_response_body(head, false, &r->body);
	CHECK(!fault && (head->status == 100 || head->status == 101 || head->status >= 200));
	CHECK(!http_find(head, HTTP_TRANSFER_ENCODING) || !http_find(head, HTTP_CONTENT_LENGTH));
	r->blind = head->status == 101 || (r->body.framing == HTTP_UNTIL_CLOSE && !r->body.done);
}

static bool read_head(struct reader *r, bool answers)
{
	static struct http_head head;
	enum http_parse result = answers ? http_parse_response(&head, r->unread, r->length, NULL) :
									   http_parse_request(&head, r->unread, r->length, NULL);
	CHECK(result != HTTP_MALFORMED && result != HTTP_VERSION_UNKNOWN);
	r->blind = result != HTTP_COMPLETE && result != HTTP_PARTIAL;
	if (result != HTTP_COMPLETE)
		return false;
	CHECK(!has_bare_newline(&head));
	if (answers)
		judge_answer(r, &head);
	else
		judge_request(r, &head);
	r->length -= head.length;
	memmove(r->unread, r->unread + head.length, r->length);
	r->in_body = !r->body.done;
	return true;
}

static bool read_body(struct reader *r)
{
	size_t consumed;
	size_t content_length;
	char *content;
	bool fine = http_body_decode(&r->body, r->unread, r->length, &consumed, &content, &content_length);
	CHECK(fine);
	r->length -= consumed;
	memmove(r->unread, r->unread + consumed, r->length);
	r->in_body = !r->body.done;
	return consumed > 0;
}

static void reader_feed(struct reader *r, const char *data, size_t length, bool answers)
{
	if (r->blind || !length)
		return;
	if (r->length + length > UNREAD_MAX) {
		r->blind = true;
		return;
	}
	r->unread = realloc(r->unread, r->length + length);
	CHECK(r->unread);
	memcpy(r->unread + r->length, data, length);
	r->length += length;
	while (r->length && !r->blind && (r->in_body ? read_body(r) : read_head(r, answers))) {
	}
}

static void peer_leave(struct peer *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	reader_reset(&p->reader);
}

static void peer_listen(struct peer *p)
{
	static char heard[64 * 1024];
	ssize_t count = 0;
	while (p->fd >= 0 && !p->stuck && (count = recv(p->fd, heard, sizeof heard, MSG_DONTWAIT)) > 0)
		reader_feed(&p->reader, heard, (size_t)count, p->is_client);
}

static void peer_say(struct peer *p, const uint8_t *data, size_t length)
{
	if (p->fd >= 0 && length)
		(void)!send(p->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One end is the gateway's, the other becomes *p. */
static int pair_with(struct peer *p, bool is_client)
{
	int ends[2];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	peer_leave(p);
	*p = (struct peer){.fd = ends[0], .is_client = is_client};
	return ends[1];
}

static int meet_vendor(void)
{
	return pair_with(&vendors[vendors_met++ % VENDORS], false);
}

/* ---- doubles: connecting ---- */

enum connecting { CONNECTS, CONNECT_REFUSED, CONNECT_SLOW, CONNECT_NEVER, CONNECTING_KINDS };

static enum connecting connecting;

struct connector {
	struct loop *loop;
};

static void on_due_connect(struct loop_timer *t)
{
	struct connect_job *job = container_of(t, struct connect_job, again);
	bool done = connecting == CONNECTS || connecting == CONNECT_SLOW;
	job->handle = NULL;
	if (done)
		job->on_done(job, CONNECT_DONE, &(struct connection){.fd = meet_vendor()}, NULL);
	else
		job->on_done(job, connecting == CONNECT_NEVER ? CONNECT_TIMED_OUT : CONNECT_FAILED, NULL, "a play");
}

struct connector *connector_new(struct loop *l, void (*make_room)(void *context), void *context)
{
	(void)make_room;
	(void)context;
	struct connector *c = check_calloc(1, sizeof *c);
	c->loop = l;
	return c;
}

void connector_free(struct connector *c)
{
	free(c);
}

bool connector_start(struct connector *c, struct connect_job *job, const struct target *target, uint64_t timeout_ms)
{
	uint64_t delay_ms = connecting == CONNECT_SLOW ? 50 : connecting == CONNECT_NEVER ? timeout_ms : 0;
	(void)target;
	job->connector = c;
	job->handle = c;
	job->again.on_due = on_due_connect;
	loop_timer_set(c->loop, &job->again, loop_now_ms(c->loop) + delay_ms);
	return true;
}

void connector_cancel(struct connector *c, struct connect_job *job)
{
	if (job->handle)
		loop_timer_cancel(c->loop, &job->again);
	job->handle = NULL;
}

static int control_connect(void *control)
{
	(void)control;
	return meet_vendor();
}

/* ---- doubles: admission, which has two keys ---- */

enum admission_outcome admission_outcome_of_status(unsigned status)
{
	return status == 429 || status == 503 ? ADMISSION_THROTTLED :
		status == 401 || status == 403    ? ADMISSION_REJECTED :
		status == 0 || status == 500      ? ADMISSION_FAILED :
		status < 400                      ? ADMISSION_SUCCESS :
											ADMISSION_NOTHING;
}

static int admitted;

bool admission_start(struct admission *a, struct admission_request *rq)
{
	(void)a;
	rq->key = rq->mapping->pool ? rq->mapping->pool->keys[0] : NULL;
	rq->figures[0] = (struct admission_figure){.limit = 7, .remaining = 6, .reset_ms = 1};
	admitted++;
	return true;
}

void admission_cancel(struct admission_request *rq)
{
	(void)rq;
	admitted--;
}

void admission_report(struct admission_request *rq, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms)
{
	(void)rq;
	(void)outcome;
	(void)status;
	(void)retry_after_ms;
}

bool admission_next_key(struct admission_request *rq, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms)
{
	admission_report(rq, outcome, status, retry_after_ms);
	rq->problem = rq->key == rq->mapping->pool->keys[0] ? PROBLEM_NONE : PROBLEM_NO_UPSTREAM_KEY;
	rq->key = rq->mapping->pool->keys[1];
	return true;
}

void admission_settle(struct admission_request *rq, const struct admission_result *result)
{
	(void)rq;
	(void)result;
	admitted--;
}

/* ---- the stage ---- */

static struct plane plane;
static struct stats *stats;
static struct snapshot *snapshot;
static _Atomic uint32_t connections;
static struct settings settings = {
	.server_header_timeout_seconds = 30,
	.server_idle_timeout_seconds = 75,
	.server_cors_origins = (char *)"https://a.example",
	.stats_enabled = true,
};

static void on_less(struct plane *p)
{
	(void)p;
}

static struct mapping *add_mapping(const char *prefix, const char *url)
{
	struct mapping *m = snapshot_add_mapping(snapshot);
	m->prefix = prefix;
	m->prefix_length = strlen(prefix);
	m->description = "";
	m->enabled = true;
	CHECK(!rules_parse_target(url, snapshot_arena(snapshot), &m->target));
	return m;
}

static void build_stage(void)
{
	if (stats)
		return;
	log_configure(LOG_ERROR, false); /* what vendors do wrong would be told at length */
	stats = stats_new(1, false);
	snapshot = snapshot_new(NULL, "0123456789abcdef0123456789abcdef");
	add_mapping("/a", "http://a.test");
	struct mapping *limited = add_mapping("/b", "http://b.test:81/base");
	limited->timeout_ms = 1000;
	limited->max_body_bytes = 100;
	struct mapping *managed = add_mapping("/c", "http://[::1]:82/v1");
	managed->pool_name = "p";
	managed->include_usage = true;
	for (int i = 0; i < 2; i++) {
		struct vendor_key *key = snapshot_add_key(snapshot);
		*key = (struct vendor_key){.id = i ? "k2" : "k1",
			.pool = "p",
			.secret = "sk-secret",
			.weight = 1,
			.enabled = true};
	}
	snapshot_seal(snapshot, NULL, NULL);
	plane.settings = &settings;
	plane.stats = stats_ring(stats, 0);
	plane.identity = identity_new();
	plane.control_connect = control_connect;
	plane.connections = &connections;
	plane.on_less = on_less;
}

static void raise_curtain(void)
{
	build_stage();
	passed_ms = 0;
	connecting = CONNECTS;
	plane.draining = false;
	plane.loop = loop_new();
	plane.connector = connector_new(plane.loop, NULL, NULL);
	plane.upstreams = upstream_pool_new(plane.loop);
	plane_publish(&plane, snapshot_ref(snapshot));
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = (struct peer){.fd = -1};
	for (int i = 0; i < VENDORS; i++)
		vendors[i] = (struct peer){.fd = -1};
	vendors_met = 0;
}

static void lower_curtain(void)
{
	upstream_pool_free(plane.upstreams);
	connector_free(plane.connector);
	loop_free(plane.loop);
	for (int i = 0; i < VENDORS; i++)
		peer_leave(&vendors[i]);
	plane_unpin(plane.pin);
	plane.pin = NULL;
}

/* ---- the play ---- */

struct play {
	struct loop_task task;
	const uint8_t *at, *end;
	unsigned played;
	unsigned silence; /* turns to let pass */
	unsigned turns_left;
	bool over;
};

static void enter_client(struct peer *p)
{
	static const struct sockaddr_storage peer = {.ss_family = AF_INET};
	front_accept(&plane, pair_with(p, true), &peer, NULL, false);
}

static void do_client_says(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	struct peer *p = &clients[who % CLIENTS];
	(void)play;
	if (p->fd < 0)
		enter_client(p);
	/* An answer to HEAD has a length and no body. */
	p->reader.blind |= memmem(data, length, "HEAD", 4) || memmem(data, length, "D ", 2) || length < 4;
	peer_say(p, data, length);
}

static void do_vendor_says(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	peer_say(&vendors[(vendors_met + who) % VENDORS], data, length);
}

/* Much of the same: floods, and bodies that fill all buffers. */
static void say_often(struct peer *p, const uint8_t *data, size_t length)
{
	for (int i = 0; i < 2000; i++)
		peer_say(p, data, length);
}

static void do_client_floods(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	clients[who % CLIENTS].reader.blind = true;
	say_often(&clients[who % CLIENTS], data, length);
}

static void do_vendor_floods(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	say_often(&vendors[(vendors_met + who) % VENDORS], data, length);
}

static struct peer *anyone(uint8_t who)
{
	who %= CLIENTS + VENDORS;
	return who < CLIENTS ? &clients[who] : &vendors[(vendors_met + who) % VENDORS];
}

static void do_stick(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	(void)data;
	(void)length;
	anyone(who)->stuck ^= true;
}

static void do_half_close(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	(void)data;
	(void)length;
	if (anyone(who)->fd >= 0)
		shutdown(anyone(who)->fd, SHUT_WR);
}

/* With something unread it is a reset. */
static void do_leave(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	(void)data;
	(void)length;
	peer_leave(anyone(who));
}

static void do_wait_turns(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)data;
	(void)length;
	play->silence = who % 16;
}

static void do_pass_time(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	(void)data;
	(void)length;
	passed_ms += who * 1000;
}

static void do_change_connecting(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	(void)data;
	(void)length;
	connecting = who % CONNECTING_KINDS;
}

static void do_drain(struct play *play, uint8_t who, const uint8_t *data, size_t length)
{
	(void)play;
	(void)data;
	(void)length;
	plane.draining = who & 1;
}

struct step_kind {
	void (*act)(struct play *play, uint8_t who, const uint8_t *data, size_t length);
	bool takes_bytes; /* a byte for their number, and they */
};

static const struct step_kind step_kinds[] = {
	{do_client_says, true},
	{do_vendor_says, true},
	{do_client_floods, true},
	{do_vendor_floods, true},
	{do_wait_turns, false},
	{do_half_close, false},
	{do_leave, false},
	{do_stick, false},
	{do_pass_time, false},
	{do_change_connecting, false},
	{do_drain, false},
};

static void play_step(struct play *play)
{
	const struct step_kind *kind = &step_kinds[*play->at++ % (sizeof step_kinds / sizeof step_kinds[0])];
	uint8_t who = *play->at++;
	size_t length = 0;
	if (kind->takes_bytes && play->at < play->end) {
		length = *play->at++;
		if (length > (size_t)(play->end - play->at))
			length = (size_t)(play->end - play->at);
	}
	kind->act(play, who, play->at, length);
	play->at += length;
	play->played++;
}

/* The play is over: all may speak out, then all leave, then time passes. */
static void wind_up(struct play *play)
{
	play->over = true;
	play->turns_left--;
	for (int i = 0; i < CLIENTS && play->turns_left == TURNS_TO_END / 2; i++)
		peer_leave(&clients[i]);
	if (play->turns_left < TURNS_TO_END / 2)
		passed_ms += 1000;
	if (play->turns_left)
		return;
	CHECK(!plane.fronts && !connections && !plane.awaited_count && !admitted);
	loop_stop(plane.loop);
}

static void on_turn(struct loop_task *t)
{
	struct play *play = container_of(t, struct play, task);
	for (int i = 0; i < CLIENTS; i++)
		peer_listen(&clients[i]);
	for (int i = 0; i < VENDORS; i++)
		peer_listen(&vendors[i]);
	if (play->silence)
		play->silence--;
	else if (play->end - play->at >= 2 && play->played < PLAYED_MAX && !play->over)
		play_step(play);
	else
		wind_up(play);
	loop_defer(plane.loop, &play->task);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct play play = {.task.run = on_turn, .at = data, .end = data + size, .turns_left = TURNS_TO_END};
	raise_curtain();
	loop_defer(plane.loop, &play.task);
	loop_run(plane.loop);
	lower_curtain();
	return 0;
}
