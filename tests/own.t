#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Programs of one's own in the lab, as Documentation/own.md shows them: dynamic ones,
# scripts, arguments, an environment, files in and out, what was expected, and what a
# program leaves running.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 27
scratch

# lab FOLDER OPTION...: $rc, and what it says in $tmp/FOLDER.err
lab()
{
	_out=$1
	shift
	rc=0
	lab/run -o "$tmp/$_out" -t 300 "$@" >"$tmp/$_out.err" 2>&1 || rc=$?
}

# said FOLDER JOB: what it printed
said()
{
	sed -n '/^@lab begin/,/^@lab end/{/^@lab/d; /^$/d; p}' "$tmp/$1"/jobs/*-"$2"/results.log
}

cat >"$tmp/show.c" <<'END_OF_C'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	FILE *file = fopen("/tmp/shown", "w");

	for (int i = 1; i < argc; i++)
		printf("<%s>", argv[i]);
	printf("[%s]\n", getenv("GREETING"));
	fflush(stdout);
	if (!file || fputs("shown\n", file) < 0 || fclose(file))
		return 1;
	if (argc > 1 && !strcmp(argv[1], "fault"))
		*(volatile int *)0 = 0;
	return argc > 2 ? 3 : 0;
}
END_OF_C
mkdir -p "$tmp/my programs" "$tmp/tree/opt/data" "$tmp/tree/empty"
gcc -o "$tmp/my programs/show" "$tmp/show.c"
echo unpacked >"$tmp/tree/opt/data/file"
ln -s data/file "$tmp/tree/opt/link"
tar -C "$tmp/tree" -czf "$tmp/tree.tar.gz" opt
cat >"$tmp/look.sh" <<'END_OF_SH'
#!/bin/sh
cat /opt/link
[ -d /empty ] && echo "an empty folder"
head -c 300000 /dev/urandom >/opt/data/random
sha256sum </opt/data/random
END_OF_SH
cat >"$tmp/leave.sh" <<'END_OF_SH'
#!/bin/sh
trap '' TERM
for i in 1 2 3; do
	(while :; do echo noise; sleep 0.01; done) &
done
sleep 0.1
END_OF_SH
cat >"$tmp/next.sh" <<'END_OF_SH'
#!/bin/sh
sleep 0.2 &
echo "sleepers: $(pidof sleep | wc -w)"
END_OF_SH
chmod +x "$tmp"/*.sh
cat >"$tmp/list" <<END_OF_LIST
# Quoted as for a shell
args	60	'$tmp/my programs/show' 'two  words' "it's" '' \\\$HOME '*'
look	60	$tmp/look.sh
END_OF_LIST

lab all -l "$tmp/list" -u "$tmp/tree" -e "GREETING=hello  'you'" -g /opt/data -g /tmp/shown
is "a file that one of them has not made fails the run, in one line" "$rc $(wc -l <"$tmp/all.err")" "1 1"
ok "which names it" like "$tmp/all.err" '^lab: not in the machine: /tmp/shown \(of look\); see '
# shellcheck disable=SC2016 # as it is
is "a dynamic program runs, arguments and environment arrive" "$(said all args)" \
	'<two  words><it'\''s><><$HOME><*>[hello  '\''you'\'']'
ok "its exit status is kept" like "$tmp/all/results.log" '^@lab end args 3$'
is "a folder is unpacked, with links and empty folders" "$(said all look | head -n 2 | tr '\n' ,)" \
	"unpacked,an empty folder,"
is "files come back" "$(cat "$tmp"/all/jobs/*-args/files/tmp/shown)" shown
is "each machine's are its own" "$(find "$tmp"/all/jobs/*-look/files -type f | sort | sed 's|.*/files/||' | tr '\n' ' ')" \
	"opt/data/file opt/data/random "
is "as they were, to the byte" "$(sha256sum <"$(echo "$tmp"/all/jobs/*-look/files/opt/data/random)")" \
	"$(said all look | tail -n 1)"
ok "they are gone from the log" [ "$(wc -c <"$tmp/all/results.log")" -lt 2000 ]
ok "which says how many there were" like "$tmp/all/results.log" '^@lab files: 2$'

printf '%s 60 %s\n' first "$tmp/leave.sh" second "$tmp/next.sh" >"$tmp/list"
lab together --together -l "$tmp/list"
is "together: the run is good" "$rc$(cat "$tmp/together.err")" 0
ok "what a program leaves running goes on after it" sh -c \
	"sed -n '/^@lab end first/,/^@lab begin second/p' '$tmp/together/results.log' | grep -q noise"
ok "but not into the next one" like "$tmp/together/results.log" '^sleepers: 1$'
is "which has the log to itself" "$(sed -n '/^@lab begin second/,$p' "$tmp/together/results.log" | grep -c noise)" 0

lab "a fault, or so" --expect SEGV -u "$tmp/tree.tar.gz" -- "$tmp/my programs/show" fault
is "a signal that is expected, and a folder of a strange name" "$rc$(cat "$tmp/a fault, or so.err")" 0
ok "is what it ended by" like "$tmp/a fault, or so/results.log" '^@lab end show 139$'
lab other --expect 0 "$tmp/look.sh" -- "$tmp/my programs/show" a b
is "another status than the expected one fails the run" "$rc $(wc -l <"$tmp/other.err")" "1 1"
ok "in a line that names both" like "$tmp/other.err" \
	'^lab: it ended with status [13].*, not with status 0 \(in (show|look.sh)\); see '

# --- what cannot be, before anything boots ---

# refuses NAME REGEX OPTION...
refuses()
{
	_name=$1
	_regex=$2
	shift 2
	lab none "$@"
	ok "$_name" like "$tmp/none.err" "$_regex"
	[ "$rc $(wc -l <"$tmp/none.err")" = "1 1" ] && [ ! -e "$tmp/none" ] || echo "# not in one line"
}

printf '#!/bin/bash\necho\n' >"$tmp/bash.sh"
chmod +x "$tmp/bash.sh"
refuses "a script without its interpreter" "^lab: $tmp/bash.sh wants /bin/bash, which is not in the machine: " "$tmp/bash.sh"
refuses "too much memory" '^lab: -M 4096: the emulator gives a machine at most 2048 MiB, for ' -M 4096 "$tmp/look.sh"
refuses "no such tar" "^lab: -u $tmp/nothing: no such folder or tar" -u "$tmp/nothing" "$tmp/look.sh"
refuses "no path" "^lab: argument -g: 'tmp' is no path in the machine" -g tmp "$tmp/look.sh"
refuses "no variable" "^lab: argument -e: 'A' is no NAME=VALUE" -e A "$tmp/look.sh"
refuses "no status" "^lab: argument --expect: 'fine' is neither an exit status nor a signal" --expect fine "$tmp/look.sh"
echo "a 60 'b" >"$tmp/list"
refuses "a quote without an end" "^lab: $tmp/list: .*No closing quotation" -l "$tmp/list"
mkdir -p "$tmp/own/lab"
refuses "files of the lab" "the lab's own: choose another place" -u "$tmp/own" "$tmp/look.sh"
refuses "a level that is none" '^lab: argument --log: invalid choice' --log all "$tmp/look.sh"
