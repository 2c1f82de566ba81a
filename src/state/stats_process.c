/* stats_process: reads /proc/self. Any thread; owns nothing. */
#include "state/stats_process.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static double timeval_seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static uint64_t count_open_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	if (!directory)
		return 0;
	uint64_t count = 0;
	for (struct dirent *entry; (entry = readdir(directory));)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count - 1; /* not the one that reads */
}

/* proc(5): after the command's last ')' come the fields from the 3rd on. */
static void read_stat(struct stats_process *out)
{
	char text[1024];
	FILE *file = fopen("/proc/self/stat", "re");
	if (!file)
		return;
	size_t length = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[length] = '\0';
	const char *at = strrchr(text, ')');
	unsigned long long threads, start_ticks;
	if (!at ||
		sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %llu %*d %llu", &threads,
			&start_ticks) != 2)
		return;
	struct timespec wall, boot;
	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	out->threads = threads;
	out->start_time_seconds = (double)(wall.tv_sec - boot.tv_sec) + (double)(wall.tv_nsec - boot.tv_nsec) / 1e9 +
		(double)start_ticks / (double)sysconf(_SC_CLK_TCK);
}

static void read_memory(struct stats_process *out)
{
	unsigned long long size = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");
	if (!file)
		return;
	if (fscanf(file, "%llu %llu", &size, &resident) == 2) {
		out->virtual_bytes = size * (uint64_t)sysconf(_SC_PAGESIZE);
		out->resident_bytes = resident * (uint64_t)sysconf(_SC_PAGESIZE);
	}
	fclose(file);
}

void stats_process_read(struct stats_process *out)
{
	memset(out, 0, sizeof *out);
	struct rusage usage;
	struct rlimit limit;
	if (getrusage(RUSAGE_SELF, &usage) == 0)
		out->cpu_seconds = timeval_seconds(usage.ru_utime) + timeval_seconds(usage.ru_stime);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		out->max_fds = limit.rlim_cur;
	out->open_fds = count_open_fds();
	read_stat(out);
	read_memory(out);
}

uint64_t stats_process_resident_bytes(void)
{
	struct stats_process process = {0};
	read_memory(&process);
	return process.resident_bytes;
}
