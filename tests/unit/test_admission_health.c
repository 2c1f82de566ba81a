/* admission_health: the table by example, and C beside Lua: both play the same random outcomes and
 * must agree on every state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "base/embedded.h"
#include "path/admission_internal.h"
#include "redis_fixture.h"

static struct admission_health h;

static void apply(int64_t at_ms, unsigned status, int64_t retry_after_ms, int64_t trial)
{
	admission_health_apply(&h, at_ms, admission_outcome_of_status(status), status, retry_after_ms, trial);
}

static void statuses_mean_what_the_contract_says(void **state)
{
	static const struct {
		unsigned status;
		enum admission_outcome outcome;
	} cases[] = {
		{0, ADMISSION_FAILED},
		{200, ADMISSION_SUCCESS},
		{201, ADMISSION_SUCCESS},
		{304, ADMISSION_SUCCESS},
		{400, ADMISSION_NOTHING},
		{401, ADMISSION_REJECTED},
		{403, ADMISSION_REJECTED},
		{404, ADMISSION_NOTHING},
		{408, ADMISSION_NOTHING},
		{422, ADMISSION_NOTHING},
		{429, ADMISSION_THROTTLED},
		{500, ADMISSION_FAILED},
		{501, ADMISSION_NOTHING},
		{502, ADMISSION_FAILED},
		{503, ADMISSION_THROTTLED},
		{504, ADMISSION_FAILED},
		{529, ADMISSION_FAILED},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(admission_outcome_of_status(cases[i].status), cases[i].outcome);
}

static void three_failures_then_doubling_pauses(void **state)
{
	static const int64_t pauses[] = {10000, 20000, 40000, 80000, 160000, 300000, 300000};
	int64_t now = 1000000;
	bool trial;
	(void)state;
	memset(&h, 0, sizeof h);
	apply(now, 500, 0, 0);
	apply(now, 502, 0, 0);
	apply(now, 200, 0, 0);
	apply(now, 0, 0, 0);
	apply(now, 400, 0, 0);
	apply(now, 529, 0, 0);
	assert_true(admission_health_usable(&h, now, &trial) && !trial);
	apply(now, 504, 0, 0);
	for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
		assert_int_equal(h.state, ADMISSION_KEY_COOLING);
		assert_int_equal(h.until_ms - now, pauses[i]);
		assert_false(admission_health_usable(&h, h.until_ms - 1, &trial));
		now = h.until_ms;
		assert_true(admission_health_usable(&h, now, &trial) && trial);
		int64_t name = admission_health_begin_trial(&h, now);
		assert_false(admission_health_usable(&h, now, &trial));
		apply(now, 200, 0, 0); /* began before */
		assert_int_equal(h.state, ADMISSION_KEY_TRIAL);
		apply(now, 500, 0, name);
	}
	now = h.until_ms;
	apply(now, 200, 0, admission_health_begin_trial(&h, now));
	assert_int_equal(h.state, ADMISSION_KEY_OK);
	for (int i = 0; i < 3; i++)
		apply(now, 500, 0, 0);
	assert_int_equal(h.until_ms - now, 10000); /* from the start again */
}

static void the_vendor_says_how_long(void **state)
{
	(void)state;
	memset(&h, 0, sizeof h);
	apply(1000, 429, 0, 0);
	assert_int_equal(h.until_ms, 31000);
	memset(&h, 0, sizeof h);
	apply(1000, 503, 7000, 0);
	assert_int_equal(h.until_ms, 8000);
	for (int storm = 0; storm < 100; storm++)
		apply(1500, 429, 2000, 0);
	assert_int_equal(h.until_ms, 8000);
	apply(2000, 401, 5, 0);
	assert_int_equal(h.until_ms, 302000);
	assert_int_equal(h.status, 401);
}

/* ---- beside Lua ---- */

static struct redis_fixture fixture;
static redisContext *redis;

