#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What CI systems do with the installed selftests: the kernel's own runner runs each
# by its name on the emulated host, kunit.py and prove read what it says, its time
# limits are far away, and results keep their names.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

plan 27
scratch
tree=$(lab/kernel/fetch source "$newest")

# kunit FILE: the summary of the kernel's parser, and its exit status
kunit()
{
	python3 -B "$tree/tools/testing/kunit/kunit.py" parse "$1" 2>&1
}

# --- each program by the kernel's runner ---

ok "make install" make -s install DESTDIR="$tmp/inst" O="$tmp/out"
list=$tmp/inst/kselftest-list.txt
programs=$(wc -l <"$list")
ok "make runner" make -s runner DESTDIR="$tmp/inst" O="$tmp/lab"
is "each program has run, alone" "$(find "$tmp/lab/runner" -name '*.ktap' | wc -l)" "$programs"
missing=
while read -r t; do
	f=$tmp/lab/runner/$(echo "$t" | tr : -).ktap
	grep -qx '1\.\.1' "$f" && grep -q "^ok 1 selftests: ${t%%:*}: ${t#*:}\$" "$f" || missing="$missing $t"
done <"$list"
is "each is planned and ok under its name" "$missing" ""

# What the programs said, without the runner's "# ".
mkdir "$tmp/tap"
for f in "$tmp"/lab/runner/*.ktap; do
	sed -n '/^# TAP version\|^# KTAP version/,/^# # Totals/s/^# //p' "$f" >"$tmp/tap/$(basename "$f")"
done

# --- kunit.py and prove ---

# count REGEX: lines like it in all that the programs said
count()
{
	cat "$tmp"/tap/*.ktap | grep -cE "$1"
}
results=$(count '^(not )?ok ')
skipped=$(count '^ok .*# SKIP')
wrong=
complaints=
passed=0
kunit_skipped=0
for f in "$tmp"/tap/*.ktap; do
	kunit "$f" >"$tmp/kunit" || wrong="$wrong ${f##*/}"
	! grep -E 'ERROR|CRASHED|missing|Traceback' "$tmp/kunit" || complaints="$complaints ${f##*/}"
	passed=$((passed + $(sed -nE 's/.*Testing complete.*passed: ([0-9]+).*/\1/p' "$tmp/kunit" | grep . || echo 0)))
	kunit_skipped=$((kunit_skipped +
		$(sed -nE 's/.*Testing complete.*skipped: ([0-9]+).*/\1/p' "$tmp/kunit" | grep . || echo 0)))
done
is "kunit.py takes what each program says" "$wrong" ""
is "without complaint" "$complaints" ""
is "kunit.py counts what passed as we do" $passed $((results - skipped))
is "and what was skipped" $kunit_skipped "$skipped"
wrong=
for f in "$tmp"/lab/runner/*.ktap; do
	kunit "$f" >"$tmp/kunit" && like "$tmp/kunit" 'passed: 1(,|$)' >/dev/null || wrong="$wrong ${f##*/}"
done
is "kunit.py takes what the runner says" "$wrong" ""
prove -e cat "$tmp"/tap/*.ktap >"$tmp/prove" 2>&1
rc=$?
tap_diag "$tmp/prove"
is "prove takes what each program says" $rc 0
ok "and counts as we do" like "$tmp/prove" "^Files=$programs, Tests=$results,"
ok "prove takes what the runner says" prove -e cat "$tmp"/lab/runner/*.ktap

# --- limits ---

# The time in the host counts, which does not depend on this machine.
python3 -B -c 'import sys
from pathlib import Path
sys.path.insert(0, "lab/py")
import record
for name, seconds in record.Run(Path(sys.argv[1])).seconds.items():
    print(name, seconds)' "$tmp/lab" >"$tmp/seconds"
too_long=
while read -r t; do
	# Where a collection has no settings, the runner stops after 45 s.
	limit=$(sed -n 's/^timeout=//p' "$tmp/inst/${t%%:*}/settings" 2>/dev/null)
	used=$(awk -v t="$t" '$1 == t { print $2 }' "$tmp/seconds")
	echo "# $t took ${used:-an unknown time}, the limit is ${limit:-45} s"
	awk -v used="${used:-1000}" -v limit="${limit:-45}" 'BEGIN { exit used * 4 > limit }' ||
		too_long="$too_long $t"
done <"$list"
is "each program takes less than a quarter of its limit" "$too_long" ""

# --- names ---

cat "$tmp"/lab/runner/*.ktap >"$tmp/all.ktap"
ok "names of results are unique" tests/slugs "$tmp/all.ktap"
is "and there is one for each" "$(tests/slugs "$tmp/all.ktap" | wc -l)" $((results + programs))
sed '0,/ # SKIP/s/ # SKIP.*/& 7/' "$tmp/all.ktap" >"$tmp/other.ktap"
nok "another reason of a skip is another name" tests/slugs "$tmp/all.ktap" "$tmp/other.ktap"
grep -v '^# ok 2 ' "$tmp/all.ktap" >"$tmp/other.ktap"
nok "a result that is missing is noticed" tests/slugs "$tmp/all.ktap" "$tmp/other.ktap"
{
	cat "$tmp/lab/runner/x86-xcomp_perm_64.ktap"
	cat "$tmp/lab/runner/x86-xcomp_perm_64.ktap"
} >"$tmp/other.ktap"
nok "so is one that comes twice" tests/slugs "$tmp/other.ktap"

