# SPDX-License-Identifier: GPL-2.0-only
"""The command lab/kselftest: set up what is missing, build, run, report."""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

import here
import host
import report
from common import LAB, call, die, env, folder, say, script, write_text
from machines import Machines
from run import Parser, number

# What one program may take, in time inside the machine.
SECONDS = 120

# Debian's kernels keep even root from writing through /proc/PID/mem, which upstream's
# test_shadow_stack does.
APPEND = "proc_mem.force_override=always"

SERIES = re.compile(r"(\d+\.\d+)(\.\d+(-\d+)?)?")

USE = """\
lab/kselftest [run]		all of it
lab/kselftest build		build only, and link the result to OUT/selftests
lab/kselftest list		build only, and name the programs that would run
lab/kselftest install DIR	build, and install in the layout of kselftest

Options have the variables of "make kselftest" as their defaults (see "make help").
"""


def packages(*groups):
    """Install what the machine lacks, or say what that is."""
    if status := call([LAB / "kernel/packages", *groups], 2400):
        raise SystemExit(status)


def lab_packages(cpus):
    """The groups of packages that machines with these CPUs take."""
    machines = Machines()
    return ["lab", *(["qemu"] if any(machines.cpu(name).is_qemu for name in cpus) else [])]


def build(series="newest", tree=""):
    """The folder of built selftests, for a series of kernels or against a tree."""
    return Path(script("selftests/build", tree or script("kernel/fetch", "library", series)))


def programs(built):
    """All of them; ours come first, where upstream has one of that name."""
    def found(*parts):
        return sorted(str(p.relative_to(built)) for part in parts
                      for p in (built / part).rglob("*") if p.is_file())
    return found("kvm", "x86") + found("upstream")


def select(tests, built):
    """The jobs that the words of TESTS= mean, in their order.

    A word is a program (xstate_perm_test, x86/amx_64), a folder (upstream), or
    PROGRAM:TEST, PROGRAM:VARIANT.TEST or PROGRAM:FIXTURE.VARIANT.TEST.  A fixture is
    called after its program.  Without any, upstream's programs go first: they tell a
    wrong machine from a wrong kernel.
    """
    names, jobs = programs(built), []
    for word in tests or ["upstream", "kvm", "x86"]:
        program, colon, test = word.partition(":")
        arguments = []
        if colon:
            if not re.fullmatch(r"[A-Za-z0-9_.]+", test):
                die(f"TESTS='{word}': what follows the colon is no name of a test")
            base = program.rpartition("/")[2].removesuffix("_test")
            arguments = {0: ["-t", test], 1: ["-r", f"{base}.{test}"]}.get(test.count("."), ["-r", test])
        found = [n for n in names if program in (n, Path(n).name, Path(n).name.removesuffix("_64"))][:1]
        found = found or [n for n in names if n.startswith(program + "/")]
        if not found:
            die(f"TESTS='{word}': no such program; there are {' '.join(names)}")
        for name in found:
            jobs.append(host.Job(name + colon + test, SECONDS, built / name, arguments))
    return jobs


def install(built, tree, target):
    selftests = tree / "tools/testing/selftests"
    for name in ("kselftest", "kvm", "x86"):
        folder(target / name)
    for pattern in ("*.sh", "*.pl"):
        for path in (selftests / "kselftest").glob(pattern):
            shutil.copy2(path, target / "kselftest")
    shutil.copy2(selftests / "run_kselftest.sh", target)
    for name in ("settings", "config"):
        shutil.copy2(selftests / "kvm" / name, target / "kvm")
    # Basenames only, as upstream installs them.
    lines = []
    for name in programs(built):
        collection = name.partition("/")[0]
        if collection != "upstream":
            shutil.copy2(built / name, target / collection)
            lines.append(f"{collection}:{Path(name).name}\n")
    write_text(target / "kselftest-list.txt", "".join(sorted(lines)))
    say(f"installed: {target}")


