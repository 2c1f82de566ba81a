/* faults: a short list of lines on the heap. */
#include "state/faults.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { FAULTS_MAX = 10000 };

void faults_add(struct faults *f, const char *place, const char *format, ...)
{
	if (f->count >= FAULTS_MAX) {
		f->dropped++;
		return;
	}
	va_list arguments;
	va_start(arguments, format);
	char *text = check_vprintf(format, arguments);
	va_end(arguments);
	f->items = realloc(f->items, (f->count + 1) * sizeof(*f->items));
	CHECK(f->items);
	f->items[f->count++] = place && *place ? check_printf("%s: %s", place, text) : check_strdup(text);
	free(text);
}

char *faults_join(const struct faults *f)
{
	char *all = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&all, &size);
	CHECK(out);
	for (size_t i = 0; i < f->count; i++)
		fprintf(out, "%s%s", i ? "; " : "", f->items[i]);
	if (f->dropped)
		fprintf(out, "; and %zu more", f->dropped);
	CHECK(fclose(out) == 0);
	return all;
}

void faults_fini(struct faults *f)
{
	for (size_t i = 0; i < f->count; i++)
		free(f->items[i]);
	free(f->items);
	memset(f, 0, sizeof(*f));
}
