/* settings_files: what inih needs around it.
 *
 * inih knows no line numbers in its handler, cuts lines at 200 bytes and takes an indented line for
 * a continuation. The reader given to it therefore counts lines, removes indentation and comments,
 * and passes a long line on in pieces, the later ones as such continuations, which the handler
 * puts together again. `;` and `#` inside a value travel as control characters, so that inih sees
 * no comment there. */
#include "state/settings_files.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

enum { LINE_BYTES = 65536, NAME_BYTES = 64, MASKED_SEMICOLON = 1, MASKED_HASH = 2 };

struct reading {
	FILE *file;
	enum settings_file_style style;
	bool (*on_entry)(void *context, const struct settings_entry *entry);
	void *context;
	bool stopped;
	int line;
	char *rest;         /* what of the line is still to be passed on, in text */
	bool expects_value; /* the handler is due for this line */
	size_t value_length;
	char section[NAME_BYTES], name[NAME_BYTES];
	char text[LINE_BYTES], value[LINE_BYTES];
};

static void report(struct reading *r, const char *section, const char *name, const char *value)
{
	struct settings_entry entry = {r->line, section, name, value};
	if (!r->stopped && !r->on_entry(r->context, &entry))
		r->stopped = true;
}

static char *skip_space(char *p)
{
	while (isspace((unsigned char)*p))
		p++;
	return p;
}

static void strip_end(char *text)
{
	size_t length = strlen(text);
	while (length && isspace((unsigned char)text[length - 1]))
		text[--length] = 0;
}

/* Where the quoted text at p ends (its closing quote), NULL where p has no or no closed quote. */
static char *closing_quote(char *p, enum settings_file_style style)
{
	char quote = *p;
	if (quote != '"' && !(quote == '\'' && style == SETTINGS_FILE_DOTENV))
		return NULL;
	for (p++; *p; p++) {
		if (*p == '\\' && quote == '"' && p[1])
			p++;
		else if (*p == quote)
			return p;
	}
	return NULL;
}

/* Cuts the comment off a value. False: text after a closing quote, or none closes. */
static bool cut_comment(char *value, enum settings_file_style style)
{
	char comment = style == SETTINGS_FILE_INI ? ';' : '#';
	char *end = closing_quote(value, style);
	bool quoted = *value == '"' || (*value == '\'' && style == SETTINGS_FILE_DOTENV);
	if (quoted && !end)
		return false;
	for (char *p = end ? end + 1 : value; *p; p++)
		if (*p == comment && (p == value || isspace((unsigned char)p[-1]))) {
			*p = 0;
			break;
		}
	strip_end(value);
	return !end || end[1] == 0;
}

static void mask(char *value)
{
	for (; *value; value++)
		*value = *value == ';' ? MASKED_SEMICOLON : *value == '#' ? MASKED_HASH : *value;
}

/* Quotes off, masks off. */
static void unwrap(char *value, enum settings_file_style style)
{
	char *end = closing_quote(value, style), *out = value;
	bool escapes = end && *value == '"';
	for (const char *p = end ? value + 1 : value; *p && p != end; p++) {
		if (escapes && *p == '\\' && (p[1] == '"' || p[1] == '\\'))
			p++;
		*out++ = *p == MASKED_SEMICOLON ? ';' : *p == MASKED_HASH ? '#' : *p;
	}
	*out = 0;
}

/* What is wrong with a line is reported here, as inih would only count it. */
static void report_malformed(struct reading *r, char *line)
{
	char *name = line;
	line[strcspn(line, " \t=:")] = 0;
	name[strnlen(name, NAME_BYTES - 1)] = 0;
	report(r, r->section, name, NULL);
	r->text[0] = 0;
}

static void prepare_section(struct reading *r, char *line)
{
	char *end = strchr(line, ']');
	if (!end || end - line >= 50) { /* what inih keeps of a section's name */
		report_malformed(r, line);
		return;
	}
	end[1] = 0;
	snprintf(r->section, sizeof r->section, "%.*s", (int)(end - line - 1), line + 1);
	report(r, r->section, NULL, NULL);
}

