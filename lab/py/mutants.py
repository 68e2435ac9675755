# SPDX-License-Identifier: GPL-2.0-only
"""Inject regressions into the kernel, one after the other, and see whether the suite
notices: what "make mutants" and "make detection" call.

  lab/mutate [OPTION]...            run the mutants; a row for each as it ends, then a table
  lab/mutate detection [OPTION]...  write Documentation/detection.md from what both suites
                                    have left in OUT, with --fast as for the runs
  lab/mutate one OUT PATCH          one job of that, complete in itself: build the kernel with
                                    the patch, run the suite, judge.  OUT holds setup.json and
                                    baseline/ (for another CPU, baseline-CPU/, and for programs
                                    that take that CPU, baseline-also-CPU/); writes OUT/NAME/
                                    and OUT/NAME.json
  lab/mutate table OUT PATCH...     the table of what OUT holds
  lab/mutate check PATCH...         say what is wrong with the headers of patches

Options have the variables of "make mutants" as their defaults (see "make help").
"""

import dataclasses
import datetime
import hashlib
import json
import math
import os
import re
import shutil
import sys
import time
from pathlib import Path

import batch
import detection
import host
import record
import suite
from batch import env
from common import (LAB, TOP, LabError, cache_put, call, die, folder, hash_bytes, hash_file, read_json,
                    say, script, warn, write_text)
from ktap import TIMEOUT
from machines import Machines

# Those of upstream's programs that look at what the mutants break.
UPSTREAM = """kvm/amx_test kvm/msrs_test kvm/xss_msr_test kvm/xcr0_cpuid_test kvm/cpuid_test
    kvm/state_test kvm/set_sregs_test x86/amx_64 x86/avx_64 x86/sigaltstack_64
    x86/corrupt_xstate_header_64 x86/test_shadow_stack_64""".split()
SUITES = {"ours": ["kvm", "x86"], "upstream": [f"upstream/{name}" for name in UPSTREAM],
          "model": ["kvm/x86_64/xstate_model_test"]}

BUILD_LIMIT = 3600
# Where mutants run that name no CPU.
CPU = "spr"

# The kernel's own word on a program that died.
USER_DEATH = re.compile(r"segfault at|traps: .* ip:")
# What the harness says of a test that gave no verdict of its own.
TEST_HANG = re.compile(r"Test terminated by timeout")
TEST_DEATH = re.compile(r"Test terminated unexpectedly by signal")
# What comes with the end of the kernel, not before it.
OOPS = re.compile(r"Kernel panic|Oops|BUG: (unable|kernel)|general protection|Call Trace|\[#\d+\]"
                  r"|the machine was reset")
STALL = re.compile(r"rcu.*(stall|INFO)|soft lockup|hard LOCKUP|blocked for more|hung_task")
# What a log that is not there says of the lab, not of the kernel.
NO_LOG = re.compile(r"is missing or empty$")


class Patch:
    """A patch file and its header: fields of RFC 822, before the first "---"."""

    def __init__(self, path):
        self.path = Path(path)
        self.name = self.path.name.removesuffix(".patch")
        try:
            self.text = self.path.read_text(errors="replace")
        except OSError as error:
            die(f"cannot read the patch {path}: {error.strerror}")
        self.fields = {}
        self.errors = []
        header, _, diff = self.text.partition("\n---\n")
        self.files = re.findall(r"^\+\+\+ b/(\S+)", diff, re.M)
        field = None
        for line in header.split("\n"):
            match = re.match(r"([A-Z][a-z]+): *(.*)$", line)
            if match:
                field = match.group(1)
                self.fields[field] = match.group(2).strip()
            elif line.startswith((" ", "\t")) and field:
                self.fields[field] += " " + line.strip()
            elif line:
                self.errors.append(f"no field: '{line}'")
        self.check()

    def check(self):
        wanted = ["Subject", "Expect", "Needs", "Symptom"]
        if self.cpu not in Machines().cpus:
            self.errors.append(f"Cpu: lab/machines has no '{self.cpu}'")
        if self.expect not in ("killed", "equivalent"):
            self.errors.append(f"Expect: is '{self.expect}', not killed or equivalent")
        if self.fields.get("Needs") not in detection.NEEDS:
            self.errors.append(f"Needs: is none of {', '.join(detection.NEEDS)}")
        if self.expect == "equivalent":
            wanted.append("Why")
        for field in wanted:
            if not self.fields.get(field):
                self.errors.append(f"no {field}:")
        if not self.files:
            self.errors.append("no diff after a line with three dashes")

    @property
    def expect(self):
        return self.fields.get("Expect", "")

    @property
    def cpu(self):
        return self.fields.get("Cpu", CPU)

    def baseline(self, out):
        """The run on the unpatched kernel to compare with."""
        return record.Run(out / baseline_name(self.cpu))

    @property
    def also(self):
        """{CPU: programs} of those that run beside the suite."""
        return Machines().also if self.cpu == CPU else {}

    def key(self, setup_key):
        return patch_key(setup_key, self.text)


