/* loop: one thread's epoll loop with timers, deferred tasks and a mailbox.
 *
 * A loop belongs to one thread; only loop_post() and loop_stop() may be called from others.
 * Sockets are registered once, edge triggered (EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET): whoever owns
 * a watch remembers readiness until a call says EAGAIN. libcurl's and hiredis' sockets, which
 * expect level triggering, use loop_watch_level().
 *
 * Closing: a watch may be removed inside any callback; events still queued for it in the current
 * turn are dropped. Its memory must live until the end of the turn: free it with loop_free_later(). */
#ifndef APIPROXY_BASE_LOOP_H
#define APIPROXY_BASE_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;

struct loop_watch {
	int fd; /* -1: not registered */
	void (*on_event)(struct loop_watch *w, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR */
};

struct loop_timer {
	uint64_t due_ms;      /* loop_now_ms() scale; 0: not armed */
	uint64_t heap_due_ms; /* private: where the heap believes it is */
	uint32_t heap_index;  /* private: 0 = not in the heap */
	void (*on_due)(struct loop_timer *t);
};

struct loop_task {       /* runs once at the end of the current turn, after all events */
	struct loop_task *next; /* private */
	bool queued;            /* private */
	void (*run)(struct loop_task *t);
};

/* Zeroed memory is a valid idle watch (with fd = -1), timer or task. */

struct loop *loop_new(void);
void loop_free(struct loop *l);
void loop_run(struct loop *l);  /* until loop_stop() */
void loop_stop(struct loop *l); /* any thread */

/* Monotonic time (base/clock.h), read once a turn. */
uint64_t loop_now_ms(const struct loop *l);

bool loop_watch_edge(struct loop *l, struct loop_watch *w, int fd);
bool loop_watch_level(struct loop *l, struct loop_watch *w, int fd, uint32_t events); /* again to change */
void loop_unwatch(struct loop *l, struct loop_watch *w); /* call before close(fd) */

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t due_ms); /* later or earlier again: cheap */
void loop_timer_cancel(struct loop *l, struct loop_timer *t);

void loop_defer(struct loop *l, struct loop_task *t);
void loop_free_later(struct loop *l, void *memory); /* free() at the end of the turn */

/* Runs fn(argument) on the loop's thread, soon. Any thread. */
void loop_post(struct loop *l, void (*fn)(void *argument), void *argument);

#endif
