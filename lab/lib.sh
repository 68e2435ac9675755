# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# What the scripts of the lab share: messages, bounded commands and the cache.
# Sourced after "set -eu", never run.
#
# The cache holds finished folders only.  A folder is made under $CACHE/tmp
# while a lock is held and moves to its final name when it is whole, so that
# an interrupted run leaves nothing that a later one would take for finished.
# Names end in a hash of what the folder was made from.

# The root of this repository, for the script that sources this file.
# shellcheck disable=SC2034
TOP=$(cd "$(dirname "$0")" && until [ -e lab/lib.sh ] || [ "$PWD" = / ]; do cd ..; done && pwd)

lab_child=
lab_tmp=
lab_out=
lab_log=/dev/null

# What a script has to undo itself, run once on the way out; $_rc is the exit
# status to be.
AT_EXIT=:

say()
{
	if [ -t 2 ] || [ "${VERBOSE:-0}" = 1 ]; then
		printf 'lab: %s\n' "$*" >&2
	fi
}

warn()
{
	printf 'lab: %s\n' "$*" >&2
}

die()
{
	printf 'lab: %s\n' "$*" >&2
	exit 1
}

# need COMMAND PACKAGE
need()
{
	command -v "$1" >/dev/null 2>&1 ||
		die "$1 is missing: install the Debian package $2 (lab/kernel/packages installs all that is needed)"
}

# is_full FOLDER: less than 8 MiB left there
is_full()
{
	[ "$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }')" -lt 8192 ] 2>/dev/null
}

lab_exit()
{
	_rc=$?
	trap - EXIT
	trap '' INT TERM HUP
	# Whatever failed, that is why, until what was unfinished is removed.
	if [ $_rc != 0 ] && [ $_rc -lt 128 ] && is_full "$CACHE"; then
		warn "no space left in $CACHE: make some (5 GiB are needed), or choose another folder with CACHE="
	fi
	if [ -n "$lab_child" ]; then
		kill -TERM "$lab_child" 2>/dev/null || :
		wait "$lab_child" 2>/dev/null || :
	fi
	$AT_EXIT || :
	cd /
	[ -z "$lab_tmp" ] || rm -rf "$lab_tmp"
	[ -z "$lab_out" ] || rm -f "$lab_out"
	exit $_rc
}

trap lab_exit EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "${CACHE:-}" ]; then
	[ -n "${XDG_CACHE_HOME:-${HOME:-}}" ] ||
		die "HOME is not set: name a folder for the cache with CACHE=/some/folder"
	CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/xcomp-lab
fi
case $CACHE in
*[!A-Za-z0-9/._+,@~-]*)
	die "CACHE='$CACHE': kernel Makefiles take no blanks or special characters in paths, choose another folder" ;;
