#!/bin/sh
# Runs the cmocka programs given, all of them, also after one failed. A program that dies before its
# closing lines counts as one failure. Where COUNTS names a file, "passed failed skipped" is added to it.
set -u
passed=0 failed=0 skipped=0 status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The number after a marker of cmocka's closing lines, such as "[  PASSED  ] 5 test(s)."
number() { sed -n "s/^\\[  $1 *\\] \\([0-9][0-9]*\\) test(s).*/\\1/p" "$log" | tail -n 1; }

for program in "$@"; do
	printf '== %s\n' "$program"
	${RUNNER:-} timeout -k 5 300 "$program" >"$log" 2>&1
	code=$?
	grep -v -e '^\[ RUN ' -e '^\[       OK \]' "$log"
	p=$(number PASSED) f=$(number FAILED) s=$(number SKIPPED)
	if [ "$code" != 0 ] && [ "${f:-0}" = 0 ]; then
		printf '%s ended with %s\n' "$program" "$code"
		f=1
	fi
	passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
	[ "${f:-0}" = 0 ] || status=1
done
if [ -n "${COUNTS:-}" ]; then printf '%s %s %s\n' $passed $failed $skipped >>"$COUNTS"; fi
exit $status
