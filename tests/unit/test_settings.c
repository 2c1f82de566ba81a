/* settings: precedence, both file formats, every error line, what is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "state/settings.h"
#include "state/settings_table.h"
#include "files_fixture.h"

static char directory[] = "/tmp/apiproxy-settings-XXXXXX";

static int clean(void **state)
{
	(void)state;
	for (size_t i = 0; i < settings_count; i++)
		unsetenv(settings_table[i].environment);
	unsetenv("PORT");
	unlink(".env");
	unlink("apiproxy.ini");
	unlink("other.ini");
	return 0;
}

static int enter_directory(void **state)
{
	(void)state;
	return mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

static int leave_directory(void **state)
{
	clean(state);
	return chdir("/") == 0 && rmdir(directory) == 0 ? 0 : -1;
}

static void read_good(struct settings *s, const char *config_file)
{
	struct settings_options o = {.config_file = config_file};
	char *error = settings_read(s, &o);
	if (error)
		print_error("%s\n", error);
	assert_null(error);
}

static void expect_error(const char *config_file, const char *expected)
{
	struct settings s;
	struct settings_options o = {.config_file = config_file};
	char *error = settings_read(&s, &o);
	assert_non_null(error);
	assert_string_equal(error, expected);
	free(error);
}

static void expect_error_part(const char *part, const char *absent)
{
	struct settings s;
	struct settings_options o = {0};
	char *error = settings_read(&s, &o);
	assert_non_null(error);
	if (!strstr(error, part) || strchr(error, '\n') || (absent && strstr(error, absent)))
		fail_msg("error line: %s\nexpected in it: %s", error, part);
	free(error);
}

static void test_defaults(void **state)
{
	struct settings s;
	(void)state;
	read_good(&s, NULL);
	assert_string_equal(s.server_listen, "0.0.0.0:8000");
	assert_string_equal(s.server_ops_listen, "");
	assert_int_equal(s.server_workers, 0);
	assert_int_equal(s.server_drain_seconds, 30);
	assert_int_equal(s.server_header_timeout_seconds, 30);
	assert_int_equal(s.server_idle_timeout_seconds, 75);
	assert_string_equal(s.server_data_dir, "./data");
	assert_true(s.server_public_stats);
	assert_string_equal(s.redis_url, "");
	assert_int_equal(s.auth_token_ttl_seconds, 3600);
	assert_int_equal(s.auth_login_cache_seconds, 60);
	assert_int_equal(s.limits_on_redis_failure, REDIS_FAILURE_LOCAL);
	assert_true(s.stats_enabled);
	assert_int_equal(s.log_level, LOG_INFO);
	assert_int_equal(s.log_format, LOG_FORMAT_TEXT);
	assert_false(s.log_access);
	assert_false(s.tls_enabled);
	assert_false(s.acme_enabled);
	assert_string_equal(s.config_file, "");
	settings_free(&s);
}

static void test_precedence(void **state)
{
	struct settings s;
	(void)state;
	files_write("apiproxy.ini",
		"[server]\nworkers = 2\ndrain_seconds = 3\nidle_timeout_seconds = 4\n[log]\nlevel=debug\n");
	files_write("other.ini", "[server]\nworkers = 7\n");
	files_write(".env", "API_PROXY_DRAIN_SECONDS=13\nexport API_PROXY_IDLE_TIMEOUT_SECONDS=14\nPORT=9001\n");
	assert_int_equal(setenv("API_PROXY_IDLE_TIMEOUT_SECONDS", "24", 1), 0);
	read_good(&s, NULL);
	assert_int_equal(s.server_workers, 2);
	assert_int_equal(s.server_drain_seconds, 13);
	assert_int_equal(s.server_idle_timeout_seconds, 24);
	assert_int_equal(s.server_header_timeout_seconds, 30);
	assert_int_equal(s.log_level, LOG_DEBUG);
	assert_string_equal(s.server_listen, "0.0.0.0:9001");
	assert_string_equal(s.config_file, "apiproxy.ini");
	settings_free(&s);
	read_good(&s, "other.ini");
	assert_int_equal(s.server_workers, 7);
	assert_int_equal(s.log_level, LOG_INFO);
	settings_free(&s);
}

static void test_port_replaces_port(void **state)
{
	struct settings s;
	(void)state;
	files_write("apiproxy.ini", "[server]\nlisten = 127.0.0.1:7000\n");
	files_write(".env", "API_PROXY_LISTEN=127.0.0.2:7001\nPORT=9001\n");
	read_good(&s, NULL);
	assert_string_equal(s.server_listen, "127.0.0.2:9001");
	settings_free(&s);
	files_write(".env", "PORT=9001\n");
	read_good(&s, NULL);
	assert_string_equal(s.server_listen, "127.0.0.1:9001");
	settings_free(&s);
	setenv("API_PROXY_LISTEN", "[::1]:8000", 1);
	setenv("PORT", "9002", 1);
	read_good(&s, NULL);
	assert_string_equal(s.server_listen, "[::1]:9002");
	settings_free(&s);
	unsetenv("PORT"); /* what the environment says wins over a file */
	read_good(&s, NULL);
	assert_string_equal(s.server_listen, "[::1]:8000");
	settings_free(&s);
}

