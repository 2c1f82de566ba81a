/* trim: text pages are clean and backed by their files, so dropping them loses nothing. */
#include "ops/trim.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

void trim_memory(void)
{
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "re");
	malloc_trim(0);
	if (!maps)
		return;
	while (fgets(line, sizeof line, maps)) {
		unsigned long start;
		unsigned long end;
		char rights[5];
		if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3 && strcmp(rights, "r-xp") == 0 &&
			strchr(line, '/'))
			madvise((void *)start, end - start, MADV_DONTNEED); /* advice: a refusal changes nothing */
	}
	fclose(maps);
}
