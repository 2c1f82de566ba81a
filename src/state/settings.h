/* settings: what the process was started with. One table (settings.def)
 * says all there is to say about a setting.
 *
 * First wins: the environment, .env in the working directory, the ini file (--config, else
 * apiproxy.ini in the working directory if there), the default. Both files are read with inih.
 * Accepts: text values in "double" or (.env) 'single' quotes; in .env `export NAME=value`; comments
 * after white space (`;` in ini, `#` in .env). `***`, which --print-config writes for a secret,
 * counts as not given. Refuses unknown sections and keys of the ini file, and bad values from
 * anywhere, in one line that names file, line, key, value and what is accepted; a secret's value is
 * not shown.
 * Units are in the names. Read-only once loaded, except for the three fields of [log]. */
#ifndef APIPROXY_STATE_SETTINGS_H
#define APIPROXY_STATE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/log.h"

enum settings_on_redis_failure { REDIS_FAILURE_LOCAL, REDIS_FAILURE_ALLOW, REDIS_FAILURE_DENY };
enum settings_log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Field types by kind; texts are never NULL, "" where not set. */
#define SETTING_FIELD_LISTEN char * /* host:port, as settings_parse_listen() takes it; PORT put in */
#define SETTING_FIELD_LISTEN_OR_OFF char *
#define SETTING_FIELD_PATH char *
#define SETTING_FIELD_PATH_OR_NONE char *
#define SETTING_FIELD_ORIGINS char *
#define SETTING_FIELD_REDIS_URL char *
#define SETTING_FIELD_TOKEN char *
#define SETTING_FIELD_JWT_SECRET char *
#define SETTING_FIELD_MASTER_KEY char *
#define SETTING_FIELD_DOMAINS char *
#define SETTING_FIELD_EMAIL char *
#define SETTING_FIELD_HTTPS_URL char *
#define SETTING_FIELD_NUMBER long
#define SETTING_FIELD_SWITCH bool
#define SETTING_FIELD_ON_REDIS_FAILURE enum settings_on_redis_failure
#define SETTING_FIELD_LOG_LEVEL enum log_level
#define SETTING_FIELD_LOG_FORMAT enum settings_log_format

struct settings {
#define SETTING(type, section, key, environment, fallback, accepts, help) \
	SETTING_FIELD_##type section##_##key;
#include "state/settings.def"
#undef SETTING
	char *config_file; /* the ini file that was read, "" where none */
	char **places;     /* where each value is from, a row of the table each: "FILE:LINE: section.key" */
};

enum settings_command {
	SETTINGS_SERVE,
	SETTINGS_CHECK,         /* --check: load, settings_print_check(), exit 0 */
	SETTINGS_PRINT_CONFIG,  /* load, settings_print_config() */
	SETTINGS_VERSION,
	SETTINGS_HELP,
	SETTINGS_PRINT_MARKDOWN,    /* --print-settings-table, for the README */
	SETTINGS_PRINT_ENV_EXAMPLE, /* --print-env-example */
};

struct settings_options {
	enum settings_command command;
	const char *config_file; /* NULL: apiproxy.ini if there */
};

/* The command line. false: usage error, said on stderr; exit 1. */
bool settings_parse_arguments(int argc, char **argv, struct settings_options *o) __attribute__((warn_unused_result));

/* Fills s (any contents). false: said in one line on stderr; exit 1. s needs no free then. */
bool settings_load(struct settings *s, const struct settings_options *o) __attribute__((warn_unused_result));

/* As settings_load(), silent: the error text (caller frees), NULL when all is well. */
char *settings_read(struct settings *s, const struct settings_options *o) __attribute__((warn_unused_result));

/* Faults that only show where the value is used: one line on stderr, as settings_load() says it. what: what
 * is wrong, and what is accepted. */
void settings_refuse(const struct settings *s, const char *section, const char *key, const char *what);
/* The same for a variable of the environment that is no setting. shown: its value without what is secret. */
void settings_refuse_variable(const char *name, const char *shown, const char *what);

void settings_free(struct settings *s);

/* SIGHUP: reads everything again, takes over log.level, log.format and log.access and configures
 * the log. A fault leaves all as it was and goes to the journal. */
bool settings_reload_log(struct settings *s, const struct settings_options *o);

void settings_print_help(FILE *out);
void settings_print_config(const struct settings *s, FILE *out); /* ini, secrets as *** */
void settings_print_check(const struct settings *s, FILE *out);
void settings_print_markdown(FILE *out);
void settings_print_env_example(FILE *out);

/* host:port, [::1]:port, :port or port. Host "" (all) becomes 0.0.0.0. host has no brackets. */
struct listen_address {
	char host[256];
	uint16_t port;
};
bool settings_parse_listen(const char *text, struct listen_address *out) __attribute__((warn_unused_result));

#endif
