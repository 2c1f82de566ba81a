/* snapshot_build: how a snapshot comes to be. For state/store and tests alone.
 *
 *     subjects_new, subjects_add …, subjects_seal      clients; the same for users
 *     snapshot_new, snapshot_add_mapping …, snapshot_add_key …, snapshot_seal
 *
 * What is added is zeroed and filled by the caller (strings in the arena given); after sealing
 * nothing changes any more. Clients and users are sets of their own with their own count, so that
 * a new snapshot after an edited mapping shares a hundred thousand clients with the old one. */
#ifndef APIPROXY_STATE_SNAPSHOT_BUILD_H
#define APIPROXY_STATE_SNAPSHOT_BUILD_H

#include "state/snapshot.h"

struct arena;
struct stats;
struct subjects;

struct subjects *subjects_new(void);
struct arena *subjects_arena(struct subjects *set);
struct subject *subjects_add(struct subjects *set);
/* Of two with the same id the one added first stays; the other is told to on_repeated. */
void subjects_seal(struct subjects *set, void (*on_repeated)(void *context, const struct subject *subject), void *context);
void subjects_unref(struct subjects *set); /* NULL is fine */

struct snapshot *snapshot_new(struct stats *stats, const char *jwt_secret); /* stats NULL: no slots */
struct arena *snapshot_arena(struct snapshot *s);
struct mapping *snapshot_add_mapping(struct snapshot *s);
struct vendor_key *snapshot_add_key(struct snapshot *s);
void snapshot_seal(struct snapshot *s, struct subjects *clients, struct subjects *users); /* takes a reference to each; NULL: none */

#endif
