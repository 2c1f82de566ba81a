/* acme: when uacme runs, and what follows.
 *
 * All files are in data_dir/acme/CA, CA being the directory URL's host, so that a switch from a
 * staging authority to the real one starts afresh. uacme keeps its account and certificates there;
 * hook.sh puts a challenge's answer into challenges/, from where acme_http serves it.
 * One thread does all, and owns the child. Others only write to the two eventfds. */
#include "ops/acme.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/acme_http.h"
#include "ops/certificates.h"
#include "ops/child.h"
#include "ops/secret_file.h"
#include "state/journal.h"
#include "state/settings.h"

#define MODULE "acme"

enum {
	CHECK_SECONDS = 86400,
	RETRY_FIRST_SECONDS = 60,
	RETRY_LAST_SECONDS = 6 * 3600,
	RETRY_FACTOR = 4, /* authorities allow five failures an hour */
	RUN_LIMIT_MS = 600000,
	STOP_GRACE_MS = 2000,
	NAMES = 100, /* the most that authorities put into one certificate */
	LOG_TAIL_BYTES = 400,
	LOG_FILE_BYTES = 1 << 20,
};

struct acme {
	const struct settings *settings;
	char *program, *directory, *hook, *log_path;
	char *domains; /* cut into names */
	const char *names[NAMES + 1];
	struct acme_http *http;
	int stop_fd, wake_fd;
	pthread_t thread;
	bool has_thread;
};

static const char hook_text[] =
	"#!/bin/sh\n"
	"# Written by apiproxy at each start, called by uacme: METHOD TYPE NAME TOKEN ANSWER.\n"
	"[ \"$2\" = http-01 ] || exit 1\n"
	"case $4 in '' | *[!A-Za-z0-9_-]*) exit 1 ;; esac\n"
	"file=${0%/*}/challenges/$4\n"
	"case $1 in\n"
	"begin) umask 077 && printf %s \"$5\" >\"$file.new\" && mv \"$file.new\" \"$file\" ;;\n"
	"done | failed) rm -f \"$file\" ;;\n"
	"*) exit 1 ;;\n"
	"esac\n";

/* --- preparation --- */

static bool write_hook(struct acme *a)
{
	char *fresh = check_printf("%s.new", a->hook);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
	ssize_t length = (ssize_t)strlen(hook_text);
	bool ok = fd >= 0 && write(fd, hook_text, (size_t)length) == length;
	ok = (fd >= 0 && close(fd) == 0) && ok && rename(fresh, a->hook) == 0;
	if (!ok)
		log_error(MODULE, "%s: %s", a->hook, strerror(errno));
	free(fresh);
	return ok;
}

/* Answers that a crash left behind. */
static void empty_directory(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	while (directory && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(directory), entry->d_name, 0);
	if (directory)
		closedir(directory);
}

static bool split_names(struct acme *a)
{
	size_t count = 0;
	char *name;
	a->domains = check_strdup(a->settings->acme_domains);
	for (char *rest = a->domains; (name = strsep(&rest, ", \t"));) {
		if (!*name)
			continue;
		if (count == NAMES) {
			log_error(MODULE, "acme.domains: more than %d names", NAMES);
			return false;
		}
		a->names[count++] = name;
	}
	return true;
}

static bool start_http(struct acme *a, const char *challenges)
{
	struct listen_address front;
	char *why = NULL;
	CHECK(settings_parse_listen(a->settings->server_listen, &front));
	a->http = acme_http_start(a->settings->acme_http_listen, challenges, front.port, a->names[0], &why);
	if (!a->http)
		log_error(MODULE, "%s", why);
	free(why);
	return a->http;
}

