/* loop: epoll, a binary heap of timers, a list of deferred tasks, an eventfd mailbox.
 *
 * Invariants: everything but the mailbox belongs to the loop's thread. An epoll event carries the
 * watch's address; a watch removed during a turn is known by its `fd` of -1, so that later
 * events of the same turn are skipped. loop_free_later keeps memory until no event can name it.
 * A timer that is moved later stays where it is in the heap and is put right when it comes up:
 * time limits that are extended with each request cost a store. */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

enum { EVENTS_PER_TURN = 256 };

struct mail {
	struct mail *next;
	void (*fn)(void *argument);
	void *argument;
};

struct loop {
	int epoll_fd;
	int event_fd;
	uint64_t now_ms;
	bool stopping;
	struct loop_timer **heap; /* 1-based */
	uint32_t heap_length;
	uint32_t heap_capacity;
	struct loop_task *tasks;
	struct loop_task **tasks_tail;
	void **garbage;
	size_t garbage_length;
	size_t garbage_capacity;
	pthread_mutex_t mail_lock; /* guards mail and mail_tail */
	struct mail *mail;
	struct mail **mail_tail;
	struct loop_watch mail_watch;
};

uint64_t loop_now_ms(const struct loop *l)
{
	return l->now_ms;
}

static void on_mail(struct loop_watch *w, uint32_t events);

struct loop *loop_new(void)
{
	struct loop *l = check_calloc(1, sizeof *l);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(l->epoll_fd >= 0 && l->event_fd >= 0);
	l->now_ms = (uint64_t)clock_monotonic_ms();
	l->tasks_tail = &l->tasks;
	l->mail_tail = &l->mail;
	pthread_mutex_init(&l->mail_lock, NULL);
	l->mail_watch = (struct loop_watch){.fd = -1, .on_event = on_mail};
	CHECK(loop_watch_edge(l, &l->mail_watch, l->event_fd));
	return l;
}

static void free_garbage(struct loop *l)
{
	for (size_t i = 0; i < l->garbage_length; i++)
		free(l->garbage[i]);
	l->garbage_length = 0;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	free_garbage(l);
	while (l->mail) {
		struct mail *m = l->mail;
		l->mail = m->next;
		free(m);
	}
	close(l->epoll_fd);
	close(l->event_fd);
	pthread_mutex_destroy(&l->mail_lock);
	free(l->garbage);
	free(l->heap);
	free(l);
}

/* ---- sockets ---- */

static bool watch(struct loop *l, struct loop_watch *w, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = w};
	int operation = w->fd == fd ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	if (epoll_ctl(l->epoll_fd, operation, fd, &event) != 0)
		return false;
	w->fd = fd;
	return true;
}

