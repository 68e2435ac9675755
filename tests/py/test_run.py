# SPDX-License-Identifier: GPL-2.0-only
"""lab/py/run.py: its options and lists, and when a run is as it was expected."""

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runs                         # finds lab/py
import host
import run
from common import LabError

assert runs.TOP in Path(run.__file__).parents


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)

    def list(self, text):
        path = self.tmp / "list"
        path.write_text(text)
        return run.read_list(path, [], {})


class Lists(Case):
    def test_words_are_quoted_as_for_a_shell(self):
        job, = self.list("a 10 './my prog' 'a  b' \"it's\" \\$HOME '' x#y\n")
        self.assertEqual((job.name, job.seconds, str(job.program)), ("a", 10, "my prog"))
        self.assertEqual(job.arguments, ["a  b", "it's", "$HOME", "", "x#y"])

    def test_comments_and_empty_lines(self):
        self.assertEqual([j.name for j in self.list("# no\n\n  \n  # no\na 1 x\n")], ["a"])

    def test_bad_lines(self):
        for line, regex in (("a 10", "NAME SECONDS FILE"), ("a 0 x", "above 0"), ("a x x", "above 0"),
                            ("a 10 'x", "No closing quotation: a line is quoted as for a shell")):
            with self.subTest(line), self.assertRaisesRegex(LabError, regex):
                self.list(line + "\n")


class Payload(Case):
    def test_every_word_arrives_at_the_shell(self):
        words = ["a  b", "it's", "$HOME", "", "*", "two\nlines", "\\", '"', "-r", "\udcff"]
        program = self.tmp / "my prog"
        program.write_bytes(b"#!/bin/sh\n")
        data = host.payload([host.Job("a", 5, program, words, [], {"A": "b  'c"})], get=["/a b"])
        script = data[data.rindex(b"lab/list\0"):].split(b"\0", 1)[1].lstrip(b"\0")
        (self.tmp / "list").write_bytes(script[:script.rindex(b"\n", 0, script.index(b"070701")) + 1])
        (self.tmp / "show").write_text(
            'job() { eval "set -- $given \\"\\$@\\""; printf "<%s>" job "$@"; }\n'
            'get() { printf "<%s>" get "$@"; }\n. "$1"\n')
        said = subprocess.run(["sh", self.tmp / "show", self.tmp / "list"], stdout=subprocess.PIPE, check=True,
                              timeout=60).stdout.decode("utf-8", "surrogateescape")
        wanted = ["job", "env", "A=b  'c", "a", "5", "/lab/bin/0/my prog", *words,
                  "get", str(16 << 20), "120", "/a b"]
        self.assertEqual(said, "".join(f"<{word}>" for word in wanted))


