/* admission_internal: what the files of admission share. Nobody else includes it.
 *
 *   admission.c          the life of a ticket: start, answer, key, settle
 *   admission_scripts.c  the scripts, and calling them
 *   admission_batch.c    what one turn of the loop asks of Redis, put together
 *   admission_local.c    the same decisions without Redis
 *   admission_pool.c     the order in which vendor keys are offered
 *   admission_queue.c    this node's waiters, in the order of their arrival
 *   admission_change.c   what a changed queue is for those that wait
 *   admission_forward.c  starts that others have given back
 *   admission_lease.c    places of requests that last
 *
 * A ticket is what remains of a request here, on the heap: the client may go while Redis is still to
 * answer. It belongs to one worker. What workers share (subjects, pools, lines) is under node->lock,
 * which is held for short, never while Redis is waited for and never across a call to the request's owner. */
#ifndef APIPROXY_PATH_ADMISSION_INTERNAL_H
#define APIPROXY_PATH_ADMISSION_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/redis_async.h"
#include "path/admission.h"
#include "path/admission_health.h"
#include "path/admission_window.h"

enum { ADMISSION_NAME_MAX = 256, ADMISSION_LEASE_MS = 45000, ADMISSION_RENEW_MS = 15000, ADMISSION_CANDIDATES = 4,
	ADMISSION_DEADLINE_MS = 250, ADMISSION_WORKER_ID = 8, ADMISSION_QUEUE_GUARD_MS = 50, ADMISSION_DOUBT_PART = 16,
	ADMISSION_RENEW_BATCH = 64, ADMISSION_BATCH_MAX = 64, ADMISSION_CHANGES_MAX = 16 };

/* The place that a client has just given back is written to Redis before he hears of his answer's end, but Redis reads its
 * connections in turn: in one round it may have read ours before that one, and again in the next, where both wait. In the third
 * it has read it. */
enum { ADMISSION_LOOKS = 2 };

/* ---- names: a chained hash of items that begin with struct admission_item ---- */

struct admission_item {
	struct admission_item *next;
	uint64_t hash;
	char *name;
};

struct admission_table {
	struct admission_item **buckets;
	size_t size, count;
};

struct admission_item *admission_table_find(const struct admission_table *t, const char *name);
struct admission_item *admission_table_get(struct admission_table *t, const char *name, size_t size); /* made, zeroed, if new */
void admission_table_remove(struct admission_table *t, struct admission_item *item); /* unlinks; frees name and item */
void admission_table_fini(struct admission_table *t, void (*fini)(struct admission_item *item));

/* ---- shared by the workers ---- */

struct admission_local {       /* a subject, as this node saw it; item name: its key in Redis */
	struct admission_item item;
	struct admission_events events;
	uint64_t taken;            /* places */
	unsigned tickets;          /* that point here */
	int64_t usage[3];          /* not written to Redis yet: it was away */
};

struct admission_local_key {
	char *id;                  /* vendor_key_limit_id() */
	int64_t current;           /* smooth weighted round robin */
	uint64_t not_before_ms;    /* Redis said that it is of no use before; loop time */
	bool unwell;               /* Redis may have something on it: successes are reported */
	struct admission_health health; /* loop time */
	struct admission_events events;
};

struct admission_pool {        /* item name: the pool's */
	struct admission_item item;
	struct admission_local_key *keys;
	size_t key_count;
};

struct admission_rule {        /* so many starts in any span_ms */
	uint64_t starts, span_ms;
};

struct admission_place {       /* what a waiter's admission brought into the line */
	struct admission_place *next, *previous;
	struct admission *owner;   /* whose timer it is */
	struct admission_place *owned_next, **owned_link; /* owner->places, also when dropped */
	struct admission_line *line;
	struct loop_timer due;
	uint64_t due_ms;           /* loop time; UINT64_MAX: no start before the waiter's patience ends */
	int64_t doubt_ms;          /* by so much a bad clock of this machine may have it wrong until then */
	double start;              /* Redis' time; 0: none, or a local one */
	double redis_rule;         /* the one that Redis gave it by; 0: none */
	struct admission_rule rule; /* the one that it was asked for by */
	uint64_t patience_ms;      /* and the patience */
	char name[40];             /* in Redis; "" where local */
	bool dropped;              /* not in the line any more */
	bool moving;               /* Redis is asked for another start; its owner frees it when the answer is there */
};

