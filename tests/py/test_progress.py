# SPDX-License-Identifier: GPL-2.0-only
"""What a run shows on a terminal, and what it prints in a pipe."""

import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from fcntl import ioctl
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runs                      # finds lab/py
import ktap
import progress
import record
import report

assert runs.TOP in Path(progress.__file__).parents
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def program(name="kvm/x86_64/xfd_test", text="1..2\nok 1 a\nok 2 b # SKIP no AMX", code=0, **more):
    found = ktap.Program("", name)
    found.lines = text.splitlines()
    found.began, found.ended, found.exit_code = True, code is not None, code
    for key, value in more.items():
        setattr(found, key, value)
    found.judge("7.3.4", [])
    return found


class Lines(unittest.TestCase):
    """Pure functions of values."""

    def line(self, one, width=80, names=22, **more):
        return progress.program_line(12, 40, one, 0.94, width, names, **more)

    def test_program(self):
        self.assertEqual(self.line(program()),
                         "[12/40] kvm/x86_64/xfd_test     1 pass, 1 skip                             0.9 s")

    def test_tally(self):
        for text, code, wanted in (
                ("1..1\nok 1 a", 0, "1 pass"), ("1..2\nnot ok 1 a\nok 2 b", 1, "FAIL 1 pass, 1 fail"),
                ("[OK] x", 0, "pass"), ("1..0 # SKIP no /dev/kvm", 4, "skip: no /dev/kvm"),
                ("1..1\nok 1 a # XFAIL known", 2, "1 xfail"), ("x", 3, "FAIL"), ("1..1\nok 1 a", None, "FAIL 1 pass")):
            with self.subTest(text):
                self.assertEqual(progress.tally(program(text=text, code=code)), wanted)

    def test_no_line_is_wider_than_the_terminal(self):
        long = program("kvm/x86_64/a_test:" + "x" * 90)
        skip = program(text="1..0 # SKIP " + "no such thing " * 20, code=4)
        for one in (program(), long, skip):
            for width in range(1, 200):
                with self.subTest(one.name, width=width):
                    for colour in (False, True):
                        text = ESCAPE.sub("", self.line(one, width, colour=colour))
                        self.assertLessEqual(len(text), width, text)

    def test_narrow_ones_drop_the_folder(self):
        self.assertRegex(self.line(program(), 50), r"^\[12/40\] xfd_test +1 pass, 1 skip +0\.9 s$")
        self.assertRegex(self.line(program(), 30), r"^\[12/40\] xfd")

    def test_seconds_are_in_one_column(self):
        lines = [self.line(program(n), names=24) for n in ("x86/a", "kvm/x86_64/b_test", "kvm/x86_64/cet_smm_test")]
        lines.append(self.line(program(text="1..0 # SKIP " + "no such thing " * 5, code=4), names=24))
        self.assertEqual(len({line.index("0.9 s") for line in lines}), 1, lines)

    def test_colours(self):
        self.assertIn("\x1b[32m1 pass, 1 skip\x1b[0m", self.line(program(), colour=True))
        self.assertIn("\x1b[1;31mFAIL", self.line(program(text="x", code=1), colour=True))
        self.assertNotIn("\x1b", self.line(program(text="x", code=1)))

    def test_failure(self):
        text = ("TAP version 13\n1..2\n# Linux 7.3.4 x86_64, 64-bit program, uid 0, euid 0\n# Starting 2 tests\n"
                "#  RUN           x.a ...\n# x.c:1: x.a: wanted 1 got 2\n# x.a: Test failed\n"
                "#          FAIL  x.a\nnot ok 1 x.a\nok 2 x.b")
        self.assertEqual(progress.failure_lines(program(text=text, code=1)), [
            "  not ok x.a", "      x.c:1: x.a: wanted 1 got 2"])

    def test_failure_of_the_kernel(self):
        one = program(kernel=["WARNING: CPU: 0 at x.c:1"])
        self.assertEqual(progress.failure_lines(one), ["  the kernel: WARNING: CPU: 0 at x.c:1"])

    def test_failure_without_end_shows_the_last_words(self):
        one = program(text="1..3\nok 1 a\n# one\n# two", code=None)
        self.assertEqual(progress.failure_lines(one)[-2:], ["      one", "      two"])

    def test_failure_with_much_to_say(self):
        text = "1..1\n" + "".join(f"# line {n}\n" for n in range(20)) + "not ok 1 a\n"
        self.assertEqual(progress.failure_lines(program(text=text, code=1))[1:], [
            *(f"      line {n}" for n in range(8)), "      ..."])

    def test_many_failures(self):
        text = "1..9\n" + "".join(f"# no {n}\nnot ok {n} t{n}\n" for n in range(1, 10))
        lines = progress.failure_lines(program(text=text, code=1))
        self.assertEqual((len(lines), lines[-1]), (11, "  ... and 4 more rows"))

    def test_status(self):
        def status(width=80, left=(30, False), running=("kvm/x86_64/a_test", "x86/b_64")):
            return progress.status_line(12, 40, running, 41, left, width)
        self.assertEqual(status(), "12 of 40, 41 s, about 30 s left: a_test, b_64")
        self.assertEqual(status(left=(1700, True)), "12 of 40, 41 s, at most 28 min left: a_test, b_64")
        self.assertEqual(progress.status_line(3, 3, [], 9, (0, False), 80), "3 of 3, 9 s")
        for width in range(0, 60):
            self.assertLessEqual(len(status(width)), width)


