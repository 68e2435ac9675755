#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The kernel patches among the findings apply to the newest Linux, one after the other
# and without fuzz, pass the kernel's style check but for the Signed-off-by that
# their sender adds, and belong to a finding that the index lists.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

dir=Documentation/findings
scratch
find $dir -name '*.patch' | sort >"$tmp/patches"
plan $((3 * $(wc -l <"$tmp/patches") + 1))
ok "there are patches" [ -s "$tmp/patches" ]

tree=$(lab/kernel/fetch source "$newest") || tree=/nowhere
mkdir "$tmp/tree"
grep -h '^--- a/' $dir/*.patch | cut -d / -f 2- | sort -u | while read -r f; do
	mkdir -p "$tmp/tree/${f%/*}"
	cp "$tree/$f" "$tmp/tree/$f"
done

# No history of the kernel is at hand to look up commits in, and the flags of the
# instruction emulator have CamelCase names.
style()
{
	(cd "$tmp" && "$tree/scripts/checkpatch.pl" --no-tree --strict --terse --no-signoff \
		--ignore UNKNOWN_COMMIT_ID,CAMELCASE "$TOP/$1")
}

# listed PATCH: its finding names it, and the index names the finding
listed()
{
	finding=$(grep -l "(${1##*/})" $dir/*.md) &&
		grep -q "(${finding##*/})" $dir/README.md
}

while read -r p; do
	name=${p##*/}
	ok "$name applies" patch -d "$tmp/tree" -p1 -F0 -N -s -i "$TOP/$p"
	ok "$name has the kernel's style" style "$p"
	ok "$name belongs to a finding" listed "$p"
done <"$tmp/patches"
