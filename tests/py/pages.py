# SPDX-License-Identifier: GPL-2.0-only
"""Results that nobody has: folders as kselftest, matrix, history and mutants leave them, for
tests of the page that lab/webpage makes of them.
"""

import json
import os
from pathlib import Path

import grid
import matrix
from madeup import Made, harness, make_run

HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">"\'&amp;'
DATE = 1767225600               # 2026-01-01 00:00 UTC
PASID = "x86/xstate_pasid_64"
KVM_PASID = "kvm/x86_64/xstate_pasid_test"


def rows(change=()):
    """{"PROGRAM:ROW": [verdict, reason]} of the grid and of all else that the answer takes."""
    found = {row: ["pass", ""] for cell in grid.cells() for row in grid.rows(cell)}
    found |= {f"kvm/x86_64/cet_fpstate_test:cet_fpstate.guest_amx_cet.{test}": ["pass", ""] for test in ("reset", "ioctls")}
    found["kvm/x86_64/cet_fpstate_test:cet_fpstate.guest_amx_cet.first_amx_cpuid"] = \
        ["xfail", "first KVM_SET_CPUID2 with AMX drops the fpstate"]
    found |= {f"{PASID}:xstate_pasid.fork": ["pass", ""], f"{KVM_PASID}:xstate_pasid.msrs": ["pass", ""]}
    return found | dict(change)


def skipped(pattern, reason):
    """Those of rows() whose name has a piece, skipped."""
    return {row: ["skip", reason] for row in rows() if pattern in row}


def dump(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data, indent=1))
    os.utime(path, (DATE, DATE))


def make_kselftest(folder, verdicts=None, **more):
    """A run of the programs that the rows belong to."""
    programs = {}
    for name, (verdict, reason) in (verdicts or rows()).items():
        program, _, row = name.partition(":")
        lines = programs.setdefault(program, [])
        number = sum(not line.startswith("#") for line in lines) + 1
        if verdict == "fail":
            lines.append(f"# test.c:1: {row}: XCOMP_BV: wanted 0x1800 got 0x0; lost: CET_USER")
        word = {"skip": f" # SKIP {reason}", "xfail": f" # XFAIL {reason}"}.get(verdict, "")
        lines.append(f"{'not ok' if verdict == 'fail' else 'ok'} {number} {row}{word}")
    made = [Made(name, harness(*lines), code=int(any(line.startswith("not") for line in lines)), kernel=["kvm: made up"])
            for name, lines in programs.items()]
    made += more.pop("programs", [])
    run = make_run(folder, made, cpu="spr", **more)
    os.utime(folder / "run.json", (DATE, DATE))
    return run


def make_history(folder, verdicts, setup=None):
    """verdicts: {version: rows}"""
    dump(folder / "setup.json", setup or {"tests": ["kvm", "x86"], "cpu": "spr", "parallel": 1,
                                          "keys": {version: "key" for version in verdicts}})
    for version, tests in verdicts.items():
        if tests is not None:
            dump(folder / f"{version}.json", {"key": "key", "tests": tests, "end": "", "seconds": 80, "cpu": 90})


def make_matrix(folder, cells):
    """cells: {(kernel, cpu, parameter): (rows, problems), or None}"""
    made = [matrix.new_cell("key", *place) for place in cells]
    programs = {name.partition(":")[0]: "hash" for found in cells.values() if found for name in found[0]}
    folder.mkdir(parents=True)
    matrix.Setup(["kvm", "x86"], made, 1, {cell.kernel: programs for cell in made}).write(folder)
    for cell, found in zip(made, cells.values()):
        if found:
            dump(folder / f"{cell.name}.json", {"name": cell.name, "key": "key", "tests": found[0], "problems": found[1],
                                                "seconds": 80, "programs": programs, "bad": []})
    return [cell.name for cell in made]


def mutant(name, verdict="killed", expect="killed", kills=("xstate_perm_test:xstate_perm.guest_amx_cet.xcomp_bv",),
           file="arch/x86/kernel/fpu/xstate.c", **more):
    wanted = {"killed": "killed", "equivalent": "survived"}
    return {"name": name, "subject": f"x86/fpu: {name} is broken", "expect": expect, "needs": "amx+cet", "files": [file],
            "why": "Nothing shows it." if expect == "equivalent" else "", "key": "key",
            "kills": {"assertion": list(kills) if verdict == "killed" else [], "warning": [], "hang": [], "crash": []},
            "skipped": [], "programs": {}, "killers": [], "verdict": verdict, "good": verdict == wanted[expect], "summary": "",
            "build_seconds": 1, "run_seconds": 2, "cpu_seconds": 3} | more


def make_mutants(folder, mutants):
    dump(folder / "table.json", {"kernel": "7.3.4-lab", "date": "2026-01-01", "mutants": mutants})
    dump(folder / "setup.json", {"key": "key"})
    for row in mutants:
        dump(folder / f"{row['name']}.json", row)


def everything(folder):
    """Results of all kinds, good, bad, hostile, missing and half-written."""
    out = Path(folder)
    lost = f"{grid.PROGRAM}:xstate_perm.guest_amx_cet.xcomp_bv"
    make_kselftest(out, rows({lost: ["fail", ""]}), programs=[
        Made(f"x86/{HOSTILE.replace('/', '')}", harness(f"# {HOSTILE}", f"not ok 1 row.{HOSTILE}"), code=1,
             kernel=[f"WARNING: {HOSTILE}"]),
        Made("x86/hangs", harness("ok 1 a.b"), code=None, end="hang", why="it hung")])
    old = rows(skipped("cet_offered", "KVM is older than guest CET"))
    make_history(out / "history", {
        "6.12.90": old, "6.16.3": old | {"kvm/x86_64/xfd_test:xfd.amx.restore": ["fail", ""]},
        "6.18.9": rows({"x86/xstate_new:a.b": ["fail", HOSTILE]}), "7.2.6": None, "7.3.4": rows()})
    dump(out / "history/7.2.6.json", '{"key": "key", "tests": {"half')
    make_matrix(out / "matrix", {
        ("6.12", "spr", "none"): (old, []), ("7.3", "spr", "none"): (rows(), []),
        ("7.3", "spr-noamx", "none"): (rows(skipped("_amx_", "no AMX on this machine")), []),
        ("7.3", "spr", "nopku"): (rows({lost: ["fail", ""]}), [f"not ok: {lost}", HOSTILE]),
        ("7.3", "ryzen", "none"): None})
    make_mutants(out / "mutants/ours", [
        mutant("loses-cet"), mutant("loses-pasid", "survived", file="arch/x86/kvm/x86.c"), mutant(
            "no-effect", "survived", "equivalent"), mutant("hangs", "hang", kills=()), mutant("hostile", subject=HOSTILE)])
    make_mutants(out / "mutants/upstream", [mutant("loses-cet", "survived")])
    return out
