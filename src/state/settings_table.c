/* settings_table: the rows of settings.def with the kinds of values they hold: how each is read,
 * checked, shown. Pure functions over the table. */
#include "state/settings_table.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "state/redis_url.h"

static const char *const switch_words[] = {"off", "on", "false", "true", "no", "yes", "0", "1", NULL};
static const char *const redis_failure_words[] = {"local", "allow", "deny", NULL};
static const char *const log_level_words[] = {"debug", "info", "warning", "error", NULL};
static const char *const log_format_words[] = {"text", "json", NULL};

static bool parse_decimal(const char *text, long lowest, long highest, long *out)
{
	char *end;
	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	long value = strtol(text, &end, 10);
	if (errno || *end || value < lowest || value > highest)
		return false;
	*out = value;
	return true;
}

static bool host_name_is_valid(const char *host, size_t length)
{
	if (length == 0 || length > 253 || host[0] == '.' || host[0] == '-' || host[length - 1] == '-')
		return false;
	for (size_t i = 0; i < length; i++)
		if ((!isalnum((unsigned char)host[i]) && !strchr("-._", host[i])) ||
			(host[i] == '.' && i && host[i - 1] == '.'))
			return false;
	return true;
}

static bool ipv4_is_valid_or_name(const char *host)
{
	struct in_addr address;
	size_t length = strlen(host);
	bool only_digits = strspn(host, "0123456789.") == length;
	return only_digits ? inet_pton(AF_INET, host, &address) == 1 : host_name_is_valid(host, length);
}

bool settings_parse_listen(const char *text, struct listen_address *out)
{
	const char *colon = strrchr(text, ':'), *port_text = colon ? colon + 1 : text;
	size_t host_length = colon ? (size_t)(colon - text) : 0;
	long port;
	if (!parse_decimal(port_text, 1, 65535, &port) || strlen(port_text) > 5)
		return false;
	struct listen_address address = {.port = (uint16_t)port};
	if (host_length >= 2 && text[0] == '[' && colon[-1] == ']') {
		struct in6_addr ignored;
		if (host_length - 2 >= sizeof address.host)
			return false;
		memcpy(address.host, text + 1, host_length - 2);
		if (inet_pton(AF_INET6, address.host, &ignored) != 1)
			return false;
	} else {
		if (host_length >= sizeof address.host)
			return false;
		memcpy(address.host, host_length ? text : "0.0.0.0", host_length ? host_length : 8);
		if (strcmp(address.host, "*") == 0)
			strcpy(address.host, "0.0.0.0");
		if (!ipv4_is_valid_or_name(address.host))
			return false;
	}
	*out = address;
	return true;
}

static bool check_listen(const char *value, char **normal)
{
	struct listen_address address;
	if (!settings_parse_listen(value, &address))
		return false;
	*normal = check_printf(strchr(address.host, ':') ? "[%s]:%u" : "%s:%u", address.host, address.port);
	return true;
}

static bool check_path(const char *value, char **normal)
{
	(void)normal;
	return strlen(value) < 4096;
}

/* Calls check for each item of a comma list; an empty list is for the kind to allow. */
static bool check_list(const char *value, bool (*check)(const char *item, size_t length))
{
	for (const char *item = value; item;) {
		const char *comma = strchr(item, ',');
		size_t length = comma ? (size_t)(comma - item) : strlen(item);
		while (length && isspace((unsigned char)*item)) {
			item++;
			length--;
		}
		while (length && isspace((unsigned char)item[length - 1]))
			length--;
		if (!check(item, length))
			return false;
		item = comma ? comma + 1 : NULL;
	}
	return true;
}

