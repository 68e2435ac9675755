#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# make matrix: four real cells reach the assertions that kernel, CPU and parameter make
# possible.  tests/py/test_matrix.py has how they are judged.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

plan 7
scratch

# matrix VARIABLE...
matrix()
{
	env O="$tmp/real" TESTS="xstate_perm_test xcomp_perm xstate_frame" "$@" make -s matrix
}

ok "6.1 on spr" matrix KERNELS=6.1 CPUS=spr
ok "$newest on skylake-x, on spr as a user and without XSAVES" \
	matrix KERNELS="$newest" CPUS=skylake-x PARAMS="lab.user=1000 noxsaves"
real=$tmp/real/matrix
sed 's/^/# /' "$real/table.md"
is "each has its row, with nothing not ok" \
	"$(grep -cE '^\| '"$newest"'\+[^|]*\| [1-9][0-9]+ \| [0-9]+ \| [1-9][0-9]* \| 0 \|' "$real/table.md")" 3
matrix KERNELS="$newest" CPUS=skylake-x PARAMS="lab.user=1000 noxsaves" >"$tmp/again" 2>"$tmp/err"
nok "done cells are not run again" grep -q ' s for ' "$tmp/err"
ok "without AMX its tests skip, with the constant reason" \
	like "$real/$newest+skylake-x/report.ktap" \
	'^ *ok [0-9]+ xstate_perm\.guest_amx_cet\.cet_msrs # SKIP no AMX on this machine$'
ok "without tracefs so do those that need it" \
	like "$real/$newest+spr+lab.user=1000/report.ktap" \
	'^ *ok [0-9]+ xstate_perm\.none_noamx_cet\.xcomp_bv # SKIP no tracefs, or no permission to use it$'
