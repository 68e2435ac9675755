# SPDX-License-Identifier: GPL-2.0-only
"""What TESTS= and FAILED=1 mean, and what "make list" says that tests need."""

import shutil
import struct
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runs                      # finds lab/py
import choose
import reasons
import record
import rows
import suite
from common import LabError

assert runs.TOP in Path(choose.__file__).parents
TESTS = {
    "kvm/x86_64/perm_test": {"perm.msrs": ["guest_amx", "none"], "perm.size": ["guest_amx", "none"],
                             "perm_proc.cap": []},
    "kvm/x86_64/lock_test": {"lock.size": ["guest_amx"]},
    "x86/frame_64": {"frame.write": []},
    "x86/frame_32": {"frame.write": []},
    "upstream/x86/amx_64": {}, "upstream/kvm/amx_test": {},
}


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp)
        self.built = self.tmp / "built"
        for name in TESTS:
            (self.built / name).parent.mkdir(parents=True, exist_ok=True)
            (self.built / name).write_bytes(b"")
        fake = mock.patch.object(rows, "of_program", lambda path: TESTS[str(path.relative_to(self.built))])
        fake.start()
        self.addCleanup(fake.stop)

    def dies(self, regex, function, *arguments):
        with self.assertRaisesRegex(LabError, regex) as caught:
            function(*arguments)
        self.assertNotIn("\n", str(caught.exception))


class Select(Case):
    def jobs(self, *words):
        return {job.name: " ".join(job.arguments) for job in choose.select(words, self.built)}

    def test_all(self):
        self.assertEqual(list(self.jobs()), [
            "upstream/kvm/amx_test", "upstream/x86/amx_64", "kvm/x86_64/lock_test", "kvm/x86_64/perm_test",
            "x86/frame_32", "x86/frame_64"])

    def test_names(self):
        for word, wanted in (("perm_test", "kvm/x86_64/perm_test"), ("frame", "x86/frame_64"),
                             ("x86/frame", "x86/frame_64"), ("frame_32", "x86/frame_32"),
                             ("upstream/x86/amx", "upstream/x86/amx_64")):
            self.assertEqual(self.jobs(word), {wanted: ""})
        self.assertEqual(list(self.jobs("x86")), ["x86/frame_32", "x86/frame_64"])

    def test_rows(self):
        for word, wanted in (("perm_test:size", "-t size"), ("perm_test:none.size", "-r perm.none.size"),
                             ("perm_test:perm.none.size", "-r perm.none.size"), ("perm_test:perm_proc.cap", "-r perm_proc.cap")):
            self.assertEqual(self.jobs(word), {f"kvm/x86_64/{word}": wanted})

    def test_rows_as_they_are_listed(self):
        self.assertEqual(self.jobs("x86/frame_64:frame.write"), {"x86/frame_64:frame.write": "-r frame.write"})
        self.assertEqual(self.jobs("perm.none.size"), {"kvm/x86_64/perm_test:perm.none.size": "-r perm.none.size"})
        self.assertEqual(self.jobs("perm_proc.cap"), {"kvm/x86_64/perm_test:perm_proc.cap": "-r perm_proc.cap"})

    def test_patterns_of_programs(self):
        self.assertEqual(list(self.jobs("frame*")), ["x86/frame_32", "x86/frame_64"])
        self.assertEqual(list(self.jobs("kvm/*")), ["kvm/x86_64/lock_test", "kvm/x86_64/perm_test"])
        self.assertEqual(list(self.jobs("*_test")), [
            "kvm/x86_64/lock_test", "kvm/x86_64/perm_test", "upstream/kvm/amx_test"])
        self.assertEqual(list(self.jobs("[pl]*_test")), ["kvm/x86_64/lock_test", "kvm/x86_64/perm_test"])

    def test_patterns_of_rows(self):
        self.assertEqual(self.jobs("*.guest_*.*e"), {
            "kvm/x86_64/lock_test": "", "kvm/x86_64/perm_test:perm.guest_amx.size": "-r perm.guest_amx.size"})
        self.assertEqual(self.jobs("perm_test:guest_amx.*"), {
            "kvm/x86_64/perm_test:guest_amx.*": "-r perm.guest_amx.msrs -r perm.guest_amx.size"})
        self.assertEqual(self.jobs("perm*:*"), {"kvm/x86_64/perm_test": ""})
        self.assertEqual(self.jobs("frame_*:*.write"), {"x86/frame_32": "", "x86/frame_64": ""})

    def test_name_of_a_job_means_the_same_job(self):
        for word in ("perm_test:guest_amx.*", "*.none.*", "perm_test:size", "frame_32", "*_proc.*"):
            wanted = self.jobs(word)
            self.assertEqual(self.jobs(*wanted), wanted)

    def test_what_two_words_mean_runs_once(self):
        self.assertEqual(list(self.jobs("frame", "x86", "frame_*")), ["x86/frame_64", "x86/frame_32"])

    def test_what_is_not_there(self):
        for word, regex in (
                ("prem_test", "^TESTS='prem_test': no such program, but perm_test.*; 'make list' shows all$"),
                ("zzz", "^TESTS='zzz': no such program; 'make list' shows all$"),
                ("*zzz*", r"^TESTS='\*zzz\*': no program and no row is like that; 'make list' shows all$"),
                ("perm_test:*zzz", "no program and no row is like that"),
                ("perm_test:zzz", "kvm/x86_64/perm_test has no such test; 'make list' shows all"),
                ("perm_test:a b", "what follows the colon is no name of a test")):
            self.dies(regex, choose.select, [word], self.built)


