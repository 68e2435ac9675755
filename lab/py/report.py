# SPDX-License-Identifier: GPL-2.0-only
"""Print what programs and kernel wrote during a run, as KTAP.

use: lab/report OUT...

OUT is a folder that lab/kselftest or lab/run has written.  KTAP goes to stdout, a
summary of one screen to stderr.  The exit status is 0 only if there is no "not ok".
"""

import os
import sys
from collections import Counter
from pathlib import Path

import results
from common import die
from ktap import Result
from record import Run, numbered

MAX_DETAILS = 10
MAX_REASONS = 6
MAX_NAMES = 4
# What run.json says of machines that a signal has ended.
INTERRUPTED = "the run was interrupted"
SLOWEST = 3
# Lines of the harness that tell no more than the result does.
NOISE = ("Random seed:", "#  RUN ", "#            OK ", "#          FAIL ", "# Starting ",
         "# Totals: ", "# PASSED: ", "# FAILED: ", "# to run ")


# --- KTAP ---

def head(count):
    """For so many top-level results."""
    return f"KTAP version 1\n1..{count}\n"


def program_text(number, program):
    result = Result(program.status, program.name, program.reason)
    return "".join(f"{line}\n" for line in [*program.ktap(), result.line(number)])


def extra_text(number, result):
    return "".join(f"{line}\n" for line in [*result.diagnostics, result.line(number)])


def texts(runs):
    """The report in pieces: its head, programs, then what is said of each run."""
    programs = [p for run in runs for p in run.programs]
    extras = [r for run in runs for r in run.extra_results()]
    found = [head(len(programs) + len(extras))]
    found += [program_text(n, p) for n, p in enumerate(programs, 1)]
    return found + [extra_text(n, r) for n, r in enumerate(extras, len(programs) + 1)]


class Stream:
    """The report of one run, written in the planned order while programs end in theirs.

    emit(text) is called with one piece after the other.  Those of one name, if there are
    any, have to end in the planned order.
    """

    def __init__(self, planned, emit):
        self.planned, self.emit = planned, emit
        self.ended = {}             # {marker: programs that have ended and wait}
        self.names = Counter()
        self.pieces = []
        self.put(head(len(planned) + 2))

    def put(self, text):
        self.pieces.append(text)
        self.emit(text)

    def add(self, programs):
        """Programs that have ended, as record.judge_machine() judges them."""
        for program in programs:
            self.ended.setdefault(program.marker, []).append(program)
        while len(self.pieces) <= len(self.planned):
            waiting = self.ended.get(self.planned[len(self.pieces) - 1])
            if not waiting:
                break
            program = waiting.pop(0)
            name = program.name
            program.name = numbered(name, self.names[name])
            self.names[name] += 1
            self.put(program_text(len(self.pieces), program))

    def finish(self, run):
        """The rest of it; False if what has been written is not what the whole run says."""
        final = texts([run])
        agrees = final[:len(self.pieces)] == self.pieces
        for text in final[len(self.pieces):]:
            self.put(text)
        return agrees


# --- the summary ---

def words(lines):
    """Those of what a program printed that say why, without what the harness adds."""
    return [line.removeprefix("# ") for line in lines if not results.is_head(line) and
            not line.startswith(NOISE) and not line.endswith(": Test failed")]


def diagnostics(result, count):
    """The first lines that say why a result is what it is, at most so many."""
    lines = words(result.diagnostics)
    return lines if len(lines) <= count else [*lines[:count], "..."] if count else []


def last_words(program, count):
    """What a program said last that did not end well, beside its errors."""
    lines = program.trailer or (program.results[-1].diagnostics if program.results else [])
    found = [line for line in words(lines) if line not in program.errors]
    return found[max(len(found) - count, 0):]


def failures(program, count=3):
    """[(what failed, lines that say why)] of a program."""
    found = [(f"{results.base(program.name)}: {r.name}", diagnostics(r, count)) for r in program.results
             if r.status == "fail"]
    if program.errors:
        found.append((f"{program.name}: " + "; ".join(program.errors[:count or 1]), last_words(program, min(count, 2))))
    return found


def is_unfinished(program):
    """Whether it fails for the end of the run alone, which kept it from beginning or from its own end."""
    end, why = program.machine_end
    return program.status == "fail" and not program.count("fail") and \
        (why == INTERRUPTED or end == "ok" and not program.began)


def all_failures(runs, programs, count):
    """Of everything; programs that did not come to their end with the run are told in one line."""
    missing = [p for p in programs if is_unfinished(p)]
    found = [f for p in programs if p not in missing for f in failures(p, count)]
    if missing:
        names = [p.name.rpartition("/")[2] for p in missing[:MAX_NAMES]]
        more = f" and {len(missing) - MAX_NAMES} more" if len(missing) > MAX_NAMES else ""
        found.append((f"interrupted, or never ran: {', '.join(names)}{more}", []))
    return found + [(r.name, [d.removeprefix("# ") for d in r.diagnostics[:3]])
                    for run in runs for r in run.extra_results() if r.status == "fail"]


