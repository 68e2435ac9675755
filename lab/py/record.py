# SPDX-License-Identifier: GPL-2.0-only
"""What a run has left in its folder, and the one place where it is judged.

A run is a folder with run.json (write() below tells what is in it) and one folder for
each machine that ran: the boot, and a copy of it for each job.  A machine's folder has

  results.log   stdout and stderr of its programs, between lines of their own:
                "@lab begin NAME", "@lab end NAME EXITCODE", "@lab done TAINT"
  console.log   the kernel log, with "lab: begin NAME" and "lab: end NAME" lines in it

A warning, an oops, taint, a reset or a panic belongs to the program that ran at that
moment, or had just ended; what comes before the first one, to the boot.
"""

import json
import re
from collections import Counter, namedtuple

from common import LAB, write_text
from ktap import Program, Result, clean

# What the kernel log must not hold.
TROUBLE = re.compile("|".join((
    r"(^|\] *)WARNING: ",
    r"BUG: |BUG at ",
    r"Oops|\[#[0-9]+\]",
    r"Kernel panic",
    r"Call Trace:",
    r"general protection fault",
    r"unable to handle",
    r"segfault at",
    r"unchecked MSR access",
    r"Bad FPU state",
    r"consistency problem",
    r"rcu: INFO|rcu.* stall",
    r"soft lockup|hard LOCKUP",
    r"blocked for more than|hung_task",
    r"INFO: possible|INFO: suspicious",
    r"scheduling while atomic|sleeping function called",
    r"[KU](ASAN|BSAN|CSAN|MSAN): |KFENCE: ",
    r"refcount_t: |list_(add|del) corruption",
    # Without KVM most tests would skip, so that all seemed well: a note of lab/guest/init.
    r"lab: cannot load kvm",
    r"unknown parameter '.*' ignored",
)))
# A fault that a test has asked for, after which the kernel may tell who has no memory, and
# show where that was: no report of anything else is that trace alone.
INJECTED = "FAULT_INJECTION: forcing a failure"
TRACE = re.compile(r"^\W*Call Trace:")
# Lines that follow another one in the same report of the kernel.
MINOR = re.compile(r"Call Trace:|Tainted: |end trace|\[#[0-9]+\]")
TIMESTAMP = re.compile(r"^(?:<\d+>)?\[\s*(\d+\.\d+)\](?:\[\s*[TC]\d+\])?\s?")
PANIC = "Kernel panic - not syncing"
# A program may leave its last line open, so that a marker need not start one.
MARKER = re.compile(r"(.*?)@lab (begin|end|done)\b ?(\S*) ?(\d*)$")

# How a machine can end, beside "ok": kind, what it means for the kernel.
CRASHES = ("panic", "reset", "died")
HANGS = ("hang", "stall", "limit")

Event = namedtuple("Event", "where line machine")


# A problem of a run whose programs all have skipped.
NOTHING_RAN = "all programs were skipped: nothing was tested"
# Of a log that was stopped for its size.
HEAD, TAIL = 1 << 20, 1 << 16


def read_lines(path, is_flood=False):
    data = path.read_bytes()
    if is_flood and len(data) > HEAD + TAIL:
        data = data[:HEAD] + b"\n... and so on ...\n" + data[-TAIL:]
    data = data.replace(b"\0", b"")
    return [clean(line) for line in data.decode("utf-8", "replace").split("\n")]


def read_known():
    """lab/selftests/upstream-known: failures of upstream's programs that are understood."""
    known = []
    for line in (LAB / "selftests" / "upstream-known").read_text().splitlines():
        if line and not line.startswith("#"):
            program, kernel, output, reason = re.split(r"\t+", line)
            known.append((program, re.compile(kernel), re.compile(output), reason))
    return known


def write(folder, record):
    """Write run.json.

    planned    names of the programs to run, in the order of the report
    machines   [{"folder": below the run's, "boot": true for the boot alone,
                 "programs": names, "end": kind, "why": text}]; kinds are "ok", those of
                 CRASHES and HANGS, "flood" (too much output) and "stopped"
    end, why   of the run as a whole: "ok", "boot" (it did not come up), "limit",
               "stopped" (at the first failure, as asked), "interrupted", "disk"
    release    of the kernel, where console.log does not begin with its boot
    started    when, as in "2026-11-30T22:37:12+00:00"
    seconds    wall time
    and whatever else there is to say of the run.
    """
    write_text(folder / "run.json", json.dumps(record, indent=1) + "\n")


def read(folder):
    """run.json, or None if there is none that is whole and of this lab."""
    try:
        found = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return None
    return found if is_record(found) else None