class Failed(Case):
    def setUp(self):
        super().setUp()
        self.run_ = runs.Run(self.tmp / "out")

    def failed(self, **more):
        folder = self.run_.write(command="kselftest", **more)
        self.jobs = choose.failed(record.Run(folder), self.built)
        return {job.name: " ".join(job.arguments) for job in self.jobs}

    def test_rows_that_failed(self):
        self.run_.program("kvm/x86_64/lock_test", "1..1\nok 1 lock.guest_amx.size\n")
        self.run_.program("kvm/x86_64/perm_test", "1..2\nok 1 perm.none.msrs\nnot ok 2 perm.none.size\n", 1)
        self.assertEqual(self.failed(), {"kvm/x86_64/perm_test:perm.none.size": "-r perm.none.size"})

    def test_several_rows_of_one_program(self):
        self.run_.program("kvm/x86_64/perm_test",
                          "1..3\nnot ok 1 perm.none.msrs\nok 2 perm_proc.cap\nnot ok 3 perm.none.size\n", 1)
        self.assertEqual(self.failed(), {
            "kvm/x86_64/perm_test:perm.none.msrs,+1": "-r perm.none.msrs -r perm.none.size"})
        self.assertEqual(choose.rows_of(self.jobs), {
            "kvm/x86_64/perm_test:perm.none.msrs,+1": ["perm.none.msrs", "perm.none.size"]})

    def test_programs_that_failed(self):
        self.run_.program("x86/frame_64", "1..2\nok 1 frame.write\n")
        self.run_.job("x86/frame_32").begins("x86/frame_32").end("hang", "the host hung")
        self.run_.program("upstream/x86/amx_64", "[FAIL]\tx\n", 1)
        self.assertEqual(self.failed(), dict.fromkeys(("x86/frame_64", "x86/frame_32", "upstream/x86/amx_64"), ""))

    def test_row_beside_a_warning_of_the_kernel(self):
        self.run_.program("x86/frame_64", "1..1\nnot ok 1 frame.write\n", 1, kernel=["WARNING: made up"])
        self.assertEqual(self.failed(), {"x86/frame_64": ""})

    def test_row_that_has_no_name(self):
        self.run_.program("x86/frame_64", "1..1\nnot ok 1 other\n", 1)
        self.assertEqual(self.failed(), {"x86/frame_64": ""})

    def test_part_of_a_program_that_crashed(self):
        self.run_.job("kvm/x86_64/perm_test:none.*").begins("kvm/x86_64/perm_test:none.*").end("panic", "it panicked")
        name = "kvm/x86_64/perm_test:perm.none.msrs,+1"
        self.run_.job(name).begins(name).end("panic", "it panicked")
        self.assertEqual(self.failed(rows={name: ["perm.none.msrs", "perm.none.size"]}), {
            "kvm/x86_64/perm_test:none.*": "-r perm.none.msrs -r perm.none.size",
            name: "-r perm.none.msrs -r perm.none.size"})

    def test_those_that_never_ran(self):
        self.run_.program("x86/frame_64", "1..1\nok 1 frame.write\n")
        self.assertEqual(self.failed(planned=["x86/frame_64", "x86/frame_32"], end="interrupted", why="it was"),
                         {"x86/frame_32": ""})

    def test_kernel_alone(self):
        self.run_.boot.kernel("WARNING: made up")
        self.run_.program("x86/frame_64", "1..1\nok 1 frame.write\n")
        self.run_.program("x86/frame_32", "1..1\nok 1 frame.write\n")
        self.assertEqual(list(self.failed()), ["x86/frame_64", "x86/frame_32"])

    def test_nothing(self):
        self.run_.program("x86/frame_64", "1..1\nok 1 frame.write\n")
        self.assertEqual(self.failed(), {})

    def test_program_that_has_gone(self):
        self.run_.program("x86/gone_64", "1..1\nnot ok 1 a\n", 1)
        self.dies("^FAILED=1: x86/gone_64 has failed, and is not there any more", self.failed)

    def test_no_run(self):
        self.dies("^FAILED=1: there was no run in .*/none: run 'make kselftest' first", choose.last_run,
                  self.tmp / "none")
        self.run_.program("x86/frame_64", "")
        self.dies("^FAILED=1: there was no run in ", choose.last_run, self.run_.write())   # of lab/run


