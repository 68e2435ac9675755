# SPDX-License-Identifier: GPL-2.0-only
"""What results there are in some folders: of kselftest, matrix, history and mutants.

Whatever is missing, half-written or of another lab is left out, and Found.notes says so: a
page is wanted of all the rest.
"""

import fnmatch
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import history
import matrix
import record
from common import LAB, LabError, TOP
from machines import Machines

STATUSES = ("pass", "fail", "skip", "xfail", "missing", "ok")
LINUX = re.compile(rb"Linux version (\S+)")
# Debian's names of its kernels, of which the version is enough.
DEBIAN = re.compile(r"(\d+\.\d+\.\d+(?:-\d+)?)(?:\+deb\d+)?-cloud-amd64")
# What the programs say of the machine before anything else.
ABOUT = re.compile(r"# (Linux|CPU:|XCR0|supervisor|CPUID\.0xD|parameters:)")
NOT_OK = re.compile(r"not ok: ([^ :]+): (.*)")


@dataclass
class Results:
    """What one kernel on one machine answered."""
    source: str                 # "kselftest", "history" or "matrix"
    kernel: str
    cpu: str = ""               # of lab/machines; "" where nothing tells
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
            self.programs = {name.partition(":")[0] for name in self.tests}
        return program in self.programs

    def why(self, program):
        for row in ("kernel", "program"):
            if f"{program}:{row}" in self.tests:
                return self.tests[f"{program}:{row}"][1]
        return self.end or "no result arrived"

    def bad(self):
        """[(row, reason)] of all that is not ok."""
        return [(name, reason) for name, (verdict, reason) in self.tests.items() if verdict in history.BAD]


class Cell(matrix.Cell):
    """A cell of the matrix that was read once and for all."""

    def whole(self):
        if not hasattr(self, "found"):
            self.found = super().whole()
        return self.found


class Reasons(Machines):
    """lab/machines, asked for the same reason many thousand times."""

    def reason(self, text):
        found = self.__dict__.setdefault("asked", {})
        if text not in found:
            found[text] = super().reason(text)
        return found[text]


@dataclass
class Matrix:
    place: str
    cells: list                 # in the order of the table
    results: dict = field(default_factory=dict)     # {name of a cell: Results}
    problems: dict = field(default_factory=dict)    # {name of a cell: lines}
    counts: dict = field(default_factory=dict)      # {name of a cell: {status: how many}}


@dataclass
class Windows:
    """The history of rows that are not the same everywhere: history.History, or history.json."""
    place: str
    versions: list
    groups: dict                # {((first, last, verdict, reason), ...): names of rows}
    notes: list
    undone: list = field(default_factory=list)      # [(version, why)]

    def explain(self, name, window):
        return history.History.explain(self, name, window)


@dataclass
class Mutants:
    place: str
    suite: str                  # name of the folder: "ours", "upstream-all"
    kernel: str
    date: str
    rows: list                  # as in table.json
    undone: list = field(default_factory=list)      # names without a verdict


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

    def add(self, results):
        self.results.append(results)
        self.date = max(self.date, results.date)
        return results


# --- files that may be anything ---

def load(path):
    """What is in a JSON file; None if it cannot be read."""
    try:
        return json.loads(path.read_bytes().decode("utf-8", "replace"))
    except (OSError, ValueError, RecursionError):
        return None


def load_dict(path):
    data = load(path)
    return data if isinstance(data, dict) else None


def mtime(path):
    try:
        return path.stat().st_mtime
    except OSError:
        return 0


def string(value, default=""):
    return value if isinstance(value, str) else default


def amount(value):
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and \
        0 <= value < 1e12 else 0


def strings(value):
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def read_tests(data):
    """{"PROGRAM:ROW": (verdict, reason)}, and how many entries were nothing of the kind."""
    tests, odd = {}, 0
    for name, value in data.items() if isinstance(data, dict) else ():
        if isinstance(value, list) and len(value) == 2 and value[0] in STATUSES:
            tests[name] = (value[0], string(value[1]))
        else:
            odd += 1
    return tests, odd


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


