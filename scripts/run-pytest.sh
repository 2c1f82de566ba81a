#!/bin/sh
# run-pytest.sh PART BINARY FOLDER [pytest's arguments]: runs a folder's tests against a binary. What a
# sanitizer finds in it, in whichever process, fails the part too. An empty folder is no failure.
# Where COUNTS names a file, "passed failed skipped" is added to it.
set -eu
part=$1 binary=$2 folder=$3
shift 3
VENV=${VENV:-.venv}
reports=$PWD/.reports
mkdir -p "$reports"
rm -f "$reports/$part.xml" "$reports/$part.sanitizer".*

if [ -z "$(find "$folder" -name 'test_*.py' 2>/dev/null | head -n 1)" ]; then
	printf '%s: no tests in %s\n' "$part" "$folder"
	exit 0
fi

export APIPROXY_BIN="$PWD/$binary"
sanitizer=log_path=$reports/$part.sanitizer
export ASAN_OPTIONS="$sanitizer:detect_stack_use_after_return=1:strict_string_checks=1"
export UBSAN_OPTIONS="$sanitizer:print_stacktrace=1"
export TSAN_OPTIONS="$sanitizer:second_deadlock_stack=1:suppressions=$PWD/tests/tsan.supp"

# The tests wait more than they work: one more at a time than there are cores.
status=0
${RUNNER:-} "$VENV/bin/python" -m pytest -n "${PYTEST_WORKERS:-$(($(nproc) + 1))}" --junitxml="$reports/$part.xml" \
	-o junit_suite_name="$part" "$@" "$folder" || status=$?
[ "$status" != 5 ] || status=0 # nothing was selected

findings=0
for report in "$reports/$part.sanitizer".*; do
	[ -e "$report" ] || continue
	findings=$((findings + 1))
	printf '== %s\n' "$report"
	head -n 60 "$report"
done
[ "$findings" = 0 ] || status=1

if [ -n "${COUNTS:-}" ] && [ -e "$reports/$part.xml" ]; then
	"$VENV/bin/python" - "$reports/$part.xml" "$findings" >>"$COUNTS" <<-'END'
		import sys
		import xml.etree.ElementTree as xml
		total = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
		for suite in xml.parse(sys.argv[1]).iter("testsuite"):
		    for name in total:
		        total[name] += int(suite.get(name, 0))
		failed = total["failures"] + total["errors"]
		passed = total["tests"] - failed - total["skipped"]
		print(max(passed, 0), failed + int(sys.argv[2]), total["skipped"])
	END
fi
exit "$status"
