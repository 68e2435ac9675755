# SPDX-License-Identifier: GPL-2.0-only
"""The command lab/run: boot a kernel on the emulated host and run programs there."""

import argparse
import re
import shlex
import signal
import sys
from pathlib import Path

import guestfiles
import here
import host
from common import die, say

TEXT = """\
Boots KERNEL once and runs each program on a copy of the machine as it was then.
Writes to OUT: run.json (what ran and how it ended), boot/ and jobs/*/ with the
console.log (kernel), results.log (programs) and emulator.log of each machine, and
console.log and results.log of all of them together.  lab/report OUT judges it.

PROGRAM is any program for Linux on x86, with its shared libraries, or a script for the
shell of busybox, and has 120 seconds; so has the one behind "--", where arguments follow.
A line of LIST is NAME SECONDS FILE [ARGUMENT...], quoted as for a shell; SECONDS limits
the time that passes inside the host.

Exit status: 0 if the host came up and ran every program without a kernel warning
(with --fast, as many as were to run), each as --expect and -g want it; 1 otherwise.
"""

# Of a program that its line, or the command line, gives no limit.
SECONDS = 120
# What the kernel logs of a program that dies of a fault of its own.
FAULT = re.compile(r"\[\d+\]:? (segfault at|general protection fault)")
FAULTS = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGTRAP", "SIGFPE")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def number(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


def status(text):
    """The exit status, as a shell has it, that a number or the name of a signal means."""
    if text.isdecimal() and int(text) < 256:
        return int(text)
    try:
        return 128 + signal.Signals["SIG" + text.upper().removeprefix("SIG")]
    except KeyError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither an exit status nor a signal: 0, 77, SEGV") from None


def variable(text):
    name, equal, value = text.partition("=")
    if not equal or not VARIABLE.fullmatch(name):
        raise argparse.ArgumentTypeError(f"'{text}' is no NAME=VALUE")
    return name, value


def place(text):
    if not text.startswith("/") or text.strip("/") == "" or ".." in text.split("/") or "\n" in text:
        raise argparse.ArgumentTypeError(f"'{text}' is no path in the machine: it begins with /, and names a file or folder")
    return text


class Parser(argparse.ArgumentParser):
    def error(self, message):
        die(f"{message}; {self.prog} -h lists the options")


def parser():
    p = Parser(prog="lab/run", usage="lab/run [OPTION...] [PROGRAM...] [-- PROGRAM ARGUMENT...]",
               description=TEXT, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", metavar="KERNEL", default="newest",
                   help="a Debian version series such as 7.3, an exact version such as 6.18.5, a folder as "
                        "lab/kernel/fetch and lab/kernel/build print it, a bzImage or vmlinux, or faults")
    p.add_argument("-m", metavar="MODULES", default="", help="folder with the modules of a bzImage or vmlinux")
    p.add_argument("-c", metavar="CPU", default="spr", help="a CPU of lab/machines (default: spr)")
    p.add_argument("-a", metavar="APPEND", default="", help="more kernel command line")
    p.add_argument("-p", metavar="PARAMS", default="", help="module parameters, MODULE.NAME=VALUE separated by blanks")
    p.add_argument("-M", metavar="MIB", type=number, default=1024,
                   help=f"memory of the host, 256 to {host.BOCHS_MEMORY} (default: 1024)")
    p.add_argument("-t", metavar="SECONDS", type=number, default=900, help="limit of wall time for all of it (default: 900)")
    p.add_argument("-o", metavar="OUT", default="out/lab", help="folder for the results (default: out/lab)")
    p.add_argument("-f", metavar="FILE", action="append", default=[], help="one more file for the programs, put into /lab/files")
    p.add_argument("-u", metavar="DIR|TAR", action="append", default=[],
                   help="unpack this folder or tar into / of the machine")
    p.add_argument("-g", metavar="PATH", type=place, action="append", default=[],
                   help="bring this file or folder of the machine back when its programs have ended, to OUT/jobs/*/files "
                        f"(at most {guestfiles.GET_LIMIT >> 20} MiB for each machine, compressed)")
    p.add_argument("-e", metavar="NAME=VALUE", type=variable, action="append", default=[],
                   help="a variable in the environment of the programs")
    p.add_argument("--expect", metavar="STATUS", type=status,
                   help="an exit status, or a signal such as SEGV, with which every program shall end (default: any will do)")
    p.add_argument("-l", metavar="LIST", help="programs to run, one a line")
    p.add_argument("-j", metavar="JOBS", type=number, default=0, help="programs at a time (default: one for each processor)")
    p.add_argument("--seed", metavar="N", type=number, default=1, help="what the machine draws at random follows from N (default: 1)")
    p.add_argument("--together", action="store_true", help="all programs in one machine, one after the other")
    p.add_argument("--fast", action="store_true", help="stop at the first program that fails")
    p.add_argument("--ordered", action="store_true", help="start programs in the order of the list, not the longest first")
    p.add_argument("--once", action="store_true", help="this kernel does not come back: keep nothing of it in the cache")
    p.add_argument("--keep", metavar="SECONDS", type=number, default=0,
                   help="leave the booted machine waiting so long for the next run of the same kernel and CPU; "
                        "take one that waits")
    p.add_argument("--stall", metavar="SECONDS", type=number, default=host.STALL,
                   help=f"how long a machine may use no CPU time (default: {host.STALL})")
    p.add_argument("--flood", metavar="BYTES", type=number, default=host.MAX_OUTPUT,
                   help=f"what a machine may write (default: {host.MAX_OUTPUT >> 20} MiB)")
    p.add_argument("--here", action="store_true", help="run on this machine's own kernel, without the lab: -l, -o, -e and --expect alone")
    p.add_argument("--stop", action="store_true", help="end all machines that wait, and do nothing else")
    p.add_argument("--no-pvh", action="store_true", help="enter the kernel as if it had no PVH entry")
    p.add_argument("--emulator", metavar="DIR", default="", help="folder with the emulator (default: lab/emulator/build)")
    p.add_argument("--debug", action="store_true",
                   help="an emulator with symbols, as gdb(1) wants it; slower, and built when first asked for")
    p.add_argument("--log", metavar="LEVEL", default="", choices=["", *host.LOG_LEVELS],
                   help=f"what the emulator tells in emulator.log: {', '.join(host.LOG_LEVELS)} (default: panics alone)")
    p.add_argument("program", metavar="PROGRAM", nargs="*", help="a program to run")
    return p


