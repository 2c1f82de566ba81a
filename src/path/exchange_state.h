/* exchange_state: what an exchange is made of, for the files that tell its story: exchange.c (the
 * steps), exchange_admit.c (who, how much, which key), exchange_renew.c (what has changed meanwhile),
 * exchange_send.c (the request goes out), exchange_reply.c (the answer comes back). Nobody else includes this. */
#ifndef APIPROXY_PATH_EXCHANGE_STATE_H
#define APIPROXY_PATH_EXCHANGE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/http1.h"
#include "base/loop.h"
#include "path/admission.h"
#include "path/connector.h"
#include "path/exchange.h"
#include "path/front.h"
#include "path/plane.h"
#include "path/relay.h"
#include "path/rewrite.h"
#include "path/upstream.h"
#include "path/usage.h"
#include "state/problem.h"
#include "state/snapshot.h"

enum { EXCHANGE_MAGIC = 0x45584348, EXCHANGE_KEPT_MAX = 1024 * 1024 };

enum step {
	STEP_ROUTE,
	STEP_IDENTIFY,
	STEP_COLLECT,  /* the body that admission or failover needs */
	STEP_ADMIT,
	STEP_SEND,
	STEP_RELAY,
	STEP_NEXT_KEY, /* this key failed: is there another? */
	STEP_ANSWER,   /* an answer of our own goes out */
	STEP_SETTLE,
	STEP_END,
	STEP_STAY = -1, /* what a step returns to wait for a wake-up */
};

/* What only a managed mapping needs. */
struct managed {
	struct exchange *exchange;
	struct admission_request admission;
	const struct subject *subject;   /* NULL: the mapping asks nobody */
	bool known;                      /* he was asked: his credential is no vendor's, whatever the mapping says later */
	bool started;                    /* admission_start was called */
	bool decided;
	bool admitted;                   /* to be settled, not cancelled */
	bool settled;
	bool reported;                   /* this attempt's outcome was told */
	bool no_more_keys;               /* what comes now is final */
	struct upstream *aside;          /* an earlier key's answer that failed: the client's if no later key answers */
	struct buf aside_read;           /* what was read of it; the rest waits, unread, on its connection */
	struct usage_request request;
	bool asked;                      /* admission_next_key was called for this attempt */
	bool key_void;                   /* this attempt's key was taken away before anything was sent with it */
	bool in_line;                    /* counted in the queue's length */
	char length[24];                 /* Content-Length of a body that we changed; "": it is as it came */
	uint64_t attempt_us;             /* when this attempt began */
	uint64_t body_since_us;          /* since when the client's body is waited for; 0: it is not */
	uint64_t body_waited_us;
};

struct exchange {
	uint32_t magic;
	int8_t step;                     /* enum step; written by enter() alone */
	struct plane *plane;
	struct front *front;             /* never NULL before the end */
	struct loop_task task;
	struct loop_timer deadline;      /* the mapping's timeout_seconds; once the answer is ours: of a client that takes nothing */
	struct loop_timer patience;      /* Expect: when we tell the client to go on; a half-closed tunnel: the next look */

	/* the request */
	struct http_head *request;       /* a copy; NULL once the answer has begun */
	struct http_span path, query;    /* in the copy */
	struct pinned_snapshot *pin;
	const struct mapping *mapping;   /* of the pin's snapshot; NULL: the control plane, or none */
	uint32_t stats_slot;             /* under which it is counted to its end */
	struct managed *managed;         /* NULL: transparent */
	struct relay up;                 /* client to upstream */
	struct buf kept;                 /* the body as far as it was read, to send it again */
	uint64_t body_bytes;             /* content read from the client */
	struct connect_job connecting;
	struct upstream *upstream;
	enum connect_outcome connect_outcome;
	char connect_error[64];

	/* the answer */
	struct relay down;               /* upstream to client */
	struct buf partial;              /* a head that is not all there, or waits for a decision */
	struct usage_tap *tap;
	uint16_t status;                 /* what the client gets; 0: nothing yet */
	uint16_t problem;                /* enum problem_id, where we made the answer */

	/* what happened */
	uint64_t begun_us, sent_us, answered_us; /* sent, answered: 0 = not yet */
	uint32_t overhead_us;
	uint64_t passed;                 /* a tunnel of which one end has closed: bytes, */
	uint8_t quiet_seconds;           /* and since when there are no more */

