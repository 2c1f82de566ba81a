/* front, exchange: how long they wait, and for whom. The stage is the fuzzer's (tests/fuzz/fuzz_front.c): one loop,
 * socket pairs, a clock that can be moved. A scene is a list of acts, with time to settle after each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define LLVMFuzzerTestOneInput fuzz_front
#include "../fuzz/fuzz_front.c"
#undef LLVMFuzzerTestOneInput

enum { TURNS = 100, ASKED = 200 };

typedef void act_function(void);

struct scene {
	struct loop_task task;
	act_function *const *acts; /* up to NULL */
	unsigned turns;
};

static void on_scene_turn(struct loop_task *t)
{
	struct scene *scene = container_of(t, struct scene, task);
	for (int i = 0; i < CLIENTS; i++)
		peer_listen(&clients[i]);
	for (int i = 0; i < VENDORS; i++)
		peer_listen(&vendors[i]);
	if (scene->turns++ % TURNS == 0) {
		if (!*scene->acts) {
			loop_stop(plane.loop);
			return;
		}
		(*scene->acts++)();
	}
	loop_defer(plane.loop, t);
}

static void leave(void)
{
	for (int i = 0; i < CLIENTS; i++)
		peer_leave(&clients[i]);
}

static void all_have_gone(void)
{
	assert_null(plane.fronts);
	assert_int_equal(plane.awaited_count, 0);
}

/* The last two acts of each scene are leave and all_have_gone. */
static void play_scene(act_function *const *acts)
{
	struct scene scene = {.task.run = on_scene_turn, .acts = acts};
	raise_curtain();
	loop_defer(plane.loop, &scene.task);
	loop_run(plane.loop);
	lower_curtain();
}

static void say(struct peer *p, const char *text)
{
	peer_say(p, (const uint8_t *)text, strlen(text));
}

static void ask(struct peer *p, const char *path)
{
	char text[128];
	snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
	if (p->fd < 0)
		enter_client(p);
	say(p, text);
}

static void let_pass(int seconds)
{
	passed_ms += seconds * 1000;
}

/* ---- a client that does not take its answer ---- */

static const char *asked;

static void asks_and_does_not_read(void)
{
	int small = 1;
	struct peer *p = &clients[0];
	ask(p, asked);
	p->stuck = true;
	setsockopt(plane.fronts->io.watch.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	for (int i = 1; i < ASKED; i++)
		ask(p, asked);
}

static void vendor_says_much(void)
{
	static char much[60 * 1024];
	struct peer *p = &vendors[0];
	if (p->fd < 0)
		return; /* the answer is our own */
	memset(much, 'x', sizeof much);
	say(p, "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n");
	peer_say(p, (uint8_t *)much, sizeof much);
}

static void is_there(void)
{
	assert_non_null(plane.fronts);
	assert_non_null(plane.fronts->exchange);
}

static void is_there_for_59_s(void)
{
	is_there();
	let_pass(59);
}

static void is_there_for_2_s(void)
{
	is_there();
	let_pass(2);
}

static void is_there_for_an_hour(void)
{
	is_there();
	let_pass(3600);
}

static void takes_a_little(void)
{
	char little[8 * 1024];
	is_there();
	assert_true(recv(clients[0].fd, little, sizeof little, MSG_DONTWAIT) > 0);
}

static void has_gone(void)
{
	assert_null(plane.fronts);
}

static void is_broken_off_after_a_minute(const char *path)
{
	asked = path;
	play_scene((act_function *const[]){asks_and_does_not_read, vendor_says_much, is_there_for_59_s, is_there_for_2_s,
		has_gone, leave, all_have_gone, NULL});
}

static void lives_while_it_takes_some(const char *path)
{
	asked = path;
	play_scene((act_function *const[]){asks_and_does_not_read, vendor_says_much, is_there_for_59_s, takes_a_little,
		is_there_for_59_s, takes_a_little, is_there_for_59_s, is_there_for_2_s, has_gone, leave, all_have_gone,
		NULL});
}

static void test_problem_that_is_not_taken(void **state)
{
	(void)state;
	is_broken_off_after_a_minute("/none");
	lives_while_it_takes_some("/none");
}

static void test_page_that_is_not_taken(void **state)
{
	(void)state;
	is_broken_off_after_a_minute("/stats");
	lives_while_it_takes_some("/stats");
}

static void test_vendors_answer_has_all_the_time(void **state)
{
	(void)state;
	asked = "/a";
	play_scene((act_function *const[]){asks_and_does_not_read, vendor_says_much, is_there_for_59_s, is_there_for_2_s,
		is_there_for_an_hour, is_there, leave, all_have_gone, NULL});
}

static void control_plane_is_slow(void)
{
	asked = "/stats";
	ask(&clients[0], asked);
}

static void test_control_plane_has_all_the_time(void **state)
{
	(void)state;
	play_scene(
		(act_function *const[]){control_plane_is_slow, is_there_for_an_hour, is_there, leave, all_have_gone, NULL});
}

/* ---- what a drain waits for ---- */

static void ask_before(void)
{
	ask(&clients[0], "/stats");
	ask(&clients[1], "/a");
}

static void drain_begins(void)
{
	assert_int_equal(plane.awaited_count, 2);
	assert_int_equal(vendors_met, 2);
	plane.draining = true;
}

static void ask_during(void)
{
	ask(&clients[2], "/health");
	ask(&clients[3], "/a");
}

static void those_before_are_waited_for(void)
{
	assert_int_equal(plane.awaited_count, 2);
	assert_int_equal(vendors_met, 3); /* the third is asked for /health */
	for (int i = 0; i < 2; i++)
		say(&vendors[i], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

static void nobody_is_waited_for(void)
{
	assert_int_equal(plane.awaited_count, 0);
	assert_non_null(plane.fronts);
}

static void test_drain(void **state)
{
	(void)state;
	play_scene((act_function *const[]){ask_before, drain_begins, ask_during, those_before_are_waited_for,
		nobody_is_waited_for, leave, all_have_gone, NULL});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_problem_that_is_not_taken),
		cmocka_unit_test(test_page_that_is_not_taken),
		cmocka_unit_test(test_vendors_answer_has_all_the_time),
		cmocka_unit_test(test_control_plane_has_all_the_time),
		cmocka_unit_test(test_drain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
