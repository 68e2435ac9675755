# SPDX-License-Identifier: GPL-2.0-only
"""The command lab/soak: boot again and again, and show that every boot ends the same way.

Takes from the environment:

	BOOTS=N		how often (default: 100)
	JOBS=N		how many at once (default: one for each processor)
	KERNEL= CPU= O=	as in lab/kselftest

A boot draws other random numbers than the one before it, and its programs run one after
the other in one machine, so that what one leaves behind meets the next.  Prints one line
for each way in which a boot ended, with its number; the logs of the boots that ended
otherwise than the first stay under OUT/soak/.
"""

import collections
import os
import shutil
import subprocess
import time
from pathlib import Path

import record
import suite
from common import LAB, die, folder, say, stop, warn

PROGRAMS = ("kvm/amx_test", "kvm/msrs_test", "x86/amx_64")


def ending(out):
    """One line that is the same for boots that ended the same way."""
    run = record.Run(out)
    parts = [run.trouble() or "ok"]
    parts += [f"{p.name} {p.exit_code}" for p in run.programs]
    return "; ".join(parts)


class Soak:
    def __init__(self, boots, jobs, kernel, cpu, out):
        self.boots, self.jobs, self.kernel, self.cpu, self.out = boots, jobs, kernel, cpu, out
        self.running, self.ends = {}, {}
        self.list = out / "list"

    def start(self, number):
        command = [LAB / "run", "-k", self.kernel, "-c", self.cpu, "-l", self.list, "-t", "300", "-j", "1",
                   "--together", "--seed", str(number), "-o", self.out / str(number)]
        self.running[number] = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)

    def reap(self):
        for number, child in list(self.running.items()):
            if child.poll() is None:
                continue
            del self.running[number]
            self.ends[number] = ending(self.out / str(number))
            if number != 1 and self.ends[number] == self.ends[1]:
                shutil.rmtree(self.out / str(number))

    def go(self):
        """One boot first: it builds what is missing."""
        waiting = list(range(1, self.boots + 1))
        told = 0
        try:
            while waiting or self.running:
                while waiting and len(self.running) < (self.jobs if self.ends else 1):
                    self.start(waiting.pop(0))
                time.sleep(0.2)
                self.reap()
                if len(self.ends) >= told + 10:
                    told = len(self.ends)
                    say(f"{told} of {self.boots} boots")
        finally:
            for child in self.running.values():
                stop(child)


def main(_):
    try:
        boots, jobs = int(os.environ.get("BOOTS") or 100), int(os.environ.get("JOBS") or os.cpu_count())
    except ValueError:
        boots = jobs = 0
    if min(boots, jobs) < 1:
        die("BOOTS= and JOBS= are numbers above 0")
    suite.packages("fetch", "build", "lab")
    built = suite.build()
    out = Path(os.environ.get("O") or "out") / "soak"
    shutil.rmtree(out, ignore_errors=True)
    out = folder(out)
    soak = Soak(boots, jobs, os.environ.get("KERNEL") or "newest", os.environ.get("CPU") or "spr", out)
    soak.list.write_text("".join(f"{p} 120 {built}/upstream/{p}\n" for p in PROGRAMS))
    start = time.monotonic()
    soak.go()
    counts = collections.Counter(soak.ends.values())
    lines = [f"{count:7} {end}" for end, count in counts.most_common()]
    (out / "summary").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    warn(f"{boots} boots in {time.monotonic() - start:.0f} s")
    if len(counts) != 1 or not soak.ends[1].startswith("ok;"):
        die(f"not all boots ended well in the same way: the logs are in {out}")
    return 0
