#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Sizes and offsets of XSAVE areas come from CPUID leaf 0xD, also of CPUs that the lab
# has not: with APX, UINTR, LBR, or components that nobody has yet.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 3
scratch
ours=$TOP/tools/testing/selftests
st=$(lab/kernel/fetch library "$newest")/tools/testing/selftests

# build NAME FILE: of two functions with a name, the first that the linker finds is taken
build()
{
	gcc -O0 -w -D_GNU_SOURCE -I "$ours" -I "$ours/x86" -isystem "$st" -Wl,-z,muldefs -o "$tmp/$1" \
		tests/cpuid/tables.c "$2"
}

ok "the arithmetic builds for CPUs that are made up" build tables "$ours/x86/xfeature.c"
ok "sizes, offsets and names are right" "$tmp/tables"
sed 's/offset + 63/offset + 31/' "$ours/x86/xfeature.c" >"$tmp/wrong.c"
build wrong "$tmp/wrong.c" 2>"$tmp/err"
"$tmp/wrong" >"$tmp/out"
is "and an error in there shows" "$(head -n 1 "$tmp/out")" \
	"Sapphire Rapids, compacted size of 0x602e7: wanted 10752 got 10688"