bool loop_watch_edge(struct loop *l, struct loop_watch *w, int fd)
{
	return watch(l, w, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

bool loop_watch_level(struct loop *l, struct loop_watch *w, int fd, uint32_t events)
{
	return watch(l, w, fd, events);
}

void loop_unwatch(struct loop *l, struct loop_watch *w)
{
	if (w->fd < 0)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
}

/* ---- timers: a binary heap ordered by heap_due_ms ---- */

static void heap_put(struct loop *l, uint32_t index, struct loop_timer *t)
{
	l->heap[index] = t;
	t->heap_index = index;
}

static void heap_up(struct loop *l, uint32_t index, struct loop_timer *t)
{
	while (index > 1 && l->heap[index / 2]->heap_due_ms > t->heap_due_ms) {
		heap_put(l, index, l->heap[index / 2]);
		index /= 2;
	}
	heap_put(l, index, t);
}

static void heap_down(struct loop *l, uint32_t index, struct loop_timer *t)
{
	for (;;) {
		uint32_t child = index * 2;
		if (child > l->heap_length)
			break;
		if (child < l->heap_length && l->heap[child + 1]->heap_due_ms < l->heap[child]->heap_due_ms)
			child++;
		if (l->heap[child]->heap_due_ms >= t->heap_due_ms)
			break;
		heap_put(l, index, l->heap[child]);
		index = child;
	}
	heap_put(l, index, t);
}

static void heap_remove(struct loop *l, struct loop_timer *t)
{
	uint32_t index = t->heap_index;
	struct loop_timer *last = l->heap[l->heap_length--];
	t->heap_index = 0;
	if (last == t)
		return;
	if (index > 1 && l->heap[index / 2]->heap_due_ms > last->heap_due_ms)
		heap_up(l, index, last);
	else
		heap_down(l, index, last);
}

static void heap_insert(struct loop *l, struct loop_timer *t)
{
	if (l->heap_length + 1 >= l->heap_capacity) {
		l->heap_capacity = l->heap_capacity ? l->heap_capacity * 2 : 64;
		l->heap = realloc(l->heap, l->heap_capacity * sizeof *l->heap);
		CHECK(l->heap);
	}
	t->heap_due_ms = t->due_ms;
	heap_up(l, ++l->heap_length, t);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t due_ms)
{
	t->due_ms = due_ms ? due_ms : 1;
	if (t->heap_index && t->heap_due_ms <= t->due_ms)
		return;
	if (t->heap_index)
		heap_remove(l, t);
	heap_insert(l, t);
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	t->due_ms = 0;
	if (t->heap_index)
		heap_remove(l, t);
}

static void run_timers(struct loop *l)
{
	while (l->heap_length && l->heap[1]->heap_due_ms <= l->now_ms) {
		struct loop_timer *t = l->heap[1];
		heap_remove(l, t);
		if (t->due_ms > l->now_ms) {
			heap_insert(l, t);
		} else if (t->due_ms) {
			t->due_ms = 0;
			t->on_due(t);
		}
	}
}

/* ---- deferred work ---- */

void loop_defer(struct loop *l, struct loop_task *t)
{
	if (t->queued)
		return;
	t->queued = true;
	t->next = NULL;
	*l->tasks_tail = t;
	l->tasks_tail = &t->next;
}

static void run_tasks(struct loop *l)
{
	struct loop_task *t = l->tasks;
	/* what a task defers waits for the next turn */
	l->tasks = NULL;
	l->tasks_tail = &l->tasks;
	while (t) {
		struct loop_task *next = t->next;
		t->queued = false;
		t->run(t);
		t = next;
	}
}

void loop_free_later(struct loop *l, void *memory)
{
	if (l->garbage_length == l->garbage_capacity) {
		l->garbage_capacity = l->garbage_capacity ? l->garbage_capacity * 2 : 64;
		l->garbage = realloc(l->garbage, l->garbage_capacity * sizeof *l->garbage);
		CHECK(l->garbage);
	}
	l->garbage[l->garbage_length++] = memory;
}

/* ---- mailbox ---- */

void loop_post(struct loop *l, void (*fn)(void *argument), void *argument)
{
	struct mail *m = check_calloc(1, sizeof *m);
	m->fn = fn;
	m->argument = argument;
	pthread_mutex_lock(&l->mail_lock);
	*l->mail_tail = m;
	l->mail_tail = &m->next;
	pthread_mutex_unlock(&l->mail_lock);
	uint64_t one = 1;
	ssize_t written = write(l->event_fd, &one, sizeof one);
	(void)written; /* a full counter wakes the loop as well */
}

static void on_mail(struct loop_watch *w, uint32_t events)
{
	struct loop *l = container_of(w, struct loop, mail_watch);
	uint64_t count;
	(void)events;
	while (read(l->event_fd, &count, sizeof count) > 0) {
	}
	pthread_mutex_lock(&l->mail_lock);
	struct mail *m = l->mail;
	l->mail = NULL;
	l->mail_tail = &l->mail;
	pthread_mutex_unlock(&l->mail_lock);
	while (m) {
		struct mail *next = m->next;
		m->fn(m->argument);
		free(m);
		m = next;
	}
}

static void stop_here(void *argument)
{
	struct loop *l = argument;
	l->stopping = true;
}

void loop_stop(struct loop *l)
{
	loop_post(l, stop_here, l);
}

/* ---- turns ---- */

static int wait_ms(const struct loop *l)
{
	if (l->tasks)
		return 0;
	if (!l->heap_length)
		return -1;
	uint64_t due = l->heap[1]->heap_due_ms;
	if (due <= l->now_ms)
		return 0;
	uint64_t left = due - l->now_ms;
	return left > 3600000 ? 3600000 : (int)left;
}

void loop_run(struct loop *l)
{
	struct epoll_event events[EVENTS_PER_TURN];
	while (!l->stopping) {
		int count = epoll_wait(l->epoll_fd, events, EVENTS_PER_TURN, wait_ms(l));
		CHECK(count >= 0 || errno == EINTR);
		l->now_ms = (uint64_t)clock_monotonic_ms();
		for (int i = 0; i < count; i++) {
			struct loop_watch *w = events[i].data.ptr;
			if (w->fd >= 0)
				w->on_event(w, events[i].events);
		}
		run_timers(l);
		run_tasks(l);
		free_garbage(l);
	}
}
