/* admission_scripts: the scripts put together from their parts, and the calls. Numbers go to Redis
 * and come back as packed little-endian doubles: one argument, one conversion. */
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "base/embedded.h"
#include "path/admission_internal.h"

static const char *const parts[ADMISSION_SCRIPTS][7] = {
	[SCRIPT_ADMIT] = {"admission_window.lua", "admission_window_move.lua", "admission_keys.lua",
		"admission_admit.lua"},
	[SCRIPT_KEY] = {"admission_window.lua", "admission_window_move.lua", "admission_adjust.lua", "admission_keys.lua",
		"", "admission_health.lua", "admission_key.lua"},
	[SCRIPT_SETTLE] = {"admission_window.lua", "admission_adjust.lua", "admission_settle.lua"},
	[SCRIPT_LEAVE] = {"admission_leave.lua"},
	[SCRIPT_RENEW] = {"admission_window.lua", "admission_renew.lua"},
};

/* "" stands for the table of health. */
static const char *part_text(const char *name)
{
	if (!*name)
		return admission_health_lua();
	const struct embedded_file *file = embedded_find(name);
	CHECK(file);
	return file->data;
}

struct redis_async_script *admission_scripts_new(void)
{
	struct redis_async_script *scripts = check_calloc(ADMISSION_SCRIPTS, sizeof *scripts);
	for (int s = 0; s < ADMISSION_SCRIPTS; s++) {
		char *text = check_strdup("");
		for (int p = 0; p < 7 && parts[s][p]; p++) {
			char *longer = check_printf("%s%s", text, part_text(parts[s][p]));
			free(text);
			text = longer;
		}
		redis_async_script_init(&scripts[s], text, strlen(text));
	}
	return scripts;
}

void admission_scripts_free(struct redis_async_script *scripts)
{
	for (int s = 0; scripts && s < ADMISSION_SCRIPTS; s++)
		free((char *)(uintptr_t)scripts[s].text);
	free(scripts);
}

static void pack(double *out, const double *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t bits;
		memcpy(&bits, &numbers[i], sizeof bits);
		bits = htole64(bits);
		memcpy(&out[i], &bits, sizeof bits);
	}
}

bool admission_answer_read(struct admission_answer *answer, const struct redisReply *reply)
{
	size_t head = sizeof answer->numbers;
	if (!reply || reply->type != REDIS_REPLY_STRING || reply->len < head || reply->len % sizeof(double))
		return false;
	double *in = (double *)(void *)reply->str;
	pack(answer->numbers, in, ANSWER_NUMBERS);
	answer->learnt_count = (reply->len - head) / (3 * sizeof(double));
	if (answer->learnt_count > ANSWER_LEARNT_MAX / 3)
		answer->learnt_count = ANSWER_LEARNT_MAX / 3;
	pack(answer->learnt, in + ANSWER_NUMBERS, answer->learnt_count * 3);
	return true;
}

/* ---- keys ---- */

void admission_subject_key(const struct subject *s, const char *kind, char key[ADMISSION_NAME_MAX])
{
	snprintf(key, ADMISSION_NAME_MAX, "apiproxy:%s:{%s}:%c", kind, s->id, s->is_user ? 'u' : 'c');
}

static void queue_key(const char *prefix, char key[ADMISSION_NAME_MAX])
{
	snprintf(key, ADMISSION_NAME_MAX, "apiproxy:limit:{%s}:q", prefix);
}

static void pool_key(const struct pool *pool, const char *name, char key[ADMISSION_NAME_MAX])
{
	snprintf(key, ADMISSION_NAME_MAX, "apiproxy:limit:{%s}", pool ? pool->name : name);
}

static struct redis_async_bytes text(const char *s)
{
	return (struct redis_async_bytes){s, strlen(s)};
}

/* Candidates as arguments: id and limit each. The limits' digits live in `digits`. */
static size_t put_candidates(const struct admission_ticket *t, struct redis_async_bytes *out, char (*digits)[24])
{
	for (size_t c = 0; c < t->candidate_count; c++) {
		const struct vendor_key *key = t->pool->keys[t->candidates[c]];
		out[2 * c] = text(key->id);
		snprintf(digits[c], sizeof digits[c], "%" PRIu64, key->max_requests_per_minute);
		out[2 * c + 1] = text(digits[c]);
	}
	return 2 * t->candidate_count;
}

/* ---- calls ---- */

static bool call_with_candidates(struct admission_ticket *t, enum admission_script script,
	const struct redis_async_bytes *head, size_t head_count, size_t key_count, redis_async_answer *on_answer)
{
	size_t count = on_answer ? t->candidate_count : 0;
	struct redis_async_bytes few[8 + 2 * ADMISSION_CANDIDATES], *all = few;
	char few_digits[ADMISSION_CANDIDATES][24], (*digits)[24] = few_digits;
	if (count > ADMISSION_CANDIDATES) {
		all = check_calloc(8 + 2 * count, sizeof *all);
		digits = check_calloc(count, sizeof *digits);
	}
	memcpy(all, head, head_count * sizeof *head);
	size_t total = head_count + (count ? put_candidates(t, all + head_count, digits) : 0);
	bool sent =
		redis_async_call(t->owner->redis, &t->owner->node->scripts[script], all, total, key_count, on_answer, t);
	if (all != few) {
		free(all);
		free(digits);
	}
	return sent;
}

