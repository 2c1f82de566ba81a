/* child: fork and exec from a process with threads. Between the two only calls that are safe in a
 * signal handler. */
#include "ops/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

extern char **environ;

enum { EXEC_FAILED = 127, POLL_WITHOUT_PIDFD_MS = 100 };

char *child_find_program(const char *name)
{
	const char *path = getenv("PATH");
	char *places = check_printf("%s:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", path ? path : "");
	char *found = NULL, *rest = places, *place;
	while (!found && (place = strsep(&rest, ":"))) {
		if (*place != '/')
			continue;
		found = check_printf("%s/%s", place, name);
		if (access(found, X_OK) != 0) {
			free(found);
			found = NULL;
		}
	}
	free(places);
	return found;
}

static void reset_signals(void)
{
	sigset_t none;
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void __attribute__((noreturn)) run(const struct child_options *o, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXEC_FAILED); /* it ended before the line above */
	setsid();
	reset_signals();
	umask(077);
	int null_fd = open("/dev/null", O_RDONLY);
	if (null_fd < 0 || dup2(o->output_fd, 1) < 0 || dup2(o->output_fd, 2) < 0 || dup2(null_fd, 0) < 0)
		_exit(EXEC_FAILED);
	if (o->keep_fd >= 0 && (o->keep_fd == 3 ? fcntl(3, F_SETFD, 0) : dup2(o->keep_fd, 3)) < 0)
		_exit(EXEC_FAILED);
	if (close_range(o->keep_fd >= 0 ? 4 : 3, ~0U, 0) != 0)
		for (int fd = o->keep_fd >= 0 ? 4 : 3; fd < 65536; fd++)
			close(fd);
	if (o->directory && chdir(o->directory) != 0)
		_exit(EXEC_FAILED);
	execve(o->program, (char *const *)o->arguments, environ);
	_exit(EXEC_FAILED);
}

bool child_start(struct child *c, const struct child_options *o)
{
	pid_t parent = getpid();
	c->pid_fd = -1;
	c->pid = fork();
	if (c->pid == 0)
		run(o, parent);
	if (c->pid < 0) {
		c->pid = 0;
		return false;
	}
	c->pid_fd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	return true;
}

static bool reap(struct child *c, int *status)
{
	pid_t pid = waitpid(c->pid, status, WNOHANG);
	if (pid == 0)
		return false;
	if (pid < 0)
		*status = 0; /* someone else's wait took it: it is gone all the same */
	if (c->pid_fd >= 0)
		close(c->pid_fd);
	*c = (struct child){.pid_fd = -1};
	return true;
}

enum child_event child_wait(struct child *c, int stop_fd, int timeout_ms, int *status)
{
	int64_t end = timeout_ms < 0 ? INT64_MAX : clock_monotonic_ms() + timeout_ms;
	while (!reap(c, status)) {
		int64_t left = end - clock_monotonic_ms();
		if (left <= 0)
			return CHILD_TIMEOUT;
		if (c->pid_fd < 0 && left > POLL_WITHOUT_PIDFD_MS)
			left = POLL_WITHOUT_PIDFD_MS;
		struct pollfd fds[] = {{.fd = c->pid_fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
		if (poll(fds, 2, left > 3600000 ? 3600000 : (int)left) > 0 && (fds[1].revents & POLLIN))
			return CHILD_STOP_ASKED;
	}
	return CHILD_ENDED;
}

void child_stop(struct child *c, int grace_ms)
{
	int status;
	if (c->pid <= 0)
		return;
	kill(c->pid, SIGTERM);
	kill(c->pid, SIGCONT);
	if (child_wait(c, -1, grace_ms, &status) == CHILD_ENDED)
		return;
	kill(c->pid, SIGKILL);
	child_wait(c, -1, -1, &status);
}

char *child_describe_status(int status)
{
	if (WIFSIGNALED(status))
		return check_printf("signal %d (%s)", WTERMSIG(status), sigdescr_np(WTERMSIG(status)));
	return check_printf("exit status %d", WEXITSTATUS(status));
}
