/* admission_queue: the order of the places in a line, with and without a start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/loop.h"
#include "path/admission_internal.h"

struct fixture {
	struct admission_node node;
	struct admission worker;
	struct admission_line line;
};

static int start(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	pthread_mutex_init(&f->node.lock, NULL);
	f->worker.node = &f->node;
	f->worker.loop = loop_new();
	*state = f;
	return f->worker.loop == NULL;
}

static int end(void **state)
{
	struct fixture *f = *state;
	admission_queue_fini(&f->worker);
	bool empty = !f->line.places && !f->line.places_last && !f->line.last_start && !f->line.place_count;
	loop_free(f->worker.loop);
	pthread_mutex_destroy(&f->node.lock);
	free(f);
	return !empty;
}

static struct admission_place *add(struct fixture *f, uint64_t due_ms)
{
	return admission_place_new_locked(&f->worker, &f->line, due_ms);
}

/* Forwards and backwards; those with one due_ms in the order in which they came. */
static void expect_line(const struct fixture *f, struct admission_place *const *places, size_t count)
{
	const struct admission_place *p = f->line.places, *last_start = NULL;
	assert_int_equal(f->line.place_count, count);
	for (size_t i = 0; i < count; i++, p = p->next) {
		assert_ptr_equal(p, places[i]);
		assert_ptr_equal(p->previous, i ? places[i - 1] : NULL);
		if (p->due_ms != UINT64_MAX)
			last_start = p;
	}
	assert_null(p);
	assert_ptr_equal(f->line.places_last, places[count - 1]);
	assert_ptr_equal(f->line.last_start, last_start);
}

static void places_are_in_the_order_of_their_starts(void **state)
{
	struct fixture *f = *state;
	struct admission_place *never = add(f, UINT64_MAX), *late = add(f, 300), *early = add(f, 100);
	struct admission_place *neither = add(f, UINT64_MAX), *middle = add(f, 200), *same = add(f, 200);
	expect_line(f, (struct admission_place *[]){early, middle, same, late, never, neither}, 6);
	admission_place_set_due_locked(never, 150, 0);
	expect_line(f, (struct admission_place *[]){early, never, middle, same, late, neither}, 6);
	admission_place_set_due_locked(late, UINT64_MAX, 0);
	expect_line(f, (struct admission_place *[]){early, never, middle, same, neither, late}, 6);
	struct admission_left left = admission_place_drop_locked(&f->worker, same);
	admission_place_left(&f->worker, "/x", &left);
	expect_line(f, (struct admission_place *[]){early, never, middle, neither, late}, 5);
	struct admission_place *all[] = {early, never, middle};
	for (size_t i = 0; i < 3; i++)
		admission_place_set_due_locked(all[i], UINT64_MAX, 0);
	expect_line(f, (struct admission_place *[]){neither, late, early, never, middle}, 5);
	admission_place_set_due_locked(never, 7, 0);
	expect_line(f, (struct admission_place *[]){never, neither, late, early, middle}, 5);
}

/* A changed queue: each gets a start while all behind it have none. To walk past those would take many minutes. */
static void many_places_get_a_start(void **state)
{
	enum { COUNT = 400000 };
	struct fixture *f = *state;
	struct admission_place **places = calloc(COUNT, sizeof(struct admission_place *));
	assert_non_null(places);
	for (size_t i = 0; i < COUNT; i++)
		places[i] = add(f, UINT64_MAX);
	for (size_t i = 0; i < COUNT; i++)
		admission_place_set_due_locked(places[i], 1000 + i, 0);
	expect_line(f, places, COUNT);
	free(places);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(places_are_in_the_order_of_their_starts, start, end),
		cmocka_unit_test_setup_teardown(many_places_get_a_start, start, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
