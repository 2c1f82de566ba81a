/* settings: where values come from, and whether they fit together.
 *
 * A reading applies default, ini file, .env and environment in this order, each over the one
 * before. Every value is checked where it is found, also one that a later source overrides. The
 * first fault ends the reading; its text names the place. Boot and SIGHUP: one thread at a time. */
#include "state/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "state/journal.h"
#include "state/settings_files.h"
#include "state/settings_table.h"

#define DOTENV_FILE ".env"
#define INI_FILE "apiproxy.ini"

/* clang-format off */
enum { SETTINGS_COUNT = 0
#define SETTING(...) +1
#include "state/settings.def"
#undef SETTING
};
/* clang-format on */

struct reading {
	struct settings *s;
	const char *ini_file;
	char *port, *port_place; /* PORT, malloc */
	char *bad_section;       /* malloc; an unknown one that begins at bad_section_line */
	int bad_section_line;
	char *error; /* malloc; the first fault */
};

static void set_string(char **field, char *take_text)
{
	free(*field);
	*field = take_text;
}

/* One line, whatever the value holds. */
static char *printable(char *take_text)
{
	enum { SHOWN_BYTES = 400 };
	for (char *p = take_text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	if (strlen(take_text) > SHOWN_BYTES)
		strcpy(take_text + SHOWN_BYTES, "...");
	return take_text;
}

/* "PLACE = value: why; accepted: …". Place and value are told apart as the source writes them. */
static void fail_value(struct reading *r, const struct setting *setting, const char *place, const char *equals,
	const char *value)
{
	char *accepts = setting_accepts(setting);
	char *shown = printable(setting_shown(setting, value));
	set_string(&r->error, check_printf("%s%s%s: bad value; accepted: %s", place, equals, shown, accepts));
	free(shown);
	free(accepts);
}

static bool apply(struct reading *r, const struct setting *setting, const char *place, const char *equals,
	const char *value)
{
	if (setting->kind->is_secret && strcmp(value, "***") == 0)
		return true; /* what --print-config wrote */
	if (!setting_parse(setting, value, r->s)) {
		fail_value(r, setting, place, equals, value);
		return false;
	}
	set_string(&r->s->places[setting - settings_table], check_strdup(place));
	return true;
}

/* An empty variable of a setting that cannot be empty counts as not set: compose files write them. */
static bool is_absent(const struct setting *setting, const char *value)
{
	return !value || (!*value && !setting->kind->may_be_empty);
}

static const struct setting *find_key(const char *section, const char *key)
{
	for (size_t i = 0; i < settings_count; i++)
		if (strcmp(settings_table[i].section, section) == 0 && strcmp(settings_table[i].key, key) == 0)
			return &settings_table[i];
	return NULL;
}

static const struct setting *find_environment(const char *name)
{
	for (size_t i = 0; i < settings_count; i++)
		if (strcmp(settings_table[i].environment, name) == 0)
			return &settings_table[i];
	return NULL;
}

/* The keys of a section, or, with section NULL, the sections. *secret: whether one is a secret. */
static char *list_names(const char *section, bool *secret)
{
	char *list = check_strdup("");
	const char *last = "";
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		const char *name = section ? setting->key : setting->section;
		if ((section && strcmp(section, setting->section) != 0) || strcmp(name, last) == 0)
			continue;
		if (secret && (setting->kind->is_secret || setting->kind->has_password))
			*secret = true;
		set_string(&list, check_printf("%s%s%s", list, *list ? ", " : "", name));
		last = name;
	}
	return list;
}

/* A misspelt secret is one too. */
static bool sounds_secret(const char *key)
{
	static const char *const parts[] = {"token", "secret", "key", "pass", "url"};
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (strcasestr(key, parts[i]))
			return true;
	return false;
}

/* At its first key, or at its own line where none follows (entry NULL). */
static void fail_section(struct reading *r, const struct settings_entry *entry)
{
	char *sections = list_names(NULL, NULL);
	char *value = check_strdup(!entry ? "" : sounds_secret(entry->name) ? "(hidden)" : entry->value);
	char *place = entry ?
		check_printf("%s:%d: %s.%s = %s", r->ini_file, entry->line, entry->section, entry->name, printable(value)) :
		check_printf("%s:%d: [%s]", r->ini_file, r->bad_section_line, r->bad_section);
	set_string(&r->error, check_printf("%s: unknown section; accepted: %s", place, sections));
	free(place);
	free(value);
	free(sections);
}

static void fail_key(struct reading *r, const struct settings_entry *entry)
{
	bool secret = sounds_secret(entry->name);
	char *keys = list_names(entry->section, &secret);
	char *value = check_strdup(secret ? "(hidden)" : entry->value);
	set_string(&r->error,
		check_printf("%s:%d: %s.%s = %s: unknown key; accepted in [%s]: %s", r->ini_file, entry->line, entry->section,
			entry->name, printable(value), entry->section, keys));
	free(value);
	free(keys);
}