/* RFC 6454: scheme://host[:port], or null. */
static bool origin_is_valid(const char *item, size_t length)
{
	if (length == 4 && strncmp(item, "null", 4) == 0)
		return true;
	const char *separator = memmem(item, length, "://", 3);
	if (!separator || separator == item || separator + 3 == item + length || !isalpha((unsigned char)*item))
		return false;
	for (const char *p = item; p < separator; p++)
		if (!isalnum((unsigned char)*p) && !strchr("+-.", *p))
			return false;
	for (const char *p = separator + 3; p < item + length; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-._:[]", *p))
			return false;
	return true;
}

static bool check_origins(const char *value, char **normal)
{
	(void)normal;
	return strcmp(value, "*") == 0 || check_list(value, origin_is_valid);
}

static bool check_domains(const char *value, char **normal)
{
	(void)normal;
	return check_list(value, host_name_is_valid);
}

static bool check_redis_url(const char *value, char **normal)
{
	struct redis_address address;
	(void)normal;
	if (redis_address_parse(value, &address))
		return false;
	redis_address_fini(&address);
	return true;
}

static bool check_token(const char *value, char **normal)
{
	(void)normal;
	for (const unsigned char *p = (const unsigned char *)value; *p; p++)
		if (*p <= ' ' || *p >= 0x7f)
			return false;
	return strlen(value) <= 4096;
}

static bool check_jwt_secret(const char *value, char **normal)
{
	(void)normal;
	return strlen(value) >= 32;
}

static bool check_master_key(const char *value, char **normal)
{
	(void)normal;
	return strlen(value) == 64 && strspn(value, "0123456789abcdefABCDEF") == 64;
}

static bool check_email(const char *value, char **normal)
{
	const char *at = strchr(value, '@');
	return at && at != value && *value != '-' && at[1] && check_token(value, normal) && !strpbrk(value, ",;<>\"");
}

static bool check_https_url(const char *value, char **normal)
{
	return strncasecmp(value, "https://", 8) == 0 && isalnum((unsigned char)value[8]) && check_token(value, normal);
}

#define LISTEN_ACCEPTS "host:port, [::]:port, :port or a port alone, from 1 to 65535"

/* clang-format off */
static const struct setting_kind
	KIND_NUMBER = {.is_number = true},
	KIND_SWITCH = {.choices = switch_words, .is_switch = true},
	KIND_ON_REDIS_FAILURE = {.choices = redis_failure_words},
	KIND_LOG_LEVEL = {.choices = log_level_words, .also = "warn", .also_means = LOG_WARNING},
	KIND_LOG_FORMAT = {.choices = log_format_words},
	KIND_LISTEN = {.check = check_listen, .accepts = LISTEN_ACCEPTS},
	KIND_LISTEN_OR_OFF = {.check = check_listen, .may_be_empty = true, .accepts = LISTEN_ACCEPTS ", or nothing"},
	KIND_PATH = {.check = check_path, .accepts = "a path"},
	KIND_PATH_OR_NONE = {.check = check_path, .may_be_empty = true, .accepts = "a path, or nothing"},
	KIND_ORIGINS = {.check = check_origins, .may_be_empty = true,
		.accepts = "* or a comma list of origins such as https://app.example, or nothing"},
	KIND_DOMAINS = {.check = check_domains, .may_be_empty = true,
		.accepts = "a comma list of host names, or nothing"},
	KIND_EMAIL = {.check = check_email, .may_be_empty = true, .accepts = "a mail address, or nothing"},
	KIND_HTTPS_URL = {.check = check_https_url, .accepts = "an https:// URL"},
	KIND_REDIS_URL = {.check = check_redis_url, .may_be_empty = true, .has_password = true,
		.accepts = "redis://[user:password@]host[:port][/db], rediss:// likewise, "
			"unix://[user:password@]/path[?db=N], or nothing"},
	KIND_TOKEN = {.check = check_token, .may_be_empty = true, .is_secret = true,
		.accepts = "printable ASCII without spaces, or nothing"},
	KIND_JWT_SECRET = {.check = check_jwt_secret, .may_be_empty = true, .is_secret = true,
		.accepts = "at least 32 characters, or nothing"},
	KIND_MASTER_KEY = {.check = check_master_key, .may_be_empty = true, .is_secret = true,
		.accepts = "64 hex digits, or nothing"};

#define RANGE(low, high) .lowest = (low), .highest = (high)
#define ANY .lowest = 0
#define SETTING(type, section_name, key_name, environment_name, default_text, accepted, help_text) \
	{.section = #section_name, .key = #key_name, .environment = environment_name, .fallback = default_text, \
	 .help = help_text, .kind = &KIND_##type, .offset = offsetof(struct settings, section_name##_##key_name), accepted},
const struct setting settings_table[] = {
#include "state/settings.def"
};
/* clang-format on */
#undef SETTING
const size_t settings_count = sizeof settings_table / sizeof *settings_table;

static bool parse_choice(const struct setting *setting, const char *value, void *field)
{
	if (setting->kind->also && strcasecmp(setting->kind->also, value) == 0) {
		*(int *)field = setting->kind->also_means;
		return true;
	}
	for (int i = 0; setting->kind->choices[i]; i++) {
		if (strcasecmp(setting->kind->choices[i], value) != 0)
			continue;
		if (setting->kind->is_switch)
			*(bool *)field = i % 2;
		else
			*(int *)field = i; /* the enums of settings.h are ints */
		return true;
	}
	return false;
}

static bool parse_text(const struct setting *setting, const char *value, char **field)
{
	char *normal = NULL;
	for (const unsigned char *p = (const unsigned char *)value; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			return false;
	if (!*value ? !setting->kind->may_be_empty : !setting->kind->check(value, &normal))
		return false;
	free(*field);
	*field = normal ? normal : check_strdup(value);
	return true;
}

bool setting_parse(const struct setting *setting, const char *value, struct settings *s)
{
	void *field = (char *)s + setting->offset;
	if (setting->kind->is_number)
		return parse_decimal(value, setting->lowest, setting->highest, field);
	if (setting->kind->choices)
		return parse_choice(setting, value, field);
	return parse_text(setting, value, field);
}

char *setting_accepts(const struct setting *setting)
{
	if (setting->kind->is_number)
		return check_printf("a whole number from %ld to %ld", setting->lowest, setting->highest);
	if (!setting->kind->choices)
		return check_strdup(setting->kind->accepts);
	char *text = check_strdup("");
	for (int i = 0; setting->kind->choices[i]; i++) {
		const char *glue = i == 0 ? "" : setting->kind->choices[i + 1] ? ", " : " or ";
		char *longer = check_printf("%s%s%s", text, glue, setting->kind->choices[i]);
		free(text);
		text = longer;
	}
	return text;
}

char *setting_shown(const struct setting *setting, const char *value)
{
	if (setting->kind->is_secret && *value)
		return check_strdup("(hidden)");
	if (setting->kind->has_password)
		return redis_url_without_password(value);
	return check_strdup(value);
}

char *setting_text(const struct setting *setting, const struct settings *s)
{
	const void *field = (const char *)s + setting->offset;
	if (setting->kind->is_number)
		return check_printf("%ld", *(const long *)field);
	if (setting->kind->is_switch)
		return check_strdup(*(const bool *)field ? "on" : "off");
	if (setting->kind->choices)
		return check_strdup(setting->kind->choices[*(const int *)field]);
	return check_strdup(*(char *const *)field);
}
