# SPDX-License-Identifier: GPL-2.0-only
"""The command lab/run: boot a kernel on the emulated host and run programs there."""

import argparse
import sys
from pathlib import Path

import here
import host
from common import die, say

TEXT = """\
Boots KERNEL once and runs each program on a copy of the machine as it was then.
Writes to OUT: run.json (what ran and how it ended), boot/ and jobs/*/ with the
console.log (kernel), results.log (programs) and emulator.log of each machine, and
console.log and results.log of all of them together.  lab/report OUT judges it.

A line of LIST is NAME SECONDS FILE [ARGUMENT...]; SECONDS limits the time that passes
inside the host.  PROGRAM is the same for one static program with a limit of 120.

Exit status: 0 if the host came up and ran every program without a kernel warning
(with --fast, as many as were to run); 1 otherwise.  What the programs returned is in
results.log.
"""


def number(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        die(f"{message}; {self.prog} -h lists the options")


def parser():
    p = Parser(prog="lab/run", description=TEXT, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", metavar="KERNEL", default="newest",
                   help="a Debian version series such as 7.3, an exact version such as 6.18.5, a folder as "
                        "lab/kernel/fetch and lab/kernel/build print it, or a bzImage or vmlinux")
    p.add_argument("-m", metavar="MODULES", default="", help="folder with the modules of a bzImage or vmlinux")
    p.add_argument("-c", metavar="CPU", default="spr", help="a CPU of lab/machines (default: spr)")
    p.add_argument("-a", metavar="APPEND", default="", help="more kernel command line")
    p.add_argument("-p", metavar="PARAMS", default="", help="module parameters, MODULE.NAME=VALUE separated by blanks")
    p.add_argument("-M", metavar="MIB", type=number, default=1024, help="memory of the host (default: 1024)")
    p.add_argument("-t", metavar="SECONDS", type=number, default=900, help="limit of wall time for all of it (default: 900)")
    p.add_argument("-o", metavar="OUT", default="out/lab", help="folder for the results (default: out/lab)")
    p.add_argument("-f", metavar="FILE", action="append", default=[], help="one more file for the programs, put into /lab/files")
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
    p.add_argument("--here", action="store_true", help="run on this machine's own kernel, without the lab: -l, -o alone")
    p.add_argument("--stop", action="store_true", help="end all machines that wait, and do nothing else")
    p.add_argument("--no-pvh", action="store_true", help="enter the kernel as if it had no PVH entry")
    p.add_argument("--emulator", metavar="DIR", default="", help="folder with the emulator (default: lab/emulator/build)")
    p.add_argument("program", metavar="PROGRAM", nargs="*")
    return p


def read_list(path, files):
    jobs = []
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        die(f"cannot read the list {path}: {error.strerror}")
    for line in lines:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 3 or not words[1].isdecimal() or int(words[1]) == 0:
            die(f"{path}: '{line}': a line is NAME SECONDS FILE [ARGUMENT...], SECONDS a number above 0")
        jobs.append(host.Job(words[0], int(words[1]), Path(words[2]), words[3:], files))
    return jobs


def main(arguments):
    a = parser().parse_args(arguments)
    if a.stop:
        host.stop_warm()
        return 0
    files = [Path(f) for f in a.f]
    jobs = read_list(a.l, files) if a.l else []
    jobs += [host.Job(Path(p).name, 120, Path(p), [], files) for p in a.program]
    if a.here:
        here.run(Path(a.o), jobs)
        return 0
    result = host.run(host.Options(
        out=Path(a.o), jobs=jobs, kernel=a.k, modules=a.m, cpu=a.c, append=a.a, params=a.p, memory=a.M,
        limit=a.t, parallel=a.j, ordered=a.ordered, fast=a.fast, together=a.together, once=a.once,
        seed=a.seed, keep=a.keep, stall=a.stall, flood=a.flood, pvh=not a.no_pvh, emulator=a.emulator))
    trouble = result.trouble()
    if trouble:
        print(f"lab: {trouble}; see {result.folder}/console.log", file=sys.stderr)
        return 1
    say(f"done in {result.record['seconds']:.0f} s")
    return 0
