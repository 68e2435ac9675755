#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run all unittests of tests/py, with a line of TAP for each test method.

use: tests/py.t [NAME...]	NAME is a module, MODULE.CLASS or MODULE.CLASS.TEST
"""

import os
import signal
import sys
import tempfile
import unittest
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
LIMIT = 300                     # seconds for one test
MAX_LINES = 30


class Tap(unittest.TestResult):
    """Results as TAP; what a test or its children print shows only if it fails."""

    def __init__(self):
        super().__init__()
        self.fds = [os.dup(fd) for fd in (1, 2)]
        self.out = os.fdopen(self.fds[0], "w", closefd=False)
        self.count = 0
        self.bad = 0
        self.said = self.faults = self.skip = None

    def startTest(self, test):
        super().startTest(test)
        self.said, self.faults, self.skip = tempfile.TemporaryFile("w+"), [], ""
        sys.stdout = sys.stderr = self.said
        for fd in (1, 2):
            os.dup2(self.said.fileno(), fd)
        signal.alarm(LIMIT)

    def stopTest(self, test):
        signal.alarm(0)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        for number, fd in enumerate(self.fds, 1):
            os.dup2(fd, number)
        self.said.seek(0)
        said = self.said.read()
        self.said.close()
        self.count += 1
        self.bad += bool(self.faults)
        if self.faults:
            self.tell("".join(self.faults) + said)
        self.print(f"{'not ok' if self.faults else 'ok'} {self.count} - {test.id()}" +
                   (f" # SKIP {self.skip}" if self.skip else ""))
        self.faults = None
        super().stopTest(test)

    def print(self, text):
        print(text, file=self.out, flush=True)

    def tell(self, text):
        for line in text.splitlines()[-MAX_LINES:]:
            self.print(f"# {line}")

    def add(self, test, error):
        text = self._exc_info_to_string(error, test)
        if self.faults is None:     # of a whole class or module: no test of it runs
            self.bad += 1
            self.tell(f"{test.id()}\n{text}")
        else:
            self.faults.append(text)

    def addError(self, test, err):
        self.add(test, err)

    def addFailure(self, test, err):
        self.add(test, err)

    def addSubTest(self, test, subtest, err):
        if err:
            self.add(subtest, err)

    def addSkip(self, test, reason):
        self.skip = reason

    def addExpectedFailure(self, test, err):
        pass

    def addUnexpectedSuccess(self, test):
        self.faults.append("a success that was not expected\n")


def on_alarm(*_):
    raise TimeoutError(f"no end after {LIMIT} s")


def main(names):
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(TOP / "tests/py"), str(TOP / "lab/py")]
    loader = unittest.TestLoader()
    names = names or sorted(path.stem for path in (TOP / "tests/py").glob("test_*.py"))
    tests = loader.loadTestsFromNames(names)
    print(f"1..{tests.countTestCases()}", flush=True)
    signal.signal(signal.SIGALRM, on_alarm)
    # As tests expect of what they start, whatever nohup(1) or a shell has made of these.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    result = Tap()
    tests.run(result)
    return int(bool(result.bad) or result.count == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
