# SPDX-License-Identifier: GPL-2.0-only
"""Write what kselftest, matrix, history and mutants have found as one HTML file: what
"make report" calls.

use: lab/webpage [--out FOLDER] [FOLDER...]

A FOLDER is one that O= named (default: that of O=, or those of REPORT_FROM=), or one within.
The page goes to report.html in that of --out.  Nothing but the results is in it: the same
results make the same page.
"""

import argparse
import base64
import hashlib
import re
import sys
import time
from collections import Counter
from pathlib import Path

import answer
import gather
import grid
import history
import plots
import record
from common import LAB, die, env, folder, warn, write_text
from markup import Ids, Safe, details, join, scroll, table, tag
from plots import SYMBOL, WORD

ORDER = ("fail", "missing", "xfail", "skip", "pass")
MAX_LINES = 40                  # of diagnostics, and of a piece of the kernel's log
MAX_LENGTH = 240                # of each
MAX_ROWS = 6                    # of a group that are told in full
MAX_GRIDS = 16                  # of which cells open
MAX_ITEMS = 80                  # under "What is not ok" that are told in full
MAX_LOGS = 1000000              # bytes of diagnostics and logs in a page: one that can be sent by mail
# What the harness says of every test.
CHATTER = re.compile(r"# +(RUN|OK|FAIL|SKIP|XFAIL) +\S|#? *\w+: Test (failed|terminated)|# Starting |"
                     r"(TAP|KTAP) version|# (Linux|CPU|XCR0|supervisor|CPUID|parameters)\b|Random seed")


# --- small things ---

def state(verdict):
    """The class of a verdict; rows that are there only where something went wrong are "ok" elsewhere."""
    return "pass" if verdict == "ok" else verdict


def chip(status, words):
    return tag("span", f"{SYMBOL[status]} {words}", cls=f"chip {status}")


def chips(counts):
    counts = Counter({s: counts.get(s, 0) for s in ORDER}) + Counter({"pass": counts.get("ok", 0)})
    return [chip(s, number_of(s, counts[s])) for s in ORDER if counts[s]]


def number_of(status, count):
    """So many results with a verdict, in words."""
    return how_many(count, WORD[status]) if status == "xfail" else f"{count} {WORD[status]}"


def worst(statuses):
    return next((s for s in ORDER if s in statuses and s not in ("skip", "pass")),
                "pass" if "pass" in statuses else "skip" if "skip" in statuses else "missing")


def cut(lines, most=MAX_LINES):
    """So many lines of a text: its beginning and its end."""
    lines = [line if len(line) <= MAX_LENGTH else line[:MAX_LENGTH] + " ..." for line in lines]
    if len(lines) <= most:
        return lines
    half = most // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} lines left out ...", *lines[-half:]]


def pre(lines):
    return tag("pre", "\n".join(cut(lines)), tabindex=0) if lines else None


how_many = answer.how_many


def names(rows, most=MAX_ROWS):
    """Row names; what is more than a few is folded up."""
    rows = list(rows)
    told = [tag("li", tag("code", row)) for row in rows]
    head = tag("ul", *told[:most], cls="rows")
    return [head, details(f"and {len(rows) - most} more", tag("ul", *told[most:], cls="rows"))
            if len(rows) > most else None]


class Runs:
    """The runs behind results, read as they are needed."""

    def __init__(self, found):
        self.notes = found.notes
        self.known = {id(results): run for results, run in found.runs}

    def get(self, results):
        """A record.Run; None if its folder has gone."""
        if id(results) not in self.known:
            run = None
            try:
                if results.folder and (results.folder / "run.json").exists():
                    run = record.Run(results.folder)
            except Exception as error:      # of whatever kind: what is there may be anything
                self.notes.append(f"{results.place}: its logs cannot be read ({type(error).__name__}: {error})")
            self.known[id(results)] = run
        return self.known[id(results)]

    def first(self, several):
        """The newest of several results whose logs are there, and its run."""
        for results in sorted(several, key=lambda r: answer.order(r.kernel), reverse=True):
            run = self.get(results)
            if run:
                return results, run
        return None, None


def programs_of(run, program):
    return [p for p in run.programs if p.name.split(":")[0] == program]


def said(run, row):
    """What a program printed before a result, and what was wrong with the program."""
    name, _, test = row.partition(":")
    lines = []
    for program in programs_of(run, name):
        found = [r for r in program.results if r.name == test]
        for result in found:
            lines += [line.removeprefix("# ") for line in result.diagnostics if not CHATTER.match(line)]
        if not found:
            lines += [f"{program.name}: {error}" for error in program.errors]
            if program.is_tap is False:
                lines += program.trailer
    return lines


def kernel_log(run, name):
    """What the kernel said while a program ran, or until its machine ended."""
    for machine in run.machines:
        program = next((p for p in machine.programs if p.name.split(":")[0] == name), None)
        if program is None or not (machine.folder / "console.log").exists():
            continue
        lines = record.read_lines(machine.folder / "console.log", is_flood=True)
        begin = next((n for n, line in enumerate(lines) if line.endswith(f"lab: begin {program.marker}")), 0)
        end = next((n for n, line in enumerate(lines[begin:], begin)
                    if line.endswith(f"lab: end {program.marker}")), len(lines) - 1)
        lines = [line for line in lines[begin:end + 1] if line.strip()]
        # A page has room for the piece around what matters.
        odd = next((n for n, line in enumerate(lines) if record.TROUBLE.search(record.TIMESTAMP.sub("", line))), None)
        return lines if odd is None or len(lines) <= MAX_LINES else lines[max(0, odd - 6):]
    return []