static bool prepare(struct acme *a)
{
	a->program = child_find_program("uacme");
	if (!a->program) {
		log_error(MODULE, "uacme is not installed: install it (apt-get install uacme) or turn acme.enabled off");
		return false;
	}
	char *relative = certificates_acme_directory(a->settings);
	a->directory = data_dir_make(relative) ? realpath(relative, NULL) : NULL;
	if (!a->directory)
		log_error(MODULE, "%s: %s", relative, strerror(errno));
	free(relative);
	if (!a->directory)
		return false;
	a->hook = check_printf("%s/hook.sh", a->directory);
	a->log_path = check_printf("%s/uacme.log", a->directory);
	char *challenges = check_printf("%s/challenges", a->directory);
	bool ok = data_dir_make(challenges) && write_hook(a) && split_names(a);
	if (ok) {
		empty_directory(challenges);
		ok = start_http(a, challenges);
	}
	free(challenges);
	return ok;
}

/* --- runs --- */

/* The last line uacme wrote from an offset on, for the journal. Caller frees. */
static char *last_line(const char *path, off_t from)
{
	char tail[LOG_TAIL_BYTES + 1] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		off_t end = lseek(fd, 0, SEEK_END);
		off_t start = end - LOG_TAIL_BYTES > from ? end - LOG_TAIL_BYTES : from;
		ssize_t length = pread(fd, tail, LOG_TAIL_BYTES, start);
		tail[length > 0 ? length : 0] = 0;
		close(fd);
	}
	size_t length = strlen(tail);
	while (length && strchr(" \r\n", tail[length - 1]))
		tail[--length] = 0;
	const char *line = strrchr(tail, '\n');
	return check_strdup(line ? line + 1 : tail);
}

enum run_result { RUN_CHANGED, RUN_UNCHANGED, RUN_FAILED, RUN_STOPPED };

