# SPDX-License-Identifier: GPL-2.0-only
"""Run the suite on every released kernel that the archive has, and show between which
versions the answer of a row changed: what "make history" calls.

  lab/history [OPTION]...     run the kernels that have not been run, then write
                              OUT/history/history.md and history.json
  lab/history one OUT NAME    one job of that.  OUT holds setup.json; writes OUT/NAME/ and
                              what it means to OUT/NAME.json
  lab/history document OUT    write Documentation/history.md from what OUT/history holds

A row counts as different where its verdict differs; a program whose machine panicked,
hung or warned has a row "kernel" of its own, and the rows that it did not come to are
"missing".  lab/history-notes explains what is not ok.
"""

import fnmatch
import json
import re
import shutil
from collections import namedtuple
from dataclasses import asdict, dataclass, field
from pathlib import Path

import batch
import matrix
import suite
from batch import env
from common import LAB, TOP, LabError, die, read_json, script, warn, write_text
from machines import Machines

NOTES = LAB / "history-notes"
KINDS = {"regression": "Regressions", "alarm": "False alarms", "lab": "Faults of the lab"}
# What differs from boot to boot in a line of the kernel.
VOLATILE = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,16}\b|\+0x\S+|\bPID: \d+|\bCPU: \d+|#\d+|:\d+\b")
BAD = ("fail", "missing")
VERSION = r"\d+\.\d+[0-9.]*(?:-\d+)?"

Note = namedtuple("Note", "kind rows first last text")


# --- versions ---

def order(version):
    """A key to sort versions: "6.1.0-56" before "6.12.90"."""
    return [int(n) for n in re.findall(r"\d+", version)]


def series(version):
    return suite.SERIES.match(version).group(1)


def archive():
    """{version: package} of all kernels that can be had, oldest first."""
    lines = script("kernel/fetch", "versions").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def choose(words, versions):
    """The versions that KERNELS= means: a version, a series, or two of them, FIRST..LAST."""
    if not words:
        return list(versions)
    chosen = []
    for word in words:
        first, dots, last = word.partition("..")
        if not re.fullmatch(VERSION if not dots else rf"{VERSION}\.\.{VERSION}", word):
            die(f"KERNELS: '{word}' is neither a version such as 6.18.5, a series nor two with .. between them")
        if dots and order(first) > order(last):
            die(f"KERNELS: '{word}': the older one comes first")
        found = [v for v in versions if order(first) <= order(v) and
                 order(v)[:len(order(last))] <= order(last)] if dots else \
                [v for v in versions if v == word or v.startswith(word + ".")]
        if not found:
            die(f"KERNELS: the archive has no kernel '{word}': there are {' '.join(versions)}")
        chosen += found
    return [v for v in versions if v in chosen]


# --- one kernel ---

@dataclass
class Setup:
    """What the jobs of one folder of results share: OUT/setup.json."""
    tests: list
    cpu: str
    keys: dict                  # {version: of all that its run is made from}
    parallel: int = 1           # programs at a time
    rows: dict = field(default_factory=dict, init=False)

    @classmethod
    def read(cls, out):
        path = out / "setup.json"
        data = read_json(path)
        try:
            setup = cls(data["tests"], data["cpu"], data["keys"], data["parallel"])
        except (KeyError, TypeError):
            return die(f"{path} is missing or not of this lab: run 'make history' first")
        for version, key in setup.keys.items():
            row = batch.read_row(out, version)
            if row and row["key"] == key:
                setup.rows[version] = row
        return setup

    def write(self, out):
        data = asdict(self)
        del data["rows"]
        write_text(out / "setup.json", json.dumps(data, indent=1) + "\n")

    def todo(self):
        return [v for v in self.keys if v not in self.rows or self.rows[v]["end"]]


def results(run):
    """{"PROGRAM:ROW": [verdict, reason or first words of the kernel]}"""
    tests = matrix.results(run)
    for program in run.programs:
        kind, why = program.machine_end
        said = why if kind != "ok" else program.kernel[0] if program.kernel else ""
        if said:
            tests[f"{program.name}:kernel"] = ["fail", VOLATILE.sub("*", said).strip()]
        elif program.errors and not any(r.status == "fail" for r in program.results):
            tests[f"{program.name}:program"] = ["fail", program.errors[0]]
    for event in run.boot_events[:1]:
        tests["boot:kernel"] = ["fail", VOLATILE.sub("*", event.line).strip()]
    return tests


def write_row(out, version, row):
    write_text(out / f"{version}.json", json.dumps(row, indent=1, sort_keys=True) + "\n")


