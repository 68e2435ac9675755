#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The selftests build with gcc and clang against the oldest and the newest tree
# that they support, without a warning, and leave the trees alone.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 52
scratch
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xcomp-lab}

# A make that must not be called.
mkdir "$tmp/bin"
printf '#!/bin/sh\necho "make was called: $*"\nexit 1\n' >"$tmp/bin/make"
chmod +x "$tmp/bin/make"

programs()
{
	find tools/testing/selftests/kvm/x86_64 -name '*.c' | sed 's|.*/||; s|\.c$||'
}

# The other files there have no main(): each program is linked with them.
x86_programs()
{
	grep -lE '^(int main\(|[A-Z_]*HARNESS_MAIN)' tools/testing/selftests/x86/*.c | sed 's|.*/||; s|\.c$||'
}

# Programs for 32 bits as well ask which they are.
x86_programs_32()
{
	for p in $(x86_programs); do
		! grep -qE '__(i386|x86_64)__' "tools/testing/selftests/x86/$p.c" || echo "${p}_32"
	done
}

# inventory DIR: names, times and sizes of everything there
inventory()
{
	find "$1" ! -name __pycache__ ! -name '*.pyc' -printf '%P %T@ %s\n' | sort | sha256sum
}

ok "some programs are for 32 bits as well" [ "$(x86_programs_32 | wc -l)" -ge 5 ]
for series in "$newest" 7.2 6.12; do
	tree=$(lab/kernel/fetch source "$series") || tree=/nowhere
	before=$(inventory "$tree")
	for cc in gcc clang; do
		what="$cc, $series"
		dir=$(lab/selftests/build "$tree" --cc=$cc 2>"$tmp/err") || dir=/nowhere
		tap_diag "$tmp/err"
		ok "$what: builds" [ -d "$dir" ]
		missing=
		for p in $(programs); do
			[ -x "$dir/kvm/x86_64/$p" ] || missing="$missing $p"
		done
		for p in $(x86_programs); do
			[ -x "$dir/x86/${p}_64" ] || missing="$missing $p"
		done
		for p in $(x86_programs_32); do
			[ -x "$dir/x86/$p" ] || missing="$missing $p"
		done
		is "$what: all programs are there" "$missing" ""
		ok "$what: upstream's as well" [ -x "$dir/upstream/kvm/amx_test" ]
		dynamic=$(find "$dir/kvm" "$dir/x86" "$dir/upstream" -type f -exec sh -c 'readelf -lW "$1" | grep -q INTERP && echo "$1"' _ {} \;)
		is "$what: all of them are static" "$dynamic" ""
		log=$CACHE/log/$(basename "$dir").log
		ok "$what: the log of the build is there" [ -f "$log" ]
		nok "$what: no warning" grep -i 'warning' "$log"
		again=$(PATH="$tmp/bin:$PATH" lab/selftests/build "$tree" --cc=$cc 2>&1)
		is "$what: nothing is built twice" "$again" "$dir"
	done
	is "$series: the tree is untouched" "$(inventory "$tree")" "$before"
done

# A warning in our own code fails the build.
mkdir "$tmp/repo"
cp -r lab tools "$tmp/repo/"
cat >"$tmp/repo/tools/testing/selftests/kvm/x86_64/warn_test.c" <<'END'
// SPDX-License-Identifier: GPL-2.0-only
int main(int argc, char **argv)
{
	return 0;
}
END
# Another build, or one that was killed, may have something there.
unfinished()
{
	find "$CACHE/tmp" -maxdepth 1 -name 'selftests-*'
}
before=$(unfinished)
rc=0
"$tmp/repo/lab/selftests/build" "$(lab/kernel/fetch source "$newest")" >"$tmp/out" 2>"$tmp/err" || rc=$?
is "a warning fails the build" "$rc $(cat "$tmp/out")" "1 "
ok "with the compiler's message" like "$tmp/err" "error: unused parameter .argc"
is "and leaves nothing" "$(unfinished)" "$before"

# The layout that CI systems install.
ok "make install" make -s install DESTDIR="$tmp/inst" O="$tmp/out.d"
wanted=$({
	programs | sed 's/^/kvm:/'
	x86_programs | sed 's|.*|x86:&_64|'
	x86_programs_32 | sed 's/^/x86:/'
} | sort | tr '\n' ' ')
is "the list names every program" "$(tr '\n' ' ' <"$tmp/inst/kselftest-list.txt")" "$wanted"
is "kselftest's own runner finds them" "$("$tmp/inst/run_kselftest.sh" -l | sort | tr '\n' ' ')" "$wanted"