def is_record(found):
    return isinstance(found, dict) and all(
        isinstance(m, dict) and "folder" in m and "end" in m for m in found.get("machines", []))


def numbered(name, before):
    """The name of a program that so many of that name come before."""
    return f"{name} ({before + 1})" if before else name


class Machine:
    """One machine: what it printed, and how it ended."""

    def __init__(self, run, entry):
        self.run = run
        self.folder = run.folder / entry["folder"]
        self.is_boot = entry.get("boot", False)
        self.end, self.why = entry["end"], entry.get("why", "")
        self.planned = entry.get("programs", [])
        self.programs = []
        self.done = False           # all of its programs have run
        self.log_readable = True
        self.kernel = ""            # "7.3.4+deb13-cloud-amd64"
        self.seconds = {}           # of programs, inside the machine
        self.read_results()
        self.read_console()
        self.tell_programs()

    def event(self, where, line):
        self.run.events.append(Event(where, line, self))

    def program(self, name):
        program = self.run.program(name)
        self.programs.append(program)
        return program

    def read_results(self):
        path = self.folder / "results.log"
        current, current_name = None, ""
        for line in read_lines(path, self.end == "flood") if path.exists() else []:
            match = MARKER.match(line)
            text = match.group(1) if match else line
            if current is not None and (text or not match):
                current.lines.append(text)
            if not match:
                continue
            word, name, code = match.group(2, 3, 4)
            if word == "begin":
                current, current_name = self.program(name), name
                current.began = True
            elif word == "end":
                if current is None or name != current_name or not code:
                    self.run.problems.append(f"stray marker: {line}")
                    continue
                current.ended, current.exit_code = True, int(code)
                current = None
            else:
                self.done, current = True, None
                if name not in ("", "0"):
                    where = self.programs[0].name if len(self.programs) == 1 else ""
                    self.event(where, f"the kernel became tainted ({name})")
        if not path.exists() and not self.is_boot and self.end == "ok":
            self.end, self.why = "died", f"{path} is missing: nothing ran"
        for name in never_ran(self.planned, self.programs):
            self.program(name)

    def read_console(self):
        path = self.folder / "console.log"
        lines = read_lines(path, self.end == "flood") if path.exists() else []
        if not any(lines) and (self.is_boot or self.end == "ok"):
            self.event("", f"{path} is missing or empty")
        # Before the first program all is the boot's, or that of the only one.
        where = self.programs[0].name if len(self.programs) == 1 else ""
        banners, last_event, begin, seen, injected = 0, None, {}, Counter(), False
        for number, line in enumerate(lines):
            stamp = TIMESTAMP.match(line)
            text = TIMESTAMP.sub("", line)
            word, _, name = text.partition(": ")[2].partition(" ") if text.startswith("lab: ") else ("", "", "")
            if word == "begin":
                injected = False
                seen[name.strip()] += 1
                where = self.by_marker(name.strip(), seen[name.strip()])
                if stamp:
                    begin[where] = float(stamp.group(1))
            elif word == "end" and stamp and where in begin:
                self.seconds[where] = float(stamp.group(1)) - begin[where]
            elif text.startswith("lab: no kernel log"):
                self.log_readable = False
            elif text.startswith("Linux version "):
                banners += 1
                self.kernel = (text.split() + [""])[2]
                if banners > (1 if self.is_boot else 0):
                    self.event(where, "the machine was reset: " + text[:60])
                    if self.end == "ok":
                        self.end, self.why = "reset", "the machine was reset"
            elif INJECTED in text:
                injected = True
            elif TROUBLE.search(text) and not (injected and TRACE.search(text)):
                follows = last_event is not None and number - last_event < 40
                if not (follows and MINOR.search(text)):
                    self.event(where, text.strip())
                last_event = number

    def by_marker(self, name, count):
        """The program that began in this machine, as the count-th of that name."""
        same = [p.name for p in self.programs if p.marker == name]
        return same[min(count, len(same)) - 1] if same else self.run.prefix + name

    def tell_programs(self):
        """Lay the machine's end and the kernel's words at the doors of its programs."""
        if self.end == "ok" and not self.done and not self.is_boot:
            self.end, self.why = "died", "the machine stopped before its last program had ended"
        open_ones = [p for p in self.programs if p.began and not p.ended]
        for program in self.programs:
            program.stopped = self.end == "stopped" and not program.ended
        if self.end not in ("ok", "stopped") and self.programs:
            victim = (open_ones or [p for p in self.programs if p.ended] or self.programs)[-1]
            for program in self.programs:
                if program is victim or not program.began:
                    program.machine_end = (self.end, self.why)
        for program in self.programs:
            program.kernel = [e.line for e in self.run.events
                              if e.machine is self and e.where == program.name]


