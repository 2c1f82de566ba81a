/* admission: the life of a ticket.
 *
 *   start ─▶ ASKING ─┬▶ DECIDED ─▶ settle, or next_key ─▶ ASKING_KEY ─▶ DECIDED
 *                    └▶ WAITING ─┬▶ turn ─▶ ASKING ─▶ DECIDED
 *                                └▶ timed out, its mapping gone, or it may not any more: DECIDED
 *
 * Redis is asked once, and once more when the turn of one that waits has come; what it cannot answer in time
 * is decided by the policy. A ticket outlives its request where an answer is still to come: what that answer
 * says was taken is given back then.
 * Invariant: rq->ticket is set from a start that did not refuse to settle or cancel, and after a
 * refusal until the owner cancels or starts again nothing is held. Thread: the worker's. */
#include "path/admission.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "path/admission_internal.h"
#include "state/journal.h"

/* ---- tickets ---- */

static unsigned stages_of(const struct admission_request *rq)
{
	const struct limits *l = rq->subject ? &rq->subject->limits : NULL;
	unsigned stages = 0;
	if (l && (l->rpm || l->input_tpm || l->output_tpm || l->max_concurrency))
		stages |= STAGE_SUBJECT;
	if (rq->mapping->has_queue)
		stages |= STAGE_QUEUE;
	if (rq->mapping->pool_name)
		stages |= STAGE_POOL;
	return stages;
}

static struct admission_ticket *ticket_new(struct admission *a, struct admission_request *rq)
{
	struct admission_ticket *t = check_calloc(1, sizeof *t);
	t->owner = a;
	t->rq = rq;
	t->snapshot = snapshot_ref(rq->snapshot);
	t->mapping = rq->mapping;
	t->subject = rq->subject;
	t->pool = rq->mapping->pool;
	t->stages = stages_of(rq);
	t->started_ms = loop_now_ms(a->loop);
	t->tokens[0] = rq->input_tokens;
	t->tokens[1] = rq->output_tokens;
	t->key = t->first_choice = SIZE_MAX;
	t->candidates = t->candidates_few;
	t->arrival = atomic_fetch_add(&a->node->names, 1);
	if (t->stages & STAGE_QUEUE)
		snprintf(t->queue_name, sizeof t->queue_name, "%016" PRIx64 ":%" PRIx64, a->node->nonce, t->arrival);
	return t;
}

static void ticket_free(struct admission_ticket *t)
{
	CHECK(!t->asking && !t->waiter);
	admission_lease_hear(t);
	admission_local_let_go(t);
	loop_timer_cancel(t->owner->loop, &t->patience);
	snapshot_unref(t->snapshot);
	snapshot_unref(t->renewed);
	if (t->candidates != t->candidates_few)
		free(t->candidates);
	free(t->tried_many);
	loop_free_later(t->owner->loop, t);
}

static bool has_windows(const struct subject *s)
{
	return s->limits.rpm || s->limits.input_tpm || s->limits.output_tpm;
}

/* What its end adds to the event that it is in, or to none where there is no window. false: nothing. */
static bool changes_of(const struct admission_ticket *t, bool give_back, const struct admission_result *result,
	const int64_t usage[3], double amounts[3])
{
	if (usage[0] && !has_windows(t->subject)) {
		for (int i = 0; i < 3; i++)
			amounts[i] = (double)usage[i];
		return true;
	}
	if (t->event <= 0 || !(give_back || (result && result->tokens_known)))
		return false;
	amounts[0] = give_back ? -1 : 0;
	amounts[1] = (give_back ? 0 : (double)result->input_tokens) - (double)t->tokens[0];
	amounts[2] = (give_back ? 0 : (double)result->output_tokens) - (double)t->tokens[1];
	return amounts[0] != 0 || amounts[1] != 0 || amounts[2] != 0;
}