def one(out, version):
    setup = Setup.read(out)
    if version not in setup.keys:
        die(f"there is no kernel '{version}' in {out}/setup.json")
    row = {"key": setup.keys[version], "tests": {}, "end": "", "seconds": 0, "cpu": 0}
    (out / f"{version}.json").unlink(missing_ok=True)
    try:
        run, cpu = batch.run_suite(out, version, setup, series(version), kernel=version,
                                   cpu=setup.cpu, append=suite.APPEND)
        row.update(tests=results(run), seconds=round(run.record.get("seconds", 0)), cpu=round(cpu))
        if run.record.get("end", "ok") != "ok":
            row["end"] = run.record.get("why") or run.record["end"]
    except LabError as error:
        row["end"] = str(error)
    write_row(out, version, row)
    counts = matrix.count([v for v in row["tests"].values()])
    print(f"{version}: {counts['pass']} pass, {counts['fail']} not ok, {counts['skip']} skip, "
          f"{counts['xfail']} xfail" + (f"; {row['end']}" if row["end"] else "") +
          f" [{row['seconds']} s]", flush=True)
    return 0


# --- what changed between which versions ---

def read_notes(path=NOTES):
    """lab/history-notes: what is not ok on which kernels, and why."""
    notes = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        parts = re.split(r"\t+", line)
        if len(parts) != 5 or parts[0] not in KINDS:
            die(f"{path}:{number}: not KIND, ROWS, FIRST, LAST and TEXT with tabs between them: {line}")
        notes.append(Note(*parts))
    return notes


def explain(notes, name, window):
    """The note for a row that is not ok in a window, or None."""
    first, last = window[:2]
    for note in notes:
        if any(fnmatch.fnmatchcase(name, rows) for rows in note.rows.split()) and \
           order(note.first) <= order(first) and \
           order(last)[:len(order(note.last))] <= order(note.last):
            return note
    return None


def windows(history):
    """[(first, last, verdict, reason)] of a list of (version, verdict, reason).

    Where a skip or a known failure gives other reasons later, all of them are told.
    """
    found, reasons = [], []
    for version, verdict, reason in history:
        if not found or found[-1][2] != verdict:
            found.append((version, version, verdict, reason))
            reasons = [reason] if reason else []
            continue
        if reason and reason not in reasons and (verdict not in BAD or not reasons):
            reasons.append(reason)
        found[-1] = (found[-1][0], version, verdict, "; later ".join(reasons))
    return found


class History:
    """All rows over all versions that were run."""

    def __init__(self, rows, notes):
        self.versions = sorted(rows, key=order)
        self.rows, self.notes = rows, notes
        names = {name for row in rows.values() for name in row["tests"]}
        # A program that skipped as a whole stands for its rows.
        self.whole = {name for name in names if name.endswith(":")}
        # Rows that exist only where something went wrong are well elsewhere.
        self.names = sorted(names - self.whole)

    def verdict(self, version, name):
        tests = self.rows[version]["tests"]
        if name in tests:
            return tests[name]
        program = name.partition(":")[0]
        if program + ":" in tests:
            return tests[program + ":"]
        if name.endswith((":kernel", ":program")):
            return ["ok", ""]
        return ["missing", ""]

    def changes(self):
        """{windows: row names} of the rows that are not the same, or not well, everywhere."""
        groups = {}
        for name in self.names:
            found = windows([(v, *self.verdict(v, name)) for v in self.versions])
            if len(found) > 1 or found[0][2] in BAD:
                groups.setdefault(tuple(found), []).append(name)
        return groups

    def bad(self):
        """[(name, window, note or None)] of all that is not ok."""
        return [(name, window, explain(self.notes, name, window)) for found, names in self.changes().items()
                for window in found if window[2] in BAD for name in names]


    def unused(self):
        """[(note, pattern)] of patterns for rows that ran, in a version of the note, and are well."""
        used = [(note, name) for name, _, note in self.bad() if note]
        return [(note, rows) for note in self.notes if note.first in self.versions
                for rows in note.rows.split()
                if any(fnmatch.fnmatchcase(name, rows) for name in self.names) and
                not any(n == note and fnmatch.fnmatchcase(name, rows) for n, name in used)]


def span(window):
    first, last, verdict, reason = window
    where = first if first == last else f"{first} to {last}"
    word = {"fail": "not ok", "pass": "ok"}.get(verdict, verdict)
    return f"{where}: {word}" + (f" ({reason})" if reason and verdict not in ("pass", "ok") else "")


def short(names, most=6):
    """The first few row names, and how many more there are."""
    told = [f"`{name}`" for name in names[:most]]
    return ", ".join(told) + (f" and {len(names) - most} more" if len(names) > most else "")


def bad_lines(kind, entries):
    """A section of the regressions, false alarms ... that notes explain."""
    lines = []
    for note in dict.fromkeys(note for _, _, note in entries if note.kind == kind):
        mine = [(name, window) for name, window, n in entries if n == note]
        ours = sorted({name for name, _ in mine if not name.startswith("upstream/")})
        theirs = sorted({name for name, _ in mine if name.startswith("upstream/")})
        spans = sorted({(w[0], w[1]) for _, w in mine}, key=lambda s: order(s[0]))
        # A row that came later has a window within that of the others.
        spans = [s for s in spans if not any(o != s and order(o[0]) <= order(s[0]) and order(s[1]) <= order(o[1])
                                             for o in spans)]
        lines += [f"### {'; '.join(a if a == b else f'{a} to {b}' for a, b in spans)}", "", note.text, "",
                  f"* this suite: {short(ours) or 'does not notice it'}",
                  f"* upstream's selftests: {short(theirs) or 'do not notice it'}", ""]
    return lines


