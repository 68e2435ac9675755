# SPDX-License-Identifier: GPL-2.0-only
"""Run programs on this machine's own kernel, and leave what a run in the lab leaves."""

import contextlib
import os
import subprocess
import time

import record
from common import call, die, folder, locked, say


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
    if before is None or after is None:
        return ["lab: no kernel log: it takes root to read it"]
    start = after.index(before[-1]) + 1 if before and before[-1] in after else 0
    return ["lab: the kernel log from the start of the run on", *after[start:]]


def run(out, jobs):
    """Run jobs (of host.Job) one after the other; returns the record.Run."""
    for job in jobs:
        if not job.program.is_file():
            die(f"no program {job.program}: build it first ('make')")
    out = folder(out)
    with locked(out / ".lock", wait=0) as mine:
        if not mine:
            die(f"another run writes to {out}: choose another folder with O=")
        for name in ("run.json", "console.log", "results.log"):
            (out / name).unlink(missing_ok=True)
        rec = {"planned": [job.name for job in jobs], "end": "ok", "release": os.uname().release,
               "machines": [{"folder": ".", "programs": [job.name for job in jobs], "end": "ok"}]}
        start = time.monotonic()
        before, taint_before = kernel_log(), taint()
        with open(out / "results.log", "w") as results:
            for job in jobs:
                say(f"running {job.name}")
                note(f"begin {job.name}")
                print(f"@lab begin {job.name}", file=results, flush=True)
                status = call([job.program.absolute(), *job.arguments], job.seconds, out / "results.log",
                              cwd=job.program.parent, env={**os.environ, **job.variables})
                note(f"end {job.name}")
                results.seek(0, 2)
                # The shell's word for a death by a signal.
                print(f"\n@lab end {job.name} {status if status >= 0 else 128 - status}",
                      file=results, flush=True)
            print(f"@lab done {taint() & ~taint_before}", file=results)
        (out / "console.log").write_text("\n".join(new_lines(before, kernel_log())) + "\n")
        rec["seconds"] = round(time.monotonic() - start, 2)
        record.write(out, rec)
    return record.Run(out)
