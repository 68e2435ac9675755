#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The suite fails when it should: a kernel built from Debian's source passes, the
# same kernel with one injected line fails, with a message that names the
# permission combination, the component and the MSR.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 10
scratch

# suite NAME FOLDER TESTS: run programs of ours on the kernel in FOLDER
suite()
{
	env O="$tmp/$1" TESTS="$3" KERNEL="$2/vmlinuz" MODULES="$2/modules" KSRC="$tree" \
		lab/kselftest
}

# failed TEST: it is "not ok" on the injected kernel
failed()
{
	like "$tmp/bad/report.ktap" "^ *not ok [0-9]+ $1"
}

tree=$(lab/fetch source 7.3)
good=$(lab/build-kernel 7.3) || good=
ok "Linux 7.3 builds with the lab's configuration" [ -n "$good" ]
ok "the suite passes on it" suite good "$good" "kvm x86"
ok "with AMX and CET in the guest" \
	like "$tmp/good/report.ktap" '^ *ok [0-9]+ xstate_perm\.guest_amx_cet\.cet_msrs$'

bad=$(lab/build-kernel 7.3 "$TOP/lab/mutants/realloc-loses-cet-user.patch") || bad=
ok "it builds with one line injected" [ -n "$bad" ]
nok "the suite fails on it" suite bad "$bad" "xstate_perm_test xcomp_guest_perm"
for combination in guest both inherited; do
	ok "$combination permission, AMX: the failure names combination, component and MSR" \
		like "$tmp/bad/report.ktap" "^ *# .*${combination}_amx_cet: IA32_U_CET \(CET_USER\)"
done
nok "CET_KERNEL is not blamed" like "$tmp/bad/report.ktap" '^ *# .*CET_KERNEL\) lost'
nok "nor is a combination without AMX" failed 'xstate_perm\.[a-z]*_noamx_'
