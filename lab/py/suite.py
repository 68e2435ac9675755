# SPDX-License-Identifier: GPL-2.0-only
"""The command lab/kselftest: set up what is missing, build, run, report."""

import argparse
import os
import re
import shutil
import tempfile
from pathlib import Path

import choose
import here
import host
from choose import programs, select
from common import LAB, call, die, env, folder, hash_bytes, say, script, warn, write_text
from machines import Machines
from progress import PATIENCE, Live
from run import Parser, number

# Debian's kernels keep even root from writing through /proc/PID/mem, which upstream's
# test_shadow_stack does.
APPEND = "proc_mem.force_override=always"

SERIES = re.compile(r"(\d+\.\d+)(\.\d+(-\d+)?)?")

USE = """\
lab/kselftest [run]		all of it
lab/kselftest build		build only, and link the result to OUT/selftests
lab/kselftest list		build only, and list programs, their rows, and what these need
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


# What a program is made of, apart from where and from which lines.
STRIP = ["--strip-all", "-R", ".note.gnu.build-id"]


def hash_programs(jobs):
    """{name: hash} of jobs: of what is executed, and of the arguments."""
    found = {}
    with tempfile.TemporaryDirectory() as tmp:
        bare = Path(tmp) / "bare"
        for job in jobs:
            if call(["objcopy", *STRIP, job.program, bare], 60, Path(tmp) / "log"):
                die(f"objcopy cannot strip {job.program}")
            found[job.name] = hash_bytes(bare.read_bytes(), *job.arguments)
    return found


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
    p.add_argument("--failed", default=env("FAILED", "0"))
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
    elif a.kernel in Machines().builds:
        return Machines().newest
    elif a.kernel != "newest":
        match = SERIES.fullmatch(a.kernel)
        if not match:
            die(f"KERNEL='{a.kernel}': give a Debian version series such as 7.3, an exact version such as "
                f"6.18.5, {' or '.join(Machines().builds)}, or the path of a bzImage or vmlinuz")
        return match.group(1)
    return "newest"


def main(arguments):
    a = parser().parse_args(arguments)
    last = again(a)
    series = check(a)
    in_lab = a.host == "0"
    # Before what takes ten minutes the first time.
    out = folder(a.out, "folder O=")
    packages("fetch", "build", *(["kernel"] if a.kernel in Machines().builds else []),
             *(lab_packages([a.cpu or "spr"]) if a.mode == "run" and in_lab else []))
    tree = Path(a.ksrc or script("kernel/fetch", "library", series))
    built = build(tree=tree)
    link(built, out / "selftests")
    if a.mode == "build":
        say(f"built: {out}/selftests")
        return 0
    if a.mode == "install":
        install(built, tree, Path(a.target))
        return 0
    jobs = choose.failed(last, built) if last else select(a.tests.split(), built)
    if not jobs:
        warn(f"FAILED=1: nothing failed in the last run in {out}: nothing to run")
    elif a.mode == "list":
        print("\n".join(choose.listing(jobs, built, bool(a.tests or last))))
    else:
        if last:
            options = " ".join(f"{name.upper()}={getattr(a, name)}" for name in
                               ("kernel", "cpu", "append", "params") if getattr(a, name))
            say(f"what failed in {out}: {len(jobs)} of {len(last.programs)} programs, or rows of them; "
                + ("HOST=1" if a.host == "1" else options))
        return run(a, out, jobs)
    return 0


def again(a):
    """With FAILED=1 the last run in the folder; options that are not given are those of that run."""
    if a.failed not in ("0", "1"):
        die(f"FAILED='{a.failed}': FAILED=1 runs again what failed last time")
    if a.failed == "0" or a.mode not in ("run", "list"):
        return None
    if a.tests:
        die("FAILED=1 knows what to run: leave out TESTS=")
    last = choose.last_run(Path(a.out))
    found = last.record
    if not env("HOST") and found.get("host"):
        a.host = "1"
    names = ["ksrc"]
    if a.host == "0":
        a.kernel = found.get("kernel", a.kernel) if a.kernel == "newest" else a.kernel
        a.append = a.append or found.get("append", "").removeprefix(APPEND).strip()
        a.seed = a.seed if env("SEED") else found.get("seed", a.seed)
        names += ["modules", "cpu", "params"]
    for name in names:
        setattr(a, name, getattr(a, name) or found.get(name, ""))
    return last


def run(a, out, jobs):
    """Run them, and report while they run; returns the exit status."""
    note = {"command": "kselftest", "tests": a.tests, "modules": a.modules, "ksrc": a.ksrc,
            "rows": choose.rows_of(jobs)}
    try:
        if a.host == "1":
            live = Live(out, jobs, 1, sum(job.seconds for job in jobs), os.uname().release)
            here.run(out, jobs, live, {**note, "host": True})
        else:
            live = Live(out, jobs, a.jobs or len(os.sched_getaffinity(0)), a.limit)
            host.run(host.Options(
                out=out, jobs=jobs, kernel=a.kernel, modules=a.modules, cpu=a.cpu or "spr",
                append=f"{APPEND} {a.append}".strip(), params=a.params, limit=a.limit, parallel=a.jobs,
                once=a.once, seed=a.seed, keep=a.warm, observer=live, note=note))
    except SystemExit:
        # A signal: what had ended is reported.  Without a run there is nothing to tell.
        if (out / "run.json").exists():
            live.finish(PATIENCE)
        raise
    return live.finish()


def link(target, path):
    """path is a link to target; two runs may do that at once."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.symlink_to(target)
    os.replace(new, path)
