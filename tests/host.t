#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# lab/run --here, the runner for this machine's own kernel: limits, exit codes and
# logs, and "make kselftest HOST=1" as a whole.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 24
scratch
# What processes sleep is their name: another run of this test has others.
export NAP="98.$$"

# script NAME: a program, from stdin
script()
{
	{
		echo '#!/bin/sh'
		cat
	} >"$tmp/$1"
	chmod +x "$tmp/$1"
}

script good <<'END'
echo 1..1
echo "ok 1 arguments $*"
pwd >&2
END
script seven <<'END'
exit 7
END
script stuck <<'END'
trap '' TERM
printf 'an open line'
sleep "$NAP" &
sleep "$NAP"
sleep "$NAP"
END
script killed <<'END'
kill -SEGV $$
END
cat >"$tmp/list" <<END
good 10 $tmp/good one two
seven 10 $tmp/seven
# not a program
stuck 1 $tmp/stuck
killed 10 $tmp/killed
last 10 $tmp/good
END

rc=0
lab/run --here -o "$tmp/out" -l "$tmp/list" >"$tmp/stdout" 2>&1 || rc=$?
# json EXPRESSION: of run.json
json()
{
	python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$tmp/out/run.json" "$1"
}
is "a run ends well whatever the programs do" "$rc $(json 'r["end"]')" "0 ok"
is "it tells what it ran" "$(json '" ".join(r["planned"])')" "good seven stuck killed last"
is "it prints nothing" "$(cat "$tmp/stdout")" ""
log=$tmp/out/results.log
ok "arguments arrive" like "$log" '^ok 1 arguments one two$'
ok "a program runs in its own folder" like "$log" "^$tmp\$"
ok "exit codes are kept" like "$log" '^@lab end seven 7$'
ok "a program that ignores SIGTERM is stopped" like "$log" '^@lab end stuck (124|137)$'
ok "an open line does not hide the marker" like "$log" '^an open line$'
nok "its children are gone too" pgrep -f "sleep $NAP"
ok "death by a signal shows" like "$log" '^@lab end killed 139$'
ok "the next program runs all the same" like "$log" '^@lab end last 0$'
ok "the end is marked, with the taint that arose" like "$log" '^@lab done 0$'
ok "there is a kernel log, or the word that there is none" like "$tmp/out/console.log" '^lab: (the|no) kernel log'
if [ -w /dev/kmsg ] && dmesg >/dev/null 2>&1; then
	ok "the kernel log tells which program ran" like "$tmp/out/console.log" 'lab: begin stuck$'
else
	skip "the kernel log tells which program ran" "the kernel log cannot be written or read"
fi

rc=0
lab/report "$tmp/out" >"$tmp/ktap" 2>/dev/null || rc=$?
is "the report judges it" "$rc $(grep -c '^not ok' "$tmp/ktap")" "1 3"

# A second run in the same folder at the same time is refused.
printf 'slow 60 %s\n' "$tmp/stuck" >"$tmp/slow"
lab/run --here -o "$tmp/out" -l "$tmp/slow" >/dev/null 2>&1 &
pid=$!
i=0
while ! grep -q '^an open line' "$tmp/out/jobs/000-slow/results.log" 2>/dev/null; do
	sleep 0.1
	i=$((i + 1))
	[ $i -lt 100 ] || break
done
nok "two runs in one folder are refused" lab/run --here -o "$tmp/out" -l "$tmp/list"
begin=$(date +%s)
kill -TERM $pid
rc=0
wait $pid || rc=$?
is "an interrupt ends a run" "$rc" 143
ok "within the time a stubborn program is given" [ $(($(date +%s) - begin)) -le 20 ]
nok "and leaves no process" pgrep -f "sleep $NAP"
is "the interrupted run is no good one" "$(json 'r["end"]')" "interrupted"
nok "as the report says" lab/report "$tmp/out"

# --- all of it ---

tree=$(lab/kernel/fetch source "$newest") || tree=/nowhere
suite()
{
	env HOST=1 KSRC="$tree" O="$tmp/suite" TESTS="$1" lab/kselftest
}
ok "HOST=1 runs programs of both kinds" suite "sigaltstack xcomp_perm"
is "in the order asked for" "$(sed -n 's/^@lab begin //p' "$tmp/suite/results.log" | tr '\n' ' ')" \
	"upstream/x86/sigaltstack_64 x86/xcomp_perm_64 "
nok "an unknown test of a program fails" suite xstate_perm_test:no_such.test
