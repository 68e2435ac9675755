#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Every shell script is clean under shellcheck, every Python file compiles, and
# every script, C file and header has its licence line.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

scratch
find . \( -name .git -o -name out \) -prune -o -type f -print | sort >"$tmp/all"

# with_first_line REGEX: the files whose first line matches
with_first_line()
{
	while read -r f; do
		! head -c 80 "$f" | head -n 1 | grep -qaE "$1" || echo "$f"
	done <"$tmp/all"
}

{
	with_first_line '^#!.*sh$'
	# Files that are sourced say so where shellcheck looks for it.
	while read -r f; do
		! head -n 3 "$f" | grep -qa '^# shellcheck shell=' || echo "$f"
	done <"$tmp/all"
} | sort -u >"$tmp/shell"
{
	with_first_line '^#!.*python3$'
	grep '\.py$' "$tmp/all"
} | sort -u >"$tmp/python"
{
	cat "$tmp/shell" "$tmp/python"
	grep -E '\.([chS]|config)$|/Makefile$' "$tmp/all"
} | sort -u >"$tmp/sources"
shell=$(wc -l <"$tmp/shell")
python=$(wc -l <"$tmp/python")
plan $((shell + python + 3))

ok "there are scripts to check" [ "$shell" -ge 8 ]
ok "and Python files" [ "$python" -ge 8 ]

# -x follows the files that a script sources, from the folder it names.
while read -r f; do
	case $f in
	# busybox's shell, which shellcheck knows by its origin.
	*/guest/init)	ok "shellcheck $f" shellcheck -s dash "$f" </dev/null ;;
	*)			ok "shellcheck $f" shellcheck -x "$f" </dev/null ;;
	esac
done <"$tmp/shell"
while read -r f; do
	ok "python $f" python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$f" </dev/null
done <"$tmp/python"

# unlicensed: files without the line
unlicensed()
{
	while read -r f; do
		head -n 3 "$f" | grep -qa 'SPDX-License-Identifier: GPL-2.0-only' || echo "$f"
	done <"$tmp/sources"
}
is "every source file names its licence" "$(unlicensed | tr '\n' ' ')" ""
