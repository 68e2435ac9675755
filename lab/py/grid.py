# SPDX-License-Identifier: GPL-2.0-only
"""The grid of kvm/x86_64/xstate_perm_test: permission x AMX x CET in the guest's CPUID; and what
rows assert, from the comments above them in the sources.
"""

import re
from collections import namedtuple
from functools import lru_cache

from common import TOP

PROGRAM = "kvm/x86_64/xstate_perm_test"
SELFTESTS = TOP / "tools/testing/selftests"

PERMISSIONS = {
    "none": "no permission was asked for",
    "host": "ARCH_REQ_XCOMP_PERM only",
    "guest": "ARCH_REQ_XCOMP_GUEST_PERM only",
    "both": "both permissions",
    "late": "guest permission asked for after the first vCPU: EBUSY",
    "inherited": "guest permission granted before fork()",
    "exec": "guest permission granted, then lost by execve()",
}
AMX = {"noamx": "no AMX", "amx": "AMX"}
CET = {"nocet": "no CET", "shstk": "shadow stacks", "ibt": "branch tracking", "cet": "all of CET"}
# Where user space asked for AMX on behalf of a guest, and got it.
GRANTED = ("guest", "both", "inherited")
# If the sources are not there.
TESTS = {"xstate_perm_proc": ["masks", "request", "guest_supp", "cap_xsave2", "cpuid_0xd_0", "cpuid_0xd_1",
                              "cpuid_subleaves", "cpuid_constant", "cet_offered"],
         "xstate_perm": ["set_cpuid", "xsave2", "runtime_size", "xss", "cet_msrs", "guest", "xcomp_bv"]}

TEST = re.compile(r"(?:^|\n)(/\*(?:[^*]|\*(?!/))*\*/\n)?TEST(?:_F(?:_\w+)?)?\((\w+)(?:,\s*(\w+))?\)")

Cell = namedtuple("Cell", "permission cpuid")       # cpuid is "" for what does not depend on it


def cpuids():
    return [f"{amx}_{cet}" for amx in AMX for cet in CET]


def cells():
    """All cells, a permission after the other."""
    return [Cell(p, c) for p in PERMISSIONS for c in ["", *cpuids()]]


def variant(cell):
    return cell.permission + (f"_{cell.cpuid}" if cell.cpuid else "")


def tell(cell):
    """A cell in words."""
    words = PERMISSIONS[cell.permission]
    if not cell.cpuid:
        return f"{words}; what depends on no guest CPUID"
    amx, cet = cell.cpuid.split("_")
    return f"{words}; guest CPUID with {AMX[amx]} and {CET[cet]}"


def plain(comment):
    """A comment of C as a sentence."""
    lines = [re.sub(r"^\s*(/\*|\*/|\*)?\s?", "", line) for line in comment.replace("*/", "").splitlines()]
    return re.sub(r"\s+", " ", " ".join(lines)).strip()


@lru_cache(maxsize=None)
def assertions(source):
    """{(fixture, test): what it asserts} of a source, such as "kvm/x86_64/xfd_test"."""
    try:
        code = (SELFTESTS / f"{source}.c").read_text(errors="replace")
    except OSError:
        return {}
    return {(fixture if test else "", test or fixture): plain(comment) for comment, fixture, test in
            TEST.findall(code)}


def asserts(row):
    """What "PROGRAM:FIXTURE.VARIANT.TEST" asserts, "" if nothing tells."""
    program, _, name = row.partition(":")
    parts = name.split(".")
    if not re.fullmatch(r"(kvm/x86_64|x86)/\w+", program) or len(parts) < 2:
        return ""
    found = assertions(program) or assertions(re.sub(r"_(32|64)$", "", program))
    return found.get((parts[0], parts[-1]), "")


def tests(fixture):
    """Names of the tests of a fixture of the grid, in the order of the source."""
    return [t for f, t in assertions(PROGRAM) if f == fixture] or TESTS[fixture]


def rows(cell):
    """Names of the rows of a cell."""
    fixture = "xstate_perm" if cell.cpuid else "xstate_perm_proc"
    return [f"{PROGRAM}:{fixture}.{variant(cell)}.{t}" for t in tests(fixture)]


def verdicts(results):
    """{cell: [(row, verdict, reason)]} of one kernel; rows that nobody asked for are not in it."""
    found = {}
    for cell in cells():
        all_rows = [(row, results.verdict(row)) for row in rows(cell)]
        found[cell] = [(row, *verdict) for row, verdict in all_rows if verdict]
    return found


def groups(all_results):
    """[(results, verdicts)] of those that have a grid, with all in one list that say the same."""
    found = {}
    for results in all_results:
        grid = verdicts(results)
        if any(grid.values()):
            key = tuple((cell, tuple(v)) for cell, v in grid.items())
            found.setdefault(key, ([], grid))[0].append(results)
    return list(found.values())
