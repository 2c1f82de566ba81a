/* egress: the proxies on the way out. Written once at start, read by all workers. */
#include "path/egress.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "state/redis_url.h"
#include "state/settings.h"
#include "state/snapshot.h"

struct proxy {
	char *url;           /* NULL: none */
	char *connect_url;   /* http:// proxies: scheme, host and port alone */
	char *authorization; /* http:// proxies with a user: Basic … */
};

static struct proxy http_proxy;
static struct proxy https_proxy;
static char *no_proxy;

/* The first of these variables that is set and not empty; *name: which. NULL: none. */
static const char *variable(const char *const *names, const char **name)
{
	for (; *names; names++) {
		const char *value = getenv(*names);
		*name = *names;
		if (value && *value)
			return value;
	}
	return NULL;
}

static char *basic_authorization(const char *user, const char *password)
{
	char *plain = check_printf("%s:%s", user, password ? password : "");
	size_t length = strlen(plain);
	unsigned char *encoded = check_calloc(length * 2 + 8, 1);
	EVP_EncodeBlock(encoded, (const unsigned char *)plain, (int)length);
	char *value = check_printf("Basic %s", (char *)encoded);
	free(encoded);
	free(plain);
	return value;
}

/* An http:// proxy is spoken to by ourselves where the target is plain: where it is, who we are. */
static void parse_http_proxy(struct proxy *p, CURLU *url, const char *host)
{
	char *port = NULL;
	char *user = NULL;
	char *password = NULL;
	curl_url_get(url, CURLUPART_PORT, &port, 0);
	curl_url_get(url, CURLUPART_USER, &user, CURLU_URLDECODE);
	curl_url_get(url, CURLUPART_PASSWORD, &password, CURLU_URLDECODE);
	p->connect_url = check_printf("http://%s:%s/", host, port ? port : "1080");
	p->authorization = user ? basic_authorization(user, password) : NULL;
	curl_free(port);
	curl_free(user);
	curl_free(password);
}

/* After these the socket is bare again. TLS to the proxy itself would have to go on around what follows. */
static bool is_spoken(const char *scheme)
{
	static const char *const spoken[] = {"http", "socks4", "socks4a", "socks5", "socks5h"};
	for (size_t i = 0; i < sizeof spoken / sizeof spoken[0]; i++)
		if (strcasecmp(scheme, spoken[i]) == 0)
			return true;
	return false;
}

static bool parse_proxy(struct proxy *p, const char *value)
{
	char *scheme = NULL;
	char *host = NULL;
	CURLU *url = curl_url();
	CHECK(url);
	p->url = strstr(value, "://") ? check_strdup(value) : check_printf("http://%s", value);
	bool fine = curl_url_set(url, CURLUPART_URL, p->url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK && is_spoken(scheme) &&
		curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK;
	if (fine && strcasecmp(scheme, "http") == 0)
		parse_http_proxy(p, url, host);
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(url);
	return fine;
}

static bool init_proxy(struct proxy *p, const char *const *names)
{
	const char *name;
	const char *value = variable(names, &name);
	if (!value || parse_proxy(p, value))
		return true;
	char *shown = redis_url_without_password(value); /* of any URL */
	settings_refuse_variable(name, shown,
		"not a proxy URL; accepted: [SCHEME://][user:password@]host[:port], SCHEME http, socks4, socks4a, socks5 or "
		"socks5h");
	free(shown);
	return false;
}

bool egress_init(void)
{
	static const char *const of_http[] = {"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", NULL};
	static const char *const of_https[] = {"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", NULL};
	static const char *const of_none[] = {"NO_PROXY", "no_proxy", NULL};
	const char *name;
	const char *none = variable(of_none, &name);
	no_proxy = none ? check_strdup(none) : NULL;
	return init_proxy(&http_proxy, of_http) && init_proxy(&https_proxy, of_https);
}

static void free_proxy(struct proxy *p)
{
	free(p->url);
	free(p->connect_url);
	free(p->authorization);
	*p = (struct proxy){0};
}

void egress_fini(void)
{
	free_proxy(&http_proxy);
	free_proxy(&https_proxy);
	free(no_proxy);
	no_proxy = NULL;
}

/* Are host and the network of `block` ("10.0.0.0/8", "fd00::/8") the same in their first bits? */
static bool in_block(const char *host, const char *block)
{
	char network[64];
	unsigned char a[16];
	unsigned char b[16];
	const char *slash = strchr(block, '/');
	if (!slash || (size_t)(slash - block) >= sizeof network)
		return false;
	memcpy(network, block, (size_t)(slash - block));
	network[slash - block] = 0;
	int family = strchr(network, ':') ? AF_INET6 : AF_INET;
	int bits = atoi(slash + 1);
	if (inet_pton(family, network, b) != 1 || inet_pton(family, host, a) != 1 || bits < 0 ||
		bits > (family == AF_INET ? 32 : 128) || memcmp(a, b, (size_t)bits / 8) != 0)
		return false;
	unsigned char mask = (unsigned char)(0xff00 >> (bits % 8));
	return !(bits % 8) || (a[bits / 8] & mask) == (b[bits / 8] & mask);
}

/* Takes ":PORT" off an entry. 0: it has none. */
static unsigned take_port(char *entry)
{
	char *colon = strrchr(entry, ':');
	bool bare_ipv6 = colon && strchr(entry, ':') != colon && colon[-1] != ']';
	if (!colon || bare_ipv6 || colon[1 + strspn(colon + 1, "0123456789")])
		return 0;
	*colon = 0;
	return (unsigned)atoi(colon + 1);
}

static bool entry_matches(const char *entry, const char *host)
{
	size_t entry_length = strlen(entry);
	size_t host_length = strlen(host);
	if (strcmp(entry, "*") == 0 || in_block(host, entry))
		return true;
	if (entry[0] == '[' && entry[entry_length - 1] == ']')
		return host_length == entry_length - 2 && strncasecmp(host, entry + 1, host_length) == 0;
	for (; *entry == '.'; entry++)
		entry_length--;
	if (!entry_length || host_length < entry_length)
		return false;
	const char *tail = host + host_length - entry_length;
	return strcasecmp(tail, entry) == 0 && (tail == host || tail[-1] == '.');
}

static bool is_direct(const struct target *target)
{
	char entry[256];
	const char *at = no_proxy;
	while (at && *at) {
		size_t length = strcspn(at, ", ");
		if (length && length < sizeof entry) {
			memcpy(entry, at, length);
			entry[length] = 0;
			unsigned port = take_port(entry);
			if ((!port || port == target->port) && entry_matches(entry, target->host))
				return true;
		}
		at += length + strspn(at + length, ", ");
	}
	return false;
}

struct egress_route egress_route(const struct target *target)
{
	const struct proxy *p = target->tls ? &https_proxy : &http_proxy;
	if (!p->url || is_direct(target))
		return (struct egress_route){0};
	if (target->tls || !p->connect_url)
		return (struct egress_route){.curl_proxy = p->url};
	return (struct egress_route){.connect_url = p->connect_url, .authorization = p->authorization};
}
