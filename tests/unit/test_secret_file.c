/* secret_file: made once, kept, private, never overwritten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/secret_file.h"
#include "state/settings.h"
#include "files_fixture.h"

static char directory[] = "/tmp/apiproxy-secret-XXXXXX";
static char data_dir[64];
static struct settings settings;
static char none[] = "";

static char *path_of(const char *name)
{
	return check_printf("%s/%s", data_dir, name);
}

static int enter(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(data_dir, sizeof data_dir, "%s/a/b", directory);
	settings.server_data_dir = data_dir;
	log_configure(LOG_ERROR + 1, false);
	return 0;
}

static int begin(void **state)
{
	(void)state;
	settings.admin_token = none;
	settings.secrets_master_key = none;
	return 0;
}

static int leave(void **state)
{
	(void)state;
	const char *const names[] = {"admin_token", "master_key"};
	for (size_t i = 0; i < 2; i++) {
		char *path = path_of(names[i]);
		unlink(path);
		free(path);
	}
	bool empty = rmdir(data_dir) == 0; /* nothing else was left there */
	*strrchr(data_dir, '/') = 0;
	return empty && rmdir(data_dir) == 0 && rmdir(directory) == 0 ? 0 : -1;
}

static unsigned mode_of(const char *path)
{
	struct stat status;
	assert_int_equal(stat(path, &status), 0);
	return status.st_mode & 0777;
}

static void test_admin_token(void **state)
{
	struct secret first, second;
	(void)state;
	settings.admin_token = none;
	assert_true(admin_token_load(&settings, &first));
	assert_true(first.created);
	assert_int_equal(strlen(first.value), 43);
	assert_int_equal(mode_of(first.path), 0600);
	assert_int_equal(mode_of(data_dir), 0700);
	assert_int_equal(chmod(first.path, 0644), 0);
	assert_true(admin_token_load(&settings, &second));
	assert_false(second.created);
	assert_string_equal(second.value, first.value);
	assert_int_equal(mode_of(first.path), 0600);
	secret_fini(&first);
	secret_fini(&second);
	assert_null(second.value);
	settings.admin_token = (char[]){"given"};
	assert_true(admin_token_load(&settings, &first));
	assert_string_equal(first.value, "given");
	assert_null(first.path);
	secret_fini(&first);
}

static void test_master_key(void **state)
{
	uint8_t first[32], second[32];
	(void)state;
	settings.secrets_master_key = none;
	assert_true(master_key_load(&settings, first));
	assert_true(master_key_load(&settings, second));
	assert_memory_equal(first, second, 32);
	settings.secrets_master_key = (char[]){"00ff02030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F"};
	assert_true(master_key_load(&settings, second));
	assert_int_equal(second[0], 0);
	assert_int_equal(second[1], 0xff);
	assert_int_equal(second[31], 0x1f);
	assert_memory_not_equal(first, second, 32);
}

static void test_bad_file_is_kept(void **state)
{
	uint8_t key[32];
	(void)state;
	settings.secrets_master_key = none;
	char *path = path_of("master_key");
	files_write(path, "half a key\n");
	assert_false(master_key_load(&settings, key));
	char *text = files_read(path);
	assert_string_equal(text, "half a key\n");
	free(text);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_admin_token, begin),
		cmocka_unit_test_setup(test_master_key, begin), cmocka_unit_test_setup(test_bad_file_is_kept, begin)};
	return cmocka_run_group_tests_name("secret_file", tests, enter, leave);
}
