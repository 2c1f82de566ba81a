#!/bin/sh
# run-tests.sh PART...: runs `make PART` for each, all of them, also after one failed, then says what came
# of each and closes with one line, the sum: "N passed, N failed" (", N skipped" where there are).
# A part that fails without a count (it did not build, say) is one failure. Each part's output is kept
# in .reports/PART.log. Ends with 0 only when nothing failed and something passed.
set -u
mkdir -p .reports
passed=0 failed=0 skipped=0 summary=

for part in "$@"; do
	printf '\n==== %s\n' "$part"
	COUNTS=$PWD/.reports/$part.counts
	export COUNTS
	: >"$COUNTS"
	start=$(date +%s)
	{
		${MAKE:-make} --no-print-directory "$part" 2>&1
		echo $? >".reports/$part.status"
	} | tee ".reports/$part.log"
	seconds=$(($(date +%s) - start))
	read -r p f s <<-END
		$(awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$COUNTS")
	END
	if [ "$(cat ".reports/$part.status")" != 0 ] && [ "$f" = 0 ]; then f=1; fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	summary="$summary$(printf '%-8s %6s ok %6s bad %6s left out %6s s' "$part" "$p" "$f" "$s" "$seconds")
"
done

printf '\n%s' "$summary"
line="$passed passed, $failed failed"
[ "$skipped" = 0 ] || line="$line, $skipped skipped"
printf '%s\n' "$line"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
