#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# make series: the patches apply to the oldest and the newest tree, are clean, and
# each of them builds; in them is nothing that only another tree needs.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

plan 34
scratch
GIT_AUTHOR_NAME='A U Thor'
GIT_AUTHOR_EMAIL=author@example.org
GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME
GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
GIT_CONFIG_GLOBAL=/dev/null
GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL
export GIT_CONFIG_GLOBAL GIT_CONFIG_SYSTEM
texts=$(find lab/selftests/series.d -name '[0-9]*.txt' | wc -l)
checkpatch=$(lab/kernel/fetch source "$newest")/scripts/checkpatch.pl

# graft TREE NAME: in $tmp/NAME a git tree like TREE, of which the selftests of kvm
# and x86 and the harness are copies and the rest is links
graft()
{
	g=$tmp/$2
	mkdir -p "$g/tools/testing/selftests"
	for d in . tools tools/testing tools/testing/selftests; do
		for f in "$1/$d"/*; do
			case $f in
			*/tools|*/testing|*/selftests|*/selftests/kvm|*/selftests/x86|*/kselftest_harness.h)	continue ;;
			esac
			ln -s "$f" "$g/$d/"
		done
	done
	git -C "$g" init -q
	for f in kvm x86 kselftest_harness.h; do
		cp -R "$1/tools/testing/selftests/$f" "$g/tools/testing/selftests/"
		git -C "$g" add -f "tools/testing/selftests/$f"
	done
	git -C "$g" commit -q -m base
}

# selftest NAME FOLDER TARGET...: build in the grafted tree NAME, as its user would
selftest()
{
	_n=$1
	_f=$2
	shift 2
	mkdir -p "$tmp/$_n-$_f"
	env -u CACHE make -s -j"$(nproc)" -C "$tmp/$_n/tools/testing/selftests/$_f" OUTPUT="$tmp/$_n-$_f" \
		KHDR_INCLUDES="-isystem $tmp/$_n-headers/usr/include" "$@"
}

# build_new NAME: the programs that the last patch added
build_new()
{
	for _p in $(git -C "$tmp/$1" diff --name-only --diff-filter=A HEAD^ HEAD -- '*.c'); do
		_p=${_p#tools/testing/selftests/}
		_p=${_p%.c}
		case $_p in
		kvm/lib/*)	selftest "$1" kvm "$tmp/$1-kvm/${_p#kvm/}.o" ;;
		kvm/*)	selftest "$1" kvm "$tmp/$1-kvm/${_p#kvm/}" ;;
		x86/*)
			# What programs share is built with the first of them.
			grep -q "^TARGETS_C_[0-9A-Z_]* += ${_p#x86/}\$" \
				"$tmp/$1/tools/testing/selftests/x86/Makefile" || continue
			_bits=64
			! grep -qx "TARGETS_C_BOTHBITS += ${_p#x86/}" \
				"$tmp/$1/tools/testing/selftests/x86/Makefile" || _bits='64 32'
			# shellcheck disable=SC2046,SC2086 # lists
			selftest "$1" x86 $(printf "$tmp/$1-x86/${_p#x86/}_%s\n" $_bits) ;;
		esac || return 1
	done
}

# twice NAME: programs of ours whose name another one of any folder has
twice()
{
	git -C "$tmp/$1" diff --name-only --diff-filter=A base HEAD -- '*.c' | grep -v /lib/ | sed 's|.*/||; s|\.c$||' |
	while read -r _p; do
		[ "$(cd "$tmp/$1/tools/testing/selftests" && find kvm x86 -name "$_p.c" -o -name "$_p.sh" |
			grep -cv /lib/)" = 1 ] || echo "$_p"
	done
}

for s in "$newest" 6.12; do
	case $s in
	"$newest") folder=x86 other='vm_vaddr_|vm_paddr_' list=kvm/Makefile.kvm ;;
	6.12)	folder=x86_64 other='[^_]gva_t|[^_]gpa_t|\bvm_alloc|\bvm_get_pte' list=kvm/Makefile ;;
	esac
	tree=$(lab/kernel/fetch source "$s")
	graft "$tree" "$s"
	git -C "$tmp/$s" tag base
	ok "$s: make series" make -s series KSRC="$tmp/$s" O="$tmp/out-$s"
	find "$tmp/out-$s/series" -name '0*.patch' | sort >"$tmp/patches"
	is "$s: a patch for each text, and the cover letter" "$(wc -l <"$tmp/patches")" $((texts + 1))
	ok "$s: they are at most 25" test "$texts" -le 25
	ok "$s: the cover letter names the base" like "$tmp/out-$s/series/0000-cover-letter.patch" \
		"^base-commit: $(git -C "$tmp/$s" rev-parse HEAD)\$"
	sed -i 1d "$tmp/patches"

	# MAINTAINERS has these folders; that it might not is all that is not asked.
	bad=
	while read -r p; do
		(cd "$tmp" && perl "$checkpatch" --strict --no-tree --no-summary --terse --ignore FILE_PATH_CHANGES \
			"$p") >>"$tmp/checkpatch-$s" 2>&1 || bad="$bad ${p##*/}"
	done <"$tmp/patches"
	tap_diag "$tmp/checkpatch-$s"
	is "$s: checkpatch.pl --strict finds nothing" "$bad" ""

	ok "$s: headers for user space" make -s -j"$(nproc)" -C "$tree" ARCH=x86 O="$tmp/$s-headers" headers
	bad=
	while read -r p; do
		git -C "$tmp/$s" am -q --whitespace=error "$p" </dev/null >>"$tmp/am-$s" 2>&1 || {
			bad="$bad ${p##*/} does not apply"
			break
		}
		build_new "$s" </dev/null >>"$tmp/am-$s" 2>&1 || bad="$bad ${p##*/} does not build"
		! grep -H 'warning:' "$tmp/am-$s" || bad="$bad ${p##*/} gives warnings"
	done <"$tmp/patches"
	[ -z "$bad" ] || tap_diag "$tmp/am-$s"
	is "$s: each patch applies and builds, without a warning" "$bad" ""
	is "$s: all programs are there" "$(cd "$tmp/$s/tools/testing/selftests" &&
		git diff --name-only --diff-filter=A base HEAD -- "kvm/$folder/*.c" "kvm/lib/$folder/*.c" 'x86/*.c' |
		wc -l)" \
		"$(find tools -name '*.c' | wc -l)"
	is "$s: and nothing in folders of other versions" "$(git -C "$tmp/$s" diff --name-only base HEAD |
		grep -vE "/(x86/|kvm/($folder|include/$folder|lib/$folder)/|$list\$|kvm/config\$|kselftest_harness.h\$)")" ""
	nok "$s: and nothing for other versions in them" sh -c \
		"grep -hE '^\+.*(__has_include|kvm_compat|harness_ext|th_begin|#ifndef ARCH_|$other)' '$tmp/out-$s/series/'*.patch"
	is "$s: names are unique in kselftest-list.txt" "$(twice "$s")" ""
	nok "$s: nothing that the build leaves shows up in git" \
		sh -c "git -C '$tmp/$s' status --porcelain tools/testing/selftests/kvm tools/testing/selftests/x86 | grep ."
