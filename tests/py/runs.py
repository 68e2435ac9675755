# SPDX-License-Identifier: GPL-2.0-only
"""Runs that never were: what lab/run would have left of them, for tests of the report."""

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
if str(TOP / "lab/py") not in sys.path:
    sys.path.insert(0, str(TOP / "lab/py"))
import record

RELEASE = "7.3.4+deb13-cloud-amd64"


class Machine:
    """One machine; what it prints is kept until the run is written."""

    def __init__(self, folder, names=(), boot=False):
        self.entry = {"folder": folder, "end": "ok", "why": ""}
        self.entry |= {"boot": True} if boot else {"programs": list(names)}
        self.results, self.console, self.time = b"", b"", 1.0

    def prints(self, text):
        self.results += text if isinstance(text, bytes) else text.encode()
        return self

    def kernel(self, *lines):
        for line in lines:
            self.time += 0.1
            self.console += f"[{self.time:12.6f}] {line}\r\n".encode()
        return self

    def begins(self, name):
        self.kernel(f"lab: begin {name}")
        return self.prints(f"@lab begin {name}\n")

    def ends(self, name, code=0):
        self.prints(f"\n@lab end {name} {code}\n")
        return self.kernel(f"lab: end {name}")

    def runs(self, name, output="", code=0, kernel=()):
        return self.begins(name).prints(output).kernel(*kernel).ends(name, code)

    def done(self, taint=0):
        return self.prints(f"@lab done {taint}\n")

    def end(self, kind, why):
        self.entry |= {"end": kind, "why": why}
        return self


class Run:
    """A run in a folder of its own, with a boot that went well."""

    def __init__(self, folder, release=RELEASE):
        self.folder = Path(folder)
        self.boot = Machine("boot", boot=True).kernel(
            f"Linux version {release} (builder)", "x86/fpu: Supporting XSAVE feature 0x001")
        self.jobs = []

    def job(self, *names):
        """A machine for these programs."""
        self.jobs.append(Machine(f"jobs/{len(self.jobs):03}-{names[0].replace('/', '_')}", names))
        return self.jobs[-1]

    def program(self, name, output="", code=0, kernel=(), taint=0):
        """A machine with one program that ended."""
        return self.job(name).runs(name, output, code, kernel).done(taint)

    def write(self, **more):
        machines = [self.boot, *self.jobs]
        for machine in machines:
            path = self.folder / machine.entry["folder"]
            path.mkdir(parents=True)
            (path / "results.log").write_bytes(machine.results)
            (path / "console.log").write_bytes(machine.console)
        planned = [name for machine in self.jobs for name in machine.entry["programs"]]
        record.write(self.folder, {"planned": planned, "machines": [m.entry for m in machines],
                                   "end": "ok", "why": "", "seconds": 12.3} | more)
        return self.folder
