/* upstream: groups of kept connections by scheme, host and port, and one list of all of them by age.
 * A group lives as long as a connection of it does. */
#include "path/upstream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hash.h"
#include "path/connector.h"
#include "state/snapshot.h"

enum { GROUP_BUCKETS = 256, SWEEP_MS = 250 };

/* When a worker was short of a descriptor and had nothing to close, on the monotonic clock: the others close some. */
static _Atomic uint64_t short_ms;

struct upstream_group {
	struct upstream_group *next; /* in its bucket */
	struct upstream *idle;       /* the one used last first */
	uint64_t hash;
	uint32_t connections;
	uint16_t port;
	bool tls;
	char host[];
};

struct upstream_pool {
	struct loop *loop;
	struct loop_timer sweep;
	struct upstream *newest, *oldest;
	uint32_t idle_count;
	struct upstream_group *buckets[GROUP_BUCKETS];
};

static uint64_t hash_target(const struct target *t)
{
	return hash_text(HASH_START ^ t->port ^ (t->tls ? 0x10000u : 0), t->host);
}

static struct upstream_group *find_group(struct upstream_pool *p, const struct target *t, uint64_t hash)
{
	struct upstream_group *g = p->buckets[hash % GROUP_BUCKETS];
	while (g && !(g->hash == hash && g->port == t->port && g->tls == t->tls && strcmp(g->host, t->host) == 0))
		g = g->next;
	return g;
}

/* Found or made, with one connection more. NULL: no memory. */
static struct upstream_group *join_group(struct upstream_pool *p, const struct target *t)
{
	uint64_t hash = hash_target(t);
	struct upstream_group *g = find_group(p, t, hash);
	if (g) {
		g->connections++;
		return g;
	}
	size_t length = strlen(t->host) + 1;
	g = calloc(1, sizeof *g + length);
	if (!g)
		return NULL;
	g->hash = hash;
	g->port = t->port;
	g->tls = t->tls;
	g->connections = 1;
	memcpy(g->host, t->host, length);
	g->next = p->buckets[hash % GROUP_BUCKETS];
	p->buckets[hash % GROUP_BUCKETS] = g;
	return g;
}

static void drop_group(struct upstream_pool *p, struct upstream_group *g)
{
	if (--g->connections)
		return;
	struct upstream_group **link = &p->buckets[g->hash % GROUP_BUCKETS];
	while (*link != g)
		link = &(*link)->next;
	*link = g->next;
	free(g);
}

static void unlink_idle(struct upstream_pool *p, struct upstream *u)
{
	*(u->newer ? &u->newer->older : &p->newest) = u->older;
	*(u->older ? &u->older->newer : &p->oldest) = u->newer;
	*(u->group_previous ? &u->group_previous->group_next : &u->group->idle) = u->group_next;
	if (u->group_next)
		u->group_next->group_previous = u->group_previous;
	u->newer = u->older = u->group_next = u->group_previous = NULL;
	u->idle_since_ms = 0;
	p->idle_count--;
}

/* Nothing may come on a kept connection but the vendor's farewell (and TLS tickets, which are no data). */
static bool is_quiet(struct upstream *u)
{
	char byte;
	return !u->io.hangup && (!u->io.readable || io_read(&u->io, &byte, 1) == IO_AGAIN);
}

static void on_idle_event(struct upstream *u, void *owner)
{
	if (!is_quiet(u))
		upstream_close(owner, u);
}

static void on_io_event(struct loop_watch *w, uint32_t events)
{
	struct upstream *u = container_of(container_of(w, struct io, watch), struct upstream, io);
	io_note(&u->io, events);
	u->on_event(u, u->owner);
}

static void on_sweep(struct loop_timer *t)
{
	struct upstream_pool *p = container_of(t, struct upstream_pool, sweep);
	uint64_t now = loop_now_ms(p->loop);
	bool is_short = atomic_load(&short_ms) + SWEEP_MS >= now;
	uint32_t kept = is_short ? p->idle_count / 2 : UINT32_MAX;
	while (p->oldest && (p->idle_count > kept || p->oldest->idle_since_ms + UPSTREAM_IDLE_SECONDS * 1000 <= now))
		upstream_close(p, p->oldest);
	if (p->oldest)
		loop_timer_set(p->loop, &p->sweep, now + SWEEP_MS);
}

struct upstream_pool *upstream_pool_new(struct loop *l)
{
	struct upstream_pool *p = check_calloc(1, sizeof *p);
	p->loop = l;
	p->sweep.on_due = on_sweep;
	return p;
}

void upstream_pool_free(struct upstream_pool *p)
{
	if (!p)
		return;
	while (p->oldest)
		upstream_close(p, p->oldest);
	loop_timer_cancel(p->loop, &p->sweep);
	free(p);
}

struct upstream *upstream_take(struct upstream_pool *p, const struct target *target)
{
	struct upstream_group *g = find_group(p, target, hash_target(target));
	struct upstream *u = g ? g->idle : NULL;
	if (!u)
		return NULL;
	unlink_idle(p, u);
	u->reused = true;
	return u;
}

static void discard(const struct connection *c)
{
	SSL_free(c->tls);
	close(c->fd);
}

struct upstream *upstream_adopt(struct upstream_pool *p, const struct target *target, const struct connection *c)
{
	struct upstream *u = calloc(1, sizeof *u);
	struct upstream_group *g = u ? join_group(p, target) : NULL;
	int one = 1;
	if (!g || !io_open(&u->io, p->loop, c->fd, on_io_event)) {
		if (g)
			drop_group(p, g);
		free(u);
		discard(c);
		return NULL;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	u->io.tls = c->tls;
	u->io.writable = true;
	u->group = g;
	return u;
}

void upstream_keep(struct upstream_pool *p, struct upstream *u)
{
	if (!is_quiet(u)) {
		upstream_close(p, u);
		return;
	}
	u->on_event = on_idle_event;
	u->owner = p;
	u->idle_since_ms = loop_now_ms(p->loop);
	u->older = p->newest;
	*(p->newest ? &p->newest->newer : &p->oldest) = u;
	p->newest = u;
	u->group_next = u->group->idle;
	if (u->group_next)
		u->group_next->group_previous = u;
	u->group->idle = u;
	if (++p->idle_count > UPSTREAM_IDLE_MAX)
		upstream_close(p, p->oldest);
	if (!p->sweep.due_ms)
		loop_timer_set(p->loop, &p->sweep, u->idle_since_ms + SWEEP_MS);
}

void upstream_close(struct upstream_pool *p, struct upstream *u)
{
	if (u->idle_since_ms)
		unlink_idle(p, u);
	io_close(&u->io, p->loop);
	drop_group(p, u->group);
	loop_free_later(p->loop, u);
}

void upstream_break_off(struct upstream_pool *p, struct upstream *u)
{
	if (io_unsent(&u->io))
		io_set_reset_on_close(&u->io);
	upstream_close(p, u);
}

void upstream_make_room(void *pool)
{
	struct upstream_pool *p = pool;
	if (p->oldest)
		upstream_close(p, p->oldest);
	else
		atomic_store(&short_ms, loop_now_ms(p->loop));
}
