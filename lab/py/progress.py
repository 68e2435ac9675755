# SPDX-License-Identifier: GPL-2.0-only
"""A run of the suite while it goes on: on a terminal a line for each program that has ended
and one for those that run, on stdout or in a file the report as it grows.

What a line looks like is told by functions of values alone; Screen is all that writes to
the terminal, and Live puts both together.
"""

import contextlib
import os
import select
import shutil
import signal
import stat
import sys
import time

import common
import host
import record
import report
import results
from common import warn
from observer import Observer

MAX_ROWS = 5                    # that are told of one program that failed
MAX_LINES = 8                   # on each of them
WIDE = 100                      # columns of a line of the widest terminals
TALLY = 24                      # for most of "10 pass, 2 skip, 1 xfail", at least
REASON = 16                     # for the beginning of why a program skipped
COLOURS = {"pass": "32", "fail": "1;31", "skip": "33", "xfail": "33", "dim": "2"}


# --- what lines look like ---

def paint(text, kind, colour):
    return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if colour and text else text


def tally(program):
    """How a program ended, in words: "10 pass, 2 skip", "skip: no AMX on this machine"."""
    counts = ", ".join(f"{program.count(s)} {s}" for s in results.STATUSES if program.count(s))
    if program.status == "fail":
        word = "interrupted," if report.is_unfinished(program) else "FAIL"
        return f"{word} {counts}" if counts else word.rstrip(",")
    if counts:
        return counts
    return program.status + (f": {program.reason}" if program.reason else "")


def cut(text, width):
    return text if len(text) <= width else text[:max(width - 2, 0)] + ".."[:max(width, 0)]


def program_line(number, total, program, seconds, width, names, colour=False):
    """The line of a program that has ended as the number-th.

    names is how long the names of all programs are; no line is longer than width.
    """
    width = min(width, WIDE)
    count, tail = f"[{number:{len(str(total))}}/{total}]", f"{seconds:5.1f} s"
    text, name = tally(program), program.name
    room = width - len(count) - len(tail) - 5   # for name and tally
    # A reason may be cut, numbers not.
    need = len(text) if program.results else min(len(text), REASON)
    if len(name) + need > room:
        name = name.rpartition("/")[2]
        if room - need < min(len(name), REASON):
            return cut(f"{count} {name} {text} {tail.strip()}", width)
        name = cut(name, room - need)
    column = max(len(name), min(names, room - TALLY))
    if column + need > room:
        column = len(name)
    text = cut(text, room - column)
    blanks = room - column - len(text)
    kind = "skip" if report.is_unfinished(program) else program.status
    return f"{count} {name:{column}}  {paint(text, kind, colour)}{' ' * blanks}  {tail}"


def failure_lines(program, colour=False):
    """What went wrong in a program that failed, below its line."""
    rows = [r for r in program.results if r.status == "fail"]
    out = []
    for result in rows[:MAX_ROWS]:
        out.append("  " + paint(f"not ok {result.name}", "fail", colour))
        out += [f"      {line}" for line in report.diagnostics(result, MAX_LINES)]
    if len(rows) > MAX_ROWS:
        out.append(f"  ... and {len(rows) - MAX_ROWS} more rows")
    for error in program.errors[:MAX_LINES]:
        out.append("  " + paint(error, "fail", colour))
    if program.errors:
        out += [f"      {line}" for line in report.last_words(program, MAX_LINES)]
    return out


def duration(seconds):
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def status_line(ended, total, running, elapsed, left, width):
    """The line at the bottom: left is how many seconds the rest may take, and whether that is
    a bound only."""
    seconds, is_bound = left
    text = f"{ended} of {total}, {duration(elapsed)}"
    if ended < total:
        text += f", {'at most' if is_bound else 'about'} {duration(max(seconds, 1))} left"
    names = ", ".join(name.rpartition("/")[2] for name in running)
    return cut(f"{text}: {names}" if names else text, width)


