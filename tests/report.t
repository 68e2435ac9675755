#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# lab/report judges runs by what programs and kernel wrote, and its KTAP is
# taken by prove and by the kernel's own parser.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 82
scratch
out=$tmp/run

# run NAME: a new OUT folder with a clean kernel log
run()
{
	out=$tmp/$1
	mkdir "$out"
	echo ok >"$out/status"
	printf '%s\n' '[    0.000000] Linux version 7.3.4+deb13-cloud-amd64 (builder)' \
		'[    0.010000] x86/fpu: Supporting XSAVE feature 0x001' >"$out/console.log"
	: >"$out/results.log"
}

# program NAME EXITCODE: its output from stdin
program()
{
	echo "[    1.500000] lab: begin $1" >>"$out/console.log"
	{
		echo "@lab begin $1"
		cat
		printf '\n@lab end %s %s\n' "$1" "$2"
	} >>"$out/results.log"
	echo "[    1.700000] lab: end $1" >>"$out/console.log"
}

# end_run [TAINT]
end_run()
{
	echo "@lab done ${1:-0}" >>"$out/results.log"
}

# report [OUT...]: $rc, $tmp/ktap and $tmp/summary
report()
{
	[ $# -gt 0 ] || set -- "$out"
	rc=0
	lab/report "$@" >"$tmp/ktap" 2>"$tmp/summary" || rc=$?
}

good_tap()
{
	printf '%s\n' 'TAP version 13' '1..3' '# Starting 3 tests' 'ok 1 perm.none.a' \
		'# wanted 1, got 2' 'ok 2 perm.none.b # SKIP no AMX' 'not ok 3 perm.none.c # XFAIL known'
}

# fails NAME REGEX: the run is judged bad, with a KTAP line like REGEX
fails()
{
	report
	is "$1: not ok" "$rc" 1
	ok "$1: it says why" like "$tmp/ktap" "$2"
}

# --- good runs ---

run good
good_tap | program kvm/x86_64/perm_test 0
printf '[OK]\tfine\n' | program upstream/x86/plain_64 0
printf '1..0 # SKIP - no such thing\n' | program upstream/kvm/absent_test 4
printf '[SKIP]\tno shadow stack\n' | program upstream/x86/one_64 1
end_run
report
is "a good run is ok" "$rc" 0
ok "plan of programs, completeness and kernel log" like "$tmp/ktap" '^1\.\.6$'
ok "a program is a top-level result" like "$tmp/ktap" '^ok 1 kvm/x86_64/perm_test$'
ok "its results are nested" like "$tmp/ktap" '^  ok 1 perm.none.a$'
ok "an inner skip keeps its reason" like "$tmp/ktap" '^  ok 2 perm.none.b # SKIP no AMX$'
ok "an inner XFAIL is no failure" like "$tmp/ktap" '^  ok 3 perm.none.c # XFAIL known$'
ok "diagnostics come before their result" sh -c \
	"grep -A1 'wanted 1' '$tmp/ktap' | grep -q 'perm.none.b'"
ok "a program without TAP passes by its exit code" like "$tmp/ktap" '^ok 2 upstream/x86/plain_64$'
ok "exit code 4 is a skip with the reason" like "$tmp/ktap" \
	'^ok 3 upstream/kvm/absent_test # SKIP no such thing$'
ok "so is exit code 1 with [SKIP]" like "$tmp/ktap" '^ok 4 upstream/x86/one_64 # SKIP no shadow stack$'
ok "the run is complete" like "$tmp/ktap" '^ok 5 lab_complete$'
ok "the kernel log is clean" like "$tmp/ktap" '^ok 6 kernel_log$'
ok "the summary counts" like "$tmp/summary" '^kvm/x86_64/perm_test +pass +1 +0 +1 +1$'
ok "the summary names skip reasons" like "$tmp/summary" '1 x skip: no AMX'
ok "the summary fits on a screen" [ "$(wc -l <"$tmp/summary")" -le 24 ]
ok "prove takes the KTAP" prove -e cat "$tmp/ktap"

CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xcomp-lab}
tree=$(lab/kernel/fetch source 7.3) || tree=
kunit()
{
	python3 -B "$tree/tools/testing/kunit/kunit.py" parse "$1"
}
ok "kunit.py takes it" kunit "$tmp/ktap"
cp "$tmp/ktap" "$tmp/good.ktap"
kunit "$tmp/ktap" >"$tmp/kunit" 2>&1
nok "without complaint" grep -E 'ERROR|CRASHED|missing' "$tmp/kunit"
ok "and counts the same" like "$tmp/kunit" 'passed: 5, skipped: 3'

