# SPDX-License-Identifier: GPL-2.0-only
"""The answer to the question that the suite was written for, from results and nothing else.

A kernel answers a question if all rows that the question has there have a result, none of
them is "not ok", and those that show that it could be told (needs) were not skipped.  So a
suite in which nothing ran answers nothing.
"""

from collections import Counter
from dataclasses import dataclass, field

import gather
import grid
import history

GRID = grid.PROGRAM + ":"
GRANTED = [f"{GRID}xstate_perm.{p}_amx_" for p in grid.GRANTED]


@dataclass(frozen=True)
class Question:
    key: str
    title: str
    asked: str                  # as the mail asks it
    good: str                   # what is so where all is well, after "on KERNELS"
    rows: tuple                 # patterns
    needs: tuple                # patterns of rows one of which must have asserted something


QUESTIONS = (
    Question(
        "cet", "CET_USER and CET_KERNEL",
        "Will CET_USER or CET_KERNEL be dropped if user space requests AMX?",
        "a guest for which user space requested AMX has CET_USER and CET_KERNEL in its fpstate and keeps them",
        (*(f"{p}{cet}.{test}" for p in GRANTED for cet in ("shstk", "ibt", "cet")
           for test in ("cet_msrs", "guest", "xcomp_bv")),
         *(f"kvm/x86_64/cet_fpstate_test:cet_fpstate.*_amx_{cet}.*" for cet in ("shstk", "ibt", "cet"))),
        (GRID + "xstate_perm_proc.*.cet_offered",)),
    Question(
        "pasid", "PASID",
        "Will the kernel drop PASID if the guest requests AMX?",
        "no request for AMX drops PASID from an fpstate or from the task that has it, and no guest gets it",
        (*(f"{p}*.xcomp_bv" for p in GRANTED), "x86/xstate_pasid_64:*", "kvm/x86_64/xstate_pasid_test:*"),
        ("x86/xstate_pasid_64:*", "kvm/x86_64/xstate_pasid_test:*")),
    Question(
        "rest", "Masks, CPUID, sizes, state",
        "What else does a request do, in any combination of permission and guest CPUID?",
        "masks, CPUID, sizes and state of every combination of permission, AMX and CET are what CPUID leaf 0xD "
        "and the permission call for",
        (GRID + "*",), tuple(f"{p}*.set_cpuid" for p in GRANTED)))

ASSERTED = ("pass", "fail", "xfail", "missing")


@dataclass
class Told:
    """What one kernel says to one question."""
    results: object
    counts: Counter
    word: str                   # "good", "bad" or "untold"
    rows: list = field(default_factory=list)        # that are not ok, or have no result
    reasons: Counter = field(default_factory=Counter)   # of what was skipped
    known: Counter = field(default_factory=Counter)     # of what fails in a known way


def names(patterns, results):
    """Rows that are meant: those of the grid, and those that any of the results has."""
    rows = [row for cell in grid.cells() for row in grid.rows(cell)]
    rows += [name for r in results for name in r.tests if not name.endswith(":")]
    return gather.match(dict.fromkeys(rows), patterns)


def tell(results, rows, needs):
    """rows, needs: names of rows as of names()"""
    found = [(row, results.verdict(row)) for row in rows]
    # A row that shows only where a program went wrong is well elsewhere.
    found = [(row, v) for row, v in found if v and not (
        v[0] == "missing" and row.endswith((":kernel", ":program")))]
    counts = Counter(v[0] for _, v in found)
    bad = [row for row, v in found if v[0] in history.BAD]
    needed = [v for v in map(results.verdict, needs) if v]
    skipped = [v[1] for v in needed if v[0] == "skip"] or [v[1] for _, v in found if v[0] == "skip"]
    if bad:
        word = "bad"
    elif counts["pass"] and any(v[0] in ASSERTED for v in needed):
        word = "good"
    else:
        word = "untold"
    return Told(results, counts, word, bad, Counter(reason or "no reason given" for reason in skipped),
                Counter(v[1] or "no reason given" for _, v in found if v[0] == "xfail"))


