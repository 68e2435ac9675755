#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# lab/mutate-report tells what killed a mutant, and lab/mutate takes no patch that
# does not say what it is.  Nothing is booted here.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 66
scratch
out=$tmp/out
mkdir -p "$out" "$tmp/patches"
echo "KEY=1234" >"$out/setup"

# patch NAME EXPECT: a good one
patch()
{
	cat >"$tmp/patches/$1.patch" <<END
Subject: x86/fpu: something is lost
Expect: $2
Needs: amx+cet
Symptom: a guest loses something,
	always
Why: because

---
--- a/arch/x86/kernel/fpu/xstate.c
+++ b/arch/x86/kernel/fpu/xstate.c
@@ -1 +1 @@
-a
+b
END
}

# --- headers ---

# header NAME REGEX SED: a good patch changed by SED gets a complaint
header()
{
	patch header equivalent
	sed -i "$3" "$tmp/patches/header.patch"
	lab/mutate-report check "$tmp/patches/header.patch" >"$tmp/check" && rc=0 || rc=$?
	is "$1: an error" "$rc" 1
	ok "$1: it says so" like "$tmp/check" "header.patch: $2"
}

patch good equivalent
ok "a good header" lab/mutate-report check "$tmp/patches/good.patch"
for field in Subject Symptom Why; do
	header "no $field" "no $field:" "/^$field:/d; /^	always/d"
done
header "no Expect" "Expect: is '', not killed or equivalent" '/^Expect:/d'
header "a wrong Expect" "Expect: is 'dead'" 's/^Expect:.*/Expect: dead/'
header "a wrong Needs" "Needs: is none of any, kvm" 's/^Needs:.*/Needs: sse/'
header "a stray line" "no field: 'Some words'" 's/^Needs:/Some words\n&/'
header "no diff" "no diff" '/^+++/d'
rm "$tmp/patches/header.patch"

