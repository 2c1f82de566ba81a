/* pages: the embedded files as a browser wants them. Owns their entity tags, made at the first request
 * (hashing touches every page of the files). libmicrohttpd's thread.
 *
 * Each file is asked for again with If-None-Match (Cache-Control: no-cache), so that a new binary's
 * pages and scripts never mix with an old one's. Only names with a type below are given out: Lua
 * scripts are embedded too. */
#include "admin/admin.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/embedded.h"
#include "state/secrets.h"

#define HTML_TYPE "text/html; charset=utf-8"

static const struct {
	const char *suffix, *type;
} types[] = {
	{".js", "text/javascript; charset=utf-8"},
	{".css", "text/css; charset=utf-8"},
	{".svg", "image/svg+xml"},
	{".png", "image/png"},
	{".ico", "image/x-icon"},
	{".woff2", "font/woff2"},
	{".webmanifest", "application/manifest+json"},
};

/* form-action 'none': a form that a script failed to catch must not put a token into a URL. */
static const char content_security_policy[] =
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
	"font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

enum { TAG_SIZE = 1 + 16 + 1 + 1 };
static char (*tags)[TAG_SIZE]; /* by place in embedded_files */
static pthread_once_t tags_once = PTHREAD_ONCE_INIT;

static void make_tags(void)
{
	size_t count = 0;
	while (embedded_files[count].name)
		count++;
	tags = check_calloc(count + 1, sizeof *tags);
	for (size_t i = 0; i < count; i++) {
		uint8_t sha256[32];
		char hex[SECRETS_HEX_CHARS + 1];
		secrets_sha256(embedded_files[i].data, embedded_files[i].length, sha256);
		secrets_to_hex(sha256, hex);
		tags[i][0] = '"';
		memcpy(tags[i] + 1, hex, 16);
		tags[i][17] = '"';
	}
}

/* RFC 9110, section 13.1.2: a list of tags, weak ones too, or "*". */
static bool tag_is_listed(const char *if_none_match, const char *tag)
{
	return if_none_match && (strcmp(if_none_match, "*") == 0 || strstr(if_none_match, tag));
}

static void reply_file(const struct admin_request *request, struct admin_reply *reply, const char *name,
	const char *type)
{
	const struct embedded_file *file = embedded_find(name);
	if (!file) {
		admin_reply_problem(reply, PROBLEM_NO_MAPPING, "There is nothing at %s.", request->path);
		return;
	}
	pthread_once(&tags_once, make_tags);
	const char *tag = tags[file - embedded_files];
	if (tag_is_listed(request->if_none_match, tag))
		reply->status = 304;
	else
		admin_reply_static(reply, 200, type, file->data, file->length);
	admin_reply_header(reply, "ETag", "%s", tag);
	admin_reply_header(reply, "Cache-Control", "no-cache");
	admin_reply_header(reply, "Content-Security-Policy", "%s", content_security_policy);
	admin_reply_header(reply, "Referrer-Policy", "no-referrer");
}

void page_get_admin_slash(const struct admin_request *request, struct admin_reply *reply)
{
	(void)request;
	admin_reply_text(reply, 308, "text/plain", check_strdup("/admin\n"));
	admin_reply_header(reply, "Location", "%s", "/admin");
}

void page_get(const struct admin_request *request, struct admin_reply *reply)
{
	static const char *const names[] = {[PAGE_INDEX] = "index.html", [PAGE_ADMIN] = "admin.html"};
	reply_file(request, reply, names[request->detail], HTML_TYPE);
}

static const char *type_of(const char *name)
{
	size_t length = strlen(name);
	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		size_t suffix_length = strlen(types[i].suffix);
		if (length > suffix_length && strcmp(name + length - suffix_length, types[i].suffix) == 0)
			return types[i].type;
	}
	return NULL;
}

void page_get_static(const struct admin_request *request, struct admin_reply *reply)
{
	const char *type = type_of(request->tail);
	if (type)
		reply_file(request, reply, request->tail, type);
	else
		admin_reply_problem(reply, PROBLEM_NO_MAPPING, "There is nothing at %s.", request->path);
}

void page_reply_denied(struct admin_reply *reply)
{
	/* The page holds no figures: it asks for the token, and then /stats. */
	const struct embedded_file *page = embedded_find("index.html");
	CHECK(page);
	admin_reply_static(reply, 401, HTML_TYPE, page->data, page->length);
	admin_reply_header(reply, "Cache-Control", "no-store");
	admin_reply_header(reply, "Content-Security-Policy", "%s", content_security_policy);
	admin_reply_header(reply, "Referrer-Policy", "no-referrer");
}
