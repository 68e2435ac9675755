# SPDX-License-Identifier: GPL-2.0-only
"""Run the suite on every kernel, every CPU and with odd parameters, and show one table:
what "make matrix" calls.

  lab/matrix [OPTION]...    run the cells that have not been run, then print the table
  lab/matrix one OUT NAME   one job of that, complete in itself.  OUT holds setup.json;
                            writes OUT/NAME/ and what it means to OUT/NAME.json
  lab/matrix table OUT      the table of what OUT holds

A cell is named KERNEL+CPU or KERNEL+CPU+PARAMETER.  Each program has a machine of its own,
so that a cell runs only those again that have changed or had problems.  Options have the
variables of "make matrix" as their defaults (see "make help" and Documentation/matrix.md).
"""

import json
import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import batch
import host
import record
import suite
from batch import STATUSES, env
from common import LAB, LabError, die, hash_bytes, hash_file, read_json, say, script, warn, write_text
from machines import Machines

MAX_DETAILS = 5
PARAMETERS_CPU = "spr"          # on which parameters are tried
MODULE_PARAMETER = re.compile(r"(kvm\w*)\.(\w+)=[^,]*")


@dataclass
class Cell:
    """A kernel, a CPU and at most one parameter, and the row that tells what came of it."""
    name: str
    key: str                    # of all that it was made from, but for the programs
    kernel: str
    cpu: str
    parameter: str = "none"
    row = None                  # if it has all programs as they are now
    old = None                  # if some can stay: of the same machine
    todo = ()                   # names of the programs that are to run

    def read(self, out, programs):
        """programs: {name: hash} of all that there are now."""
        self.todo = list(programs)
        row = batch.read_row(out, self.name)
        if not row or row["key"] != self.key:
            return
        ran, bad = row.get("programs", {}), row.get("bad", [""])
        if programs.items() <= ran.items():
            self.row = {**row, "tests": tests_of(programs, row["tests"])}
        if "" not in bad:
            self.old = row
            self.todo = [name for name in programs if ran.get(name) != programs[name] or name in bad]

    def status(self, test):
        """Status and reason of a test here; a program may have skipped as a whole."""
        tests = self.row["tests"]
        whole = next((name for name in self.whole if test.startswith(name)), "")
        return tests.get(test) or tests.get(whole) or ["missing", ""]

    @cached_property
    def whole(self):
        """The programs that skipped as a whole, as "PROGRAM:"."""
        return [name for name in self.row["tests"] if name.endswith(":")]


def tests_of(names, tests):
    """Those results of a row that are of these programs."""
    prefixes = tuple(f"{name}:" for name in names)
    return {test: found for test, found in tests.items() if test.startswith(prefixes)}


def new_cell(key, kernel, cpu, parameter="none"):
    # The emulator takes no commas in the paths of its files.
    name = f"{kernel}+{cpu}" + ("" if parameter == "none" else f"+{parameter.replace(',', '+')}")
    return Cell(name, key, kernel, cpu, parameter)


@dataclass
class Setup:
    """What the jobs of one folder of results share: OUT/setup.json."""
    tests: list
    cells: list
    parallel: int = 1           # programs at a time
    programs: dict = field(default_factory=dict)        # {kernel: {name: hash}}

    @classmethod
    def read(cls, out):
        path = out / "setup.json"
        data = read_json(path)
        try:
            setup = cls(data["tests"], [Cell(**cell) for cell in data["cells"]], data["parallel"],
                        data["programs"])
        except (KeyError, TypeError):
            return die(f"{path} is missing or not of this lab: run 'make matrix' first")
        for cell in setup.cells:
            cell.read(out, setup.programs.get(cell.kernel, {}))
        return setup

    def write(self, out):
        write_text(out / "setup.json", json.dumps(asdict(self), indent=1) + "\n")

    def cell(self, name):
        return next((c for c in self.cells if c.name == name), None) or die(f"there is no cell '{name}'")

    def todo(self):
        """The cells that have not been run as they are now, or that had problems."""
        return [cell.name for cell in self.cells if cell.todo]


# --- one cell ---

def results(run):
    """{"PROGRAM:TEST": [status, reason]}; "PROGRAM:" where a program skipped as a whole."""
    tests = {}
    for program in run.programs:
        if program.status == "skip" and not program.results:
            tests[program.name + ":"] = ["skip", program.reason]
        for result in program.results:
            tests[f"{program.name}:{result.name}"] = [result.status, result.reason]
    return tests


def problems(run):
    """What went wrong in a run, apart from what was skipped."""
    found = run.problems + [f"kernel: {e.where}: {e.line}" if e.where else f"kernel: {e.line}"
                            for e in run.boot_events]
    end = run.record.get("end", "ok")
    if end != "ok":
        found.append(f"the run: {run.record.get('why') or end}")
    for program in run.programs:
        found += [f"not ok: {program.name}:{result.name}" for result in program.results
                  if result.status == "fail"]
        if program.errors:
            found.append(f"not ok: {program.name}: {program.errors[0]}")
    return found


