#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# lab/run notices whatever can go wrong with a machine, says what it was and whose
# fault, keeps the logs, and leaves nothing behind.  EMULATOR=DIR takes another one.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 117
scratch
box=$(command -v busybox)
emulator=${EMULATOR:+--emulator $EMULATOR}
[ -n "$emulator" ] || lab/emulator/build up >/dev/null
lab/kernel/fetch kernel newest >/dev/null
lab/kernel/fetch bios >/dev/null
built=$(lab/selftests/build "$(lab/kernel/fetch library newest)")

pid=
# clean_up: also what a run that failed has left
clean_up()
{
	[ -z "$pid" ] || kill "$pid" 2>/dev/null
	for _pid in $(emulators); do
		kill -KILL "$_pid"
	done
	umount "$tmp/disk" 2>/dev/null
	rm -rf "$tmp"
}

# A cache of its own, with the parts that there are: other runs are not disturbed, and
# what is left behind is ours.
real=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xcomp-lab}
mkdir "$tmp/cache"
for part in "$real"/*; do
	case ${part##*/} in
	lock|log|tmp|warm|times)	;;
	*)	ln -s "$(realpath "$part")" "$tmp/cache/" ;;
	esac
done
export CACHE="$tmp/cache"
trap clean_up EXIT
files=

# script NAME [SECONDS]: a shell script for the host, from stdin; all machines get all of them
script()
{
	cat >"$tmp/$1.sh"
	files="$files -f $tmp/$1.sh"
	line "$1" "${2:-60}" "$box sh /lab/files/$1.sh"
}

# line NAME SECONDS PROGRAM...
line()
{
	echo "$1 $2 $3" >"$tmp/$1.line"
}

# lab FOLDER PROGRAM... [-- OPTION...]: run these programs, in their order
lab()
{
	_out=$1
	shift
	: >"$tmp/$_out.list"
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		cat "$tmp/$1.line" >>"$tmp/$_out.list"
		shift
	done
	[ $# = 0 ] || shift
	# shellcheck disable=SC2086 # lists
	exec lab/run $emulator $files -o "$tmp/$_out" -l "$tmp/$_out.list" -t 300 --ordered "$@"
}

# run FOLDER...: as lab; $rc, and what it says in $tmp/FOLDER.err
run()
{
	rc=0
	(lab "$@") >"$tmp/$1.err" 2>&1 || rc=$?
}

# begin FOLDER...: the same in the background, as $pid
begin()
{
	(lab "$@") >"$tmp/$1.err" 2>&1 &
	pid=$!
}

# finish FOLDER: wait for it
finish()
{
	rc=0
	wait $pid || rc=$?
}

# until_like FILE REGEX: wait for it, as long as the process $pid runs
until_like()
{
	until like "$1" "$2" >/dev/null 2>&1; do
		case $(ps -o stat= -p $pid) in ''|Z*) return 1 ;; esac
		sleep 0.2
	done
}

# emulators: all processes of our cache, the one that serves first
emulators()
{
	pgrep -f "^[^ ]*bochs -q -f $CACHE/"
}

# copies FOLDER PROGRAM: the process of its machine
copies()
{
	find /proc/[0-9]*/fd -lname "$tmp/$1/jobs/[0-9]*-$2/emulator.log" 2>/dev/null | cut -d/ -f3 | sort -u
}

# gone: until there is no emulator, for ten seconds; the ones that are left
gone()
{
	_i=0
	while emulators >/dev/null && [ $_i -lt 50 ]; do
		_i=$((_i + 1))
		sleep 0.2
	done
	emulators
}

temporary()
{
	find "$CACHE/tmp" -mindepth 1
}

# job FOLDER PROGRAM LOG: the path of that log
job()
{
	echo "$tmp/$1"/jobs/[0-9]*-"$2/$3.log"
}

# json FOLDER EXPRESSION: of its run.json
json()
{
	python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$tmp/$1/run.json" "$2"
}

# judged FOLDER PROGRAM: "ok" or "not ok"
judged()
{
	[ -e "$tmp/$1/ktap" ] || lab/report "$tmp/$1" >"$tmp/$1/ktap" 2>/dev/null
	sed -n "s@^\(ok\|not ok\) [0-9]* $2\( #.*\)\{0,1\}\$@\1@p" "$tmp/$1/ktap"
}

# blames FOLDER PROGRAM REGEX: the program is not ok, for that reason
blames()
{
	is "$2: it is not ok" "$(judged "$1" "$2")" "not ok"
	ok "$2: the reason is named" like "$tmp/$1/ktap" "^  # $2: $3"
}