def ask(question, results):
    """[Told], one for each of the results."""
    rows, needs = names(question.rows, results), names(question.needs, results)
    return [tell(r, rows, needs) for r in results]


def order(kernel):
    return history.order(kernel), kernel


def ranges(kernels, known):
    """[[kernel, ...]] of those that are neighbours among all known ones."""
    found = []
    for kernel in sorted(kernels, key=order):
        if found and known.index(kernel) == known.index(found[-1][-1]) + 1:
            found[-1].append(kernel)
        else:
            found.append([kernel])
    return found


def span(results, everything):
    """Kernels and CPUs in few words: "6.18.5 to 7.3.4 (11 kernels), 3 machines"."""
    known = sorted({r.kernel for r in everything}, key=order)
    words = []
    for some in ranges({r.kernel for r in results}, known):
        words += some if len(some) < 3 else [f"{some[0]} to {some[-1]} ({len(some)} kernels)"]
    if len(words) > 6:
        words = [*words[:5], f"{len(words) - 5} more"]
    said = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    machines = sorted({r.machine for r in results if r.cpu})
    if len(machines) > 1:
        said += f", {len(machines)} machines"
    elif machines and machines != ["spr"]:
        said += f", {machines[0]}"
    return said


def how_many(number, word):
    many = {"crash": "crashes", "history": "histories"}.get(word, word + "s")
    return f"{number} {word if number == 1 else many}"


def each(numbers):
    """How many each has, in words: "27", "13 to 28", "up to 4"."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}" if low else f"up to {high}"


def first(reasons):
    """The most frequent of some reasons."""
    found = min(reasons, key=lambda reason: (-reasons[reason], reason), default="its rows did not run there")
    return found.removeprefix("cannot tell: ")


@dataclass
class Sentence:
    """An answer: its word, and what it says in lines."""
    question: Question
    word: str                   # "good": no; "bad": not as it should be; "untold"
    lines: list                 # (kind, text, rows that are not ok): "bad", "good", "known", "untold"


def sentence(question, told, everything):
    """told: of all kernels that there are results of"""
    good, bad, untold = ([t for t in told if t.word == word] for word in ("good", "bad", "untold"))
    lines = []

    def where(some):
        return span([t.results for t in some], everything)

    if bad:
        failed, lost = sum(t.counts["fail"] for t in bad), sum(t.counts["missing"] for t in bad)
        what = " and ".join(filter(None, [f"{how_many(failed, 'result')} not ok" if failed else "",
                                          f"{how_many(lost, 'result')} missing" if lost else ""]))
        lines.append(("bad", f"On Linux {where(bad)} there {'is' if failed + lost == 1 else 'are'} {what}.",
                      list(dict.fromkeys(row for t in bad for row in t.rows))))
    if good:
        lines.append(("good", f"On Linux {where(good)}, {question.good}: {each([t.counts['pass'] for t in good])} rows "
                      f"are ok{' on each' if len(good) > 1 else ''}.", ()))
        known = sum((t.known for t in good), Counter())
        if known:
            numbers = [sum(t.known.values()) for t in good]
            lines.append(("known", f"But {each(numbers)} fail{'s' if max(numbers) == 1 else ''} in a known way"
                          f"{', most of them' if len(known) > 1 else ''}: {first(known)}.", ()))
    telling = {t.results.kernel for t in good + bad}
    never, here = ([t for t in untold if (t.results.kernel in telling) == is_here] for is_here in (False, True))
    words = [f"{place}: {first(sum((t.reasons for t in some), Counter()))}" for some, place in (
        (never, never and f"on {where(never)}"), (here, f"by {how_many(len(here), 'more run')}")) if some]
    if words:
        lines.append(("untold", f"Nothing can be told {'; nor '.join(words)}.", ()))
    return Sentence(question, "bad" if bad else "good" if good else "untold", lines)


def answers(results):
    """[(Sentence, [Told])] of all questions."""
    found = []
    for question in QUESTIONS:
        told = ask(question, results)
        found.append((sentence(question, told, results), told))
    return found