struct admission_left {        /* what is to be done with a place that was dropped when the lock is not held any more */
	char name[40];             /* Redis' to hear of; "": it knows of none, or does not need to be told */
	double start, redis_rule;
	struct admission_place *to_free; /* NULL: another's */
};

enum admission_called { CALLED_NOT, CALLED_START, CALLED_NO_QUEUE, CALLED_NO_MAPPING }; /* why a waiter waits no longer */

struct admission_waiter {
	struct admission_waiter *next, *previous;
	struct admission_ticket *ticket; /* NULL: left while its start was on the way to its worker */
	struct admission *owner;
	uint64_t arrival;
	struct admission_line *line;
	enum admission_called called; /* the node's lock guards it */
};

struct admission_look {        /* for starts that others have given back */
	struct admission *owner;   /* whose timer it is; NULL: nobody looks */
	struct loop_timer timer;
	uint64_t looked_ms;        /* loop time; 0: never */
	bool asking;               /* Redis will answer */
	bool news;                 /* heard since the last look */
};

struct admission_line {        /* item name: the mapping's prefix */
	struct admission_item item;
	struct admission_waiter *first, *last;  /* by arrival */
	struct admission_place *places, *places_last; /* by due_ms */
	struct admission_place *last_start; /* the last of them that has one: those behind may be many */
	size_t waiters, place_count;
	uint64_t *starts;          /* local mode: the last starts handed out, a ring */
	struct admission_rule rule; /* that they are by */
	size_t start_next;
	struct admission_look look;
};

struct admission_node {
	enum admission_failure_policy policy;
	bool tls;
	char *unix_path, *host, *user, *password;
	uint16_t port;
	unsigned db;
	uint64_t nonce;
	struct redis_async_script *scripts;
	atomic_uint worker_count;
	atomic_uint failed_count;       /* workers whose connection to Redis has failed */
	atomic_uint_fast64_t names;
	atomic_uint_fast64_t outage_ms; /* when a decision was last made without Redis; 0: never */
	pthread_mutex_t lock;           /* guards what follows and all that is in it */
	struct admission_table subjects, pools, lines;
	size_t sweep;
};

/* ---- a worker's ---- */

struct admission_lease {       /* item name: a subject's key */
	struct admission_item item;
	struct admission_lease *next, *previous; /* by renewed_ms */
	unsigned count;
	unsigned asking;           /* admissions without an answer: Redis may count them already */
	bool doubtful;             /* a call was not answered: Redis may count one too many, until it has heard how many */
	unsigned doubts;           /* so far */
	uint64_t renewed_ms;
	uint64_t told_ms;          /* when Redis was last told the whole count */
};

struct admission {
	struct admission_node *node;
	struct loop *loop;
	struct redis_async *redis;
	struct admission_batch *batch;
	char worker[ADMISSION_WORKER_ID];
	bool up, failed;           /* neither: the first connection is not there yet */
	int64_t redis_offset_ms;   /* Redis' clock less loop_now_ms() */
	struct admission_table leases;
	struct admission_lease *lease_first, *lease_last;
	struct snapshot *snapshot; /* the worker's current one; NULL: not told yet */
	struct admission_place *places; /* whose timers are this worker's; the node's lock guards it */
	struct loop_timer renew;
};

enum admission_phase { PHASE_ASKING, PHASE_WAITING, PHASE_ASKING_KEY, PHASE_DECIDED };
/* STAGE_WAITED: its turn in the queue has come. Its place is counted; its event becomes one of now. */
enum { STAGE_SUBJECT = 1, STAGE_QUEUE = 2, STAGE_POOL = 4, STAGE_WAITED = 8 };

