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
import record
import report
import results
from answer import how_many
from common import LAB, die, env, folder, warn, write_text
from markup import Ids, Safe, details, join, scroll, table, tag

SYMBOL = {"pass": "✓", "fail": "✗", "skip": "–", "xfail": "!", "missing": "?"}
WORD = {"pass": "ok", "fail": "not ok", "skip": "skipped", "xfail": "known failure", "missing": "no result"}
ORDER = ("fail", "missing", "xfail", "pass", "skip")
MAX_LINES = 40                  # of diagnostics, and of a piece of the kernel's log
MAX_LENGTH = 240                # of each
MAX_ROWS = 6                    # of a group that are told in full
MAX_GRIDS = 6                   # that are not folded up
MAX_ITEMS = 80                  # under "What is not ok" that are told in full
MAX_LOGS = 1000000              # bytes of diagnostics and logs in a page: one that can be sent by mail


# --- small things ---

def state(verdict):
    """The class of a verdict; rows that are there only where something went wrong are "ok" elsewhere."""
    return "pass" if verdict == "ok" else verdict


def chip(status, words):
    return tag("span", f"{SYMBOL[status]} {words}", cls=f"chip {status}")


def chips(counts):
    return [chip(s, number_of(s, counts[s])) for s in ORDER if counts.get(s)]


def number_of(status, count):
    """So many results with a verdict, in words."""
    return how_many(count, WORD[status]) if status == "xfail" else f"{count} {WORD[status]}"


def legend():
    return tag("p", *(chip(s, WORD[s]) for s in ORDER))


def worst(statuses):
    return next((s for s in ORDER if s in statuses), "missing")


def bar(parts, most):
    """Values beside each other, of which most would fill the room there is; parts are (value, status)."""
    return tag("span", *(tag("i", cls=f"b-{status}", style=f"width:{100 * value / most:.1f}%")
                         for value, status in parts if value), cls="bar")


def cut(lines, most=MAX_LINES):
    """So many lines of a text: its beginning and its end."""
    lines = [line if len(line) <= MAX_LENGTH else line[:MAX_LENGTH] + " ..." for line in lines]
    if len(lines) <= most:
        return lines
    half = most // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} lines left out ...", *lines[-half:]]


def pre(lines):
    return tag("pre", "\n".join(cut(lines)), tabindex=0) if lines else None


def folded(items, most=MAX_ROWS):
    """Items of a list; what is more than a few is folded up."""
    return [tag("ul", *items[:most], cls="rows"),
            details(f"and {len(items) - most} more", tag("ul", *items[most:], cls="rows")) if len(items) > most else None]


def weight(group):
    """The lab's own CPU, what is not ok, and the newest kernel: by which grids are sorted."""
    several, verdicts = group
    return (any(r.machine == "spr" for r in several),
            any(verdict in history.BAD for found in verdicts.values() for _, verdict, _ in found),
            max(answer.order(r.kernel) for r in several))


class Runs:
    """The runs behind results, read as they are needed."""

    def __init__(self, found):
        self.notes = found.notes
        self.known = {id(one): run for one, run in found.runs}

    def get(self, one):
        """A record.Run; None if its folder has gone."""
        if id(one) not in self.known:
            run = None
            try:
                if one.folder and (one.folder / "run.json").exists():
                    run = record.Run(one.folder)
            except Exception as error:      # of whatever kind: what is there may be anything
                self.notes.append(f"{one.place}: its logs cannot be read ({type(error).__name__}: {error})")
            self.known[id(one)] = run
        return self.known[id(one)]

    def first(self, several):
        """The newest of several results whose logs are there, and its run."""
        for one in sorted(several, key=lambda r: answer.order(r.kernel), reverse=True):
            run = self.get(one)
            if run:
                return one, run
        return None, None


def said(run, row):
    """What a program printed before a result, or what was wrong with the program."""
    name, _, test = row.partition(":")
    lines = []
    for program in run.programs:
        if results.base(program.name) == name:
            found = [r for r in program.results if r.name == test]
            lines += [line for result in found for line in report.words(result.diagnostics)]
            lines += [] if found else [*program.errors, *report.last_words(program, MAX_LINES)]
    return lines


