/* log: lines on stderr, text or JSON. Thread safe, one write a line. Never pass a credential, a
 * query string or a body. */
#ifndef APIPROXY_BASE_LOG_H
#define APIPROXY_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

void log_configure(enum log_level level, bool json); /* any time, any thread */
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *module, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Whatever the least level is: for lines that have a switch of their own. They say "info". */
void log_always(const char *module, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(module, ...) \
	do { if (log_enabled(LOG_DEBUG)) log_write(LOG_DEBUG, module, __VA_ARGS__); } while (0)
#define log_info(module, ...) log_write(LOG_INFO, module, __VA_ARGS__)
#define log_warning(module, ...) log_write(LOG_WARNING, module, __VA_ARGS__)
#define log_error(module, ...) log_write(LOG_ERROR, module, __VA_ARGS__)

#endif
