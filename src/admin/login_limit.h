/* login_limit: 10 wrong passwords in 60 s for a user, 100 from an address, over all nodes, exact
 * sliding windows in Redis (login.lua). An attempt is announced before its password is looked at, so
 * that many at once do not slip through; those that might fill the limit wait for the ones under way.
 * Where Redis fails, this node counts what it has seen itself, and tells it to Redis with the next attempt of the same
 * user or address. Any thread; blocks. */
#ifndef APIPROXY_ADMIN_LOGIN_LIMIT_H
#define APIPROXY_ADMIN_LOGIN_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

struct admin;

struct login_attempt {
	struct admin *admin;
	char user[80];     /* as it stands in Redis' keys */
	char address[80];
	uint64_t name;
	bool announced;    /* in Redis */
};

/* Milliseconds to wait where the limit is reached, else 0: the attempt goes on, login_limit_end(). */
uint64_t login_limit_begin(struct login_attempt *attempt, struct admin *admin, const char *username, const char *peer);
void login_limit_end(struct login_attempt *attempt, bool wrong);

/* A user's name in a Redis key: itself, or its SHA-256 where it is no valid name. */
void login_key_name(const char *username, char out[80]);

#endif
