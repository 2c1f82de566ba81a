/* child: a program that runs as a child process and ends with this one.
 *
 * The kernel kills it when the thread that started it ends (PR_SET_PDEATHSIG): start it from a
 * thread that lives as long as it is wanted. It gets a session of its own (a terminal's Ctrl-C is
 * not for it), default signals, umask 077, stdin from /dev/null and no other descriptor. */
#ifndef APIPROXY_OPS_CHILD_H
#define APIPROXY_OPS_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

struct child_options {
	const char *program;       /* a path: child_find_program() */
	const char *const *arguments; /* with the program's name first, ends with NULL */
	const char *directory;     /* NULL: as it is */
	int output_fd;             /* stdout and stderr */
	int keep_fd;               /* becomes 3 in the child; -1: none */
};

struct child {
	pid_t pid;                 /* 0: none */
	int pid_fd;                /* -1 on kernels without */
};

enum child_event { CHILD_ENDED, CHILD_STOP_ASKED, CHILD_TIMEOUT };

char *child_find_program(const char *name); /* in PATH, then the usual places; NULL: not installed. Caller frees. */
bool child_start(struct child *c, const struct child_options *o) __attribute__((warn_unused_result)); /* false: errno */

/* Until it ends (*status as of waitpid; the child is gone then), stop_fd is readable (-1: none) or
 * time is over (-1: never). */
enum child_event child_wait(struct child *c, int stop_fd, int timeout_ms, int *status);

/* SIGTERM, SIGKILL after grace_ms; waits. Nothing where there is none. */
void child_stop(struct child *c, int grace_ms);

char *child_describe_status(int status); /* "exit status 1", "signal 9 (Killed)"; caller frees */

#endif
