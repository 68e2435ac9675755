#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Programs of the suite in surroundings that they were not written for: with next to no
# files, memory, processes or permissions, without /dev/kvm or /tmp, under a filter of system
# calls, killed at random moments, on a machine that is slow.  They fail or skip there and say
# why, do not hang, do not pass where they were kept from looking, and leave nothing behind.
#
# tests/hostile/hostile.c tells what the words are, tests/hostile/judge what is judged.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

plan 97
scratch
built=$(lab/selftests/build "$(lab/kernel/fetch library "$newest")") || exit 1
gcc -O2 -static -Wall -Wextra -Werror -o "$tmp/hostile" tests/hostile/hostile.c || exit 1

# verdict NAME: what the judge says of it
verdict()
{
	grep -F " $1" "$tmp/verdicts"
	grep -qF "ok $1 (" "$tmp/verdicts" && ! grep -qF "not ok $1:" "$tmp/verdicts"
}

# run CPU NAME OPTION...: the programs of $tmp/list, one after the other
run()
{
	_on=$1
	_out=$tmp/$1-$2
	shift 2
	lab/run -k "$newest" -c "$_on" -o "$_out" -l "$tmp/list" -t 1500 --keep 60 "$@" >"$tmp/run.err" 2>&1
	tests/hostile/judge "$_out" >"$tmp/verdicts"
}

