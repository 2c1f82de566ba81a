#!/bin/sh
# Writes an assembler file that holds each file given and a table of them: struct embedded_file in
# src/base/embedded.h. A file is known by its name below static/ or src/, or by its last part.
set -eu
echo '	.section .rodata'
n=0
for file in "$@"; do
	case $file in
	static/*) name=${file#static/} ;;
	*) name=$(basename "$file") ;;
	esac
	printf '\t.balign 16\nd%d:\t.incbin "%s"\ne%d:\t.byte 0\nn%d:\t.asciz "%s"\n' $n "$file" $n $n "$name"
	n=$((n + 1))
done
printf '\t.section .data.rel.ro,"aw"\n\t.balign 8\n\t.globl embedded_files\nembedded_files:\n'
i=0
while [ $i -lt $n ]; do
	printf '\t.quad n%d, d%d, e%d - d%d\n' $i $i $i $i
	i=$((i + 1))
done
printf '\t.quad 0, 0, 0\n\t.section .note.GNU-stack,"",%%progbits\n'
