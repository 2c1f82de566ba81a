/* usage_text: one text is in one of four modes; EXACT is the first, and a text that is short or easy never
 * leaves it.
 *
 *     EXACT --dense--> LOST --a key--> NEAR --its object ends--> BEHIND --the text goes on--> LOST
 *
 * LOST knows neither depth nor whether it is in a string. NEAR does, from the key on: the depth of the object
 * that holds it is called ADRIFT, and scan.floor is the depth of the innermost object that was open at the
 * key and still is. Each time that one ends, near[] moves up by one and BEHIND looks at what comes next. */
#include "path/usage_text.h"

#include <string.h>

#include "path/usage_scan.h"

enum mode { EXACT, LOST, NEAR, BEHIND };

/* A block with more tokens than one in TOKEN_BYTES is dense: scanning takes a few ns a token, a search .02 ns a byte.
 * A text that is deeper than LEAVE_DEPTH is none of a vendor's: it is scanned. */
enum { TOKEN_BYTES = 8192, LEAVE_DEPTH = 16, LEAVE_STEP = 64 };
/* An array whose elements all tell usage: past so many of them, only what is in the tail of a bulk is looked at. */
enum { LIST_MIN = 16, BULK_MIN = 16 * 1024, BULK_TAIL = 4 * 1024 };
#define ADRIFT ((uint64_t)1 << 32)

static const char name[] = "\"usage";
enum { NAME_LENGTH = sizeof name - 1 };

/* ---- what the scanner finds ---- */

static bool is_wrapper(enum json_key key)
{
	return key == JSON_MESSAGE || key == JSON_RESPONSE || key == JSON_X_GROQ;
}

/* In an array, which only Gemini's answer is, only its own word counts. */
static bool may_tell(enum json_key key, bool array_root)
{
	return key == JSON_USAGE_METADATA || (key == JSON_USAGE && !array_root);
}

/* Objects that may hold usage: the root's own, and that of a few objects in it. */
static void on_open(void *context, struct json_scan *s, enum json_key key, const char *at)
{
	struct usage_text *t = context;
	if (*at != '{')
		return;
	if (t->mode == NEAR) {
		if (may_tell(key, t->array_root) && s->depth == s->floor + 1)
			s->watched = s->depth;
		return;
	}
	if (!may_tell(key, s->array_root))
		return;
	uint64_t level = json_level(s);
	enum json_key parent = level == 3 ? json_parent(s, 2) : JSON_NO_KEY;
	if (level != 2 && !is_wrapper(parent))
		return;
	s->watched = s->depth;
	t->beginning = parent == JSON_MESSAGE;
}

static void on_string(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	struct usage_text *t = context;
	(void)s;
	(void)at;
	if (key >= JSON_CONTENT && key <= JSON_REFUSAL)
		t->text_bytes += length;
}

/* What Anthropic says later is the sum so far, all of it or in part; those like it put 0 for what they have said before. */
static void tell(struct usage_told *told, unsigned field, uint32_t value)
{
	bool sum_so_far = field >= INPUT_TOKENS && field <= CACHE_CREATION;
	if (!value && sum_so_far && told->seen & (1u << field))
		return;
	told->fields[field] = value;
	told->seen |= (uint16_t)(1u << field);
}

static void on_scalar(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	struct usage_text *t = context;
	struct usage_told *told = t->mode == NEAR ? &t->near[0] : &t->told;
	uint64_t value;
	if (s->depth != s->watched || key < JSON_PROMPT_TOKENS || key > JSON_THOUGHTS_COUNT)
		return;
	if (!json_number(at, length, &value))
		return;
	if (value == JSON_NUMBER_BEYOND) {
		told->beyond = true;
		return;
	}
	if (t->beginning && key == JSON_OUTPUT_TOKENS) {
		told->first_output = (uint32_t)value;
		return;
	}
	tell(told, key - JSON_PROMPT_TOKENS, (uint32_t)value);
}

static const struct json_reader reader = {.open = on_open, .string = on_string, .scalar = on_scalar};

void usage_told_merge(struct usage_told *told, const struct usage_told *later)
{
	for (unsigned i = 0; i < FIELD_COUNT; i++)
		if (later->seen & (1u << i))
			tell(told, i, later->fields[i]);
	if (later->first_output)
		told->first_output = later->first_output;
	told->beyond |= later->beyond;
}

/* ---- EXACT ---- */

static void begin_block(struct usage_text *t, uint32_t length)
{
	t->block = t->block_left = length;
	t->block_tokens = t->scan.tokens;
}

void usage_text_begin(struct usage_text *t, uint32_t exact)
{
	t->scan = (struct json_scan){0};
	t->mode = EXACT;
	t->beginning = false;
	begin_block(t, exact);
}

static void leave(struct usage_text *t, char before)
{
	enum json_key key = t->scan.depth > 1 ? json_parent(&t->scan, 2) : JSON_NO_KEY;
	t->array_root = t->scan.array_root;
	t->wrapper = !t->array_root && is_wrapper(key) ? (uint8_t)key : JSON_NO_KEY;
	t->beginning = false;
	t->before = before;
	t->matched = t->listed = 0;
	t->mode = LOST;
}

static const char *take_exact(struct usage_text *t, const char *at, const char *end)
{
	if ((size_t)(end - at) > t->block_left)
		end = at + t->block_left;
	json_scan_feed(&t->scan, &reader, t, at, (size_t)(end - at));
	t->block_left -= (uint32_t)(end - at);
	if (t->block_left)
		return end;
	if ((t->scan.tokens - t->block_tokens) <= t->block / TOKEN_BYTES)
		begin_block(t, USAGE_TEXT_EXACT);
	else if (t->scan.depth && t->scan.depth <= LEAVE_DEPTH && json_scan_may_leave(&t->scan))
		leave(t, end[-1]);
	else
		t->block_left = LEAVE_STEP;
	return end;
}

