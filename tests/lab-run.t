#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# lab/run notices whatever can go wrong with a boot, says what it was, keeps
# the console log, and leaves nothing behind.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 28
scratch
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xcomp-lab}
box=$(command -v busybox)

# script NAME: a shell script for the host, from stdin, and the list that runs it
script()
{
	cat >"$tmp/$1.sh"
	echo "$1 ${2:-60} $box sh /lab/files/$1.sh" >>"$tmp/$1.list"
}

# boot NAME [OPTION]...
boot()
{
	_n=$1
	shift
	lab/run -o "$tmp/$_n" -f "$tmp/$_n.sh" -l "$tmp/$_n.list" "$@"
}

# emulator NAME: the process that has the console log of this run open
emulator()
{
	for _fd in /proc/[0-9]*/fd/*; do
		[ "$(readlink "$_fd")" != "$tmp/$1/console.log" ] || echo "$_fd"
	done 2>/dev/null | cut -d/ -f3 | while read -r _pid; do
		! grep -q bochs "/proc/$_pid/comm" || echo "$_pid"
	done | sort -u
}

# temporary NAME: the temporary folders of this run
temporary()
{
	grep -lx "$tmp/$1" "$cache"/tmp/run.*/out 2>/dev/null
}

# --- a good run ---

script good <<'E2'
for i in 1 2 3 4 5 6 7 8 9; do echo "line $i" >/dev/kmsg; echo "line $i"; done
exit 7
E2
echo "second 60 $box echo argument one" >>"$tmp/good.list"
begin=$(date +%s)
ok "a clean boot succeeds" boot good -t 300
# Enough for another boot on a machine that is as busy as now.
limit=$((3 * ($(date +%s) - begin) + 5))
is "its status is ok" "$(cat "$tmp/good/status")" ok
ok "the exit status of a program is kept" like "$tmp/good/results.log" '^@lab end good 7$'
ok "arguments arrive" like "$tmp/good/results.log" '^argument one$'
is "the kernel log never mixes with the results" \
	"$(grep -c '^line [1-9]$' "$tmp/good/results.log")" 9
ok "the host has PASID state" like "$tmp/good/console.log" "0x400: 'PASID state'"
ok "the host has AMX, CET and PASID in one compacted format" \
	like "$tmp/good/console.log" 'Enabled xstate features 0x61ee7, context size is 10752'
is "no temporary file is left" "$(temporary good)" ""

# --- what goes wrong in the host ---

# trouble NAME REASON [OPTION]...: the script NAME makes the run fail with REASON
trouble()
{
	_t=$1
	_r=$2
	shift 2
	nok "$_t: the run fails" boot "$_t" "$@"
	ok "$_t: the reason is named" like "$tmp/$_t/status" "$_r"
}

script panic <<'E2'
echo c >/proc/sysrq-trigger
E2
trouble panic 'panicked \(in panic\)' -t 300
ok "panic: the console log is kept" like "$tmp/panic/console.log" 'sysrq: Trigger a crash'

script reset <<'E2'
echo b >/proc/sysrq-trigger
E2
trouble reset 'stopped|reset' -t 120

script warning <<'E2'
echo "<4>WARNING: CPU: 0 PID: 1 at made/up.c:1" >/dev/kmsg
E2
trouble warning 'the kernel warned: .*made/up.c' -t 300

script taint <<'E2'
echo 512 >/proc/sys/kernel/tainted
E2
trouble taint 'tainted \(512\)' -t 300

script hang <<'E2'
while :; do :; done
E2
trouble hang "longer than the limit of $limit s \\(in hang\\)" -t $limit

script sleeper 3 <<'E2'
sleep 1000
E2
ok "a program over its own limit ends, the run goes on" boot sleeper -t 300
ok "its status says so" like "$tmp/sleeper/results.log" '^@lab end sleeper (124|143)$'

# --- what goes wrong outside ---

script stop <<'E2'
while :; do :; done
E2
(boot stop -t 300 & echo $! >"$tmp/pid"; wait $!) >"$tmp/stop.out" 2>&1 &
n=0
until [ -s "$tmp/stop/results.log" ] || [ $n = 120 ]; do
	sleep 1
	n=$((n + 1))
done
nok "a second lab in the same folder is refused" boot stop -t 300
is "the emulator runs" "$(emulator stop | wc -l)" 1
pkill -INT -f "lab/run -o $tmp/stop" || :
wait
is "an interrupt leaves no emulator behind" "$(emulator stop)" ""
is "nor a temporary file" "$(temporary stop)" ""

script frozen <<'E2'
while :; do :; done
E2
LAB_STALL=5 boot frozen -t 300 >"$tmp/frozen.out" 2>&1 &
n=0
until [ -s "$tmp/frozen/results.log" ] || [ $n = 120 ]; do
	sleep 1
	n=$((n + 1))
done
kill -STOP "$(emulator frozen)"
wait
ok "an emulator that stands still is noticed" like "$tmp/frozen/status" 'stood still for 5 s'

# --- two at once ---

script two <<'E2'
exit 0
E2
cp "$tmp/two.sh" "$tmp/too.sh"
sed 's/two/too/g' "$tmp/two.list" >"$tmp/too.list"
boot too -t 300 >"$tmp/too.out" 2>&1 &
ok "one of two labs at once succeeds" boot two -t 300
wait $!
is "and so does the other" "$(cat "$tmp/too/status")" ok
