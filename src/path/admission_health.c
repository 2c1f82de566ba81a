/* admission_health: the table, its actions and its Lua form. Pure; any thread. The actions here and
 * in admission_health.lua do the same; tests/unit/test_admission_health.c runs both side by side. */
#include "path/admission_health.h"

enum {
	IN_A_ROW = 3,
	FIRST_PAUSE_MS = 10000,
	LONGEST_PAUSE_MS = 300000,
	THROTTLED_MS = 30000,
	REJECTED_MS = 300000,
	TRIAL_MS = 60000
};

typedef void action(struct admission_health *h, int64_t now_ms, unsigned status, int64_t retry_after_ms);

static void cool_until(struct admission_health *h, int64_t until_ms, int64_t pause_ms, unsigned status)
{
	*h = (struct admission_health){
		.state = ADMISSION_KEY_COOLING,
		.until_ms = until_ms,
		.pause_ms = pause_ms,
		.status = status,
	};
}

static void none(struct admission_health *h, int64_t now_ms, unsigned status, int64_t retry_after_ms)
{
	(void)h, (void)now_ms, (void)status, (void)retry_after_ms;
}

static void clear(struct admission_health *h, int64_t now_ms, unsigned status, int64_t retry_after_ms)
{
	(void)now_ms, (void)status, (void)retry_after_ms;
	*h = (struct admission_health){0};
}

static void count(struct admission_health *h, int64_t now_ms, unsigned status, int64_t retry_after_ms)
{
	(void)retry_after_ms;
	h->failures++;
	h->status = status;
	if (h->failures >= IN_A_ROW)
		cool_until(h, now_ms + FIRST_PAUSE_MS, FIRST_PAUSE_MS, status);
}

static void longer(struct admission_health *h, int64_t now_ms, unsigned status, int64_t retry_after_ms)
{
	(void)retry_after_ms;
	int64_t pause = h->pause_ms ? h->pause_ms * 2 : FIRST_PAUSE_MS;
	if (pause > LONGEST_PAUSE_MS)
		pause = LONGEST_PAUSE_MS;
	cool_until(h, now_ms + pause, pause, status);
}

static void cool_for(struct admission_health *h, int64_t now_ms, unsigned status, int64_t length_ms)
{
	if (h->state == ADMISSION_KEY_COOLING && h->until_ms > now_ms + length_ms)
		return;
	cool_until(h, now_ms + length_ms, h->pause_ms, status);
}

static void cool(struct admission_health *h, int64_t now_ms, unsigned status, int64_t retry_after_ms)
{
	cool_for(h, now_ms, status, retry_after_ms > 0 ? retry_after_ms : THROTTLED_MS);
}

static void reject(struct admission_health *h, int64_t now_ms, unsigned status, int64_t retry_after_ms)
{
	(void)retry_after_ms;
	cool_for(h, now_ms, status, REJECTED_MS);
}

static void again(struct admission_health *h, int64_t now_ms, unsigned status, int64_t retry_after_ms)
{
	(void)status, (void)retry_after_ms;
	cool_until(h, now_ms, h->pause_ms, h->status);
}

enum { ROW_OWN = 3, ROWS = 4, OUTCOMES = ADMISSION_FAILED + 1 };

static action *const table[ROWS][OUTCOMES] = {
#define X(state, nothing, success, throttled, rejected, failed) {nothing, success, throttled, rejected, failed},
	ADMISSION_HEALTH_TABLE(X)
#undef X
};

void admission_health_apply(struct admission_health *h, int64_t now_ms, enum admission_outcome outcome,
	unsigned status, int64_t retry_after_ms, int64_t trial)
{
	bool own = h->state == ADMISSION_KEY_TRIAL && trial && trial == h->until_ms;
	table[own ? ROW_OWN : (int)h->state][outcome](h, now_ms, status, retry_after_ms);
}

bool admission_health_usable(const struct admission_health *h, int64_t now_ms, bool *trial)
{
	*trial = h->state != ADMISSION_KEY_OK;
	return h->state == ADMISSION_KEY_OK || h->until_ms <= now_ms;
}

int64_t admission_health_begin_trial(struct admission_health *h, int64_t now_ms)
{
	h->state = ADMISSION_KEY_TRIAL;
	h->until_ms = now_ms + TRIAL_MS;
	return h->until_ms;
}

const char *admission_health_lua(void)
{
	return "local HEALTH_TABLE = {"
#define X(state, nothing, success, throttled, rejected, failed) \
	"{'" #nothing "', '" #success "', '" #throttled "', '" #rejected "', '" #failed "'}, "
		ADMISSION_HEALTH_TABLE(X)
#undef X
			"}\n";
}

enum admission_outcome admission_outcome_of_status(unsigned status)
{
	static const struct {
		unsigned status;
		enum admission_outcome outcome;
	} known[] = {
		{0, ADMISSION_FAILED},
		{401, ADMISSION_REJECTED},
		{403, ADMISSION_REJECTED},
		{429, ADMISSION_THROTTLED},
		{500, ADMISSION_FAILED},
		{502, ADMISSION_FAILED},
		{503, ADMISSION_THROTTLED},
		{504, ADMISSION_FAILED},
		{529, ADMISSION_FAILED},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].status == status)
			return known[i].outcome;
	return status < 400 ? ADMISSION_SUCCESS : ADMISSION_NOTHING;
}
