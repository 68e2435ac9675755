#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The cache of lab/lib.sh: things are made once, and whatever ends a run, it
# leaves nothing that a later one would take for whole, and no process.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 34
scratch
mkdir -p "$tmp/lab"
cp lab/lib.sh "$tmp/lab/"
export CACHE="$tmp/cache"
thing=$CACHE/thing-1
# What processes sleep is their name: another run of this test has others.
export NAP="99.$$"

# script NAME: a script of the lab, from stdin
script()
{
	{
		# shellcheck disable=SC2016 # for the script to expand
		printf '%s\n' '#!/bin/sh' 'set -eu' '. "$(dirname "$0")/lib.sh"'
		cat
	} >"$tmp/lab/$1"
	chmod +x "$tmp/lab/$1"
}

# try NAME [ARGUMENT...]: run it, keep $rc, $tmp/out and $tmp/err
try()
{
	_script=$1
	shift
	rc=0
	"$tmp/lab/$_script" "$@" >"$tmp/out" 2>"$tmp/err" || rc=$?
}

# wait_for FILE: up to ten seconds
wait_for()
{
	_i=0
	while [ ! -e "$1" ] && [ $_i -lt 100 ]; do
		sleep 0.1
		_i=$((_i + 1))
	done
	[ -e "$1" ]
}

# leftovers: what is there beside the finished things
leftovers()
{
	find "$CACHE" -mindepth 1 \( -name lock -o -name log \) -prune -o \
		-mindepth 1 ! -path "$CACHE/tmp" -print | grep -v "^$thing" || :
}

# --- making things ---

script make_thing <<'END'
make()
{
	echo made >>"$CACHE/log/count"
	echo content >file
}
cache_put thing-1 make
echo "$CACHE/thing-1"
END

try make_thing
is "a thing is made" "$rc $(cat "$tmp/out") $(cat "$thing/file")" "0 $thing content"
try make_thing
is "the second time it is only named" "$rc $(cat "$tmp/out") $(wc -l <"$CACHE/log/count")" "0 $thing 1"
is "nothing else is left" "$(leftovers)" ""
is "no word without a terminal" "$(cat "$tmp/err")" ""

rm -rf "$CACHE"
for i in 1 2 3 4; do
	"$tmp/lab/make_thing" >"$tmp/out.$i" 2>&1 &
done
wait
is "four runs at once make it once" "$(wc -l <"$CACHE/log/count")" 1
is "and all get it" "$(cat "$tmp"/out.[1-4] | sort -u)" "$thing"

# --- damage ---

script make_sealed <<'END'
make()
{
	mkdir -p a/b
	echo content >a/b/file
	ln -s nowhere link
}
cache_put bios-1 make
END
rm -rf "$CACHE"
try make_sealed
sealed=$CACHE/bios-1
try make_sealed
is "a thing that is whole is taken" "$rc$(cat "$tmp/err")" "0"
for what in "a/b/file: >$sealed/a/b/file" "a/b/file: rm -r $sealed/a" "a/more: touch $sealed/a/more"; do
	sh -c "${what#*: }"
	try make_sealed
	is "one that is damaged is made anew (${what#*: })" "$rc $(cat "$tmp/err") $(cat "$sealed/a/b/file")" \
		"0 lab: the cache's bios-1 is damaged (${what%%: *}): making it anew content"
done
rm "$sealed/.seal" "$sealed/a/b/file"
try make_sealed
is "what an older lab has made is as it is" "$rc$(cat "$tmp/err")$(find "$sealed" -name file)" 0
is "nothing else is left of that" "$(find "$CACHE/tmp" -mindepth 1)" ""

# --- failure ---

script fail <<'END'
make()
{
	echo half >file
	logged 10 "a step" sh -c 'for i in 1 2 3; do echo "words of wisdom $i"; done; exit 3'
	echo whole >file
}
cache_put thing-1 make
END
rm -rf "$CACHE"
try fail
is "a failing step fails the run" "$rc" 1
is "nothing is left of it" "$(leftovers)" ""
ok "its last words are shown" like "$tmp/err" '^words of wisdom 3$'
ok "with the path of the log" like "$tmp/err" "^lab: a step: failed, see $CACHE/log/thing-1.log\$"
try make_thing
is "a later run makes it" "$rc $(cat "$thing/file")" "0 content"

script slow <<'END'
make()
{
	logged 1 "a slow step" sleep "$NAP"
}
cache_put thing-1 make
END
rm -rf "$CACHE"
try slow
ok "a step that takes too long is stopped" like "$tmp/err" '^lab: a slow step: stopped after 1 seconds'
is "nothing is left of that" "$rc $(leftovers)" "1 "
nok "nor is the process" pgrep -f "sleep $NAP"

# --- interrupts ---

script outer <<'END'
capture value "$(dirname "$0")/inner"
echo "$value"
END
script inner <<'END'
make()
{
	echo half >file
	touch "$CACHE/log/started"
	logged 60 "a step" sh -c 'sleep "$NAP" & sleep "$NAP"'
	echo whole >file
}
cache_put thing-1 make
echo "$CACHE/thing-1"
END

# interrupt SIGNAL: start outer as from a terminal, wait until inner is at work,
# and send SIGNAL: INT to the whole process group, as a terminal does, the
# others to the one process
interrupt()
{
	rm -rf "$CACHE"
	python3 -c '
import os, signal, sys
os.setpgid(0, 0)
for sig in signal.SIGINT, signal.SIGHUP:
    signal.signal(sig, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])' "$tmp/lab/outer" >"$tmp/out" 2>"$tmp/err" &
	_pid=$!
	wait_for "$CACHE/log/started" || echo "# it did not start"
	case $1 in
	INT)	kill -INT "-$_pid" ;;
	*)	kill "-$1" "$_pid" ;;
	esac
	rc=0
	wait $_pid || rc=$?
}

for sig in INT:130 TERM:143 HUP:129; do
	interrupt ${sig%:*}
	is "SIG${sig%:*} ends a run at once" "$rc" ${sig#*:}
	is "SIG${sig%:*} leaves nothing" "$(leftovers)$(cat "$tmp/out")" ""
	nok "SIG${sig%:*} leaves no process" pgrep -f "sleep $NAP"
done

# A run that is killed cannot clean up, but the next one is not misled.
rm -rf "$CACHE"
"$tmp/lab/inner" >"$tmp/out" 2>"$tmp/err" &
pid=$!
wait_for "$CACHE/log/started" || echo "# it did not start"
kill -KILL $pid
wait $pid 2>/dev/null
i=0
while pgrep -f "sleep $NAP" >/dev/null && [ $i -lt 100 ]; do
	sleep 0.1
	i=$((i + 1))
done
nok "SIGKILL leaves no process that would go on in the next one's folder" pgrep -f "sleep $NAP"
try make_thing
is "after SIGKILL the thing is made anew" "$rc $(cat "$thing/file")" "0 content"

# --- bad input ---

CACHE="$tmp/with blank"
try make_thing
ok "a blank in the path is refused" like "$tmp/err" "^lab: CACHE='$CACHE': .*choose another"
CACHE=/proc/nowhere
try make_thing
ok "so is a folder that cannot be written" like "$tmp/err" '^lab: cannot write to the cache folder /proc/nowhere'
rc=0
env -u HOME -u XDG_CACHE_HOME -u CACHE "$tmp/lab/make_thing" >"$tmp/out" 2>"$tmp/err" || rc=$?
ok "without HOME the way out is named" like "$tmp/err" '^lab: HOME is not set: .*CACHE='
