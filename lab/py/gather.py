# SPDX-License-Identifier: GPL-2.0-only
"""What results there are in some folders: of kselftest, matrix, history and mutants.

Whatever is missing, half-written or of another lab is left out, and Found.notes says so: a
page is wanted of all the rest.
"""

import fnmatch
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import history
import matrix
import mutants
import record
import report
import results
from common import LAB, LabError, read_json
from machines import Machines

LINUX = re.compile(rb"Linux version (\S+)")
# Debian's names of its kernels, of which the version is enough.
DEBIAN = re.compile(r"(\d+\.\d+\.\d+(?:-\d+)?)(?:\+deb\d+)?-cloud-amd64")
NOT_OK = re.compile(r"not ok: ([^ :]+): (.*)")
STALE = "half-written, or of another kernel, suite or emulator than setup.json"


@dataclass
class Results:
    """What one kernel on one machine answered."""
    source: str                 # "kselftest", "history" or "matrix"
    kernel: str
    cpu: str = ""               # of lab/machines, or its model; "" where nothing tells
    parameter: str = "none"
    tests: dict = field(default_factory=dict)   # {"PROGRAM:ROW": (verdict, reason)}
    folder: Path = None         # that of the run, if it is still there
    planned: list = field(default_factory=list)     # words of TESTS=, or programs
    broken: set = field(default_factory=set)    # programs of which rows may be missing
    end: str = ""               # why the run as a whole came to no end
    seconds: float = 0
    date: float = 0             # seconds since 1970
    place: str = ""             # of the folder, for people

    @property
    def machine(self):
        words = [self.cpu or "CPU not told"] + ([self.parameter] if self.parameter != "none" else [])
        return ", ".join(words)

    @property
    def label(self):
        return f"{self.kernel} ({self.machine})"

    def is_planned(self, program):
        return any(word == program or program.startswith(word + "/") or program.endswith("/" + word)
                   for word in self.planned)

    def verdict(self, name):
        """(verdict, reason) of a row; None if nobody asked for it."""
        if name in self.tests:
            return self.tests[name]
        program = name.partition(":")[0]
        if program + ":" in self.tests:
            return self.tests[program + ":"]
        if program in self.broken or (self.is_planned(program) and not self.has(program)):
            return ("missing", self.why(program))
        return None

    def has(self, program):
        if not hasattr(self, "programs"):
            self.programs = set(map(results.base, self.tests))
        return program in self.programs

    def why(self, program):
        for row in ("kernel", "program"):
            if f"{program}:{row}" in self.tests:
                return self.tests[f"{program}:{row}"][1]
        return self.end or "no result arrived"

    def bad(self):
        """[(row, reason)] of all that is not ok."""
        return [(name, reason) for name, (verdict, reason) in self.tests.items() if verdict in history.BAD]


@dataclass
class Matrix:
    place: str
    cells: list                 # matrix.Cell; with .results, and if these are not None with .judged, as of
                                # matrix.Judgement, and .reasons, {(status, reason): how many}


@dataclass
class Past:
    place: str
    past: history.History
    undone: list                # [(version, why)]


@dataclass
class Mutants:
    place: str
    suite: str                  # name of the folder: "ours", "upstream-all"
    kernel: str
    date: str
    rows: list
    undone: list                # names without a verdict


@dataclass
class Found:
    runs: list = field(default_factory=list)        # [(Results, record.Run)]
    matrices: list = field(default_factory=list)
    histories: list = field(default_factory=list)
    mutants: list = field(default_factory=list)
    results: list = field(default_factory=list)     # all Results, of whatever source
    notes: list = field(default_factory=list)       # what is missing or was left out
    date: float = 0                                 # of the newest result

    def __bool__(self):
        return bool(self.results or self.histories or self.mutants)

    def note(self, place, what):
        self.notes.append(f"{place}: {what}")

    def left_out(self, place, names, why):
        if names:
            self.note(place, f"left out, for they are {why}: {few(names)}")

    def add(self, several):
        self.results += several
        self.date = max([self.date, *(r.date for r in several)])


