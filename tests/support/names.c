// A name of the test's own: preloaded into a program, or included in one, it lets getaddrinfo() find the addresses
// that the environment's NAMES has for it, in their order: "redis.test ::1 127.0.0.1", and takes NAMES_MS over it.
// Other names are left alone.
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *restrict name, const char *restrict service, const struct addrinfo *restrict hints,
	struct addrinfo **restrict found)
{
	resolver *resolve = (resolver *)dlsym(RTLD_NEXT, "getaddrinfo");
	const char *names = getenv("NAMES");
	size_t length = names ? strcspn(names, " ") : 0;
	char text[256] = "", *rest = text;
	struct addrinfo **end = found;
	if (!length || !name || strlen(name) != length || memcmp(name, names, length) != 0)
		return resolve(name, service, hints, found);
	*found = NULL;
	usleep(getenv("NAMES_MS") ? (useconds_t)atoi(getenv("NAMES_MS")) * 1000 : 0);
	strncpy(text, names + length, sizeof text - 1);
	for (char *address = strtok_r(rest, " ", &rest); address; address = strtok_r(rest, " ", &rest))
		if (resolve(address, service, hints, end) == 0)
			while (*end)
				end = &(*end)->ai_next;
	return *found ? 0 : EAI_NONAME;
}