class Options(Case):
    def test_status(self):
        for text, wanted in (("0", 0), ("77", 77), ("255", 255), ("SEGV", 139), ("SIGSEGV", 139), ("kill", 137)):
            self.assertEqual(run.status(text), wanted, text)

    def refused(self, *words):
        with self.assertRaises(LabError) as caught:
            run.parser().parse_args(words)
        return str(caught.exception)

    def test_what_is_refused(self):
        for words, regex in (
                (["--expect", "256"], "'256' is neither an exit status nor a signal"),
                (["--expect", "NONE"], "'NONE' is neither an exit status nor a signal"),
                (["-e", "A"], "'A' is no NAME=VALUE"), (["-e", "1=x"], "'1=x' is no NAME=VALUE"),
                (["-g", "tmp"], "'tmp' is no path in the machine"), (["-g", "/"], "'/' is no path"),
                (["-g", "/a/../b"], "is no path"), (["--log", "all"], "--log: invalid choice: 'all'")):
            with self.subTest(words):
                self.assertRegex(self.refused(*words), regex)

    def test_program_behind_dashes_has_arguments(self):
        a = run.parser().parse_args(["-e", "A=b", "-e", "C=", "one", "two words"])
        jobs = run.find_jobs(a, ["./three", "-x", "a b", "--"])
        self.assertEqual([(j.name, j.arguments) for j in jobs],
                         [("one", []), ("two_words", []), ("three", ["-x", "a b", "--"])])
        self.assertEqual(jobs[2].variables, {"A": "b", "C": ""})

    def test_here_has_no_machine_to_unpack_into(self):
        for option in ("-u", "-g"):
            with self.subTest(option), self.assertRaisesRegex(LabError, "^-u and -g are for the machines of the lab"):
                run.main(["--here", option, "/tmp", "/bin/true"])

    def test_memory_and_emulator(self):
        program = self.tmp / "a"
        program.write_bytes(b"#!/bin/sh\n")
        program.chmod(0o755)
        job = host.Job("a", 1, program)
        for more, regex in (
                ({"memory": 4096}, "^-M 4096: the emulator gives a machine at most 2048 MiB, for Bochs takes no more"),
                ({"cpu": "qemu-max", "debug": True}, "^-c qemu-max is QEMU's: --debug, --log and --emulator are for"),
                ({"unpack": [mock.Mock(path="a", data=bytes(500 << 20))]},
                 "^what is to be unpacked has 500 MiB, the machine room for 480: raise -M$")):
            with self.subTest(regex), self.assertRaisesRegex(LabError, regex):
                host.check(host.Options(out=self.tmp / "out", jobs=[job], **more))
        host.check(host.Options(out=self.tmp / "out", jobs=[job], memory=4096, cpu="qemu-max"))
        with self.assertRaisesRegex(LabError, "^'a b': the name of a program is one word$"):
            host.check(host.Options(out=self.tmp / "out", jobs=[host.Job("a b", 1, program)]))


class Expectations(unittest.TestCase):
    """Of a run of one program with a limit of 10 s."""

    def unmet(self, code, expect, seconds=1, lost=""):
        program = mock.Mock(exit_code=code, marker="a")
        program.name = "a"
        result = mock.Mock(programs=[program], seconds={"a": seconds},
                           record={"machines": [{"boot": True}, {"programs": ["a"], "lost": lost}]})
        return run.unmet(result, [host.Job("a", 10, Path("a"))], expect)

    def test_met(self):
        for code, expect in ((0, 0), (3, 3), (139, 139), (7, None)):
            self.assertEqual(self.unmet(code, expect), "")

    def test_not_met(self):
        self.assertEqual(self.unmet(3, 0), "it ended with status 3, not with status 0 (in a)")
        self.assertEqual(self.unmet(139, 0), "it ended with status 139 (SIGSEGV), not with status 0 (in a)")
        self.assertEqual(self.unmet(0, 139), "it ended with status 0, not with status 139 (SIGSEGV) (in a)")
        self.assertEqual(self.unmet(None, 0), "it ended with status None, not with status 0 (in a)")

    def test_time_limit_is_no_signal_that_was_asked_for(self):
        self.assertEqual(self.unmet(143, 143), "")
        self.assertEqual(self.unmet(143, 143, seconds=10.01), "it ran into its limit of 10 s (in a)")

    def test_files_that_are_lost(self):
        self.assertEqual(self.unmet(0, None, lost="not in the machine: /x"), "not in the machine: /x (of a)")

    def test_words_of_the_kernel(self):
        for line, excused in (
                ("args[127]: segfault at 0 ip 0000557462f752ac sp 00007ffcfa18d010 error 6 in args", True),
                ("traps: a[12] general protection fault ip:401000 sp:7ffd error:0 in a", True),
                ("general protection fault, probably for non-canonical address: 0000 [#1]", False),
                ("WARNING: CPU: 0 PID: 1 at a.c:1", False)):
            with self.subTest(line):
                self.assertEqual(bool(run.FAULT.search(line)), excused)

    def test_exit_status_of_the_command(self):
        result = mock.Mock(record={"seconds": 1}, folder="out")
        self.assertEqual(run.tell(result, ""), 0)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(run.tell(result, "bad"), 1)
        self.assertEqual(said.getvalue(), "lab: bad; see out/console.log and results.log\n")


if __name__ == "__main__":
    unittest.main()
