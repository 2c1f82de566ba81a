/* check: dying with a reason, and memory that is always there. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_failed(const char *file, int line, const char *what)
{
	fprintf(stderr, "apiproxy: invariant broken at %s:%d: %s\n", file, line, what);
	abort();
}

void *check_calloc(size_t count, size_t size)
{
	void *memory = calloc(count, size);
	CHECK(memory);
	return memory;
}

char *check_strdup(const char *text)
{
	char *copy = strdup(text);
	CHECK(copy);
	return copy;
}

char *check_vprintf(const char *format, va_list arguments)
{
	char *text = NULL;
	CHECK(vasprintf(&text, format, arguments) >= 0);
	return text;
}

char *check_printf(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	char *text = check_vprintf(format, arguments);
	va_end(arguments);
	return text;
}
