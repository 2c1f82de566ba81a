/* settings_table: the table as data. Private to settings*.c. */
#ifndef APIPROXY_STATE_SETTINGS_TABLE_H
#define APIPROXY_STATE_SETTINGS_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "state/settings.h"

/* What a value may be. Exactly one of check, choices and is_number says how it is read. */
struct setting_kind {
	const char *accepts; /* for error lines; NULL: made from choices or the range */
	/* Texts: true where value is fine. *normal may be set to what is to be kept instead (malloc). */
	bool (*check)(const char *value, char **normal);
	const char *const *choices; /* the index is the value; ends with NULL */
	const char *also;           /* another word for the choice also_means; NULL: none */
	int also_means;
	bool is_number;
	bool is_switch;
	bool may_be_empty;
	bool is_secret;
	bool has_password; /* a URL: shown without its password */
};

struct setting {
	const char *section, *key, *environment, *fallback, *help;
	const struct setting_kind *kind;
	size_t offset; /* of the field in struct settings */
	long lowest, highest;
};

extern const struct setting settings_table[];
extern const size_t settings_count;

/* False: value is not what the setting accepts; the field is untouched. Replaces a text. */
bool setting_parse(const struct setting *setting, const char *value, struct settings *s)
	__attribute__((warn_unused_result));
char *setting_accepts(const struct setting *setting);                          /* malloc */
char *setting_shown(const struct setting *setting, const char *value);         /* for errors: no secret; malloc */
char *setting_text(const struct setting *setting, const struct settings *s);   /* the value in force, unhidden; malloc */

static inline char **setting_text_field(const struct setting *setting, struct settings *s)
{
	return (char **)(void *)((char *)s + setting->offset);
}

static inline bool setting_is_text(const struct setting *setting)
{
	return setting->kind->check != NULL;
}

#endif
