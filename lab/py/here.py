# SPDX-License-Identifier: GPL-2.0-only
"""Run programs on this machine's own kernel, and leave what a run in the lab leaves."""

import contextlib
import os
import subprocess
import time

import host
import record
from common import call, die, folder, locked
from observer import Observer


def kernel_log():
    """Bounded: what the kernel says at the end of a log that grows meanwhile; None: not ours to read."""
    try:
        done = subprocess.run(["dmesg"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else None


def taint():
    # Without TAINT_CPU_OUT_OF_SPEC, see lab/guest/init.
    with open("/proc/sys/kernel/tainted") as file:
        return int(file.read()) & ~4


def note(text):
    """Into the kernel log, where that is allowed."""
    with contextlib.suppress(OSError), open("/dev/kmsg", "w") as log:
        log.write(f"lab: {text}\n")


def new_lines(before, after):
    """Only what the kernel has said since.  Its timestamps make lines unique."""
    start = after.index(before[-1]) + 1 if before and before[-1] in after else 0
    return after[start:]


class Log:
    """The kernel's log, cut where one program ends and the next begins."""

    HEAD = "lab: the kernel log from the start of the run on\n"
    NONE = "lab: no kernel log: it takes root to read it\n"

    def __init__(self, boot):
        self.boot = boot            # the file for what belongs to no program
        self.last = kernel_log()
        boot.write_text(self.HEAD if self.last is not None else self.NONE)

    def cut(self, path, name):
        """Write to path what the kernel has said while the program ran that has just ended."""
        now = kernel_log()
        if now is None or self.last is None:
            path.write_text(self.NONE)
            return
        lines, self.last = new_lines(self.last, now), now
        # What came after the end of the one before belongs to nobody; a user cannot tell.
        begin = next((n for n, line in enumerate(lines) if line.endswith(f"lab: begin {name}")), 0)
        with open(self.boot, "a") as file:
            file.writelines(f"{line}\n" for line in lines[:begin])
        path.write_text("".join(f"{line}\n" for line in ["lab: the kernel log while it ran", *lines[begin:]]))


def run_job(job, path, tick):
    """Run a job, with what it prints and its markers in path/results.log."""
    before = taint()
    with open(path / "results.log", "w") as results:
        note(f"begin {job.name}")
        print(f"@lab begin {job.name}", file=results, flush=True)
        status = call([job.program.absolute(), *job.arguments], job.seconds, path / "results.log",
                      cwd=job.program.parent, env={**os.environ, **job.variables}, tick=tick)
        note(f"end {job.name}")
        results.seek(0, 2)
        # The shell's word for a death by a signal.
        print(f"\n@lab end {job.name} {status if status >= 0 else 128 - status}\n"
              f"@lab done {taint() & ~before}", file=results)


def run(out, jobs, observer=None, more=None):
    """Run jobs (of host.Job) one after the other; returns the record.Run.

    more is what else run.json shall say.  What a machine is in the lab is a program here.
    """
    observer = observer or Observer()
    for job in jobs:
        if not job.program.is_file():
            die(f"no program {job.program}: build it first ('make')")
    out = folder(out)
    host.check_folder(out)
    with locked(out / ".lock", wait=0) as mine:
        if not mine:
            die(f"another run writes to {out}: choose another folder with O=")
        host.clear(out)
        (out / "boot").mkdir()
        rec = {"planned": [job.name for job in jobs], "release": os.uname().release,
               "started": host.now(), "end": "interrupted", "why": "the run was interrupted",
               "machines": [{"folder": "boot", "boot": True, "end": "ok", "why": ""}], **(more or {})}
        start = time.monotonic()
        log = Log(out / "boot/console.log")
        try:
            observer.booted(rec["machines"][0])
            for number, job in enumerate(jobs):
                run_one(out, number, job, log, rec["machines"], observer)
            rec["end"], rec["why"] = "ok", ""
        finally:
            rec["seconds"] = round(time.monotonic() - start, 2)
            record.write(out, rec)
            for name in ("console.log", "results.log"):
                host.join(out, [m["folder"] for m in rec["machines"]], name)
    return record.Run(out)


def run_one(out, number, job, log, machines, observer):
    """One of the jobs, with its entry in machines from the start on."""
    path = out / host.job_folder(number, job.name)
    path.mkdir(parents=True)
    entry = {"folder": str(path.relative_to(out)), "programs": [job.name], "end": "died",
             "why": "the run was interrupted", "seconds": 0}
    machines.append(entry)
    observer.begins(entry)
    start = time.monotonic()
    try:
        run_job(job, path, observer.tick)
        entry["end"], entry["why"] = "ok", ""
    finally:
        entry["seconds"] = round(time.monotonic() - start, 2)
        log.cut(path / "console.log", job.name)
    observer.ended(entry)