/* Gives everything back but the vendor key's part, which follows its outcome. */
static void release(struct admission_ticket *t, bool give_back, const struct admission_result *result)
{
	int64_t usage[3] = {0};
	if (result && result->sent && t->subject) {
		usage[0] = 1;
		usage[1] = (int64_t)(result->tokens_known || result->input_tokens ? result->input_tokens : t->tokens[0]);
		usage[2] = (int64_t)result->output_tokens;
	}
	admission_local_settle(t, give_back, result);
	bool place = admission_lease_drop(t);
	double amounts[3];
	bool changes = changes_of(t, give_back, result, usage, amounts);
	if (!t->subject || (!place && !changes && !usage[0]))
		return;
	admission_batch_settle(t, place, changes ? amounts : NULL, usage);
	t->event = 0;
	t->place = false;
}

static void report_key(struct admission_ticket *t, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms, bool give_back)
{
	if (t->key == SIZE_MAX || t->reported)
		return;
	t->reported = true;
	if (admission_pool_report(t, outcome, status, retry_after_ms, give_back) &&
		!admission_call_key(t, outcome, status, retry_after_ms, give_back, NULL))
		log_debug("admission", "Redis is away: what key %s did stays on this node", t->pool->keys[t->key]->id);
}

/* ---- decisions ---- */

static const enum problem_id problems[] = {
	[VERDICT_ADMITTED] = PROBLEM_NONE,
	[VERDICT_CONCURRENCY] = PROBLEM_CONCURRENCY_LIMIT,
	[VERDICT_RATE] = PROBLEM_RATE_LIMIT,
	[VERDICT_QUEUE_FULL] = PROBLEM_QUEUE_FULL,
	[VERDICT_KEYS_LIMITED] = PROBLEM_UPSTREAM_RATE_LIMIT,
	[VERDICT_NO_KEY] = PROBLEM_NO_UPSTREAM_KEY,
};

static void set_figures(struct admission_ticket *t, const double *numbers)
{
	if (!t->rq || !t->subject)
		return;
	const struct limits *l = &t->subject->limits;
	const uint64_t limits[] = {l->rpm, l->input_tpm, l->output_tpm};
	for (int i = 0; i < ADMISSION_WINDOWS; i++) {
		double sum = numbers[ANSWER_SUMS + i];
		t->rq->figures[i] = (struct admission_figure){.limit = limits[i],
			.remaining = sum >= (double)limits[i] ? 0 : limits[i] - (uint64_t)(sum > 0 ? sum : 0),
			.reset_ms = sum > 0 && numbers[ANSWER_RESET] > 0 ? (uint64_t)numbers[ANSWER_RESET] : 0};
	}
}

/* Of what Redis has seen and what only this node has, the larger. */
static void set_known_figures(struct admission_ticket *t, const double *numbers)
{
	double known[ANSWER_NUMBERS];
	memcpy(known, numbers, sizeof known);
	admission_local_sums(t, known);
	set_figures(t, known);
}

/* The decision is in the request; whether it came at once is the caller's to say. */
static void decide(struct admission_ticket *t, enum problem_id problem, double wait_ms)
{
	struct admission_request *rq = t->rq;
	t->phase = PHASE_DECIDED;
	rq->problem = problem;
	rq->retry_after_ms = problem == PROBLEM_NONE ? 0 : (uint64_t)(wait_ms >= 1 ? wait_ms : 1000);
	rq->key = t->key == SIZE_MAX || problem != PROBLEM_NONE ? NULL : t->pool->keys[t->key];
}

/* Refused before it was admitted: the ticket is done with. */
static void refuse(struct admission_ticket *t, enum problem_id problem, double wait_ms)
{
	t->key = SIZE_MAX;
	decide(t, problem, wait_ms);
	t->rq->ticket = NULL;
	t->rq = NULL;
	release(t, true, NULL);
	ticket_free(t);
}

