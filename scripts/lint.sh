#!/bin/sh
# Looks at the sources without running them; one line a check, all checks, also after one failed.
# Ends with 0 only when each is fine. Where COUNTS names a file, "passed failed skipped" is added to it.
set -u
CLANG_FORMAT=${CLANG_FORMAT:-clang-format}
passed=0 failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# check WHAT COMMAND...: the command says by its status whether it is fine, and prints why not.
check() {
	what=$1
	shift
	if "$@" >"$output" 2>&1; then
		passed=$((passed + 1))
		printf 'ok      %s\n' "$what"
	else
		failed=$((failed + 1))
		printf 'not ok  %s\n' "$what"
		head -n 60 "$output" | sed 's/^/        /'
	fi
}

sources() { find src tests -name '*.[ch]' | sort; }
c_files() { find src tests -name '*.c' | sort; }
scripts() { grep -lE '^#!/bin/(sh|bash)' scripts/* .ci/run tests/*/*.sh 2>/dev/null; }

head_comments() {
	! sources | xargs awk 'FNR == 1 && !/^\/[*\/]/ { print FILENAME ": no head comment" }' | grep .
}

# A longer file holds two jobs.
file_sizes() {
	sources | xargs wc -l | awk '$2 != "total" && $1 > 600 { print $2 ": " $1 " lines, 600 are the limit"; bad = 1 }
		END { exit bad }'
}

left_open() {
	! grep -rnwE 'T[O]DO|F[I]XME|X[X]X|H[A]CK' src static tests scripts monitoring --include='*.[ch]' --include='*.py' \
		--include='*.js' --include='*.lua' --include='*.def' 2>/dev/null
}

white_space() {
	! grep -rnE '[[:space:]]+$' src static scripts Makefile --include='*.[ch]' --include='*.js' --include='*.css' \
		--include='*.html' --include='*.lua' --include='*.sh' --include=Makefile
}

form() { c_files | xargs "$CLANG_FORMAT" --dry-run -Werror; }
shell_scripts() { scripts | xargs shellcheck; }
clang_build() { ${MAKE:-make} --no-print-directory -s CC=clang BUILD=build-clang all unit-tests; }
monitoring() {
	for file in monitoring/prometheus*.yml; do promtool check config --syntax-only "$file" || return 1; done
	promtool check rules monitoring/alerts.yml && promtool test rules monitoring/alerts_test.yml
}

check "layers: who includes whom" scripts/check-layers
check "each source has a head comment" head_comments
check "no file over 600 lines" file_sizes
check "nothing marked as left open" left_open
check "no white space at the end of a line" white_space
check "the form of .c files (make format)" form
check "shell scripts (shellcheck)" shell_scripts
check "monitoring (promtool)" monitoring
check "clang builds it without a warning" clang_build

if [ -n "${COUNTS:-}" ]; then printf '%s %s 0\n' $passed $failed >>"$COUNTS"; fi
[ $failed = 0 ]
