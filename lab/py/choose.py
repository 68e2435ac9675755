# SPDX-License-Identifier: GPL-2.0-only
"""Which programs and rows to run: the words of TESTS=, what failed last time, and the list
of all that there is."""

import difflib
import re
from fnmatch import fnmatchcase
from pathlib import Path

import host
import record
import rows
from common import TOP, die
from machines import Machines
from reasons import Scope

# What one program may take, in time inside the machine.
SECONDS = 120


def programs(built):
    """All of them; ours come first, where upstream has one of that name."""
    def found(*parts):
        return sorted(str(p.relative_to(built)) for part in parts
                      for p in (built / part).rglob("*") if p.is_file())
    return found("kvm", "x86") + found("upstream")


def is_pattern(word):
    """Whether a word of TESTS= is one, or a row without its program, of whose names none has a dot."""
    return bool(set(word) & set("*?[")) or "." in word and ":" not in word


def short(name):
    """The names that a program goes by."""
    path = name.removesuffix("_64")
    return (name, path, Path(name).name, Path(path).name)


def job(built, program, tests, name=""):
    """A job for those rows of a program; None: for all."""
    arguments = [word for row in tests or [] for word in ("-r", row)]
    return host.Job(name or program, SECONDS, built / program, arguments)


def is_row(row, pattern):
    """Whether a pattern means the row, with its fixture or, as that has the program's name, without."""
    return fnmatchcase(row, pattern) or fnmatchcase(row.partition(".")[2], pattern)


def by_pattern(word, names, built):
    """The jobs for a word with *, ? or [ in it: a pattern of programs, or of rows."""
    program, colon, pattern = word.partition(":")
    found = [n for n in names if any(fnmatchcase(text, program) for text in short(n))]
    if not colon:
        if found:
            return [job(built, name, None) for name in found]
        found, pattern = names, word
    jobs = []
    for name in found:
        known = rows.flat(rows.of_program(built / name))
        chosen = [row for row in known if is_row(row, pattern)]
        if chosen == known and chosen:
            jobs.append(job(built, name, None))
        elif chosen:
            jobs.append(job(built, name, chosen, f"{name}:{chosen[0] if len(chosen) == 1 else pattern}"))
    return jobs


def by_name(word, names, built):
    """The jobs for a word without."""
    program, colon, test = word.partition(":")
    arguments = []
    if colon:
        if not re.fullmatch(r"[A-Za-z0-9_.]+", test):
            die(f"TESTS='{word}': what follows the colon is no name of a test")
        base = program.rpartition("/")[2].removesuffix("_test")
        arguments = {0: ["-t", test], 1: ["-r", f"{base}.{test}"]}.get(test.count("."), ["-r", test])
    found = [n for n in names if program in short(n)][:1]
    found = found or [n for n in names if n.startswith(program + "/")]
    jobs = []
    for name in found:
        known = rows.of_program(built / name) if colon else {}
        # A row has its fixture's name first, which need not be the program's.
        words = ["-r", test] if test in rows.flat(known) else arguments
        jobs.append(host.Job(name + colon + test, SECONDS, built / name, words))
        if known and not chosen(jobs[-1], known):
            die(f"TESTS='{word}': {name} has no such test; 'make list' shows all")
    return jobs


def chosen(one, tests):
    """The rows that a job runs, of a program with these tests."""
    words = set(one.arguments[1::2])
    if one.arguments[:1] == ["-t"]:
        return [row for row in rows.flat(tests) if row.rpartition(".")[2] in words]
    return [row for row in rows.flat(tests) if not words or row in words]


def no_match(word, names):
    program = word.partition(":")[0]
    known = {text: None for name in names for text in short(name)}
    close = "" if is_pattern(word) else ", ".join(difflib.get_close_matches(program, known, 3))
    what = "no program and no row is like that" if is_pattern(word) else "no such program"
    die(f"TESTS='{word}': {what}" + (f", but {close}" if close else "") + "; 'make list' shows all")