class Estimate:
    """How long the rest will take, from the seconds that programs took before.

    known is {program: CPU seconds}; limit the seconds of wall time for all of it.
    """

    def __init__(self, names, known, parallel, limit):
        self.known, self.parallel, self.limit = known, max(parallel, 1), limit
        self.waiting, self.running = list(names), {}
        self.wall, self.cpu, self.all, self.count = 0.0, 0.0, 0.0, 0

    def begins(self, names, now):
        for name in names:
            if name in self.waiting:
                self.waiting.remove(name)
            self.running[name] = now

    def ended(self, names, seconds):
        for name in names:
            self.running.pop(name, None)
            self.count += 1
            self.all += seconds
            if name in self.known:
                self.wall, self.cpu = self.wall + seconds, self.cpu + self.known[name]

    def expect(self, name):
        """Seconds of wall time for a program; None if there is no telling."""
        if name in self.known:
            return self.known[name] * (self.wall / self.cpu if self.cpu > 1 else 1)
        return self.all / self.count if self.count else None

    def left(self, elapsed, now):
        """Seconds, and whether that is a bound only."""
        rest = [self.expect(name) for name in self.waiting]
        going = [self.expect(name) for name in self.running]
        if None in rest + going:
            return max(self.limit - elapsed, 0), True
        # One that takes longer than it should does not end at once either.
        going = [max(e - (now - since), (now - since) / 4)
                 for e, since in zip(going, self.running.values())]
        return max([sum(rest + going) / self.parallel, *rest, *going]), False


# --- the terminal ---

def is_smart():
    """Whether the terminal knows how to clear a line."""
    return os.environ.get("TERM", "dumb") not in ("", "dumb")


def has_colours():
    return is_smart() and not os.environ.get("NO_COLOR")


class Screen:
    """The terminal: lines that stay, and one at the bottom that does not."""

    def __init__(self, file):
        self.file, self.smart, self.colour = file, is_smart(), has_colours()
        self.shown = ""
        common.before_message.append(self.clear)

    def width(self):
        try:
            return os.get_terminal_size(self.file.fileno()).columns or 80
        except (OSError, ValueError):
            return shutil.get_terminal_size().columns

    def put(self, text):
        with contextlib.suppress(OSError):      # a terminal that has gone is not the run's end
            self.file.write(text)
            self.file.flush()

    def clear(self):
        if self.shown:
            self.put("\r\x1b[K")
            self.shown = ""

    def lines(self, lines):
        self.clear()
        self.put("".join(f"{line}\n" for line in lines))

    def bottom(self, text):
        """One column is left free: some terminals would begin a new line."""
        if self.smart and text != self.shown:
            self.put("\r\x1b[K" + paint(text, "dim", self.colour))
            self.shown = text

    def close(self):
        self.clear()
        if self.clear in common.before_message:
            common.before_message.remove(self.clear)


class View(Observer):
    """What the terminal shows of a run."""

    def __init__(self, screen, out, names, estimate, verbose=False, clock=time.monotonic):
        self.screen, self.out, self.names, self.estimate = screen, out, names, estimate
        self.verbose, self.clock = verbose, clock
        self.start = self.drawn = clock()
        self.told = set()           # names of programs that have a line
        self.what = ""              # until the machine has booted

    def booting(self, cpu, limit):
        self.what = f"booting on {cpu}"
        self.draw()

    def booted(self, entry):
        self.what = ""
        self.kernel_log(entry)
        if entry["end"] != "ok":
            self.screen.lines([paint(f"not ok: {entry['why']}", "fail", self.screen.colour)])

    def begins(self, entry):
        self.estimate.begins(entry["programs"], self.clock())
        self.draw()

    def programs(self, programs, entry):
        """Those of a machine that has ended."""
        self.estimate.ended(entry["programs"], entry["seconds"])
        self.kernel_log(entry)
        for program in programs:
            self.program(program, entry)
        self.draw()

    def program(self, program, entry):
        self.told.add(program.name)
        width = max(map(len, self.names), default=0)
        lines = [program_line(len(self.told), len(self.names), program, entry.get("seconds", 0),
                              self.screen.width(), width, self.screen.colour)]
        if program.status == "fail" and not report.is_unfinished(program):
            lines += failure_lines(program, self.screen.colour)
            lines.append(f"  see {report.shown(self.out / entry.get('folder', 'jobs'))}/")
        self.screen.lines(lines)

    def kernel_log(self, entry):
        if self.verbose:
            path = self.out / entry["folder"] / "console.log"
            lines = record.read_lines(path, True) if path.exists() else []
            self.screen.lines(paint(f"  | {line}", "dim", self.screen.colour) for line in lines if line)

    def tick(self):
        if self.clock() - self.drawn >= 0.5:
            self.draw()

    def draw(self):
        self.drawn = now = self.clock()
        elapsed, width = now - self.start, self.screen.width() - 1
        if self.what:
            self.screen.bottom(cut(f"{self.what}, {elapsed:.0f} s", width))
        else:
            self.screen.bottom(status_line(len(self.told), len(self.names), self.estimate.running, elapsed,
                                           self.estimate.left(elapsed, now), width))

    def finish(self, run):
        """What has not been told: programs that ran when the run came to its end."""
        known = results.entries(run)
        for program in run.programs:
            if program.began and program.name not in self.told:
                self.program(program, known.get(program.name, {}))
        lines = report.summary([run], brief=True)
        kind = "fail" if report.status([run]) else "pass"
        self.screen.lines([*lines[:-1], paint(lines[-1], kind, self.screen.colour)])
        self.screen.close()