/* Brings r->text into the form that inih is to see, or empties it. */
static void prepare_line(struct reading *r)
{
	char *line = skip_space(r->text);
	strip_end(line);
	if (r->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
		line = skip_space(line + 3);
	if (r->style == SETTINGS_FILE_DOTENV && strncmp(line, "export", 6) == 0 && isspace((unsigned char)line[6]))
		line = skip_space(line + 6);
	if (*line == 0 || *line == ';' || *line == '#') {
		r->text[0] = 0;
		return;
	}
	memmove(r->text, line, strlen(line) + 1);
	line = r->text;
	if (*line == '[' && r->style == SETTINGS_FILE_INI) {
		prepare_section(r, line);
		return;
	}
	char *separator = strpbrk(line, "=:");
	if (!separator || separator == line || separator - line >= NAME_BYTES) {
		report_malformed(r, line);
		return;
	}
	char *value = skip_space(separator + 1);
	if (!cut_comment(value, r->style)) {
		report_malformed(r, line);
		return;
	}
	mask(line);
	r->expects_value = true;
	r->name[0] = 0;
	r->value_length = 0;
}

/* The length of the next piece of a line: no white space at its edges, where inih would strip it. */
static size_t piece_length(const char *text, size_t room)
{
	size_t length = strlen(text);
	if (length <= room)
		return length;
	for (length = room; length > room / 2; length--)
		if (!isspace((unsigned char)text[length - 1]) && !isspace((unsigned char)text[length]))
			return length;
	return 0;
}

static bool next_line(struct reading *r)
{
	if (!fgets(r->text, sizeof r->text, r->file))
		return false;
	r->line++;
	r->expects_value = false;
	if (strlen(r->text) == sizeof r->text - 1) {
		report_malformed(r, r->text);
		for (int c = 0; c != EOF && c != '\n';)
			c = getc(r->file);
	}
	prepare_line(r);
	r->rest = r->text;
	return true;
}

/* inih's fgets: each piece leaves room for the blank before and the line break after it. */
static char *read_piece(char *out, int size, void *stream)
{
	struct reading *r = stream;
	bool continues = r->rest && *r->rest;
	if (r->stopped || (!continues && !next_line(r)))
		return NULL;
	size_t length = piece_length(r->rest, (size_t)size - 8);
	if (length == 0 && *r->rest) {
		r->expects_value = false;
		report_malformed(r, r->text);
		r->rest = r->text;
	}
	snprintf(out, (size_t)size, "%s%.*s\n", continues ? " " : "", (int)length, r->rest);
	r->rest += length;
	return out;
}

static int on_value(void *user, const char *section, const char *name, const char *value)
{
	struct reading *r = user;
	if (!r->expects_value)
		return 1;
	size_t length = strlen(value);
	if (r->value_length + length >= sizeof r->value)
		return 1;
	memcpy(r->value + r->value_length, value, length + 1);
	r->value_length += length;
	if (r->rest && *r->rest)
		return 1; /* more pieces follow */
	r->expects_value = false;
	snprintf(r->name, sizeof r->name, "%s", name);
	unwrap(r->value, r->style);
	report(r, r->style == SETTINGS_FILE_DOTENV ? "" : section, r->name, r->value);
	explicit_bzero(r->value, r->value_length);
	return 1;
}

bool settings_file_read(const char *path, enum settings_file_style style,
	bool (*on_entry)(void *context, const struct settings_entry *entry), void *context)
{
	FILE *file = fopen(path, "re");
	if (!file)
		return false;
	struct reading *r = calloc(1, sizeof *r);
	int status = -2;
	if (r) {
		r->file = file;
		r->style = style;
		r->on_entry = on_entry;
		r->context = context;
		status = ini_parse_stream(read_piece, r, on_value, r); /* a positive status: reported already */
		explicit_bzero(r, sizeof *r);
	}
	bool readable = status >= 0 && !ferror(file);
	int error = r ? errno : ENOMEM;
	free(r);
	fclose(file);
	errno = error;
	return readable;
}
