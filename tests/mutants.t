#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The suite fails when it should: on a kernel with an injected regression, with a
# message that says what is broken, and on no other.  A handful of lab/mutants,
# then what the driver makes of patches that are no good, and of an interruption.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 26
scratch

killed="realloc-loses-cet-user perm-lock-not-tested fork-keeps-pasid kvm-set-cpuid-eperm-lost
	hotplug-xfd-not-written"
equivalent="seed-v6-literal"

# mutate FOLDER VARIABLE...
mutate()
{
	_o=$tmp/$1
	shift
	env O="$_o" "$@" lab/mutate
}

# result MUTANT REGEX: a line of the report on one of the handful
result()
{
	like "$tmp/some/mutants/$some/$1/report.ktap" "$2"
}

tests="xstate_perm_test xcomp_perm_64 xstate_pasid xstate_hotplug"
ok "a handful of mutants ends as it should" \
	mutate some MUTANTS="$killed $equivalent" TESTS="$tests" FAST=0
some=$(ls "$tmp/some/mutants")
for m in $killed; do
	ok "$m is killed" like "$tmp/some/mutants/$some/table.md" "^\| $m \|.*\| killed \| killed \|"
done
ok "$equivalent survives" \
	like "$tmp/some/mutants/$some/table.md" "^\| $equivalent \|.*\| equivalent \| survived \|"
for combination in guest both inherited; do
	ok "$combination permission, AMX: the failure names combination, component and MSR" \
		result realloc-loses-cet-user \
		"^ *# .*${combination}_amx_cet\.[a-z_]*: IA32_U_CET \(CET_USER\)"
done
nok "CET_KERNEL is not blamed" result realloc-loses-cet-user '^ *# .*CET_KERNEL\) lost'
nok "nor is a combination without AMX" \
	result realloc-loses-cet-user '^ *not ok [0-9]+ xstate_perm\.[a-z]*_noamx_'

ok "what takes two CPUs runs on two" like "$tmp/some/mutants/$some/table.md" \
	'^\| hotplug-xfd-not-written \|.*assertion: .*xstate_hotplug\.xfd'

ok "without FAST=0 it comes to the same verdict" \
	mutate fast MUTANTS=realloc-loses-cet-user TESTS="$tests"
fast=$(ls "$tmp/fast/mutants")
ok "and stops early" \
	like "$tmp/fast/mutants/$fast/realloc-loses-cet-user/run.json" '^ "end": "stopped"'

# --- patches of one's own ---

mkdir "$tmp/own"
# own NAME EXPECT LINE: LINE at the end of a file
own()
{
	file=arch/x86/kvm/hyperv.c
	lines=$(wc -l <"$tree/$file")
	{
		printf '%s\n' "Subject: $1" "Expect: $2" 'Needs: any' 'Symptom: none' \
			'Why: it adds a comment' '' '---' "--- a/$file" "+++ b/$file" "@@ -$lines +$lines,2 @@"
		tail -n 1 "$tree/$file" | sed 's/^/ /'
		echo "+$3"
	} >"$tmp/own/$1.patch"
}
tree=$(lab/kernel/fetch source "$newest") || tree=
own a-noapply killed '/* comment */'
sed -i 's/^ /  /' "$tmp/own/a-noapply.patch"
own b-nobuild killed 'nonsense'
own c-equivalent equivalent '/* comment */'
own d-survivor killed '/* comment, too */'

# interrupted: stop it when it has come to the last one
interrupted()
{
	# In a session of its own, to find what may be left of it.
	env O="$tmp/part" MUTANTS="$tmp/own" TESTS=xcomp_perm_64 JOBS=1 setsid lab/mutate \
		>"$tmp/first" 2>&1 &
	_pid=$!
	_i=0
	while [ $_i -lt 6000 ] && ! find "$tmp/part" -name d-survivor 2>/dev/null | grep -q .; do
		sleep 0.1
		_i=$((_i + 1))
	done
	# Into the build of that one.
	sleep 1
	kill -TERM $_pid
	wait $_pid
	[ $? = 143 ]
}
ok "an interruption ends it" interrupted
is "no process is left" "$(pgrep -f "$tmp/part" | tr '\n' ' ')" ""
ok "a patch that does not apply is an error" \
	like "$tmp/first" '^error +a-noapply .*applying a-noapply.patch: failed'
ok "so is one that does not build" \
	like "$tmp/first" '^error +b-nobuild .*compiling what the patches touch: failed'
nok "the last mutant has no verdict yet" grep -q 'd-survivor' "$tmp/first"

mutate part MUTANTS="$tmp/own" TESTS=xcomp_perm_64 JOBS=1 >"$tmp/second" 2>&1 && rc=0 || rc=$?
is "the second time it gets to the end, and fails" "$rc" 1
ok "with the last mutant" like "$tmp/second" '^survived d-survivor \(expected: killed\)'
nok "without the one that was done" grep -q '^survived c-equivalent' "$tmp/second"
ok "and with errors tried again" like "$tmp/second" '^error +b-nobuild '
ok "which of them are not as expected" \
	like "$tmp/second" '^lab: 3 not as expected: a-noapply b-nobuild d-survivor$'
ok "the table has all of them" [ "$(grep -c '^| [a-d]-' "$tmp/second")" = 4 ]
