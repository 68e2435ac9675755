# SPDX-License-Identifier: GPL-2.0-only
"""Runs that nobody ran: folders as lab/py/host.py leaves them."""

from dataclasses import dataclass, field

import record

KERNEL = "7.3.4-lab"


@dataclass
class Made:
    """A program, and the machine that it had for itself."""
    name: str
    lines: list = field(default_factory=list)
    code: int = 0               # None: it never ended
    kernel: list = field(default_factory=list)  # what the kernel said meanwhile
    end: str = "ok"             # of the machine
    why: str = ""
    began: bool = True


def harness(*results):
    """What a program with the harness prints; comments belong to the result after them."""
    plan = sum(not line.startswith("#") for line in results)
    return ["TAP version 13", f"1..{plan}", *results]


def make_machine(folder, program):
    folder.mkdir(parents=True)
    results, console = [], [f"[    2.000000] {line}" for line in program.kernel]
    if program.began:
        results += [f"@lab begin {program.name}", *program.lines]
        console.insert(0, f"[    1.500000] lab: begin {program.name}")
        if program.code is not None:
            results.append(f"@lab end {program.name} {program.code}")
            console.append(f"[    2.700000] lab: end {program.name}")
    if program.end == "ok" and program.code is not None:
        results.append("@lab done 0")
    console = console or ["[    1.000000] waiting"]
    (folder / "results.log").write_text("".join(f"{line}\n" for line in results))
    (folder / "console.log").write_text("".join(f"{line}\n" for line in console))


def make_run(folder, programs, boot=(), boot_end="ok", boot_why="", **more):
    """A folder with a run of these programs; boot are lines of the kernel before them."""
    (folder / "boot").mkdir(parents=True)
    lines = [f"Linux version {KERNEL} (builder)", *boot]
    (folder / "boot/console.log").write_text("".join(f"[    0.000000] {line}\n" for line in lines))
    machines = [{"folder": "boot", "boot": True, "end": boot_end, "why": boot_why}]
    for number, program in enumerate(programs):
        place = f"jobs/{number}"
        make_machine(folder / place, program)
        machines.append({"folder": place, "programs": [program.name], "end": program.end,
                         "why": program.why})
    record.write(folder, {"planned": [p.name for p in programs], "machines": machines, "end": "ok",
                          "why": "", "seconds": 5, "cpu_seconds": 7, **more})
    return record.Run(folder)