def select(tests, built):
    """The jobs that the words of TESTS= mean, in their order.

    A word is a program (xstate_perm_test, x86/amx_64), a folder (upstream), a row as "make
    list" has it, or PROGRAM:TEST, PROGRAM:VARIANT.TEST, where the fixture is called after the
    program, or PROGRAM:ROW.  Or it is a pattern as in a shell, of programs, of rows
    (*.guest_amx_*.xcomp_bv), or of both with a colon.  Without any, upstream's programs go
    first: they tell a wrong machine from a wrong kernel.
    """
    names, jobs = programs(built), []
    for word in tests or ["upstream", "kvm", "x86"]:
        found = (by_pattern if is_pattern(word) else by_name)(word, names, built)
        jobs += found or no_match(word, names)
    # What two words mean runs once.
    return list({one.name: one for one in jobs}.values())


# --- what failed last time ---

def last_run(out):
    """The run in the folder, if lab/kselftest has made it."""
    found = record.read(out)
    if not found or found.get("command") != "kselftest":
        die(f"FAILED=1: there was no run in {out}: run 'make kselftest' first, or name its folder with O=")
    return record.Run(out)


def failed(run, built):
    """The jobs that run again what failed in it, and nothing else."""
    known = run.record.get("rows", {})
    jobs = []
    for program in run.programs:
        bad = [r.name for r in program.results if r.status == "fail"]
        if program.status != "fail":
            continue
        name = program.marker.partition(":")[0]
        if not (built / name).is_file():
            die(f"FAILED=1: {name} has failed, and is not there any more: name what to run with TESTS=")
        if program.errors or not set(bad) <= set(rows.flat(rows.of_program(built / name))):
            # The program as a whole, or as much of it as was to run.
            jobs += [job(built, name, known[program.marker], program.marker)] if program.marker in known \
                else select([program.marker], built)
        else:
            jobs.append(job(built, name, bad, f"{name}:{bad[0]}" + (f",+{len(bad) - 1}" if bad[1:] else "")))
    if not jobs and any(r.status == "fail" for r in run.extra_results()):
        # The kernel or the run, and no program to blame.
        for marker in run.planned:
            jobs += [job(built, marker.partition(":")[0], known[marker], marker)] if marker in known \
                else select([marker], built)
    return jobs


def rows_of(jobs):
    """{name: rows} of those whose name does not tell them, for run.json."""
    return {j.name: j.arguments[1::2] for j in jobs if ",+" in j.name}


# --- the list ---

class Needs:
    """What a program or a test needs, by the reasons for which it may skip."""

    def __init__(self):
        self.machines = Machines()
        self.scope = Scope(TOP / "tools/testing/selftests")
        self.since = {f: ".".join(map(str, first)) for first, features in self.machines.since
                      for f in features}

    def words(self, reasons):
        """Features of lab/machines; what all machines of the lab have needs no word."""
        found = set()
        for reason in reasons:
            known = self.machines.reason(reason)
            found |= known.features if known else set()
        found -= {"everywhere"}
        return " ".join(f"{f}({self.since[f]})" if f in self.since else f for f in sorted(found))

    def of_program(self, name):
        return self.words(self.scope.of_program(source(name)))

    def of_test(self, name, test):
        mine = self.scope.of_test(source(name), test) - self.scope.of_program(source(name))
        return self.words(mine)


def source(program):
    """The name of its source, without the suffix."""
    return re.sub(r"_(32|64)$", "", program) if program.startswith("x86/") else program


HEAD = """\
# A program, then its rows, or "*" for so many variants of one: TESTS= takes what is listed.
# [What it skips without, in one variant at least, as lab/machines calls it, and since when
# Linux has it.]"""


def listing(jobs, built, is_chosen):
    """The lines of "make list": a program, and below it its tests, or those rows that were chosen."""
    needs, lines = Needs(), [HEAD]
    for one in jobs:
        name = one.name.partition(":")[0]
        tests = rows.of_program(built / name)
        words = needs.of_program(name)
        lines.append(name + (f"  [{words}]" if words else ""))
        wanted = set(chosen(one, tests))
        for test, variants in tests.items():
            words = needs.of_test(name, test)
            found = [row for row in rows.names(test, variants) if row in wanted]
            if not is_chosen and len(variants) > 1:
                fixture, _, last = test.partition(".")
                found = [f"{fixture}.*.{last} ({len(variants)})"]
            lines += [f"  {row}" + (f"  [{words}]" if words else "") for row in found]
    return lines