def reasons(programs, status):
    """[(count, reason)] of results that skipped, or failed as expected, the most frequent first."""
    found = Counter(r.reason or "no reason given" for p in programs for r in p.results or [p]
                    if r.status == status)
    return [(count, reason) for reason, count in found.most_common()]


def cut(found):
    """No more of these than fit on the screen."""
    if len(found) <= MAX_REASONS + 1:
        return found
    rest = found[MAX_REASONS:]
    return [*found[:MAX_REASONS], (sum(count for count, _ in rest), f"for {len(rest)} other reasons")]


def about_machine(run):
    """Lines on kernel and CPU."""
    record, found = run.record, results.machine(run.programs)
    where = " on this machine" if record.get("host") else \
        f" on the emulated host, CPU={record['cpu']}" if record.get("cpu") else ""
    lines = [("kernel", f"{run.kernel or 'unknown'}{where}")]
    if found:
        lines.append(("CPU", found["model"] + ": " + ", ".join(
            name if there else f"no {name}" for name, there in found["features"].items())))
        supervisor = " ".join(found["supervisor_components"]) or "none"
        lines.append(("state", f"XCR0 {found['xcr0']}, supervisor components {supervisor}"))
    else:
        lines.append(("CPU", "unknown: no program that tells of it has run"))
    return lines


def slowest(run):
    """[(seconds, program)] of wall time, the slowest first."""
    known = results.entries(run)
    found = [(known[p.name]["seconds"], p.name.rpartition("/")[2]) for p in run.programs
             if "seconds" in known.get(p.name, {}) and len(known[p.name]["programs"]) == 1]
    return sorted(found, reverse=True)[:SLOWEST]


def shown(path):
    """A path as short as it can be typed here."""
    short = os.path.relpath(path)
    return str(path) if short.startswith("..") else short


def logs(run):
    folder = shown(run.folder)
    found = [name for name in ("report.ktap", "report.json", "report.xml") if (run.folder / name).exists()]
    return ", ".join([f"{folder}/jobs/*/{{results,console}}.log", *found])


def rerun(run):
    """The command that runs again what failed, and nothing else; "" where it does not know how."""
    if run.record.get("command") != "kselftest":
        return ""
    folder = shown(run.folder)
    return "make kselftest FAILED=1" + (f" O={folder}" if folder != "out" else "")


def summary(runs, brief=False):
    """The screen at the end, in lines; brief: failures have been told in full before."""
    programs = [p for run in runs for p in run.programs]
    extras = [r for run in runs for r in run.extra_results()]
    out = [""]

    def tell(word, text):
        out.append(f"{word:8} {text}")

    for run in runs:
        for word, text in about_machine(run):
            tell(word, text)
    for status in ("skip", "xfail"):
        for count, reason in cut(reasons(programs, status)):
            tell(status, f"{count:4} x {reason}")
    for run in runs:
        if slow := slowest(run):
            tell("slowest", ", ".join(f"{name} {seconds:.1f} s" for seconds, name in slow))
    found = all_failures(runs, programs, 0 if brief else 3)
    for name, lines in found[:MAX_DETAILS]:
        out.append(f"not ok: {name}")
        out += ["    " + line for line in lines]
    if len(found) > MAX_DETAILS:
        out.append(f"... and {len(found) - MAX_DETAILS} more")
    for run in runs:
        tell("logs", logs(run))
    is_bad = any(r.status == "fail" for r in [*programs, *extras])
    if is_bad:
        for command in filter(None, map(rerun, runs)):
            tell("again", command)
    return [*out, verdict(runs, programs, extras)]


def verdict(runs, programs, extras):
    """The last line."""
    failed = sum(p.status == "fail" for p in programs)
    bad = [f"{failed} of {len(programs)} programs"] if failed else []
    bad += [r.name for r in extras if r.status == "fail"]
    text = f"not ok: {', '.join(bad)}" if bad else f"all is well: {len(programs)} programs"
    seconds = [str(round(run.record["seconds"])) for run in runs if "seconds" in run.record]
    counts = {s: sum(p.count(s) for p in programs) for s in results.STATUSES}
    return (f"{text}; tests: " + ", ".join(f"{n} {s}" for s, n in counts.items()) +
            (f", {' + '.join(seconds)} s" if seconds else ""))


def status(runs):
    """The exit status."""
    return int(any(r.status == "fail" for run in runs for r in [*run.programs, *run.extra_results()]))


def write(folders, out=sys.stdout, err=sys.stderr):
    """Report the runs in folders; returns the exit status."""
    runs = [Run(f, f"{f.name}/" if len(folders) > 1 else "") for f in folders]
    print("".join(texts(runs)), end="", file=out, flush=True)
    print("\n".join(summary(runs)), file=err)
    return status(runs)


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        print(__doc__.split("\n\n", 1)[1].strip(), file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 1
    for name in arguments:
        if not Path(name).is_dir():
            die(f"{name} is no folder: give one that lab/run has written")
    return write([Path(name) for name in arguments])