struct admission_ticket {
	struct admission *owner;
	struct admission_request *rq; /* NULL: the client has gone */
	struct snapshot *snapshot; /* of the subject; of mapping and pool too, where it is not renewed */
	struct snapshot *renewed;  /* of mapping and pool; NULL: it is the one above */
	const struct mapping *mapping;
	const struct subject *subject;
	const struct pool *pool;
	enum admission_phase phase;
	unsigned stages;
	bool asking;               /* Redis will answer */
	struct admission_ticket *next_asking; /* in the same call */
	uint64_t started_ms;
	uint64_t tokens[2];        /* reserved */

	/* taken in Redis */
	double event, made;
	bool place;                /* counted there by its admission */
	/* taken on this node */
	struct admission_local *local;
	uint64_t local_event;
	bool local_place;
	struct admission_lease *lease;    /* where it has a place */
	struct admission_lease *asks_for; /* where it may get one */

	/* the vendor key */
	size_t key;                /* its place in the pool, SIZE_MAX: none */
	double key_event, key_made, trial; /* in Redis */
	uint64_t key_local_event;
	int64_t local_trial;
	bool reported;
	size_t first_choice;       /* what the order charged, and how much */
	int64_t price;
	uint64_t grown;            /* keys that the order gave their weight, of the first 64 */
	bool all_offered;
	unsigned looks; /* for a place, after the first: see ADMISSION_LOOKS */
	uint64_t tried_few;
	uint8_t *tried_many;
	size_t candidate_count;
	uint16_t candidates_few[ADMISSION_CANDIDATES];
	uint16_t *candidates;

	/* the queue */
	struct admission_waiter *waiter;
	struct loop_timer patience;
	uint64_t arrival;
	uint64_t patience_ms, would_wait_ms;
	char queue_name[40];
};

/* ---- admission_scripts.c ---- */

enum admission_script { SCRIPT_ADMIT, SCRIPT_KEY, SCRIPT_SETTLE, SCRIPT_LEAVE, SCRIPT_MOVE, SCRIPT_FORWARD,
	SCRIPT_RENEW, ADMISSION_SCRIPTS };

struct redis_async_script *admission_scripts_new(void); /* ADMISSION_SCRIPTS of them */
void admission_scripts_free(struct redis_async_script *scripts);
/* A line "-- include NAME" becomes that embedded file, HEALTH_TABLE the table of admission_health.h. Free it. */
char *admission_script_expand(const char *text);

enum { ANSWER_VERDICT, ANSWER_WAIT, ANSWER_NOW, ANSWER_SUMS, ANSWER_RESET = ANSWER_SUMS + 3, ANSWER_EVENT, ANSWER_MADE,
	ANSWER_START, ANSWER_CHOICE, ANSWER_KEY_EVENT, ANSWER_KEY_MADE, ANSWER_TRIAL, ANSWER_RULE, ANSWER_NUMBERS };
enum { VERDICT_ADMITTED, VERDICT_CONCURRENCY, VERDICT_RATE, VERDICT_QUEUE_FULL, VERDICT_KEYS_LIMITED, VERDICT_NO_KEY,
	VERDICT_WAITS };
enum { ANSWER_LEARNT_MAX = 3 * 1024 };

struct admission_answer {
	double numbers[ANSWER_NUMBERS];
	size_t learnt_count;       /* candidate, until, status: three numbers each */
	double learnt[ANSWER_LEARNT_MAX];
};

void admission_numbers_read(double *out, const char *bytes, size_t count);
bool admission_answer_read(struct admission_answer *answer, const struct redisReply *reply) __attribute__((warn_unused_result));

void admission_subject_key(const struct subject *s, const char *kind, char key[ADMISSION_NAME_MAX]); /* "limit", "usage" */
/* Of `count` tickets, linked by next_asking, of one subject, pool and stages; the answer of more than one is an array. */
bool admission_call_admit(const struct admission_ticket *first, size_t count, double behind, redis_async_answer *on_answer,
	void *argument);
