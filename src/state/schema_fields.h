/* schema_fields: the table behind state/schema; private to it. One row a field. */
#ifndef APIPROXY_STATE_SCHEMA_FIELDS_H
#define APIPROXY_STATE_SCHEMA_FIELDS_H

#include <stddef.h>

#include "state/schema.h"

enum field_type {
	FIELD_STRING,
	FIELD_UINT,    /* whole number */
	FIELD_NUMBER,
	FIELD_SECONDS, /* number; milliseconds in the struct */
	FIELD_BOOL,
	FIELD_CHOICE,  /* string out of choices; its index in the struct */
	FIELD_STRINGS, /* list; count and pointer in the struct */
	FIELD_TIME,    /* RFC 3339 string; Unix milliseconds in the struct */
	FIELD_OBJECT,  /* fields of its own; a bool in the struct says that it is there */
};

enum field_flags {
	FIELD_REQUIRED = 1,
	FIELD_ID = 2,          /* cannot be changed */
	FIELD_GENERATED = 4,   /* made up where not given */
	FIELD_OPTIONAL = 8,    /* has no default: shown where set; "" unsets */
	FIELD_WRITE_ONLY = 16, /* taken from the API, never shown */
	FIELD_STORED_ONLY = 32,/* in Redis alone */
	FIELD_READ_ONLY = 64,  /* shown by the API; ignored when it is sent back */
	FIELD_HASH_KEY = 128,  /* the field of the hash in Redis, not in its value */
};

struct field {
	const char *name;
	enum field_type type;
	unsigned flags;
	double min, max;
	double fallback;           /* numbers; BOOL: 0 or 1; CHOICE: index */
	const char *(*check)(const char *text); /* STRING, STRINGS: state/rules */
	const char *const *choices;             /* ends with NULL */
	double (*derive)(const struct cJSON *entry); /* instead of fallback */
	const struct field *fields;             /* OBJECT; ends with name NULL */
	size_t offset, size;       /* where in the struct; size 0: not there */
	size_t count_offset;       /* STRINGS */
};

extern const struct field *const schema_fields[SCHEMA_KINDS]; /* each ends with name NULL */

#endif
