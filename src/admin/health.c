/* health: what is asked often, by machines: /health, and the figures of figures.h. No state. */
#include "admin/admin.h"

#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdlib.h>

#include "admin/figures.h"
#include "admin/resource.h"
#include "base/clock.h"
#include "ops/watcher.h"
#include "state/journal.h"
#include "state/snapshot.h"

/* A node that proxies from its last snapshot is healthy, whatever Redis does; one that never had any
 * cannot proxy. */
void health_get(const struct admin_request *request, struct admin_reply *reply)
{
	const struct admin *admin = request->admin;
	bool draining = admin_draining(admin);
	struct watcher_status status;
	watcher_status(admin->setup.watcher, &status);
	bool starting = !status.loaded_at_ms;
	struct snapshot *snapshot = admin_snapshot(request);
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "status", draining ? "draining" : starting ? "starting" : "ok");
	cJSON_AddStringToObject(json, "redis", figures_is_redis_up(admin->setup.figures) ? "ok" : "down");
	cJSON_AddStringToObject(json, "version", admin->setup.figures->version);
	cJSON_AddStringToObject(json, "node", admin->setup.figures->node);
	cJSON_AddNumberToObject(json, "uptime_seconds", (double)((clock_monotonic_ms() - admin->started_ms) / 1000));
	cJSON_AddNumberToObject(json, "mappings", (double)snapshot_mapping_count(snapshot));
	snapshot_unref(snapshot);
	admin_reply_json(reply, draining || starting ? 503 : 200, json);
}

void stats_get(const struct admin_request *request, struct admin_reply *reply)
{
	bool cluster = admin_query_is(request->query, "scope", "cluster");
	admin_reply_json(reply, 200, figures_stats(request->admin->setup.figures, cluster));
}

struct key_states {
	const struct snapshot *snapshot;
	const bool *idle;
};

static bool key_is_up(const void *keys, const struct vendor_key *key)
{
	const struct key_states *states = keys;
	size_t index = states->idle ? snapshot_key_index(states->snapshot, key->id) : SIZE_MAX;
	return index == SIZE_MAX || !states->idle[index];
}

void metrics_get(const struct admin_request *request, struct admin_reply *reply)
{
	struct figures_sources figures = *request->admin->setup.figures;
	struct snapshot *snapshot = admin_snapshot(request);
	bool *idle = key_health_idle(request->admin, snapshot);
	struct key_states states = {.snapshot = snapshot, .idle = idle};
	figures.key_is_up = key_is_up;
	figures.keys = &states;
	admin_reply_text(reply, 200, "text/plain; version=0.0.4; charset=utf-8", figures_metrics(&figures));
	free(idle);
	snapshot_unref(snapshot);
}

void performance_get(const struct admin_request *request, struct admin_reply *reply)
{
	admin_reply_json(reply, 200, figures_performance(request->admin->setup.figures));
}

void errors_get(const struct admin_request *request, struct admin_reply *reply)
{
	(void)request;
	admin_reply_json(reply, 200, journal_to_json());
}
