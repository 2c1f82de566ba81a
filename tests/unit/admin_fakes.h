/* Handlers, watcher and Redis that tests of the control plane bring themselves: each handler says its
 * name, detail, tail and body, so that a test sees which one answered what. */
#ifndef APIPROXY_TESTS_ADMIN_FAKES_H
#define APIPROXY_TESTS_ADMIN_FAKES_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "base/check.h"
#include "ops/watcher.h"
#include "state/redis_sync.h"
#include "state/settings.h"

static void fake_reply(const char *name, const struct admin_request *r, struct admin_reply *reply)
{
	admin_reply_text(reply, 200, "text/plain",
			 check_printf("%s %d tail=%s query=%s length=%zu peer=%s", name, r->detail, r->tail, r->query, r->length, r->peer));
}

#define FAKE_HANDLER(name) \
	void name(const struct admin_request *r, struct admin_reply *reply) { fake_reply(#name, r, reply); }
FAKE_HANDLER(page_get)
FAKE_HANDLER(page_get_static)
FAKE_HANDLER(page_get_admin_slash)
FAKE_HANDLER(health_get)
FAKE_HANDLER(stats_get)
FAKE_HANDLER(metrics_get)
FAKE_HANDLER(performance_get)
FAKE_HANDLER(errors_get)
FAKE_HANDLER(resource_list)
FAKE_HANDLER(resource_create)
FAKE_HANDLER(resource_get)
FAKE_HANDLER(resource_update)
FAKE_HANDLER(resource_delete)
FAKE_HANDLER(resource_rotate)
FAKE_HANDLER(resource_reset)
FAKE_HANDLER(usage_get)
FAKE_HANDLER(config_get)
FAKE_HANDLER(config_put)

/* The slow one: keeps its lane busy. */
void login_post(const struct admin_request *r, struct admin_reply *reply)
{
	usleep(200 * 1000);
	fake_reply("login_post", r, reply);
}

void page_reply_denied(struct admin_reply *reply)
{
	admin_reply_text(reply, 401, "text/html", check_strdup("denied"));
}

struct snapshot *watcher_snapshot(struct watcher *w)
{
	(void)w;
	return NULL;
}

struct redis_sync *redis_sync_new(const struct redis_address *address, unsigned deadline_ms)
{
	(void)address, (void)deadline_ms;
	return NULL;
}

void redis_sync_free(struct redis_sync *r)
{
	(void)r;
}

#endif
