/* trim: gives back what only the start needed. */
#ifndef APIPROXY_OPS_TRIM_H
#define APIPROXY_OPS_TRIM_H

/* Lets go of free heap and of the resident pages of program text, of which the start touched far more
 * than serving does (of twelve MB five remain). What is needed again comes from the page cache. */
void trim_memory(void);

#endif
