# SPDX-License-Identifier: GPL-2.0-only
"""The command lab/runner: run selftests as a CI system does, on the emulated host.

use: lab/runner DIR [COLLECTION:TEST...]	(default: all that its list names)

DIR comes from "make install DESTDIR=DIR", or is the kselftest_install of a kernel
tree.  Each test is run alone, by its name, by the run_kselftest.sh of DIR.  KERNEL,
MODULES, CPU, APPEND, PARAMS, JOBS, SEED, LIMIT and O come from the environment, see
"make help".
KTAP on stdout; what each run printed is in $O/runner.
"""

import os
import shutil
import sys
import tarfile
from pathlib import Path

import host
import record
import report
import suite
from common import die, folder, work_folder
from guestfiles import libraries

USE = 'use: make runner DESTDIR=DIR [TESTS="COLLECTION:TEST ..."], with DIR as make install has made it'

# busybox has no --foreground, which makes no difference there.
TIMEOUT = """\
#!/bin/sh
[ "$1" != --foreground ] || shift
exec /bin/timeout "$@"
"""

# The link is where the runner writes to.
RUN = """\
#!/bin/sh
tar -C / -xf /lab/files/kselftest.tar || exit 1
ln -s /proc/self/fd/1 /dev/stdout
exec /kselftest/run_kselftest.sh -t "$1"
"""


def pack(source, test, work, timeout):
    """The archive that a test needs: the runner, its list, and the test alone."""
    collection, _, name = test.partition(":")
    base = work / test.replace(":", "-")
    base.mkdir()
    path = base / "kselftest.tar"
    with tarfile.open(path, "w", dereference=True) as tar:
        for part in ("run_kselftest.sh", "kselftest", "kselftest-list.txt", f"{collection}/{name}"):
            tar.add(source / part, f"kselftest/{part}")
        if (source / collection / "settings").is_file():
            tar.add(source / collection / "settings", f"kselftest/{collection}/settings")
        tar.add(timeout, "usr/bin/timeout")
        for lib in libraries(source / collection / name):
            tar.add(lib, lib.lstrip("/"))
    return path


def find(arguments):
    """Folder and tests."""
    if not arguments or not arguments[0]:
        die(USE)
    source = Path(arguments[0])
    if not os.access(source / "run_kselftest.sh", os.X_OK):
        die(f"'{source}' has no run_kselftest.sh; {USE}")
    try:
        known = (source / "kselftest-list.txt").read_text().split()
    except OSError:
        known = []
    if not known:
        die(f"'{source}' has no kselftest-list.txt, or an empty one; {USE}")
    tests = list(dict.fromkeys(arguments[1:] or known))
    for test in tests:
        if test not in known:
            die(f"'{test}' is not in {source}/kselftest-list.txt")
        if not os.access(source / test.replace(":", "/", 1), os.X_OK):
            die(f"no program {source}/{test.replace(':', '/', 1)}")
    return source.resolve(), tests


def main(arguments):
    source, tests = find(arguments)
    a = suite.parser().parse_args([])
    out = folder(a.out, "folder O=")
    suite.packages("fetch", "lab")
    with work_folder("runner") as work:
        (work / "timeout").write_text(TIMEOUT)
        (work / "run").write_text(RUN)
        for name in ("timeout", "run"):
            (work / name).chmod(0o755)
        # The runner has limits of its own.
        jobs = [host.Job(test, 600, work / "run", [test], [pack(source, test, work, work / "timeout")])
                for test in tests]
        host.run(host.Options(out=out, jobs=jobs, kernel=a.kernel, modules=a.modules, cpu=a.cpu or "spr",
                              append=a.append, params=a.params, limit=a.limit, parallel=a.jobs, seed=a.seed))
    shutil.rmtree(out / "runner", ignore_errors=True)
    (out / "runner").mkdir()
    for program in record.Run(out).programs:
        (out / "runner" / (program.name.replace(":", "-", 1) + ".ktap")).write_text(
            "".join(line + "\n" for line in program.lines))
    with open(out / "report.ktap", "w") as ktap:
        status = report.write([out], ktap)
    sys.stdout.write((out / "report.ktap").read_text())
    return status
