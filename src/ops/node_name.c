/* node_name: data_dir/node_id, node_id.2 …: the first that no other process has locked. The file
 * descriptor with the lock stays open for the life of the process. */
#include "ops/node_name.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

enum { PROCESSES_MAX = 64, NAME_BYTES_MAX = 100 };

static bool is_name(const char *text)
{
	size_t length = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-");
	return length > 0 && text[length] == '\0';
}

static char *make_name(void)
{
	char host[64] = "";
	uint32_t random = 0;
	gethostname(host, sizeof host - 1);
	CHECK(getrandom(&random, sizeof random, 0) == sizeof random);
	return check_printf("%s-%08" PRIx32, is_name(host) ? host : "node", random);
}

/* NULL: it cannot be written. */
static char *read_or_write_name(int fd)
{
	char text[NAME_BYTES_MAX + 1];
	ssize_t length = pread(fd, text, sizeof text - 1, 0);
	if (length < 0)
		return NULL;
	text[length] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (is_name(text))
		return check_strdup(text);
	char *name = make_name();
	if (ftruncate(fd, 0) == 0 && dprintf(fd, "%s\n", name) > 0)
		return name;
	free(name);
	return NULL;
}

char *node_name_load(const char *data_dir)
{
	for (int i = 1; i <= PROCESSES_MAX; i++) {
		char *path = i == 1 ? check_printf("%s/node_id", data_dir) : check_printf("%s/node_id.%d", data_dir, i);
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		int error = errno;
		char *name = NULL;
		bool taken = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
		if (fd >= 0 && !taken) {
			name = read_or_write_name(fd);
			error = errno;
		}
		if (!name && !taken)
			log_warning("stats", "%s: %s; totals will not survive a restart", path, strerror(error));
		free(path);
		if (name)
			return name;
		if (fd >= 0)
			close(fd);
		if (!taken)
			break;
	}
	return make_name();
}