/* Reports on the ticket's key unless outcome is ADMISSION_NOTHING without a trial; asks where on_answer. */
bool admission_call_key(struct admission_ticket *t, enum admission_outcome outcome, unsigned status, uint64_t retry_after_ms,
	bool give_back, redis_async_answer *on_answer);

struct admission_change {      /* to an event of a window */
	double event, made;
	double amounts[3];         /* added: requests, input, output */
};

struct admission_settlement {  /* as admission_settle.lua reads it */
	double day, places, usage[3];
	double change_count;
	struct admission_change changes[ADMISSION_CHANGES_MAX];
};

/* With today's day, and this usage. */
bool admission_call_settle(struct admission *a, const char *subject_key, const struct admission_settlement *s,
	const int64_t usage[3], redis_async_answer *on_answer, void *argument);
void admission_call_leave(struct admission *a, const char *prefix, const char *name, double start, double rule);
enum { ADMISSION_MOVE_MAX = 256 };
/* New starts for places of one line; the answer is admission_move.lua's. */
bool admission_call_move(struct admission *a, const struct mapping *m, struct admission_place *const *places, size_t count,
	redis_async_answer *on_answer, void *argument);
enum { ADMISSION_FORWARD_MAX = 512 };
/* Earlier starts for places of one line and one rule, in their order; the answer is admission_forward.lua's. */
bool admission_call_forward(struct admission *a, const char *prefix, unsigned near_ms, struct admission_place *const *places,
	size_t count, redis_async_answer *on_answer, void *argument);
bool admission_call_renew(struct admission *a, struct admission_lease *const *leases, size_t count,
	redis_async_answer *on_answer, void *argument);

/* ---- admission_batch.c ---- */

struct admission_batch *admission_batch_new(struct admission *a);
void admission_batch_free(struct admission_batch *b); /* nothing may wait in it: send before */
/* admission_ticket_answered() follows; false: Redis is down, nothing was noted. */
bool admission_batch_admit(struct admission_ticket *t, double behind);
/* amounts: to be added to the ticket's event; NULL: nothing. */
void admission_batch_settle(struct admission_ticket *t, bool place, const double amounts[3], const int64_t usage[3]);
void admission_batch_pay(struct admission *a, const char *subject_key, const int64_t usage[3]); /* usage that Redis missed */
void admission_batch_resume(struct admission_batch *b); /* Redis is back: what it did not take, and what it missed */
void admission_batch_send(struct admission_batch *b); /* now, for what must not overtake it */

/* ---- admission_local.c; the lock is held by the caller where _locked ---- */

/* What this node has seen of the subject goes on counting: a decision of Redis' that admitted. */
void admission_local_note(struct admission_ticket *t);
void admission_local_settle(struct admission_ticket *t, bool give_back, const struct admission_result *result);
/* Stages 1 and 2 without taking anything. */
bool admission_local_check(struct admission_ticket *t, double numbers[ANSWER_NUMBERS]);
/* All stages; numbers as Redis would answer. false: it waits (start in loop time, 0: none). */
void admission_local_decide(struct admission_ticket *t, double numbers[ANSWER_NUMBERS]);
void admission_local_choose(struct admission_ticket *t, double numbers[ANSWER_NUMBERS]); /* stage 4 alone */
/* Raises sums and reset, as Redis answers them, to what this node has seen. */
void admission_local_sums(struct admission_ticket *t, double numbers[ANSWER_NUMBERS]);
void admission_local_unpaid(struct admission_node *node, const char *subject_key, const int64_t usage[3]); /* Redis was away: later */
bool admission_local_pay(struct admission *a, size_t most); /* what Redis missed, of so many subjects; false: of none */
void admission_local_let_go(struct admission_ticket *t);

/* ---- admission_pool.c ---- */

