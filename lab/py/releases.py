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
import shutil
import sys
import time

import history
import suite
from common import LAB, call, die, env, folder, run_command, say, warn

USE = "use: make bisect GOOD=6.12 BAD=6.18 [TESTS=program:test], or with KSRC=/path/to/linux and commits"
STEP = 14400                    # seconds of wall time; lab/bisect-step has limits of its own
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


def run_step(out, version):
    """One release, by lab/bisect-step: its status, and the line that it adds to OUT/steps."""
    environment = {**os.environ, "RELEASE": version, "O": str(out)}
    say(f"running {env('TESTS', 'the suite')} on {version}")
    status = call([LAB / "bisect-step"], STEP, log=out / "log", env=environment)
    line = (out / "log").read_text().splitlines()[-1:]
    if not line or f"-{version} " not in line[0]:
        die(f"the step on {version} came to no end, see {out}/log")
    say(line[0])
    return status if status in (GOOD, BAD) else CANNOT, line[0]


def clear(out):
    """Make OUT anew, if nobody but a bisection has left it."""
    if (out / "steps").exists():
        shutil.rmtree(out)
    elif out.exists() and any(out.iterdir()):
        die(f"{out} is not of a bisection: move it away, or choose another folder with O=")
    (folder(out) / "steps").touch()


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
    suite.select(env("TESTS").split(), suite.build(history.series(bad)))
    out = folder(env("O", "out"), "folder O=") / "bisect"
    clear(out)
    start = time.monotonic()
    for name, version, wanted in (("GOOD", good, GOOD), ("BAD", bad, BAD)):
        status, line = run_step(out, version)
        if status != wanted:
            die(f"{name}, {version}, has to {'pass' if wanted == GOOD else 'fail'}: {line} (logs: {out})")
    good, bad, cannot = search(between, lambda version: run_step(out, version)[0])
    steps = len((out / "steps").read_text().splitlines())
    figures = f"{steps} steps, {time.monotonic() - start:.0f} s; logs: {out}"
    if cannot:
        for version in (*cannot, bad):
            print(f"one of these: {version}")
        die(f"releases that cannot be told hide the first bad one; the last good one is {good}; {figures}")
    print(f"first bad release: {bad}, the last good one before it: {good}")
    if history.series(good) != history.series(bad):
        print(f"{good} may be younger than {bad}, and good for a fix that came to both series later on")
    tests = f" TESTS={env('TESTS')}" if env("TESTS") else ""
    print(f"between them, in a tree with the stable releases: make bisect KSRC=/path/to/linux "
          f"GOOD={git_tag(good, packages)} BAD={git_tag(bad, packages)}{tests}")
    warn(figures)
    return 0


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