static void take_key(struct admission_ticket *t, const double *numbers, bool from_redis)
{
	size_t choice = (size_t)numbers[ANSWER_CHOICE];
	t->key = choice && choice <= t->candidate_count ? t->candidates[choice - 1] : SIZE_MAX;
	t->reported = false;
	if (t->key != SIZE_MAX)
		admission_ticket_mark_tried(t, t->key);
	if (from_redis) {
		t->key_event = numbers[ANSWER_KEY_EVENT];
		t->key_made = numbers[ANSWER_KEY_MADE];
		t->trial = numbers[ANSWER_TRIAL];
		t->local_trial = 0;
	} else {
		t->key_event = t->key_made = t->trial = 0;
	}
	if (t->stages & STAGE_POOL)
		admission_pool_chosen(t, t->key);
}

static void join_queue(struct admission_ticket *t, const double *numbers, bool local)
{
	double start = numbers[ANSWER_START];
	int64_t delay_ms = start > 0 ? (int64_t)(start - numbers[ANSWER_NOW]) : -1;
	t->phase = PHASE_WAITING;
	t->would_wait_ms = (uint64_t)numbers[ANSWER_WAIT];
	t->rq->queued = true;
	admission_queue_join(t, start > 0 && delay_ms < 0 ? 0 : delay_ms, local ? 0 : start,
		local ? 0 : numbers[ANSWER_RULE]);
	if (t->rq->on_waiting)
		t->rq->on_waiting(t->rq);
}

/* For a while after an outage this node asks itself too. */
static bool remembers_outage(const struct admission *a)
{
	enum { A_WHILE_MS = ADMISSION_SPAN_MS + 1000 };
	int64_t outage_ms = (int64_t)atomic_load(&a->node->outage_ms);
	return outage_ms && outage_ms + A_WHILE_MS > clock_monotonic_ms();
}

static bool takes_place(const struct admission_ticket *t)
{
	return t->stages & STAGE_SUBJECT && !(t->stages & STAGE_WAITED) && t->subject->limits.max_concurrency;
}

/* A verdict from Redis or this node, on a whole admission. true: decided. */
static bool apply(struct admission_ticket *t, const double *numbers, bool from_redis)
{
	int verdict = (int)numbers[ANSWER_VERDICT];
	set_figures(t, numbers);
	if (verdict != VERDICT_ADMITTED && verdict != VERDICT_WAITS) {
		refuse(t, problems[verdict], numbers[ANSWER_WAIT]);
		return true;
	}
	if (from_redis) {
		t->event = numbers[ANSWER_EVENT];
		t->made = numbers[ANSWER_MADE];
	}
	if (!(t->stages & STAGE_WAITED)) {
		t->place = from_redis && takes_place(t);
		admission_lease_take(t);
	}
	if (verdict == VERDICT_ADMITTED)
		take_key(t, numbers, from_redis);
	if (from_redis) {
		admission_local_note(t);
		if (t->owner->node->policy == ADMISSION_LOCAL && remembers_outage(t->owner))
			set_known_figures(t, numbers);
	}
	if (verdict == VERDICT_WAITS) {
		join_queue(t, numbers, !from_redis);
		return false;
	}
	decide(t, PROBLEM_NONE, 0);
	return true;
}

/* The policy `allow`: any key will do. */
static void choose_any(struct admission_ticket *t)
{
	double numbers[ANSWER_NUMBERS] = {0};
	if (t->stages & STAGE_POOL)
		admission_local_choose(t, numbers);
	set_figures(t, numbers);
	take_key(t, numbers, false);
	if (t->stages & STAGE_POOL && t->key == SIZE_MAX)
		refuse(t, problems[(int)numbers[ANSWER_VERDICT]], numbers[ANSWER_WAIT]);
	else
		decide(t, PROBLEM_NONE, 0);
}

