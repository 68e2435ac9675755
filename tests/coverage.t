#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Documentation/coverage.md has every property once, and each test that it
# names is there.  The programs themselves say what tests they have.  And lab/machines
# knows every reason for which one of them may skip.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

doc=Documentation/coverage.md

plan 26
scratch
tree=$(lab/kernel/fetch source "$newest") || tree=/nowhere
dir=$(lab/selftests/build "$tree" 2>"$tmp/err") || dir=/nowhere
tap_diag "$tmp/err"

# check FILE
check()
{
	tests/coverage-check "$dir" "$1"
}

ok "every property has a row, every test in it is there" check "$doc"

# fault NAME SED MESSAGE: a document changed like that is not taken
fault()
{
	sed "$2" "$doc" >"$tmp/bad.md"
	rc=0
	check "$tmp/bad.md" >"$tmp/faults" 2>&1 || rc=$?
	if [ "$rc" = 1 ] && cmp -s "$doc" "$tmp/bad.md"; then
		rc="1, with a document that was not changed"
	fi
	grep -qE -e "$3" "$tmp/faults" || rc="$rc, with no '$3' but $(head -n 3 "$tmp/faults" | tr '\n' ' ')"
	is "$1" "$rc" 1
}

fault "a test that no harness has" 's/xstate_perm_proc\.masks/xstate_perm_proc.mask/' \
	'xstate_perm_test:xstate_perm_proc\.mask: .* has no such test'
fault "a test of another fixture" 's/xstate_perm_proc\.masks/xstate_perm.masks/' \
	'xstate_perm_test:xstate_perm\.masks: .* has no such test'
fault "a variant that no fixture has" 's/xstate_perm_proc\.masks/xstate_perm_proc.nobody.masks/' \
	'xstate_perm_proc\.nobody\.masks: .* has no such test'
fault "a program that is not there" 's|xcomp_lock_test:xcomp_lock.fork|xcomp_forks_test:xcomp_lock.fork|' \
	'xcomp_forks_test:xcomp_lock.fork: no such program'
fault "a program of upstream's that is not there" 's|upstream/kvm/cpuid_test|upstream/kvm/cpu_test|' \
	'cpu_test: upstream has no such program'
fault "a script that is not there" 's|tests/report\.t|tests/reports.t|' 'tests/reports.t: no such file'
fault "a program without a test" 's/cet_smm_test:[a-z_0-9.]*/cet_smm_test/' \
	'kvm/x86_64/cet_smm_test: names no test'
# shellcheck disable=SC2016 # Markdown
fault "a program that no row names" '/^|/s|`kvm/x86_64/cet_smm_test:[a-z_0-9.]*`|`tests/report.t`|g' \
	'kvm/x86_64/cet_smm_test: no row names'
# shellcheck disable=SC2016 # Markdown
fault "a program without a line" '/^| `x86\/xstate_pkeys` |/d' 'x86/xstate_pkeys: it has no lines in the table of programs'
# shellcheck disable=SC2016 # Markdown
fault "a line of no program" 's|^. `x86/xstate_pkeys` .|\| `x86/xstate_keys` \||' 'x86/xstate_keys: no such program'
fault "a section that promises more" 's/(B1-B6)/(B1-B7)/' '^B7: no row'
fault "a property without a row" '/^| B1 /d' '^B1: no row'
fault "a property with two rows" 's/^| B2 /| B1 /' 'B1 was in line [0-9]+ already'
fault "an unknown property" 's/^| B2 /| B77 /' 'B77: no such property'
fault "a row without tests" 's/^\(| B1 |[^|]*|\)[^|]*|/\1 |/' "B1: neither tests nor 'not asserted'"
fault "no test and no reason" 's/^\(| B1 |[^|]*|\)[^|]*|/\1 not asserted |/' 'B1: not asserted, and no reason'

rc=0
tests/coverage-check "$tmp" "$doc" >"$tmp/out" 2>"$tmp/err" || rc=$?
is "programs that were not built: one line" "$rc $(wc -c <"$tmp/out") $(wc -l <"$tmp/err")" "2 0 1"

# --- what make list shows ---

# The programs of x86/ list their tests where there is no KVM, too: the fixture on the first
# line of a group, variants and tests below each other.
cat >"$tmp/list.py" <<'END'
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, "lab/py")
import rows

found = sorted(Path(sys.argv[1]).glob("x86/*_64"))
for path in found:
    done = subprocess.run([path, "-l"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    fixture, tests, variants = "", set(), {}
    for line in done.stderr.splitlines():
        columns = re.fullmatch(r"(\S*) +(\S*) +(\S*)", line) if len(line) > 46 else None
        if not columns or line.startswith(("#", "---")):
            continue
        fixture = columns[1] or fixture
        name, variant, test = line[:21].strip(), line[21:46].strip(), line[46:].strip()
        variants.setdefault(fixture, set()).update({variant} - {""})
        tests |= {(fixture, test)} if test else set()
    listed = {row for f, t in tests for row in rows.names(f"{f}.{t}", sorted(variants[f]))}
    if not listed or listed != set(rows.flat(rows.of_program(path))):
        print(path.name, sorted(listed ^ set(rows.flat(rows.of_program(path))))[:5])
if not found:
    print("no programs")
END
python3 -B "$tmp/list.py" "$dir" >"$tmp/wrong" 2>&1
is "the rows of a program are those that it lists itself" "$(cat "$tmp/wrong")" ""

# --- why tests skip ---

sources=tools/testing/selftests
ok "lab/machines knows why tests skip" tests/skip-reasons
ok "that is a lot of reasons" [ "$(tests/skip-reasons -l | wc -l)" -gt 50 ]

# reasons NAME SED MESSAGE: a test that was changed like that is not taken
reasons()
{
	rm -rf "$tmp/sources"
	cp -r "$sources" "$tmp/sources"
	sed -i "$2" "$tmp/sources/x86/xstate_task.c"
	rc=0
	tests/skip-reasons "$tmp/sources" >"$tmp/faults" 2>&1 || rc=$?
	grep -qE -e "$3" "$tmp/faults" || rc="$rc, with no '$3' but $(head -n 3 "$tmp/faults" | tr '\n' ' ')"
	is "$1" "$rc" 1
}

reasons "a new reason" '0,/"no XSAVE"/s//"no XSAVE at all"/' \
	"^x86/xstate_task.c:[0-9]+: lab/machines does not know the reason 'no XSAVE at all'"
reasons "a reason that is not constant" '0,/"no XSAVE"/s//"no XSAVE, %d"/' "'no XSAVE, %d' is not constant"
reasons "a reason that cannot be followed" '0,/"no XSAVE"/s//some_reason/' \
	"cannot tell what reason 'some_reason' is"
reasons "a requirement" '0,/SKIP(return, "no XSAVE")/s//TEST_REQUIRE(x)/' 'TEST_REQUIRE\(\) has no constant'

mkdir "$tmp/empty"
rc=0
tests/skip-reasons "$tmp/empty" >"$tmp/out" 2>"$tmp/err" || rc=$?
is "no sources: one line" "$rc $(wc -c <"$tmp/out") $(wc -l <"$tmp/err")" "2 0 1"
