/* log: lines on stderr.
 *
 * Owns nothing but its two switches, which are atomic: any thread may log or configure. A line is
 * made on the stack and leaves in one write(2), so that lines of threads and of child processes
 * never mix. Line breaks and control characters in a message cannot forge a line: they are
 * escaped (JSON) or become '?' (text). */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

enum { LOG_MESSAGE_BYTES = 2048, LOG_LINE_BYTES = 6 * LOG_MESSAGE_BYTES + 256 };

static _Atomic int log_least = LOG_INFO;
static _Atomic bool log_json;

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void log_configure(enum log_level level, bool json)
{
	atomic_store_explicit(&log_least, (int)level, memory_order_relaxed);
	atomic_store_explicit(&log_json, json, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
	return (int)level >= atomic_load_explicit(&log_least, memory_order_relaxed);
}

/* Out has room for six bytes for each of text. */
static size_t put_text(char *out, const char *text, bool json)
{
	char *start = out;
	for (const char *p = text; *p;) {
		size_t length = text_utf8_length(p, SIZE_MAX);
		if (length == 0 || (unsigned char)*p < 0x20 || *p == 0x7f) {
			if (json && length)
				out += sprintf(out, "\\u%04x", (unsigned char)*p);
			else
				*out++ = '?';
			p++;
			continue;
		}
		if (json && (*p == '"' || *p == '\\'))
			*out++ = '\\';
		memcpy(out, p, length);
		out += length;
		p += length;
	}
	return (size_t)(out - start);
}

static void write_line(enum log_level level, const char *module, const char *format, va_list arguments)
{
	bool json = atomic_load_explicit(&log_json, memory_order_relaxed);
	char message[LOG_MESSAGE_BYTES], line[LOG_LINE_BYTES], at[CLOCK_TEXT_BYTES];
	vsnprintf(message, sizeof message, format, arguments);
	clock_format(at, clock_unix_ms(), true);
	size_t length = (size_t)snprintf(line, 200,
		json ? "{\"at\":\"%s\",\"level\":\"%s\",\"module\":\"%.32s\",\"message\":\"" : "%s %s %.32s: ", at,
		level_names[level], module);
	length += put_text(line + length, message, json);
	if (json) {
		line[length++] = '"';
		line[length++] = '}';
	}
	line[length++] = '\n';
	ssize_t written = write(STDERR_FILENO, line, length);
	(void)written; /* nowhere to tell */
}

void log_write(enum log_level level, const char *module, const char *format, ...)
{
	va_list arguments;
	if (!log_enabled(level))
		return;
	va_start(arguments, format);
	write_line(level, module, format, arguments);
	va_end(arguments);
}

void log_always(const char *module, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	write_line(LOG_INFO, module, format, arguments);
	va_end(arguments);
}
