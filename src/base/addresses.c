/* addresses: getaddrinfo(3), twice through its list. No state. */
#include "base/addresses.h"

#include <netdb.h>
#include <stdbool.h>
#include <sys/socket.h>

static void take(struct addresses *found, const struct addrinfo *list, bool ipv4)
{
	for (; list && found->count < ADDRESSES_MAX; list = list->ai_next)
		if ((list->ai_family == AF_INET) == ipv4 &&
			getnameinfo(list->ai_addr, list->ai_addrlen, found->text[found->count], ADDRESSES_TEXT, NULL, 0,
				NI_NUMERICHOST) == 0)
			found->count++;
}

const char *addresses_find(struct addresses *found, const char *host)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	found->count = 0;
	int fault = getaddrinfo(host, NULL, &hints, &list);
	if (fault)
		return gai_strerror(fault);
	take(found, list, true);
	take(found, list, false);
	freeaddrinfo(list);
	return found->count ? NULL : gai_strerror(EAI_NONAME);
}