/* true: decided. */
static bool decide_without_redis(struct admission_ticket *t)
{
	double numbers[ANSWER_NUMBERS];
	atomic_store(&t->owner->node->outage_ms, clock_monotonic_ms());
	switch (t->owner->node->policy) {
	case ADMISSION_DENY:
		refuse(t, PROBLEM_REDIS_UNAVAILABLE, 1000);
		return true;
	case ADMISSION_ALLOW:
		choose_any(t);
		return true;
	default:
		admission_local_decide(t, numbers);
		return apply(t, numbers, false);
	}
}

static bool ask(struct admission_ticket *t, bool all_keys)
{
	if (!redis_async_usable(t->owner->redis))
		return false;
	if (t->stages & STAGE_POOL)
		admission_pool_offer(t, all_keys);
	double behind = t->stages & STAGE_QUEUE ? admission_queue_behind(t) : 0;
	t->phase = PHASE_ASKING;
	t->asking = admission_batch_admit(t, behind);
	if (t->asking)
		admission_lease_ask(t);
	else
		admission_lease_hear(t);
	if (!t->asking && t->stages & STAGE_POOL)
		admission_pool_chosen(t, SIZE_MAX);
	return t->asking;
}

bool admission_start(struct admission *a, struct admission_request *rq)
{
	double numbers[ANSWER_NUMBERS];
	struct admission_ticket *t = ticket_new(a, rq);
	enum admission_failure_policy policy = a->node->policy;
	rq->ticket = t;
	rq->problem = PROBLEM_NONE;
	rq->retry_after_ms = rq->waited_ms = 0;
	rq->queued = false;
	rq->key = NULL;
	memset(rq->figures, 0, sizeof rq->figures);
	if (!t->stages && (policy != ADMISSION_DENY || redis_async_usable(a->redis))) {
		decide(t, PROBLEM_NONE, 0);
		return true;
	}
	if (policy == ADMISSION_LOCAL && remembers_outage(a) && !admission_local_check(t, numbers))
		return apply(t, numbers, false);
	if (t->stages && ask(t, false))
		return false;
	return decide_without_redis(t);
}

/* ---- answers ---- */

static void note_clock(struct admission *a, const struct admission_answer *answer)
{
	a->redis_offset_ms = (int64_t)answer->numbers[ANSWER_NOW] - (int64_t)loop_now_ms(a->loop);
}

/* Its owner has gone meanwhile: what was taken goes back. */
static void undo(struct admission_ticket *t, const double *numbers)
{
	int verdict = (int)numbers[ANSWER_VERDICT];
	if (verdict == VERDICT_ADMITTED || verdict == VERDICT_WAITS) {
		t->event = numbers[ANSWER_EVENT];
		t->made = numbers[ANSWER_MADE];
		t->place |= takes_place(t);
		if (verdict == VERDICT_ADMITTED)
			take_key(t, numbers, true);
		else
			admission_call_leave(t->owner, t->mapping->prefix, t->queue_name, numbers[ANSWER_START],
				numbers[ANSWER_RULE]);
	}
	release(t, true, NULL);
	report_key(t, ADMISSION_NOTHING, 0, 0, true);
	ticket_free(t);
}

static bool wants_more_keys(const struct admission_ticket *t, int verdict)
{
	return (verdict == VERDICT_KEYS_LIMITED || verdict == VERDICT_NO_KEY) && !t->all_offered;
}

