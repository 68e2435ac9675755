# SPDX-License-Identifier: GPL-2.0-only
"""Print what programs and kernel wrote during a run, as KTAP.

use: lab/report OUT...

OUT is a folder that lab/kselftest or lab/run has written.  KTAP goes to stdout, a
summary of one screen to stderr.  The exit status is 0 only if there is no "not ok".
"""

import sys
from pathlib import Path

from common import die
from ktap import Result
from record import Run

MAX_DETAILS = 10


def summary(runs, extras, results):
    programs = [p for run in runs for p in run.programs]
    width = max([len(p.name) for p in programs] + [24])
    out = ["", f"{'program':{width}} verdict  pass  fail  skip xfail"]
    skipped = {}
    for p in programs:
        out.append(f"{p.name:{width}} {p.status:7}" +
                   "".join(f"{p.count(s):6}" for s in ("pass", "fail", "skip", "xfail")))
        for r in p.results or [p]:
            if r.status in ("skip", "xfail"):
                key = (r.status, r.reason or "no reason given")
                skipped[key] = skipped.get(key, 0) + 1
    for (status, reason), count in sorted(skipped.items(), key=lambda item: -item[1])[:MAX_DETAILS]:
        out.append(f"  {count:4} x {status}: {reason}")
    details = []
    for p in programs:
        for r in p.results:
            if r.status == "fail":
                details.append((f"{p.name}: {r.name}", r.diagnostics[-3:]))
        if p.errors:
            last = p.trailer[-2:] or (p.results[-1].diagnostics[-2:] if p.results else [])
            details.append((f"{p.name}: " + "; ".join(p.errors[:3]), last))
    for r in extras:
        if r.status == "fail":
            details.append((r.name, r.diagnostics[:3]))
    for name, diagnostics in details[:MAX_DETAILS]:
        out.append(f"not ok: {name}")
        out += ["    " + d.removeprefix("# ") for d in diagnostics]
    if len(details) > MAX_DETAILS:
        out.append(f"... and {len(details) - MAX_DETAILS} more")
    total = {s: sum(p.count(s) for p in programs) for s in ("pass", "fail", "skip", "xfail")}
    failed = sum(r.status == "fail" for r in results)
    verdict = f"{failed} of {len(results)} top-level results are not ok" if failed else "all is well"
    seconds = [str(round(run.record["seconds"])) for run in runs if "seconds" in run.record]
    out.append(f"{verdict}: {len(programs)} programs, tests: " +
               ", ".join(f"{total[s]} {s}" for s in total) +
               (f", {' + '.join(seconds)} s" if seconds else ""))
    out.append("logs: " + " ".join(str(run.folder) for run in runs))
    return out


def write(folders, out=sys.stdout, err=sys.stderr):
    """Report the runs in folders; returns the exit status."""
    runs = [Run(f, f"{f.name}/" if len(folders) > 1 else "") for f in folders]
    extras = [r for run in runs for r in run.extra_results()]
    programs = [p for run in runs for p in run.programs]
    results = [Result(p.status, p.name, p.reason) for p in programs]

    print(f"KTAP version 1\n1..{len(results) + len(extras)}", file=out)
    number = 0
    for program, result in zip(programs, results):
        number += 1
        print("\n".join(program.ktap() + [result.line(number)]), file=out)
    for result in extras:
        number += 1
        print("\n".join(result.diagnostics + [result.line(number)]), file=out)
    out.flush()
    results += extras
    print("\n".join(summary(runs, extras, results)), file=err)
    return int(any(r.status == "fail" for r in results))


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        print(__doc__.split("\n\n", 1)[1].strip(), file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 1
    for name in arguments:
        if not Path(name).is_dir():
            die(f"{name} is no folder: give one that lab/run has written")
    return write([Path(name) for name in arguments])
