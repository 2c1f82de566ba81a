/* node_name: the name under which this node counts, in /stats and in Redis.
 *
 * Kept in data_dir/node_id (made when missing), so that totals survive restarts, also when the host's
 * name changes, as a container's does. A second process in the same data_dir gets node_id.2 and so on:
 * a file is locked as long as its process lives. */
#ifndef APIPROXY_OPS_NODE_NAME_H
#define APIPROXY_OPS_NODE_NAME_H

/* data_dir must be there. Letters, digits, dots and hyphens. Where no file can be written (said in the
 * log), a name for this life only. Caller frees. */
char *node_name_load(const char *data_dir) __attribute__((warn_unused_result, returns_nonnull));

#endif