static void fail_lone_key(struct reading *r, const struct settings_entry *entry)
{
	char *value = check_strdup(sounds_secret(entry->name) ? "(hidden)" : entry->value);
	set_string(&r->error,
		check_printf("%s:%d: %s = %s: a key before the first section; accepted: [section] first", r->ini_file,
			entry->line, entry->name, printable(value)));
	free(value);
}

static void fail_syntax(struct reading *r, const char *file, const struct settings_entry *entry, const char *accepted)
{
	set_string(&r->error,
		check_printf("%s:%d: %s: malformed line; accepted: %s", file, entry->line, entry->name, accepted));
}

static bool section_exists(const char *section)
{
	for (size_t i = 0; i < settings_count; i++)
		if (strcmp(settings_table[i].section, section) == 0)
			return true;
	return false;
}

static void on_section(struct reading *r, const struct settings_entry *entry)
{
	if (r->bad_section) {
		fail_section(r, NULL);
	} else if (!section_exists(entry->section)) {
		r->bad_section = check_strdup(entry->section);
		r->bad_section_line = entry->line;
	}
}

static bool on_ini_entry(void *context, const struct settings_entry *entry)
{
	struct reading *r = context;
	if (!entry->name) {
		on_section(r, entry);
		return !r->error;
	}
	const struct setting *setting = find_key(entry->section, entry->name);
	if (!entry->value)
		fail_syntax(r, r->ini_file, entry, "[section], or key = value, or key = \"value\"");
	else if (r->bad_section)
		fail_section(r, entry);
	else if (!*entry->section)
		fail_lone_key(r, entry);
	else if (!setting)
		fail_key(r, entry);
	if (r->error)
		return false;
	char *place = check_printf("%s:%d: %s.%s", r->ini_file, entry->line, setting->section, setting->key);
	bool ok = apply(r, setting, place, " = ", entry->value);
	free(place);
	return ok;
}

static void take_port(struct reading *r, const char *value, char *take_place)
{
	set_string(&r->port, check_strdup(value));
	set_string(&r->port_place, take_place);
}

/* Other programs' names and lines are none of ours. */
static bool on_dotenv_entry(void *context, const struct settings_entry *entry)
{
	struct reading *r = context;
	if (!entry->name)
		return true;
	bool is_port = strcmp(entry->name, "PORT") == 0;
	const struct setting *setting = find_environment(entry->name);
	if (!setting && !is_port)
		return true;
	if (!entry->value) {
		fail_syntax(r, DOTENV_FILE, entry, "NAME=value, or NAME=\"value\"");
		return false;
	}
	char *place = check_printf(DOTENV_FILE ":%d: %s", entry->line, entry->name);
	if (is_port) {
		if (*entry->value)
			take_port(r, entry->value, place);
		else
			free(place);
		return true;
	}
	bool ok = is_absent(setting, entry->value) || apply(r, setting, place, "=", entry->value);
	free(place);
	return ok;
}

static bool apply_defaults(struct reading *r)
{
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		if (setting_is_text(setting))
			*setting_text_field(setting, r->s) = check_strdup("");
		char *place = check_printf("default %s.%s", setting->section, setting->key);
		bool ok = apply(r, setting, place, " = ", setting->fallback);
		free(place);
		if (!ok)
			return false;
	}
	return true;
}

static bool apply_ini(struct reading *r, const char *config_file)
{
	r->ini_file = config_file ? config_file : INI_FILE;
	if (!settings_file_read(r->ini_file, SETTINGS_FILE_INI, on_ini_entry, r)) {
		if (!config_file && errno == ENOENT)
			return true;
		set_string(&r->error, check_printf("%s: cannot be read: %s", r->ini_file, strerror(errno)));
	}
	if (r->bad_section && !r->error)
		fail_section(r, NULL);
	if (!r->error)
		set_string(&r->s->config_file, check_strdup(r->ini_file));
	return !r->error;
}

static bool apply_dotenv(struct reading *r)
{
	if (!settings_file_read(DOTENV_FILE, SETTINGS_FILE_DOTENV, on_dotenv_entry, r) && errno != ENOENT)
		set_string(&r->error, check_printf(DOTENV_FILE ": cannot be read: %s", strerror(errno)));
	return !r->error;
}

static bool apply_environment(struct reading *r)
{
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		const char *value = getenv(setting->environment);
		if (is_absent(setting, value))
			continue;
		char *place = check_printf("environment %s", setting->environment);
		bool ok = apply(r, setting, place, "=", value);
		free(place);
		if (!ok)
			return false;
	}
	const char *port = getenv("PORT");
	if (port && *port)
		take_port(r, port, check_strdup("environment PORT"));
	return true;
}

static bool apply_port(struct reading *r)
{
	struct listen_address only_port, address;
	if (!r->port)
		return true;
	if (strspn(r->port, "0123456789") != strlen(r->port) || !settings_parse_listen(r->port, &only_port)) {
		set_string(&r->error,
			check_printf("%s=%s: bad value; accepted: a port from 1 to 65535", r->port_place, printable(r->port)));
		return false;
	}
	CHECK(settings_parse_listen(r->s->server_listen, &address));
	set_string(&r->s->server_listen,
		check_printf(strchr(address.host, ':') ? "[%s]:%u" : "%s:%u", address.host, only_port.port));
	set_string(&r->port, NULL);
	return true;
}

