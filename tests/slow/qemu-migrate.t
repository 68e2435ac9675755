#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# A real VMM as client of KVM: Debian's QEMU runs in the emulated host, and its VM goes to
# a file and on in another QEMU, while a program in its guest holds all state in the
# registers.  The guest itself says what was kept (tests/vmm/guest.c).
#
# HOST_KERNEL= is the kernel of the host, as of lab/run -k, such as a mutant's folder.

set -eu
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

plan 121
scratch

qemu=$(lab/kernel/fetch qemu)
kernel=$(lab/kernel/build "$newest")
source=$(lab/kernel/fetch source "$newest")
ok "there is a guest" tests/vmm/build "$qemu" "$kernel" "$source" "$tmp/vmm"
host=$TOP/tests/vmm/host

# run CPU: the jobs of $tmp/list, each in a host of its own
run()
{
	on=$1
	ok "$on: QEMU runs in the host, which does not warn" \
		lab/run -k "${HOST_KERNEL:-$newest}" -c "$on" -o "$tmp/$on" -l "$tmp/list" -t 900 \
		-f "$tmp/vmm/qemu.tar" -f "$tmp/vmm/vmlinux" -f "$tmp/vmm/initrd"
	while read -r _job _; do
		ok "$on: the job $_job has ended well" like "$(log "$_job")" "^@lab end $_job 0\$"
	done <"$tmp/list"
	sed -n 's/^# \([0-9.]*\) s: /# \1 s in the host: /p' "$(log move)"
}

# log JOB: what it printed
log()
{
	echo "$tmp/$on"/jobs/*-"$1"/results.log
}

# said WHAT: what the guest that is moved said after WHAT
said()
{
	sed -n "s/^$1: //p" "$(log move)"
}

# all_kept WHAT NAME[=VALUE]...: a row for each; VALUE is a regular expression
all_kept()
{
	_what=$1
	shift
	said "$_what" >"$tmp/said"
	for _item; do
		_value=${_item#"${_item%%=*}"}
		ok "$on, $_what: ${_item%%=*} is kept" \
			like "$tmp/said" "^kept ${_item%%=*}${_value:+: ${_value#=}}\$"
	done
	is "$on, $_what: nothing is lost" "$(lost "$_what")" ""
	is "$on, $_what: the task goes on" "$(tail -n 1 "$tmp/said")" "done"
}

# lost WHAT: the names of what the guest did not find again
lost()
{
	said "$1" | sed -nE 's/^lost ([^:,]+).*/\1/p' | uniq | tr '\n' ' '
}

# ready JOB: what its guest has
ready()
{
	sed -n 's/^boot: ready//p' "$(log "$1")"
}

# --- Intel: AMX and CET ---

{
	echo "move 400 $host move tczpms"
	echo "noamx 200 $host plain host,-amx-tile"
	echo "noshstk 200 $host plain host,-cet-ss"
} >"$tmp/list"
run spr
ok "KVM uses APICv" like "$(log move)" '^apicv: Y'
is "a guest of -cpu host has all" "$(ready move)" " amx avx512 pku shstk"
is "one of -cpu host,-amx-tile has no AMX" "$(ready noamx)" " avx512 pku shstk"
is "one of -cpu host,-cet-ss has no shadow stacks" "$(ready noshstk)" " amx avx512 pku"

# What a guest holds in all its rounds; see guest.c.  What is compared must not be 0.
common="ST MXCSR=0x9fc0 XCR0=0x.+ ZMM K PKRU=0xaaaaaaa8 SSP=0x.+ frames IA32_PL3_SSP=0x.+
	IA32_U_CET=0x1 IA32_INTERRUPT_SSP_TABLE=0x.+ IA32_XSS=0x.+"
# shellcheck disable=SC2086 # lists
{
	all_kept moved TMM TILECFG IA32_XFD=0 IA32_XFD_ERR=0 IA32_S_CET=0x.+ $common
	all_kept stopped TMM TILECFG IA32_XFD=0 IA32_XFD_ERR=0 IA32_S_CET=0x.+ $common
	# For a task without the permission XFD is armed.
	all_kept "moved again" IA32_XFD=0x40000 IA32_XFD_ERR=0 "#NM" IA32_S_CET=0x.+ $common
}
is "a tile that was zeroed is noticed" "$(lost "spoilt t")" "TMM "
is "so is another tile configuration" "$(lost "spoilt c")" "TMM TILECFG "
is "and a ZMM" "$(lost "spoilt z")" "ZMM "
is "and PKRU" "$(lost "spoilt p")" "PKRU "
is "and an MSR" "$(lost "spoilt m")" "IA32_INTERRUPT_SSP_TABLE "
is "and SSP" "$(lost "spoilt s")" "SSP frames IA32_PL3_SSP "
ok "which ends the task by #CP" like "$(log move)" "^spoilt s: died with status 0xb"

# --- AMD: another KVM, and CET alone ---

echo "move 400 $host move zpms" >"$tmp/list"
run ryzen-cet
is "a guest of AMD's CPU has CET" "$(ready move)" " avx512 pku shstk"
# shellcheck disable=SC2086 # a list
for what in moved stopped "moved again"; do
	all_kept "$what" $common
done
is "a ZMM is noticed there" "$(lost "spoilt z")" "ZMM "
is "and PKRU there" "$(lost "spoilt p")" "PKRU "
is "and an MSR there" "$(lost "spoilt m")" "IA32_INTERRUPT_SSP_TABLE "
is "and SSP there" "$(lost "spoilt s")" "SSP frames IA32_PL3_SSP "