# cells CPU PROGRAM ARGUMENTS WORDS...: the program, with arguments, in each of these surroundings
cells()
{
	_on=$1
	_file=$2
	_program=${2##*/}
	_arguments=$3
	shift 3
	for _words in '' "$@"; do
		# shellcheck disable=SC2086 # a list
		echo "$_program$(printf '+%s' $_words) 300 $tmp/hostile $_words -- /lab/files/$_program $_arguments"
	done | sed 's/^\([^ ]*\)+ /\1 /' >"$tmp/list"
	run "$_on" "$_program" -f "$built/$_file"
	for _words in '' "$@"; do
		# shellcheck disable=SC2086 # a list
		_name=$_program$(printf '+%s' $_words)
		ok "$_program${_words:+: $_words}" verdict "${_name%+}"
	done
}

# --- what leaves something behind is noticed ---

# bad NAME REGEX [WORD...]: a script, from stdin, of which the judge says that
bad()
{
	{
		echo '#!/bin/sh'
		cat
	} >"$tmp/$1.sh"
	chmod +x "$tmp/$1.sh"
	_bad=$1
	_regex=$2
	shift 2
	echo "$_bad 60 $tmp/hostile $* -- /lab/files/$_bad.sh" >>"$tmp/list"
	echo "$_bad $_regex" >>"$tmp/bad"
	files="${files:-} -f $tmp/$_bad.sh"
}

: >"$tmp/list"
bad process 'left: process [0-9]+ \(sleep, S\)' <<'END'
sleep 1000 &
END
bad stopped 'left: process [0-9]+ \([a-z.]+, T\)' <<'END'
sleep 1000 &
kill -STOP $!
END
bad file 'left: is /tmp/left ' <<'END'
echo >/tmp/left
END
bad sysctl 'left: is /proc/sys/kernel/core_pattern nowhere;' <<'END'
echo nowhere >/proc/sys/kernel/core_pattern
END
bad instance 'left: is /sys/kernel/tracing/instances/mine ' <<'END'
mkdir /sys/kernel/tracing/instances/mine
END
bad parameter 'left: is /sys/module/kvm/parameters/ignore_msrs Y;' <<'END'
echo Y >/sys/module/kvm/parameters/ignore_msrs
END
bad hang 'hang: no end within 3 s' limit=3 <<'END'
while :; do :; done
END
bad passes 'x: it passes, and was refused arch_prctl' <<'END'
echo TAP version 13
echo 1..1
echo '#  RUN           x ...'
echo '# hostile: refused arch_prctl(0x1022)'
echo ok 1 x
END
bad mute 'x: a failure that does not say why' <<'END'
echo TAP version 13
echo 1..2
echo not ok 1 x
END
bad reason 'x: a reason that is not in lab/machines: too hot' <<'END'
echo TAP version 13
echo 1..1
echo ok 1 x \# SKIP too hot
END
bad surroundings 'no such surroundings: nofiles' nofiles=3 <<'END'
END
# shellcheck disable=SC2086 # a list
run spr bad $files
while read -r name regex; do
	ok "$name is noticed" like "$tmp/verdicts" "^not ok $name:.*$regex"
done <"$tmp/bad"

# --- KVM ---

cells spr kvm/x86_64/xcomp_lock_test "" nofile=6 nofile=9 as=3 pids=1 pids=3 memory=2 \
	"kvm=0600 user=1000" "memlock=0 user=1000" kvm=gone kvm=100 ns=pid ns=user tmp=ro \
	refuse=arch_prctl:EPERM refuse=arch_prctl:ENOSYS refuse=pidfd_open:EPERM "kill=8" "kill-any=8"
cells spr kvm/x86_64/xfd_test "" as=3 pids=3 memory=2 refuse=timer_create:EPERM
cells spr kvm/x86_64/xstate_vmm_test "-f xstate_many" nofile=100 as=30 memory=20
cells spr kvm/x86_64/xstate_fpstate_test "" refuse=perf_event_open:EPERM refuse=perf_event_open:ENOSYS \
	user=1000 kill=6
cells spr kvm/x86_64/emulator_forced_test "-v guest_amx_cet" refuse=userfaultfd:EPERM \
	refuse=userfaultfd:ENOSYS pids=3 kill=8 "kill-any=8 seed=3"
cells spr kvm/x86_64/xstate_race_test "" pids=3 kill=3 kill-any=3

# --- the host's own tasks ---

cells spr x86/xcomp_perm_64 "" nofile=4 as=2 pids=1 pids=3 refuse=arch_prctl:EPERM refuse=arch_prctl:ENOSYS ns=user
cells spr x86/xcomp_perm_32 "" nofile=4 refuse=arch_prctl:EPERM
cells spr x86/xstate_regs_64 "" tmp=full tmp=ro user=1000 refuse=ptrace:EPERM refuse=ptrace:ENOSYS kill=8 kill-any=8
cells spr x86/xstate_frame_64 "" refuse=userfaultfd:EPERM refuse=userfaultfd:ENOSYS memory=2
cells spr x86/xstate_ptrace_64 "" refuse=ptrace:EPERM refuse=ptrace:ENOSYS ns=pid kill-any=4
cells spr x86/xstate_shstk_64 "" refuse=arch_prctl:EPERM refuse=clone3:ENOSYS kill-any=4
cells spr x86/xstate_proc_64 "" ns=pid user=1000
cells spr-smp x86/xstate_hotplug_64 "" ns=user user=1000 kill=6 kill-any=6

# --- time ---

# Those that take longest.  An eighth of the speed of a host that is some 50 times slower than a real one.
for program in kvm/x86_64/xstate_perm_test kvm/x86_64/xstate_msrs_test kvm/x86_64/nested_cet_test \
	kvm/x86_64/emulator_forced_test x86/xstate_signal_64 x86/xstate_signal_32 x86/xstate_task_64 x86/xstate_frame_64; do
	echo "$program 300 $built/$program"
done >"$tmp/list"
ok "all of these run on a slow machine" \
	lab/run -k "$newest" -a "proc_mem.force_override=always tsc_early_khz=25000" -t 1500 -o "$tmp/slow" -l "$tmp/list"
ok "and pass" lab/report "$tmp/slow"
python3 -B -c '
import sys
from pathlib import Path
sys.path.insert(0, "lab/py")
import record
for name, seconds in record.Run(Path(sys.argv[1])).seconds.items():
    # settings of kvm; what the runner has where there are none
    limit = 120 if name.startswith("kvm") else 45
    print(f"{name} {seconds:.1f} {limit}", "" if seconds < limit else "too long")
' "$tmp/slow" >"$tmp/seconds"
sed 's/^/# /' "$tmp/seconds"
is "within the limit of kselftest" "$(grep -c . "$tmp/seconds")$(grep 'too long' "$tmp/seconds")" 8
