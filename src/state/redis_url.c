/* redis_url: taking a Redis URL apart. Pure functions, any thread. */
#include "state/redis_url.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "base/text.h"

static bool parse_number(const char *text, size_t length, unsigned long highest, unsigned long *out)
{
	unsigned long value = 0;
	if (length == 0 || length > 9)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (unsigned long)(text[i] - '0');
	}
	*out = value;
	return value <= highest;
}

static const char *parse_credentials(const char *text, size_t length, struct redis_address *a)
{
	const char *colon = memchr(text, ':', length);
	size_t user_length = colon ? (size_t)(colon - text) : length;
	if (user_length && !(a->user = text_percent_decoded(text, user_length)))
		return "the user has a bad percent escape";
	if (!colon)
		return a->user ? "a user needs a password (user:password@)" : NULL;
	if (!(a->password = text_percent_decoded(colon + 1, length - user_length - 1)))
		return "the password has a bad percent escape";
	return a->user && !*a->password ? "a user needs a password (user:password@)" : NULL;
}

static bool host_is_valid(const char *host)
{
	if (!*host || strlen(host) > 255)
		return false;
	for (const char *p = host; *p; p++)
		if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || strchr("/?#@[]%\\\"", *p))
			return false;
	return true;
}

static const char *parse_host_port(const char *text, size_t length, struct redis_address *a)
{
	const char *end = text + length, *port = NULL, *host = text, *host_end = end;
	if (length && *text == '[') {
		host_end = memchr(text, ']', length);
		if (!host_end || (host_end + 1 < end && host_end[1] != ':'))
			return "an IPv6 address needs [brackets]";
		host = text + 1;
		if (!memchr(host, ':', (size_t)(host_end - host)))
			return "what is in [brackets] is no IPv6 address";
		port = host_end + 1 < end ? host_end + 2 : NULL;
	} else {
		const char *colon = memchr(text, ':', length);
		if (colon) {
			host_end = colon;
			port = colon + 1;
		}
	}
	free(a->host);
	a->host = host_end > host ? strndup(host, (size_t)(host_end - host)) : check_strdup("127.0.0.1");
	CHECK(a->host);
	if (!host_is_valid(a->host))
		return "the host is malformed";
	unsigned long number = 6379;
	if (port && (!parse_number(port, (size_t)(end - port), 65535, &number) || number == 0))
		return "the port is a number from 1 to 65535";
	a->port = (uint16_t)number;
	return NULL;
}

static const char *parse_db(const char *text, size_t length, struct redis_address *a)
{
	unsigned long db;
	if (!parse_number(text, length, 999999, &db))
		return "the database is a number";
	a->db = (unsigned)db;
	return NULL;
}

static const char *parse_query(const char *query, struct redis_address *a)
{
	return strncmp(query, "db=", 3) == 0 ? parse_db(query + 3, strlen(query + 3), a) :
										   "the only parameter is db=NUMBER";
}

static const char *parse_unix(const char *rest, size_t length, struct redis_address *a)
{
	const char *slash = memchr(rest, '/', length), *error = NULL;
	if (!slash)
		return "unix:// needs an absolute path";
	if (slash > rest) {
		if (slash[-1] != '@')
			return "unix:// needs an absolute path";
		error = parse_credentials(rest, (size_t)(slash - rest) - 1, a);
	}
	if (!error && !(a->unix_path = text_percent_decoded(slash, length - (size_t)(slash - rest))))
		error = "the path has a bad percent escape";
	if (!error && (strlen(a->unix_path) < 2 || strlen(a->unix_path) > 107))
		error = "the path of a socket has 2 to 107 characters";
	return error;
}

static const char *parse_tcp(const char *rest, size_t length, struct redis_address *a)
{
	const char *slash = memchr(rest, '/', length), *error = NULL;
	size_t authority = slash ? (size_t)(slash - rest) : length;
	const char *at = memrchr(rest, '@', authority);
	if (at) {
		error = parse_credentials(rest, (size_t)(at - rest), a);
		authority -= (size_t)(at + 1 - rest);
	}
	if (!error)
		error = parse_host_port(at ? at + 1 : rest, authority, a);
	if (!error && slash && slash + 1 < rest + length)
		error = parse_db(slash + 1, (size_t)(rest + length - slash) - 1, a);
	return error;
}

static const char *parse(const char *url, struct redis_address *a)
{
	/* clang-format off */
	static const struct { const char *scheme; bool tls, is_unix; } schemes[] = {
		{"redis://", false, false}, {"rediss://", true, false}, {"unix://", false, true}};
	/* clang-format on */
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
		if (strncasecmp(url, schemes[i].scheme, strlen(schemes[i].scheme)) != 0)
			continue;
		const char *rest = url + strlen(schemes[i].scheme), *query = strchr(rest, '?');
		size_t length = query ? (size_t)(query - rest) : strlen(rest);
		a->tls = schemes[i].tls;
		const char *error = schemes[i].is_unix ? parse_unix(rest, length, a) : parse_tcp(rest, length, a);
		return error ? error : query ? parse_query(query + 1, a) : NULL;
	}
	return "redis://, rediss:// or unix:// is missing";
}

const char *redis_address_parse(const char *url, struct redis_address *a)
{
	*a = (struct redis_address){.host = check_strdup("")};
	const char *error = parse(url, a);
	if (error)
		redis_address_fini(a);
	return error;
}

static void wipe_and_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void redis_address_fini(struct redis_address *a)
{
	free(a->unix_path);
	free(a->host);
	free(a->user);
	wipe_and_free(a->password);
	*a = (struct redis_address){0};
}

/* Also for what is no URL at all: all up to the last '@' is taken for a credential, and any
 * parameter but db for a secret. */
char *redis_url_without_password(const char *url)
{
	const char *start = strstr(url, "://");
	start = start ? start + 3 : url;
	const char *at = strrchr(start, '@');
	const char *colon = at ? memchr(start, ':', (size_t)(at - start)) : NULL;
	const char *rest = at ? at : start;
	const char *query = strchr(rest, '?');
	bool hide_query = query && strncmp(query, "?db=", 4) != 0;
	int shown = !at ? 0 : colon ? (int)(colon + 1 - start) : 0;
	return check_printf("%.*s%.*s%s%.*s%s", (int)(start - url), url, shown, start, at ? "***" : "",
		hide_query ? (int)(query - rest) : (int)strlen(rest), rest, hide_query ? "?***" : "");
}