def count(found):
    return {status: sum(s == status for s, _ in found) for status in STATUSES}


def bad_programs(run):
    """Names of the programs to run again; "" for all of them."""
    whole = run.problems or run.boot_events or run.record.get("end", "ok") != "ok"
    return ([""] if whole else []) + [p.name for p in run.programs if p.status == "fail"]


def kept(cell, programs):
    """Those tests of the row from before that stay, for their programs did not run again."""
    return tests_of([name for name in programs if name not in cell.todo], cell.old["tests"]) if cell.old else {}


def judge(out, cell, run, programs):
    """Write OUT/NAME.json and print a row.  programs: {name: hash} of all that there are."""
    stays = kept(cell, programs)
    if any(status == "pass" for status, _ in stays.values()) and record.NOTHING_RAN in run.problems:
        run.problems.remove(record.NOTHING_RAN)
    tests, found = {**stays, **results(run)}, problems(run)
    seconds = round(run.record.get("seconds", 0)) + (cell.old["seconds"] if stays else 0)
    row = {"name": cell.name, "key": cell.key, "tests": tests, "problems": found, "seconds": seconds,
           "programs": programs, "bad": bad_programs(run)}
    write_row(out, cell, row)
    counts = count(tests.values())
    print(f"{cell.name}: {counts['pass']} pass, {counts['skip']} skip, {counts['xfail']} xfail" +
          (f"; {len(found)} problems: {found[0]}" if found else "") + f" [{seconds} s]", flush=True)


def module_words(parameter):
    """["kvm_intel.ept=0", ...] of parameters of modules, set at once; none of the kernel's words."""
    words = parameter.split(",")
    return words if all(MODULE_PARAMETER.fullmatch(word) for word in words) else []


def write_row(out, cell, row):
    write_text(out / f"{cell.name}.json", json.dumps(row, indent=1, sort_keys=True) + "\n")


def one(out, name):
    setup = Setup.read(out)
    cell = setup.cell(name)
    words = module_words(cell.parameter)
    word = "" if words or cell.parameter == "none" else f" {cell.parameter}"
    programs = setup.programs[cell.kernel]
    try:
        run, _ = batch.run_suite(
            out, name, setup, cell.kernel, only=cell.todo, kernel=cell.kernel, cpu=cell.cpu,
            append=suite.APPEND + word, params=" ".join(words))
    except LabError as error:
        write_row(out, cell, {"name": name, "key": cell.key, "tests": {}, "problems": [str(error)],
                              "seconds": 0, "programs": programs, "bad": [""]})
        print(f"{name}: {error}", flush=True)
        return 0
    judge(out, cell, run, programs)
    return 0


# --- the table ---

class Judgement:
    """What the results of a cell are worth, by what lab/machines says of it."""

    def __init__(self, cell, names, machines):
        has = machines.features(cell.kernel, cell.cpu, cell.parameter)
        self.problems = list(cell.row["problems"])
        self.minimum = 0        # how many tests had to assert something
        found = []
        for test in names:
            status, reason = cell.status(test)
            found.append((status, reason))
            if status == "missing":
                self.problems.append(f"no result: {test}")
            excused = status == "skip" and self.excuses(test, reason, machines.reason(reason), has)
            self.minimum += not excused
        # Programs that have skipped everywhere: nobody knows their tests.
        for name in cell.whole:
            if not any(test.startswith(name) for test in names):
                reason = cell.row["tests"][name][1]
                self.excuses(name.rstrip(":"), reason, machines.reason(reason), has)
        self.counts = count(found)
        self.asserted = self.counts["pass"] + self.counts["xfail"]

    def excuses(self, test, reason, known, has):
        """Whether a test may skip for that reason on a machine that has all this."""
        if known and not known.features <= has:
            return True
        what = ("without a reason" if not reason else "although all is there" if known else
                "for a reason that lab/machines does not know")
        self.problems.append(f"skipped {what}: {test}" + (f" ({reason})" if reason else ""))
        return False


