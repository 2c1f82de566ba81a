/* self_signed: a certificate of one's own, for tries at home and until ACME has a real one.
 *
 * EC P-256, valid for 825 days, for localhost, this host's name, 127.0.0.1, ::1 and the names given;
 * kept as cert.pem and key.pem (mode 0600) in a directory. Made anew when it is missing, broken,
 * near its end (30 days) or lacks a name. */
#ifndef APIPROXY_OPS_SELF_SIGNED_H
#define APIPROXY_OPS_SELF_SIGNED_H

#include <stdbool.h>

/* names: a comma list, may be "". false: *why says what (caller frees). */
bool self_signed_ensure(const char *directory, const char *names, char **why) __attribute__((warn_unused_result));

#endif
