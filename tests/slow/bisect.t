#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# make bisect finds the commit that broke a test, in a git tree of 16 commits on
# top of what the lab's kernel needs of linux-source: the culprit is an injected
# regression, and one commit does not build.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

plan 33
scratch

# --- what a run means, of which tests/py/test_record.py has all cases ---

# means NAME RESULT WANTED: lab/verdict on a run of one program, exit status and line
means()
{
	rm -rf "$tmp/run"
	python3 -B -c 'import sys
sys.path.insert(0, "tests/py")
from runs import Run
run = Run(sys.argv[1])
run.program("kvm/a", f"1..1\n{sys.argv[2]}\n")
run.write()' "$tmp/run" "$2"
	rc=0
	text=$(lab/verdict "$tmp/run") || rc=$?
	is "$1" "$rc $text" "$3"
}

means "a test that passes: good" "ok 1 a.one" "0 good: 1 passed"
means "a test that fails: bad" "not ok 1 a.one" "1 bad: a.one"
means "nothing but skipped tests: cannot be told" "ok 1 a.one # SKIP no AMX" \
	"125 skip: none of 1 tests could be told"
rc=0
lab/verdict "$tmp/nowhere" >"$tmp/out" 2>"$tmp/err" || rc=$?
is "no folder: cannot be told, in one line" "$rc $(wc -l <"$tmp/err")" "125 1"

# --- bad input ---

# refuses NAME REGEX VARIABLE...: in one line
refuses()
{
	_name=$1
	_regex=$2
	shift 2
	rc=0
	env O="$tmp/refused" "$@" make -s bisect >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
	sed -i '/^make[^ ]*: \*\*\*/d' "$tmp/err"
	is "$_name: refused, in one line" "$rc $(wc -l <"$tmp/err") $(wc -c <"$tmp/out")" "2 1 0"
	ok "$_name: the line says why" like "$tmp/err" "$_regex"
}

tree=$tmp/linux
git="git -C $tree -c user.name=lab -c user.email=lab@localhost -c gc.auto=0"
mkdir -p "$tree/arch/x86/kvm"
git init -q "$tree"
: >"$tree/README"
$git add -A
$git commit -q -m nothing
refuses "no tree" '^lab: GOOD= must name a release, or KSRC= the git tree' KSRC=
refuses "no git tree" "is no git tree" KSRC="$tmp"
refuses "no commits named" '^lab: GOOD= must name a commit' KSRC="$tree"
refuses "an unknown commit" "^lab: BAD='v0': no such commit" KSRC="$tree" GOOD=HEAD BAD=v0
refuses "one commit" '^lab: GOOD and BAD are the same commit' KSRC="$tree" GOOD=HEAD BAD=HEAD
$git commit -q --allow-empty -m more
refuses "no kernel" "^lab: BAD='HEAD' is no kernel" KSRC="$tree" GOOD=HEAD^ BAD=HEAD
rm -rf "$tree"

# --- the history ---

source=$(lab/kernel/fetch source "$newest")
lab/kernel/build "$newest" >"$tmp/folder"
# The objects, and the folder they were built in.
objects=$(sed 's/labkernel/labobj/' "$tmp/folder")/obj
built=$(sed 's/labkernel/labwork/' "$tmp/folder")

# needed: what the build reads, by the record of an earlier build, and whole folders
# that are small
needed()
{
	(cd "$source" && find . -type f \( -name 'Kconfig*' -o -name 'Makefile*' -o -name 'Kbuild*' \
		-o -path './arch/x86/*' -o -path './include/*' -o -path './kernel/*' -o -path './lib/*' \
		-o -path './mm/*' -o -path './scripts/*' -o -path './init/*' -o -path './usr/*' \
		-o -path './virt/*' -o -path './security/*' -o -path './certs/*' -o -path './tools/build/*' \
		-o -path './tools/include/*' -o -path './tools/lib/*' -o -path './tools/objtool/*' \
		-o -path './tools/arch/x86/*' -o -path './tools/scripts/*' \)) | sed 's|^\./||'
	find "$objects" -name '.*.cmd' -exec cat {} + | tr -sc 'A-Za-z0-9_.,+/-' '\n' |
		sed -n "s|^$built/src/||p" | while read -r f; do
			[ ! -f "$source/$f" ] || echo "$f"
		done
}
needed | sort -u >"$tmp/needed"
mkdir "$tree"
ok "the files of the history are there" tar -C "$source" -cf "$tmp/tree.tar" -T "$tmp/needed"
tar -C "$tree" -xf "$tmp/tree.tar"
git init -q "$tree"
$git config core.compression 0
$git add -Af
$git commit -q -m "base"
$git tag base