def is_name(name):
    """Whether it is the name of a file in a folder, and leads nowhere else."""
    return isinstance(name, str) and bool(re.fullmatch(r"[\w.+=:,@ -]{1,200}", name, re.A)) and \
        name not in (".", "..")


# --- the four kinds ---

def base_tests(run):
    """{"PROGRAM:ROW": (verdict, reason)} of a run; a program that ran for one row counts as itself."""
    tests = {}
    for name, value in history.results(run).items():
        program, colon, row = name.partition(":")
        if name.count(":") > 1 and any(p.name.startswith(program + ":") and name.startswith(p.name + ":")
                                       for p in run.programs):
            row = row.partition(":")[2]
        tests[program + colon + row] = tuple(value)
    return tests


def read_run(found, path, place):
    try:
        run = record.Run(path)
        tests = base_tests(run)
    except Exception as error:      # of whatever kind: what is there may be anything
        return found.note(place, f"this run cannot be read ({type(error).__name__}: {error})")
    rec = run.record
    end = string(rec.get("why")) or string(rec.get("end")) if rec.get("end", "ok") != "ok" else ""
    if not rec:
        end = "run.json is missing or half-written: the run goes on, or was interrupted"
        found.note(place, end)
    results = Results(
        "kselftest", short_release(string(run.kernel)) or "kernel not told", string(rec.get("cpu")),
        tests=tests, folder=path, planned=[p.split(":")[0] for p in strings(run.planned) if ":" not in p],
        broken={p.name.split(":")[0] for p in run.programs if p.errors}, end=end,
        seconds=amount(rec.get("seconds")), date=mtime(path / "run.json"), place=place)
    found.runs.append((found.add(results), run))


def about(run):
    """The lines in which programs tell of the machine, of the first that does."""
    for program in run.programs:
        lines = [line[2:] for line in program.lines[:40] if ABOUT.match(line)]
        if any(line.startswith("CPU:") for line in lines):
            return lines
    return []


def read_matrix(found, path, place):
    data = load_dict(path / "setup.json")
    if data is None or not isinstance(data.get("cells"), list):
        return found.note(place, "setup.json is missing or half-written: no matrix to show")
    cells = []
    for entry in data["cells"]:
        try:
            cell = Cell(**entry)
            if not is_name(cell.name) or not all(isinstance(v, str) for v in entry.values()):
                raise TypeError
        except TypeError:
            found.note(place, "setup.json has a cell that is none, which was left out")
            continue
        cells.append(cell)
    made = Matrix(place, cells)
    stale = []
    for cell in cells:
        file = path / f"{cell.name}.json"
        row = load_dict(file)
        if row is None:
            if file.exists():
                found.note(place, f"{cell.name}.json is half-written: the cell was left out")
            continue
        if row.get("key") != cell.key:
            stale.append(cell.name)
            continue
        tests, odd = read_tests(row.get("tests"))
        if odd:
            found.note(place, f"{cell.name}.json: left out, for they are none: {odd} of its results")
        problems = strings(row.get("problems"))
        cell.row = {"tests": {name: list(v) for name, v in tests.items()}, "problems": problems}
        folder = path / cell.name
        broken = {m.group(1) for m in map(NOT_OK.match, problems) if m}
        for match in filter(None, map(NOT_OK.match, problems)):
            tests[f"{match.group(1)}:program"] = ("fail", match.group(2))
        made.results[cell.name] = found.add(Results(
            "matrix", booted_release(folder) or cell.kernel, cell.cpu, cell.parameter, tests,
            folder if folder.is_dir() else None, strings(data.get("tests")), broken,
            seconds=amount(row.get("seconds")), date=mtime(file), place=f"{place}/{cell.name}"))
    if stale:
        found.note(place, "left out, for they are of another kernel, suite or emulator than setup.json: "
                   f"{' '.join(stale[:5])}{f' and {len(stale) - 5} more' if len(stale) > 5 else ''}")
    judge(found, made)
    found.matrices.append(made)