/* A fault of a value that was read, told at the place it is from. */
static char *describe(const struct settings *s, const char *section, const char *key, const char *what)
{
	const struct setting *setting = find_key(section, key);
	char *text = setting_text(setting, s);
	char *shown = printable(setting_shown(setting, text));
	char *line = check_printf("%s = %s: %s", s->places[setting - settings_table], shown, what);
	free(shown);
	free(text);
	return line;
}

/* A fault between settings, told at the place of one of them. */
static void require(struct reading *r, bool condition, const char *section, const char *key, const char *what)
{
	if (!condition && !r->error)
		r->error = describe(r->s, section, key, what);
}

static void require_file(struct reading *r, const char *path, const char *section, const char *key)
{
	struct stat status;
	char *what = NULL;
	if (*path && (stat(path, &status) != 0 || access(path, R_OK) != 0))
		what = check_printf("the file cannot be read: %s", strerror(errno));
	else if (*path && S_ISDIR(status.st_mode))
		what = check_strdup("the file cannot be read: it is a directory");
	require(r, !what, section, key, what);
	free(what);
}

static void check_together(struct reading *r)
{
	struct settings *s = r->s;
	struct stat status;
	if (s->acme_enabled)
		s->tls_enabled = true;
	require(r, !*s->tls_cert || *s->tls_key, "tls", "cert", "needs tls.key");
	require(r, !*s->tls_key || *s->tls_cert, "tls", "key", "needs tls.cert");
	require_file(r, s->tls_cert, "tls", "cert");
	require_file(r, s->tls_key, "tls", "key");
	require_file(r, s->bootstrap_file, "bootstrap", "file");
	require(r, !s->tls_enabled || *s->tls_cert || s->tls_self_signed || s->acme_enabled, "tls", "enabled",
		"needs tls.cert and tls.key, or tls.self_signed, or acme.enabled");
	require(r, !s->acme_enabled || *s->acme_domains, "acme", "enabled", "needs acme.domains");
	require(r, !s->acme_enabled || !*s->tls_cert, "acme", "enabled", "excludes tls.cert and tls.key");
	require(r, strcmp(s->server_listen, s->server_ops_listen) != 0, "server", "ops_listen",
		"is the address of server.listen too");
	require(r, stat(s->server_data_dir, &status) != 0 || S_ISDIR(status.st_mode), "server", "data_dir",
		"is no directory");
}

char *settings_read(struct settings *s, const struct settings_options *o)
{
	struct reading r = {.s = s};
	*s = (struct settings){
		.config_file = check_strdup(""),
		.places = check_calloc(SETTINGS_COUNT, sizeof *s->places),
	};
	/* PORT of a file does not replace what the environment says. */
	if (apply_defaults(&r) && apply_ini(&r, o->config_file) && apply_dotenv(&r) && apply_port(&r) &&
		apply_environment(&r) && apply_port(&r))
		check_together(&r);
	free(r.port);
	free(r.port_place);
	free(r.bad_section);
	if (r.error)
		settings_free(s);
	return r.error;
}

bool settings_load(struct settings *s, const struct settings_options *o)
{
	char *error = settings_read(s, o);
	if (error)
		fprintf(stderr, "apiproxy: %s\n", error);
	free(error);
	return !error;
}

void settings_refuse(const struct settings *s, const char *section, const char *key, const char *what)
{
	char *line = describe(s, section, key, what);
	fprintf(stderr, "apiproxy: %s\n", line);
	free(line);
}

void settings_refuse_variable(const char *name, const char *shown, const char *what)
{
	char *value = printable(check_strdup(shown));
	fprintf(stderr, "apiproxy: environment %s=%s: %s\n", name, value, what);
	free(value);
}

void settings_free(struct settings *s)
{
	for (size_t i = 0; s->places && i < SETTINGS_COUNT; i++)
		free(s->places[i]);
	free(s->places);
	for (size_t i = 0; i < settings_count; i++) {
		if (!setting_is_text(&settings_table[i]))
			continue;
		char *text = *setting_text_field(&settings_table[i], s);
		if (text)
			explicit_bzero(text, strlen(text));
		free(text);
	}
	free(s->config_file);
	*s = (struct settings){0};
}

bool settings_reload_log(struct settings *s, const struct settings_options *o)
{
	struct settings fresh;
	char *error = settings_read(&fresh, o);
	if (error) {
		journal_add("settings", "reload: %s", error);
		free(error);
		return false;
	}
	s->log_level = fresh.log_level;
	s->log_format = fresh.log_format;
	__atomic_store_n(&s->log_access, fresh.log_access, __ATOMIC_RELAXED); /* workers read it */
	settings_free(&fresh);
	log_configure(s->log_level, s->log_format == LOG_FORMAT_JSON);
	return true;
}