def read_list(path, files, variables):
    jobs = []
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        die(f"cannot read the list {path}: {getattr(error, 'strerror', error)}")
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            words = shlex.split(line)
        except ValueError as error:
            die(f"{path}: '{line}': {error}: a line is quoted as for a shell")
        if len(words) < 3 or not words[1].isdecimal() or int(words[1]) == 0:
            die(f"{path}: '{line}': a line is NAME SECONDS FILE [ARGUMENT...], SECONDS a number above 0")
        jobs.append(host.Job(words[0], int(words[1]), Path(words[2]), words[3:], files, variables))
    return jobs


def find_jobs(a, command):
    """Of the list, of the command line, and the one behind "--"."""
    files, variables = [Path(f) for f in a.f], dict(a.e)
    jobs = read_list(a.l, files, variables) if a.l else []
    for path, *arguments in [*([p] for p in a.program), *([command] if command else [])]:
        name = re.sub(r"\s", "_", Path(path).name)
        jobs.append(host.Job(name, SECONDS, Path(path), arguments, files, variables))
    return jobs


def unmet(result, jobs, expect):
    """The first thing that is not as --expect and -g want it, in a line, or ""."""
    for machine in result.record.get("machines", []):
        if machine.get("lost"):
            return f"{machine['lost']} (of {', '.join(machine['programs'])})"
    limits = {job.name: job.seconds for job in jobs}
    for program in result.programs if expect is not None else []:
        # The end of a program that takes too long is a signal like any other.
        if result.seconds.get(program.name, 0) >= limits.get(program.marker, 0):
            return f"it ran into its limit of {limits.get(program.marker)} s (in {program.name})"
        if program.exit_code != expect:
            return f"it ended with {in_words(program.exit_code)}, not with {in_words(expect)} (in {program.name})"
    return ""


def in_words(code):
    """An exit status of the shell's."""
    if code is not None and 128 < code < 128 + signal.NSIG:
        try:
            return f"status {code} ({signal.Signals(code - 128).name})"
        except ValueError:
            pass
    return f"status {code}"


def main(arguments):
    at = arguments.index("--") if "--" in arguments else len(arguments)
    a, command = parser().parse_args(arguments[:at]), arguments[at + 1:]
    if a.stop:
        host.stop_warm()
        return 0
    jobs = find_jobs(a, command)
    if a.here:
        if a.u or a.g:
            die("-u and -g are for the machines of the lab: leave them out with --here")
        result = here.run(Path(a.o), jobs)
        return tell(result, a.expect is not None and unmet(result, jobs, a.expect))
    result = host.run(host.Options(
        out=Path(a.o), jobs=jobs, kernel=a.k, modules=a.m, cpu=a.c, append=a.a, params=a.p, memory=a.M,
        limit=a.t, parallel=a.j, ordered=a.ordered, fast=a.fast, together=a.together, once=a.once,
        seed=a.seed, keep=a.keep, stall=a.stall, flood=a.flood, pvh=not a.no_pvh, emulator=a.emulator,
        debug=a.debug, log=a.log, unpack=[entry for u in a.u for entry in guestfiles.unpack(u)],
        get=a.g, expect=a.expect))
    # Of a program that shall die like that, it is no trouble that the kernel says so.
    faults = a.expect is not None and any(a.expect == 128 + signal.Signals[name] for name in FAULTS)
    return tell(result, result.trouble(FAULT if faults else None) or unmet(result, jobs, a.expect))


def tell(result, trouble):
    if trouble:
        print(f"lab: {trouble}; see {result.folder}/console.log and results.log", file=sys.stderr)
        return 1
    if "seconds" in result.record:
        say(f"done in {result.record['seconds']:.0f} s")
    return 0
