/* problem: the table of failures, expanded. */
#include "state/problem.h"

/* clang-format off */
const struct problem problem_table[PROBLEM_COUNT] = {
	[PROBLEM_NONE] = {0, "", ""},
#define X(id, status, code, message) [PROBLEM_##id] = {status, code, message},
	PROBLEM_TABLE(X)
#undef X
};
/* clang-format on */
