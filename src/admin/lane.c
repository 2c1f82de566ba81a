/* lane: threads behind a mutex, a condition and a list. The lane owns its threads, never a task. */
#include "admin/lane.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"

enum {
	THREADS_MAX = 8,
	/* cJSON descends up to 1,000 levels; only the pages that are touched cost memory. */
	STACK_BYTES = 512 * 1024,
};

struct lane {
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	struct lane_task *first, **last;
	bool stopping;
	unsigned thread_count;
	pthread_t threads[THREADS_MAX];
};

static struct lane_task *take(struct lane *lane)
{
	struct lane_task *task = lane->first;
	if (task) {
		lane->first = task->next;
		if (!lane->first)
			lane->last = &lane->first;
	}
	return task;
}

static void *run(void *argument)
{
	struct lane *lane = argument;
	pthread_mutex_lock(&lane->mutex);
	for (;;) {
		struct lane_task *task = take(lane);
		if (task) {
			bool cancelled = lane->stopping;
			pthread_mutex_unlock(&lane->mutex);
			task->run(task, cancelled);
			pthread_mutex_lock(&lane->mutex);
		} else if (lane->stopping) {
			break;
		} else {
			pthread_cond_wait(&lane->wake, &lane->mutex);
		}
	}
	pthread_mutex_unlock(&lane->mutex);
	return NULL;
}

struct lane *lane_start(const char *name, unsigned threads)
{
	CHECK(threads <= THREADS_MAX);
	struct lane *lane = check_calloc(1, sizeof *lane);
	lane->last = &lane->first;
	lane->thread_count = threads;
	CHECK(pthread_mutex_init(&lane->mutex, NULL) == 0 && pthread_cond_init(&lane->wake, NULL) == 0);
	pthread_attr_t attributes;
	CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0);
	for (unsigned i = 0; i < threads; i++) {
		CHECK(pthread_create(&lane->threads[i], &attributes, run, lane) == 0);
		pthread_setname_np(lane->threads[i], name);
	}
	pthread_attr_destroy(&attributes);
	return lane;
}

void lane_push(struct lane *lane, struct lane_task *task)
{
	task->next = NULL;
	pthread_mutex_lock(&lane->mutex);
	bool stopping = lane->stopping;
	if (!stopping) {
		*lane->last = task;
		lane->last = &task->next;
		pthread_cond_signal(&lane->wake);
	}
	pthread_mutex_unlock(&lane->mutex);
	if (stopping)
		task->run(task, true);
}

void lane_stop(struct lane *lane)
{
	if (!lane)
		return;
	pthread_mutex_lock(&lane->mutex);
	lane->stopping = true;
	pthread_cond_broadcast(&lane->wake);
	pthread_mutex_unlock(&lane->mutex);
	for (unsigned i = 0; i < lane->thread_count; i++)
		pthread_join(lane->threads[i], NULL);
	lane->thread_count = 0;
}

void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	pthread_cond_destroy(&lane->wake);
	pthread_mutex_destroy(&lane->mutex);
	free(lane);
}