def document(setup, history):
    """history.md"""
    versions, entries = history.versions, history.bad()
    unexplained = [(name, window) for name, window, note in entries if note is None]
    explained = [entry for entry in entries if entry[2]]
    totals = {v: matrix.count(history.rows[v]["tests"].values()) for v in versions}
    lines = ["# What released kernels say", "",
             "Written by `make history`: the suite, and upstream's selftests beside it, on each of",
             f"{len(versions)} kernels of Debian's archive, CPU {setup.cpu}, each program in a machine of its own.",
             "A row is told where its verdict changes from one release to the next.  6.1.0-N is",
             "Debian's N-th build of the 6.1 series.", ""]
    for kind, title in KINDS.items():
        found = bad_lines(kind, explained)
        lines += [f"## {title}", "", *found] if found else []
    if unexplained:
        lines += ["## Not explained", ""]
        lines += [f"* `{name}`: {span(window)}" for name, window in unexplained] + [""]
    lines += ["## What came, and from when on", "",
              "Rows that skip or are known to fail on some kernels, with the reason they give.", "",
              "| windows | rows |", "| --- | --- |"]
    for found, names in sorted(history.changes().items(), key=lambda item: -len(item[1])):
        if not any(w[2] in BAD for w in found):
            lines.append(f"| {'; '.join(span(w) for w in found)} | {len(names)}: {short(names, 3)} |")
    lines += ["", "## All kernels", "", "| kernel | pass | xfail | skip | not ok | CPU seconds |",
              "| --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {v} | {t['pass']} | {t['xfail']} | {t['skip']} | {t['fail']} | {history.rows[v]['cpu']} |"
              for v, t in totals.items()]
    return "\n".join(lines) + "\n", unexplained


def write_documents(out, setup):
    history = History(setup.rows, read_notes())
    text, unexplained = document(setup, history)
    write_text(out / "history.md", text)
    data = [{"rows": names, "windows": [dict(zip(("first", "last", "verdict", "reason"), w)) for w in found]}
            for found, names in history.changes().items()]
    write_text(out / "history.json", json.dumps({"versions": history.versions, "cpu": setup.cpu,
                                                 "changes": data}, indent=1) + "\n")
    for name, window in unexplained[:10]:
        warn(f"not explained: {name}: {span(window)}")
    if len(unexplained) > 10:
        warn(f"... and {len(unexplained) - 10} more, see {out}/history.md")
    unused = history.unused()
    for note, rows in unused:
        warn(f"{NOTES.name} explains {rows} from {note.first} on, which is well there: take it out")
    undone = [v for v in setup.keys if v not in setup.rows or setup.rows[v]["end"]]
    for version in undone:
        warn(f"{version}: {setup.rows.get(version, {}).get('end') or 'not run'}")
    warn(f"{len(setup.rows)} of {len(setup.keys)} kernels; {out}/history.md")
    return int(bool(unexplained or unused or undone))


# --- the command ---


def run_history(options):
    suite.packages("fetch", "build", "mutants", *suite.lab_packages([options.cpu]))
    versions = archive()
    chosen = choose(options.kernels.split(), versions)
    cpu = Machines().cpu(options.cpu)
    tests = options.tests.split() or ["upstream", "kvm", "x86"]
    base = matrix.fingerprint()
    built = {s: suite.build(s) for s in sorted(set(map(series, chosen)), key=order)}
    for one_built in built.values():
        suite.select(tests, one_built)          # what can be wrong with TESTS= shows now
    keys = {v: matrix.cell_key([base, versions[v], built[series(v)].name, *tests], cpu, "none") for v in chosen}
    with batch.results(Path(options.out) / "history") as out:
        Setup(tests, options.cpu, keys, 1 if options.jobs > 1 else 0).write(out)
        setup = Setup.read(out)
        batch.run_rest(options, out, "history", setup.todo(), len(keys), "kernels")
        return write_documents(out, Setup.read(out))


def parser():
    p = batch.new_parser("lab/history", __doc__)
    p.add_argument("--kernels", default=env("KERNELS"))
    p.add_argument("--cpu", default=env("CPU", "spr"))
    batch.add_options(p, batch.processors())
    return p


def main(arguments):
    word, *rest = arguments or [""]
    if word == "one" and len(rest) == 2:
        return one(Path(rest[0]).resolve(), rest[1])
    if word == "document" and len(rest) == 1:
        out = Path(rest[0]).resolve() / "history"
        status = write_documents(out, Setup.read(out))
        if status:
            die(f"{out}/history.md stays where it is: run and explain the rest first")
        shutil.copyfile(out / "history.md", TOP / "Documentation" / "history.md")
        return 0
    options = parser().parse_args(arguments)
    batch.check_jobs(options)
    if options.cpu not in Machines().cpus:
        die(f"CPU: no CPU '{options.cpu}': there are {', '.join(Machines().cpus)}")
    return run_history(options)
