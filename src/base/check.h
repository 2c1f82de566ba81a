/* check: invariants. They stay on in production; never for input. */
#ifndef APIPROXY_BASE_CHECK_H
#define APIPROXY_BASE_CHECK_H

#include <stdarg.h>
#include <stddef.h>

void check_failed(const char *file, int line, const char *what) __attribute__((noreturn));

#define CHECK(condition) \
	do { if (__builtin_expect(!(condition), 0)) check_failed(__FILE__, __LINE__, #condition); } while (0)

/* The struct that holds a member: for callbacks that get the member. */
#define container_of(pointer, type, member) \
	((type *)(void *)((char *)(pointer) - offsetof(type, member)))

/* Memory at boot and for small things: dies when there is none. */
void *check_calloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
char *check_strdup(const char *text) __attribute__((malloc, returns_nonnull));
char *check_printf(const char *format, ...) __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));
char *check_vprintf(const char *format, va_list arguments) __attribute__((malloc, returns_nonnull, format(printf, 1, 0)));

#endif