# --- the page ---

class Page:
    """All sections, from what was found."""

    def __init__(self, found):
        self.found = found
        self.ids = Ids()
        self.runs = Runs(found)
        self.room = MAX_LOGS
        self.drawers = {}       # {id: markup}
        self.by_content = {}
        self.notes = next((h.notes for h in found.histories), None)
        if self.notes is None:
            self.notes = gather.read_notes(found)

    def link(self, words, *key, **attributes):
        return tag("a", words, href=self.ids.link(*key), **attributes)

    def drawer(self, key, title, content, on_paper=False):
        """The key of a drawer with that; one for all places that would show the same."""
        same = (title, content)
        if same not in self.by_content:
            self.by_content[same] = key
            name = self.ids.place(*key)
            self.drawers[name] = tag(
                "section", self.link("Close ×", "top", cls="close"), tag("h4", title), content, id=name,
                cls="drawer paper" if on_paper else "drawer", aria_label=title)
        return self.by_content[same]

    def section(self, key, title, *children):
        return tag("section", tag("h2", title, id=self.ids.place(key)), *children)

    def missing(self, what, command):
        return tag("p", f"No {what} here: ", tag("code", command), " makes them.", cls="dim")

    # --- one row ---

    def row_item(self, row, verdict, reason, results=()):
        """A row with what it asserts, and if it is not ok what there is to say of that."""
        status = state(verdict)
        out = [chip(status, WORD[status]), tag("code", row.partition(":")[2] or row)]
        text = grid.asserts(row)
        if text:
            out += [" ", text]
        if reason:
            out += [" ", tag("em", reason)]
        if verdict in history.BAD:
            out.append(self.diagnostics(row, results))
        return tag("li", *out)

    def logs(self, lines, where):
        """Lines of a log, as long as there is room in the page."""
        made = pre(lines)
        if made is None:
            return None
        self.room -= len(made)
        if self.room < 0:
            return tag("p", f"Left out, for the page would be too large: see {where}.", cls="dim")
        return made

    def diagnostics(self, row, several):
        """What the program said of a row that is not ok, in the newest run that has it."""
        results, run = self.runs.first(several)
        if run is None:
            return tag("p", "The logs of this run are not there any more.", cls="dim")
        return self.logs(said(run, row), results.place)

    def kernel_said(self, program, several):
        results, run = self.runs.first(several)
        lines = kernel_log(run, program) if run else []
        if not lines:
            return None
        return [tag("p", f"Kernel log of {results.label} while {program} ran:", cls="dim"),
                self.logs(lines, results.place)]

    def evidence(self, row, several):
        return [self.diagnostics(row, several), self.kernel_said(row.partition(":")[0], several)]

    # --- the answer ---

    def answer(self, answers):
        mark = {"good": "pass", "bad": "fail", "untold": "missing"}
        items = []
        for sentence, _ in answers:
            status = mark[sentence.word]
            word = {"good": "No" if sentence.question.key != "rest" else "Nothing", "bad": "Not ok",
                    "untold": "Not told"}[sentence.word]
            pieces = []
            for text, rows in sentence.pieces:
                pieces.append(text)
                if rows:
                    more = [self.link(row.partition(":")[2] or row, "row", row) for row in rows[:3]]
                    pieces += [" (", *sum(([m, ", "] for m in more), [])[:-1],
                               f" and {len(rows) - 3} more rows" if len(rows) > 3 else "", ")"]
            items.append(tag(
                "li", tag("span", f"{SYMBOL[status]} {word}", cls="mark"),
                tag("div", tag("span", sentence.question.asked, cls="asked"), *pieces, " ",
                    self.link("Kernels", "evidence"), ", ", self.link("rows", "which", sentence.question.key), "."),
                cls=status))
        return tag(
            "section", tag("h2", "The answer", id=self.ids.place("answer")),
            tag("p", "In October 2023 a KVM maintainer asked on the list what a request for AMX on behalf of a guest "
                "costs: the guest its CET state, or the host PASID?  From the results in this page:"),
            tag("ol", *items, cls="answer"), self.evidence_table(answers), self.which_rows(answers))

    def evidence_table(self, answers):
        """Who says so: each kernel with its counts for each sentence, those that say the same in one line."""
        lines = {}
        for n, results in enumerate(self.found.results):
            told = [told[n] for _, told in answers]
            if not any(sum(t.counts.values()) for t in told):
                continue
            key = tuple((t.word, tuple(sorted(t.counts.items())),
                         tuple(t.reasons) if t.word == "untold" else ()) for t in told)
            lines.setdefault(key, []).append((results, told))
        rows = []
        for entries in lines.values():
            several = [results for results, _ in entries]
            cells = [tag("td", answer.span(several, self.found.results), self.machine_words(several), " ",
                         self.grid_link(several))]
            for t in entries[0][1]:
                cells.append(tag("td", chips(t.counts) or "not run",
                                 tag("div", f"cannot tell: {answer.why_untold([t])}", cls="dim")
                                 if t.word == "untold" else None,
                                 self.row_link(t.rows)))
            rows.append(cells)
        if not rows:
            return tag("p", "None of these results has a row that could answer.",
                       id=self.ids.place("evidence"))
        return tag("div", tag("h3", "Which kernels say so", id=self.ids.place("evidence")), table(
            ["kernels", *(s.question.title for s, _ in answers)], rows, "Which kernels say so"))

    def machine_words(self, several):
        machines = sorted({r.machine for r in several})
        if len(machines) == 1:
            return f", {machines[0]}" if machines[0] == "spr" else None
        return details("which", ", ".join(machines))

    def row_link(self, rows):
        return [" ", self.link("which", "row", rows[0])] if rows else None

    def grid_link(self, several):
        for results in several:
            if id(results) in self.grid_of:
                return self.link("grid", "grid", self.grid_of[id(results)])
        return None

    def which_rows(self, answers):
        out = []
        for sentence, told in answers:
            rows = answer.names(sentence.question.rows, self.found.results)
            tests = {}
            for row in rows:
                program, _, name = row.partition(":")
                parts = name.split(".")
                tests.setdefault((program, parts[0], parts[-1]), []).append(row)
            items = [tag("li", tag("code", f"{program}:{fixture}{'.*' if len(some) > 1 else ''}.{test}"),
                         f" ({how_many(len(some), 'row')}) ", grid.asserts(some[0]))
                     for (program, fixture, test), some in tests.items() if test not in ("kernel", "program")]
            out.append(details(f"{sentence.question.title}: {how_many(len(rows), 'row')}",
                               tag("ul", *items, cls="rows"), id=self.ids.place("which", sentence.question.key)))
        return tag("div", tag("h3", "Which rows these are"), *out)

    # --- what is not ok ---

    def bad(self):
        """All rows that are not ok anywhere, with those of the same kernels in one item."""
        rows = {}
        for results in self.found.results:
            for row, _ in results.bad():
                rows.setdefault(row, []).append(results)
        for results in self.found.results:      # rows of the grid that never came
            for cell in grid.verdicts(results).values():
                for row, verdict, _ in cell:
                    if verdict == "missing" and results not in rows.setdefault(row, []):
                        rows[row].append(results)
        rows = {row: several for row, several in rows.items() if several}
        groups = {}
        for row in sorted(rows):
            note = self.explain(row, rows[row])
            groups.setdefault(note or tuple(id(r) for r in rows[row]), []).append(row)
        # Those of most results first, if there are too many.
        keys = list(groups)
        if len(keys) > MAX_ITEMS:
            keys.sort(key=lambda key: -sum(len(rows[row]) for row in groups[key]))
        items = [self.bad_item(groups[key], rows, key if isinstance(key, history.Note) else None)
                 for key in keys[:MAX_ITEMS]]
        rest = [row for key in keys[MAX_ITEMS:] for row in groups[key]]
        if rest:
            items.append(details(f"and {how_many(len(rest), 'row')} more", tag("ul", *(
                tag("li", tag("code", row), f" in {how_many(len(rows[row]), 'run')}", id=self.ids.place("row", row))
                for row in rest), cls="rows")))
        items += self.run_items()
        items += self.matrix_items()
        total = sum(len(r.bad()) for r in self.found.results)
        head = (f"{how_many(len(rows), 'row')} in {how_many(total, 'result')}, of "
                f"{sum(len(r.tests) for r in self.found.results)} in all." if rows else
                "All rows that have a result are ok, were skipped, or fail in a way that is known.")
        return self.section("bad", "What is not ok", tag("p", head), *items), len(rows), len(items)

    def explain(self, row, several):
        """The note of lab/history-notes for a row on all these kernels, or None."""
        found = {gather.Windows.explain(self, row, (r.kernel, r.kernel, "", "")) for r in several
                 if history.order(r.kernel)}
        return found.pop() if len(found) == 1 else None

    def bad_item(self, rows, where, note):
        """Rows that are not ok together: explained by one note, or on the same kernels; where: {row: [Results]}"""
        several = list({id(r): r for row in rows for r in where[row]}.values())
        verdicts = [r.verdict(row) for row in rows for r in where[row]]
        status = worst({state(v[0]) for v in verdicts if v})
        everywhere = answer.span(several, self.found.results)
        items = []
        for row in rows:
            mine = answer.span(where[row], self.found.results)
            reason = next((v[1] for v in (r.verdict(row) for r in where[row]) if v and v[1]), "")
            items.append(tag("li", tag("code", row), " ", tag("em", reason) if reason else None,
                             tag("span", f" on {mine}", cls="dim") if mine != everywhere else None,
                             id=self.ids.place("row", row)))
        shown = [row for row in rows if any(r.folder for r in where[row])][:3]
        return tag(
            "div", tag("h3", chip(status, f"{WORD[status]}: {how_many(len(rows), 'row')}"), f" on {everywhere}"),
            tag("p", f"{history.KINDS[note.kind][:-1]}: {note.text}") if note else
            tag("p", "Not explained in lab/history-notes.", cls="dim"),
            tag("ul", *items[:MAX_ROWS], cls="rows"),
            details(f"and {len(items) - MAX_ROWS} more", tag("ul", *items[MAX_ROWS:], cls="rows"))
            if len(items) > MAX_ROWS else None,
            details("What they assert, what program and kernel said",
                    *((tag("p", tag("code", row), " ", grid.asserts(row)), self.evidence(row, where[row]))
                      for row in shown), cls="paper"))

    def run_items(self):
        """What was not in order with a run as a whole."""
        out = []
        for results, run in self.found.runs:
            lines = run.problems + [e.line for e in run.boot_events]
            if lines:
                out.append(tag("div", tag("h3", chip("fail", "the run as a whole"), f" on {results.label}, {results.place}"),
                               pre(lines)))
        return out

    def matrix_items(self):
        """Problems of cells beside rows that are not ok: skips without excuse, results that never came."""
        out = []
        for made in self.found.matrices:
            kinds = {}
            for name, problems in made.problems.items():
                for problem in problems:
                    if not problem.startswith("not ok: "):
                        kinds.setdefault(problem, []).append(name)
            if kinds:
                lines = [f"{problem}: {' '.join(cells[:4])}{f' and {len(cells) - 4} more' if len(cells) > 4 else ''}"
                         for problem, cells in kinds.items()]
                out.append(tag("div", tag("h3", chip("missing", how_many(len(kinds), "problem")), f" of cells of {made.place}"),
                               pre(lines)))
        return out

    # --- what is missing ---

    def gaps(self):
        """What was not there, or could not be read; after all else was made."""
        lines = list(dict.fromkeys(self.found.notes))
        for results in self.found.results:
            if results.end:
                lines.append(f"{results.place}: came to no end: {results.end}")
        for past in self.found.histories:
            lines += [f"{past.place}/{version}: {why}" for version, why in past.undone]
        for made in self.found.matrices:
            undone = [cell.name for cell in made.cells if cell.name not in made.results]
            if undone:
                lines.append(f"{made.place}: {how_many(len(undone), 'cell')} without a result: "
                             f"{' '.join(undone[:8])}{' ...' if len(undone) > 8 else ''}")
        for mutants in self.found.mutants:
            if mutants.undone:
                lines.append(f"{mutants.place}: {how_many(len(mutants.undone), 'mutant')} of lab/mutants without a "
                             f"verdict: {' '.join(mutants.undone[:5])}{' ...' if len(mutants.undone) > 5 else ''}")
        lines = list(dict.fromkeys(lines))
        if not lines:
            return None
        return self.section("gaps", "What is missing", tag("p", "Not in this page, or only in part:"),
                            tag("ul", *(tag("li", line) for line in lines)))

    # --- the grid ---

    def grids(self):
        groups = grid.groups(self.found.results)
        # The newest kernel, and the lab's own CPU, first.
        groups.sort(key=lambda g: max((r.machine == "spr", answer.order(r.kernel)) for r in g[0]), reverse=True)
        self.grid_of = {id(r): n for n, (several, _) in enumerate(groups) for r in several}
        out = [self.one_grid(n, several, verdicts) for n, (several, verdicts) in enumerate(groups)]
        if len(out) > MAX_GRIDS:
            out.insert(MAX_GRIDS, tag("p", f"There are {len(out)} different grids: cells of those that follow do not open.",
                                      cls="dim"))
        return self.section(
            "grid", "Permission × guest CPUID",
            tag("p", "Rows are how the process came by the permission for AMX, columns what the guest's CPUID has; "
                "\"any\" is what does not depend on it.  A cell has a number for each verdict and opens its assertions.  "
                "Kernels that say the same share a table."),
            tag("p", *(chip(s, WORD[s]) for s in reversed(ORDER))),
            *(out or [self.missing(f"results of {grid.PROGRAM}", "make kselftest")]))

    def one_grid(self, number, several, verdicts):
        counts = Counter(v for found in verdicts.values() for _, v, _ in found)
        columns = ["", *grid.cpuids()]
        head = [tag("tr", tag("th", "permission", rowspan=2, scope="col"), tag("th", "any", rowspan=2, scope="col"),
                    *(tag("th", words, colspan=4, scope="colgroup") for words in grid.AMX.values())),
                tag("tr", *(tag("th", {"nocet": "no CET", "shstk": "SHSTK", "ibt": "IBT", "cet": "CET"}[cet],
                                scope="col", title=grid.CET[cet]) for _ in grid.AMX for cet in grid.CET))]
        lines = [tag("tr", tag("th", permission, scope="row", title=words),
                     *(self.grid_cell(number, several, grid.Cell(permission, c), verdicts) for c in columns))
                 for permission, words in grid.PERMISSIONS.items()]
        title = answer.span(several, self.found.results)
        if len(several) == 1 and several[0].source == "kselftest":
            title += f": {several[0].place}"
        _, run = self.runs.first(several)
        log = kernel_log(run, grid.PROGRAM) if run else []
        return tag(
            "div", tag("h3", f"Linux {title}", id=self.ids.place("grid", number)), tag("p", *chips(counts)),
            scroll(tag("table", tag("thead", *head), tag("tbody", *lines), cls="grid"), label=f"Grid of {title}"),
            details(f"The same in {len(several)} runs", tag("p", ", ".join(r.label for r in several)))
            if len(several) > 1 else tag("p", f"CPU: {several[0].machine}", cls="dim"),
            details(f"Kernel log while the program ran: {how_many(len(log), 'line')}", pre(log)) if log else None)

    def grid_cell(self, number, several, cell, verdicts):
        found = verdicts[cell]
        if not found:
            return tag("td", "·", title="nobody asked", cls="plain")
        counts = Counter(v for _, v, _ in found)
        status = worst(counts)
        text = " ".join(f"{SYMBOL[s]}{counts[s]}" for s in ORDER if counts[s])
        if number >= MAX_GRIDS:
            return tag("td", text, cls=f"{status} plain")
        items = [self.row_item(row, verdict, reason, several) for row, verdict, reason in found]
        is_bad = status in ("fail", "missing")
        title = f"{grid.variant(cell)}: {grid.tell(cell)}"
        if is_bad:
            title += f" - Linux {answer.span(several, self.found.results)}"
        key = self.drawer(("cell", number, grid.variant(cell)), title,
                          join(tag("ul", *items, cls="rows"), self.kernel_said(grid.PROGRAM, several) if is_bad else None),
                          is_bad)
        words = ", ".join(number_of(s, counts[s]) for s in ORDER if counts[s])
        return tag("td", self.link(text, *key, aria_label=f"{grid.variant(cell)}: {words}"), cls=status)

    # --- a run of kselftest ---

    def kselftest(self):
        out = [self.one_run(results, run) for results, run in self.found.runs]
        return self.section("run", "Runs of the suite", *(out or [self.missing("run", "make kselftest")]))

    def one_run(self, results, run):
        counts = Counter(r.status for p in run.programs for r in p.results)
        seconds = run.seconds
        items = sorted(((name, s) for name, s in seconds.items() if s > 0), key=lambda i: (-i[1], i[0]))
        status = {p.name: p.status for p in run.programs}
        plot = plots.bars([(name, self.ids.link("program", results.place, name) if name in status else None,
                            [(s, "skip" if status.get(name) == "skip" else
                              "fail" if status.get(name) == "fail" else "pass")],
                            f"{s:.1f} s" + {"fail": " ✗", "skip": " –"}.get(status.get(name), ""))
                           for name, s in items], "Seconds that each program took") if items else None
        return tag(
            "div", tag("h3", f"Linux {results.label}: {results.place}"), pre(gather.about(run)), tag("p", *chips(counts), f"{how_many(len(run.programs), 'program')}, {results.seconds:.0f} s"),
            table(["program", "verdict", "results", "seconds"],
                  [self.program_row(results, run, p, seconds) for p in run.programs], "Programs"),
            tag("h3", "Time by program") if plot else None,
            scroll(plot, label="Time by program") if plot else None)

    def program_row(self, results, run, program, seconds):
        lists = []
        for status in ("fail", "xfail", "skip"):
            some = [r for r in program.results if r.status == status]
            if status == "fail":
                base = program.name.split(":")[0]
                lists += [tag("ul", *(self.row_item(f"{base}:{r.name}", r.status, r.reason, [results]) for r in some[:20]),
                              f"and {len(some) - 20} more" if len(some) > 20 else None, cls="rows")] if some else []
                continue
            for reason, count in Counter(r.reason or "no reason given" for r in some).most_common(20):
                lists.append(tag("p", chip(status, number_of(status, count)), reason))
        if program.errors:
            lists.append(self.logs(program.errors + program.trailer[-8:], results.place))
            if program.kernel or program.machine_end[0] != "ok":
                lists.append(self.kernel_said(program.name.split(":")[0], [results]))
        passed = [r.name for r in program.results if r.status == "pass"]
        if passed:
            lists.append(details(f"{len(passed)} ok", tag("p", ", ".join(passed), cls="mono")))
        verdict = state(program.status)
        return tag(
            "tr", tag("td", details(tag("code", program.name), *lists, cls="paper" if verdict == "fail" else None)
                      if lists else tag("code", program.name), cls="wide",
                      id=self.ids.place("program", results.place, program.name)),
            tag("td", f"{SYMBOL[verdict]} {WORD[verdict]}", f": {program.reason}" if program.reason else "", cls=verdict),
            tag("td", *chips(Counter(r.status for r in program.results))),
            tag("td", f"{seconds[program.name]:.1f}" if program.name in seconds else "", cls="n"))

    # --- the history ---

    def history(self):
        out = [self.one_history(n, past) for n, past in enumerate(self.found.histories)]
        return self.section("history", "Released kernels", *(out or [self.missing("history", "make history")]))

    def one_history(self, number, past):
        if not past.versions:
            return tag("p", f"{past.place}: no kernel has a result yet.", cls="dim")
        lanes, items = [], []
        for key, text, rows, windows, more in self.lanes(past):
            href = self.ids.link("lane", number, key)
            lanes.append((text, href, windows))
            items.append(tag("div", tag("h3", text, id=self.ids.place("lane", number, key)), more,
                             tag("ul", *(tag("li", chip(status, WORD[status]),
                                             first if first == last else f"{first} to {last}",
                                             f": {reason}" if reason else "")
                                         for first, last, status, reason in windows), cls="rows"),
                             *names(rows)))
        rows = [[tag("td", version), tag("td", *chips(Counter(v for v, _ in results.tests.values()))),
                 tag("td", f"{results.seconds:.0f}", cls="n"), tag("td", self.grid_link([results]))]
                for version in past.versions for results in self.found.results
                if results.source == "history" and results.place == f"{past.place}/{version}"]
        return tag(
            "div", tag("p", f"{how_many(len(past.versions), 'kernel')} of Debian's archive ({past.place}).  A lane is rows whose "
                       "verdict is not the same everywhere, what went wrong first; it leads to the explanation."),
            scroll(plots.timeline(past.versions, lanes, "Verdicts by released kernel"), label="Verdicts by released kernel")
            if lanes else tag("p", "All rows are the same, and well, on all of them."),
            tag("p", *(chip(s, WORD[s]) for s in reversed(ORDER)), cls="screen"),
            *items, details("All kernels", table(["kernel", "results", "seconds", "grid"], rows, "All kernels"))
            if rows else None)

    def lanes(self, past):
        """[(key, title, rows, windows, explanation)], what is not ok first."""
        by_note, others = {}, []
        for windows, rows in past.groups.items():
            for row in rows:
                notes = {past.explain(row, w) for w in windows if w[2] in history.BAD}
                if notes:
                    key = notes.pop() if len(notes) == 1 else None
                    by_note.setdefault((key, windows if key is None else ()), []).append((row, windows))
            if not any(w[2] in history.BAD for w in windows):
                others.append((windows, rows))
        out = []
        for n, ((note, _), entries) in enumerate(sorted(by_note.items(), key=lambda i: i[0][0] is not None)):
            title = note.text.partition(": ")[0].partition(".  ")[0] if note else f"Not explained: {entries[0][0]}"
            more = tag("p", f"{history.KINDS[note.kind][:-1]}: {note.text}") if note else \
                tag("p", "lab/history-notes has no explanation.")
            out.append((f"bad-{n}", title, [row for row, _ in entries],
                        self.merged(past.versions, [w for _, w in entries]), more))
        for n, (windows, rows) in enumerate(sorted(others, key=lambda o: -len(o[1]))):
            programs = sorted({row.partition(":")[0] for row in rows})
            title = f"{how_many(len(rows), 'row')} of {programs[0]}" + \
                (f" and {how_many(len(programs) - 1, 'other program')}" if len(programs) > 1 else "")
            out.append((f"other-{n}", title, rows, [(a, b, state(v), reason) for a, b, v, reason in windows], None))
        return out

    @staticmethod
    def merged(versions, several):
        """The worst verdict of several rows in each version, as windows."""
        place = {v: n for n, v in enumerate(versions)}
        line = [(set(), "") for _ in versions]
        for windows in several:
            for first, last, verdict, reason in windows:
                for n in range(place[first], place[last] + 1):
                    statuses, said_so = line[n]
                    # The reason is that of the worst.
                    is_worse = worst({state(verdict), *statuses}) == state(verdict) != worst(statuses)
                    line[n] = (statuses | {state(verdict)}, reason if is_worse or not statuses else said_so)
        found = history.windows([(v, worst(statuses), reason) for v, (statuses, reason) in zip(versions, line)])
        return [(a, b, v, reason if v != "pass" else "") for a, b, v, reason in found]

    # --- the matrix ---

    def matrix(self):
        out = [self.one_matrix(n, made) for n, made in enumerate(self.found.matrices)]
        return self.section("matrix", "Kernels × CPUs × parameters",
                            *(out or [self.missing("matrix", "make matrix")]))

    def one_matrix(self, number, made):
        kernels = list(dict.fromkeys(cell.kernel for cell in made.cells))
        by_place = {(cell.kernel, cell.cpu, cell.parameter): cell for cell in made.cells}
        out = [tag("p", f"{len(made.results)} of {how_many(len(made.cells), 'cell')} have a result ({made.place}).  A number is of "
                   "results that are ok, or of problems; a cell opens its counts and reasons.")]
        cpus = list(dict.fromkeys(c.cpu for c in made.cells if c.parameter == "none"))
        words = list(dict.fromkeys((c.cpu, c.parameter) for c in made.cells if c.parameter != "none"))
        for title, lines in (("CPU", [(cpu, (cpu, "none")) for cpu in cpus]),
                             ("parameter", [(f"{p}" if cpu == "spr" else f"{p} ({cpu})", (cpu, p)) for cpu, p in words])):
            if lines:
                rows = [[tag("th", name, scope="row"),
                         *(self.matrix_cell(number, made, by_place.get((kernel, *place))) for kernel in kernels)]
                        for name, place in lines]
                out.append(table([title, *kernels], rows, f"Matrix by {title}", cls="cells"))
        return tag("div", *out)

    def matrix_cell(self, number, made, cell):
        if cell is None:
            return tag("td", "·", cls="none", title="no such cell")
        results = made.results.get(cell.name)
        if results is None:
            return tag("td", "? not run", cls="none")
        problems, counts = made.problems[cell.name], made.counts[cell.name]
        status = "fail" if problems else "pass" if counts["pass"] else "skip"
        text = f"{SYMBOL['fail']} {how_many(len(problems), 'problem')}" if problems else \
            f"{SYMBOL[status]} {counts['pass']}" + (f" {SYMBOL['skip']}{counts['skip']}" if counts["skip"] else "")
        reasons = Counter((state(v), reason) for v, reason in results.tests.values() if v in ("skip", "xfail"))
        rows = [row for row, _ in results.bad()]
        key = self.drawer(
            ("matrix", number, cell.name), f"{cell.name}: Linux {results.label}",
            join(tag("p", *chips(counts), f"{results.seconds:.0f} s ", self.grid_link([results])), pre(problems),
                 [tag("p", self.link(row, "row", row)) for row in rows[:10]],
                 [tag("p", chip(s, number_of(s, n)), reason or "no reason given")
                  for (s, reason), n in sorted(reasons.items(), key=lambda i: (-i[1], i[0]))[:25]]), bool(problems))
        return tag("td", self.link(text, *key), cls=status)

    # --- mutants ---

    def mutants(self):
        suites = self.found.mutants
        if not suites:
            return self.section("mutants", "Injected regressions", self.missing("mutants", "make mutants"))
        suites = sorted(suites, key=lambda s: not s.suite.startswith("ours"))
        # One column for each suite; rows are compared by name.
        rows = {}
        for n, suite in enumerate(suites):
            for row in suite.rows:
                rows.setdefault(row["name"], {})[n] = row
        first = {name: entry[min(entry)] for name, entry in rows.items()}
        lines = [self.mutant_row(name, first[name], [rows[name].get(n) for n in range(len(suites))])
                 for name in sorted(rows)]
        files = sorted({f for row in first.values() for f in row["files"]})
        return self.section(
            "mutants", "Injected regressions",
            tag("p", "Each is a kernel with one change.  Killed means that a result which was ok becomes \"not ok\", or that "
                "the kernel warns; an equivalent change has to survive."),
            *(self.score(suite) for suite in suites), self.by_file(suites[0], files), self.filters(first, files),
            table(["mutant", *(f"{s.suite} ({s.place})" if len(suites) > 2 else s.suite for s in suites), "needs",
                   "expected"], lines, "Mutants", id=self.ids.place("kills")))

    def score(self, suite):
        breaking = [r for r in suite.rows if r["expect"] != "equivalent"]
        counts = Counter(r["verdict"] for r in breaking)
        odd = [r["name"] for r in suite.rows if not r["good"]]
        return tag("div", tag("p", tag("strong", f"{suite.suite}: "), f"{counts['killed']} of {len(breaking)} killed",
                              "".join(f", {n} {v}" for v, n in sorted(counts.items()) if v != "killed"),
                              f"; {len(suite.rows) - len(breaking)} equivalent",
                              f".  Linux {suite.kernel}, {suite.date}" if suite.kernel else "", f" ({suite.place})."),
                   details(f"{how_many(len(odd), 'verdict')} not as expected", tag("p", ", ".join(odd), cls="mono"))
                   if odd else None)

    def by_file(self, suite, files):
        kinds = {"killed": "pass", "survived": "fail", "error": "missing"}
        items = []
        for file in files:
            some = [r for r in suite.rows if file in r["files"] and r["expect"] != "equivalent"]
            counts = Counter(kinds.get(r["verdict"], "xfail") for r in some)
            if some:
                items.append((file, None, [(counts[s], s) for s in ("pass", "xfail", "fail", "missing")],
                              f"{counts['pass']} of {len(some)}" + ("" if counts["pass"] == len(some) else " !")))
        items.sort(key=lambda i: -sum(v for v, _ in i[2]))
        if not items:
            return None
        return tag("div", tag("h3", f"Kills by file, {suite.suite}"),
                   tag("p", chip("pass", "killed"), chip("xfail", "crash, hang or skip only"), chip("fail", "survived"),
                       chip("missing", "no verdict")),
                   scroll(plots.bars(items, "Kills by file"), label="Kills by file"))

    def filters(self, first, files):
        def choice(name, title, values):
            return tag("label", title, tag("select", tag("option", "all", value=""),
                                           *(tag("option", v, value=v) for v in values), name=name))
        rows = first.values()
        return tag(
            "form", choice("verdict", "verdict", sorted({r["verdict"] for r in rows})), choice("file", "file", files),
            choice("kind", "kind of kill", [k for k in ("assertion", "warning", "hang", "crash")
                                            if any(r["kills"][k] for r in rows)]),
            choice("needs", "needs", sorted({r["needs"] for r in rows} - {""})),
            tag("label", "text", tag("input", type="search", name="text")), tag("output"), cls="filters",
            data_table="kills", hidden=True)

    def mutant_row(self, name, row, verdicts):
        kinds = [k for k, items in row["kills"].items() if items]
        return tag(
            "tr", tag("td", tag("strong", name), tag("div", row["subject"]),
                      tag("div", ", ".join(row["files"]), cls="dim mono"),
                      details("why nothing can notice it", tag("p", row["why"])) if row["why"] else None, cls="wide"),
            *(self.kill(r) for r in verdicts), tag("td", row["needs"]), tag("td", row["expect"]),
            data_verdict=row["verdict"], data_file="|".join(row["files"]), data_needs=row["needs"],
            data_kind="|".join(kinds))

    def kill(self, row):
        if row is None:
            return tag("td", "·", title="not run")
        status = "pass" if row["good"] else {"survived": "fail", "error": "missing"}.get(row["verdict"], "xfail")
        words, lists = [], []
        for kind, items in [*row["kills"].items(), ("skipped", row["skipped"])]:
            if items:
                words.append(f"{len(items)} skipped" if kind == "skipped" else how_many(len(items), kind))
                lists += [tag("div", cut([item])[0], cls="mono") for item in items[:8]]
                lists += [tag("div", f"and {len(items) - 8} more")] if len(items) > 8 else []
        verdict = f"{SYMBOL[status]} {row['verdict']}"
        if lists:
            return tag("td", details(join(tag("strong", verdict), f": {', '.join(words)}"), *lists), cls=f"{status} wide")
        return tag("td", tag("strong", verdict), tag("div", cut([row["summary"]])[0]), cls=f"{status} wide")

    # --- all of it ---

    def render(self):
        found = self.found
        grids = self.grids()        # others link to them
        answers = answer.answers(found.results)
        top = self.answer(answers)
        bad, rows, items = self.bad()
        sections = [bad, grids, self.kselftest(), self.history(), self.matrix(), self.mutants()]
        gaps = self.gaps()
        odd = sum(not row["good"] for suite in found.mutants if suite.suite.startswith("ours") for row in suite.rows)
        kernels, machines = {r.kernel for r in found.results}, {r.machine for r in found.results}
        nav = [("answer", "Answer"), ("bad", f"Not ok ({items})"), *([("gaps", "Missing")] if gaps else []), ("grid", "Grid"),
               ("run", "Runs"), ("history", "Released kernels"), ("matrix", "Matrix"), ("mutants", "Injected regressions")]
        date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.date)) if found.date else "an unknown date"
        summary = join(
            tag("p", f"{how_many(len(kernels), 'kernel')}, {how_many(len(machines), 'machine')}, "
                f"{sum(len(r.tests) for r in found.results)} results, the newest of {date}.", cls="dim"),
            tag("p", chip("fail", f"{how_many(rows, 'row')} not ok somewhere") if rows else
                chip("fail", "something is not ok") if items else
                chip("pass", "nothing is not ok") if found.results else chip("missing", "no run of the suite"),
                self.link("What is not ok", "bad"),
                [" · ", chip("xfail", f"{how_many(odd, 'mutant')} not as expected"), self.link("which", "mutants")]
                if odd else None,
                [" · ", chip("missing", "not complete"), self.link("what is missing", "gaps")] if gaps else None))
        body = join(
            tag("header", tag("h1", "AMX guest permission, guest CET and XSAVE", id=self.ids.place("top")), summary,
                tag("nav", tag("ul", *(tag("li", self.link(words, key)) for key, words in nav)), aria_label="Sections")),
            tag("main", top, bad, gaps, *sections[1:]), *self.drawers.values())
        return document(body), rows, items

    def lost(self):
        return self.ids.lost()


