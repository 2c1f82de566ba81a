/* rules: checks of texts. Pure functions. */
#include "state/rules.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/text.h"
#include "state/secrets.h"
#include "state/snapshot.h"

/* clang-format off */
enum { TARGET_CHARS_MAX = 2048, ID_CHARS_MAX = 64, USERNAME_BYTES_MAX = 128,
	SECRET_CHARS_MAX = 4096, PASSWORD_BYTES_MAX = 511, HOST_CHARS_MAX = 253, LABEL_CHARS_MAX = 63 };
/* clang-format on */

static const char dotted[] = "must have no . or .. segment";

static bool is_one_of(char c, const char *others)
{
	return isalnum((unsigned char)c) || (c && strchr(others, c));
}

/* clang-format off */
static const char *const reserved[] = {
	"/index.html", "/static", "/stats", "/admin", "/api", "/auth", "/health", "/metrics",
	"/performance", "/errors", "/.well-known",
};
/* clang-format on */

bool rules_is_reserved(const char *path, size_t length)
{
	if (length == 1)
		return true;
	for (size_t i = 0; i < sizeof(reserved) / sizeof(*reserved); i++) {
		size_t taken = strlen(reserved[i]);
		if (length >= taken && memcmp(path, reserved[i], taken) == 0 && (length == taken || path[taken] == '/'))
			return true;
	}
	return false;
}

/* Bytes that mean "." or "/" at `at`: their length, 0 if it is something else. An upstream may decode them. */
static size_t dot_or_slash(const char *at, const char *end, char plain, char low_digit)
{
	if (at < end && *at == plain)
		return 1;
	return end - at >= 3 && at[0] == '%' && at[1] == '2' && (at[2] | 0x20) == low_digit ? 3 : 0;
}

static size_t dot(const char *at, const char *end)
{
	return dot_or_slash(at, end, '.', 'e');
}

static size_t slash(const char *at, const char *end)
{
	return dot_or_slash(at, end, '/', 'f');
}

bool rules_has_dot_segment(const char *path, size_t length)
{
	const char *at = path, *end = path + length;
	while (at < end) {
		size_t step = slash(at, end);
		if (!step) {
			at++;
			continue;
		}
		at += step;
		const char *segment = at;
		unsigned dots = 0;
		while ((step = dot(segment, end)) && dots < 3) {
			segment += step;
			dots++;
		}
		if ((dots == 1 || dots == 2) && (segment == end || slash(segment, end)))
			return true;
	}
	return false;
}

const char *rules_check_prefix(const char *text)
{
	size_t length = strlen(text);
	if (length == 0 || length > RULES_PREFIX_CHARS_MAX)
		return "must have 1 to 128 characters";
	if (text[0] != '/')
		return "must start with /";
	if (length == 1)
		return "/ is reserved for apiproxy itself";
	for (const char *at = text; *at == '/';) {
		const char *segment = at + 1, *end = segment;
		while (is_one_of(*end, "._~-"))
			end++;
		if (*end && *end != '/')
			return "a segment may hold only letters, digits and . _ ~ -";
		if (end == segment)
			return *end ? "must have no empty segment" : "must not end with /";
		at = end;
	}
	if (rules_has_dot_segment(text, length))
		return dotted;
	return rules_is_reserved(text, length) ? "is reserved for apiproxy itself" : NULL;
}

static const char *check_characters(const char *text, size_t max, const char *others, const char *fault)
{
	size_t length = strlen(text);
	if (length == 0 || length > max)
		return fault;
	for (const char *c = text; *c; c++)
		if (!is_one_of(*c, others))
			return fault;
	return NULL;
}

const char *rules_check_id(const char *text)
{
	const char *fault =
		check_characters(text, ID_CHARS_MAX, "._-", "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -");
	if (!fault && (strcmp(text, ".") == 0 || strcmp(text, "..") == 0))
		return "must not be . or .., which no URL path can name";
	return fault;
}