def few(names, most=6):
    """Names, if they are few."""
    return " ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def mtime(path):
    return path.stat().st_mtime if path.exists() else 0


def short_release(release):
    match = DEBIAN.fullmatch(release)
    return match.group(1) if match else release


def booted_release(folder):
    """The release of the kernel that a run booted, "" if its log is gone."""
    try:
        with open(folder / "boot/console.log", "rb") as log:
            match = LINUX.search(log.read(1 << 16))
    except OSError:
        return ""
    return short_release(match.group(1).decode("ascii", "replace")) if match else ""


# --- the four kinds ---

def base_tests(run):
    """{"PROGRAM:ROW": (verdict, reason)} of a run; a program that ran for one row counts as itself."""
    tests = history.results(run)
    for part in [p.name for p in run.programs if ":" in p.name]:
        for name in [name for name in tests if name.startswith(part + ":")]:
            tests[results.base(part) + name[len(part):]] = tests.pop(name)
    for name in (results.base(p.name) for p in run.programs if report.is_unfinished(p)):
        for row in {f"{name}:kernel", f"{name}:program"} & set(tests):
            tests[row] = ("missing", tests[row][1])
    return tests


def read_run(found, path, place):
    run = record.Run(path)
    rec, machine = run.record, results.machine(run.programs)
    end = "" if rec.get("end", "ok") == "ok" else str(rec.get("why") or rec["end"])
    if not rec:
        end = "run.json is missing or half-written: the run goes on, or was interrupted"
        found.note(place, end)
    one = Results(
        "kselftest", short_release(run.kernel) or "kernel not told", str(rec.get("cpu") or (machine or {}).get("model", "")),
        tests=base_tests(run), folder=path, planned=[name for name in run.planned if ":" not in name],
        broken={results.base(p.name) for p in run.programs if p.errors}, end=end,
        seconds=float(rec.get("seconds", 0)), date=mtime(path / "run.json"), place=place)
    found.add([one])
    found.runs.append((one, run))


def read_matrix(found, path, place):
    setup = matrix.Setup.read(path)
    for cell in setup.cells:
        cell.results = cell_results(cell, setup, path, place) if cell.row else None
    done = [cell for cell in setup.cells if cell.row]
    files, names = {file.stem for file in path.glob("*.json")} - {"setup"}, {cell.name for cell in setup.cells}
    found.left_out(place, sorted(files & names - {cell.name for cell in done}), STALE)
    found.left_out(place, sorted(files - names), "no cells of the last \"make matrix\"")
    names = sorted({test for cell in done for test in cell.row["tests"] if not test.endswith(":")})
    machines = Machines()
    for cell in done:
        cell.reasons = Counter(tuple(cell.status(test)) for test in names)
        try:
            cell.judged = matrix.Judgement(cell, names, machines)
        except (LabError, ValueError):
            found.note(place, f"{cell.name}: lab/machines does not know it, and cannot say what may skip")
            cell.judged = SimpleNamespace(problems=cell.row["problems"], counts=matrix.count(cell.row["tests"].values()))
    found.add([cell.results for cell in done])
    found.matrices.append(Matrix(place, setup.cells))


def cell_results(cell, setup, path, place):
    tests, folder = dict(cell.row["tests"]), path / cell.name
    broken = [match for match in map(NOT_OK.match, cell.row["problems"]) if match]
    tests.update({f"{match[1]}:program": ("fail", match[2]) for match in broken})
    planned = [name for name in setup.programs.get(cell.kernel, {}) if ":" not in name]
    return Results(
        "matrix", booted_release(folder) or cell.kernel, cell.cpu, cell.parameter, tests, folder if folder.is_dir() else None,
        planned, {match[1] for match in broken}, seconds=cell.row["seconds"], date=mtime(path / f"{cell.name}.json"),
        place=f"{place}/{cell.name}")


