/* version: of this program (semantic versioning). */
#ifndef APIPROXY_BASE_VERSION_H
#define APIPROXY_BASE_VERSION_H

#define APIPROXY_VERSION "1.0.0"

#endif