def patch_key(setup_key, text):
    """Of a kernel, an emulator and a patch."""
    return hashlib.sha256((setup_key + text).encode()).hexdigest()[:16]


@dataclasses.dataclass
class Setup:
    """What the jobs of one folder of results share: OUT/setup.json."""
    key: str                    # of kernel and emulator
    series: str = ""            # whose source the patches change
    plain: str = ""             # name of the folder of the unpatched kernel
    tests: list = dataclasses.field(default_factory=list)
    fast: bool = True           # stop at the first program that fails
    keep: bool = False          # keep the kernels
    limit: int = 3600           # seconds of wall time: for a host that hangs as a whole
    parallel: int = 1           # programs at a time
    programs: dict = dataclasses.field(default_factory=dict)    # {name: hash}, of all that may run

    @classmethod
    def read(cls, out):
        path = out / "setup.json"
        try:
            return cls(**read_json(path))
        except TypeError:
            return die(f"{path} is missing or not of this lab: run 'make mutants' first")

    def write(self, out):
        write_text(out / "setup.json", json.dumps(dataclasses.asdict(self), indent=1) + "\n")


# --- verdicts ---

def statuses(run):
    """{(program, test): status}, with "" as the test for the program itself."""
    found = {}
    for program in run.programs:
        found[program.name, ""] = program.status
        for result in program.results:
            found[program.name, result.name] = result.status
    return found


def short(name):
    return name.split("/")[-1]