bool admission_call_admit(struct admission_ticket *t, double behind, redis_async_answer *on_answer)
{
	const struct mapping *m = t->mapping;
	const struct limits none = {0}, *limits = t->subject ? &t->subject->limits : &none;
	char keys[3][ADMISSION_NAME_MAX];
	uint64_t starts = 0, span_ms = 0;
	const char *any = NULL;
	if (t->stages & STAGE_SUBJECT)
		admission_subject_key(t->subject, "limit", keys[0]), any = keys[0];
	if (t->stages & STAGE_QUEUE) {
		queue_key(m->prefix, keys[1]), any = any ? any : keys[1];
		admission_queue_rule(m, &starts, &span_ms);
	}
	if (t->stages & STAGE_POOL)
		pool_key(t->pool, m->pool_name, keys[2]), any = any ? any : keys[2];
	double numbers[] = {t->stages, ADMISSION_SPAN_MS, ADMISSION_LEASE_MS, (double)limits->max_concurrency,
		(double)limits->rpm, (double)limits->input_tpm, (double)limits->output_tpm, (double)t->tokens[0],
		(double)t->tokens[1], (double)starts, (double)span_ms, (double)m->queue_capacity, (double)m->queue_timeout_ms,
		behind, (double)t->candidate_count};
	pack(numbers, numbers, sizeof numbers / sizeof *numbers);
	struct redis_async_bytes head[] = {text(t->stages & STAGE_SUBJECT ? keys[0] : any),
		text(t->stages & STAGE_QUEUE ? keys[1] : any), text(t->stages & STAGE_POOL ? keys[2] : any),
		{numbers, sizeof numbers}, text(t->queue_name), {t->owner->worker, ADMISSION_WORKER_ID}};
	return call_with_candidates(t, SCRIPT_ADMIT, head, 6, 3, on_answer);
}

bool admission_call_key(struct admission_ticket *t, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms, bool give_back, redis_async_answer *on_answer)
{
	char key[ADMISSION_NAME_MAX];
	pool_key(t->pool, t->mapping->pool_name, key);
	double numbers[] = {ADMISSION_SPAN_MS, outcome, status, (double)retry_after_ms, t->trial,
		give_back ? t->key_event : 0, t->key_made, (double)(on_answer ? t->candidate_count : 0)};
	pack(numbers, numbers, sizeof numbers / sizeof *numbers);
	struct redis_async_bytes head[] = {text(key), {numbers, sizeof numbers},
		text(t->key == SIZE_MAX ? "" : t->pool->keys[t->key]->id)};
	return call_with_candidates(t, SCRIPT_KEY, head, 3, 1, on_answer);
}

static double today(const struct admission *a)
{
	int64_t now_ms =
		a->redis_offset_ms ? a->redis_offset_ms + (int64_t)loop_now_ms(a->loop) : (int64_t)time(NULL) * 1000;
	return (double)(now_ms / 86400000);
}

static bool call_settle(struct admission *a, const char *subject, double *numbers, size_t size)
{
	char usage[ADMISSION_NAME_MAX];
	snprintf(usage, sizeof usage, "apiproxy:usage:%s", strchr(subject, '{'));
	pack(numbers, numbers, size / sizeof *numbers);
	struct redis_async_bytes all[] = {text(subject), text(usage), {numbers, size}, {a->worker, ADMISSION_WORKER_ID}};
	return redis_async_call(a->redis, &a->node->scripts[SCRIPT_SETTLE], all, 4, 2, NULL, NULL);
}

bool admission_call_settle(struct admission_ticket *t, bool place, bool give_back,
	const struct admission_result *result, const int64_t usage[3])
{
	char subject[ADMISSION_NAME_MAX];
	admission_subject_key(t->subject, "limit", subject);
	double numbers[] = {place, t->event, t->made, (double)t->tokens[0], (double)t->tokens[1], give_back,
		today(t->owner), (double)usage[0], (double)usage[1], (double)usage[2], result && result->tokens_known};
	return call_settle(t->owner, subject, numbers, sizeof numbers);
}

bool admission_call_usage(struct admission *a, const char *subject_key, const int64_t usage[3])
{
	double numbers[] = {0, 0, 0, 0, 0, 0, today(a), (double)usage[0], (double)usage[1], (double)usage[2], 0};
	return call_settle(a, subject_key, numbers, sizeof numbers);
}

void admission_call_leave(struct admission *a, const char *prefix, const char *name, double start)
{
	char key[ADMISSION_NAME_MAX], digits[32];
	queue_key(prefix, key);
	snprintf(digits, sizeof digits, "%.0f", start);
	struct redis_async_bytes all[] = {text(key), text(name), text(digits)};
	if (!redis_async_call(a->redis, &a->node->scripts[SCRIPT_LEAVE], all, 3, 1, NULL, NULL))
		return; /* away: the place ends with its start */
}

bool admission_call_renew(struct admission *a, struct admission_lease *const *leases, size_t count)
{
	enum { BATCH = ADMISSION_RENEW_BATCH };
	CHECK(count <= BATCH);
	struct redis_async_bytes all[2 * BATCH + 2];
	char digits[BATCH][24], lease[24];
	for (size_t i = 0; i < count; i++) {
		all[i] = text(leases[i]->item.name);
		snprintf(digits[i], sizeof digits[i], "%u", leases[i]->count);
		all[count + 2 + i] = text(digits[i]);
	}
	snprintf(lease, sizeof lease, "%d", ADMISSION_LEASE_MS);
	all[count] = (struct redis_async_bytes){a->worker, ADMISSION_WORKER_ID};
	all[count + 1] = text(lease);
	return redis_async_call(a->redis, &a->node->scripts[SCRIPT_RENEW], all, 2 * count + 2, count, NULL, NULL);
}