def parser():
    def count(name, default):
        try:
            return number(env(name, str(default))) if env(name) else default
        except argparse.ArgumentTypeError as error:
            return die(f"{name}={error}")

    p = Parser(prog="lab/kselftest", description=USE, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mode", nargs="?", default="run")
    p.add_argument("target", nargs="?", default="")
    p.add_argument("--kernel", default=env("KERNEL", "newest"))
    p.add_argument("--modules", default=env("MODULES"))
    p.add_argument("--ksrc", default=env("KSRC"))
    p.add_argument("--cpu", default=env("CPU"))
    p.add_argument("--tests", default=env("TESTS"))
    p.add_argument("--append", default=env("APPEND"))
    p.add_argument("--params", default=env("PARAMS"))
    p.add_argument("--host", default=env("HOST", "0"))
    p.add_argument("--out", default=env("O", "out"))
    p.add_argument("--jobs", type=number, default=count("JOBS", 0))
    p.add_argument("--seed", type=number, default=count("SEED", 1))
    p.add_argument("--warm", type=number, default=count("WARM", 0))
    p.add_argument("--limit", type=number, default=count("LIMIT", 1800))
    p.add_argument("--once", action="store_true", help="this kernel does not come back: keep nothing of it in the cache")
    return p


def check(a):
    """What can be wrong with the options; returns the series of the kernel."""
    if a.mode not in ("run", "build", "list", "install"):
        die("use: lab/kselftest [build | list | install DIR]")
    if a.mode == "install" and not a.target:
        die("where to? say make install DESTDIR=/some/folder")
    if a.mode != "install" and a.target:
        die(f"lab/kselftest {a.mode} takes no arguments")
    if a.host not in ("0", "1"):
        die(f"HOST='{a.host}': HOST=1 runs on this machine's own kernel, HOST=0 in the lab")
    if a.host == "1":
        if a.cpu or a.modules or a.append or a.params:
            die("CPU=, MODULES=, APPEND= and PARAMS= are for the lab: leave them out with HOST=1")
        if a.kernel != "newest":
            die("HOST=1 takes this machine's own kernel: leave out KERNEL=")
        match = SERIES.match(os.uname().release)
        return match.group(1) if match else "newest"
    if "/" in a.kernel:
        if not Path(a.kernel).exists():
            die(f"KERNEL='{a.kernel}': no such file")
        if not Path(a.kernel).is_dir() and not Path(a.modules or "/nowhere").is_dir():
            die(f"KERNEL='{a.kernel}': MODULES= must name the folder with its modules")
    elif a.kernel != "newest":
        match = SERIES.fullmatch(a.kernel)
        if not match:
            die(f"KERNEL='{a.kernel}': give a Debian version series such as 7.3, an exact version such as "
                "6.18.5, or the path of a bzImage or vmlinuz")
        return match.group(1)
    return "newest"


def main(arguments):
    a = parser().parse_args(arguments)
    series = check(a)
    in_lab = a.host == "0"
    # Before what takes ten minutes the first time.
    out = folder(a.out, "folder O=")
    packages("fetch", "build", *(lab_packages([a.cpu or "spr"]) if a.mode == "run" and in_lab else []))
    tree = Path(a.ksrc or script("kernel/fetch", "library", series))
    built = build(tree=tree)
    link(built, out / "selftests")
    if a.mode == "build":
        say(f"built: {out}/selftests")
        return 0
    if a.mode == "install":
        install(built, tree, Path(a.target))
        return 0
    jobs = select(a.tests.split(), built)
    if a.mode == "list":
        print("\n".join(job.name for job in jobs))
        return 0
    (out / "report.ktap").unlink(missing_ok=True)
    if in_lab:
        host.run(host.Options(
            out=out, jobs=jobs, kernel=a.kernel, modules=a.modules, cpu=a.cpu or "spr",
            append=f"{APPEND} {a.append}".strip(), params=a.params, limit=a.limit, parallel=a.jobs,
            once=a.once, seed=a.seed, keep=a.warm))
    else:
        here.run(out, jobs)
    # What went wrong is for the report to say, in its place.
    with open(out / "report.ktap", "w") as ktap:
        status = report.write([out], ktap)
    sys.stdout.write((out / "report.ktap").read_text())
    return status


def link(target, path):
    """path is a link to target; two runs may do that at once."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.symlink_to(target)
    os.replace(new, path)