def document(body):
    style = Safe((LAB / "web/style.css").read_text())
    script = Safe((LAB / "web/script.js").read_text())
    # Whatever a result may hold, the page runs this one script and fetches nothing.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag("head", tag("meta", charset="utf-8"),
               tag("meta", http_equiv="Content-Security-Policy", content=policy),
               tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
               tag("title", "AMX guest permission, guest CET and XSAVE: results"), tag("style", style))
    return "<!DOCTYPE html>\n" + tag("html", head, "\n", tag("body", body, "\n", tag("script", script)), lang="en") + "\n"


def write(folders, out):
    """Write the page of these folders; returns the exit status."""
    for name in folders:
        if not Path(name).is_dir():
            die(f"{name} is no folder: name one with results by O= or REPORT_FROM=")
    found = gather.gather(folders)
    if not found:
        what = f" ({found.notes[0]})" if found.notes else ""
        die(f"no results in {' '.join(map(str, folders))}{what}: run 'make kselftest' first, or name a folder "
            "with REPORT_FROM=")
    text, rows, items = Page(found).render()
    path = folder(out, "folder O=") / "report.html"
    write_text(path, text)
    warn(f"{path}: {len(text.encode()) / 1e6:.1f} MB, {how_many(len(found.results), 'kernel')} and machines, "
         f"{how_many(rows, 'row')} not ok, {how_many(items, 'item')} under \"What is not ok\"")
    return 0


def main(arguments):
    p = argparse.ArgumentParser(prog="lab/webpage", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=env("O", "out"))
    p.add_argument("folders", nargs="*")
    options = p.parse_args(arguments)
    folders = options.folders or env("REPORT_FROM").split() or [options.out]
    return write(folders, options.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
