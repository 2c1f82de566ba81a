#!/bin/sh
# run-fuzzers.sh FOLDER SECONDS: runs each libFuzzer program in the folder for so long, from the seeds in
# tests/fuzz/corpus/NAME. What breaks it is left in .reports/fuzz. Ends with 0 only when nothing broke.
set -u
folder=$1 seconds=$2 status=0
for fuzzer in "$folder"/fuzz_*; do
	case $fuzzer in *.o | *.d) continue ;; esac
	[ -x "$fuzzer" ] || continue
	name=$(basename "$fuzzer")
	grown=.reports/fuzz/$name
	mkdir -p "$grown"
	printf '== %s\n' "$name"
	seeds=tests/fuzz/corpus/$name
	[ -d "$seeds" ] || seeds=
	# shellcheck disable=SC2086 # none, or one folder
	"$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
		-artifact_prefix="$grown/broken-" "$grown" $seeds || status=1
done
exit $status