static void test_ini_syntax(void **state)
{
	struct settings s;
	(void)state;
	files_write("apiproxy.ini",
		"\xef\xbb\xbf; a comment\n# another\n\n[server] ; main\n"
		"\tworkers = 3 ; three\n   drain_seconds: 5\r\n"
		"data_dir = \"/tmp/a ; b \\\"c\\\" \\\\ \"\n[admin]\ntoken = x#y;z\n[log]\naccess = YES\n");
	read_good(&s, NULL);
	assert_int_equal(s.server_workers, 3);
	assert_int_equal(s.server_drain_seconds, 5);
	assert_string_equal(s.server_data_dir, "/tmp/a ; b \"c\" \\ ");
	assert_string_equal(s.admin_token, "x#y;z");
	assert_true(s.log_access);
	settings_free(&s);
}

static void test_dotenv_syntax(void **state)
{
	struct settings s;
	(void)state;
	files_write(".env",
		"# comment\nSOMETHING_ELSE=1\nnot a line at all\n  API_PROXY_WORKERS=3 # three\n"
		"API_PROXY_DATA_DIR='/tmp/a # b'\nADMIN_TOKEN=\"tok;en\"\nexport  API_PROXY_STATS=off\n"
		"A_NAME_THAT_IS_MUCH_LONGER_THAN_ANY_NAME_THAT_A_PARSER_OF_INI_FILES_WANTS_TO_KEEP=x\n"
		"API_PROXY_PUBLIC_STATS=\n");
	read_good(&s, NULL);
	assert_int_equal(s.server_workers, 3);
	assert_string_equal(s.server_data_dir, "/tmp/a # b");
	assert_string_equal(s.admin_token, "tok;en");
	assert_false(s.stats_enabled);
	assert_true(s.server_public_stats);
	settings_free(&s);
}

/* inih cuts lines at 200 bytes; values may be longer. */
static void test_long_lines(void **state)
{
	struct settings s;
	char token[3001], *text;
	(void)state;
	for (size_t i = 0; i < sizeof token - 1; i++)
		token[i] = "abc;#=:[]x"[(i * 7 + i / 10) % 10];
	token[sizeof token - 1] = 0;
	token[0] = 'a';
	text = check_printf("# %s\n[server]\nworkers=2\n[admin]\ntoken = %s\n[log]\nlevel=error\n", token, token);
	files_write("apiproxy.ini", text);
	free(text);
	text = check_printf("OTHER=%s\nJUNK %s\nAPI_PROXY_DRAIN_SECONDS=7\n", token, token);
	files_write(".env", text);
	free(text);
	read_good(&s, NULL);
	assert_string_equal(s.admin_token, token);
	assert_int_equal(s.server_workers, 2);
	assert_int_equal(s.server_drain_seconds, 7);
	assert_int_equal(s.log_level, LOG_ERROR);
	settings_free(&s);
}

#define NUMBER_0_256 "bad value; accepted: a whole number from 0 to 256"
#define SWITCH_WORDS "bad value; accepted: off, on, false, true, no, yes, 0 or 1"