class Estimate(unittest.TestCase):
    def make(self, names, known, parallel=1, limit=1000):
        return progress.Estimate(names, known, parallel, limit)

    def test_from_earlier_runs(self):
        found = self.make("abc", {"a": 10, "b": 20, "c": 30})
        self.assertEqual(found.left(0, 0), (60, False))
        found.begins(["c"], 100)
        self.assertEqual(found.left(10, 110), (50, False))

    def test_several_at_a_time(self):
        self.assertEqual(self.make("abcd", dict.fromkeys("abcd", 10), 2).left(0, 0), (20, False))
        self.assertEqual(self.make("abc", {"a": 1, "b": 1, "c": 30}, 2).left(0, 0), (30, False))

    def test_without_any_the_limit(self):
        self.assertEqual(self.make("ab", {"a": 1}, limit=100).left(10, 0), (90, True))

    def test_those_that_are_new_take_what_others_took(self):
        found = self.make("abc", {})
        found.begins(["a"], 0)
        found.ended(["a"], 4)
        self.assertEqual(found.left(4, 4), (8, False))

    def test_slower_than_before(self):
        found = self.make("ab", {"a": 10, "b": 10})
        found.begins(["a"], 0)
        found.ended(["a"], 30)
        self.assertEqual(found.left(30, 30), (30, False))

    def test_one_that_is_late(self):
        found = self.make("a", {"a": 10})
        found.begins(["a"], 0)
        self.assertEqual(found.left(40, 40), (10, False))


# A run on this machine's own kernel of the programs in a folder, as lab/kselftest has it.
DRIVER = """
import os, sys
from pathlib import Path
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import common, host, suite
folder, out = Path(sys.argv[2]), Path(sys.argv[3])
def main():
    options = suite.parser().parse_args(["--host", "1"])
    jobs = [host.Job(p.name, 60, p) for p in sorted(folder.iterdir())]
    return suite.run(options, common.folder(out), jobs)
common.run_command(main)
"""
GOOD = "echo 1..2; echo ok 1 x.a; echo 'ok 2 x.b # SKIP no AMX'"
BAD = "echo 1..2; echo ok 1 x.a; echo '# x.c:7: x.b: wanted 1 got 2'; echo not ok 2 x.b; exit 1"


