/* acme: certificates by ACME (RFC 8555, http-01), through the uacme program.
 *
 * A thread of its own: at start and then daily (after a failure: a minute, growing to six hours)
 * runs uacme for acme.domains, which renews what is close to its end; a new certificate in
 * data_dir/acme/CA goes live by certificates_reload(). A small listener on acme.http_listen answers
 * /.well-known/acme-challenge/ and redirects everything else to https. Failures go to the journal;
 * until the first certificate is there a self-signed one serves. */
#ifndef APIPROXY_OPS_ACME_H
#define APIPROXY_OPS_ACME_H

#include <stdbool.h>

struct settings;
struct acme;

/* After certificates_init(), only where acme.enabled. Keeps s. NULL: logged. */
struct acme *acme_start(const struct settings *s) __attribute__((warn_unused_result));
void acme_check_now(struct acme *a); /* SIGHUP: does not wait for the next day */
void acme_stop(struct acme *a);      /* NULL is fine */

#endif