# What an earlier bisection of this tree would have left: checkout and objects,
# those of lab/kernel/build made to look as if compiled there.
work=$(KSRC=$tree lab/bisect folder)
mkdir -p "$work/src"
trap 'rm -rf "$tmp" "$work"' EXIT
tar -C "$work/src" -xf "$tmp/tree.tar"
rm "$tmp/tree.tar"
mkdir "$work/src/.git"
cp "$tree/.git/index" "$work/src/.git/"
cp -a "$objects" "$work/obj"
find "$work/obj" -name '.*.cmd' -exec sed -i "s|$built|$work|g" {} +

# Commit 8 is the one that git tries first, and does not build; 11 is the culprit.
i=1
while [ $i -le 16 ]; do
	case $i in
	8)	echo '#error no driver today' >>"$tree/arch/x86/kvm/debugfs.c" ;;
	9)	sed -i '$d' "$tree/arch/x86/kvm/debugfs.c" ;;
	11)	patch -s -d "$tree" -p1 -F0 -N <lab/mutants/realloc-loses-cet-user.patch ;;
	*)	echo "/* change $i */" >>"$tree/arch/x86/kvm/debugfs.c" ;;
	esac
	$git commit -q -a -m "change $i"
	$git tag "c$i"
	i=$((i + 1))
done
is "there are 16 commits" "$($git rev-list --count base..c16)" 16

# --- the bisection ---

# state: of the user's tree
state()
{
	$git status --porcelain --branch
	$git for-each-ref
	$git stash list
	$git worktree list
	ls "$tree/.git"
}

echo "not committed" >>"$tree/init/main.c"
state >"$tmp/before"
begin=$(date +%s)
env KSRC="$tree" GOOD=base BAD=c16 TESTS=xstate_perm_test:guest_amx_cet.cet_msrs O="$tmp/results" \
	make -s bisect >"$tmp/found" 2>"$tmp/err"
is "make bisect succeeds" $? 0
sed 's/^/# /' "$tmp/err"
echo "# $(($(date +%s) - begin)) s"
steps=$tmp/results/bisect/steps
sed 's/^/# /' "$steps"
is "it finds the culprit" "$(cat "$tmp/found")" "first bad commit: $($git rev-parse c11) change 11"
ok "the commit that does not build was skipped" \
	like "$steps" "$($git rev-parse --short=12 c8) skip: .*failed"
is "and no other" "$(grep -c ' skip: ' "$steps")" 1
ok "GOOD was tried first" like "$steps" "^01-$($git rev-parse --short=12 base) good: 1 passed"
ok "then BAD" like "$steps" "^02-$($git rev-parse --short=12 c16) bad: xstate_perm\.guest_amx_cet\.cet_msrs"
ok "at most eight of the 17 commits were tried" [ "$(wc -l <"$steps")" -le 8 ]
ok "each left a log" [ "$(find "$tmp/results/bisect" -name build.log | wc -l)" -ge "$(wc -l <"$steps")" ]
state >"$tmp/after"
ok "the user's tree is as it was" cmp "$tmp/before" "$tmp/after"

# A bisection between wrong ends says so at once: two boots, no more.
refuses "a BAD that passes" "^lab: BAD has to fail, but is good" \
	KSRC="$tree" GOOD=base BAD=c10 TESTS=xstate_perm_test:guest_amx_cet.cet_msrs
refuses "a GOOD that fails" "^lab: GOOD has to pass, but is bad" \
	KSRC="$tree" GOOD=c11 BAD=c16 TESTS=xstate_perm_test:guest_amx_cet.cet_msrs
refuses "a program that is not there" "^lab: TESTS='none': no such program" \
	KSRC="$tree" GOOD=base BAD=c16 TESTS=none