/* ---- LOST ---- */

/* "usage and what may come behind it. */
static bool opens_object(const char *at, const char *end)
{
	static const char rest[] = "Metadata";
	bool colon = false;
	at += NAME_LENGTH;
	for (size_t i = 0; at < end && *at != '"'; i++, at++)
		if (i == sizeof rest - 1 || *at != rest[i])
			return false;
	for (at++; at < end; at++) {
		if (*at == '\r' || *at == '\n' || (*at == '{' && colon))
			return true;
		if (*at != ' ' && *at != '\t' && (*at != ':' || colon))
			return false;
		colon = colon || *at == ':';
	}
	return true;
}

const char *usage_text_find(const char *at, const char *end, char before)
{
	const char *start = at;
	for (; (at = scan_usage(at, end)) < end; at += NAME_LENGTH)
		if ((at == start ? before : at[-1]) != '\\' && opens_object(at, end))
			return at;
	return end;
}

static void forget(struct usage_told *told)
{
	told->seen = 0;
	told->first_output = 0;
	told->beyond = false;
}

static void begin_near(struct usage_text *t)
{
	for (unsigned i = 0; i < sizeof t->near / sizeof t->near[0]; i++)
		forget(&t->near[i]);
	t->scan = (struct json_scan){.depth = ADRIFT, .floor = ADRIFT};
	t->matched = 0;
	t->mode = NEAR;
}

/* Goes on with a name that was cut. false: it was another one. */
static bool match_rest(struct usage_text *t, const char **at, const char *end)
{
	while (*at < end && t->matched < NAME_LENGTH && **at == name[t->matched]) {
		t->matched++;
		(*at)++;
	}
	if (t->matched < NAME_LENGTH)
		return *at == end;
	begin_near(t);
	json_scan_feed(&t->scan, &reader, t, name, NAME_LENGTH);
	return true;
}

/* The length of what the end cuts of a name. */
static uint8_t cut_name(const char *at, const char *end, char before)
{
	size_t length = end - at < NAME_LENGTH ? (size_t)(end - at) : NAME_LENGTH - 1;
	for (; length; length--)
		if (memcmp(end - length, name, length) == 0)
			return (end - at == (long)length ? before : end[-(long)length - 1]) == '\\' ? 0 : (uint8_t)length;
	return 0;
}

static const char *take_lost(struct usage_text *t, const char *at, const char *end)
{
	const char *start = at;
	const char *found = end;
	if (t->matched && match_rest(t, &at, end)) {
		t->before = at > start ? at[-1] : t->before;
		return at;
	}
	t->matched = 0;
	char before = at > start ? at[-1] : t->before;
	if (t->array_root && t->listed == LIST_MIN && end - at > BULK_MIN)
		found = usage_text_find(end - BULK_TAIL, end, end[-BULK_TAIL - 1]);
	if (found == end)
		found = usage_text_find(at, end, before);
	t->skipped += (uint64_t)(found - start);
	if (found < end) {
		begin_near(t);
		return found;
	}
	t->matched = cut_name(at, end, before);
	t->before = end[-1];
	return end;
}

/* ---- NEAR, BEHIND ---- */

static const char *take_near(struct usage_text *t, const char *at, const char *end)
{
	at = json_scan_feed(&t->scan, &reader, t, at, (size_t)(end - at));
	if (t->scan.depth >= t->scan.floor)
		return at;
	t->scan.floor = t->scan.depth;
	t->near[2] = t->near[1];
	t->near[1] = t->near[0];
	forget(&t->near[0]);
	t->mode = BEHIND;
	return at;
}

/* What has ended was the root, or an element of it. */
static void accept(struct usage_text *t)
{
	struct usage_told *wrapped = &t->near[2];
	if (t->wrapper == JSON_MESSAGE && (wrapped->seen & (1u << OUTPUT_TOKENS))) {
		wrapped->first_output = wrapped->fields[OUTPUT_TOKENS];
		wrapped->seen &= (uint16_t)~(1u << OUTPUT_TOKENS);
	}
	if (t->wrapper != JSON_NO_KEY)
		usage_told_merge(&t->told, wrapped);
	usage_told_merge(&t->told, &t->near[1]);
}

/* Behind the root is nothing, or another text. Behind an element of an array is another one, or the array's end;
 * behind an object in an element is a key, or the element's end. */
static const char *take_behind(struct usage_text *t, const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n' || (*at == ',' && t->array_root)))
		at++;
	if (at == end)
		return at;
	bool opens = *at == '{' || *at == '[';
	if (opens || (t->array_root && *at == ']'))
		accept(t);
	if (opens && !t->array_root)
		usage_text_begin(t, USAGE_TEXT_EXACT);
	else
		t->mode = t->wrapper != JSON_NO_KEY && t->near[1].seen ? NEAR : LOST;
	t->listed += t->listed < LIST_MIN;
	t->before = '\0';
	return at;
}

/* ---- all of them ---- */

void usage_text_feed(struct usage_text *t, const char *at, size_t length)
{
	static const char *(*const take[])(struct usage_text *t, const char *at, const char *end) = {
		[EXACT] = take_exact,
		[LOST] = take_lost,
		[NEAR] = take_near,
		[BEHIND] = take_behind,
	};
	const char *end = at + length;
	while (at < end)
		at = take[t->mode](t, at, end);
}

void usage_text_end(struct usage_text *t)
{
	if (t->mode == BEHIND)
		accept(t);
	t->mode = EXACT;
}
