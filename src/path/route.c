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

bool route_has_dot_segment(struct http_span path)
{
	return rules_has_dot_segment(path.at, path.length);
}

bool route_is_reserved(struct http_span path)
{
	return rules_is_reserved(path.at, path.length);
}