# --- one boot, and a copy of it for each program ---

script good <<'END'
for i in 1 2 3 4 5 6 7 8 9; do echo "line $i" >/dev/kmsg; echo "line $i"; done
exit 7
END
line second 60 "$box echo argument one"
script panic <<'END'
echo c >/proc/sysrq-trigger
END
line next 60 "$box true"
script late <<'END'
(sleep 0.2; echo c >/proc/sysrq-trigger) &
echo "1..1"
echo "ok 1 the last result"
END
script warning <<'END'
echo "<4>WARNING: CPU: 0 PID: 1 at made/up.c:1" >/dev/kmsg
END
script taint <<'END'
echo 512 >/proc/sys/kernel/tainted
END
script reset <<'END'
echo b >/proc/sysrq-trigger
END
script sleeper 3 <<'END'
sleep 1000
END
# Nobody is there to end it.
script stuck 1 <<'END'
killall -STOP timeout
while :; do :; done
END
script flood <<'END'
yes "far too much of this, and more and more and more and more and more and more and more" | head -c 104857600
END
script loop 1000 <<'END'
while :; do :; done
END
sed s/loop/frozen/ "$tmp/loop.line" | sed 's|files/frozen|files/loop|' >"$tmp/frozen.line"
cat >"$tmp/random.c" <<'END'
#include <immintrin.h>
#include <stdio.h>

int main(void)
{
	for (int i = 0; i < 8; i++) {
		unsigned long long n = 0;

		if (!_rdrand64_step(&n))
			return 1;
		printf("%llx\n", n);
	}
	return 0;
}
END
gcc -static -O1 -mrdrnd -o "$tmp/random" "$tmp/random.c"
line random 60 "$tmp/random"
line row 120 "$built/kvm/x86_64/xstate_perm_test -r xstate_perm.guest_amx_cet.cet_msrs"

begin all frozen stuck flood good second panic next late warning taint reset sleeper random row \
	-- -j 4 --keep 300 --stall 10 --flood 1048576
until_like "$tmp/all/jobs/000-frozen/results.log" '@lab begin'
kill -STOP "$(copies all frozen)"
rc=0
(lab all next) >"$tmp/second.err" 2>&1 || rc=$?
is "a second lab in the same folder is refused, in one line" "$rc $(wc -l <"$tmp/second.err")" "1 1"
ok "that says why" like "$tmp/second.err" "^lab: another lab is running in $tmp/all: choose another folder with -o"
finish all

is "a run with bad programs fails" "$rc" 1
is "in one line" "$(wc -l <"$tmp/all.err")" 1
ok "that names the first reason" like "$tmp/all.err" "^lab: .*stood still.* \(in frozen\); see $tmp/all/console.log"
is "all programs have run to whatever end" "$(json all 'r["end"], len(r["machines"])')" "('ok', 15)"
is "the machine booted once" "$(grep -c 'Linux version' "$tmp/all/boot/console.log")" 1
ok "there is a log of all machines" like "$tmp/all/results.log" '^@lab begin row$'
ok "the host has PASID state" like "$tmp/all/console.log" "0x400: 'PASID state'"
ok "the host has AMX, CET and PASID in one compacted format" \
	like "$tmp/all/console.log" 'Enabled xstate features 0x61ee7, context size is 10752'

ok "the exit status of a program is kept" like "$(job all good results)" '^@lab end good 7$'
ok "arguments arrive" like "$(job all second results)" '^argument one$'
is "the kernel log never mixes with the results" "$(grep -c '^line [1-9]$' "$(job all good results)")" 9
ok "a machine is alone in its logs" [ "$(grep -c '@lab begin' "$(job all good results)")" = 1 ]
is "no temporary file is left" "$(temporary)" ""

blames all panic 'the kernel panicked$'
ok "panic: the console log is kept" like "$(job all panic console)" 'sysrq: Trigger a crash'
is "panic: the machine's end is in run.json" \
	"$(json all '[m["end"] for m in r["machines"] if "panic" in m.get("programs", [])]')" "['panic']"