ok "all of lab/mutants have good headers" lab/mutate-report check lab/mutants/*.patch
tree=$(lab/kernel/fetch source 7.3) || tree=
# applies: those that do not, with zero fuzz
applies()
{
	_rc=0
	for p in lab/mutants/*.patch; do
		patch_tree "$p" || {
			echo "$p"
			_rc=1
		}
	done
	return $_rc
}
patch_tree()
{
	command patch -d "$tree" -p1 -F0 -N --dry-run -i "$TOP/$1"
}
ok "and apply to the source" applies

# --- the driver's own errors ---

# refuses NAME REGEX VARIABLE...
refuses()
{
	_name=$1
	_regex=$2
	shift 2
	env O="$tmp/O" "$@" lab/mutate >"$tmp/stdout" 2>"$tmp/err" && rc=0 || rc=$?
	is "$_name: an error" "$rc" 1
	ok "$_name: one line says why" like "$tmp/err" "^lab: $_regex"
}

mkdir "$tmp/empty" "$tmp/again"
cp "$tmp/patches/good.patch" "$tmp/again/"
refuses "an unknown name" "MUTANTS='nonsense': no such folder" MUTANTS=nonsense
refuses "an empty folder" "MUTANTS='$tmp/empty': no file" MUTANTS="$tmp/empty"
refuses "a name that comes twice" "MUTANTS: two patches have the same name: good.patch" \
	MUTANTS="$tmp/patches $tmp/again"
refuses "an unknown suite" "SUITE='mine': there are ours and upstream" SUITE=mine
refuses "a kernel without source" "KERNEL='/boot/vmlinuz': mutants need" KERNEL=/boot/vmlinuz
nok "nothing was written" [ -e "$tmp/O" ]

# --- verdicts ---

# run FOLDER: a run that boots
run()
{
	dir=$out/$1
	rm -rf "$dir"
	mkdir "$dir"
	echo ok >"$dir/status"
	echo '[    0.000000] Linux version 7.3.4-lab (builder)' >"$dir/console.log"
	: >"$dir/results.log"
}

# program NAME EXITCODE: its output from stdin; without EXITCODE it never ends
program()
{
	echo "[    1.500000] lab: begin $1" >>"$dir/console.log"
	{
		echo "@lab begin $1"
		cat
		[ -z "$2" ] || printf '\n@lab end %s %s\n' "$1" "$2"
	} >>"$dir/results.log"
	[ -z "$2" ] || echo "[    2.700000] lab: end $1" >>"$dir/console.log"
}

# kernel LINE: the kernel of the mutant says so now
kernel()
{
	echo "[    2.000000] $1" >>"$out/killed/console.log"
}

end_run()
{
	echo "@lab done 0" >>"$dir/results.log"
}

# results A B: a harness with two tests
results()
{
	printf '%s\n' 'TAP version 13' '1..2' "$1" "$2"
}

# verdict NAME WANTED [ERROR]: WANTED is the row up to the time it took
verdict()
{
	_name=$1
	_wanted=$2
	shift 2
	row=$(lab/mutate-report verdict "$out" "$tmp/patches/killed.patch" "$@" | sed 's/ \[[0-9]* s\]$//')
	is "$_name" "$row" "$_wanted"
}

unexpected=" killed (expected: killed)"
patch killed killed
run baseline
results 'ok 1 x.a' 'ok 2 x.b # SKIP no AMX' | program kvm/perm_test 0
results 'ok 1 y.a' 'not ok 2 y.b # XFAIL known' | program kvm/more_test 0
end_run
is "limits are three times the time and ten seconds" "$(lab/mutate-report limits "$dir")" \
	"kvm/perm_test 14
kvm/more_test 14"

printf '{"mutants": [{"files": ["a.c"], "kills": {"assertion": ["perm_test (exit code 1)", "more_test:y.a"]}},
	{"files": ["b.c"], "kills": {"assertion": ["more_test:y.a", "more_test:y.b"]}}]}\n' >"$out/table.json"
# order PROGRAM...: those that end the host
order()
{
	lab/mutate-report order "$out" "$tmp/patches/killed.patch" "$@" | tr '\n' ' '
}
is "with FAST=1 the one that kills most goes first" "$(order)" "kvm/more_test 14 kvm/perm_test 14 "
printf '{"files": ["%s"], "kills": {"assertion": ["perm_test:x.a"]}}\n' \
	"$(sed -n 's|^+++ b/||p' "$tmp/patches/killed.patch")" >"$out/other.json"
is "those that kill mutants of the same file before others" "$(order)" "kvm/perm_test 14 kvm/more_test 14 "
is "one that ends the host goes last" "$(order kvm/perm_test)" "kvm/more_test 14 kvm/perm_test 14 "
rm "$out/table.json" "$out/other.json"

known=upstream/x86/test_shadow_stack_64
# known_failure: what lab/selftests/upstream-known knows of it
known_failure()
{
	printf '[FAIL]\tUserfaultfd test\n' | program $known 1
}
run baseline
known_failure
results 'ok 1 y.a' 'ok 2 y.b' | program kvm/more_test 0
end_run
is "one that fails anyway goes last" "$(order)" "kvm/more_test 14 $known 14 "
is "even after one that ends the host" "$(order kvm/more_test)" "kvm/more_test 14 $known 14 "
run baseline
results 'ok 1 x.a' 'ok 2 x.b # SKIP no AMX' | program kvm/perm_test 0
results 'ok 1 y.a' 'not ok 2 y.b # XFAIL known' | program kvm/more_test 0
end_run

# mutant EXITCODE: a run in which only the first program may differ, from stdin
mutant()
{
	run killed
	program kvm/perm_test "$1"
	results 'ok 1 y.a' 'not ok 2 y.b # XFAIL known' | program kvm/more_test 0
	end_run
}

results 'ok 1 x.a' 'ok 2 x.b # SKIP no AMX' | mutant 0
verdict "the same results: survived" "survived$unexpected: -"
results 'not ok 1 x.a' 'ok 2 x.b # SKIP no AMX' | mutant 1
verdict "not ok: an assertion" "killed   killed: assertion: perm_test:x.a"
ok "that is as expected" like "$out/killed.json" '"good": true'
results 'ok 1 x.a # SKIP no CET' 'ok 2 x.b # SKIP no AMX' | mutant 0
verdict "a skip is no kill" "skipped $unexpected: skipped: perm_test:x.a"
printf '1..0 # SKIP no CET\n' | mutant 4
verdict "nor is one of the program" "skipped $unexpected: skipped: perm_test, perm_test:x.a (missing)"
printf '1..1\nok 1 x.b # SKIP no AMX\n' | mutant 0
verdict "nor is a result that is missing" "skipped $unexpected: skipped: perm_test:x.a (missing)"
printf '1..2\nok 1 x.a\n' | mutant 0
verdict "a broken plan is" "killed   killed: assertion: perm_test (2 results were planned, 1 arrived)"
printf '==== Test Assertion Failure ====\n' | mutant 254
verdict "so is an assertion of libkvm" "killed   killed: assertion: perm_test (exit code 254)"
results '# x.a: Test terminated by timeout
not ok 1 x.a' 'ok 2 x.b # SKIP no AMX' | mutant 1
verdict "a test's timeout is a hang" "hang    $unexpected: hang: perm_test:x.a"
printf '1..2\nok 1 x.a\n' | mutant 143
verdict "so is a program's" "hang    $unexpected: hang: perm_test"
results '# x.a: Test terminated unexpectedly by signal 11
not ok 1 x.a' 'ok 2 x.b # SKIP no AMX' | mutant 1
verdict "a test's death is a crash" "crash   $unexpected: crash: perm_test:x.a"
printf '1..2\nok 1 x.a\n' | mutant 139
kernel 'perm_test[100]: segfault at 0 ip 0'
verdict "so is a program's" "crash   $unexpected: crash: perm_test (signal 11)"
results 'ok 1 x.a' 'ok 2 x.b # SKIP no AMX' | mutant 0
kernel 'WARNING: arch/x86/kernel/fpu/xstate.c:10 at foo'
verdict "a kernel warning, with the program" \
	"killed   killed: warning: after kvm/more_test: WARNING: arch/x86/kernel/fpu/xstate.c:10 at foo"

run killed
printf '1..2\nok 1 x.a\n' | program kvm/perm_test ''
kernel 'Kernel panic - not syncing: Fatal exception'
echo 'the kernel panicked' >"$dir/status"
verdict "a panic is a crash" \
	"crash   $unexpected: crash: kvm/perm_test: Kernel panic - not syncing: Fatal exception"
kernel 'WARNING: arch/x86/kernel/fpu/xstate.c:10 at foo'
verdict "a warning beside it counts" \
	"killed   killed: warning: kvm/perm_test: WARNING: arch/x86/kernel/fpu/xstate.c:10 at foo; crash: kvm/perm_test: Kernel panic - not syncing: Fatal exception"
run killed
printf '1..2\nnot ok 1 x.a\n' | program kvm/perm_test ''
echo 'the host hung: no end after 50 s of CPU time' >"$dir/status"
verdict "what came before a hang counts" "killed   killed: assertion: perm_test:x.a; hang: the host hung: no end after 50 s of CPU time"

mv "$out/baseline" "$tmp/"
run baseline
known_failure
results 'ok 1 x.a' 'ok 2 x.b' | program kvm/perm_test 0
end_run
run killed
known_failure
echo "@lab stop $known" >>"$dir/results.log"
end_run
printf '%s\n' $known kvm/perm_test >"$dir/programs"
verdict "an end before all programs ran is no survival" \
	"error   $unexpected: nothing failed, but these never ran: kvm/perm_test"
rm -r "$out/baseline"
mv "$tmp/baseline" "$out/"

printf '100 108 125\n0m0.5s 0m0.1s\n1m2.25s 0m3.5s\n' >"$out/killed/times"
lab/mutate-report verdict "$out" "$tmp/patches/killed.patch" >"$tmp/row"
ok "the row has the time" like "$tmp/row" ' \[25 s\]$'
ok "and the table that of the CPU" sh -c \
	"lab/mutate-report table '$out' '$tmp/patches/killed.patch' | grep '| 25 | 66 |$'"
rm "$out/killed/times"
verdict "what is no verdict" "error   $unexpected: applying killed.patch: failed" \
	"applying killed.patch: failed"

# --- both suites beside each other ---

# suite NAME VERDICT...: a table of mutants m1, m2, ...
suite()
{
	mkdir -p "$tmp/$1"
	echo "FAST=0" >"$tmp/$1/setup"
	rows=''
	n=0
	for v in $2; do
		n=$((n + 1))
		rows="$rows${rows:+,}"'{"name": "m'$n'", "verdict": "'$v'", "expect": "killed", "files": ["a.c"],
			"needs": "any", "subject": "s", "why": "", "kills": {"assertion": ["x"]}}'
	done
	echo '{"kernel": "7.3", "date": "2026-01-01", "mutants": ['"$rows"']}' >"$tmp/$1/table.json"
}
suite o "killed killed killed"
suite u "killed crash survived"
ok "detection" sh -c "lab/mutate-report detection '$tmp/o' '$tmp/u' >'$tmp/detection'"
ok "the score of both" like "$tmp/detection" '^| all | 3 | 3 | 1 |$'
ok "what does not count" like "$tmp/detection" 'this suite: none; upstream: 1 crash, 1 survived'
nok "all runs were complete" like "$tmp/detection" 'FAST=1'
echo "FAST=1" >"$tmp/o/setup"
ok "or were not, and it says so" sh -c \
	"lab/mutate-report detection '$tmp/o' '$tmp/u' | grep -q 'FAST=1'"

# --- results are taken up again ---

patch new killed
todo()
{
	lab/mutate-report todo "$out" "$tmp/patches/killed.patch" "$tmp/patches/new.patch" |
		sed 's|.*/||' | tr '\n' ' '
}
is "an error is tried again" "$(todo)" "killed.patch new.patch "
results 'not ok 1 x.a' 'ok 2 x.b # SKIP no AMX' | mutant 1
verdict "a verdict" "killed   killed: assertion: perm_test:x.a"
is "is not sought again" "$(todo)" "new.patch "
echo "KEY=1235" >"$out/setup"
is "unless kernel or suite change" "$(todo)" "killed.patch new.patch "
echo "KEY=1234" >"$out/setup"
sed -i 's/^+b/+c/' "$tmp/patches/killed.patch"
is "or the patch" "$(todo)" "killed.patch new.patch "