class Verdict:
    """What runs on an injected kernel show that the baseline of each does not."""

    def __init__(self, *pairs):
        self.kills = {"assertion": [], "warning": [], "hang": [], "crash": []}
        self.skipped = []
        # Stopped, or not even begun: no failure of theirs, and no success either.
        self.never_ran = []
        self.doubts = []            # why the run itself may say nothing
        for baseline, run in pairs:
            self.add(baseline, run)

    def add(self, baseline, run):
        self.base = statuses(baseline)
        for program in run.programs:
            if program.stopped or not program.began:
                self.never_ran.append(program.name)
            else:
                self.add_program(program)
        self.add_missing(run)
        self.add_kernel(run)
        self.add_ends(run)

    def add_program(self, program):
        blamed = False
        for result in program.results:
            was = self.base.get((program.name, result.name), "missing")
            where = f"{short(program.name)}:{result.name}"
            if result.status == "fail" and was != "fail":
                blamed = True
                said = "\n".join(result.diagnostics)
                kind = ("hang" if TEST_HANG.search(said) else
                        "crash" if TEST_DEATH.search(said) else "assertion")
                self.kills[kind].append(where)
            elif result.status == "skip" and was in ("pass", "xfail"):
                self.skipped.append(where)
        was = self.base.get((program.name, ""), "missing")
        if program.status == "skip" and was in ("pass", "xfail") and not program.results:
            self.skipped.append(short(program.name))
        elif program.status == "fail" and program.ended and was != "fail":
            self.add_errors(program, blamed)

    def add_errors(self, program, blamed):
        """Why a program that ended has failed, apart from its results."""
        name, code = short(program.name), program.exit_code
        # What kernel and machine had to say comes from them, see below.
        errors = [e for e in program.errors if not e.startswith(("the kernel: ", "after its end: "))]
        if code in (TIMEOUT, 128 + 15):
            self.kills["hang"].append(name)
        elif 128 < code < 254:
            self.kills["crash"].append(f"{name} (signal {code - 128})")
        elif not blamed and (errors or not program.errors):
            self.kills["assertion"].append(f"{name} ({errors[0] if errors else program.reason})")

    def add_missing(self, run):
        """Results that do not come although their program ran to its end."""
        found = statuses(run)
        ended = {p.name for p in run.programs if p.ended and not p.errors}
        for (program, test), status in self.base.items():
            if status in ("pass", "xfail") and program in ended and (program, test) not in found:
                self.skipped.append(f"{short(program)}:{test} (missing)")

    def add_kernel(self, run):
        crashed = set()
        for event in run.events:
            text = f"{event.where}: {event.line}" if event.where else event.line
            if USER_DEATH.search(event.line):
                continue        # the program's own result shows it
            if NO_LOG.search(event.line):
                self.doubts.append(text)
            elif STALL.search(event.line):
                self.kills["hang"].append(text)
            elif event.machine.end == "ok" or not OOPS.search(event.line):
                self.kills["warning"].append(text)
            elif event.machine not in crashed:
                crashed.add(event.machine)
                self.kills["crash"].append(text)

    def add_ends(self, run):
        """How machines ended, unless the kernel has said so itself."""
        end, why = run.record.get("end", ""), run.record.get("why", "")
        told = {e.machine for e in run.events if OOPS.search(e.line) and not USER_DEATH.search(e.line)}
        for machine in run.machines:
            names = [p.name for p in machine.programs if p.machine_end[0] != "ok" and p.began]
            text = f"{names[-1]}: {machine.why}" if names else machine.why
            if machine.end in record.HANGS or machine.end == "flood":
                self.kills["hang"].append(text)
            elif machine.end == "died" == end:
                continue        # with the emulator that forks them, which runs no test
            elif machine.end in record.CRASHES and machine not in told:
                self.kills["crash"].append(text)
        if end == "limit" and not self.kills["hang"]:
            self.kills["hang"].append(why)
        elif end == "boot" and not any(self.kills.values()):
            self.kills["crash"].append(f"it does not boot: {why}")
        elif end in ("", "died", "interrupted", "disk"):
            self.doubts += [why] if why else run.problems

    def word(self):
        if self.kills["assertion"] or self.kills["warning"]:
            return "killed"
        for kind in ("crash", "hang"):
            if self.kills[kind]:
                return kind
        if self.never_ran or self.doubts:
            return "error"
        return "skipped" if self.skipped else "survived"

    def summary(self):
        if self.word() == "error":
            why = self.doubts or [f"these never ran: {first(self.never_ran)}"]
            return f"nothing failed, but {why[0]}"
        parts = [f"{kind}: {first(items)}" for kind, items in self.kills.items() if items]
        if self.skipped:
            parts.append(f"skipped: {first(self.skipped)}")
        return "; ".join(parts)


def first(items):
    text = ", ".join(items[:2])
    return f"{len(items)} ({text}, ...)" if len(items) > 2 else text


# --- rows and tables ---

def new_row(setup, patch):
    return {"name": patch.name, "subject": patch.fields.get("Subject", ""), "expect": patch.expect,
            "needs": patch.fields.get("Needs", ""), "files": patch.files,
            "why": patch.fields.get("Why", ""), "key": patch.key(setup.key), "kills": {}, "skipped": [],
            "programs": setup.programs, "killers": [], "build_seconds": 0, "run_seconds": 0, "cpu_seconds": 0}