/*)	;;
*)	CACHE=$(pwd)/$CACHE ;;
esac
export CACHE
mkdir -p "$CACHE/lock" "$CACHE/log" "$CACHE/tmp" 2>/dev/null || :
[ -w "$CACHE/tmp" ] ||
	die "cannot write to the cache folder $CACHE: choose another one with CACHE=/some/folder"

# Messages that scripts look for, sorting that hashes depend on.
export LC_ALL=C

# The options of the make that runs a script are not meant for those it runs.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

# wait_for_child: the shell runs traps at once while it waits for a background
# command, but only after the end of a foreground one.
wait_for_child()
{
	_rc=0
	# The shell would report a death by a signal by itself.
	wait "$lab_child" 2>/dev/null || _rc=$?
	lab_child=
	return $_rc
}

# bounded SECONDS LOG COMMAND...
# timeout(1) puts the command into a process group of its own and passes
# signals on to all of it, so no process outlives the bound or an interrupt, nor
# the script itself: one that goes on would write where the next run begins anew.
bounded()
{
	_secs=$1
	_log=$2
	shift 2
	setpriv --pdeathsig TERM timeout -k 10 "$_secs" "$@" >>"$_log" 2>&1 9>&- &
	lab_child=$!
	wait_for_child
}

# logged SECONDS WHAT COMMAND...: a step of a build, inside cache_put.
logged()
{
	_secs=$1
	_what=$2
	shift 2
	say "$_what"
	_rc=0
	bounded "$_secs" "$lab_log" "$@" || _rc=$?
	[ $_rc != 0 ] || return 0
	tail -n 20 "$lab_log" >&2
	[ $_rc != 124 ] || die "$_what: stopped after $_secs seconds, see $lab_log"
	die "$_what: failed, see $lab_log"
}

# capture VARIABLE COMMAND...: VARIABLE=$(COMMAND...), open to interrupts.
# The command reports its own failures.
capture()
{
	_var=$1
	shift
	lab_out=$(mktemp "$CACHE/tmp/out.XXXXXX")
	"$@" >"$lab_out" 9>&- &
	lab_child=$!
	wait_for_child || exit $?
	eval "$_var=\$(cat \"\$lab_out\")"
	rm -f "$lab_out"
	lab_out=
}

# lab_lock NAME: hold the lock NAME until lab_unlock or the end of the script.
lab_lock()
{
	exec 9>"$CACHE/lock/$1"
	flock -n 9 && return 0
	say "another run holds $1, waiting for it"
	flock -w 3600 9 &
	lab_child=$!
	wait_for_child || die "$1: another run has held its lock for an hour"
}

lab_unlock()
{
	exec 9>&-
}

# Things that are made once, and stay as they are, are sealed: .seal lists their
# files with their sizes.  Sources are too many, and whoever builds of them notices.

# lab_files: those of the current folder, as .seal has them
lab_files()
{
	find . -type f ! -path ./.seal -printf '%s %P\n' | sort
}

# lab_whole NAME: $CACHE/NAME is there, and as it was made
lab_whole()
{
	[ -e "$CACHE/$1" ] || return 1
	[ ! -e "$CACHE/$1/.seal" ] || (cd "$CACHE/$1" && lab_files | cmp -s - .seal)
}

# lab_discard NAME: remove it, for it is damaged
lab_discard()
{
	warn "the cache's $1 is damaged ($(cd "$CACHE/$1" && lab_files | comm -3 - .seal |
		sed 's/^[[:blank:]]*[0-9]* //; q')): making it anew"
	rm -rf "$CACHE/tmp/$1"
	mv -T "$CACHE/$1" "$CACHE/tmp/$1"
}

# cache_put NAME COMMAND...
# Make $CACHE/NAME unless it is there.  COMMAND is a function that fills the
# current folder and dies when it cannot.  Call cache_put as a plain command:
# in a condition the shell would ignore "set -e" inside COMMAND.
cache_put()
{
	_name=$1
	shift
	! lab_whole "$_name" || return 0
	lab_lock "$_name"
	if ! lab_whole "$_name"; then
		[ ! -e "$CACHE/$_name" ] || lab_discard "$_name"
		lab_log=$CACHE/log/$_name.log
		: >"$lab_log"
		rm -rf "$CACHE/tmp/$_name"
		mkdir "$CACHE/tmp/$_name"
		lab_tmp=$CACHE/tmp/$_name
		lab_pwd=$(pwd)
		cd "$lab_tmp" || die "cannot enter $lab_tmp"
		"$@"
		case $_name in
		kernel-*|bios-*|qemu-*|bochs-up-*|bochs-smp-*|selftests-*|upstream-*|labkernel-*)
			lab_files >.seal ;;
		esac
		cd "$lab_pwd" || die "cannot return to $lab_pwd"
		# What has its name is on the disk, should the power go.
		sync -f "$lab_tmp"
		mv -T "$lab_tmp" "$CACHE/$_name"
		lab_tmp=
	fi
	lab_unlock
}

# hash_text: the first 16 digits of the SHA256 of stdin.
hash_text()
{
	sha256sum | cut -c 1-16
}

# hash_files FILE...: a hash of the files' contents.
hash_files()
{
	for _file; do
		sha256sum <"$_file"
	done | hash_text
}

# for_32_bits FILE...: those of the sources of programs in x86/ that are built for 32 bits as
# well: they ask which they are
for_32_bits()
{
	grep -lE '__(i386|x86_64)__' "$@" || :
}
