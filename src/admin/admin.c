/* admin: what the handlers share. Made before the threads, freed after them; the connection to Redis
 * is the one thing that changes, behind its lock. */
#include "admin/admin.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "ops/watcher.h"
#include "state/redis_sync.h"
#include "state/secrets.h"

enum { REDIS_DEADLINE_MS = 250 };

void admin_init(struct admin *admin, const struct admin_setup *setup)
{
	*admin = (struct admin){.setup = *setup, .started_ms = clock_monotonic_ms()};
	secrets_sha256(setup->admin_token, strlen(setup->admin_token), admin->token_sha256);
	CHECK(pthread_mutex_init(&admin->redis_lock, NULL) == 0);
	admin->redis = redis_sync_new(setup->redis, REDIS_DEADLINE_MS);
}

void admin_fini(struct admin *admin)
{
	redis_sync_free(admin->redis);
	pthread_mutex_destroy(&admin->redis_lock);
}

struct redis_sync *admin_redis_acquire(struct admin *admin)
{
	pthread_mutex_lock(&admin->redis_lock);
	return admin->redis;
}

void admin_redis_release(struct admin *admin)
{
	pthread_mutex_unlock(&admin->redis_lock);
}

bool admin_draining(const struct admin *admin)
{
	return __atomic_load_n(&admin->draining, __ATOMIC_RELAXED);
}

struct snapshot *admin_snapshot(const struct admin_request *request)
{
	return watcher_snapshot(request->admin->setup.watcher);
}