class Again(Case):
    """Options of FAILED=1."""

    def options(self, *words, **more):
        folder = runs.Run(self.tmp / "out")
        folder.program("x86/frame_64", "1..1\nnot ok 1 frame.write\n", 1)
        folder.write(command="kselftest", kernel="6.12", cpu="ryzen", append=f"{suite.APPEND} nopku",
                     params="kvm.x=1", seed=7, modules="", ksrc="/linux", **more)
        options = suite.parser().parse_args(["--failed", "1", "--out", str(self.tmp / "out"), *words])
        suite.again(options)
        return options

    def test_those_of_the_last_run(self):
        o = self.options()
        self.assertEqual((o.kernel, o.cpu, o.append, o.params, o.seed, o.ksrc, o.host),
                         ("6.12", "ryzen", "nopku", "kvm.x=1", 7, "/linux", "0"))

    def test_those_that_are_given(self):
        o = self.options("--kernel", "7.3", "--cpu", "spr")
        self.assertEqual((o.kernel, o.cpu, o.params), ("7.3", "spr", "kvm.x=1"))

    def test_this_machine(self):
        o = self.options(host=True)
        self.assertEqual((o.host, o.kernel, o.cpu), ("1", "newest", ""))

    def test_bad_ones(self):
        for words, regex in ((("--failed", "x"), "^FAILED='x': FAILED=1 runs again"),
                             (("--failed", "1", "--tests", "a"), "^FAILED=1 knows what to run: leave out TESTS=")):
            self.dies(regex, suite.again, suite.parser().parse_args(words))


SOURCES = {
    "kvm/x86_64/a_test.c": """
static void helper(void)
{
	SKIP(return, "no AMX on this machine");
}

FIXTURE_SETUP(a)
{
	shared(self);
}

TEST_F(a, one)
{
	helper();
}

TEST_F(a, two)
{
	EXPECT_EQ(1, 1);
}

XSTATE_HARNESS_MAIN
""",
    "kvm/include/x86_64/xstate.h": """
#define XSTATE_HARNESS_MAIN	\\
	int main(int argc, char **argv)	\\
	{	\\
		require();	\\
	}
""",
    "kvm/lib/x86_64/xstate.c": """
void require(void)
{
	ksft_exit_skip("no /dev/kvm\\n");
}

void shared(void *p)
{
	SKIP(return, "needs root");
}
""",
    "x86/xregs.c": """
void helper(void)
{
	SKIP(return, "no protection keys");
}
""",
}


class Reasons(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp)
        for name, text in SOURCES.items():
            (self.tmp / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tmp / name).write_text(text)
        self.scope = reasons.Scope(self.tmp)

    def test_all_of_a_program(self):
        self.assertEqual(self.scope.of_program("kvm/x86_64/a_test"), {"no /dev/kvm"})

    def test_tests(self):
        self.assertEqual(self.scope.of_test("kvm/x86_64/a_test", "a.one"), {"no AMX on this machine", "needs root"})
        self.assertEqual(self.scope.of_test("kvm/x86_64/a_test", "a.two"), {"needs root"})

    def test_program_without_source(self):
        self.assertEqual(self.scope.of_program("upstream/kvm/amx_test"), set())


class Real(unittest.TestCase):
    """The sources of this repository."""

    def test_words(self):
        needs = choose.Needs()
        self.assertEqual(needs.of_program("kvm/x86_64/xfd_test"), "kvm libkvm(6.8) v2 xsave")
        self.assertEqual(needs.of_test("kvm/x86_64/xfd_test", "xfd.nm"), "amx guest_cet(6.18)")
        self.assertIn("root", needs.of_program("x86/xstate_pasid_64"))
        self.assertEqual(needs.of_program("x86/xcomp_perm_32"), "")


class Elf(unittest.TestCase):
    def test_no_program(self):
        with tempfile.NamedTemporaryFile() as file:
            for data in (b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(100),
                         b"\x7fELF\x02\x01" + bytes(0x22) + struct.pack("<Q", 1 << 40) + bytes(10) + b"\xff" * 8):
                file.seek(0)
                file.truncate()
                file.write(data)
                file.flush()
                self.assertEqual(rows.of_program(file.name), {})

    def test_names(self):
        self.assertEqual(rows.names("a.b", ["x", "y"]), ["a.x.b", "a.y.b"])
        self.assertEqual(rows.flat({"a.b": ["x"], "c.d": []}), ["a.x.b", "c.d"])

    def test_longest(self):
        self.assertEqual(rows.longest({"a", "a_b", "c"}, "a_b_c"), "a_b")
        self.assertEqual(rows.longest({"a"}, "ab_c"), "")


if __name__ == "__main__":
    unittest.main()