# --- bad programs ---

run not_ok
printf '1..2\nok 1 a\n# U_CET wanted 0x3, got 0x0\nnot ok 2 b\n' | program prog 0
end_run
fails "not ok with exit code 0" '^not ok 1 prog$'
ok "the inner failure is kept" like "$tmp/ktap" '^  not ok 2 b$'
ok "the summary shows the diagnostics" like "$tmp/summary" 'U_CET wanted 0x3, got 0x0'
ok "prove sees the failure" sh -c "! prove -e cat '$tmp/ktap'"

run missing
printf '1..3\nok 1 a\nok 2 b\n' | program prog 0
end_run
fails "a missing result" '^  # prog: 3 results were planned, 2 arrived$'
run surplus
printf '1..1\nok 1 a\nok 2 b\n' | program prog 0
end_run
fails "a result too many" '^  # prog: 1 results were planned, 2 arrived$'
run number
printf '1..2\nok 1 a\nok 3 b\n' | program prog 0
end_run
fails "a number left out" '^  # prog: result 2 is numbered 3$'
run twice
printf '1..2\nok 1 a\nok 2 a\n' | program prog 0
end_run
fails "a name that comes twice" '^  # prog: the name a comes twice$'
run noplan
printf 'TAP version 13\nok 1 a\n' | program prog 0
end_run
fails "no plan" '^  # prog: no plan$'
run empty_plan
printf 'TAP version 13\n1..0\n' | program prog 0
end_run
fails "an empty plan" '^  # prog: the plan is empty without a reason$'
run bail
printf '1..1\nok 1 a\nBail out! no memory\n' | program prog 1
end_run
fails "a bail-out" '^  # prog: Bail out! no memory$'
run assert
printf '==== Test Assertion Failure ====\n  a.c:1: r\n' | program prog 254
end_run
fails "exit code 254" '^not ok 1 prog # exit=254$'
run signal
printf '1..1\nok 1 a\n' | program prog 139
end_run
fails "death by a signal" '^  # prog: it was killed by signal 11$'
run limit
printf '1..2\nok 1 a\n' | program prog 124
end_run
fails "a time limit" '^not ok 1 prog # TIMEOUT$'
run false_skip
printf '1..1\nok 1 a\n' | program prog 4
end_run
fails "a skip although tests ran" 'exit code 4 \(skip\) although tests ran'
run plain_fail
printf '[OK]\ta\n[FAIL]\tb\n' | program prog 0
end_run
fails "[FAIL] with exit code 0" '^  # prog: it printed \[FAIL\]$'

run all_skipped
printf '1..2\nok 1 a # SKIP no AMX\nok 2 b # SKIP no AMX\n' | program prog 0
printf '1..1\nok 1 a\n' | program other 0
end_run
report
is "a program whose tests are all skipped does not fail" "$rc" 0
ok "but is no pass" like "$tmp/ktap" '^ok 1 prog # SKIP no AMX$'
run nothing
printf '1..1\nok 1 a # SKIP no KVM\n' | program prog 0
end_run
fails "a run where all was skipped" '^# all programs were skipped: nothing was tested$'

run stray
printf '1..2\nok 1 a\n1..0 # SKIP - no cap\nok 2 b # SKIP unknown\n' | program prog 0
end_run
report
is "TEST_REQUIRE() in the child of a harness is a skip" "$rc" 0
ok "with its reason" like "$tmp/ktap" '^  ok 2 b # SKIP no cap$'