const char *rules_check_text(const char *text)
{
	for (const char *c = text; *c;) {
		size_t length = text_utf8_length(c, SIZE_MAX);
		if (!length)
			return "must be valid UTF-8";
		if (((unsigned char)*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7f)
			return "must have no control characters";
		c += length;
	}
	return NULL;
}

const char *rules_check_username(const char *text)
{
	static const char fault[] = "must be 1 to 128 bytes without spaces, control characters and / ? # % \\ \" { } < >";
	size_t length = strlen(text);
	if (length == 0 || length > USERNAME_BYTES_MAX || strpbrk(text, " \t\n/?#%\\\"{}<>"))
		return fault;
	if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return "must not be . or .., which no URL path can name";
	return rules_check_text(text);
}

const char *rules_check_header(const char *text)
{
	static const char *const taken[] = {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te",
		"trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect"};
	const char *fault = check_characters(text, ID_CHARS_MAX, "!#$%&'*+-.^_`|~",
		"must be the name of a header field, up to 64 characters");
	for (size_t i = 0; !fault && i < sizeof(taken) / sizeof(*taken); i++)
		if (strcasecmp(text, taken[i]) == 0)
			return "is a field that HTTP needs for itself";
	return fault;
}

const char *rules_check_secret(const char *text)
{
	size_t length = strlen(text);
	if (length == 0 || length > SECRET_CHARS_MAX)
		return "must have 1 to 4096 characters";
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c > '~')
			return "must be visible ASCII without spaces";
	return NULL;
}

const char *rules_check_password(const char *text)
{
	size_t length = strlen(text);
	return length == 0 || length > PASSWORD_BYTES_MAX ? "must have 1 to 511 bytes" : NULL;
}

const char *rules_check_sha256(const char *text)
{
	uint8_t digest[32];
	return secrets_from_hex(text, digest) ? NULL : "must be 64 hex digits";
}

/* ---- target ---- */

static bool is_host_name(const char *host, size_t length)
{
	size_t label = 0;
	if (length == 0 || length > HOST_CHARS_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (host[i] == '.') {
			if (label == 0 || host[i - 1] == '-')
				return false;
			label = 0;
		} else if (!is_one_of(host[i], "-_") || (host[i] == '-' && label == 0) || ++label > LABEL_CHARS_MAX) {
			return false;
		}
	}
	return host[length - 1] != '-'; /* one dot at the end is a name's root */
}

static bool looks_like_ipv4(const char *host)
{
	const char *last = strrchr(host, '.');
	last = last ? last + 1 : host;
	return *last && strspn(last, "0123456789") == strlen(last);
}

static const char *check_host(const char *host, bool bracketed)
{
	struct in6_addr address;
	if (bracketed)
		return inet_pton(AF_INET6, host, &address) == 1 ? NULL : "has a bad IPv6 address";
	if (!is_host_name(host, strlen(host)))
		return *host ? "has a bad host name" : "has no host";
	if (looks_like_ipv4(host) && inet_pton(AF_INET, host, &address) != 1)
		return "has a bad IPv4 address";
	return NULL;
}

