/* route: looking at the request target's bytes. */
#include "path/route.h"

#include <string.h>
#include <strings.h>

#include "state/rules.h"

bool route_split(struct http_span target, struct http_span *path, struct http_span *query)
{
	const char *at = target.at;
	const char *end = target.at + target.length;
	if (*at != '/') {
		size_t scheme = 0;
		if (target.length > 7 && strncasecmp(at, "http://", 7) == 0)
			scheme = 7;
		else if (target.length > 8 && strncasecmp(at, "https://", 8) == 0)
			scheme = 8;
		if (!scheme)
			return false;
		const char *authority = at + scheme;
		at = authority;
		while (at < end && *at != '/' && *at != '?')
			at++;
		if (!http_is_host(authority, (size_t)(at - authority)))
			return false;
	}
	const char *mark = memchr(at, '?', (size_t)(end - at));
	const char *stop = mark ? mark : end;
	*path = (struct http_span){at, (size_t)(stop - at)};
	*query = (struct http_span){stop, (size_t)(end - stop)};
	if (!path->length)
		*path = (struct http_span){"/", 1};
	return true;
}

static size_t escape(const char *at, const char *end, char low)
{
	return end - at >= 3 && at[0] == '%' && at[1] == '2' && (at[2] | 0x20) == low ? 3 : 0;
}

/* Bytes that mean "." or "/" at `at`: their length, 0 if it is something else. */
static size_t dot(const char *at, const char *end)
{
	return at < end && *at == '.' ? 1 : escape(at, end, 'e');
}

static size_t slash(const char *at, const char *end)
{
	return at < end && *at == '/' ? 1 : escape(at, end, 'f');
}

bool route_has_dot_segment(struct http_span path)
{
	const char *at = path.at;
	const char *end = path.at + path.length;
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

bool route_is_reserved(struct http_span path)
{
	return rules_is_reserved(path.at, path.length);
}
