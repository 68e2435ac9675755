#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Every C file and header passes the kernel's own style check, all of it.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

scratch
find "$TOP" \( -name .git -o -name out \) -prune -o -type f -name '*.[ch]' -print | sort >"$tmp/files"
plan $(($(wc -l <"$tmp/files") + 2))
ok "there are files to check" [ -s "$tmp/files" ]

tree=$(lab/kernel/fetch source "$newest") || tree=

# It leaves files in the current folder.
check()
{
	(cd "$tmp" && "$tree/scripts/checkpatch.pl" --no-tree --strict --terse --no-summary -f "$1")
}

while read -r f; do
	ok "checkpatch ${f#"$TOP"/}" check "$f" </dev/null
done <"$tmp/files"

printf '// SPDX-License-Identifier: GPL-2.0-only\nint f (void){ return  0 ; }\n' >"$tmp/bad.c"
nok "and a bad file does not pass" check "$tmp/bad.c"