static const char *parse_port(const char *text, size_t length, uint16_t *port)
{
	unsigned value = 0;
	if (length == 0 || length > 5)
		return "has a bad port";
	for (size_t i = 0; i < length; i++) {
		if (!isdigit((unsigned char)text[i]))
			return "has a bad port";
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	if (value == 0 || value > UINT16_MAX)
		return "has a bad port";
	*port = (uint16_t)value;
	return NULL;
}

static const char *parse_authority(const char *text, size_t length, struct arena *arena, struct target *target)
{
	const char *host = text, *end = text + length, *host_end;
	bool bracketed = length && *text == '[';
	if (memchr(text, '@', length))
		return "must have no user name or password";
	if (bracketed) {
		host++;
		host_end = memchr(host, ']', length - 1);
		if (!host_end)
			return "has a bad IPv6 address";
	} else {
		host_end = memchr(host, ':', length);
		if (!host_end)
			host_end = end;
	}
	target->host = arena_strndup(arena, host, (size_t)(host_end - host));
	const char *fault = check_host(target->host, bracketed);
	if (fault)
		return fault;
	const char *rest = host_end + bracketed;
	if (rest == end)
		return NULL;
	return *rest == ':' ? parse_port(rest + 1, (size_t)(end - rest - 1), &target->port) : "has a bad port";
}

static const char *check_base_path(const char *path)
{
	for (const char *c = path; *c; c++) {
		if (!is_one_of(*c, "/-._~!$&'()*+,;=:@%"))
			return "has a character in its path that a URL must not have";
		if (*c == '%' && !(isxdigit((unsigned char)c[1]) && isxdigit((unsigned char)c[2])))
			return "has a bad percent escape";
	}
	return rules_has_dot_segment(path, strlen(path)) ? dotted : NULL;
}

const char *rules_parse_target(const char *text, struct arena *arena, struct target *target)
{
	memset(target, 0, sizeof(*target));
	if (strlen(text) > TARGET_CHARS_MAX)
		return "must have at most 2048 characters";
	target->tls = strncasecmp(text, "https://", 8) == 0;
	if (!target->tls && strncasecmp(text, "http://", 7) != 0)
		return "must start with http:// or https://";
	if (strchr(text, '?'))
		return "must have no query";
	if (strchr(text, '#'))
		return "must have no fragment";
	const char *authority = text + (target->tls ? 8 : 7);
	size_t length = strcspn(authority, "/");
	target->port = target->tls ? 443 : 80;
	const char *fault = parse_authority(authority, length, arena, target);
	if (!fault)
		fault = check_base_path(authority + length);
	if (fault)
		return fault;
	target->url = arena_strdup(arena, text);
	target->authority = arena_strndup(arena, authority, length);
	/* What follows a prefix starts with its own slash; any other path is appended to as it is. */
	target->base_path = strcmp(authority + length, "/") == 0 ? "" : arena_strdup(arena, authority + length);
	return NULL;
}

const char *rules_check_target(const char *text)
{
	struct target target;
	struct arena *arena = arena_new();
	const char *fault = rules_parse_target(text, arena, &target);
	arena_free(arena);
	return fault;
}

/* ---- time ---- */

static bool digits(const char **at, int count, int *value)
{
	*value = 0;
	for (; count; count--, (*at)++) {
		if (!isdigit((unsigned char)**at))
			return false;
		*value = *value * 10 + (**at - '0');
	}
	return true;
}

static bool skip(const char **at, const char *one_of)
{
	if (!**at || !strchr(one_of, **at))
		return false;
	(*at)++;
	return true;
}

static bool parse_fraction(const char **at, int *milliseconds)
{
	int scale = 100;
	*milliseconds = 0;
	if (**at != '.')
		return true;
	(*at)++;
	if (!isdigit((unsigned char)**at))
		return false;
	for (; isdigit((unsigned char)**at); (*at)++, scale /= 10)
		*milliseconds += (**at - '0') * scale;
	return true;
}

static bool parse_offset(const char **at, int *minutes)
{
	int hour, minute;
	bool negative = **at == '-';
	*minutes = 0;
	if (skip(at, "Zz"))
		return true;
	if (!skip(at, "+-") || !digits(at, 2, &hour) || !skip(at, ":") || !digits(at, 2, &minute) || hour > 23 ||
		minute > 59)
		return false;
	*minutes = (hour * 60 + minute) * (negative ? -1 : 1);
	return true;
}

static int days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return days[month - 1] + (month == 2 && leap);
}

bool rules_parse_time(const char *text, int64_t *unix_ms)
{
	int year, month, day, hour, minute, second, milliseconds, offset;
	const char *at = text;
	if (!digits(&at, 4, &year) || !skip(&at, "-") || !digits(&at, 2, &month) || !skip(&at, "-") ||
		!digits(&at, 2, &day) || !skip(&at, "Tt") || !digits(&at, 2, &hour) || !skip(&at, ":") ||
		!digits(&at, 2, &minute) || !skip(&at, ":") || !digits(&at, 2, &second) ||
		!parse_fraction(&at, &milliseconds) || !parse_offset(&at, &offset) || *at)
		return false;
	if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 ||
		second > 60)
		return false;
	struct tm tm = {
		.tm_year = year - 1900,
		.tm_mon = month - 1,
		.tm_mday = day,
		.tm_hour = hour,
		.tm_min = minute,
		.tm_sec = second,
	};
	*unix_ms = ((int64_t)timegm(&tm) - offset * 60) * 1000 + milliseconds;
	return true;
}