def judge(found, made):
    """Problems and counts of each cell, as the table of the matrix has them."""
    names = sorted({t for cell in made.cells if cell.row for t in cell.row["tests"] if not t.endswith(":")})
    machines = Reasons()
    for cell in made.cells:
        if cell.row is None:
            continue
        try:
            judgement = matrix.Judgement(cell, names, machines)
            made.problems[cell.name], made.counts[cell.name] = judgement.problems, judgement.counts
        except (LabError, ValueError):
            found.note(made.place, f"{cell.name}: lab/machines does not know it, and cannot say what may skip")
            made.problems[cell.name] = cell.row["problems"]
            made.counts[cell.name] = matrix.count(cell.row["tests"].values())


def read_notes(found):
    try:
        return history.read_notes()
    except (OSError, LabError) as error:
        found.notes.append(str(error))
        return []


def read_history(found, path, place):
    data = load_dict(path / "setup.json")
    if data is None or not isinstance(data.get("keys"), dict):
        return found.note(place, "setup.json is missing or half-written: no history to show")
    rows, undone = {}, []
    for version, key in data["keys"].items():
        if not is_name(version) or not history.order(version):
            found.note(place, "setup.json has a version that is none, which was left out")
            continue
        file = path / f"{version}.json"
        row = load_dict(file)
        if row is None or row.get("key") != key:
            undone.append((version, "not run" if not file.exists() else "half-written" if row is None else
                           "of another kernel, suite or emulator than setup.json"))
            continue
        tests, odd = read_tests(row.get("tests"))
        if odd:
            found.note(place, f"{version}.json: left out, for they are none: {odd} of its results")
        if row.get("end"):
            undone.append((version, string(row["end"], "it came to no end")))
        if not tests:
            continue
        rows[version] = {"tests": tests}
        folder = path / version
        broken = {name.rpartition(":")[0] for name in tests if name.endswith((":kernel", ":program"))}
        found.add(Results(
            "history", version, string(data.get("cpu")), "none", tests, folder if folder.is_dir() else None,
            strings(data.get("tests")), broken, string(row.get("end")), amount(row.get("seconds")),
            mtime(file), f"{place}/{version}"))
    notes = read_notes(found)
    past = history.History(rows, notes)
    found.histories.append(Windows(place, past.versions, past.changes() if rows else {}, notes, undone))


def read_document(found, path, place):
    """history.json, of which rows that are the same everywhere have gone."""
    data = load_dict(path)
    if data is None:
        return found.note(place, "cannot be read: no history to show")
    versions = [v for v in strings(data.get("versions")) if history.order(v)]
    groups = {}
    for entry in data.get("changes") if isinstance(data.get("changes"), list) else ():
        try:
            windows = tuple((w["first"], w["last"], w["verdict"], string(w["reason"])) for w in entry["windows"])
            if not all(a in versions and b in versions and v in STATUSES for a, b, v, _ in windows):
                raise ValueError
            groups[windows] = strings(entry["rows"])
        except (KeyError, TypeError, ValueError):
            found.note(place, "a change that is none was left out")
    found.histories.append(Windows(place, sorted(versions, key=history.order), groups, read_notes(found)))
    found.date = max(found.date, mtime(path))
    return None


def mutant_row(data):
    """A row of a table of mutants, with all that the page shows, or None."""
    if not isinstance(data, dict) or not is_name(data.get("name")) or not string(data.get("verdict")):
        return None
    row = {key: string(data.get(key)) for key in
           ("name", "subject", "expect", "needs", "why", "verdict", "summary", "key")}
    kills = data.get("kills") if isinstance(data.get("kills"), dict) else {}
    row.update(files=strings(data.get("files")), good=data.get("good") is True,
               kills={kind: strings(kills.get(kind)) for kind in ("assertion", "warning", "hang", "crash")},
               skipped=strings(data.get("skipped")),
               seconds=amount(data.get("build_seconds")) + amount(data.get("run_seconds")))
    return row