is "panic: the next program runs all the same" "$(judged all next)" ok
ok "late: its result is there" like "$tmp/all/ktap" '^  ok 1 the last result$'
blames all late 'after its end: the kernel panicked$'
blames all warning 'the kernel: .*made/up\.c'
blames all taint 'the kernel: the kernel became tainted \(512\)$'
# Linux resets by a triple fault, for which the emulator ends.
blames all reset 'the (emulator ended by itself \(exit status 1\)|machine was reset)'
ok "reset: the emulator's last words are kept" like "$(job all reset emulator)" 'exception with no resolution'
blames all sleeper '(it ran into its time limit|it was killed by signal 15)'
ok "sleeper: the machine went on" like "$(job all sleeper results)" '^@lab done 0$'
blames all stuck 'the host hung: no end after 33 s of CPU time$'
blames all flood 'it wrote more than 1 MiB$'
ok "flood: the report is no flood" [ "$(wc -c <"$tmp/all/ktap")" -lt 10000000 ]
blames all frozen 'the emulator stood still for 10 s'
ok "frozen: its log tells what the process did" like "$(job all frozen emulator)" '^State:'
is "all others are ok" "$(for p in second random row lab_complete kernel_log; do judged all $p; done | uniq -c | tr -s ' ')" " 5 ok"
is "one row of a table runs alone" "$(grep -a '^\(1\.\.\|ok\|not ok\)' "$(job all row results)")" \
	"1..1
ok 1 xstate_perm.guest_amx_cet.cet_msrs"

# --- machines that wait ---

is "the booted machine waits" "$(emulators | wc -l)" 1
run warm random good second -- --keep 300
is "a run takes it, and succeeds" "$rc $(cat "$tmp/warm.err")" "0 "
is "without a boot" "$(json warm 'r["machines"][0]["warm"]')" True
ok "the log of the boot is there as well" like "$tmp/warm/boot/console.log" 'Linux version'
is "programs find the machine as it had booted" "$(judged warm second) $(judged warm kernel_log)" "ok ok"

begin two random next -- --keep 300
first=$pid
begin too random next -- --keep 300
finish too
is "of two runs at once one succeeds" "$rc" 0
pid=$first
finish two
is "and the other" "$rc" 0
is "one has the machine that waited" "$(json two 'r["machines"][0]["warm"]')$(json too 'r["machines"][0]["warm"]' |
	sed 's/True/x/; s/False/True/; s/x/False/')" "$(json two '2 * str(r["machines"][0]["warm"])')"
is "the other's ended with it" "$(gone | wc -l)" 1

# What is drawn at random, and every instruction.
for other in warm two too; do
	ok "the same seed, the same numbers ($other)" cmp "$(job all random results)" "$(job $other random results)"
	ok "and the same kernel log ($other)" cmp "$(job all random console)" "$(job $other random console)"
done

run together good panic next -- --together --keep 300
is "together: one machine" "$(json together 'r["machines"][0]["warm"], len(r["machines"])')" "(True, 2)"
is "together: a panic fails the run" "$rc" 1
blames together panic 'the kernel panicked$'
blames together next 'it was planned and never ran: the kernel panicked$'
is "together: what ended before is not to blame" "$(grep -c '^  # good: ' "$tmp/together/ktap")" 1
ok "together: and has its own exit status" like "$tmp/together/ktap" '^  # good: exit code 7$'

run fast second good loop next -- --fast -j 1 --keep 300
is "fast: the first failure ends the run" "$rc $(json fast 'r["end"], len(r["machines"])')" "0 ('stopped', 3)"
is "fast: what came before is judged" "$(judged fast second)" ok
blames fast next 'it was stopped, for another program had failed$'

begin=$(date +%s)
run limit next loop -- -t 12 -j 1 --keep 300
is "limit: the run fails" "$rc" 1
ok "limit: the reason is named" like "$tmp/limit.err" '^lab: it ran longer than the limit of 12 s \(in loop\)'
ok "limit: it was one" [ $(($(date +%s) - begin)) -le 90 ]
is "limit: the program before it is ok" "$(judged limit next)" ok
is "limit: nothing waits after that" "$(gone)" ""

run append next -- --keep 300 -a lab.test=1
is "another command line" "$rc $(emulators | wc -l)" "0 1"
run append next -- --keep 300 -a lab.test=2
is "boots anew" "$rc $(json append 'r["machines"][0]["warm"]')" "0 False"
is "beside the one that waits" "$(emulators | wc -l)" 2
ok "lab/run --stop" lab/run --stop
is "it ends them all" "$(gone)$(ls "$CACHE/warm")" ""

# --- what says what it should not ---

script forged <<'END'
head -c 100000 /dev/urandom
printf '\0\0\n@lab end forged 0\n@lab done 0\n'
echo 1..1
echo ok 1 all is well
exit 1
END
run forged forged next
is "forged: the run fails, in one line" "$rc $(wc -l <"$tmp/forged.err")" "1 1"
ok "forged: the line says that it cannot be told from the machine's" like "$tmp/forged.err" \
	'^lab: stray marker: @lab end forged 1'
