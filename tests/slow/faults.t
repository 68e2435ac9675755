#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# KERNEL=faults: each allocation and copy of each request fails once, and the programs tell
# how many there were.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

plan 15
scratch

rc=0
env O="$tmp/out" KERNEL=faults TESTS="x86/xstate_alloc_64 kvm/x86_64/xstate_alloc_test ioctl_fault_test:alloc" \
	make -s kselftest >"$tmp/ktap" 2>"$tmp/err" || rc=$?
tap_diag "$tmp/err"
is "no request does anything wrong" "$rc" 0
nok "none was skipped" grep -E '^ +ok .* # SKIP ' "$tmp/ktap"

# What the programs tell, as "ROW: REQUEST: 1 failslab, ..., 1 noticed"
sed -nE 's/^ *# ([^ :]+: .* noticed)$/\1/p' "$tmp/ktap" >"$tmp/walks"
sed 's/^/# /' "$tmp/walks"

# faults ROW: how many of its faults the request has noticed
faults()
{
	sed -nE "s/^$1: .* ([0-9]+) noticed\$/\\1/p" "$tmp/walks"
}

# No allocation, no copy that can be made to fail
for row in host_request guest_request; do
	is "$row has none" "$(faults "xstate_alloc\\.$row\\.fails")" 0
done
for row in first_use fork signal sigreturn regset_get regset_set create_vcpu create_vcpu_late set_cpuid run; do
	ok "$row has some" [ "$(faults "xstate_alloc\\.$row\\.fails")" -gt 0 ]
done
ok "so have most ioctls of a vCPU with AMX" \
	[ "$(faults 'ioctl_fault\.guest_amx_cet\.alloc' | grep -cvx 0)" -gt 20 ]
