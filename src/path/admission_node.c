/* admission_node: what a process and each of its workers set up, and what happens when Redis goes and
 * comes back: it is told again of the places taken and of the usage that it missed. */
#include <stdlib.h>
#include <string.h>

#include <openssl/rand.h>

#include "base/check.h"
#include "base/log.h"
#include "path/admission_internal.h"
#include "state/journal.h"
#include "state/redis_url.h"
#include "state/secrets.h"

static char *copy_or_null(const char *text)
{
	return text ? check_strdup(text) : NULL;
}

struct admission_node *admission_node_new(const struct redis_address *redis, enum admission_failure_policy policy)
{
	struct admission_node *node = check_calloc(1, sizeof *node);
	node->policy = policy;
	node->tls = redis->tls;
	node->unix_path = copy_or_null(redis->unix_path);
	node->host = copy_or_null(redis->host);
	node->user = copy_or_null(redis->user);
	node->password = copy_or_null(redis->password);
	node->port = redis->port;
	node->db = redis->db;
	node->scripts = admission_scripts_new();
	CHECK(RAND_bytes((unsigned char *)&node->nonce, sizeof node->nonce) == 1);
	pthread_mutex_init(&node->lock, NULL);
	return node;
}

static void free_local(struct admission_item *item)
{
	admission_events_fini(&container_of(item, struct admission_local, item)->events);
}

void admission_node_free(struct admission_node *node)
{
	if (!node)
		return;
	admission_table_fini(&node->subjects, free_local);
	admission_table_fini(&node->pools, admission_pool_free_item);
	admission_table_fini(&node->lines, admission_queue_free_item);
	admission_scripts_free(node->scripts);
	pthread_mutex_destroy(&node->lock);
	free(node->unix_path);
	free(node->host);
	free(node->user);
	secrets_free(node->password);
	free(node);
}

bool admission_node_redis_is_up(const struct admission_node *node)
{
	return atomic_load(&node->failed_count) == 0;
}

static void set_failed(struct admission *a, bool failed)
{
	if (failed && !a->failed)
		atomic_fetch_add(&a->node->failed_count, 1);
	else if (!failed && a->failed)
		atomic_fetch_sub(&a->node->failed_count, 1);
	a->failed = failed;
}

static void on_change(void *context, bool up, const char *reason)
{
	struct admission *a = context;
	bool before = a->up;
	a->up = up;
	set_failed(a, !up);
	if (!up) {
		journal_add("redis", "admission: Redis fails (%s): limits are kept by limits.on_redis_failure", reason);
		return;
	}
	if (!before)
		log_info("redis", "admission: Redis %s", reason);
	admission_lease_renew_all(a);
	admission_batch_resume(a->batch);
}

struct admission *admission_new(struct admission_node *node, struct loop *l)
{
	struct admission *a = check_calloc(1, sizeof *a);
	a->node = node;
	a->loop = l;
	/* unlike any other worker's, of this or another process: a place is never freed by a stranger */
	uint64_t worker = node->nonce + atomic_fetch_add(&node->worker_count, 1);
	memcpy(a->worker, &worker, sizeof a->worker);
	admission_lease_init(a);
	struct redis_async_options options = {
		.tls = node->tls,
		.unix_path = node->unix_path,
		.host = node->host,
		.port = node->port,
		.user = node->user,
		.password = node->password,
		.db = node->db,
		.deadline_ms = ADMISSION_DEADLINE_MS,
		.scripts = node->scripts,
		.script_count = ADMISSION_SCRIPTS,
		.on_change = on_change,
		.context = a,
	};
	a->batch = admission_batch_new(a);
	a->redis = redis_async_new(l, &options);
	return a;
}

void admission_free(struct admission *a)
{
	if (!a)
		return;
	admission_batch_send(a->batch);
	redis_async_free(a->redis);
	set_failed(a, false);
	admission_batch_send(a->batch); /* those that were just refused: each is answered */
	admission_batch_free(a->batch);
	admission_lease_fini(a);
	admission_queue_fini(a);
	snapshot_unref(a->snapshot);
	loop_free_later(a->loop, a);
}