void admission_ticket_answered(struct admission_ticket *t, const struct redisReply *reply)
{
	struct admission_request *rq = t->rq;
	struct admission_answer answer;
	t->asking = false;
	if (!admission_answer_read(&answer, reply)) {
		t->event = 0; /* of one that has waited: whether it has moved is not known, so it stands */
		admission_lease_doubt_admission(t);
		admission_lease_hear(t);
		if (reply && reply->type == REDIS_REPLY_ERROR)
			journal_add("redis", "admission: Redis says: %.120s", reply->str);
		if (t->stages & STAGE_POOL)
			admission_pool_chosen(t, SIZE_MAX);
		if (!rq) {
			release(t, true, NULL);
			ticket_free(t);
			return;
		}
		if (decide_without_redis(t))
			rq->on_decided(rq);
		return;
	}
	note_clock(t->owner, &answer);
	if (t->stages & STAGE_POOL)
		admission_pool_learn(t, &answer);
	int verdict = (int)answer.numbers[ANSWER_VERDICT];
	if (!rq) {
		undo(t, answer.numbers);
		return;
	}
	bool again = verdict == VERDICT_CONCURRENCY && t->looks < ADMISSION_LOOKS;
	if (again || wants_more_keys(t, verdict)) {
		t->looks += again;
		if (t->stages & STAGE_POOL)
			admission_pool_chosen(t, SIZE_MAX);
		if (ask(t, !again))
			return;
		if (decide_without_redis(t))
			rq->on_decided(rq);
		return;
	}
	if (t->stages & STAGE_POOL && verdict != VERDICT_ADMITTED)
		admission_pool_chosen(t, SIZE_MAX);
	if (apply(t, answer.numbers, true))
		rq->on_decided(rq);
}

/* ---- another key for a ticket that has been admitted ---- */

static void choose_without_redis(struct admission_ticket *t)
{
	double numbers[ANSWER_NUMBERS];
	if (t->owner->node->policy == ADMISSION_DENY) {
		t->key = SIZE_MAX;
		decide(t, PROBLEM_REDIS_UNAVAILABLE, 1000);
		return;
	}
	admission_local_choose(t, numbers);
	take_key(t, numbers, false);
	if (t->key == SIZE_MAX)
		decide(t, problems[(int)numbers[ANSWER_VERDICT]], numbers[ANSWER_WAIT]);
	else
		decide(t, PROBLEM_NONE, 0);
}

static void on_key_answer(void *argument, const struct redisReply *reply);

static bool ask_key(struct admission_ticket *t, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms, bool all)
{
	admission_pool_offer(t, all);
	t->phase = PHASE_ASKING_KEY;
	t->asking = admission_call_key(t, outcome, status, retry_after_ms, false, on_key_answer);
	if (!t->asking)
		admission_pool_chosen(t, SIZE_MAX);
	return t->asking;
}

static void on_key_answer(void *argument, const struct redisReply *reply)
{
	struct admission_ticket *t = argument;
	struct admission_request *rq = t->rq;
	struct admission_answer answer;
	bool read = admission_answer_read(&answer, reply);
	t->asking = false;
	if (read)
		admission_pool_learn(t, &answer);
	int verdict = read ? (int)answer.numbers[ANSWER_VERDICT] : VERDICT_NO_KEY;
	if (!rq || !read || verdict != VERDICT_ADMITTED)
		admission_pool_chosen(t, read && verdict == VERDICT_ADMITTED ? t->first_choice : SIZE_MAX);
	if (!rq) {
		if (read && verdict == VERDICT_ADMITTED) {
			take_key(t, answer.numbers, true);
			report_key(t, ADMISSION_NOTHING, 0, 0, true);
		}
		ticket_free(t);
		return;
	}
	t->key = SIZE_MAX;
	t->trial = 0;
	if (!read) {
		choose_without_redis(t);
	} else if (verdict == VERDICT_ADMITTED) {
		take_key(t, answer.numbers, true);
		unsigned stages = t->stages; /* the key alone is new to this node */
		t->stages = STAGE_POOL;
		admission_local_note(t);
		t->stages = stages;
		decide(t, PROBLEM_NONE, 0);
	} else if (wants_more_keys(t, verdict) && ask_key(t, ADMISSION_NOTHING, 0, 0, true)) {
		return;
	} else {
		decide(t, problems[verdict], answer.numbers[ANSWER_WAIT]);
	}
	rq->on_decided(rq);
}