done

# refuses NAME REGEX COMMAND...: one line on stderr like REGEX, nothing written
refuses()
{
	_name=$1
	_regex=$2
	shift 2
	rc=0
	env O="$tmp/none" "$@" >"$tmp/out" 2>"$tmp/err" || rc=$?
	ok "$_name" like "$tmp/err" "$_regex"
	is "$_name: in one line, and nothing is written" \
		"$rc $(wc -l <"$tmp/err") $(find "$tmp/none" 2>/dev/null)" "1 1 "
}

refuses "no kernel tree" "^lab: '$tmp' is no kernel tree with KVM selftests" env KSRC="$tmp" lab/series
refuses "no author" '^lab: whose patches are these\? Tell git' \
	env -u GIT_AUTHOR_NAME -u GIT_AUTHOR_EMAIL KSRC="$tmp/$newest" lab/series
mkdir "$tmp/repo"
cp -R lab tools "$tmp/repo/"
cat >"$tmp/repo/tools/testing/selftests/x86/one_more.c" <<'END_OF_C'
// SPDX-License-Identifier: GPL-2.0-only
/*
 * One more program, for which nobody has written
 * a message.
 */
int main(void)
{
	return sizeof(long) == 8 ? 0 :
#ifdef __i386__
		0;
#else
		1;
#endif
}
END_OF_C
ok "a program without a text makes a patch" env O="$tmp/more" KSRC="$tmp/$newest" "$tmp/repo/lab/series"
more=$(find "$tmp/more/series" -name '0*.patch' | sort | tail -n 1)
ok "the last one, with its head comment as the message" like "$more" '^One more program, for which nobody has written$'
ok "under its name" like "$more" '^Subject: .*selftests/x86: Add one_more$'
ok "for 32 bits too, as it asks which it is" like "$more" '^\+TARGETS_C_BOTHBITS \+= one_more$'
: >"$tmp/repo/tools/testing/selftests/x86/unnamed.c"
refuses "a source without a patch" '^lab: each \.c file needs a text in lab/selftests/series\.d .* x86/unnamed\.c' \
	env KSRC="$tmp/$newest" "$tmp/repo/lab/series"