def judge_machine(folder, entry, boot=None, release=""):
    """The programs of one machine, judged as they will be in the whole run.

    entry is that of run.json, which is still to be written; boot the one of the boot.
    """
    return Run(folder, found={"planned": entry.get("programs", []), "release": release, "end": "ok",
                              "machines": [*([boot] if boot else []), entry]}).programs


def never_ran(planned, programs):
    """Those of the planned names that none of programs goes by; a name may come twice."""
    return (Counter(planned) - Counter(p.marker for p in programs)).elements()


class Run:
    """A run: programs, results and all that was not in order.

    found is what run.json says, for a run that has none yet.
    """

    def __init__(self, folder, prefix="", found=None):
        self.folder = folder
        self.prefix = prefix
        self.programs = []
        self.problems = []          # of the run as a whole
        self.events = []            # of the kernel
        self.log_readable = True
        self.kernel = ""
        self.record = found or read(folder) or {}
        if not self.record:
            self.problems.append(f"{folder / 'run.json'} is missing: the run was interrupted")
        self.planned = self.record.get("planned", [])
        self.stopped = self.record.get("end") == "stopped"
        self.machines = [Machine(self, entry) for entry in self.record.get("machines", [])]
        self.settle()

    def program(self, name):
        program = Program(self.prefix, name.replace("#", "_"))
        program.marker = name
        seen = sum(p.name.split(" (")[0] == program.name for p in self.programs)
        program.name = numbered(program.name, seen)
        self.programs.append(program)
        return program

    def settle(self):
        """What follows from all machines together."""
        end, why = self.record.get("end", "ok"), self.record.get("why", "")
        if end not in ("ok", "stopped"):
            self.problems.append(why or end)
        self.log_readable = all(m.log_readable for m in self.machines)
        self.kernel = next((m.kernel for m in self.machines if m.kernel), self.record.get("release", ""))
        for name in never_ran(self.planned, self.programs):
            self.program(name).stopped = self.stopped
        self.drop_strangers()
        order = {name: n for n, name in enumerate(self.planned)}
        self.programs.sort(key=lambda p: order[p.marker])
        known = read_known()
        for program in self.programs:
            program.judge(self.kernel, known)
        if not self.programs:
            self.problems.append("no program ran")
        elif all(p.status == "skip" for p in self.programs):
            self.problems.append(NOTHING_RAN)

    def drop_strangers(self):
        """Only what was planned has a result: a report tells how many before the first ends."""
        left = Counter(self.planned)
        for program in list(self.programs):
            left[program.marker] -= 1
            if left[program.marker] < 0:
                self.programs.remove(program)
                self.problems.append(f"a program began that was not planned: {program.name}")

    @property
    def boot_events(self):
        """What the kernel said that belongs to no program."""
        names = {p.name for p in self.programs}
        return [e for e in self.events if e.where not in names]

    @property
    def seconds(self):
        """{program: seconds inside the machine}"""
        return {name: s for machine in self.machines for name, s in machine.seconds.items()}

    def extra_results(self):
        """The last two results of a report: the run, and the kernel at boot."""
        complete = Result("fail" if self.problems else "pass", self.prefix + "lab_complete",
                          diagnostics=["# " + p for p in self.problems])
        log = Result("pass", self.prefix + "kernel_log")
        events = self.boot_events
        if events:
            log.status = "fail"
            log.diagnostics = [f"# {e.where}: {e.line}" if e.where else f"# {e.line}"
                               for e in events[:50]]
        elif not self.log_readable:
            log.status, log.reason = "skip", "the kernel log is not readable"
        return [complete, log]

    def trouble(self, excused=None):
        """The first thing that is wrong with machines and kernel, in a line, or "".

        What the kernel says of a program counts unless the pattern excused finds it.
        """
        for program in self.programs:
            if program.machine_end[0] != "ok":
                return f"{program.machine_end[1]} (in {program.name})"
            said = [line for line in program.kernel if not (excused and excused.search(line))]
            if said:
                return f"the kernel: {said[0]} (in {program.name})"
        if self.problems:
            return self.problems[0]
        for program in self.programs:
            if not program.ended and not program.stopped:
                return f"it was planned and never ran (in {program.name})"
        return f"the kernel: {self.boot_events[0].line}" if self.boot_events else ""