def kernel_log(run, name):
    """What the kernel said while a program ran, or until its machine ended."""
    for machine in run.machines:
        program = next((p for p in machine.programs if results.base(p.name) == name), None)
        if program is None or not (machine.folder / "console.log").exists():
            continue
        lines = [line for line in record.read_lines(machine.folder / "console.log", is_flood=True) if line.strip()]
        begin = next((n for n, line in enumerate(lines) if line.endswith(f"lab: begin {program.marker}")), 0)
        end = next((n for n, line in enumerate(lines[begin:], begin)
                    if line.endswith(f"lab: end {program.marker}")), len(lines) - 1)
        lines = lines[begin:end + 1]
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
        self.drawers = []
        self.notes = history.read_notes()

    def link(self, words, *key, **attributes):
        return tag("a", words, href=self.ids.link(*key), **attributes)

    def drawer(self, key, title, *content, on_paper=False):
        """What opens where a link names its key."""
        self.drawers.append(tag(
            "section", self.link("Close ×", "top", cls="close"), tag("h4", title), *content, id=self.ids.place(*key),
            cls="drawer paper" if on_paper else "drawer", aria_label=title))

    def section(self, key, title, *children):
        return tag("section", tag("h2", title, id=self.ids.place(key)), *children)

    def missing(self, command):
        return tag("p", "Nothing of ", tag("code", command), " here.", cls="dim")

    def span(self, several):
        return answer.span(several, self.found.results)

    # --- what went wrong ---

    def logs(self, lines, where):
        """Lines of a log, as long as there is room in the page."""
        made = pre(lines)
        self.room -= len(made or "")
        if made and self.room < 0:
            return tag("p", f"Left out, for the page would be too large: see {where}.", cls="dim")
        return made

    def diagnostics(self, row, several):
        """What the program said of a row that is not ok, in the newest run that has it."""
        one, run = self.runs.first(several)
        if run is None:
            return tag("p", "The logs of this run are not there any more.", cls="dim")
        return self.logs(said(run, row), one.place)

    def kernel_said(self, program, several):
        one, run = self.runs.first(several)
        lines = kernel_log(run, program) if run else []
        if all("] lab: " in line for line in lines):
            return None             # but for when it began and ended
        return [tag("p", f"Kernel log of {one.label} while {program} ran:", cls="dim"), self.logs(lines, one.place)]

    def evidence(self, row, several):
        return [self.diagnostics(row, several), self.kernel_said(results.base(row), several)]

    # --- the answer ---

    def answer(self, answers):
        mark = {"good": ("pass", "No"), "bad": ("fail", "Not ok"), "untold": ("missing", "Not told")}
        items = []
        for sentence, _ in answers:
            status, word = mark[sentence.word]
            if (word, sentence.question.key) == ("No", "rest"):
                word = "Nothing"
            lines = []
            for kind, text, rows in sentence.lines:
                more = sum(([self.link(row.partition(":")[2] or row, "row", row), ", "] for row in rows[:3]), [" "])[:-1]
                if len(rows) > 3:
                    more.append(f" and {len(rows) - 3} more rows")
                lines.append(tag("div", text, more, cls=kind))
            items.append(tag(
                "li", tag("span", f"{SYMBOL[status]} {word}", cls="mark"),
                tag("div", tag("span", sentence.question.asked, cls="asked"), *lines,
                    self.link("Which kernels", "evidence"), ", ", self.link("which rows", "which", sentence.question.key)),
                cls=status))
        return self.section(
            "answer", "The answer",
            tag("p", "In October 2023 a KVM maintainer asked on the list what a request for AMX on behalf of a guest "
                "costs: the guest its CET state, or the host PASID?  From the results in this page:"),
            tag("ol", *items, cls="answer"), self.evidence_table(answers), self.which_rows(answers))

    def evidence_table(self, answers):
        """Who says so: each kernel with its counts for each sentence, those that say the same in one line."""
        lines = {}
        for n, one in enumerate(self.found.results):
            told = [told[n] for _, told in answers]
            if any(sum(t.counts.values()) for t in told):
                key = tuple((t.word, tuple(sorted(t.counts.items())), tuple(t.reasons) if t.word == "untold" else ())
                            for t in told)
                lines.setdefault(key, []).append((one, told))
        rows = []
        # What says most goes first.
        for entries in sorted(lines.values(), key=lambda some: sum(t.word == "untold" for t in some[0][1])):
            several = [one for one, _ in entries]
            machines = sorted({r.machine for r in several})
            where = self.span(several) + (f", {machines[0]}" if machines == ["spr"] else "")
            where = join(where, " ", self.grid_link(several))
            rows.append([tag("td", details(where, ", ".join(machines)) if len(machines) > 1 else where)])
            for t in entries[0][1]:
                rows[-1].append(tag(
                    "td", *chips(t.counts), self.link("which", "row", t.rows[0]) if t.rows else None,
                    tag("div", f"cannot tell: {answer.first(t.reasons)}", cls="dim") if t.word == "untold" else None))
        place = self.ids.place("evidence")
        if not rows:
            return tag("p", "None of these results has a row that could answer.", id=place)
        made = [table(["kernels", *(s.question.title for s, _ in answers)], some, "Which kernels say so")
                for some in (rows[:MAX_ROWS], rows[MAX_ROWS:]) if some]
        return tag("div", tag("h3", "Which kernels say so", id=place), made[0],
                   details(f"{how_many(len(rows) - MAX_ROWS, 'more line')}", made[1]) if made[1:] else None)

    def grid_link(self, several):
        return next((self.link("grid", "grid", self.grid_of[id(one)]) for one in several if id(one) in self.grid_of), None)

    def which_rows(self, answers):
        out = []
        for sentence, _ in answers:
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
        for one in self.found.results:
            lost = [row for cell in grid.verdicts(one).values() for row, verdict, _ in cell if verdict == "missing"]
            for row in dict.fromkeys([*(row for row, _ in one.bad()), *lost]):
                rows.setdefault(row, []).append(one)
        groups = {}
        for row in sorted(rows):
            note = self.explain(row, rows[row])
            groups.setdefault(note or tuple(id(r) for r in rows[row]), []).append(row)
        # What nothing explains first; and those of most results, if there are too many.
        keys = sorted(groups, key=lambda key: (isinstance(key, history.Note), len(groups) > MAX_ITEMS and
                                               -sum(len(rows[row]) for row in groups[key])))
        items = [self.bad_item(groups[key], rows, key if isinstance(key, history.Note) else None)
                 for key in keys[:MAX_ITEMS]]
        rest = [row for key in keys[MAX_ITEMS:] for row in groups[key]]
        if rest:
            items.append(details(f"and {how_many(len(rest), 'row')} more", tag("ul", *(
                tag("li", tag("code", row), f" in {how_many(len(rows[row]), 'run')}", id=self.ids.place("row", row))
                for row in rest), cls="rows")))
        items += self.run_items() + self.matrix_items()
        head = (f"{how_many(len(rows), 'row')} in {how_many(sum(map(len, rows.values())), 'result')}, of "
                f"{sum(len(r.tests) for r in self.found.results)} in all." if rows else
                "All rows that have a result are ok, were skipped, or fail in a way that is known.")
        new = sum(len(groups[key]) for key in keys if not isinstance(key, history.Note))
        word = f"{how_many(len(rows), 'row')} not ok somewhere"
        if new < len(rows):
            word += f", {new} not explained" if new else ", all explained"
        return self.section("bad", "What is not ok", tag("p", head), *items), word if rows else "", len(items)

    def explain(self, row, several):
        """The note of lab/history-notes for a row on these kernels, the first of several; None if one has none."""
        return self.one_note(row, [(r.kernel, r.kernel) for r in several])

    def one_note(self, row, windows):
        found = [history.explain(self.notes, row, window) if history.order(window[0]) else None for window in windows]
        return None if None in found else found[0]

    def explained(self, note):
        return tag("p", f"{history.KINDS[note.kind][:-1]}: {note.text}") if note else \
            tag("p", "Not explained in lab/history-notes.", cls="dim")

    def bad_item(self, rows, where, note):
        """Rows that are not ok together: explained by one note, or on the same kernels; where: {row: [Results]}"""
        several = list({id(r): r for row in rows for r in where[row]}.values())
        verdicts = {row: [v for v in (r.verdict(row) for r in where[row]) if v] for row in rows}
        status, everywhere = worst({v[0] for some in verdicts.values() for v in some}), self.span(several)
        items = []
        for row in rows:
            mine, reason = self.span(where[row]), next((v[1] for v in verdicts[row] if v[1]), "")
            items.append(tag("li", tag("code", row), " ", tag("em", reason) if reason else None,
                             tag("span", f" on {mine}", cls="dim") if mine != everywhere else None,
                             id=self.ids.place("row", row)))
        shown = sorted(rows, key=lambda row: not any(r.folder for r in where[row]))[:3]
        return tag(
            "div", tag("h3", chip(status, f"{WORD[status]}: {how_many(len(rows), 'row')}"), f" on {everywhere}"),
            self.explained(note) if note or any(r.source == "history" for r in several) else None, *folded(items),
            details("What they assert, what program and kernel said",
                    *((tag("p", tag("code", row), " ", grid.asserts(row)), self.evidence(row, where[row]))
                      for row in shown), cls="paper"))

    def run_items(self):
        """What was not in order with a run as a whole."""
        lines = [(one, run.problems + [e.line for e in run.boot_events]) for one, run in self.found.runs]
        return [tag("div", tag("h3", chip("fail", "the run as a whole"), f" on {one.label}, {one.place}"), pre(found))
                for one, found in lines if found]

    def matrix_items(self):
        """Problems of cells beside rows that are not ok: skips without excuse, results that never came."""
        out = []
        for made in self.found.matrices:
            kinds = {}
            for cell in made.cells:
                for problem in cell.judged.problems if cell.results else ():
                    if not problem.startswith("not ok: "):
                        kinds.setdefault(problem, []).append(cell.name)
            if kinds:
                out.append(tag("div", tag("h3", chip("fail", how_many(len(kinds), "problem")), f" of cells of {made.place}"),
                               pre([f"{gather.few(cells, 4)}: {problem}" for problem, cells in kinds.items()])))
        return out

    # --- what is missing ---

    def gaps(self):
        """What was not there, or could not be read; after all else was made."""
        lines = [*self.found.notes, *(f"{r.place}: came to no end: {r.end}" for r in self.found.results if r.end)]
        for past in self.found.histories:
            lines += [f"{past.place}/{version}: {why}" for version, why in past.undone]
        for made in self.found.matrices:
            undone = [cell.name for cell in made.cells if not cell.results]
            if undone:
                lines.append(f"{made.place}: {how_many(len(undone), 'cell')} without a result: {gather.few(undone)}")
        for made in self.found.mutants:
            if made.undone:
                lines.append(f"{made.place}: {how_many(len(made.undone), 'mutant')} of lab/mutants without a verdict: "
                             f"{gather.few(made.undone)}")
        if not lines:
            return None
        return self.section("gaps", "What is missing", tag("p", "Not in this page, or only in part:"),
                            tag("ul", *(tag("li", line) for line in dict.fromkeys(lines))))

    # --- the grid ---

    def grids(self):
        groups = grid.groups(self.found.results)
        groups.sort(key=weight, reverse=True)
        self.grid_of = {id(r): n for n, (several, _) in enumerate(groups) for r in several}
        for cell in grid.cells():
            self.grid_drawer(cell, [(several, verdicts[cell]) for several, verdicts in groups])
        out = [self.one_grid(n, *group) for n, group in enumerate(groups)]
        shown = min(max(sum(any(weight(group)[:2]) for group in groups), 1), MAX_GRIDS)
        return self.section(
            "grid", "Permission × guest CPUID",
            tag("p", "Rows are how the process came by the permission for AMX, columns what the guest's CPUID has; "
                "\"any\" is what does not depend on it.  A cell has a number for each verdict and opens its assertions.  "
                "Kernels that say the same share a table."), legend(),
            *([tag("div", *out[:shown], cls="grids")] if out else [self.missing(f"make kselftest TESTS={grid.PROGRAM}")]),
            details(f"{how_many(len(out) - shown, 'more table')}, of other machines", tag("div", *out[shown:], cls="grids"))
            if out[shown:] else None)

    def one_grid(self, number, several, verdicts):
        counts = Counter(v for found in verdicts.values() for _, v, _ in found)
        head = [tag("tr", tag("th", "permission", rowspan=2, scope="col"), tag("th", "any", rowspan=2, scope="col"),
                    *(tag("th", words, colspan=4, scope="colgroup") for words in grid.AMX.values())),
                tag("tr", *(tag("th", {"nocet": "no CET", "shstk": "SHSTK", "ibt": "IBT", "cet": "CET"}[cet],
                                scope="col", title=grid.CET[cet]) for _ in grid.AMX for cet in grid.CET))]
        lines = [tag("tr", tag("th", permission, scope="row", title=words),
                     *(self.grid_cell(grid.Cell(permission, c), verdicts) for c in ["", *grid.cpuids()]))
                 for permission, words in grid.PERMISSIONS.items()]
        title = self.span(several) + (", spr" if {r.machine for r in several} == {"spr"} else "")
        return tag(
            "div", tag("h3", f"Linux {title}", id=self.ids.place("grid", number)), tag("p", *chips(counts)),
            scroll(tag("table", tag("thead", *head), tag("tbody", *lines), cls="grid"), label=f"Grid of {title}"),
            details(f"The same in {len(several)} runs", tag("p", ", ".join(r.label for r in several)))
            if len(several) > 1 else None)

    def grid_cell(self, cell, verdicts):
        counts = Counter(v for _, v, _ in verdicts[cell])
        if not counts:
            return tag("td", "·", title="nobody asked", cls="plain")
        text = " ".join(f"{SYMBOL[s]}{counts[s]}" for s in ORDER if counts[s])
        words = ", ".join(number_of(s, counts[s]) for s in ORDER if counts[s])
        return tag("td", self.link(text, "cell", grid.variant(cell), aria_label=f"{grid.variant(cell)}: {words}"),
                   cls=worst(counts))

    def grid_drawer(self, cell, found):
        """What the rows of a cell assert, and what each kernel says; found: [(results, [(row, verdict, reason)])]"""
        rows = {}
        for several, verdicts in found:
            for row, verdict, reason in verdicts:
                rows.setdefault(row, {}).setdefault((state(verdict), reason), []).extend(several)
        # What most of them say is told once, but for what is not ok.
        most = max(rows.values(), key=lambda by: sum(by == other for other in rows.values()), default={})
        most = {key: several for key, several in most.items() if key[0] not in history.BAD}
        told = {(key, id(one)) for key, several in most.items() for one in several}
        items = [self.row_item(row, {key: [one for one in several if (key, id(one)) not in told]
                                     for key, several in by_verdict.items()}) for row, by_verdict in rows.items()]
        failed = [one for by_verdict in rows.values() for (status, _), several in by_verdict.items()
                  if status in history.BAD for one in several]
        if items:
            self.drawer(("cell", grid.variant(cell)), f"{grid.variant(cell)}: {grid.tell(cell)}",
                        *self.verdicts(most), tag("ul", *items, cls="rows"), self.kernel_said(grid.PROGRAM, failed),
                        on_paper=bool(failed))

    def row_item(self, row, by_verdict):
        """A row with what it asserts, who says what of it, and if it is not ok what there is to say of that."""
        return tag("li", tag("code", row.partition(":")[2] or row), " ", grid.asserts(row), *self.verdicts(by_verdict, row))

    def verdicts(self, by_verdict, row=""):
        """Who says what; by_verdict: {(verdict, reason): [Results]}"""
        return [tag("div", chip(status, WORD[status]), self.span(several) if len(self.found.results) > 1 else None,
                    tag("em", f" {reason}") if reason else None,
                    self.diagnostics(row, several) if row and status in history.BAD else None)
                for (status, reason), several in sorted(by_verdict.items(), key=lambda item: ORDER.index(item[0][0]))
                if several]

    # --- a run of kselftest ---

    def kselftest(self):
        out = [self.one_run(one, run) for one, run in self.found.runs]
        return self.section("run", "Runs of the suite", *(out or [self.missing("make kselftest")]))

    def one_run(self, one, run):
        counts = Counter(r.status for p in run.programs for r in p.results)
        head = next((p.lines for p in run.programs if results.machine([p])), [])[:results.HEAD_LINES]
        most = max([*run.seconds.values(), 0.1])
        return tag(
            "div", tag("h3", f"Linux {one.label}: {one.place}"), pre([line[2:] for line in head if results.is_head(line)]),
            tag("p", *chips(counts), f"{how_many(len(run.programs), 'program')}, {one.seconds:.0f} s"),
            table(["ok", "program", "results", "seconds"],
                  [self.program_row(one, p, run.seconds.get(p.name), most) for p in run.programs], "Programs"))

    def program_row(self, one, program, seconds, most):
        name, lists = results.base(program.name), []
        failed = [r for r in program.results if r.status == "fail"]
        if failed:
            lists += folded([self.row_item(f"{name}:{r.name}", {("fail", r.reason): [one]}) for r in failed])
        for status in ("xfail", "skip"):
            counts = Counter(r.reason or "no reason given" for r in program.results if r.status == status)
            lists += [tag("p", chip(status, number_of(status, n)), reason) for reason, n in counts.most_common(20)]
        if program.errors:
            lists.append(self.logs(program.errors + report.last_words(program, 8), one.place))
            lists.append(self.kernel_said(name, [one]) if program.kernel or program.machine_end[0] != "ok" else None)
        passed = [r.name for r in program.results if r.status == "pass"]
        if passed:
            lists.append(details(f"{len(passed)} ok", tag("p", ", ".join(passed), cls="mono")))
        return tag(
            "tr", tag("td", SYMBOL[program.status], cls=program.status, title=WORD[program.status]),
            tag("td", details(tag("code", program.name), *lists, cls="paper" if program.status == "fail" else None)
                if lists else tag("code", program.name), cls="wide"),
            tag("td", *chips(Counter(r.status for r in program.results)), program.reason),
            tag("td", "" if seconds is None else [f"{seconds:.1f}", bar([(seconds, program.status)], most)], cls="n"))

    # --- the history ---

    def history(self):
        out = [self.one_history(n, past) for n, past in enumerate(self.found.histories)]
        return self.section("history", "Released kernels", *(out or [self.missing("make history")]))

    def one_history(self, number, found):
        versions = found.past.versions
        if not versions:
            return tag("p", f"{found.place}: no kernel has a result yet.", cls="dim")
        lines = []
        for n, (text, rows, windows, note) in enumerate(self.lanes(found.past)):
            is_bad = any(w[2] in history.BAD for w in windows)
            self.drawer(("lane", number, n), text, self.explained(note) if is_bad else None,
                        tag("ul", *(tag("li", chip(status, WORD[status]), f"{first} to {last}" if first != last else first,
                                        f": {reason}" if reason else "")
                                    for first, last, status, reason in windows), cls="rows"),
                        *folded([tag("li", tag("code", row)) for row in rows]), on_paper=is_bad)
            cells = [tag("th", self.link(text, "lane", number, n, title=text), scope="row")]
            for first, last, status, reason in windows:
                columns = versions.index(last) - versions.index(first) + 1
                words = f" {WORD[status]}" if 10 * columns > len(versions) else ""
                cells.append(tag("td", SYMBOL[status] + words, cls=status, colspan=columns,
                                 title=f"{first} to {last}: {WORD[status]} {reason}".strip()))
            lines.append(cells)
        rows = [[one.kernel, tag("td", *chips(Counter(state(v) for v, _ in one.tests.values()))),
                 tag("td", f"{one.seconds:.0f}", cls="n"), tag("td", self.grid_link([one]))]
                for one in self.found.results if one.source == "history" and one.place.startswith(found.place + "/")]
        return tag(
            "div", tag("p", f"{how_many(len(versions), 'kernel')} of Debian's archive ({found.place}).  A line is rows whose "
                       "verdict is not the same everywhere, what went wrong first; it opens the explanation."), legend(),
            table(["rows", *versions], lines, "Verdicts by released kernel", cls="timeline",
                  style=f"min-width:{14 + 1.4 * len(versions):.0f}rem") if lines else
            tag("p", "All rows are the same, and well, on all of them."),
            details("All kernels", table(["kernel", "results", "seconds", "grid"], rows, "All kernels")))

    def lanes(self, past):
        """[(title, rows, windows, note)], what is not ok first."""
        by_note, others = {}, []
        for windows, rows in past.changes().items():
            for row in rows:
                bad = [w[:2] for w in windows if w[2] in history.BAD]
                if bad:
                    note = self.one_note(row, bad)
                    by_note.setdefault((note, () if note else windows), []).append((row, windows))
            if not bad:
                others.append((windows, rows))
        out = []
        for (note, _), entries in sorted(by_note.items(), key=lambda i: i[0][0] is not None):
            title = re.split(": |[.]  ", note.text)[0] if note else f"Not explained: {entries[0][0]}"
            out.append((title, [row for row, _ in entries], self.merged(past.versions, [w for _, w in entries]), note))
        for windows, rows in sorted(others, key=lambda o: -len(o[1])):
            reason = next((reason for _, _, v, reason in windows if v in ("skip", "xfail")), "")
            title = f"{how_many(len(rows), 'row')}: {reason.partition('; later')[0] or rows[0]}"
            out.append((title, rows, [(a, b, state(v), reason) for a, b, v, reason in windows], None))
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
        return self.section("matrix", "Kernels × CPUs × parameters", *(out or [self.missing("make matrix")]))

    def one_matrix(self, number, made):
        by_place = {(cell.kernel, cell.cpu, cell.parameter): cell for cell in made.cells}
        done = sum(bool(cell.results) for cell in made.cells)
        out = [tag("p", f"{done} of {how_many(len(made.cells), 'cell')} have a result ({made.place}).  A number is of results "
                   "that are ok, or of problems; a cell opens its counts and reasons."), legend()]
        for title, is_plain in (("CPU", True), ("parameter", False)):
            cells = [c for c in made.cells if (c.parameter == "none") == is_plain]
            kernels = list(dict.fromkeys(c.kernel for c in cells))
            rows = [[tag("th", cpu if is_plain else word if cpu == "spr" else f"{word} ({cpu})", scope="row"),
                     *(self.matrix_cell(number, by_place.get((kernel, cpu, word))) for kernel in kernels)]
                    for cpu, word in dict.fromkeys((c.cpu, c.parameter) for c in cells)]
            if rows:
                out.append(table([title, *kernels], rows, f"Matrix by {title}", cls="cells"))
        return tag("div", *out[:2], tag("div", *out[2:], cls="grids"))

    def matrix_cell(self, number, cell):
        if cell is None:
            return tag("td", "·", cls="none", title="no such cell")
        if cell.results is None:
            return tag("td", "? not run", cls="none")
        problems, counts = cell.judged.problems, cell.judged.counts
        status = "fail" if problems else "pass" if counts["pass"] else "skip"
        text = f"{SYMBOL['fail']} {how_many(len(problems), 'problem')}" if problems else \
            f"{SYMBOL[status]} {counts['pass']}" + (f" {SYMBOL['skip']}{counts['skip']}" if counts["skip"] else "")
        self.drawer(("matrix", number, cell.name), f"{cell.name}: Linux {cell.results.label}",
                    tag("p", *chips(counts), f"{cell.results.seconds:.0f} s ", self.grid_link([cell.results])), pre(problems),
                    [tag("p", self.link(row, "row", row)) for row, _ in cell.results.bad()[:10]],
                    *(join(tag("p", chip(status, number_of(status, counts[status]))), tag("ul", *(
                        tag("li", f"{n} × {reason or 'no reason given'}")
                        for (s, reason), n in cell.reasons.most_common() if s == status), cls="rows"))
                      for status in ("xfail", "skip") if counts[status]), on_paper=bool(problems))
        return tag("td", self.link(text, "matrix", number, cell.name), cls=status)

    # --- mutants ---

    def mutants(self):
        suites = sorted(self.found.mutants, key=lambda s: not s.suite.startswith("ours"))
        if not suites:
            return self.section("mutants", "Injected regressions", self.missing("make mutants"))
        # One column for each suite; rows are compared by name.
        rows = {}
        for n, suite in enumerate(suites):
            for row in suite.rows:
                rows.setdefault(row["name"], {})[n] = row
        lines = [self.mutant_row(entry[min(entry)], [entry.get(n) for n in range(len(suites))])
                 for _, entry in sorted(rows.items())]
        return self.section(
            "mutants", "Injected regressions",
            tag("p", "Each is a kernel with one change.  Killed means that a result which was ok becomes \"not ok\", or that "
                "the kernel warns; an equivalent change has to survive."),
            *map(self.score, suites), self.by_file(suites), self.filters([entry[min(entry)] for entry in rows.values()]),
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

    def by_file(self, suites):
        kinds, files = {"killed": "pass", "survived": "fail", "error": "missing"}, {}
        for n, suite in enumerate(suites):
            for row in suite.rows:
                for file in row["files"] if row["expect"] != "equivalent" else ():
                    files.setdefault(file, [Counter() for _ in suites])[n][kinds.get(row["verdict"], "xfail")] += 1
        most = max((c.total() for several in files.values() for c in several), default=1)
        rows = [[tag("td", file, cls="mono"), *(
            tag("td", f"{c['pass']} of {c.total()}", bar([(c[s], s) for s in reversed(ORDER)], most), cls="n")
            for c in several)] for file, several in sorted(files.items(), key=lambda i: (-i[1][0].total(), i[0]))]
        return tag("div", tag("h3", "Kills by file"),
                   tag("p", chip("pass", "killed"), chip("xfail", "crash, hang or skip only"), chip("fail", "survived"),
                       chip("missing", "no verdict")), table(["file", *(s.suite for s in suites)], rows, "Kills by file"))

    def filters(self, rows):
        def choice(name, title, values):
            return tag("label", title, tag("select", tag("option", "all", value=""),
                                           *(tag("option", v, value=v) for v in values), name=name))
        return tag(
            "form", choice("verdict", "verdict", sorted({r["verdict"] for r in rows})),
            choice("file", "file", sorted({f for row in rows for f in row["files"]})),
            choice("kind", "kind of kill", sorted({kind for row in rows for kind, items in row["kills"].items() if items})),
            choice("needs", "needs", sorted({r["needs"] for r in rows} - {""})),
            tag("label", "text", tag("input", type="search", name="text")), tag("output"), cls="filters",
            data_table="kills", hidden=True)

    def mutant_row(self, row, verdicts):
        kinds = [kind for kind, items in row["kills"].items() if items]
        return tag(
            "tr", tag("td", tag("strong", row["name"]), tag("div", row["subject"]),
                      tag("div", ", ".join(row["files"]), cls="dim mono"),
                      details("why nothing can notice it", tag("p", row["why"])) if row["why"] else None, cls="wide"),
            *map(self.kill, verdicts), tag("td", row["needs"]), tag("td", row["expect"]),
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
        verdict = tag("strong", f"{SYMBOL[status]} {row['verdict']}")
        if lists:
            return tag("td", details(join(verdict, f": {', '.join(words)}"), *lists), cls=f"{status} wide")
        return tag("td", verdict, tag("div", cut([row["summary"]])[0]), cls=f"{status} wide")

    # --- all of it ---

    def render(self):
        found = self.found
        grids = self.grids()        # others link to them
        top = self.answer(answer.answers(found.results))
        bad, bad_rows, items = self.bad()
        sections = [self.kselftest(), self.history(), self.matrix(), self.mutants()]
        gaps = self.gaps()
        odd = sum(not row["good"] for suite in found.mutants if suite.suite.startswith("ours") for row in suite.rows)
        kernels, machines = {r.kernel for r in found.results}, {r.machine for r in found.results}
        nav = [("answer", "Answer"), ("bad", f"Not ok ({items})"), *([("gaps", "Missing")] if gaps else []), ("grid", "Grid"),
               ("run", "Runs"), ("history", "Released kernels"), ("matrix", "Matrix"), ("mutants", "Injected regressions")]
        date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.date)) if found.date else "an unknown date"
        summary = join(
            tag("p", f"{how_many(len(kernels), 'kernel')}, {how_many(len(machines), 'machine')}, "
                f"{sum(len(r.tests) for r in found.results)} results, the newest of {date}.", cls="dim"),
            tag("p", chip("fail", bad_rows or "something is not ok") if items else
                chip("pass", "all is well") if found.results else chip("missing", "no run of the suite"),
                self.link("What is not ok", "bad"),
                [" · ", chip("xfail", f"{how_many(odd, 'mutant')} not as expected"), self.link("which", "mutants")]
                if odd else None,
                [" · ", chip("missing", "not complete"), self.link("what is missing", "gaps")] if gaps else None))
        body = join(
            tag("header", tag("h1", "AMX guest permission, guest CET and XSAVE", id=self.ids.place("top")), summary,
                tag("nav", tag("ul", *(tag("li", self.link(words, key)) for key, words in nav)), aria_label="Sections")),
            tag("main", top, bad, gaps, grids, *sections), *self.drawers)
        return document(body), bad_rows


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
    text, bad_rows = Page(found).render()
    path = folder(out, "folder O=") / "report.html"
    write_text(path, text)
    warn(f"{path}: {len(text.encode()) / 1e6:.1f} MB, {how_many(len(found.results), 'kernel')} and machines, "
         f"{bad_rows or 'no row not ok'}")
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
