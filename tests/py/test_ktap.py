# SPDX-License-Identifier: GPL-2.0-only
"""The parser of KTAP, program by program.  Runs as a whole are in test_record.py."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runs                      # finds lab/py
import ktap

assert runs.TOP in Path(ktap.__file__).parents


def judged(text, code=0, ended=True):
    program = ktap.Program("", "prog")
    program.lines = text.splitlines()
    program.began, program.ended, program.exit_code = True, ended, code if ended else None
    program.judge("7.3.4", [])
    return program


class Lines(unittest.TestCase):
    def test_clean(self):
        for text, wanted in (("plain", "plain"), ("a\r\n", "a"), ("a\tb", "a    b"),
                             ("\x1b[1;31mred\x1b[0m", "red"),
                             ("caf\u00e9\x7f\x01", "caf???"), ("", ""), ("\t", "    ")):
            self.assertEqual(ktap.clean(text), wanted)

    def test_result_lines(self):
        for line, wanted in (("ok 1 a", ("pass", "a", "")), ("not ok 1 a", ("fail", "a", "")),
                             ("ok 1 - a", ("pass", "a", "")), ("ok 1 a b c", ("pass", "a b c", "")),
                             ("ok 1 a # SKIP why", ("skip", "a", "why")),
                             ("ok 1 a # skip: why", ("skip", "a", "why")),
                             ("ok 1 # SKIP a", ("skip", "a", "")),
                             ("not ok 1 a # SKIP why", ("skip", "a", "why")),
                             ("not ok 1 a # XFAIL why", ("xfail", "a", "why")),
                             ("not ok 1 a # TODO why", ("xfail", "a", "why")),
                             ("ok 1 a # XPASS why", ("fail", "a", "XPASS why")),
                             ("not ok 1 a # TIMEOUT 5", ("fail", "a", "TIMEOUT 5")),
                             ("ok 1 a # ERROR", ("fail", "a", "ERROR")),
                             ("ok 1 a # 12 ms", ("pass", "a", ""))):
            with self.subTest(line):
                result, = judged(f"1..1\n{line}").results
                self.assertEqual((result.status, result.name, result.reason), wanted)

    def test_lines_that_are_no_results(self):
        for line in ("okay 1 a", "notok 1 a", " ok 1 a", "# ok 1 a", "look 1 a"):
            with self.subTest(line):
                self.assertEqual(judged(f"1..1\n{line}").results, [])

    def test_results_before_any_sign_of_tap_are_words(self):
        program = judged("ok 1 a\nok 2 b")
        self.assertEqual((program.status, program.results), ("pass", []))


class Errors(unittest.TestCase):
    def wrong(self, text, error, **more):
        program = judged(text, **more)
        self.assertEqual(program.status, "fail")
        self.assertIn(error, program.errors)
        return program

    def test_second_plan(self):
        self.wrong("1..1\n1..1\nok 1 a", "a second plan: 1..1")

    def test_plan_after_results(self):
        self.wrong("TAP version 13\nok 1 a\n1..1", "the plan comes after results")

    def test_result_without_number(self):
        self.wrong("1..1\nok a", "result 1 is numbered None")

    def test_result_without_name(self):
        program = self.wrong("1..2\nok 1\nok 2", "result 1 has no name")
        self.assertEqual([r.name for r in program.results], ["unnamed 1", "unnamed 2"])

    def test_result_in_spite_of_a_skip(self):
        self.wrong("1..1\n1..0 # SKIP no cap\nok 1 a", "a: a result in spite of the skip: no cap")

    def test_exit_code(self):
        self.wrong("1..1\nok 1 a", "exit code 1", code=1)
        self.assertNotIn("exit code 1", judged("1..1\nnot ok 1 a", code=1).errors)

    def test_no_end(self):
        self.wrong("1..1\nok 1 a", "it began and never ended", ended=False)

    def test_fail_in_brackets_beside_skip(self):
        self.wrong("[SKIP]\tx\n[FAIL]\ty", "exit code 1", code=1)


class Verdicts(unittest.TestCase):
    def test_statuses(self):
        for text, code, wanted in (
                ("1..1\nok 1 a", 0, "pass"), ("1..1\nnot ok 1 a", 1, "fail"),
                ("1..0 # SKIP none", 0, "skip"), ("1..0 # SKIP none", 4, "skip"),
                ("1..1\nok 1 a # SKIP x", 4, "skip"), ("1..1\nnot ok 1 a # XFAIL x", 2, "xfail"),
                ("", 0, "pass"), ("", 1, "fail"), ("", 4, "skip"), ("[SKIP] x", 0, "skip"),
                ("[SKIP] x", 1, "skip"), ("[OK] a\n[SKIP] x", 0, "pass"), ("[FAIL] x", 0, "fail")):
            with self.subTest(text, code=code):
                self.assertEqual(judged(text, code).status, wanted)

    def test_reasons(self):
        self.assertEqual(judged("1..2\nok 1 a # SKIP x\nok 2 b # SKIP y").reason,
                         "all of its tests were skipped")
        self.assertEqual(judged("1..2\nok 1 a # SKIP x\nok 2 b # SKIP x").reason, "x")
        self.assertEqual(judged("", 4).reason, "skipped by the program")
        self.assertEqual(judged("", 3).reason, "exit=3")


class Output(unittest.TestCase):
    def test_nested(self):
        program = judged("1..2\n# said\nok 1 a\nwords\n# Subtest: x\nnot ok 2 b\nthe end", 1)
        self.assertEqual(program.ktap(), [
            "  KTAP version 1", "  # Subtest: prog", "  1..2", "  # said", "  ok 1 a", "  # words",
            "  # # Subtest: x", "  not ok 2 b", "  # the end"])

    def test_plain_words_are_comments(self):
        self.assertEqual(judged("[OK] x\nnot ok 1 y").ktap(), ["  # [OK] x", "  # not ok 1 y"])

    def test_what_is_printed_reads_the_same(self):
        text = "1..3\n# a\nok 1 one\nok 2 two # SKIP why\nnot ok 3 three # XFAIL known"
        once = judged(text)
        again = judged("\n".join(line[2:] for line in once.ktap()))
        self.assertEqual([(r.status, r.name, r.reason) for r in again.results],
                         [(r.status, r.name, r.reason) for r in once.results])


if __name__ == "__main__":
    unittest.main()