# --- runs that ended early ---

run hang
printf '@lab begin prog\n1..2\nok 1 a\n' >>"$out/results.log"
echo "it ran longer than the limit of 900 s (in prog)" >"$out/status"
fails "a program that never ends" '^  # prog: it began and never ended$'
ok "the reason of the run is there" like "$tmp/ktap" '^# it ran longer than the limit of 900 s'
run cut
printf '1..1\nok 1 a\n' | program prog 0
fails "a truncated log" "^# the run ended before the last program had: no '@lab done'$"
run never
printf 'first\nsecond\n' >"$out/programs"
printf '1..1\nok 1 a\n' | program first 0
end_run
fails "a planned program that never ran" '^  # second: it was planned and never ran$'
run no_status
printf '1..1\nok 1 a\n' | program prog 0
end_run
rm "$out/status"
fails "an interrupted run" 'status is missing: the run was interrupted$'

# --- the kernel ---

run warn
printf '1..1\nok 1 a\n' | program prog 0
sed -i '/lab: end prog/i [    1.600000] WARNING: CPU: 0 PID: 1 at arch/x86/kernel/fpu/core.c:1 f+0x1/0x2\n[    1.600001] Call Trace:' \
	"$out/console.log"
end_run
fails "a kernel WARN" '^# prog: WARNING: CPU: 0 PID: 1 at arch/x86'
ok "with an otherwise good program" like "$tmp/ktap" '^ok 1 prog$'
ok "one report of the kernel counts once" [ "$(grep -c '^# prog:' "$tmp/ktap")" = 1 ]
run taint
printf '1..1\nok 1 a\n' | program prog 0
end_run 512
fails "a taint" '^# the kernel became tainted \(512\)$'
run reset
printf '1..1\nok 1 a\n' | program prog 0
end_run
echo '[    0.000000] Linux version 7.3.4 (again)' >>"$out/console.log"
fails "a reset" '^# after prog: the machine was reset'
run silent
printf '1..1\nok 1 a\n' | program prog 0
end_run
: >"$out/console.log"
fails "no kernel log" 'console.log is missing or empty$'

# --- failures of upstream's programs that are known ---

# known NAME RELEASE: upstream's check that is newer than 6.1
known()
{
	run "$1"
	sed -i "s/7.3.4+deb13-cloud-amd64/$2/" "$out/console.log"
	echo '  KVM allowed invalid efer bit (0x100)' | program upstream/kvm/set_sregs_test 254
	printf '1..1\nok 1 a\n' | program prog 0
	end_run
}
known known 6.1.0-56-cloud-amd64
report
is "a known failure does not fail the run" "$rc" 0
ok "it is an XFAIL with its reason" like "$tmp/ktap" \
	'^ok 1 upstream/kvm/set_sregs_test # XFAIL the check is newer than the kernel$'
known unknown_kernel 7.3.4
fails "the same on another kernel" '^not ok 1 upstream/kvm/set_sregs_test # exit=254$'
known unknown_line 6.1.0
sed -i 's/KVM allowed.*/KVM refused something/' "$out/results.log"
report
is "another failure of that program fails" "$rc" 1

# --- several runs ---

report "$tmp/good" "$tmp/not_ok"
ok "several runs make one stream with distinct names" like "$tmp/ktap" '^not ok 5 not_ok/prog$'
ok "each has its kernel log" like "$tmp/ktap" '^ok 9 not_ok/kernel_log$'

# --- bad input ---

report "$tmp/nowhere"
is "a folder that is not there: one line" "$rc $(cat "$tmp/summary")" \
	"1 lab/report: $tmp/nowhere is no folder: give one that lab/run has written"

# Every stream so far, good or bad, is one that kunit.py can read.
broken=
for d in "$tmp"/*/; do
	report "${d%/}"
	kunit "$tmp/ktap" >"$tmp/kunit" 2>&1
	! grep -E 'ERROR|CRASHED|Traceback' "$tmp/kunit" || broken="$broken $d"
done
is "kunit.py reads every report" "$broken" ""