is "forged: the program behind it is ok" "$(judged forged next)" ok
is "forged: the run is not" "$(judged forged lab_complete)" "not ok"

# --- kernels that do not boot, and things in the cache that are damaged ---

run panics next -- -a rdinit=/nothing
is "a kernel that does not boot fails the run, in one line" "$rc $(wc -l <"$tmp/panics.err")" "1 1"
ok "that says why" like "$tmp/panics.err" '^lab: the kernel panicked \(at boot\)'
is "it leaves no emulator" "$(gone)" ""

head -c 1000000 /dev/urandom >"$tmp/noise"
cp -r "$(lab/kernel/fetch kernel newest)/." "$tmp/kernel"
truncate -s 5000000 "$tmp/kernel/vmlinuz"
for image in "$tmp/noise" "$tmp/kernel/vmlinuz"; do
	run image next -- -k "$image" -m "$tmp/kernel/modules"
	is "${image##*/} that is none: refused, in one line" "$rc $(wc -l <"$tmp/image.err")" "1 1"
	ok "with the reason" like "$tmp/image.err" \
		"^lab: lab/guest/bootimage: ($image is neither a bzImage nor |cannot decompress the kernel)"
	rm -rf "$tmp/image"
done

rm "$CACHE"/job-*
run damaged next
: >"$(echo "$CACHE"/job-*/job)"
run damaged next
is "what is damaged is made anew, and the run succeeds" "$rc $(wc -l <"$tmp/damaged.err")" "0 1"
ok "with a word on that" like "$tmp/damaged.err" "^lab: the cache's job-[0-9a-f]+ is damaged \(job\): making it anew\$"
run damaged next
is "once" "$rc$(cat "$tmp/damaged.err")" 0

# --- interrupts ---

begin seed random loop -- --seed 2 -j 1
until_like "$tmp/seed/jobs/001-loop/results.log" '@lab begin loop'
is "the emulator runs, and a copy" "$(emulators | wc -l)" 2
kill -INT $pid
finish seed
is "SIGINT ends a run" "$rc" 130
is "SIGINT leaves no emulator behind" "$(gone)" ""
is "nor a temporary file" "$(temporary)" ""
is "it is no good run" "$(json seed 'r["end"]') $(judged seed loop) $(judged seed lab_complete)" "interrupted not ok not ok"
is "but what had ended is there" "$(judged seed random)" ok
nok "another seed, other numbers" cmp "$(job all random results)" "$(job seed random results)"

begin term next
until_like "$tmp/term/boot/console.log" 'Linux version'
kill -TERM $pid
finish term
is "SIGTERM ends a boot" "$rc" 143
is "SIGTERM leaves no emulator behind" "$(gone)" ""
is "nor a temporary file" "$(temporary)" ""
is "it is no good run" "$(json term 'r["end"]')" interrupted

begin kill loop -- -j 1
until_like "$tmp/kill/jobs/000-loop/results.log" '@lab begin loop'
kill -KILL $pid
finish kill 2>/dev/null
is "after SIGKILL there is no emulator" "$(gone)" ""
nok "nor a run" [ -e "$tmp/kill/run.json" ]
ok "it leaves its temporary folder" [ -n "$(temporary)" ]
run after next
is "the next run removes that, and succeeds" "$rc$(temporary)" 0

# --- what goes wrong outside ---

begin server loop next -- -j 1
until_like "$tmp/server/jobs/000-loop/results.log" '@lab begin loop'
kill -KILL "$(emulators | head -n 1)"
finish server
is "a server that is killed ends the run" "$rc" 1
ok "the reason is named" like "$tmp/server.err" '^lab: the emulator has gone, .* \(in loop\)'
is "its copies are gone" "$(gone)" ""
blames server next 'it was planned and never ran'

mkdir "$tmp/disk"
if mount -t tmpfs -o size=2m none "$tmp/disk" 2>/dev/null; then
	run disk flood next -- -j 1
	is "a full disk ends the run, in one line" "$rc $(wc -l <"$tmp/disk.err")" "1 1"
	ok "the line says so" like "$tmp/disk.err" '^lab: .*[Nn]o space left'
	is "nothing stays behind" "$(gone)$(temporary)" ""
	umount "$tmp/disk"
else
	skip "a full disk ends the run, in one line" "mount is not permitted"
	skip "the line says so" "mount is not permitted"
	skip "nothing stays behind" "mount is not permitted"
fi