def judge(row, *pairs):
    """Fill in what pairs of a baseline and a run say."""
    verdict = Verdict(*pairs)
    row.update(verdict=verdict.word(), summary=verdict.summary(), kills=verdict.kills,
               skipped=verdict.skipped, killers=sorted({name for pair in pairs for name in killers(*pair)}))


def killers(baseline, run):
    """Names of the programs that fail on the injected kernel alone."""
    was = {p.name: p.status for p in baseline.programs}
    return [p.name for p in run.programs
            if p.status == "fail" and not p.stopped and was.get(p.name) != "fail"]


def holds(row, programs):
    """Whether a verdict is that of these programs ({name: hash}), too: none has changed, or it was
    noticed and none of those that noticed it has.
    """
    ran, noticed = row["programs"], row["killers"]
    return ran == programs or row["verdict"] == "killed" and bool(noticed) and \
        all(ran.get(name) == programs.get(name) for name in noticed)


def finish(row, out):
    """Write OUT/NAME.json and print the row."""
    wanted = {"killed": "killed", "equivalent": "survived"}
    row["good"] = row["verdict"] == wanted.get(row["expect"], "")
    write_json(out / f"{row['name']}.json", row)
    print(line(row), flush=True)


def line(row):
    seconds = row["build_seconds"] + row["run_seconds"]
    mark = "" if row["good"] else f" (expected: {row['expect'] or 'nothing'})"
    return f"{row['verdict']:8} {row['name']}{mark}: {row['summary'] or '-'} [{seconds} s]"


def write_json(path, data):
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def read_row(out, setup, patch):
    """The row of a patch, if it is of this setup, or would be the same."""
    row = read_json(out / f"{patch.name}.json")
    return row if row and row["key"] == patch.key(setup.key) and holds(row, setup.programs) else None


def todo(out, setup, patches):
    """Those that have no verdict yet; errors are tried again."""
    rows = [(patch, read_row(out, setup, patch)) for patch in patches]
    return [patch for patch, row in rows if row is None or row["verdict"] == "error"]