def patch_key(name, setup_key, patches=LAB / "mutants"):
    """What the row of a patch must have as its key (mutants.Patch.key), "" if there is no such patch."""
    try:
        patch = (patches / f"{name}.patch").read_text(errors="replace")
    except OSError:
        return ""
    return hashlib.sha256((setup_key + patch).encode()).hexdigest()[:16]


def read_mutants(found, path, place):
    table = load_dict(path / "table.json")
    setup = load_dict(path / "setup.json")
    if (path / "table.json").exists() and table is None:
        found.note(place, "table.json is half-written: the rows are taken one by one")
    rows, odd, stale, date = {}, 0, 0, mtime(path / "table.json")
    listed = table.get("mutants") if table else None
    for entry in listed if isinstance(listed, list) else ():
        row = mutant_row(entry)
        odd += row is None
        if row:
            rows[row["name"]] = row
    key = string(setup.get("key")) if setup else ""
    for file in sorted(path.glob("*.json")):
        if file.name in ("table.json", "setup.json"):
            continue
        row = mutant_row(load(file))
        if row is None:
            odd += 1
        elif row["name"] not in rows:
            # A table may be of some mutants only; others count if they are of the same setup.
            wanted = patch_key(row["name"], key)
            if wanted and wanted != row["key"]:
                stale += 1
                continue
            rows[row["name"]] = row
            date = max(date, mtime(file))
    if odd:
        found.note(place, f"left out, for they are half-written or none: {odd} of its rows")
    if stale:
        found.note(place, f"left out, for they are of another kernel, suite or patch: {stale} of its rows")
    known = {p.name.removesuffix(".patch") for p in (LAB / "mutants").glob("*.patch")}
    undone = sorted(known - set(rows)) if rows.keys() & known else []
    if not rows:
        return found.note(place, "no mutant has a verdict yet")
    kernel = string(table.get("kernel")) if table else ""
    found.mutants.append(Mutants(place, path.name, kernel, string(table.get("date")) if table else "",
                                 [rows[name] for name in sorted(rows)], undone))
    found.date = max(found.date, date)
    return None


# --- folders ---

def kind(path):
    """What a folder with setup.json is."""
    data = load_dict(path / "setup.json") or {}
    return next((reader for key, reader in (("cells", read_matrix), ("keys", read_history), ("key", read_mutants))
                 if key in data), None)


def read_folder(found, path, place):
    """All results in a folder: that of O=, or one within."""
    reader = kind(path)
    if reader:
        reader(found, path, place)
        return
    if (path / "run.json").exists() or (path / "boot").is_dir():
        read_run(found, path, place)
    for name, reader in (("matrix", read_matrix), ("history", read_history)):
        if path.name == name and (path / "setup.json").exists():
            reader(found, path, place)
        elif (path / name).is_dir():
            reader(found, path / name, f"{place}/{name}")
    folder = path if path.name == "mutants" else path / "mutants"
    for suite in sorted(folder.iterdir()) if folder.is_dir() else ():
        if suite.is_dir() and suite.name != "kernels":
            read_mutants(found, suite, f"{place}/{suite.relative_to(path)}")


def gather(folders, documents=TOP / "Documentation"):
    """Found, of all these folders; places are named as they were given."""
    found = Found()
    for folder in folders:
        read_folder(found, Path(folder), str(folder).rstrip("/") or "/")
    written = documents / "history.json"
    if not found.histories and found and written.exists():
        read_document(found, written, "Documentation/history.json")
    return found


def match(names, patterns):
    """Those of names that one of the patterns means."""
    wanted = re.compile("|".join(fnmatch.translate(p) for p in patterns))
    return [name for name in names if wanted.match(name)]
