/* The fuzzers' harnesses (tests/fuzz), run over their seeds: as they are, cut short at every place (every so
 * many bytes where a run takes long), and with each byte changed a few ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LLVMFuzzerTestOneInput fuzz_usage
#include "../fuzz/fuzz_usage.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_usage_request
#include "../fuzz/fuzz_usage_request.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_http1
#include "../fuzz/fuzz_http1.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_front
#include "../fuzz/fuzz_front.c"
#undef LLVMFuzzerTestOneInput

enum { SEED_MAX = 64 * 1024 };

typedef int harness_function(const uint8_t *data, size_t size);

static void vary(harness_function *harness, uint8_t *seed, size_t length, size_t stride)
{
	static const uint8_t changes[] = {0x01, 0x20, 0x80, 0xff};
	harness(seed, length);
	for (size_t cut = 0; cut < length; cut += stride)
		harness(seed, cut);
	for (size_t i = 0; i < length; i += stride) {
		for (unsigned c = 0; c < sizeof changes; c++) {
			seed[i] ^= changes[c];
			harness(seed, length);
			seed[i] ^= changes[c];
		}
	}
}

static void run(const char *name, harness_function *harness, size_t stride)
{
	static uint8_t seed[SEED_MAX];
	char path[512];
	unsigned count = 0;
	snprintf(path, sizeof path, "tests/fuzz/corpus/%s", name);
	DIR *folder = opendir(path);
	assert_non_null(folder);
	for (struct dirent *entry; (entry = readdir(folder));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "tests/fuzz/corpus/%s/%s", name, entry->d_name);
		FILE *file = fopen(path, "rb");
		assert_non_null(file);
		size_t length = fread(seed, 1, sizeof seed, file);
		fclose(file);
		vary(harness, seed, length, stride);
		count++;
	}
	closedir(folder);
	assert_true(count > 0);
}

static void test_usage(void **state)
{
	(void)state;
	run("fuzz_usage", fuzz_usage, 1);
}

static void test_usage_request(void **state)
{
	(void)state;
	run("fuzz_usage_request", fuzz_usage_request, 1);
}

static void test_http1(void **state)
{
	(void)state;
	run("fuzz_http1", fuzz_http1, 1);
}

static void test_front(void **state)
{
	(void)state;
	run("fuzz_front", fuzz_front, 11); /* a play is long: a prime number of bytes apart */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_usage_request),
		cmocka_unit_test(test_http1),
		cmocka_unit_test(test_front),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
