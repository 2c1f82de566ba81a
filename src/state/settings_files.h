/* settings_files: an ini or .env file, line by line, parsed by inih. Private to settings*.c.
 *
 * Quoted values ("…"; in .env also '…') are taken as they are, with \" and \\ in double quotes;
 * others end at a comment after white space (; in ini, # in .env). Lines may be of any length up
 * to 64 KiB and indented. */
#ifndef APIPROXY_STATE_SETTINGS_FILES_H
#define APIPROXY_STATE_SETTINGS_FILES_H

#include <stdbool.h>

enum settings_file_style { SETTINGS_FILE_INI, SETTINGS_FILE_DOTENV };

struct settings_entry {
	int line;
	const char *section; /* "" before the first one, and in .env */
	const char *name;    /* NULL: a [section] line */
	const char *value;   /* NULL: the line is malformed, and name is its first word */
};

/* on_entry says false to stop. False: the file could not be read (errno). */
bool settings_file_read(const char *path, enum settings_file_style style,
	bool (*on_entry)(void *context, const struct settings_entry *entry), void *context)
	__attribute__((warn_unused_result));

#endif