# --- both ---

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What fits into a pipe of which select() says that something does.
CHUNK = 4096
# Seconds that a reader of stdout may take for the rest when the run was interrupted.
PATIENCE = 10


@contextlib.contextmanager
def undisturbed():
    """No signal ends this half-way; nothing here may wait."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


class Output:
    """Where the report goes while it grows: a file, and stdout if it is asked for there.

    A reader that is slow does not keep the run from going on.
    """

    def __init__(self, path, to_stdout):
        self.file = open(path, "wb")
        self.text = b""
        self.written = {self.file.fileno(): 0, **({1: 0} if to_stdout else {})}
        self.broken = False         # nobody reads what should go to stdout

    def __call__(self, text):
        with undisturbed():
            self.text += text.encode()
        self.pump()

    def pump(self):
        """Write what can be written at once; whether that is all."""
        for fd in list(self.written):
            while fd in self.written and self.written[fd] < len(self.text) and \
                    select.select([], [fd], [], 0)[1]:
                self.write(fd)
        return all(count == len(self.text) for count in self.written.values())

    def write(self, fd):
        with undisturbed():
            try:
                self.written[fd] += os.write(fd, self.text[self.written[fd]:][:CHUNK])
            except OSError:
                if fd != 1:
                    raise
                self.broken = True
                del self.written[fd]

    def close(self, seconds):
        """The rest of it, as long as somebody reads it within so many seconds; None: however long."""
        end = None if seconds is None else time.monotonic() + seconds
        while not self.pump():
            if end and time.monotonic() >= end:
                self.broken = True
                break
            select.select([], list(self.written), [], 1)
        self.file.close()


def wants_ktap():
    """Whether stdout gets the report."""
    return os.environ.get("KTAP") == "1" or not sys.stdout.isatty()


def wants_screen():
    """Whether a terminal is there for the view: one that does not show the report as well.

    A pipe may end at the same terminal, a file does not.
    """
    if not sys.stderr.isatty() or os.environ.get("KTAP") == "1":
        return False
    mode = os.fstat(1).st_mode
    return sys.stdout.isatty() or stat.S_ISREG(mode) or stat.S_ISCHR(mode)


class Live(Observer):
    """A run of jobs (of host.Job) that is judged, reported and shown while it goes on."""

    def __init__(self, out, jobs, parallel, limit, release=""):
        names = [job.name for job in jobs]
        self.out, self.names, self.release, self.boot = out, names, release, None
        self.output = self.stream = self.view = None
        self.verbose = os.environ.get("VERBOSE", "0") == "1"
        if wants_screen():
            estimate = Estimate(names, host.known_times(), min(parallel, len(names)), limit)
            self.view = View(Screen(sys.stderr), out, names, estimate, self.verbose)

    def start(self):
        """The head of the report: when the folder is ours, and nothing but the run is to come."""
        if not self.output:
            self.output = Output(self.out / "report.ktap", wants_ktap())
            self.stream = report.Stream(self.names, self.output)

    def booting(self, cpu, limit):
        self.start()
        if self.view:
            self.view.booting(cpu, limit)
        else:
            super().booting(cpu, limit)

    def booted(self, entry):
        self.start()
        self.boot = entry
        if self.view:
            self.view.booted(entry)

    def begins(self, entry):
        if self.view:
            self.view.begins(entry)

    def ended(self, entry):
        programs = record.judge_machine(self.out, entry, self.boot, self.release)
        if self.view:
            self.view.programs(programs, entry)
        elif self.verbose:
            super().ended(entry)
        with undisturbed():
            self.stream.add(programs)

    def tick(self):
        self.output.pump()
        if self.view:
            self.view.tick()

    def finish(self, patience=None):
        """The rest of the report, and the screen at the end; returns the exit status."""
        self.start()
        run = record.Run(self.out)
        status = report.status([run])
        agrees = self.stream.finish(run)
        self.output.close(patience)
        results.write(self.out, run)
        if self.view:
            self.view.finish(run)
        else:
            sys.stderr.write("".join(f"{line}\n" for line in report.summary([run])))
        if not agrees:
            warn(f"the logs have changed after the report was written: lab/report {self.out} tells more")
        return 1 if self.output.broken or not agrees else status