static int open_log(const struct acme *a, off_t *from)
{
	struct stat status;
	int fd = open(a->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	*from = fd >= 0 && fstat(fd, &status) == 0 ? status.st_size : 0;
	if (*from > LOG_FILE_BYTES && ftruncate(fd, 0) == 0)
		*from = 0;
	return fd;
}

/* uacme's exit status is 0 where something was done, 1 where nothing is due, 2 on a fault; *fault
 * says which (caller frees). */
static enum run_result run(struct acme *a, const char *const *arguments, char **fault)
{
	struct child child;
	int status = 0;
	off_t from;
	int log_fd = open_log(a, &from);
	struct child_options options = {
		.program = a->program,
		.arguments = arguments,
		.directory = a->directory,
		.output_fd = log_fd,
		.keep_fd = -1,
	};
	bool started = log_fd >= 0 && child_start(&child, &options);
	if (!started)
		*fault = check_printf("%s cannot be started: %s", a->program, strerror(errno));
	if (log_fd >= 0)
		close(log_fd);
	if (!started)
		return RUN_FAILED;
	enum child_event event = child_wait(&child, a->stop_fd, RUN_LIMIT_MS, &status);
	if (event == CHILD_ENDED && WIFEXITED(status) && WEXITSTATUS(status) <= 1)
		return WEXITSTATUS(status) == 0 ? RUN_CHANGED : RUN_UNCHANGED;
	if (event != CHILD_ENDED)
		child_stop(&child, STOP_GRACE_MS);
	if (event == CHILD_STOP_ASKED)
		return RUN_STOPPED;
	*fault = event == CHILD_TIMEOUT ? check_strdup("it took longer than ten minutes") : last_line(a->log_path, from);
	if (!**fault) {
		free(*fault);
		*fault = child_describe_status(status);
	}
	return RUN_FAILED;
}

static enum run_result run_new_account(struct acme *a, char **fault)
{
	const char *email = a->settings->acme_email;
	const char *const arguments[] = {"uacme", "-v", "-c", a->directory, "-a", a->settings->acme_directory_url, "-t",
		"EC", "-y", "new", *email ? email : NULL, NULL};
	return run(a, arguments, fault);
}

static enum run_result run_issue(struct acme *a, char **fault)
{
	const char *arguments[16 + NAMES] = {"uacme", "-v", "-c", a->directory, "-a", a->settings->acme_directory_url,
		"-t", "EC", "-o", "-h", a->hook, "issue"};
	size_t count = 0;
	while (arguments[count])
		count++;
	for (size_t i = 0; a->names[i]; i++)
		arguments[count++] = a->names[i];
	return run(a, arguments, fault);
}

/* The file `account` marks an account that has worked. Without it one is asked for first; that fails
 * where there is one already, so only the certificate decides, and a fault takes the mark away. */
static enum run_result check(struct acme *a)
{
	char *mark = check_printf("%s/account", a->directory), *account_fault = NULL, *fault = NULL;
	enum run_result result = access(mark, F_OK) == 0 ? RUN_UNCHANGED : run_new_account(a, &account_fault);
	if (result != RUN_STOPPED)
		result = run_issue(a, &fault);
	if (result == RUN_CHANGED || result == RUN_UNCHANGED) {
		int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
	} else if (result == RUN_FAILED) {
		unlink(mark);
		journal_add(MODULE, "no certificate for %s: %s%s%s (see %s)", a->names[0], fault,
			account_fault ? "; account: " : "", account_fault ? account_fault : "", a->log_path);
	}
	free(account_fault);
	free(fault);
	free(mark);
	return result;
}

/* --- the thread --- */

/* False: the end was asked for. */
static bool sleep_until_woken(struct acme *a, int seconds)
{
	struct pollfd fds[] = {{.fd = a->stop_fd, .events = POLLIN}, {.fd = a->wake_fd, .events = POLLIN}};
	eventfd_t ignored;
	int events;
	do
		events = poll(fds, 2, seconds * 1000);
	while (events < 0 && errno == EINTR);
	if (fds[1].revents & POLLIN)
		eventfd_read(a->wake_fd, &ignored);
	return !(fds[0].revents & POLLIN);
}

static void *keep_certificate(void *argument)
{
	struct acme *a = argument;
	int retry_seconds = RETRY_FIRST_SECONDS, pause_seconds;
	do {
		enum run_result result = check(a);
		if (result == RUN_STOPPED)
			break;
		if (result == RUN_CHANGED) {
			log_info(MODULE, "a new certificate for %s is there", a->names[0]);
			certificates_reload();
		}
		pause_seconds = CHECK_SECONDS;
		if (result == RUN_FAILED) {
			pause_seconds = retry_seconds;
			retry_seconds *= RETRY_FACTOR;
			retry_seconds = retry_seconds > RETRY_LAST_SECONDS ? RETRY_LAST_SECONDS : retry_seconds;
		} else {
			retry_seconds = RETRY_FIRST_SECONDS;
		}
	} while (sleep_until_woken(a, pause_seconds));
	return NULL;
}

struct acme *acme_start(const struct settings *s)
{
	struct acme *a = check_calloc(1, sizeof *a);
	sigset_t all, kept;
	a->settings = s;
	a->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	a->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(a->stop_fd >= 0 && a->wake_fd >= 0);
	sigfillset(&all); /* signals are for the main thread */
	pthread_sigmask(SIG_SETMASK, &all, &kept);
	if (prepare(a))
		a->has_thread = pthread_create(&a->thread, NULL, keep_certificate, a) == 0;
	pthread_sigmask(SIG_SETMASK, &kept, NULL);
	if (!a->has_thread) {
		acme_stop(a);
		return NULL;
	}
	pthread_setname_np(a->thread, "acme");
	return a;
}

void acme_check_now(struct acme *a)
{
	eventfd_write(a->wake_fd, 1);
}

void acme_stop(struct acme *a)
{
	if (!a)
		return;
	if (a->has_thread) {
		eventfd_write(a->stop_fd, 1);
		pthread_join(a->thread, NULL);
	}
	acme_http_stop(a->http);
	close(a->stop_fd);
	close(a->wake_fd);
	free(a->program);
	free(a->directory);
	free(a->hook);
	free(a->log_path);
	free(a->domains);
	free(a);
}