def read_history(found, path, place):
    setup = history.Setup.read(path)
    undone, several = [], []
    for version in setup.keys:
        file, folder, row = path / f"{version}.json", path / version, setup.rows.get(version)
        if not row or row["end"]:
            undone.append((version, row["end"] if row else STALE if file.exists() else "not run"))
        if row and row["tests"]:
            broken = {results.base(name) for name in row["tests"] if name.endswith((":kernel", ":program"))}
            several.append(Results(
                "history", version, setup.cpu, "none", row["tests"], folder if folder.is_dir() else None, setup.tests,
                broken, row["end"], row["seconds"], mtime(file), f"{place}/{version}"))
    past = history.History({r.kernel: {"tests": r.tests} for r in several}, history.read_notes())
    found.add(several)
    found.histories.append(Past(place, past, undone))


def is_verdict(row, setup):
    """Whether a row of a mutant is one, and that of this setup: patches that are not in lab/mutants
    may be of any.
    """
    try:
        texts = [row[key] for key in ("name", "subject", "expect", "needs", "why", "verdict", "summary", "key")]
        texts += [*row["files"], *row["skipped"], *(item for items in row["kills"].values() for item in items)]
        patch = LAB / "mutants" / f"{row['name']}.patch"
        return all(isinstance(text, str) for text in texts) and mutants.holds(row, setup.programs) and \
            (not patch.exists() or row["key"] == mutants.patch_key(setup.key, patch.read_text(errors="replace")))
    except (AttributeError, KeyError, TypeError):
        return False


def read_mutants(found, path, place):
    setup, table = mutants.Setup.read(path), read_json(path / "table.json") or {}
    files = [file for file in sorted(path.glob("*.json")) if file.name not in ("table.json", "setup.json")]
    read = {file: read_json(file) for file in files}
    good = [file for file in files if is_verdict(read[file], setup)]
    rows = [read[file] for file in good]
    found.left_out(place, [f.stem for f in files if f not in good], "half-written, or of another kernel, suite or patch")
    found.date = max([found.date, *map(mtime, good)])
    if not rows:
        return found.note(place, "no mutant has a verdict yet")
    known, names = {p.stem for p in (LAB / "mutants").glob("*.patch")}, {row["name"] for row in rows}
    found.mutants.append(Mutants(place, path.name, str(table.get("kernel", "")), str(table.get("date", "")), rows,
                                 sorted(known - names) if names & known else []))
    return None


# --- folders ---

READERS = {"cells": read_matrix, "keys": read_history, "key": read_mutants}


def read_folder(found, path, place):
    """All results in a folder: that of O=, or one within."""
    if (path / "run.json").exists() or (path / "boot").is_dir():
        read(found, read_run, path, place)
    within = [path, path / "matrix", path / "history", *sorted(path.glob("mutants/*")),
              *(sorted(path.glob("*")) if path.name == "mutants" else [])]
    for part in within:
        setup = read_json(part / "setup.json")
        reader = next((r for key, r in READERS.items() if isinstance(setup, dict) and key in setup), None)
        where = place if part == path else f"{place}/{part.relative_to(path)}"
        if reader:
            read(found, reader, part, where)
        elif part.is_dir() and part.name != "kernels" and (part != path or (part / "setup.json").exists()):
            found.note(where, "setup.json is missing or half-written: left out")


def read(found, reader, path, place):
    try:
        reader(found, path, place)
    except LabError as error:
        found.notes.append(str(error))
    except Exception as error:      # of whatever kind: what is there may be anything
        found.note(place, f"left out, for it cannot be read ({type(error).__name__}: {error})")


def gather(folders):
    """Found, of all these folders; places are named as they were given."""
    found = Found()
    for folder in folders:
        read_folder(found, Path(folder), str(folder).rstrip("/") or "/")
    return found


def match(names, patterns):
    """Those of names that one of the patterns means."""
    wanted = re.compile("|".join(fnmatch.translate(p) for p in patterns))
    return [name for name in names if wanted.match(name)]
