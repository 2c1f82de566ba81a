/* embedded: files that are part of the binary (scripts/embed.sh): static/ by their name below it,
 * Lua scripts and Chart.js by their last name. */
#ifndef APIPROXY_BASE_EMBEDDED_H
#define APIPROXY_BASE_EMBEDDED_H

#include <stddef.h>

struct embedded_file {
	const char *name;
	const char *data; /* a NUL follows the last byte */
	size_t length;
};

extern const struct embedded_file embedded_files[]; /* ends with name NULL */

const struct embedded_file *embedded_find(const char *name); /* NULL: none */

#endif