/* The scripts' parts with the time as an argument: report, or begin a trial where one is due. */
static const char script[] =
	"-- include admission_window.lua\n"
	"-- include admission_window_move.lua\n"
	"-- include admission_keys.lua\n"
	"-- include admission_health.lua\n"
	"local now, pool, first_key, answer = tonumber(ARGV[1]), KEYS[1], 3, '0'\n"
	"if ARGV[2] == 'trial' then\n"
	"	local span, candidates, at, key_event, key_made, trial = 60000, 1, 1, 0, 0, 0\n"
	"	local key, choice, limit, on_trial, learnt\n"
	"	ARGV[1] = pack('<dd', 1, 0)\n"
	"	-- include admission_key_choose.lua\n"
	"	if key then\n"
	"		-- include admission_key_take.lua\n"
	"	end\n"
	"	answer = key and string.format('%.0f', trial) or '-1'\n"
	"else\n"
	"	local name = pool .. ':k:a'\n"
	"	local s = call('GET', name)\n"
	"	keys[1] = {name, s and {open(STATE, s)}, not s, false}\n"
	"	health_report(keys[1], now, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]))\n"
	"end\n"
	"-- include admission_keys_save.lua\n"
	"return answer\n";

static void load(char sha1[41])
{
	char *whole = admission_script_expand(script);
	redisReply *reply = redisCommand(redis, "SCRIPT LOAD %s", whole);
	assert_int_equal(reply->type, REDIS_REPLY_STRING);
	snprintf(sha1, 41, "%s", reply->str);
	freeReplyObject(reply);
	free(whole);
}

static int64_t call(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	redisReply *reply = redisvCommand(redis, format, arguments);
	va_end(arguments);
	assert_non_null(reply);
	if (reply->type != REDIS_REPLY_STRING)
		fail_msg("%s", reply->str);
	int64_t value = atoll(reply->str);
	freeReplyObject(reply);
	return value;
}

static void assert_same(void)
{
	double fields[21] = {0};
	redisReply *reply = redisCommand(redis, "GET apiproxy:limit:{p}:k:a");
	if (reply->type == REDIS_REPLY_STRING)
		memcpy(fields, reply->str, sizeof fields);
	freeReplyObject(reply);
	assert_int_equal(h.state, (int)fields[16]);
	assert_int_equal(h.failures, (unsigned)fields[18]);
	if (h.state != ADMISSION_KEY_OK) {
		assert_int_equal(h.until_ms, (int64_t)fields[17]);
		assert_int_equal(h.pause_ms, (int64_t)fields[19]);
		assert_int_equal(h.status, (unsigned)fields[20]);
	}
}

static void c_and_lua_agree(void **state)
{
	static const unsigned statuses[] = {200, 200, 400, 401, 429, 429, 503, 500, 500, 502, 0, 0, 529};
	char sha1[41];
	int64_t now = 1000000, trials[3] = {0}, begun = 0;
	unsigned seed = 7;
	(void)state;
	memset(&h, 0, sizeof h);
	redis_fixture_init(&fixture);
	redis = fixture.cli;
	load(sha1);
	for (int step = 0; step < 5000; step++) {
		now += rand_r(&seed) % 4 ? rand_r(&seed) % 3000 : rand_r(&seed) % 120000;
		bool trial;
		if (admission_health_usable(&h, now, &trial) && trial) {
			int64_t name = admission_health_begin_trial(&h, now);
			assert_int_equal(call("EVALSHA %s 1 apiproxy:limit:{p} %lld trial a 0", sha1, (long long)now), name);
			trials[begun++ % 3] = name;
		} else {
			unsigned status = statuses[rand_r(&seed) % (sizeof statuses / sizeof *statuses)];
			int64_t retry_ms = rand_r(&seed) % 2 ? rand_r(&seed) % 50000 : 0,
					name = rand_r(&seed) % 2 ? trials[rand_r(&seed) % 3] : 0;
			apply(now, status, retry_ms, name);
			call("EVALSHA %s 1 apiproxy:limit:{p} %lld %d %u %lld %lld", sha1, (long long)now,
				(int)admission_outcome_of_status(status), status, (long long)retry_ms, (long long)name);
		}
		assert_same();
	}
	assert_true(begun > 50);
	redis_fixture_fini(&fixture);
}

