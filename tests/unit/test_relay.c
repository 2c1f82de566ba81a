/* relay: framing for the sink, and what it does not take at once: nothing is lost, doubled or reordered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "path/relay.h"

enum { RECEIVED_MAX = 8 << 20 };

static struct io sink;
static struct io full = {.watch = {.fd = -1}}; /* takes nothing now */
static int peer;
static char received[RECEIVED_MAX];
static size_t received_length;

static int open_pair(void **state)
{
	int pair[2];
	int small = 4096;
	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
	sink = (struct io){.watch = {.fd = pair[0]}, .writable = true};
	peer = pair[1];
	received_length = 0;
	return 0;
}

static int close_pair(void **state)
{
	(void)state;
	close(sink.watch.fd);
	if (peer >= 0)
		close(peer);
	return 0;
}

static void drain(void)
{
	ssize_t count;
	while ((count = read(peer, received + received_length, sizeof received - received_length)) > 0)
		received_length += (size_t)count;
	sink.writable = true;
}

static void test_framing(void **state)
{
	static const char expected[] = "5\r\nhello\r\n1\r\n!\r\n2\r\nab\r\n0\r\n\r\n";
	struct relay r = {.chunked = true};
	(void)state;
	assert_int_equal(relay_send(&r, &sink, "hello", 5, false), RELAY_OK);
	assert_int_equal(relay_send(&r, &full, "!", 1, false), RELAY_OK);
	assert_false(relay_is_done(&r));
	assert_int_equal(relay_send(&r, &sink, NULL, 0, false), RELAY_OK);
	assert_int_equal(relay_send(&r, &sink, "ab", 2, true), RELAY_OK);
	assert_true(relay_is_done(&r));
	assert_int_equal(r.bytes, 8);
	drain();
	assert_int_equal(received_length, sizeof expected - 1);
	assert_memory_equal(received, expected, received_length);
	relay_free(&r);
}

static void test_ends(void **state)
{
	struct relay chunked = {.chunked = true};
	struct relay plain = {0};
	(void)state;
	assert_int_equal(relay_send(&chunked, &sink, NULL, 0, true), RELAY_OK);
	assert_true(relay_is_done(&chunked));
	assert_int_equal(relay_send(&plain, &sink, NULL, 0, false), RELAY_OK);
	assert_false(relay_is_done(&plain));
	assert_int_equal(relay_send(&plain, &sink, "x", 1, true), RELAY_OK);
	assert_true(relay_is_done(&plain));
	drain();
	assert_int_equal(received_length, 6);
	assert_memory_equal(received, "0\r\n\r\nx", 6);
	relay_free(&chunked);
	relay_free(&plain);
}

/* A sink that takes little, at times nothing: the stream is the same in the end. */
static void test_slow_sink(void **state)
{
	static char content[10000];
	struct relay r = {0};
	unsigned seed = 5;
	size_t total = 0;
	(void)state;
	for (int i = 0; i < 300; i++) {
		seed = seed * 1103515245 + 12345;
		size_t length = (seed >> 8) % sizeof content;
		for (size_t k = 0; k < length; k++)
			content[k] = (char)((total + k) * 7 % 251);
		total += length;
		if (seed & 1 << 20)
			assert_int_equal(relay_send(&r, &sink, content, length, false), RELAY_OK);
		else
			assert_int_equal(relay_send(&r, &full, content, length, false), RELAY_OK);
		if (seed & 1 << 21)
			drain();
	}
	r.finished = true;
	for (int i = 0; i < 100000 && !relay_is_done(&r); i++) {
		drain();
		assert_int_equal(relay_send(&r, &sink, NULL, 0, false), RELAY_OK);
	}
	drain();
	assert_true(relay_is_done(&r));
	assert_int_equal(r.bytes, total);
	assert_int_equal(received_length, total);
	for (size_t k = 0; k < total; k++)
		if (received[k] != (char)(k * 7 % 251))
			fail_msg("byte %zu differs", k);
	assert_null(r.pending.data); /* nothing is held for a stream that has passed */
	relay_free(&r);
}

static void test_sink_that_is_not_writable(void **state)
{
	struct relay r = {.chunked = true};
	(void)state;
	sink.writable = false;
	assert_int_equal(relay_send(&r, &sink, "abc", 3, true), RELAY_OK);
	assert_false(relay_is_done(&r));
	drain();
	assert_int_equal(received_length, 0);
	assert_int_equal(relay_send(&r, &sink, NULL, 0, false), RELAY_OK);
	drain();
	assert_int_equal(received_length, 13);
	assert_memory_equal(received, "3\r\nabc\r\n0\r\n\r\n", 13);
	assert_int_equal(r.taken, 13);
	relay_free(&r);
}

static void test_sink_that_is_gone(void **state)
{
	struct relay r = {0};
	(void)state;
	close(peer);
	peer = -1;
	assert_int_equal(relay_send(&r, &sink, "abc", 3, false), RELAY_SINK_GONE);
	relay_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_framing, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(test_ends, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(test_slow_sink, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(test_sink_that_is_not_writable, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(test_sink_that_is_gone, open_pair, close_pair),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
