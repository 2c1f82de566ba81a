/* faults: what is wrong with something that was given, all of it, each with its place:
 * "mappings[3].queue.capacity: must be a whole number from 0 to 1000000". Also carries the one-line
 * reason of a failure that is nobody's input ("Redis is not available: Connection refused").
 * At most 10,000 are kept; the last line then says how many more there were. One thread at a time. */
#ifndef APIPROXY_STATE_FAULTS_H
#define APIPROXY_STATE_FAULTS_H

#include <stddef.h>

struct faults { /* zeroed memory is an empty list */
	char **items;
	size_t count;   /* items kept */
	size_t dropped; /* beyond those */
};

void faults_add(struct faults *f, const char *place, const char *format, ...) /* place "" or NULL: none */
	__attribute__((format(printf, 3, 4)));
char *faults_join(const struct faults *f); /* "a: …; b: …", never NULL; caller frees */
void faults_fini(struct faults *f);        /* empty again */

#endif
