/* stats_process: what the operating system says about this process. Linux, /proc/self. What cannot
 * be read is 0. */
#ifndef APIPROXY_STATE_STATS_PROCESS_H
#define APIPROXY_STATE_STATS_PROCESS_H

#include <stdint.h>

struct stats_process {
	double cpu_seconds;       /* user and system */
	uint64_t resident_bytes;
	uint64_t virtual_bytes;
	uint64_t open_fds;
	uint64_t max_fds;
	double start_time_seconds; /* Unix time */
	uint64_t threads;
};

void stats_process_read(struct stats_process *out);
uint64_t stats_process_resident_bytes(void);

#endif