class Real(unittest.TestCase):
    """With a pseudo-terminal, or a pipe."""

    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp)
        (self.tmp / "bin").mkdir()
        self.out = self.tmp / "out"
        self.words = [sys.executable, "-c", DRIVER, str(runs.TOP / "lab/py"), str(self.tmp / "bin"), str(self.out)]
        self.nap = f"97.{os.getpid()}"

    def script(self, name, text):
        path = self.tmp / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def environment(self, **more):
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "KTAP", "VERBOSE", "TERM")}
        return {**kept, "CACHE": str(self.tmp / "cache"), "TERM": "xterm", **more}

    def terminal(self, columns=80, until=None, stdout=None, **more):
        """Run on a terminal; press Ctrl-C once until() is true.  Status and text."""
        master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        child = subprocess.Popen(self.words, stdin=slave, stdout=stdout or slave, stderr=slave,
                                 env=self.environment(**more), start_new_session=True,
                                 preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.addCleanup(os.close, master)
        text, end = b"", time.monotonic() + 120
        while time.monotonic() < end:
            if until and until():
                os.write(master, b"\x03")
                until = None
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                text += os.read(master, 65536)
            except OSError:         # the last one that had it open has ended
                break
        return child.wait(60), text.decode().replace("\r\n", "\n")

    def pipe(self, **more):
        done = subprocess.run(self.words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env=self.environment(**more), timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    def report(self):
        return (self.out / "report.ktap").read_text()

    def lines(self, text):
        """What stays on the screen."""
        kept = [line.rpartition("\r")[2] for line in text.split("\n")]
        return [ESCAPE.sub("", line) for line in kept]

    def test_good_run(self):
        self.script("a", GOOD)
        self.script("b", "exit 0")
        rc, text = self.terminal()
        lines = self.lines(text)
        self.assertEqual(rc, 0, text)
        self.assertRegex(lines[0], r"^\[1/2\] a  1 pass, 1 skip +\d+\.\d s$")
        self.assertRegex(lines[1], r"^\[2/2\] b  pass +\d+\.\d s$")
        self.assertIn("\x1b[32m1 pass, 1 skip\x1b[0m", text)
        self.assertNotIn("KTAP", text)
        self.assertRegex(text, r"skip +1 x no AMX")
        self.assertRegex(lines[-2], r"^all is well: 2 programs; tests: 1 pass, 0 fail, 1 skip, 0 xfail, \d+ s$")
        self.assertNotIn("FAILED=1", text)
        self.assertLessEqual(len(lines) - 3, 24)
        self.assertEqual(self.report(), "".join(report.texts([record.Run(self.out)])))
        for name in ("report.json", "report.xml"):
            self.assertTrue((self.out / name).exists())

    def test_failures_are_told_at_once(self):
        self.script("a", BAD)
        self.script("b", GOOD)
        rc, text = self.terminal()
        lines = self.lines(text)
        self.assertEqual(rc, 1)
        self.assertRegex(lines[0], r"^\[1/2\] a  FAIL 1 pass, 1 fail +\d")
        self.assertEqual(lines[1:3], ["  not ok x.b", "      x.c:7: x.b: wanted 1 got 2"])
        self.assertRegex(lines[3], r"^  see \S+/out/jobs/000-a/$")
        self.assertRegex(lines[4], r"^\[2/2\] b ")
        self.assertIn("not ok: a: x.b", lines)
        self.assertRegex(text, r"again +make kselftest FAILED=1 O=\S+/out\n")

    def test_no_colours(self):
        self.script("a", BAD)
        _, text = self.terminal(NO_COLOR="1")
        self.assertEqual(set(ESCAPE.findall(text)), {"\x1b[K"})

    def test_terminal_that_can_do_nothing(self):
        self.script("a", BAD)
        _, text = self.terminal(TERM="dumb")
        self.assertNotIn("\x1b", text)
        self.assertNotIn("\r", text)

    def test_narrow(self):
        self.script("a_program_with_quite_a_long_name", GOOD)
        self.script("b", "sleep 1.2")
        _, text = self.terminal(columns=30)
        shown = [ESCAPE.sub("", part) for part in re.split(r"[\r\n]", text.partition("kernel  ")[0])]
        self.assertGreater(len(shown), 4)
        self.assertLessEqual(max(map(len, shown)), 30, shown)

    def test_ctrl_c(self):
        self.script("a", GOOD)
        self.script("b", f"echo 1..2; echo ok 1 x.b; sleep {self.nap} & sleep {self.nap}")
        self.script("c", GOOD)
        log = self.out / "jobs/001-b/results.log"
        rc, text = self.terminal(until=lambda: log.exists() and "ok 1 x.b" in log.read_text())
        self.assertEqual(rc, 130, text)
        self.assertRegex(text, r"\[2/3\] b +.*interrupted, 1 pass")
        self.assertIn("the run was interrupted", text)
        self.assertIn("not ok: interrupted, or never ran: b, c\n", text)
        self.assertNotEqual(subprocess.run(["pgrep", "-f", f"sleep {self.nap}"], check=False,
                                           stdout=subprocess.DEVNULL).returncode, 0)
        self.assertEqual(record.read(self.out)["end"], "interrupted")
        self.has_all_results(("ok", "not ok", "not ok", "not ok", "ok"))

    def has_all_results(self, wanted):
        found = re.findall(r"^(ok|not ok) (\d+) ", self.report(), re.M)
        self.assertEqual([word for word, _ in found], list(wanted))
        self.assertEqual([int(n) for _, n in found], list(range(1, len(wanted) + 1)))
        self.assertEqual(self.report(), "".join(report.texts([record.Run(self.out)])))

    def test_sigterm_in_a_pipe(self):
        self.script("a", GOOD)
        self.script("b", f"sleep {self.nap}")
        child = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, env=self.environment())
        end, place = time.monotonic() + 60, self.out / "jobs/001-b/results.log"
        while not place.exists() and time.monotonic() < end:
            time.sleep(0.05)
        # As soon as a has ended.
        self.assertIn("\nok 1 a\n", self.report())
        child.send_signal(signal.SIGTERM)
        text, said = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 143)
        self.assertEqual(text, self.report())
        self.assertIn("not ok: lab_complete", said)
        self.has_all_results(("ok", "not ok", "not ok", "ok"))

    def test_pipe(self):
        self.script("a", BAD)
        self.script("b", GOOD)
        rc, text, said = self.pipe()
        self.assertEqual(rc, 1)
        self.assertEqual(text, self.report())
        self.assertTrue(text.startswith("KTAP version 1\n1..4\n"))
        self.assertNotIn("\x1b", text + said)
        self.assertNotIn("[1/2]", said)
        self.assertRegex(said, r"\nnot ok: 1 of 2 programs(, kernel_log)?; tests: ")

    def test_ktap_on_the_terminal(self):
        self.script("a", GOOD)
        _, text = self.terminal(KTAP="1")
        self.assertIn(self.report(), text)
        self.assertNotIn("[1/1]", text)

    def test_ktap_to_a_file(self):
        """A file is no terminal: the view stays on stderr."""
        self.script("a", GOOD)
        with open(self.tmp / "file", "w") as file:
            _, text = self.terminal(stdout=file)
        self.assertEqual((self.tmp / "file").read_text(), self.report())
        self.assertIn("[1/1] a", text)

    def test_reader_that_goes_away(self):
        self.script("a", GOOD)
        self.script("b", "sleep 0.5; echo fine")
        done = subprocess.run([*self.words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=self.environment(), timeout=60, check=False,
                              preexec_fn=lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1))
        self.assertNotEqual(done.returncode, 0)

    def test_kernel_log(self):
        self.script("a", GOOD)
        _, text = self.terminal(VERBOSE="1")
        self.assertIn("  | lab: the kernel log" if os.access("/dev/kmsg", os.W_OK) else "  | lab: ", text)


if __name__ == "__main__":
    unittest.main()
