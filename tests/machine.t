#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The emulated host is right: a CPU self-test that knows nothing of the suite,
# and upstream's own programs, unmodified, on Debian's newest kernel.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 44
scratch

# report FOLDER: judge it, keep the KTAP there
report()
{
	lab/report "$1" >"$1/ktap" 2>"$1/summary" || {
		cat "$1/summary"
		return 1
	}
}

# all_ran PROGRAM LOG: it planned some checks, and each ended with ok, none with SKIP but
# the one for AMD's CPUs
all_ran()
{
	sed -n "/@lab begin $1/,/@lab end/p" "$2" >"$tmp/ran"
	planned=$(sed -n 's/^1\.\.//p' "$tmp/ran")
	passed=$(grep '^ok ' "$tmp/ran" | grep -vc '# SKIP' || :)
	amd=$(grep -c '^ok .*# SKIP not an AMD CPU$' "$tmp/ran" || :)
	echo "planned ${planned:-nothing}, passed $passed, for AMD's CPUs $amd"
	[ "${planned:-0}" -gt 1 ] && [ "$amd" = 1 ] && [ "$passed" = $((planned - 1)) ]
}

ok "the CPU self-test builds" tests/cpu/build "$tmp/cpu"
{
	echo "cpu_user 300 $tmp/cpu/cpu_user -w"
	echo "cpu_guest 300 $tmp/cpu/cpu_guest"
} >"$tmp/list"
# With two CPUs the emulator's main loop is another one.
for on in newest+spr 6.1+spr newest+spr-smp newest+ryzen-cet; do
	ok "it runs on $on" \
		lab/run -k "${on%+*}" -c "${on#*+}" -o "$tmp/$on" -l "$tmp/list" -t 300
	ok "it finds no fault in the emulated CPU on $on" report "$tmp/$on"
	# Some are about AMX, and about what only Intel has.
	[ "${on#*+}" = ryzen-cet ] || ok "it ran all its checks in user mode on $on" \
		all_ran cpu_user "$tmp/$on/results.log"
	is "each part has a machine of its own on $on" \
		"$(grep -l '@lab begin' "$tmp/$on"/jobs/*/results.log | wc -l)" 2
done

# Older kernels do not offer all of it to guests.
for on in newest+spr newest+spr-smp; do
	ok "it ran all its checks in a guest on $on" all_ran cpu_guest "$tmp/$on/results.log"
done

for t in switch_s_cet switch_ssp switch_ssp_table; do
	ok "$t passes on AMD's CPU with CET" like "$tmp/newest+ryzen-cet/results.log" "^ok [0-9]+ $t\$"
done

# AMD's: most of the checks skip, but not these.
ok "it runs on AMD's CPU" \
	lab/run -k newest -c ryzen -o "$tmp/ryzen" -l "$tmp/list" -t 300
ok "it finds no fault in the emulated AMD CPU" report "$tmp/ryzen"
for t in amd_sysenter amd_sysenter_msrs host_interrupt guest_cr2; do
	ok "$t passes on AMD's CPU" like "$tmp/ryzen/results.log" "^ok [0-9]+ $t\$"
done
ok "msrs_test passes on AMD's CPU" env O="$tmp/amd" CPU=ryzen KERNEL=newest \
	TESTS=upstream/kvm/msrs_test lab/kselftest

ok "upstream's programs run" env O="$tmp/up" TESTS=upstream KERNEL=newest lab/kselftest
ok "dmesg shows PASID state" like "$tmp/up/boot/console.log" "0x400: 'PASID state'"
ok "dmesg shows the xfeatures and the size of Sapphire Rapids" \
	like "$tmp/up/boot/console.log" 'Enabled xstate features 0x61ee7, context size is 10752'
for t in kvm/amx_test kvm/msrs_test kvm/cpuid_test kvm/set_sregs_test kvm/xss_msr_test \
	kvm/xcr0_cpuid_test kvm/state_test kvm/cr4_cpuid_sync_test \
	x86/amx_64 x86/avx_64 x86/corrupt_xstate_header_64 x86/sigaltstack_64; do
	ok "$t passes" like "$tmp/up/report.ktap" "^ok [0-9]+ upstream/$t\$"
done

# A kernel without PVH entry is unpacked by its own code.
echo "upstream/x86/avx_64 120 $tmp/up/selftests/upstream/x86/avx_64" >"$tmp/list"
ok "a kernel boots by the 32-bit boot protocol" \
	lab/run --no-pvh -k newest -o "$tmp/nopvh" -l "$tmp/list" -t 300
