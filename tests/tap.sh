# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# Test Anything Protocol for the shell scripts in tests/, run by prove.
# Sourced after "set -u", with the repository's root as TOP.
#
#	plan COUNT
#	ok NAME COMMAND...		passes if COMMAND succeeds
#	nok NAME COMMAND...		passes if COMMAND fails
#	is NAME GOT WANTED
#	like FILE REGEX			for ok and nok: FILE has a line like REGEX
#	skip NAME REASON
#	scratch				set $tmp to a folder removed at the end
#	$newest				the newest kernel series of lab/machines

case $0 in
tests/slow/*|*/tests/slow/*)	TOP=$(cd "$(dirname "$0")/../.." && pwd) ;;
*)				TOP=$(cd "$(dirname "$0")/.." && pwd) ;;
esac
cd "$TOP" || exit 1
tap_count=0
tmp=
# shellcheck disable=SC2034 # for the test that sources this file
newest=$(sed -n 's/^kernels .* //p' lab/machines)

plan()
{
	echo "1..$1"
}

tap_result()
{
	tap_count=$((tap_count + 1))
	echo "$1 $tap_count - $2"
}

# tap_diag FILE: as diagnostics, at most 30 lines
tap_diag()
{
	[ ! -s "$1" ] || tail -n 30 "$1" | sed 's/^/# /'
}

ok()
{
	_name=$1
	shift
	scratch
	if "$@" >"$tmp/tap.out" 2>&1; then
		tap_result ok "$_name"
	else
		echo "# failed (status $?): $*"
		tap_diag "$tmp/tap.out"
		tap_result "not ok" "$_name"
	fi
}

nok()
{
	_name=$1
	shift
	scratch
	if "$@" >"$tmp/tap.out" 2>&1; then
		echo "# succeeded, but must not: $*"
		tap_diag "$tmp/tap.out"
		tap_result "not ok" "$_name"
	else
		tap_result ok "$_name"
	fi
}

is()
{
	if [ "$2" = "$3" ]; then
		tap_result ok "$1"
	else
		echo "# got '$2', wanted '$3'"
		tap_result "not ok" "$1"
	fi
}

like()
{
	grep -qaE -e "$2" "$1" && return 0
	echo "no line like '$2' in $1:"
	tail -n 20 "$1"
	return 1
}

skip()
{
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1 # SKIP $2"
}

scratch()
{
	[ -z "$tmp" ] || return 0
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}
