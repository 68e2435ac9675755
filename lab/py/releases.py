# SPDX-License-Identifier: GPL-2.0-only
"""Find the first released kernel of the archive that is bad: what "make bisect" calls if
there is no KSRC=.

  lab/py/releases.py, from lab/bisect; takes from the environment

	GOOD= BAD=	a series such as 6.12, or a version such as 6.18.5: on GOOD the tests
			pass, on BAD one of them fails
	TESTS= CPU= APPEND= PARAMS= O=	as in lab/kselftest

Nothing is built but the tests.  The answer is the last good and the first bad release, and
the command that bisects between them in a git tree.
"""

import os
import re
import time
from pathlib import Path

import history
import suite
from common import LAB, call, die, env, folder, say, warn

USE = "use: make bisect GOOD=6.12 BAD=6.18 [TESTS=program:test], or with KSRC=/path/to/linux and commits"
STEP = 3600                     # seconds of wall time
GOOD, BAD, CANNOT = 0, 1, 125


def check(name, word):
    """Whether a word may mean a release."""
    if not word:
        die(f"{name}= must name a release, or KSRC= the git tree of the kernel; {USE}")
    if not re.fullmatch(r"[0-9]+\.[0-9.]+(-[0-9]+)?", word):
        die(f"{name}='{word}' is no release such as 6.12 or 6.18.5; commits take KSRC=, too")


def pick(name, word, versions):
    """The version that a word means; of a series the newest."""
    check(name, word)
    found = [v for v in versions if v == word or v.startswith((word + ".", word + "-"))]
    if not found:
        die(f"{name}='{word}': the archive has no such kernel: there are {' '.join(versions)}")
    return found[-1]


def search(versions, step):
    """The last good and the first bad version between the two ends, and those that could
    not be told in between.

    step(version) returns GOOD, BAD or CANNOT; the ends are known.
    """
    good, bad = 0, len(versions) - 1
    cannot = set()
    while True:
        between = [n for n in range(good + 1, bad) if n not in cannot]
        if not between:
            break
        # The one nearest to the middle, as others may not be told.
        middle = min(between, key=lambda n: abs(2 * n - good - bad))
        status = step(versions[middle])
        if status == GOOD:
            good = middle
        elif status == BAD:
            bad = middle
        else:
            cannot.add(middle)
    return versions[good], versions[bad], [versions[n] for n in sorted(cannot) if good < n < bad]


class Steps:
    """Each release that was tried: a folder of logs, and a line in OUT/steps."""

    def __init__(self, out):
        self.out, self.number = out, 0

    def run(self, version):
        self.number += 1
        name = f"{self.number:02}-{version}"
        path = folder(self.out / name)
        say(f"running {env('TESTS', 'the suite')} on {version}")
        start = time.monotonic()
        environment = {**os.environ, "KERNEL": version, "O": str(path), "HOST": "0", "KSRC": ""}
        call([LAB / "kselftest"], STEP, log=path / "kselftest.log", env=environment)
        status = call([LAB / "verdict", path], 60, log=path / "verdict")
        text = (path / "verdict").read_text().strip() or "skip: no verdict"
        if not (path / "run.json").exists():
            text = "skip: " + ((path / "kselftest.log").read_text().strip().splitlines() or ["nothing ran"])[-1]
            status = CANNOT
        line = f"{name} {text} ({time.monotonic() - start:.0f} s)"
        with open(self.out / "steps", "a") as steps:
            steps.write(line + "\n")
        say(line)
        return status if status in (GOOD, BAD) else CANNOT

    def must(self, name, version, wanted):
        """An end of the range has to be what the caller says of it."""
        if self.run(version) != wanted:
            last = (self.out / "steps").read_text().splitlines()[-1]
            die(f"{name}, {version}, has to {'pass' if wanted == GOOD else 'fail'}: {last} (logs: {self.out})")


def git_tag(version, packages):
    """The tag of a release in git: Debian's 6.1.0-N are builds of a stable release."""
    match = re.search(r"=(\d+\.\d+(\.\d+)?)", packages[version])
    return "v" + (match.group(1) if match else version)


def main(arguments):
    if arguments:
        die(USE)
    for name in ("GOOD", "BAD"):
        check(name, env(name))
    suite.packages("fetch", "build", *suite.lab_packages([env("CPU", "spr")]))
    packages = history.archive()
    versions = list(packages)
    good, bad = (pick(name, env(name), versions) for name in ("GOOD", "BAD"))
    if history.order(good) >= history.order(bad):
        die(f"GOOD={good} has to come before BAD={bad}: what went away again is for 'make history'")
    between = versions[versions.index(good):versions.index(bad) + 1]
    out = folder(Path(env("O", "out")) / "bisect", "folder O=")
    (out / "steps").write_text("")
    start = time.monotonic()
    steps = Steps(out)
    steps.must("GOOD", good, GOOD)
    steps.must("BAD", bad, BAD)
    good, bad, cannot = search(between, steps.run)
    print(f"first bad release: {bad}, the last good one before it: {good}")
    for version in cannot:
        print(f"could not be told: {version}")
    tests = f" TESTS={env('TESTS')}" if env("TESTS") else ""
    print(f"between them, in a tree with the stable releases: make bisect KSRC=/path/to/linux "
          f"GOOD={git_tag(good, packages)} BAD={git_tag(bad, packages)}{tests}")
    warn(f"{steps.number} steps, {time.monotonic() - start:.0f} s; logs: {out}")
    return 0


if __name__ == "__main__":
    import sys

    from common import run_command

    run_command(main, sys.argv[1:])