def table(out):
    """Print all cells, and write OUT/table.md and OUT/problems.

    The exit status is 0 only if in each cell nothing is "not ok", all tests that any
    cell knows have a result, and lab/machines excuses whatever was skipped.
    """
    cells, machines = Setup.read(out).cells, Machines()
    undone = [cell.name for cell in cells if cell.row is None]
    cells = [cell for cell in cells if cell.row]
    # All tests that any cell knows, but for the stand-ins of whole programs.
    names = sorted({test for cell in cells for test in cell.row["tests"] if not test.endswith(":")})
    lines = ["| cell | pass | xfail | skip | not ok | asserted | at least | seconds |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    details, everything = [], []
    for cell in cells:
        j = Judgement(cell, names, machines)
        bad = len(j.problems)
        lines.append(f"| {cell.name} | {j.counts['pass']} | {j.counts['xfail']} | {j.counts['skip']} | "
                     f"{bad} | {j.asserted} | {j.minimum}{' (!)' if bad else ''} | {cell.row['seconds']} |")
        told = [f"{cell.name}: {p}" for p in j.problems]
        everything += told
        details += told[:MAX_DETAILS]
        if bad > MAX_DETAILS:
            details.append(f"{cell.name}: ... and {bad - MAX_DETAILS} more, see {out}/problems")
    text = "\n".join(lines) + "\n"
    write_text(out / "table.md", text)
    write_text(out / "problems", "".join(line + "\n" for line in everything))
    print(text, end="", flush=True)
    details += [f"{name}: not done" for name in undone]
    for line in details:
        warn(line)
    warn(f"{len(cells)} of {len(cells) + len(undone)} cells, {len(names)} tests, "
         f"{'not all is well' if details else 'all is well'}")
    return int(bool(details) or not names)


# --- which cells ---

def takes(kernel, name, word):
    """Whether a kernel takes a parameter: its modules have to know MODULE.NAME=VALUE."""
    for one_word in module_words(word):
        module, parameter = MODULE_PARAMETER.fullmatch(one_word).groups()
        if not any(b"parmtype=%b:" % parameter.encode() in host.unpack(path)
                   for path in (kernel / "modules").rglob(f"{module.replace('_', '-')}.ko*")):
            say(f"{name} has no parameter {module}.{parameter}")
            return False
    return True


def fingerprint():
    """What decides on a run beside kernel, suite and machine."""
    names = ("host", "guestfiles", "machines", "common", "record", "ktap", "suite", "choose")
    files = [*sorted((LAB / "guest").iterdir()), *(LAB / "py" / f"{name}.py" for name in names)]
    return hash_bytes(*(path.read_bytes() for path in files if path.is_file()))


def cell_key(parts, cpu, parameter):
    emulator = host.emulator_name(cpu)
    if cpu.is_qemu:
        emulator += hash_file(LAB / "py/qemu.py")
    # Without what it has: a set has no order, and that decides on the table alone.
    return hash_bytes(*parts, emulator, cpu.model, cpu.changes, cpu.count, cpu.options, parameter)


def find_cells(options, machines):
    """The cells, in the order of the table, and the programs of each kernel's."""
    cells, done, base, programs = [], [], fingerprint(), {}
    for name in options.kernels:
        kernel = Path(script("kernel/fetch", "kernel", name))
        if kernel in done:
            continue
        done.append(kernel)
        built = suite.build(name)
        series = suite.SERIES.match((kernel / "version").read_text()).group(1)
        programs[series] = suite.hash_programs(suite.select(options.tests, built))
        pairs = [(cpu, "none") for cpu in options.cpus]
        if name in options.params_on:
            pairs += [(PARAMETERS_CPU, word) for word in options.params if takes(kernel, name, word)]
        for cpu, parameter in pairs:
            key = cell_key([base, kernel], machines.cpu(cpu), parameter)
            cells.append(new_cell(key, series, cpu, parameter))
    return cells, programs


def run_matrix(options, machines):
    suite.packages("fetch", "build", "mutants", *suite.lab_packages(options.cpus))
    with batch.results(Path(options.out) / "matrix") as out:
        cells, programs = find_cells(options, machines)
        Setup(options.tests, cells, 1 if options.jobs > 1 else 0, programs).write(out)
        setup = Setup.read(out)
        batch.run_rest(options, out, "matrix", setup.todo(), len(setup.cells), "cells")
        return table(out)


def parser():
    p = batch.new_parser("lab/matrix", __doc__)
    p.add_argument("--kernels", default=env("KERNELS"))
    p.add_argument("--cpus", default=env("CPUS"))
    p.add_argument("--params", default=env("PARAMS"))
    batch.add_options(p, batch.processors())
    return p


def complete(options, machines):
    """Check the options, and fill in what lab/machines says."""
    if options.params:
        options.params = [word for word in options.params.split() if word != "none"]
    else:
        options.params = [] if options.kernels or options.cpus else list(machines.parameters)
    options.params_on = options.kernels.split() or machines.parameters_on
    # The newest that there is may be newer than the newest one that is known.
    options.kernels = options.kernels.split() or [*machines.kernels, "newest"]
    options.cpus = options.cpus.split() or list(machines.cpus)
    options.tests = options.tests.split() or ["kvm", "x86"]
    for name in options.kernels:
        if not re.fullmatch(r"newest|\d+\.\d+", name):
            die(f"KERNELS: '{name}' is no series of Debian kernels such as {machines.newest}")
    for name in options.cpus:
        if name not in machines.cpus:
            die(f"CPUS: no CPU '{name}': there are {', '.join(machines.cpus)}")
    for word in options.params:
        if not re.fullmatch(r"[A-Za-z0-9._=,-]+", word):
            die(f"PARAMS: '{word}' is no parameter such as nopku or kvm.ignore_msrs=1")
    batch.check_jobs(options)


def main(arguments):
    word, *rest = arguments or [""]
    if word == "one" and len(rest) == 2:
        return one(Path(rest[0]).resolve(), rest[1])
    if word == "table" and len(rest) == 1:
        return table(Path(rest[0]).resolve())
    options, machines = parser().parse_args(arguments), Machines()
    complete(options, machines)
    return run_matrix(options, machines)