/* ---- the windows of this process ---- */

static void events_expire_merge_and_are_adjusted(void **state)
{
	struct admission_events w = {0};
	static const int64_t one[3] = {1, 10, 100};
	(void)state;
	assert_int_equal(admission_events_last_ms(&w), 0);
	uint64_t first = admission_events_add(&w, 1000, one);
	assert_int_equal(admission_events_add(&w, 1000, one), first);
	uint64_t second = admission_events_add(&w, 900, one); /* never back */
	assert_int_equal(second, first);
	second = admission_events_add(&w, 5000, one);
	assert_int_equal(second, first + 1);
	admission_events_adjust(&w, second, (const int64_t[3]){0, -4, 20});
	assert_int_equal(w.sums[0], 4);
	assert_int_equal(w.sums[1], 36);
	assert_int_equal(w.sums[2], 420);
	assert_int_equal(admission_events_room_at(&w, (const int64_t[3]){3, 0, 0}), 61001);
	assert_int_equal(admission_events_room_at(&w, (const int64_t[3]){4, 0, 0}), 65001);
	admission_events_expire(&w, 61000);
	assert_int_equal(w.sums[0], 4);
	admission_events_expire(&w, 61001);
	assert_int_equal(w.sums[0], 1);
	admission_events_adjust(&w, first, (const int64_t[3]){-1, 0, 0}); /* gone */
	assert_int_equal(w.sums[0], 1);
	admission_events_expire(&w, 65001);
	for (int i = 0; i < 3; i++)
		assert_int_equal(w.sums[i], 0);
	admission_events_fini(&w);
}

/* Told in whole seconds, rounded up: who comes again after them is admitted. The answer's way takes the time that the
 * events' millisecond has left. */
static void waits_are_true_and_a_minute_at_most(void **state)
{
	(void)state;
	for (uint64_t since = 0; since <= ADMISSION_SPAN_MS; since++) {
		struct admission_events w = {0};
		admission_events_add(&w, 5000, (const int64_t[3]){1, 0, 0});
		admission_events_add(&w, 5000 + since / 2, (const int64_t[3]){1, 0, 0});
		uint64_t now = 5000 + since;
		uint64_t wait = admission_events_wait_ms(&w, (const int64_t[3]){1, 0, 0}, now);
		assert_in_range(wait, 1, 60000);
		assert_int_equal(wait, since ? 60001 - since : 60000);
		admission_events_expire(&w, now + (wait + 999) / 1000 * 1000 + !since);
		assert_true(w.sums[0] <= 1);
		admission_events_fini(&w);
	}
}

static void a_window_of_any_size_stays_small(void **state)
{
	struct admission_events w = {0};
	uint64_t now = 1000;
	(void)state;
	for (int i = 0; i < 1000000; i++) {
		now += i % 5 == 0;
		admission_events_expire(&w, now);
		admission_events_add(&w, now, (const int64_t[3]){1, 1, 1});
		assert_true(w.next - w.first <= ADMISSION_FULL + ADMISSION_SPAN_MS / ADMISSION_STEP_MS + 1);
	}
	assert_in_range(w.sums[0], 300000, 300600); /* 5 a millisecond; at most 100 ms too many */
	admission_events_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(statuses_mean_what_the_contract_says),
		cmocka_unit_test(three_failures_then_doubling_pauses),
		cmocka_unit_test(the_vendor_says_how_long),
		cmocka_unit_test(c_and_lua_agree),
		cmocka_unit_test(events_expire_merge_and_are_adjusted),
		cmocka_unit_test(waits_are_true_and_a_minute_at_most),
		cmocka_unit_test(a_window_of_any_size_stays_small),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