	bool internal : 1;        /* goes to the control plane */
	bool head_method : 1;
	bool idempotent : 1;      /* RFC 9110, 9.2.2 */
	bool http10 : 1;
	bool client_keeps : 1;    /* the client wants its connection kept */
	bool websocket : 1;       /* asked for; `tunnel`: granted */
	bool tunnel : 1;
	bool expects : 1;         /* Expect: 100-continue, not yet told to go on */
	bool told : 1;            /* 100 was sent */
	bool impatient : 1;       /* `patience` is over */
	bool reconsider : 1;      /* `partial` holds an answer that is to be passed on after all */
	bool keeping : 1;         /* `kept` holds all of the body read so far */
	bool resent : 1;          /* once more after a dead kept connection */
	bool connect_done : 1;
	bool up_failed : 1;       /* the upstream takes no more; its answer may still come */
	bool reusable : 1;        /* the upstream connection, after this answer */
	bool heard : 1;           /* the upstream has said something, if only that it goes on */
	bool began : 1;           /* the head of the answer was made: no failure can be told any more */
	bool broken : 1;          /* the answer ends before its end */
	bool client_gone : 1;
	bool must_close : 1;      /* the client's connection, after the answer */
	bool held_back : 1;       /* the end of the answer goes out in the next turn: exchange_settle_early() */
	bool timed_out : 1;
	bool counted : 1;         /* stats_begin() */
	bool awaited : 1;         /* plane->awaited_count: a drain waits for it */
	bool refused : 1;         /* the head was malformed: nothing in it is used */
	bool bulk_up : 1;         /* the last read was full: larger ones pay */
	bool bulk_down : 1;
	bool dead : 1;
};

/* Fails the request: an answer of our own if none has begun, else it is broken off. Returns the next
 * step. message: NULL for the problem's own. */
enum step exchange_fail(struct exchange *ex, enum problem_id problem, const char *message);
enum step exchange_refuse(struct exchange *ex); /* as the admission decided */

/* The answer is apiproxy's, not a vendor's: the control plane's, or a problem. */
static inline bool exchange_is_own(const struct exchange *ex)
{
	return ex->internal || ex->step == STEP_ANSWER;
}

/* How much to read at once for this sink: what it does not take is held. */
size_t exchange_read_size(bool bulk, const struct io *sink);

/* All of the answer is there, and the client does not have its end yet: what an admitted request took goes
 * back now, and the end leaves after that was written to Redis. So a client that asks one at a time, each
 * on a connection of its own, is never told that there are two. Sets held_back where there was anything. */
void exchange_settle_early(struct exchange *ex);

/* Input tokens of what has come of the request's body, whatever length was announced. */
uint64_t exchange_estimate_input(const struct exchange *ex);

/* exchange_admit.c */
enum step step_identify(struct exchange *ex);
enum problem_id exchange_identify(const struct exchange *ex, const struct snapshot *s, const struct mapping *m,
	const struct subject **subject) __attribute__((warn_unused_result));
enum step step_collect(struct exchange *ex);
enum step step_admit(struct exchange *ex);
enum step step_next_key(struct exchange *ex);
bool exchange_should_fail_over(struct exchange *ex, unsigned status); /* 0: connection failure */
void exchange_report_key(struct exchange *ex, const struct http_head *answer);
void exchange_drop_aside(struct exchange *ex);
void exchange_settle_admission(struct exchange *ex, const struct usage *usage);
bool exchange_admission_fields(struct exchange *ex, struct buf *out) __attribute__((warn_unused_result));

/* exchange_renew.c */
/* Moves to the configuration of now: the mapping of this prefix, and who asks. Only while nothing is being sent or
 * connected; an admission that has begun is to be told (admission_next_key(), or it asked). Not PROBLEM_NONE: it may not
 * go on, and nothing has changed. */
enum problem_id exchange_renew(struct exchange *ex) __attribute__((warn_unused_result));
bool exchange_key_is_void(const struct exchange *ex); /* deleted, disabled, given another secret or not of the mapping's pool by now */

/* exchange_send.c */
enum step step_send(struct exchange *ex);
enum step exchange_pump_up(struct exchange *ex);   /* STEP_STAY: goes on, or done */
/* Content of the request's body, in the scratch memory; *length 0: none there now. STEP_STAY: fine. */
enum step exchange_take_body(struct exchange *ex, char **content, size_t *length);
bool exchange_has_more(const struct exchange *ex); /* of the client's bytes, to be read now */
void exchange_drop_upstream(struct exchange *ex, bool reusable);
enum step exchange_retry(struct exchange *ex);     /* from STEP_SEND with a new connection */

/* exchange_reply.c */
/* As server.cors_origins says. origin: room for the one to allow. */
enum { EXCHANGE_ORIGIN_BYTES = 512 };
struct rewrite_cors exchange_cors(const struct exchange *ex, char origin[EXCHANGE_ORIGIN_BYTES]);
enum step step_relay(struct exchange *ex);
enum step step_answer(struct exchange *ex);
enum step exchange_tell_continue(struct exchange *ex); /* 100, once; STEP_STAY: fine */

#endif