static void test_error_lines(void **state)
{
	(void)state;
	static const struct {
		const char *ini, *expected;
	} cases[] = {
		{"[server]\n\nworkers = many\n", "apiproxy.ini:3: server.workers = many: " NUMBER_0_256},
		{"[server]\nworkers = 257\n", "apiproxy.ini:2: server.workers = 257: " NUMBER_0_256},
		{"[server]\nworkers = -1\n", "apiproxy.ini:2: server.workers = -1: " NUMBER_0_256},
		{"[server]\nworkers = 4x\n", "apiproxy.ini:2: server.workers = 4x: " NUMBER_0_256},
		{"[server]\nworkers =\n", "apiproxy.ini:2: server.workers = : " NUMBER_0_256},
		{"[server]\nworkers = 99999999999999999999\n",
			"apiproxy.ini:2: server.workers = 99999999999999999999: " NUMBER_0_256},
		{"[stats]\nenabled = maybe\n", "apiproxy.ini:2: stats.enabled = maybe: " SWITCH_WORDS},
		{"[log]\nlevel = loud\n",
			"apiproxy.ini:2: log.level = loud: bad value; accepted: debug, info, warning or error"},
		{"[log]\nformat = xml\n", "apiproxy.ini:2: log.format = xml: bad value; accepted: text or json"},
		{"[limits]\non_redis_failure = x\n",
			"apiproxy.ini:2: limits.on_redis_failure = x: bad value; accepted: local, allow or deny"},
		{"[admin]\ntoken = se cret\n",
			"apiproxy.ini:2: admin.token = (hidden): bad value; accepted: printable ASCII without spaces, or nothing"},
		{"[auth]\njwt_secret = short\n",
			"apiproxy.ini:2: auth.jwt_secret = (hidden): bad value; accepted: at least 32 characters, or nothing"},
		{"[secrets]\nmaster_key = 0123\n",
			"apiproxy.ini:2: secrets.master_key = (hidden): bad value; accepted: 64 hex digits, or nothing"},
		{"[logs]\nlevel = info\n",
			"apiproxy.ini:2: logs.level = info: unknown section; accepted: "
			"server, redis, admin, auth, secrets, limits, stats, log, tls, acme, bootstrap"},
		{"[admins]\nTOKEN = x\n",
			"apiproxy.ini:2: admins.TOKEN = (hidden): unknown section; accepted: "
			"server, redis, admin, auth, secrets, limits, stats, log, tls, acme, bootstrap"},
		{"[logs]\n[log]\nlevel = info\n",
			"apiproxy.ini:1: [logs]: unknown section; accepted: "
			"server, redis, admin, auth, secrets, limits, stats, log, tls, acme, bootstrap"},
		{"[logs]\n",
			"apiproxy.ini:1: [logs]: unknown section; accepted: "
			"server, redis, admin, auth, secrets, limits, stats, log, tls, acme, bootstrap"},
		{"\n[log]\nlevels = info\n",
			"apiproxy.ini:3: log.levels = info: unknown key; accepted in [log]: level, format, access"},
		{"[admin]\ntokem = pass\n",
			"apiproxy.ini:2: admin.tokem = (hidden): unknown key; accepted in [admin]: token"},
		{"workers = 1\n", "apiproxy.ini:1: workers = 1: a key before the first section; accepted: [section] first"},
		{"token = 1\n",
			"apiproxy.ini:1: token = (hidden): a key before the first section; accepted: [section] first"},
		{"[server]\nworkers 4\n",
			"apiproxy.ini:2: workers: malformed line; accepted: [section], or key = value, or key = \"value\""},
		{"[server]\ndata_dir = \"/tmp\n",
			"apiproxy.ini:2: data_dir: malformed line; accepted: [section], or key = value, or key = \"value\""},
		{"[server\n",
			"apiproxy.ini:1: [server: malformed line; accepted: [section], or key = value, or key = \"value\""},
		{"[tls]\nenabled = on\n",
			"apiproxy.ini:2: tls.enabled = on: needs tls.cert and tls.key, or tls.self_signed, or acme.enabled"},
		{"[tls]\ncert = /etc/passwd\n", "apiproxy.ini:2: tls.cert = /etc/passwd: needs tls.key"},
		{"[tls]\nkey = /etc/passwd\n", "apiproxy.ini:2: tls.key = /etc/passwd: needs tls.cert"},
		{"[tls]\nkey = /etc/passwd\ncert = /nowhere/x\n",
			"apiproxy.ini:3: tls.cert = /nowhere/x: the file cannot be read: No such file or directory"},
		{"[acme]\nenabled = on\n", "apiproxy.ini:2: acme.enabled = on: needs acme.domains"},
		{"[bootstrap]\nfile = /tmp\n",
			"apiproxy.ini:2: bootstrap.file = /tmp: the file cannot be read: it is a directory"},
		{"[server]\ndata_dir = /etc/passwd\n", "apiproxy.ini:2: server.data_dir = /etc/passwd: is no directory"},
		{"[server]\nops_listen = 0.0.0.0:8000\n",
			"apiproxy.ini:2: server.ops_listen = 0.0.0.0:8000: is the address of server.listen too"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		files_write("apiproxy.ini", cases[i].ini);
		expect_error(NULL, cases[i].expected);
	}
	expect_error("missing.ini", "missing.ini: cannot be read: No such file or directory");
	expect_error("/tmp", "/tmp: cannot be read: Is a directory");
}

static void test_error_lines_of_environment(void **state)
{
	(void)state;
	setenv("API_PROXY_WORKERS", "abc\nd", 1);
	expect_error(NULL, "environment API_PROXY_WORKERS=abc?d: " NUMBER_0_256);
	unsetenv("API_PROXY_WORKERS");
	setenv("PORT", "70000", 1);
	expect_error(NULL, "environment PORT=70000: bad value; accepted: a port from 1 to 65535");
	setenv("PORT", "127.0.0.1:80", 1);
	expect_error(NULL, "environment PORT=127.0.0.1:80: bad value; accepted: a port from 1 to 65535");
	unsetenv("PORT");
	files_write(".env", "X=1\nPORT=0\n");
	expect_error(NULL, ".env:2: PORT=0: bad value; accepted: a port from 1 to 65535");
	files_write(".env", "\nAPI_PROXY_STATS=2\n");
	expect_error(NULL, ".env:2: API_PROXY_STATS=2: " SWITCH_WORDS);
	files_write(".env", "API_PROXY_STATS on\n");
	expect_error(NULL, ".env:1: API_PROXY_STATS: malformed line; accepted: NAME=value, or NAME=\"value\"");
	unlink(".env");
	setenv("API_PROXY_JWT_SECRET", "tooshort", 1);
	expect_error_part("environment API_PROXY_JWT_SECRET=(hidden): ", "tooshort");
	unsetenv("API_PROXY_JWT_SECRET");
	setenv("API_PROXY_REDIS_URL", "http://me:pa55@host", 1);
	expect_error_part("environment API_PROXY_REDIS_URL=http://me:***@host: ", "pa55");
	/* A fault is one even where a better source overrides it. */
	unsetenv("API_PROXY_REDIS_URL");
	files_write("apiproxy.ini", "[server]\nworkers = x\n");
	setenv("API_PROXY_WORKERS", "1", 1);
	expect_error_part("apiproxy.ini:2: server.workers = x: ", NULL);
}

static void test_listen_addresses(void **state)
{
	(void)state;
	static const struct {
		const char *text, *host;
		int port;
	} good[] = {{"127.0.0.1:8000", "127.0.0.1", 8000}, {"[::]:8000", "::", 8000}, {":8000", "0.0.0.0", 8000},
		{"8000", "0.0.0.0", 8000}, {"*:80", "0.0.0.0", 80}, {"localhost:65535", "localhost", 65535},
		{"[::1]:1", "::1", 1}};
	static const char *const bad[] = {"", "host", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "1.2.3.4:65536",
		"1.2.3:80", "1.2.3.400:80", "::1:80", "[::1]", "[::1]80", "[1.2.3.4]:80", "a b:80", "x:8o", ":-1", ":+1",
		": 1", "-x:80", "a..b:80", "[]:80"};
	struct listen_address address;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_true(settings_parse_listen(good[i].text, &address));
		assert_string_equal(address.host, good[i].host);
		assert_int_equal(address.port, good[i].port);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (settings_parse_listen(bad[i], &address))
			fail_msg("accepted: %s", bad[i]);
}

static void test_texts_that_are_checked(void **state)
{
	(void)state;
	static const struct {
		const char *name, *value;
		bool good;
	} cases[] = {
		{"API_PROXY_CORS_ORIGINS", "*", true},
		{"API_PROXY_CORS_ORIGINS", "https://a.example, http://localhost:3000", true},
		{"API_PROXY_CORS_ORIGINS", "https://a.example/", false},
		{"API_PROXY_CORS_ORIGINS", "a.example", false},
		{"API_PROXY_CORS_ORIGINS", "https://a.example,,", false},
		{"API_PROXY_CORS_ORIGINS", "*, https://a.example", false},
		{"API_PROXY_LOG_LEVEL", "Warn", true},
		{"API_PROXY_LOG_LEVEL", "warnings", false},
		{"API_PROXY_ACME_DOMAINS", "a.example,b.example", true},
		{"API_PROXY_ACME_DOMAINS", "*.example", false},
		{"API_PROXY_ACME_EMAIL", "me@a.example", true},
		{"API_PROXY_ACME_EMAIL", "me", false},
		{"API_PROXY_ACME_DIRECTORY_URL", "https://ca.example/dir", true},
		{"API_PROXY_ACME_DIRECTORY_URL", "http://ca.example/dir", false},
		{"API_PROXY_MASTER_KEY", "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF", true},
		{"API_PROXY_MASTER_KEY", "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFx", false},
		{"API_PROXY_JWT_SECRET", "12345678901234567890123456789012", true},
		{"API_PROXY_JWT_SECRET", "1234567890123456789012345678901", false},
		{"API_PROXY_REDIS_URL", "rediss://u:p@h:1/2", true},
		{"API_PROXY_REDIS_URL", "h:6379", false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct settings s;
		struct settings_options o = {0};
		setenv(cases[i].name, cases[i].value, 1);
		char *error = settings_read(&s, &o);
		if (!error != cases[i].good)
			fail_msg("%s=%s: %s", cases[i].name, cases[i].value, error ? error : "accepted");
		if (!error)
			settings_free(&s);
		free(error);
		unsetenv(cases[i].name);
	}
}

static void test_acme_turns_tls_on(void **state)
{
	struct settings s;
	(void)state;
	setenv("API_PROXY_ACME", "on", 1);
	setenv("API_PROXY_ACME_DOMAINS", "a.example", 1);
	read_good(&s, NULL);
	assert_true(s.tls_enabled);
	settings_free(&s);
}

static char *printed_config(const struct settings *s)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	assert_non_null(out);
	settings_print_config(s, out);
	fclose(out);
	return text;
}

/* What is printed reads back as the same settings, and shows no secret. */
static void test_print_config(void **state)
{
	struct settings s;
	(void)state;
	setenv("ADMIN_TOKEN", "hunter2", 1);
	setenv("API_PROXY_JWT_SECRET", "hunter3-hunter3-hunter3-hunter3-hunter3", 1);
	setenv("API_PROXY_MASTER_KEY", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", 1);
	setenv("API_PROXY_REDIS_URL", "redis://me:hunter4@localhost:7/3", 1);
	setenv("API_PROXY_DATA_DIR", " /tmp/\\x ; \"y\" ", 1);
	setenv("PORT", "9003", 1);
	setenv("API_PROXY_LOG_LEVEL", "error", 1);
	read_good(&s, NULL);
	char *first = printed_config(&s);
	settings_free(&s);
	assert_null(strstr(first, "hunter"));
	assert_null(strstr(first, "00112233"));
	assert_non_null(strstr(first, "[admin]\n"));
	assert_non_null(strstr(first, "\ntoken = ***\n"));
	assert_non_null(strstr(first, "\njwt_secret = ***\n"));
	assert_non_null(strstr(first, "\nmaster_key = ***\n"));
	assert_non_null(strstr(first, "\nurl = redis://me:***@localhost:7/3\n"));
	assert_non_null(strstr(first, "\nlisten = 0.0.0.0:9003\n"));
	clean(NULL);
	files_write("other.ini", first);
	read_good(&s, "other.ini");
	assert_string_equal(s.admin_token, ""); /* *** is no secret */
	assert_string_equal(s.server_data_dir, " /tmp/\\x ; \"y\" ");
	assert_int_equal(s.log_level, LOG_ERROR);
	char *second = printed_config(&s);
	settings_free(&s);
	assert_non_null(strstr(second, "\nlisten = 0.0.0.0:9003\n"));
	assert_non_null(strstr(second, "\nlevel = error\n"));
	free(first);
	free(second);
}

static void test_another_word_is_printed_as_the_usual_one(void **state)
{
	struct settings s;
	(void)state;
	setenv("API_PROXY_LOG_LEVEL", "warn", 1);
	read_good(&s, NULL);
	char *text = printed_config(&s);
	assert_int_equal(s.log_level, LOG_WARNING);
	assert_non_null(strstr(text, "\nlevel = warning\n"));
	free(text);
	settings_free(&s);
}

static void test_every_setting_is_shown(void **state)
{
	(void)state;
	static void (*const prints[])(
		FILE *) = {settings_print_help, settings_print_markdown, settings_print_env_example};
	for (size_t p = 0; p < sizeof prints / sizeof *prints; p++) {
		char *text = NULL;
		size_t length = 0;
		FILE *out = open_memstream(&text, &length);
		assert_non_null(out);
		prints[p](out);
		fclose(out);
		for (size_t i = 0; i < settings_count; i++)
			if (!strstr(text, settings_table[i].environment))
				fail_msg("%s is missing", settings_table[i].environment);
		free(text);
	}
}

static void test_reload_of_log(void **state)
{
	struct settings s;
	struct settings_options o = {0};
	(void)state;
	read_good(&s, NULL);
	files_write("apiproxy.ini", "[log]\nlevel = error\naccess = on\n[server]\nworkers = 9\n");
	assert_true(settings_reload_log(&s, &o));
	assert_int_equal(s.log_level, LOG_ERROR);
	assert_true(s.log_access);
	assert_false(log_enabled(LOG_WARNING));
	assert_int_equal(s.server_workers, 0);
	files_write("apiproxy.ini", "[log]\nlevel = x\n");
	assert_false(settings_reload_log(&s, &o));
	assert_int_equal(s.log_level, LOG_ERROR);
	settings_free(&s);
	log_configure(LOG_INFO, false);
}

static void test_arguments(void **state)
{
	(void)state;
	static const struct {
		const char *arguments[4];
		bool good;
		enum settings_command command;
		const char *file;
	} cases[] = {
		{{NULL}, true, SETTINGS_SERVE, NULL},
		{{"--check"}, true, SETTINGS_CHECK, NULL},
		{{"-t", "-c", "x.ini"}, true, SETTINGS_CHECK, "x.ini"},
		{{"--config=x.ini", "--print-config"}, true, SETTINGS_PRINT_CONFIG, "x.ini"},
		{{"--config", "x.ini"}, true, SETTINGS_SERVE, "x.ini"},
		{{"-V"}, true, SETTINGS_VERSION, NULL},
		{{"-h"}, true, SETTINGS_HELP, NULL},
		{{"--config"}, false, SETTINGS_SERVE, NULL},
		{{"--bogus"}, false, SETTINGS_SERVE, NULL},
		{{"extra"}, false, SETTINGS_SERVE, NULL},
	};
	int kept = dup(2);
	int quiet = open("/dev/null", O_WRONLY);
	dup2(quiet, 2);
	close(quiet);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *argv[6] = {check_strdup("apiproxy")};
		char *copies[6] = {argv[0]};
		int argc = 1;
		for (; argc < 5 && cases[i].arguments[argc - 1]; argc++)
			copies[argc] = argv[argc] = check_strdup(cases[i].arguments[argc - 1]);
		struct settings_options o;
		bool ok = settings_parse_arguments(argc, argv, &o);
		assert_int_equal(ok, cases[i].good);
		if (ok) {
			assert_int_equal(o.command, cases[i].command);
			assert_int_equal(!o.config_file, !cases[i].file);
			if (o.config_file)
				assert_string_equal(o.config_file, cases[i].file);
		}
		for (int a = 0; a < argc; a++)
			free(copies[a]);
	}
	dup2(kept, 2);
	close(kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_defaults, clean),
		cmocka_unit_test_setup(test_precedence, clean),
		cmocka_unit_test_setup(test_port_replaces_port, clean),
		cmocka_unit_test_setup(test_ini_syntax, clean),
		cmocka_unit_test_setup(test_dotenv_syntax, clean),
		cmocka_unit_test_setup(test_long_lines, clean),
		cmocka_unit_test_setup(test_error_lines, clean),
		cmocka_unit_test_setup(test_error_lines_of_environment, clean),
		cmocka_unit_test_setup(test_listen_addresses, clean),
		cmocka_unit_test_setup(test_texts_that_are_checked, clean),
		cmocka_unit_test_setup(test_acme_turns_tls_on, clean),
		cmocka_unit_test_setup(test_print_config, clean),
		cmocka_unit_test_setup(test_another_word_is_printed_as_the_usual_one, clean),
		cmocka_unit_test_setup(test_every_setting_is_shown, clean),
		cmocka_unit_test_setup(test_reload_of_log, clean),
		cmocka_unit_test_setup(test_arguments, clean),
	};
	return cmocka_run_group_tests_name("settings", tests, enter_directory, leave_directory);
}
