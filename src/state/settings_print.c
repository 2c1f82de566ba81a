/* settings_print: the command line, and the table in the forms people read. Boot only. */
#include "state/settings.h"

#include <ctype.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "state/redis_url.h"
#include "state/settings_table.h"

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check", no_argument, NULL, 't'},
	{"print-config", no_argument, NULL, 'p'},
	{"print-settings-table", no_argument, NULL, 'm'},
	{"print-env-example", no_argument, NULL, 'e'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* clang-format off */
static const struct { int option; enum settings_command command; } commands[] = {
	{'t', SETTINGS_CHECK}, {'p', SETTINGS_PRINT_CONFIG}, {'m', SETTINGS_PRINT_MARKDOWN},
	{'e', SETTINGS_PRINT_ENV_EXAMPLE}, {'V', SETTINGS_VERSION}, {'h', SETTINGS_HELP},
};
/* clang-format on */

static const char usage[] = "usage: apiproxy [--config FILE] [--check] [--print-config] [--version] [--help]\n";

bool settings_parse_arguments(int argc, char **argv, struct settings_options *o)
{
	static char program[] = "apiproxy";
	char *name = argc ? argv[0] : NULL;
	bool ok = true;
	int option;
	*o = (struct settings_options){.command = SETTINGS_SERVE};
	if (argc)
		argv[0] = program; /* what getopt's messages start with */
	optind = 0;
	while (ok && (option = getopt_long(argc, argv, "c:tVh", long_options, NULL)) != -1) {
		ok = option != '?';
		if (option == 'c')
			o->config_file = optarg;
		for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
			if (commands[i].option == option)
				o->command = commands[i].command;
	}
	if (ok && optind < argc) {
		fprintf(stderr, "apiproxy: unexpected argument '%s'\n", argv[optind]);
		ok = false;
	}
	if (argc)
		argv[0] = name;
	if (!ok)
		fputs(usage, stderr);
	return ok;
}

/* What the help says of a default. */
static const char *shown_default(const struct setting *setting)
{
	return *setting->fallback ? setting->fallback : setting->kind->is_secret ? "(generated)" : "(none)";
}

static void print_wrapped(FILE *out, const char *text, int indent)
{
	enum { WIDTH = 96 };
	while (*text) {
		size_t length = strlen(text), room = (size_t)(WIDTH - indent);
		if (length > room)
			for (length = room; length && text[length] != ' '; length--)
				;
		fprintf(out, "%*s%.*s\n", indent, "", (int)length, text);
		for (text += length; *text == ' '; text++)
			;
	}
}

void settings_print_help(FILE *out)
{
	fputs(usage, out);
	fputs("\nAn HTTP gateway for LLM APIs: maps path prefixes to vendors, streams both ways.\n\n"
		  "  -c, --config FILE  read settings from this ini file (else apiproxy.ini, where there)\n"
		  "  -t, --check        check the settings, then exit: 0 good, 1 not\n"
		  "      --print-config print an ini file with the settings in force, secrets as ***\n"
		  "  -V, --version      print the version\n"
		  "  -h, --help         print this\n\n"
		  "Settings. First wins: environment, .env in the working directory, ini file, default.\n"
		  "PORT, in the environment or .env, replaces the port of server.listen.\n\n",
		out);
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		char *accepts = setting_accepts(setting);
		fprintf(out, "  %s.%s  %s  default: %s\n", setting->section, setting->key, setting->environment,
			shown_default(setting));
		print_wrapped(out, setting->help, 6);
		char *line = check_printf("accepted: %s", accepts);
		print_wrapped(out, line, 6);
		free(line);
		free(accepts);
	}
	fputs("\nSignals: SIGTERM and SIGINT drain and end; SIGHUP reads certificates and [log] again.\n", out);
}

static bool needs_quotes(const char *value)
{
	size_t length = strlen(value);
	if (length == 0)
		return false;
	return isspace((unsigned char)value[0]) || isspace((unsigned char)value[length - 1]) || value[0] == '"' ||
		strchr(value, ';');
}

static void print_value(FILE *out, const char *value)
{
	if (!needs_quotes(value)) {
		fputs(value, out);
		return;
	}
	putc('"', out);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			putc('\\', out);
		putc(*value, out);
	}
	putc('"', out);
}

static char *hidden_text(const struct setting *setting, const struct settings *s)
{
	char *text = setting_text(setting, s);
	char *shown = setting->kind->is_secret && *text ? check_strdup("***") :
		setting->kind->has_password                 ? redis_url_without_password(text) :
													  check_strdup(text);
	explicit_bzero(text, strlen(text));
	free(text);
	return shown;
}

void settings_print_config(const struct settings *s, FILE *out)
{
	const char *section = "";
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		if (strcmp(section, setting->section) != 0)
			fprintf(out, "%s[%s]\n", *section ? "\n" : "", setting->section);
		section = setting->section;
		char *value = hidden_text(setting, s);
		fprintf(out, "; %s\n%s = ", setting->help, setting->key);
		print_value(out, value);
		putc('\n', out);
		free(value);
	}
}

void settings_print_check(const struct settings *s, FILE *out)
{
	if (*s->config_file)
		fprintf(out, "apiproxy: the settings in %s are good\n", s->config_file);
	else
		fputs("apiproxy: the settings are good (no ini file)\n", out);
}

static void print_cell(FILE *out, const char *text)
{
	for (; *text; text++)
		fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
}

void settings_print_markdown(FILE *out)
{
	fputs("| ini | environment | default | |\n|---|---|---|---|\n", out);
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		const char *fallback = shown_default(setting);
		const char *code = *fallback == '(' ? "" : "`";
		fprintf(out, "| `%s.%s` | `%s` | %s%s%s | ", setting->section, setting->key, setting->environment, code,
			fallback, code);
		print_cell(out, setting->help);
		fputs(" |\n", out);
	}
}

void settings_print_env_example(FILE *out)
{
	const char *section = "";
	fputs("# Settings of apiproxy. Copy to .env in the working directory and take the # off a line.\n"
		  "# The environment wins over .env, .env over the ini file.\n\n"
		  "# Replaces the port of API_PROXY_LISTEN.\n#PORT=8000\n",
		out);
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		if (strcmp(section, setting->section) != 0)
			fprintf(out, "\n# --- %s ---\n", setting->section);
		section = setting->section;
		char *accepts = setting_accepts(setting);
		fprintf(out, "# %s\n# Accepted: %s.\n#%s=%s\n", setting->help, accepts, setting->environment,
			setting->fallback);
		free(accepts);
	}
}
