/* Files for a test: a directory of its own, and a file's text. */
#ifndef TESTS_UNIT_FILES_FIXTURE_H
#define TESTS_UNIT_FILES_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/check.h"

/* All of a file that must be there and not be empty. Caller frees. (Inlined, gcc 12 takes it for a local.) */
__attribute__((noinline, unused)) static char *files_read(const char *path)
{
	char *text = NULL;
	size_t size = 0;
	FILE *file = fopen(path, "r");
	if (!file)
		fail_msg("%s is missing", path);
	if (getdelim(&text, &size, '\0', file) <= 0)
		fail_msg("%s is empty", path);
	fclose(file);
	return text;
}

static inline void files_write(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	if (!file || fputs(text, file) < 0 || fclose(file) != 0)
		fail_msg("%s cannot be written", path);
}

/* With all that is below it. 0: gone. */
static inline int files_remove(const char *directory)
{
	char *command = check_printf("rm -rf %s", directory);
	int status = system(command);
	free(command);
	return status;
}

#endif
