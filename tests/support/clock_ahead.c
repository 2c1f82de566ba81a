// A clock that goes ahead: preloaded into redis-server, it adds the nanoseconds (int64) that the file CLOCK_AHEAD
// begins with to the time of day. libfaketime cannot do it: it asks the dynamic linker at the first call, which comes
// out of jemalloc's own start, before there is a malloc. This one asks the kernel alone.
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000

static int64_t ahead(void)
{
	static const volatile int64_t *file;
	if (!file) {
		const char *path = getenv("CLOCK_AHEAD");
		int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		void *found = fd >= 0 ? mmap(NULL, sizeof *file, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
		if (found == MAP_FAILED)
			abort(); // a test would take the true time for a moved one
		close(fd);
		file = found;
	}
	return *file;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	long failed = syscall(SYS_clock_gettime, clock, now);
	if (failed || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
		return (int)failed;
	int64_t sum = now->tv_nsec + ahead();
	now->tv_sec += sum / SECOND;
	now->tv_nsec = sum % SECOND;
	return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	(void)zone;
	struct timespec precise;
	int failed = clock_gettime(CLOCK_REALTIME, &precise);
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return failed;
}

time_t time(time_t *now)
{
	struct timespec precise = {0};
	clock_gettime(CLOCK_REALTIME, &precise);
	if (now)
		*now = precise.tv_sec;
	return precise.tv_sec;
}
