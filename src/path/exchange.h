/* exchange: one request and its answer. What the front sees of it. */
#ifndef APIPROXY_PATH_EXCHANGE_H
#define APIPROXY_PATH_EXCHANGE_H

#include <stddef.h>

#include "state/problem.h"

struct exchange;
struct front;
struct http_head;
struct plane;

/* A head was read: plane->head, whose bytes may go when this returns; what followed it is in
 * front->unread. The exchange runs soon and ends with front_exchange_ended(). NULL: no memory. */
struct exchange *exchange_begin(struct plane *p, struct front *f);

/* The same for a head that cannot be served: answers with the problem, then the connection closes. */
struct exchange *exchange_begin_refused(struct plane *p, struct front *f, enum problem_id problem, const char *message);

void exchange_wake(struct exchange *ex); /* something it waits for may have happened */
void exchange_abort(struct exchange *ex); /* the process ends: now, without an answer */

#endif