def markdown(rows):
    lines = ["| mutant | needs | expected | verdict | by | seconds | CPU |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        mark = "" if row["good"] else " (!)"
        lines.append(f"| {row['name']} | {row['needs']} | {row['expect']} | {row['verdict']}{mark} | "
                     f"{detection.cell(row['summary'])} | {row['build_seconds'] + row['run_seconds']} | "
                     f"{row['cpu_seconds']} |")
    return "\n".join(lines) + "\n"


def table(out, patches):
    """Print all verdicts, and write OUT/table.md and OUT/table.json.

    The exit status is 0 only if each patch that expects to be killed was, by an
    assertion or a kernel warning, and each equivalent one survived.
    """
    setup = Setup.read(out)
    rows = [read_row(out, setup, patch) for patch in patches]
    bad = [p.name for p, row in zip(patches, rows) if row is None or not row["good"]]
    rows = [row for row in rows if row]
    text = markdown(rows)
    write_text(out / "table.md", text)
    write_json(out / "table.json", {"kernel": record.Run(out / "baseline").kernel,
                                    "date": datetime.date.today().isoformat(), "mutants": rows})
    print(text, end="", flush=True)
    counts = {}
    for row in rows:
        word = f"{row['expect'] or 'nothing'}/{row['verdict']}"
        counts[word] = counts.get(word, 0) + 1
    warn(f"{len(rows)} mutants (expected/verdict): " +
         ", ".join(f"{n} {word}" for word, n in sorted(counts.items())))
    used = [row["cpu_seconds"] for row in rows if row["cpu_seconds"]]
    if used:
        warn(f"{sum(used) / len(used):.0f} CPU seconds for each on average")
    if bad:
        warn(f"{len(bad)} not as expected: {' '.join(bad)}")
    return int(bool(bad))


# --- one mutant ---

def limits(run, jobs):
    """[(job, seconds inside the machine)] with three times that, and ten, as its limit.

    Programs that fail on the unpatched kernel in a way that nobody knows are left out.
    """
    status = {p.name: p.status for p in run.programs}
    found = []
    for job in jobs:
        if status.get(job.name, "fail") != "fail":
            seconds = run.seconds.get(job.name, 0)
            found.append((dataclasses.replace(job, seconds=math.ceil(3 * seconds + 10)), seconds))
    return found


def order(out, patch, baseline, jobs):
    """Jobs with their limits, by what each should kill in a second.

    Mutants of the same files weigh four times as much as others.  Programs that fail on
    the unpatched kernel as well (XFAIL) go last: those end a run with FAST=1, always.
    """
    kills = {}
    for path in out.glob("*.json"):
        # Another job may have taken it away, to write it anew.
        rows = read_json(path) or {}
        for row in rows.get("mutants", [rows] if "kills" in rows else []):
            weight = 4 if set(row["files"]) & set(patch.files) else 1
            for name in {item.split(":")[0].split(" ")[0] for item in row["kills"].get("assertion", [])}:
                kills[name] = kills.get(name, 0) + weight
    fails = {p.name for p in baseline.programs if p.exit_code not in (0, 4)}

    def rank(item):
        job, seconds = item
        return job.name in fails, -(1 + kills.get(short(job.name).split(":")[0], 0)) / max(seconds, 0.1)
    return [job for job, _ in sorted(limits(baseline, jobs), key=rank)]


def children_cpu():
    times = os.times()
    return times.children_user + times.children_system


def build(setup, patch, work, kernel):
    """Build the kernel with the patch, at kernel."""
    if kernel.exists():
        return
    new = work / "kernel"
    log = work / "log"
    if call([LAB / "kernel/build", "-o", new, setup.series, patch.path], BUILD_LIMIT, log=log):
        said = log.read_text(errors="replace").splitlines() or ["lab: the kernel was not built: no word why"]
        if (new / "build.log").exists():
            shutil.move(new / "build.log", work / "build.log")
        shutil.rmtree(new, ignore_errors=True)
        die(said[-1].removeprefix("lab: ").replace("/kernel/build.log", "/build.log"))
    if kernel != new:
        folder(kernel.parent)
        new.rename(kernel)


def try_one(out, setup, patch, row):
    """Fill in the row; LabError tells why there can be no verdict."""
    if patch.errors:
        die(f"{patch.path}: {patch.errors[0]}")
    work = folder(out / patch.name)
    kernel = work / "kernel"
    if setup.keep:
        kernel = out.parent / "kernels" / f"{setup.plain}-{hash_file(patch.path)[:16]}"
    begin = time.monotonic()
    try:
        build(setup, patch, work, kernel)
        built = time.monotonic()
        cpu = children_cpu()
        baseline = patch.baseline(out)
        jobs = suite.select(setup.tests, suite.build(setup.series))
        options = host.Options(
            out=work, jobs=order(out, patch, baseline, jobs) if setup.fast else
            [j for j, _ in limits(baseline, jobs)],
            kernel=str(kernel), append=suite.APPEND, limit=setup.limit, parallel=setup.parallel,
            ordered=True, fast=setup.fast, once=True, cpu=patch.cpu)
        run, more = batch.run_twice(patch.name, options)
        batch.write_report(work)
        cpu += more
        pairs = [(baseline, run)]
        for name, programs in patch.also.items():
            if setup.fast and Verdict(*pairs).word() == "killed":
                break
            baseline = record.Run(out / baseline_name(name, True))
            some = [j for j, _ in limits(baseline, jobs) if j.name in programs]
            if some:
                run, more = batch.run_twice(patch.name, dataclasses.replace(
                    options, out=folder(work / f"also-{name}"), jobs=some, cpu=name))
                batch.write_report(work / f"also-{name}")
                cpu += more
                pairs.append((baseline, run))
    finally:
        if not setup.keep:
            shutil.rmtree(kernel, ignore_errors=True)
    row.update(build_seconds=round(built - begin), run_seconds=round(time.monotonic() - built),
               cpu_seconds=round(cpu))
    judge(row, *pairs)


def one(out, path):
    setup, patch = Setup.read(out), Patch(path)
    row = new_row(setup, patch)
    (out / f"{patch.name}.json").unlink(missing_ok=True)
    shutil.rmtree(out / patch.name, ignore_errors=True)
    try:
        try_one(out, setup, patch, row)
    except LabError as error:
        row.update(verdict="error", summary=str(error))
    finish(row, out)
    return 0


# --- all of them ---

def find_patches(words):
    """Files, folders, and names (or patterns of names) of lab/mutants."""
    found = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            more = sorted(path.resolve().glob("*.patch"))
            if not more:
                die(f"MUTANTS='{word}': no file NAME.patch in this folder")
        elif path.is_file():
            more = [path.resolve()]
        else:
            more = sorted((LAB / "mutants").glob(f"{word.removesuffix('.patch')}.patch")) \
                if re.fullmatch(r"[^/]+", word) else []
            if not more:
                die(f"MUTANTS='{word}': no such folder, patch or name in lab/mutants")
        found += more
    names = [path.name for path in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        die(f"MUTANTS: two patches have the same name: {' '.join(twice)}")
    return [Patch(path) for path in found]


def suite_name(options):
    name = options.suite + ("" if options.fast == "1" else "-all")
    return name + (f"-{hash_bytes(options.tests)}" if options.tests else "")


def baseline_name(cpu, also=False):
    """also: not of the suite, but of the programs that lab/machines names for that CPU."""
    return f"baseline-also-{cpu}" if also else "baseline" if cpu == CPU else f"baseline-{cpu}"


def make_baseline(work, name, out, options, plain, jobs, cpu):
    """The suite has to pass on the unpatched kernel, but for what upstream's cannot."""
    say(f"running {'the suite' if len(jobs) > 1 else jobs[0].name} on the unpatched kernel, on {cpu}")
    run, _ = batch.run_twice("the unpatched kernel", host.Options(
        out=work, jobs=jobs, kernel=str(plain), append=suite.APPEND, limit=3600, cpu=cpu))
    if batch.write_report(work) and (options.suite != "upstream" or run.trouble()):
        copy_baseline(work, out / name)
        for text in (work / "report.ktap").read_text().splitlines():
            if text.lstrip().startswith("not ok"):
                print(text, file=sys.stderr)
        die(f"the suite fails on the unpatched kernel: see {out / name}")


def copy_baseline(work, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(work, target, symlinks=True)


def baselines(jobs, patches):
    """[(folder, CPU, jobs)]: all that these patches are to be compared with."""
    good = [patch for patch in patches if not patch.errors]
    found = [(baseline_name(cpu), cpu, jobs) for cpu in sorted({patch.cpu for patch in good} | {CPU})]
    also = {cpu: programs for patch in good for cpu, programs in patch.also.items()}
    for cpu, programs in also.items():
        some = [job for job in jobs if job.name in programs]
        if some:
            found.append((baseline_name(cpu, True), cpu, some))
    return found


def prepare(out, options, patches):
    """Run the suite on the unpatched kernel, on each CPU; returns the setup of the jobs, and the
    names of the baselines.
    """
    plain = Path(script("kernel/build", options.kernel))
    built = suite.build(options.kernel)
    emulator = host.emulator_name(Machines().cpu(CPU))
    tests = options.tests.split() or SUITES[options.suite]
    jobs = suite.select(tests, built)
    key = hash_bytes(plain.name, emulator, " ".join(tests))
    programs = suite.hash_programs(jobs)
    suite_key = hash_bytes(key, *(f"{name} {value}" for name, value in programs.items()))
    seconds, names = 0, []
    for name, cpu, some in baselines(jobs, patches):
        # Jobs on other machines make it for themselves; here it takes none of their time.
        host.emulator_name(Machines().cpu(cpu))
        copy_baseline(cache_put(
            name.replace("baseline", f"baseline-{suite_key}"), lambda work, name=name, some=some, cpu=cpu:
            make_baseline(work, name, out, options, plain, some, cpu)), out / name)
        base = record.Run(out / name).record
        # On two processors the baseline took half the time that one mutant takes on its own.
        seconds = max(seconds, base["seconds"], base.get("cpu_seconds", 0))
        names.append(name)
    side_by_side = options.jobs > 1
    setup = Setup(key=key, series=options.kernel, plain=plain.name, tests=tests,
                  fast=options.fast == "1", keep=options.keep == "1", limit=round(5 * seconds + 120),
                  parallel=1 if side_by_side else 0, programs=programs)
    setup.write(out)
    return setup, names


def run_mutants(options):
    patches = find_patches(options.mutants.split())
    suite.packages("fetch", "build", "lab", "kernel", "mutants")
    with batch.results(Path(options.out) / "mutants" / suite_name(options)) as out:
        setup, names = prepare(out, options, patches)
        some = todo(out, setup, patches)
        if some:
            say(f"{len(some)} of {len(patches)} mutants to run, {options.jobs} at a time")
            carry = ["--transferfile", "{}", "--return", f"{out}/{{/.}}.json", "--return", f"{out}/{{/.}}",
                     "--basefile", out / "setup.json"]
            for name in names:
                carry += ["--basefile", out / name]
            seconds = batch.run_jobs(options, out, "mutate", [patch.path for patch in some],
                                     BUILD_LIMIT + 4 * setup.limit + 600, carry)
            warn(f"{seconds:.0f} s for {len(some)} mutants")
        return table(out, patches)


def write_detection(options):
    mutants = Path(options.out) / "mutants"
    folders = [mutants / f"{name}{'' if options.fast == '1' else '-all'}" for name in SUITES]
    # What the model test notices on its own is a column where somebody has asked.
    if not (folders[-1] / "table.json").exists():
        folders.pop()
    text = detection.text(folders, fast=options.fast == "1")
    write_text(TOP / "Documentation/detection.md", text)
    return 0


def parser():
    p = batch.new_parser("lab/mutate", __doc__)
    p.add_argument("command", nargs="?", choices=["detection"])
    p.add_argument("--mutants", default=env("MUTANTS", str(LAB / "mutants")))
    p.add_argument("--suite", default=env("SUITE", "ours"))
    p.add_argument("--kernel", default=env("KERNEL", Machines().newest))
    p.add_argument("--fast", default=env("FAST", "1"))
    p.add_argument("--keep", default=env("KEEP", "0"))
    batch.add_options(p, batch.processors() + 1)
    return p


def check_options(options):
    if options.suite not in SUITES:
        die(f"SUITE='{options.suite}': there are {', '.join(SUITES)}")
    if options.fast not in ("0", "1"):
        die(f"FAST='{options.fast}': FAST=1 stops at the first failure, FAST=0 runs all")
    if options.keep not in ("0", "1"):
        die(f"KEEP='{options.keep}': KEEP=1 keeps the kernels, KEEP=0 does not")
    if not re.fullmatch(r"\d+\.\d+", options.kernel):
        die(f"KERNEL='{options.kernel}': mutants need the source of a Debian series such as "
            f"{Machines().newest}")
    batch.check_jobs(options)


def check(paths):
    bad = [f"{path}: {error}" for path in paths for error in Patch(path).errors]
    for text in bad:
        print(text)
    return int(bool(bad))


def main(arguments):
    word, *rest = arguments or [""]
    if word == "check" and rest:
        return check(rest)
    if word == "one" and len(rest) == 2:
        return one(Path(rest[0]).resolve(), rest[1])
    if word == "table" and len(rest) > 1:
        return table(Path(rest[0]).resolve(), [Patch(path) for path in rest[1:]])
    options = parser().parse_args(arguments)
    check_options(options)
    return write_detection(options) if options.command else run_mutants(options)
