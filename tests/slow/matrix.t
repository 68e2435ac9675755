#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# make matrix: each cell has to reach the assertions that its kernel, CPU and
# parameter make possible; nothing that did not run passes.  Four real cells.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

plan 41
scratch

# --- judging, with results that are made up ---

m=$tmp/made-up
mkdir "$m"

# cell KERNEL CPU PARAMETER: a cell whose program prints what comes from stdin
cell()
{
	_name=$1+$2
	[ "$3" = none ] || _name=$_name+$3
	echo "$_name key $1 $2 $3" >>"$m/cells"
	rm -rf "${m:?}/$_name"
	mkdir "$m/$_name"
	{
		echo "@lab begin kvm/x86_64/cet_fpstate_test"
		cat
		echo "@lab end kvm/x86_64/cet_fpstate_test ${status:-0}"
		echo "@lab done 0"
	} >"$m/$_name/results.log"
	echo kvm/x86_64/cet_fpstate_test >"$m/$_name/programs"
	echo "[    0.000000] Linux version 7.3.4" >"$m/$_name/console.log"
	echo ok >"$m/$_name/status"
	echo 5 >"$m/$_name/seconds"
	lab/matrix-report verdict "$m" "$_name"
}

# results LINE...: of a program with two tests; the second one needs AMX
results()
{
	printf '%s\n' "TAP version 13" 1..2 "$@"
}

one="ok 1 cet_fpstate.none_noamx_cet.reset"
two="ok 2 cet_fpstate.guest_amx_cet.reset"

# table NAME WANTED REGEX...: exit status, and lines of the table or the report
table()
{
	_table=$1
	rc=0
	lab/matrix-report table "$m" >"$tmp/table" 2>&1 || rc=$?
	is "$_table" $rc "$2"
	shift 2
	for _regex; do
		ok "$_table: $_regex" like "$tmp/table" "$_regex"
	done
	: >"$m/cells"
}

results "$one" "$two" | cell 7.3 spr none >"$tmp/row"
ok "a cell prints a row" like "$tmp/row" '^7\.3\+spr: 2 pass, 0 skip, 0 xfail \[5 s\]$'
cp "$m/cells" "$tmp/cells"
table "all there, all asserted" 0 '^\| 7\.3\+spr \| 2 \| 0 \| 0 \| 0 \| 2 \| 2 \| 5 \|$' 'all is well$'
cp "$tmp/cells" "$m/cells"
is "a cell that is done is not run again" "$(lab/matrix-report todo "$m")" ""
sed -i 's/ key / other /' "$m/cells"
is "but it is if something has changed" "$(lab/matrix-report todo "$m")" 7.3+spr
table "a cell that was not run" 1 '7\.3\+spr: not done'

results "$one" "$two # SKIP no AMX on this machine" | cell 7.3 skylake-x none >/dev/null
table "a skip where the CPU lacks it" 0 '^\| 7\.3\+skylake-x \| 1 \| 0 \| 1 \| 0 \| 1 \| 1 \|'
results "$one" "$two # SKIP no AMX on this machine" | cell 7.3 spr none >/dev/null
table "the same skip where the CPU has it" 1 \
	'7\.3\+spr: skipped although all is there: .*guest_amx_cet.reset \(no AMX on this machine\)'
results "$one" "$two # SKIP no AMX on this machine" | cell 7.3 spr noxsaves >/dev/null
table "the same skip where a parameter takes it away" 0 '^\| 7\.3\+spr\+noxsaves \| 1 \| 0 \| 1 \| 0 \|'
results "$one # SKIP" "$two" | cell 6.1 spr none >/dev/null
table "a skip without a reason" 1 'skipped without a reason: .*none_noamx_cet.reset'
results "$one" "not $two" | status=1 cell 7.3 spr none >/dev/null
table "a failure" 1 'not ok: kvm/x86_64/cet_fpstate_test:cet_fpstate.guest_amx_cet.reset'
results "$one" "$two # XFAIL known" | cell 7.3 spr none >/dev/null
table "an expected failure is an assertion" 0 '^\| 7\.3\+spr \| 1 \| 1 \| 0 \| 0 \| 2 \| 2 \|'

results "$one" "$two" | cell 7.3 spr none >/dev/null
echo "1..0 # SKIP no /dev/kvm" | status=4 cell 7.2 spr none >/dev/null
table "a program that skips as a whole" 1 '7\.2\+spr: skipped although all is there: .*\(no /dev/kvm\)'
results "$one" "$two" | cell 7.3 spr none >/dev/null
printf '%s\n' "TAP version 13" 1..1 "$one" | cell 7.2 spr none >/dev/null
table "a test that is missing" 1 '7\.2\+spr: no result: .*guest_amx_cet.reset'
results "$one" "$two" | cell 7.3 spr none >/dev/null
echo 7.2+spr key 7.2 spr none >>"$m/cells"
mkdir -p "$m/7.2+spr"
rm -f "$m/7.2+spr"/*
lab/matrix-report verdict "$m" 7.2+spr >/dev/null
table "a cell in which nothing ran" 1 '7\.2\+spr: '
table "no cell at all" 1

# --- bad input ---

# refuses NAME REGEX VARIABLE...: in one line
refuses()
{
	_refused=$1
	_regex=$2
	shift 2
	rc=0
	env O="$tmp/refused" "$@" lab/matrix >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
	is "$_refused: refused, in one line" "$rc $(wc -l <"$tmp/err") $(wc -c <"$tmp/out")" "1 1 0"
	ok "$_refused: the line says why" like "$tmp/err" "$_regex"
}

refuses "no such CPU" "^lab: CPUS: no CPU 'z80': there are spr" CPUS=z80
refuses "no kernel" "^lab: KERNELS: 'latest' is no series" KERNELS=latest
refuses "no parameter" "^lab: PARAMS: 'a;b' is no parameter" "PARAMS=a;b"
refuses "no number" "^lab: JOBS='0' is no number" JOBS=0

# --- four cells ---

# matrix VARIABLE...
matrix()
{
	env O="$tmp/real" TESTS="xstate_perm_test xcomp_perm xcomp_frame" "$@" make -s matrix
}

ok "6.1 on spr" matrix KERNELS=6.1 CPUS=spr
ok "7.3 on skylake-x, on spr as a user and without XSAVES" \
	matrix KERNELS=7.3 CPUS=skylake-x PARAMS="lab.user=1000 noxsaves"
real=$tmp/real/matrix
sed 's/^/# /' "$real/table.md"
is "each has its row, with nothing not ok" \
	"$(grep -cE '^\| 7\.3\+[^|]*\| [1-9][0-9]+ \| [0-9]+ \| [1-9][0-9]* \| 0 \|' "$real/table.md")" 3
matrix KERNELS=7.3 CPUS=skylake-x PARAMS="lab.user=1000 noxsaves" >"$tmp/again" 2>"$tmp/err"
nok "done cells are not run again" grep -q ' s for ' "$tmp/err"
ok "without AMX its tests skip, with the constant reason" \
	like "$real/7.3+skylake-x/report.ktap" \
	'^ *ok [0-9]+ xstate_perm\.guest_amx_cet\.cet_msrs # SKIP no AMX on this machine$'
ok "without tracefs so do those that need it" \
	like "$real/7.3+spr+lab.user=1000/report.ktap" \
	'^ *ok [0-9]+ xstate_perm\.none_noamx_cet\.xcomp_bv # SKIP no tracefs, or no permission to use it$'