bool admission_next_key(struct admission_request *rq, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms)
{
	struct admission_ticket *t = rq->ticket;
	CHECK(t && t->phase == PHASE_DECIDED && t->key != SIZE_MAX);
	if (rq->mapping != t->mapping) {
		report_key(t, outcome, status, retry_after_ms, false); /* as long as it is known */
		admission_ticket_renew(t);
	}
	if (!t->pool) {
		decide(t, PROBLEM_NO_UPSTREAM_KEY, 0);
		return true;
	}
	bool news = !t->reported;
	if (news)
		admission_pool_report(t, outcome, status, retry_after_ms, false);
	t->reported = true;
	if (!news)
		t->trial = 0;
	if (redis_async_usable(t->owner->redis) &&
		ask_key(t, news ? outcome : ADMISSION_NOTHING, status, retry_after_ms, false))
		return false;
	choose_without_redis(t);
	return true;
}

/* ---- the queue ---- */

/* It waited for nothing: what it asked for is not there any more, or not for it. */
static void turn_away(struct admission_ticket *t, enum problem_id problem)
{
	struct admission_request *rq = t->rq;
	rq->waited_ms = loop_now_ms(t->owner->loop) - t->started_ms;
	refuse(t, problem, 0);
	rq->retry_after_ms = 0;
	rq->on_decided(rq);
}

/* It has its place and may have its reservations. What is left to ask for begins now. */
bool admission_ticket_turn(struct admission_ticket *t)
{
	struct admission_request *rq = t->rq;
	enum problem_id problem = rq->on_turn ? rq->on_turn(rq) : PROBLEM_NONE;
	if (problem != PROBLEM_NONE) {
		turn_away(t, problem);
		return false;
	}
	if (rq->mapping != t->mapping)
		admission_ticket_renew(t);
	rq->waited_ms = loop_now_ms(t->owner->loop) - t->started_ms;
	unsigned left = t->stages & STAGE_POOL;
	if (t->stages & STAGE_SUBJECT && has_windows(t->subject))
		left |= STAGE_SUBJECT;
	t->stages = left | STAGE_WAITED;
	if (!left)
		decide(t, PROBLEM_NONE, 0);
	else if (ask(t, false) || !decide_without_redis(t))
		return true;
	rq->on_decided(rq);
	return true;
}

void admission_ticket_timed_out(struct admission_ticket *t)
{
	struct admission_request *rq = t->rq;
	uint64_t more_ms = t->would_wait_ms > t->patience_ms ? t->would_wait_ms - t->patience_ms : 0;
	rq->waited_ms = loop_now_ms(t->owner->loop) - t->started_ms;
	refuse(t, PROBLEM_QUEUE_TIMEOUT, more_ms > 1000 ? (double)more_ms : 1000);
	rq->on_decided(rq);
}

void admission_ticket_unmapped(struct admission_ticket *t)
{
	turn_away(t, PROBLEM_NO_MAPPING);
}

/* ---- the end ---- */

void admission_cancel(struct admission_request *rq)
{
	struct admission_ticket *t = rq->ticket;
	if (!t)
		return;
	rq->ticket = NULL;
	t->rq = NULL;
	if (t->phase == PHASE_ASKING && t->asking)
		return; /* admission_ticket_answered() gives back */
	admission_queue_leave(t);
	release(t, true, NULL);
	if (!t->asking) {
		report_key(t, ADMISSION_NOTHING, 0, 0, true);
		ticket_free(t);
	}
}

void admission_report(struct admission_request *rq, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms)
{
	if (rq->ticket)
		report_key(rq->ticket, outcome, status, retry_after_ms, false);
}

void admission_settle(struct admission_request *rq, const struct admission_result *result)
{
	struct admission_ticket *t = rq->ticket;
	if (!t)
		return;
	rq->ticket = NULL;
	t->rq = NULL;
	admission_queue_leave(t);
	if (t->asking && t->phase == PHASE_ASKING)
		return;
	release(t, !result->sent, result);
	if (t->asking)
		return; /* on_key_answer gives the key back */
	report_key(t, result->outcome, result->status, result->retry_after_ms, !result->sent);
	ticket_free(t);
}