# --- a machine that can do nothing of it ---

# without_kvm COMMAND...: where /dev is empty
without_kvm()
{
	unshare -rm sh -c 'mount -t tmpfs none /dev && ln -s /proc/self/fd/1 /dev/stdout && exec "$@"' sh "$@" \
		</dev/null 2>&1
}

cp -R "$tmp/inst" "$tmp/here"
wrong=
for p in "$tmp"/here/kvm/*_test; do
	rc=0
	without_kvm "$p" >"$tmp/text" || rc=$?
	[ $rc = 4 ] && grep -qE '^1\.\.0 # SKIP .' "$tmp/text" || wrong="$wrong ${p##*/}:$rc"
done
is "KVM programs without KVM skip with exit status 4 and a reason" "$wrong" ""
for i in 1 2 3 4 5; do
	# It opens stdout anew, so that needs to be a pipe.
	without_kvm "$tmp/here/run_kselftest.sh" | cat >"$tmp/here.$i"
done
ok "so the runner says" like "$tmp/here.1" '^ok [0-9]+ selftests: kvm: xfd_test # SKIP'
nok "and nothing fails" grep '^not ok' "$tmp/here.1"
ok "names are the same in five runs" tests/slugs "$tmp"/here.[1-5]

# --- Documentation/ci.md and its examples ---

doc=Documentation/ci.md
sed -n 's/^	\(make .*\)/\1/p' $doc | grep -v '^make -C linux' >"$tmp/commands"
sed -n 's/^ *- \(run: \)\{0,1\}\(make .*\)/\2/p' Documentation/ci/*.yml >>"$tmp/commands"
ok "there are commands to check" [ "$(wc -l <"$tmp/commands")" -ge 10 ]
wrong=
# Without what stands in quotes, and GitHub's expressions.
sed -i 's/"[^"]*"//g; s/\${{[^}]*}}//g' "$tmp/commands"
while read -r _ rest; do
	for word in $rest; do
		case $word in
		# A variable: make help tells of it.
		*=*)	like lab/help "(^|[^A-Z])${word%%=*}=" >/dev/null || wrong="$wrong ${word%%=*}" ;;
		[a-z]*)	grep -q "^$word:" Makefile || wrong="$wrong $word" ;;
		esac
	done
done <"$tmp/commands"
is "make has every target and variable that is named" "$wrong" ""
for f in Documentation/ci/*; do
	# Items that are commands: "- run: COMMAND", or under script: and its like; and RUN.
	awk '/^ *- run: / { sub(/^ *- run: /, ""); print; next }
		/^RUN / { sub(/^RUN /, ""); print; next }
		/^  [a-z_]+:/ { script = $1 ~ /^(before_|after_)?script:$/; next }
		script && /^ *- / { sub(/^ *- /, ""); print }' "$f" >"$tmp/commands"
	is "$f calls only make, once that is installed" \
		"$(sed 's/^apt-get update && apt-get install .* make$/install/; s/ && make clean$//; s/^make \([a-z]*\).*/\1/' \
			"$tmp/commands" | tr '\n' ' ')" \
		"install kselftest $(case $f in *.yml) echo 'report ' ;; esac)"
done
