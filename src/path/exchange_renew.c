/* exchange_renew: what a request that took its time is told of changes: it waited in a queue, for its own
 * body, for an answer that did not do, or for a connection. What is sent is sent as the configuration is then: with the
 * vendor keys and to the target of now, which belong together, and for nobody who may not ask any more. What
 * was taken at its arrival, places and reservations, stays as it is: who asks has to be the same. */
#include <string.h>

#include "path/exchange_state.h"

static const struct mapping *mapping_of_now(const struct exchange *ex)
{
	const struct mapping *m = ex->mapping, *now;
	now = snapshot_route(ex->plane->pin->snapshot, m->prefix, m->prefix_length);
	return now && strcmp(now->prefix, m->prefix) == 0 ? now : NULL;
}

static bool is_same(const struct subject *a, const struct subject *b)
{
	return a->is_user == b->is_user && strcmp(a->id, b->id) == 0;
}

static void move(struct exchange *ex, const struct mapping *mapping, const struct subject *subject)
{
	struct managed *m = ex->managed;
	struct pinned_snapshot *before = ex->pin;
	ex->pin = plane_pin(ex->plane);
	ex->mapping = mapping;
	m->subject = subject;
	m->admission.snapshot = ex->pin->snapshot;
	m->admission.mapping = mapping;
	m->admission.subject = subject;
	plane_unpin(before);
}

enum problem_id exchange_renew(struct exchange *ex)
{
	const struct managed *m = ex->managed;
	const struct mapping *mapping = mapping_of_now(ex);
	const struct subject *subject = NULL;
	if (!mapping)
		return PROBLEM_NO_MAPPING;
	if (mapping->auth_required) {
		enum problem_id problem = exchange_identify(ex, ex->plane->pin->snapshot, mapping, &subject);
		if (problem != PROBLEM_NONE)
			return problem;
		if (m->started && m->subject && !is_same(subject, m->subject))
			return PROBLEM_INVALID_CREDENTIALS;
	}
	if (ex->pin != ex->plane->pin)
		move(ex, mapping, subject);
	return PROBLEM_NONE;
}

bool exchange_key_is_void(const struct exchange *ex)
{
	const struct vendor_key *key = ex->managed ? ex->managed->admission.key : NULL;
	if (!key || ex->pin == ex->plane->pin)
		return false;
	const struct snapshot *s = ex->plane->pin->snapshot;
	size_t index = snapshot_key_index(s, key->id);
	const struct vendor_key *now = index == SIZE_MAX ? NULL : snapshot_key_at(s, index);
	const struct mapping *mapping = mapping_of_now(ex);
	if (mapping && mapping->pool_name && strcmp(mapping->pool_name, key->pool) != 0)
		return true;
	return !now || !now->enabled || !now->weight || strcmp(now->pool, key->pool) != 0 ||
		strcmp(vendor_key_limit_id(now), vendor_key_limit_id(key)) != 0;
}
