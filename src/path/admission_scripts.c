/* admission_scripts: the scripts with what they include, and the calls. Numbers go to Redis
 * and come back as packed little-endian doubles: one argument, one conversion. */
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/embedded.h"
#include "path/admission_internal.h"

static const char *const names[ADMISSION_SCRIPTS] = {
	[SCRIPT_ADMIT] = "admission_admit.lua",
	[SCRIPT_KEY] = "admission_key.lua",
	[SCRIPT_SETTLE] = "admission_settle.lua",
	[SCRIPT_LEAVE] = "admission_leave.lua",
	[SCRIPT_MOVE] = "admission_move.lua",
	[SCRIPT_FORWARD] = "admission_forward.lua",
	[SCRIPT_RENEW] = "admission_renew.lua",
};

/* ---- texts ---- */

static const char *text_of(const char *name, size_t length)
{
	char *wanted = check_printf("%.*s", (int)length, name);
	const struct embedded_file *file = embedded_find(wanted);
	const char *found = strcmp(wanted, "HEALTH_TABLE") == 0 ? admission_health_lua() : file ? file->data : NULL;
	CHECK(found);
	free(wanted);
	return found;
}

static void expand(struct buf *out, const char *text)
{
	static const char mark[] = "-- include ";
	while (*text) {
		size_t length = strcspn(text, "\n"), blanks = strspn(text, "\t");
		const char *line = text + blanks;
		if (strncmp(line, mark, sizeof mark - 1) == 0)
			expand(out, text_of(line + sizeof mark - 1, length - blanks - (sizeof mark - 1)));
		else
			CHECK(buf_append(out, text, length) && buf_append(out, "\n", 1));
		text += length + (text[length] != 0);
	}
}

char *admission_script_expand(const char *text)
{
	struct buf out = {0};
	expand(&out, text);
	CHECK(buf_append(&out, "", 1));
	char *whole = check_strdup(buf_bytes(&out));
	buf_free(&out);
	return whole;
}

