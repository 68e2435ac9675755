# SPDX-License-Identifier: GPL-2.0-only
"""What lab/mutate, lab/matrix and lab/history share: many runs, each a job of GNU parallel."""

import argparse
import contextlib
import io
import os
import shutil
import sys
import time

import host
import report
import suite
from common import LAB, TOP, call, die, env, folder, locked, read_json, say, warn
from run import Parser, number

LIMIT = 3600                    # seconds of wall time for a run of the suite
STATUSES = ("pass", "skip", "xfail", "fail", "missing")


def add_options(parser, jobs):
    """The options that all have."""
    parser.add_argument("--tests", default=env("TESTS"))
    parser.add_argument("--jobs", default=env("JOBS", str(jobs)))
    parser.add_argument("--sshlogin", default=env("SSHLOGIN"))
    parser.add_argument("--out", default=env("O", "out"))


def processors():
    return len(os.sched_getaffinity(0))


def new_parser(name, text):
    return Parser(prog=name, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def check_jobs(options):
    """JOBS= as a number."""
    try:
        options.jobs = number(options.jobs)
    except argparse.ArgumentTypeError as error:
        die(f"JOBS={error}")


@contextlib.contextmanager
def results(path):
    """The folder of results, which no other run may write to meanwhile."""
    out = folder(path)
    with locked(out / ".lock", wait=0) as mine:
        if not mine:
            die(f"another run writes to {out}: choose another folder with O=")
        yield out


def run_jobs(options, out, command, items, seconds, carry):
    """Call "COMMAND one OUT ITEM" for each of items; each may take so many seconds.

    With SSHLOGIN= that may be on other machines; carry are the arguments of parallel
    that take files there and back.
    """
    todo = out / "todo"
    todo.write_text("".join(f"{item}\n" for item in items))
    words = ["parallel", "--will-cite", "-j", options.jobs, "--termseq", "TERM,8000,KILL,500"]
    if options.sshlogin:
        words += ["--sshlogin", options.sshlogin, "--workdir", TOP, *carry]
    start = time.monotonic()
    sys.stdout.flush()
    try:
        status = call([*words, "-a", todo, LAB / command, "one", out, "{}"], seconds * len(items))
    finally:
        todo.unlink(missing_ok=True)
    # Jobs that ended badly have said so: parallel counts them, up to 101.
    if not 0 <= status <= 101:
        die(f"parallel ended with status {status}: see above, and call again to go on")
    return time.monotonic() - start


def read_row(out, name):
    """OUT/NAME.json, of one of them: {"key", "tests", "seconds", ...}; None if it is nothing of the kind."""
    row = read_json(out / f"{name}.json")
    try:
        said = [row["key"], row.get("end", ""), *row.get("problems", [])]
        for status, reason in row["tests"].values():
            said += [reason] if status in STATUSES else [None]
        return row if row["seconds"] >= 0 and all(isinstance(text, str) for text in said) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def run_rest(options, out, command, todo, total, what):
    """Those runs of the suite that are still to do, out of so many cells or kernels.

    Their jobs read OUT/setup.json, and each writes OUT/NAME/ and OUT/NAME.json.
    """
    if not todo:
        return
    say(f"{len(todo)} of {total} {what} to run, {options.jobs} at a time")
    carry = ["--basefile", out / "setup.json", "--return", f"{out}/{{}}.json", "--return", f"{out}/{{}}"]
    seconds = run_jobs(options, out, command, todo, 2 * LIMIT + 600, carry)
    warn(f"{seconds:.0f} s for {len(todo)} {what}")


def run_suite(out, name, setup, series, only=None, **options):
    """One of them, by the options of host.run(); returns what run_twice() does.

    only: the names of the programs to run, if not all.
    """
    shutil.rmtree(out / name, ignore_errors=True)
    jobs = suite.select(setup.tests, suite.build(series))
    jobs = [job for job in jobs if only is None or job.name in only]
    result = run_twice(name, host.Options(out=folder(out / name), jobs=jobs, limit=LIMIT,
                                          parallel=setup.parallel, **options))
    write_report(out / name)
    return result


def run_twice(name, options):
    """A run, repeated once if the emulator stood still or died or the time ran out.

    That is the emulator's fault until it happens twice.  Returns the run, and the CPU
    seconds of all of it.
    """
    cpu = 0
    for attempt in (1, 2):
        run = host.run(options)
        cpu += run.record.get("cpu_seconds", 0)
        if run.record.get("end") not in ("limit", "died") and all(m.end != "stall" for m in run.machines):
            break
        warn(f"{name}: {run.trouble()}; try {attempt} of 2")
    return run, cpu


def write_report(path):
    """PATH/report.ktap; returns the status of the report."""
    with open(path / "report.ktap", "w") as ktap:
        return report.write([path], ktap, io.StringIO())