/* Fills t->candidates: the keys not tried yet, the next by weight first. all: however many. */
void admission_pool_offer(struct admission_ticket *t, bool all);
void admission_pool_chosen(struct admission_ticket *t, size_t key); /* of the candidates; SIZE_MAX: none */
/* It is of no use now: the order should not have counted on it. Under node->lock. */
void admission_pool_leave_out(struct admission_ticket *t, struct admission_pool *p, size_t key);
void admission_pool_learn(struct admission_ticket *t, const struct admission_answer *answer);
/* Tells this node's memory; whether Redis needs to hear of it. */
bool admission_pool_report(struct admission_ticket *t, enum admission_outcome outcome, unsigned status, uint64_t retry_after_ms,
	bool give_back);
struct admission_pool *admission_pool_of(struct admission_node *node, const struct pool *pool); /* lock held */
void admission_pool_free_item(struct admission_item *item);
void admission_ticket_mark_tried(struct admission_ticket *t, size_t key);
/* What is still to be chosen is chosen by the mapping that the owner has put in; its key is reported on before. What was
 * taken stays as it is. No offer may be under way. */
void admission_ticket_renew(struct admission_ticket *t);

/* ---- admission_queue.c ---- */

/* In Redis' time: what the line's last waiter waits for; 0: nobody waits. */
double admission_queue_behind(struct admission_ticket *t);
/* Puts the ticket into the line with the start it got (delay_ms < 0: none), by which rule of Redis' (0: a local one). */
void admission_queue_join(struct admission_ticket *t, int64_t delay_ms, double start, double redis_rule);
void admission_queue_fini(struct admission *a);
void admission_queue_leave(struct admission_ticket *t);
void admission_queue_free_item(struct admission_item *item);
struct admission_rule admission_queue_rule(const struct mapping *m);
void admission_queue_be_patient(struct admission_ticket *t, uint64_t patience_ms); /* from its arrival on */
void admission_place_left(struct admission *a, const char *prefix, const struct admission_left *left); /* tells Redis, frees */

/* With the lock held: */
struct admission_line *admission_queue_line_locked(struct admission_node *node, const struct mapping *m);
/* Local mode: the next start. Takes it where take. */
uint64_t admission_queue_next_locked(struct admission_line *line, struct admission_rule rule, uint64_t now_ms, bool take);
void admission_queue_call_locked(struct admission_waiter *w, enum admission_called why);
struct admission_place *admission_place_new_locked(struct admission *a, struct admission_line *line, uint64_t due_ms);
void admission_place_set_due_locked(struct admission_place *p, uint64_t due_ms, int64_t doubt_ms);
void admission_place_set_timer_locked(struct admission_place *p); /* by its owner */
struct admission_left admission_place_drop_locked(struct admission *a, struct admission_place *p); /* out of the line */
void admission_place_disown_locked(struct admission_place *p);

/* ---- admission_change.c ---- */

/* Those who wait in the line: as the worker's current snapshot says. */
void admission_change_line(struct admission *a, struct admission_line *line);

/* ---- admission_forward.c ---- */

void admission_forward_fini_locked(struct admission *a);

/* ---- admission_lease.c ---- */

void admission_lease_ask(struct admission_ticket *t);
void admission_lease_hear(struct admission_ticket *t); /* it asks no longer: admitted, or given up */
void admission_lease_take(struct admission_ticket *t);
bool admission_lease_drop(struct admission_ticket *t); /* whether Redis counts the place */
void admission_lease_doubt_admission(struct admission_ticket *t); /* it was not answered */
void admission_lease_doubt(struct admission *a, const char *subject_key); /* a place was given back, and Redis may not know */
void admission_lease_renew_all(struct admission *a);
void admission_lease_init(struct admission *a);
void admission_lease_fini(struct admission *a);

/* ---- admission.c, for the batch and the queue ---- */

void admission_ticket_answered(struct admission_ticket *t, const struct redisReply *reply);
bool admission_ticket_turn(struct admission_ticket *t);     /* its start has come; false: it does not need it */
void admission_ticket_timed_out(struct admission_ticket *t);
void admission_ticket_unmapped(struct admission_ticket *t); /* its mapping is gone */

#endif