struct redis_async_script *admission_scripts_new(void)
{
	struct redis_async_script *scripts = check_calloc(ADMISSION_SCRIPTS, sizeof *scripts);
	for (int s = 0; s < ADMISSION_SCRIPTS; s++) {
		char *text = admission_script_expand(text_of(names[s], strlen(names[s])));
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

void admission_numbers_read(double *out, const char *bytes, size_t count)
{
	memcpy(out, bytes, count * sizeof *out);
	pack(out, out, count);
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

/* By hand: several times a request, and printf takes some 300 ns. */
void admission_subject_key(const struct subject *s, const char *kind, char key[ADMISSION_NAME_MAX])
{
	char *p = stpcpy(key, "apiproxy:");
	p = stpcpy(stpcpy(p, kind), ":{");
	size_t room = (size_t)(key + ADMISSION_NAME_MAX - p) - sizeof "}:c", length = strnlen(s->id, room);
	p = mempcpy(p, s->id, length);
	stpcpy(p, s->is_user ? "}:u" : "}:c");
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

/* ---- calls ---- */

/* Ids of vendor keys as arguments; a key that several candidates name is there once. */
struct key_arguments {
	const struct pool *pool;
	size_t count;
	uint16_t *place_of; /* of the pool's keys: its place here, from 1 on; 0: not here */
	struct redis_async_bytes *parts;
};

static void key_arguments_init(struct key_arguments *k, const struct pool *pool, struct redis_async_bytes *parts)
{
	*k = (struct key_arguments){.pool = pool, .parts = parts};
	k->place_of = check_calloc(pool ? pool->key_count + 1 : 1, sizeof *k->place_of);
}

static uint16_t key_argument(struct key_arguments *k, size_t key)
{
	if (!k->place_of[key]) {
		k->parts[k->count++] = text(vendor_key_limit_id(k->pool->keys[key]));
		k->place_of[key] = (uint16_t)k->count;
	}
	return k->place_of[key];
}

static double *put_candidates(double *out, const struct admission_ticket *t, struct key_arguments *keys)
{
	for (size_t c = 0; c < t->candidate_count; c++) {
		*out++ = key_argument(keys, t->candidates[c]);
		*out++ = (double)t->pool->keys[t->candidates[c]]->max_requests_per_minute;
	}
	return out;
}

enum { SHARED_NUMBERS = 8, QUEUE_NUMBERS = 6, REQUEST_NUMBERS = 5, ADMIT_HEAD = 6, KEY_HEAD = 3, KEY_NUMBERS = 8 };

static double *put_queue(double *out, const struct mapping *m, double behind)
{
	struct admission_rule rule = admission_queue_rule(m);
	memcpy(out,
		(double[QUEUE_NUMBERS]){(double)rule.starts, (double)rule.span_ms, (double)m->queue_capacity,
			(double)m->queue_timeout_ms, (double)m->read_us, behind},
		QUEUE_NUMBERS * sizeof *out);
	return out + QUEUE_NUMBERS;
}

/* What is the same for all of them, then each. Returns the end. */
static double *put_requests(double *out, const struct admission_ticket *t, size_t count, double behind,
	struct key_arguments *keys)
{
	const struct limits none = {0}, *limits = t->subject ? &t->subject->limits : &none;
	memcpy(out,
		(double[SHARED_NUMBERS]){t->stages, ADMISSION_SPAN_MS, ADMISSION_LEASE_MS, (double)limits->max_concurrency,
			(double)limits->rpm, (double)limits->input_tpm, (double)limits->output_tpm, (double)count},
		SHARED_NUMBERS * sizeof *out);
	out += SHARED_NUMBERS;
	if (t->stages & STAGE_QUEUE)
		out = put_queue(out, t->mapping, behind);
	for (; t; t = t->next_asking) {
		*out++ = (double)t->tokens[0];
		*out++ = (double)t->tokens[1];
		*out++ = (double)t->candidate_count;
		if (t->stages & STAGE_WAITED) {
			*out++ = t->event;
			*out++ = t->made;
		}
		out = put_candidates(out, t, keys);
	}
	return out;
}

bool admission_call_admit(const struct admission_ticket *t, size_t count, double behind,
	redis_async_answer *on_answer, void *argument)
{
	struct admission *a = t->owner;
	char keys[3][ADMISSION_NAME_MAX];
	const char *subject = NULL, *queue = NULL, *pool = NULL;
	if (t->stages & STAGE_SUBJECT)
		admission_subject_key(t->subject, "limit", keys[0]), subject = keys[0];
	if (t->stages & STAGE_QUEUE)
		queue_key(t->mapping->prefix, keys[1]), queue = keys[1];
	if (t->stages & STAGE_POOL)
		pool_key(t->pool, t->mapping->pool_name, keys[2]), pool = keys[2];
	const char *any = subject ? subject : queue ? queue : pool;
	size_t candidates = 0;
	for (const struct admission_ticket *each = t; each; each = each->next_asking)
		candidates += each->candidate_count;
	double *numbers =
		check_calloc(SHARED_NUMBERS + QUEUE_NUMBERS + count * REQUEST_NUMBERS + 2 * candidates, sizeof *numbers);
	struct redis_async_bytes *parts = check_calloc(ADMIT_HEAD + candidates, sizeof *parts);
	struct key_arguments vendor_keys;
	key_arguments_init(&vendor_keys, t->pool, parts + ADMIT_HEAD);
	size_t number_count = (size_t)(put_requests(numbers, t, count, behind, &vendor_keys) - numbers);
	pack(numbers, numbers, number_count);
	parts[0] = text(subject ? subject : any);
	parts[1] = text(queue ? queue : any);
	parts[2] = text(pool ? pool : any);
	parts[3] = (struct redis_async_bytes){numbers, number_count * sizeof *numbers};
	parts[4] = text(t->queue_name);
	parts[5] = (struct redis_async_bytes){a->worker, ADMISSION_WORKER_ID};
	bool sent = redis_async_call(a->redis, &a->node->scripts[SCRIPT_ADMIT], parts, ADMIT_HEAD + vendor_keys.count, 3,
		on_answer, argument);
	free(vendor_keys.place_of);
	free(parts);
	free(numbers);
	return sent;
}

bool admission_call_key(struct admission_ticket *t, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms, bool give_back, redis_async_answer *on_answer)
{
	char key[ADMISSION_NAME_MAX];
	size_t candidates = on_answer ? t->candidate_count : 0;
	size_t number_count = KEY_NUMBERS + 2 * candidates;
	double *numbers = check_calloc(number_count, sizeof *numbers);
	struct redis_async_bytes *parts = check_calloc(KEY_HEAD + candidates, sizeof *parts);
	struct key_arguments vendor_keys;
	key_arguments_init(&vendor_keys, t->pool, parts + KEY_HEAD);
	pool_key(t->pool, t->mapping->pool_name, key);
	memcpy(numbers,
		(double[KEY_NUMBERS]){ADMISSION_SPAN_MS, outcome, status, (double)retry_after_ms, t->trial,
			give_back ? t->key_event : 0, t->key_made, (double)candidates},
		KEY_NUMBERS * sizeof *numbers);
	if (candidates)
		put_candidates(numbers + KEY_NUMBERS, t, &vendor_keys);
	pack(numbers, numbers, number_count);
	parts[0] = text(key);
	parts[1] = (struct redis_async_bytes){numbers, number_count * sizeof *numbers};
	parts[2] = text(t->key == SIZE_MAX ? "" : vendor_key_limit_id(t->pool->keys[t->key]));
	bool sent = redis_async_call(t->owner->redis, &t->owner->node->scripts[SCRIPT_KEY], parts,
		KEY_HEAD + vendor_keys.count, 1, on_answer, t);
	free(vendor_keys.place_of);
	free(parts);
	free(numbers);
	return sent;
}

static double today(void)
{
	return (double)(clock_shared_ms() / 86400000);
}

bool admission_call_settle(struct admission *a, const char *subject_key, const struct admission_settlement *s,
	const int64_t usage[3], redis_async_answer *on_answer, void *argument)
{
	char usage_key[ADMISSION_NAME_MAX];
	struct admission_settlement packed = {.day = today(), .places = s->places, .change_count = s->change_count};
	size_t changes = (size_t)s->change_count;
	size_t numbers = 6 + changes * (sizeof *s->changes / sizeof(double));
	snprintf(usage_key, sizeof usage_key, "apiproxy:usage:%s", strchr(subject_key, '{'));
	for (int i = 0; i < 3; i++)
		packed.usage[i] = (double)usage[i];
	memcpy(packed.changes, s->changes, changes * sizeof *s->changes);
	pack(&packed.day, &packed.day, numbers);
	struct redis_async_bytes all[] = {text(subject_key), text(usage_key), {&packed, numbers * sizeof(double)},
		{a->worker, ADMISSION_WORKER_ID}};
	return redis_async_call(a->redis, &a->node->scripts[SCRIPT_SETTLE], all, 4, 2, on_answer, argument);
}

void admission_call_leave(struct admission *a, const char *prefix, const char *name, double start, double rule)
{
	char key[ADMISSION_NAME_MAX], digits[2][32];
	queue_key(prefix, key);
	snprintf(digits[0], sizeof digits[0], "%.0f", start);
	snprintf(digits[1], sizeof digits[1], "%.0f", rule);
	struct redis_async_bytes all[] = {text(key), text(name), text(digits[0]), text(digits[1])};
	if (!redis_async_call(a->redis, &a->node->scripts[SCRIPT_LEAVE], all, 4, 1, NULL, NULL))
		return; /* away: the place ends with its start */
}

bool admission_call_move(struct admission *a, const struct mapping *m, struct admission_place *const *places,
	size_t count, redis_async_answer *on_answer, void *argument)
{
	enum { MAX = ADMISSION_MOVE_MAX };
	char key[ADMISSION_NAME_MAX];
	double numbers[QUEUE_NUMBERS + 2 * MAX], *out = put_queue(numbers, m, 0);
	struct redis_async_bytes all[2 + MAX];
	CHECK(count <= MAX);
	for (size_t i = 0; i < count; i++) {
		*out++ = places[i]->start;
		*out++ = places[i]->redis_rule;
		all[2 + i] = text(places[i]->name);
	}
	pack(numbers, numbers, (size_t)(out - numbers));
	queue_key(m->prefix, key);
	all[0] = text(key);
	all[1] = (struct redis_async_bytes){numbers, (size_t)((char *)out - (char *)numbers)};
	return redis_async_call(a->redis, &a->node->scripts[SCRIPT_MOVE], all, 2 + count, 1, on_answer, argument);
}

bool admission_call_forward(struct admission *a, const char *prefix, unsigned near_ms,
	struct admission_place *const *places, size_t count, redis_async_answer *on_answer, void *argument)
{
	enum { MAX = ADMISSION_FORWARD_MAX, HEAD = 2 };
	char key[ADMISSION_NAME_MAX];
	double numbers[HEAD + MAX];
	struct redis_async_bytes all[2 + MAX];
	CHECK(count && count <= MAX);
	numbers[0] = places[0]->redis_rule;
	numbers[1] = near_ms;
	for (size_t i = 0; i < count; i++) {
		numbers[HEAD + i] = places[i]->start;
		all[2 + i] = text(places[i]->name);
	}
	pack(numbers, numbers, HEAD + count);
	queue_key(prefix, key);
	all[0] = text(key);
	all[1] = (struct redis_async_bytes){numbers, (HEAD + count) * sizeof *numbers};
	return redis_async_call(a->redis, &a->node->scripts[SCRIPT_FORWARD], all, 2 + count, 1, on_answer, argument);
}

bool admission_call_renew(struct admission *a, struct admission_lease *const *leases, size_t count,
	redis_async_answer *on_answer, void *argument)
{
	enum { BATCH = ADMISSION_RENEW_BATCH };
	CHECK(count <= BATCH);
	struct redis_async_bytes all[2 * BATCH + 2];
	char digits[BATCH][24], lease[24];
	for (size_t i = 0; i < count; i++) {
		all[i] = text(leases[i]->item.name);
		snprintf(digits[i], sizeof digits[i], "%d", leases[i]->asking ? -1 : (int)leases[i]->count);
		all[count + 2 + i] = text(digits[i]);
	}
	snprintf(lease, sizeof lease, "%d", ADMISSION_LEASE_MS);
	all[count] = (struct redis_async_bytes){a->worker, ADMISSION_WORKER_ID};
	all[count + 1] = text(lease);
	return redis_async_call(a->redis, &a->node->scripts[SCRIPT_RENEW], all, 2 * count + 2, count, on_answer,
		argument);
}
