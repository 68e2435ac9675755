# SPDX-License-Identifier: GPL-2.0-only
"""Runs are judged by what programs and kernel wrote: made-up ones, good and bad.

With KEEP_RUNS=DIR the runs stay there, for tests/report.t to show them to others.
"""

import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import unittest
import unittest.mock
import xml.etree.ElementTree as ET
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from runs import Machine, Run, RELEASE, TOP
import record
import report
import results
import verdict

GOOD_TAP = """\
TAP version 13
1..3
# Starting 3 tests
ok 1 perm.none.a
# wanted 1, got 2
ok 2 perm.none.b # SKIP no AMX
not ok 3 perm.none.c # XFAIL known
"""
# Not the name of a program here: kunit.py would take the one for the other.
ONE = "1..1\nok 1 fine\n"
PANIC = ("sysrq: Trigger a crash", "Kernel panic - not syncing: sysrq triggered crash", "Call Trace:")


class RunCase(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp(dir=os.environ.get("KEEP_RUNS")))
        if not os.environ.get("KEEP_RUNS"):
            self.addCleanup(shutil.rmtree, self.tmp)
        self.count = 0
        self.run_ = self.new()

    def new(self, release=RELEASE):
        self.count += 1
        self.run_ = Run(self.tmp / f"{self.id().rpartition('.')[2]}-{self.count}", release)
        return self.run_

    def job(self, *names):
        return self.run_.job(*names)

    def program(self, *arguments, **more):
        return self.run_.program(*arguments, **more)

    def report(self, *folders, **more):
        """Write the run, unless it is there; exit status, KTAP and summary of the report."""
        if not folders and not self.run_.folder.exists():
            self.run_.write(**more)
        ktap, summary = io.StringIO(), io.StringIO()
        self.rc = report.write([Path(f) for f in folders] or [self.run_.folder], ktap, summary)
        self.ktap, self.summary = ktap.getvalue(), summary.getvalue()
        if not folders:
            self.same_while_it_runs()
            self.same_for_programs()
        return self.rc

    def same_while_it_runs(self):
        """The report is the same if it is written while machines end, in whatever order."""
        folder = self.run_.folder
        run = record.Run(folder)
        if not run.record:
            return
        machines = run.record["machines"]
        jobs = [m for m in machines if not m.get("boot") and m["end"] != "stopped"]
        boot = next((m for m in machines if m.get("boot")), None)
        # lab/kselftest runs no two of one name.
        is_clear = len(set(run.planned)) == len(run.planned)
        for order in (jobs, jobs[::-1], jobs[1::2] + jobs[::2], []) if is_clear else (jobs, []):
            text = []
            stream = report.Stream(run.planned, text.append)
            for entry in order:
                stream.add(record.judge_machine(folder, entry, boot, run.record.get("release", "")))
            self.assertTrue(stream.finish(record.Run(folder)), "".join(text))
            self.assertEqual("".join(text), self.ktap)

    def same_for_programs(self):
        """report.json and report.xml say what the report says."""
        found = json.loads(json.dumps(results.document(record.Run(self.run_.folder))))
        self.assertEqual(found["status"], "fail" if self.rc else "pass")
        lines = re.findall(r"^( *)(not ok|ok) \d+ (.*?)(?: # (SKIP|XFAIL)\b.*| # .*)?$", self.ktap, re.M)
        tests = [t for p in found["programs"] for t in p["tests"]]
        for indent, listed in (("  ", tests), ("", found["programs"] + found["lab"])):
            said = [(word.lower() if word else "fail" if ok == "not ok" else "pass")
                    for blanks, ok, _, word in lines if blanks == indent]
            self.assertEqual([t["status"] for t in listed], said)
        for thing in [*tests, *found["programs"]]:
            self.assertRegex(thing["path"], r"^([a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*)?$")
            self.assertIn(thing["kcidb_status"], ("PASS", "FAIL", "SKIP", "MISS"))
        root = ET.fromstring(results.junit(found).encode())
        cases = list(root.iter("testcase"))
        bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
        self.assertEqual(bool(bad), bool(self.rc))
        self.assertEqual((int(root.get("tests")), int(root.get("failures")) + int(root.get("errors"))),
                         (len(cases), len(bad)))
        self.assertEqual(sum(c.find("skipped") is not None for c in cases), sum(
            t["status"] in ("skip", "xfail") for p in found["programs"] for t in p["tests"] or [p]) +
            sum(r["status"] == "skip" for r in found["lab"]))

    def has(self, *patterns, text=None):
        for pattern in patterns:
            self.assertRegex(self.ktap if text is None else text, re.compile(pattern, re.M))

    def has_not(self, *patterns):
        for pattern in patterns:
            self.assertNotRegex(self.ktap, re.compile(pattern, re.M))

    def fails(self, *patterns, **more):
        """The run is judged bad, with lines like patterns."""
        self.assertEqual(self.report(**more), 1, self.ktap)
        self.has(*patterns)

    def passes(self, *patterns, **more):
        self.assertEqual(self.report(**more), 0, self.ktap)
        self.has(*patterns)


class Good(RunCase):
    def setUp(self):
        super().setUp()
        self.program("kvm/x86_64/perm_test", GOOD_TAP)
        self.program("upstream/x86/plain_64", "[OK]\tfine\n")
        self.program("upstream/kvm/absent_test", "1..0 # SKIP - no such thing\n", 4)
        self.program("upstream/x86/one_64", "[SKIP]\tno shadow stack\n", 1)
        self.report()

    def test_good_run_is_ok(self):
        self.assertEqual(self.rc, 0)

    def test_plan_of_programs_completeness_and_kernel_log(self):
        self.has(r"\AKTAP version 1\n1\.\.6$")

    def test_program_is_a_top_level_result(self):
        self.has(r"^ok 1 kvm/x86_64/perm_test$")

    def test_results_are_nested(self):
        self.has(r"^  KTAP version 1\n  # Subtest: kvm/x86_64/perm_test\n  1\.\.3$", r"^  ok 1 perm.none.a$")

    def test_inner_skip_keeps_its_reason(self):
        self.has(r"^  ok 2 perm.none.b # SKIP no AMX$")

    def test_inner_xfail_is_no_failure(self):
        self.has(r"^  ok 3 perm.none.c # XFAIL known$")

    def test_diagnostics_come_before_their_result(self):
        self.has(r"wanted 1, got 2\n.*perm.none.b")

    def test_program_without_tap_passes_by_its_exit_code(self):
        self.has(r"^ok 2 upstream/x86/plain_64$")

    def test_exit_code_4_is_a_skip_with_the_reason(self):
        self.has(r"^ok 3 upstream/kvm/absent_test # SKIP no such thing$")

    def test_so_is_exit_code_1_with_skip_in_brackets(self):
        self.has(r"^ok 4 upstream/x86/one_64 # SKIP no shadow stack$")

    def test_run_is_complete_and_kernel_log_clean(self):
        self.has(r"^ok 5 lab_complete$", r"^ok 6 kernel_log$")

    def test_summary_counts_and_names_skip_reasons(self):
        self.has(r"^skip +1 x no AMX$", r"^skip +1 x no such thing$", r"^xfail +1 x known$",
                 r"^all is well: 4 programs; .*, 12 s$", text=self.summary)

    def test_summary_fits_on_a_screen(self):
        self.assertLessEqual(self.summary.count("\n"), 24)

    def test_no_trouble(self):
        self.assertEqual(record.Run(self.run_.folder).trouble(), "")

    def test_seconds_are_those_inside_the_machine(self):
        self.assertAlmostEqual(record.Run(self.run_.folder).seconds["upstream/x86/plain_64"], 0.1)

    def test_order_is_the_planned_one(self):
        self.new()
        for name in ("third", "first", "second"):
            self.program(name, ONE)
        self.passes(r"^ok 1 first$", r"^ok 2 second$", r"^ok 3 third$", planned=["first", "second", "third"])


class BadPrograms(RunCase):
    """What a program can do wrong; each run has a good program beside it."""

    def bad(self, pattern, *arguments, **more):
        self.program("prog", *arguments, **more)
        self.program("other", ONE)
        self.fails(pattern, r"^not ok 1 prog\b", r"^ok 2 other$", r"^ok 3 lab_complete$",
                   r"^ok 4 kernel_log$")

    def test_not_ok_with_exit_code_0(self):
        self.bad(r"^not ok 1 prog$", "1..2\nok 1 a\n# U_CET wanted 0x3, got 0x0\nnot ok 2 b\n")
        self.has(r"^  not ok 2 b$")
        self.has(r"U_CET wanted 0x3, got 0x0", text=self.summary)

    def test_missing_result(self):
        self.bad(r"^  # prog: 3 results were planned, 2 arrived$", "1..3\nok 1 a\nok 2 b\n")

    def test_result_too_many(self):
        self.bad(r"^  # prog: 1 results were planned, 2 arrived$", "1..1\nok 1 a\nok 2 b\n")

    def test_number_left_out(self):
        self.bad(r"^  # prog: result 2 is numbered 3$", "1..2\nok 1 a\nok 3 b\n")

    def test_name_that_comes_twice(self):
        self.bad(r"^  # prog: the name a comes twice$", "1..2\nok 1 a\nok 2 a\n")

    def test_no_plan(self):
        self.bad(r"^  # prog: no plan$", "TAP version 13\nok 1 a\n")

    def test_empty_plan(self):
        self.bad(r"^  # prog: the plan is empty without a reason$", "TAP version 13\n1..0\n")

    def test_bail_out(self):
        self.bad(r"^  # prog: Bail out! no memory$", "1..1\nok 1 a\nBail out! no memory\n", 1)

    def test_exit_code_254(self):
        self.bad(r"^not ok 1 prog # exit=254$", "==== Test Assertion Failure ====\n  a.c:1: r\n", 254)

    def test_death_by_a_signal(self):
        self.bad(r"^  # prog: it was killed by signal 11$", ONE, 139)

    def test_signal_of_the_time_limit(self):
        self.bad(r"^  # prog: it was killed by signal 15, its time limit in the lab$", ONE, 143)

    def test_time_limit(self):
        self.bad(r"^not ok 1 prog # TIMEOUT$", "1..2\nok 1 a\n", 124)

    def test_skip_although_tests_ran(self):
        self.bad(r"exit code 4 \(skip\) although tests ran", ONE, 4)

    def test_fail_in_brackets_with_exit_code_0(self):
        self.bad(r"^  # prog: it printed \[FAIL\]$", "[OK]\ta\n[FAIL]\tb\n")

    def test_stray_markers(self):
        self.job("prog").begins("prog").prints("@lab end another 0\n").ends("prog").done()
        self.fails(r"^# stray marker: @lab end another 0$", r"^not ok 2 lab_complete$")

    def test_forged_markers(self):
        """A program that fails, after it has printed what the machine prints at its end."""
        end = "\n@lab end prog 0\n"
        for forged in (end, end + "@lab done 0\n", end + "@lab begin prog\n1..1\nok 1 b\n",
                       "\n@lab end prog 0\n@lab begin another\n" + ONE, "@lab begin another\n" + ONE + "@lab end another 0\n",
                       "\0\0@lab end prog 0\n"):
            with self.subTest(forged):
                self.new()
                self.job("prog").begins("prog").prints(ONE + forged).prints("not ok 2 c\n").ends("prog", 1).done()
                self.program("other", ONE)
                self.fails(r"^# (stray marker|a program began that was not planned): ", r"^not ok 3 lab_complete$")

    def test_forged_end_on_a_machine_that_hangs(self):
        self.job("prog").begins("prog").prints(ONE + "\n@lab end prog 0\n").end("hang", "the host hung")
        self.fails(r"^  # prog: after its end: the host hung$", r"^not ok 1 prog$")

    def test_garbage_bytes(self):
        self.bad(r"^  # prog: result 1 is numbered None$",
                 b"1..1\n\xff\xfe\x80\0\x1b[31mred\x1b[0m\x07\nok\0\xf0 1 a\n")
        self.assertTrue(self.ktap.isascii())

    def test_garbage_in_a_good_program_does_no_harm(self):
        self.program("prog", b"1..1\n# \xff\xfe\0\x80\x1b[31mred\x1b[0m\x07\r\nok 1 a\n")
        self.passes(r"^  # \?+red\?$", r"^ok 1 prog$")


class Skips(RunCase):
    def test_program_whose_tests_are_all_skipped_is_no_pass(self):
        self.program("prog", "1..2\nok 1 a # SKIP no AMX\nok 2 b # SKIP no AMX\n")
        self.program("other", ONE)
        self.passes(r"^ok 1 prog # SKIP no AMX$")

    def test_run_where_all_was_skipped(self):
        self.program("prog", "1..1\nok 1 a # SKIP no KVM\n")
        self.fails(r"^# all programs were skipped: nothing was tested$")

    def test_require_in_the_child_of_a_harness_is_a_skip(self):
        self.program("prog", "1..2\nok 1 a\n1..0 # SKIP - no cap\nok 2 b # SKIP unknown\n")
        self.passes(r"^  ok 2 b # SKIP no cap$")


class EarlyEnds(RunCase):
    """Runs, machines and programs that did not come to their ends."""

    def open_program(self, kind, why):
        self.job("prog").begins("prog").prints("1..2\nok 1 a\n").end(kind, why)
        self.program("other", ONE)

    def test_program_that_never_ends(self):
        why = "it ran longer than the limit of 900 s"
        self.open_program("limit", why)
        self.fails(rf"^  # prog: {why}$", r"^not ok 1 prog$", r"^ok 2 other$", rf"^# {why}$",
                   r"^not ok 3 lab_complete$", end="limit", why=why)

    def test_hangs(self):
        for kind, why in (("hang", "the host hung: no end after 390 s of CPU time"),
                          ("stall", "the emulator stood still for 30 s (see emulator.log)"),
                          ("died", "the emulator ended by itself (signal 11), see emulator.log")):
            with self.subTest(kind):
                self.new()
                self.open_program(kind, why)
                self.fails(rf"^  # prog: {re.escape(why)}$", r"^  ok 1 a$", r"^not ok 1 prog$",
                           r"^ok 2 other$", r"^ok 3 lab_complete$", r"^ok 4 kernel_log$")
                self.assertEqual(record.Run(self.run_.folder).trouble(), f"{why} (in prog)")

    def test_flood(self):
        why = "it wrote more than 64 MiB"
        self.job("prog").begins("prog").prints("1..2\nok 1 a\n").prints("blah\n" * 1000000).end("flood", why)
        self.program("other", ONE)
        self.fails(rf"^  # prog: {why}$", r"^  ok 1 a$", r"and so on", r"^not ok 1 prog$", r"^ok 2 other$")
        self.assertLess(len(self.ktap), 4 << 20)

    def test_truncated_log(self):
        self.job("prog").runs("prog", ONE)
        self.program("other", ONE)
        self.fails(r"^  # prog: after its end: the machine stopped before its last program had ended$",
                   r"^not ok 1 prog$", r"^ok 2 other$")

    def test_log_cut_in_a_marker(self):
        self.job("prog").begins("prog").prints(ONE + "\n@lab en")
        self.fails(r"^  # prog: the machine stopped before its last program had ended$", r"^not ok 1 prog$")

    def test_end_marker_without_its_code(self):
        self.job("prog").begins("prog").prints(ONE + "\n@lab end prog")
        self.fails(r"^  # prog: the machine stopped before its last program had ended$",
                   r"^# stray marker: @lab end prog$")

    def test_planned_program_that_never_ran(self):
        self.program("first", ONE)
        self.fails(r"^ok 1 first$", r"^  # second: it was planned and never ran$", r"^not ok 2 second$",
                   planned=["first", "second"])
        self.assertIn("never ran (in second)", record.Run(self.run_.folder).trouble())

    def test_machine_that_did_not_get_its_programs(self):
        self.job("prog").done()
        self.program("other", ONE)
        self.fails(r"^  # prog: it was planned and never ran$", r"^not ok 1 prog$", r"^ok 2 other$")
        self.assertIn("never ran (in prog)", record.Run(self.run_.folder).trouble())

    def test_no_run_json(self):
        self.program("prog", ONE)
        (self.run_.write() / "run.json").unlink()
        self.fails(r"run\.json is missing: the run was interrupted$", r"^# no program ran$")

    def test_truncated_run_json(self):
        self.program("prog", ONE)
        path = self.run_.write() / "run.json"
        text = path.read_text()
        for length in (0, 1, len(text) // 2, len(text) - 3):
            with self.subTest(length):
                path.write_text(text[:length])
                self.fails(r"run\.json is missing: the run was interrupted$")

    def test_run_json_of_something_else(self):
        self.program("prog", ONE)
        path = self.run_.write() / "run.json"
        for text in ("[]", "7", '"text"', "null", "{}", "\0\0\0"):
            with self.subTest(text):
                path.write_text(text)
                self.fails(r"run\.json is missing: the run was interrupted$")

    def test_missing_results_log(self):
        self.program("prog", ONE)
        self.program("other", ONE)
        (self.run_.write() / "jobs/000-prog/results.log").unlink()
        self.fails(r"^  # prog: it was planned and never ran: .*results\.log is missing: nothing ran$",
                   r"^not ok 1 prog$", r"^ok 2 other$")

    def test_interrupted_run(self):
        self.program("done", ONE)
        self.job("open").begins("open").prints("1..1\n").end("died", "the run was interrupted")
        self.fails(r"^ok 1 done$", r"^  # open: the run was interrupted$", r"^not ok 2 open$",
                   r"^  # never: it was planned and never ran$", r"^# the run was interrupted$",
                   r"^not ok 4 lab_complete$",
                   end="interrupted", why="the run was interrupted", planned=["done", "open", "never"])

    def test_stopped_at_the_first_failure(self):
        self.program("bad", "1..1\nnot ok 1 a\n", 1)
        self.job("running").begins("running").prints("1..1\n").end("stopped", "")
        self.fails(r"^not ok 1 bad # exit=1$",
                   r"^  # running: it was stopped, for another program had failed$",
                   r"^  # waiting: it was stopped, for another program had failed$",
                   r"^ok 4 lab_complete$", end="stopped", planned=["bad", "running", "waiting"])
        self.assertEqual(record.Run(self.run_.folder).trouble(), "")

    def test_program_that_ended_before_the_others_were_stopped(self):
        self.program("bad", "1..1\nnot ok 1 a\n", 1)
        self.job("good").runs("good", ONE).done().end("stopped", "")
        self.fails(r"^not ok 1 bad # exit=1$", r"^ok 2 good$", end="stopped")

    def test_boot_that_failed(self):
        self.run_.boot.end("hang", "the host hung: no end after 120 s of CPU time (at boot)")
        self.fails(r"^  # a: it was planned and never ran$", r"^not ok 1 a$", r"^not ok 2 b$",
                   r"^# the host hung: .* \(at boot\)$", r"^not ok 3 lab_complete$",
                   end="boot", why="the host hung: no end after 120 s of CPU time (at boot)",
                   planned=["a", "b"])
        self.assertRegex(record.Run(self.run_.folder).trouble(), r"^the host hung: .*\(at boot\)$")

    def test_nothing_at_all(self):
        self.fails(r"^# no program ran$", r"^not ok 1 lab_complete$")


class Together(RunCase):
    """Several programs in one machine."""

    def test_second_one_dies(self):
        machine = self.job("a", "b", "c").runs("a", ONE)
        machine.begins("b").prints("1..2\nok 1 x\n").kernel(*PANIC).end("panic", "the kernel panicked")
        self.fails(r"^ok 1 a$", r"^  # b: the kernel panicked$",
                   r"^  # b: the kernel: Kernel panic - not syncing: sysrq triggered crash$", r"^not ok 2 b$",
                   r"^  # c: it was planned and never ran: the kernel panicked$", r"^not ok 3 c$",
                   r"^ok 4 lab_complete$", r"^ok 5 kernel_log$")

    def test_panic_between_two_programs(self):
        machine = self.job("a", "b").runs("a", ONE)
        machine.kernel(*PANIC).end("panic", "the kernel panicked")
        self.fails(r"^  # a: after its end: the kernel panicked$", r"^not ok 1 a$", r"^not ok 2 b$")

    def test_taint_of_one_of_several(self):
        self.job("a", "b").runs("a", ONE).runs("b", ONE).done(512)
        self.fails(r"^ok 1 a$", r"^ok 2 b$", r"^# the kernel became tainted \(512\)$",
                   r"^not ok 4 kernel_log$")

    def test_warning_of_one_of_several(self):
        machine = self.job("a", "b", "c").runs("a", ONE)
        machine.runs("b", ONE, kernel=["WARNING: CPU: 0 PID: 1 at made/up.c:1"]).runs("c", ONE).done()
        self.fails(r"^ok 1 a$", r"^  # b: the kernel: WARNING: CPU: 0 PID: 1 at made/up\.c:1$",
                   r"^not ok 2 b$", r"^ok 3 c$", r"^ok 5 kernel_log$")

    def test_same_program_twice(self):
        self.job("a", "a").runs("a", ONE).runs("a", ONE, kernel=["BUG: at second"]).done()
        self.fails(r"^ok 1 a$", r"^  # a \(2\): the kernel: BUG: at second$", r"^not ok 2 a \(2\)$",
                   r"^1\.\.4$", r"^ok 4 kernel_log$")

    def test_same_program_twice_and_the_second_never_runs(self):
        self.job("a", "a").runs("a", ONE).done()
        self.fails(r"^ok 1 a$", r"^  # a \(2\): it was planned and never ran$", r"^1\.\.4$")


class Kernel(RunCase):
    """The kernel's words belong to the program in whose machine it said them."""

    WARNING = "WARNING: CPU: 0 PID: 1 at arch/x86/kernel/fpu/core.c:1 f+0x1/0x2"

    def test_warning_is_of_one_program(self):
        self.program("prog", ONE, kernel=[self.WARNING, "Call Trace:", " f+0x1/0x2"])
        self.program("other", ONE)
        self.fails(r"^  # prog: the kernel: WARNING: CPU: 0 PID: 1 at arch/x86", r"^not ok 1 prog$",
                   r"^ok 2 other$", r"^ok 4 kernel_log$")
        self.has(r"^  ok 1 fine$")
        self.assertEqual(self.ktap.count("# prog: the kernel:"), 1, "one report counts once")
        self.assertEqual(record.Run(self.run_.folder).trouble(), f"the kernel: {self.WARNING} (in prog)")

    def test_two_warnings_are_two(self):
        self.program("prog", ONE, kernel=[self.WARNING, "Call Trace:", self.WARNING.replace(":1 ", ":2 ")])
        self.fails(r"^  # prog: the kernel: .*core\.c:1 ", r"^  # prog: the kernel: .*core\.c:2 ")

    # What the kernel tells of a fault that a test asked for, as 7.3 does
    FAULT = ["FAULT_INJECTION: forcing a failure.", "name fail_page_alloc, interval 1, probability 0",
             "prog: vmalloc error: size 12288, failed to allocate pages, mode:0xdc0", "Call Trace:", " <TASK>"]

    def test_trace_of_a_fault_that_was_asked_for(self):
        self.program("prog", ONE, kernel=self.FAULT * 2)
        self.passes(r"^ok 1 prog$", r"^ok 3 kernel_log$")

    def test_trace_of_one_that_was_not(self):
        self.program("prog", ONE, kernel=self.FAULT[2:])
        self.fails(r"^  # prog: the kernel: Call Trace:", r"^not ok 1 prog$")

    def test_warning_after_a_fault(self):
        self.program("prog", ONE, kernel=[*self.FAULT, self.WARNING, "Call Trace:"])
        self.fails(r"^  # prog: the kernel: WARNING: ", r"^not ok 1 prog$")

    def test_trace_in_the_next_program(self):
        self.job("prog", "other").runs("prog", ONE, kernel=self.FAULT).runs("other", ONE, kernel=self.FAULT[2:]).done()
        self.fails(r"^ok 1 prog$", r"^  # other: the kernel: Call Trace:", r"^not ok 2 other$")

    def test_warning_after_the_end_of_the_only_program(self):
        self.program("prog", ONE).kernel(self.WARNING)
        self.fails(r"^  # prog: the kernel: WARNING: ", r"^not ok 1 prog$", r"^ok 3 kernel_log$")

    def test_warning_before_its_begin(self):
        self.job("prog").kernel(self.WARNING).runs("prog", ONE).done()
        self.fails(r"^  # prog: the kernel: WARNING: ", r"^not ok 1 prog$", r"^ok 3 kernel_log$")

    def test_warning_at_boot(self):
        self.run_.boot.kernel(self.WARNING)
        self.program("prog", ONE)
        self.fails(r"^ok 1 prog$", r"^ok 2 lab_complete$", r"^# WARNING: CPU: 0", r"^not ok 3 kernel_log$")
        self.assertEqual(record.Run(self.run_.folder).trouble(), f"the kernel: {self.WARNING}")

    def test_every_kind_of_trouble(self):
        """A line of each alternative of the expression, as kernels print it."""
        for line in (self.WARNING, "BUG: kernel NULL pointer dereference", "kernel BUG at mm/slub.c:1!",
                     "Oops: 0000 [#1] SMP", "Kernel panic - not syncing: x", "Call Trace:",
                     "traps: general protection fault, ip 0", "unable to handle page fault",
                     "a[1]: segfault at 0 ip 0", "unchecked MSR access error: WRMSR",
                     "Bad FPU state detected at x", "XSAVE consistency problem, dumping leaves",
                     "rcu: INFO: rcu_preempt self-detected stall on CPU", "watchdog: BUG: soft lockup",
                     "Watchdog detected hard LOCKUP on cpu 0",
                     "INFO: task a:1 blocked for more than 1 seconds.",
                     "INFO: possible recursive locking detected", "INFO: suspicious RCU usage",
                     "BUG: scheduling while atomic: a/1",
                     "BUG: sleeping function called from invalid context",
                     "BUG: KASAN: use-after-free in x", "UBSAN: shift-out-of-bounds", "BUG: KFENCE: memory",
                     "refcount_t: underflow", "list_add corruption. x", "list_del corruption. x",
                     "lab: cannot load kvm-intel.ko", "kvm_intel: unknown parameter 'typo' ignored"):
            with self.subTest(line):
                self.new()
                self.program("prog", ONE, kernel=[line])
                self.fails(r"^  # prog: the kernel: " + re.escape(line), r"^not ok 1 prog$")

    def test_harmless_lines(self):
        self.program("prog", ONE, kernel=["x86/fpu: x87 FPU will use FXSAVE", "debug: WARNINGS are off",
                                          "kvm: SMP vm created on host", "lab: cannot load cpuid.ko"])
        self.passes(r"^ok 1 prog$")

    def test_taint_is_of_one_program(self):
        self.program("prog", ONE, taint=512)
        self.program("other", ONE)
        self.fails(r"^  # prog: the kernel: the kernel became tainted \(512\)$", r"^not ok 1 prog$",
                   r"^ok 2 other$", r"^ok 4 kernel_log$")

    def test_panic_is_of_one_program(self):
        self.program("before", ONE)
        machine = self.job("prog").begins("prog").prints("1..2\nok 1 a\n")
        machine.kernel(*PANIC).end("panic", "the kernel panicked")
        self.program("after", ONE)
        self.fails(r"^ok 1 before$", r"^  # prog: the kernel panicked$", r"^  ok 1 a$",
                   r"^  # prog: the kernel: Kernel panic - not syncing: sysrq triggered crash$",
                   r"^not ok 2 prog$", r"^ok 3 after$", r"^ok 4 lab_complete$", r"^ok 5 kernel_log$")
        self.assertEqual(sum(line.startswith("not ok") for line in self.ktap.splitlines()), 1)
        self.assertEqual(record.Run(self.run_.folder).trouble(), "the kernel panicked (in prog)")

    def test_panic_after_the_last_result(self):
        self.program("prog", ONE).kernel(*PANIC).end("panic", "the kernel panicked")
        self.program("other", ONE)
        self.fails(r"^  # prog: after its end: the kernel panicked$",
                   r"^  # prog: the kernel: Kernel panic", r"^  ok 1 fine$", r"^not ok 1 prog$",
                   r"^ok 2 other$")

    def test_reset(self):
        self.job("prog").begins("prog").prints("1..1\n").kernel(f"Linux version {RELEASE} (again)").done()
        self.program("other", ONE)
        self.fails(r"^  # prog: the machine was reset$",
                   r"^  # prog: the kernel: the machine was reset: Linux",
                   r"^not ok 1 prog$", r"^ok 2 other$")

    def test_reset_after_the_end(self):
        self.program("prog", ONE).kernel(f"Linux version {RELEASE} (again)")
        self.fails(r"^  # prog: after its end: the machine was reset$", r"^not ok 1 prog$")

    def test_reset_at_boot(self):
        self.run_.boot.kernel(f"Linux version {RELEASE} (again)")
        self.program("prog", ONE)
        self.fails(r"^# the machine was reset", r"^not ok 3 kernel_log$", r"^ok 1 prog$")

    def test_banner_that_is_cut(self):
        self.job("prog").begins("prog").kernel("Linux version ").end("limit", "it ran too long")
        self.fails(r"^  # prog: it ran too long$")

    def test_no_kernel_log(self):
        self.program("prog", ONE)
        self.run_.boot.console = b""
        self.fails(r"console\.log is missing or empty$", r"^not ok 3 kernel_log$")

    def test_no_kernel_log_of_a_job(self):
        self.program("prog", ONE).console = b""
        self.fails(r"console\.log is missing or empty$")

    def test_kernel_log_that_may_not_be_read(self):
        """As lab/run --here leaves it."""
        self.program("prog", ONE).console = b"lab: no kernel log: it takes root to read it\n"
        self.passes(r"^ok 3 kernel_log # SKIP the kernel log is not readable$")

    def test_warning_of_the_second_of_one_name(self):
        self.program("prog", ONE)
        self.program("prog", ONE, kernel=[self.WARNING])
        self.fails(r"^1\.\.4$", r"^ok 1 prog$", r"^  # prog \(2\): the kernel: WARNING",
                   r"^not ok 2 prog \(2\)$")

    def test_garbage_in_the_kernel_log(self):
        machine = self.job("prog").runs("prog", ONE)
        machine.console += b"\xff\xfe\0\x80[    9.000000] WARNING: made up\xff\n[    9.1\n[ x] \n"
        machine.done()
        self.fails(r"^  # prog: the kernel: \?+\[ +9\.000000\] WARNING: made up\?$", r"^not ok 1 prog$")


class Known(RunCase):
    """Failures of upstream's programs that are known."""

    def known(self, release, text="  KVM allowed invalid efer bit (0x100)\n", **more):
        self.new(release)
        self.program("upstream/kvm/set_sregs_test", text, 254, **more)
        self.program("prog", ONE)

    def test_known_failure_is_an_xfail_with_its_reason(self):
        self.known("6.1.0-56-cloud-amd64")
        self.passes(r"^ok 1 upstream/kvm/set_sregs_test # XFAIL the check is newer than the kernel$")

    def test_same_on_another_kernel(self):
        self.known("7.3.4")
        self.fails(r"^not ok 1 upstream/kvm/set_sregs_test # exit=254$")

    def test_another_failure_of_that_program(self):
        self.known("6.1.0", "  KVM refused something (0x100)\n")
        self.fails(r"^not ok 1 upstream/kvm/set_sregs_test")

    def test_known_failure_with_a_kernel_warning(self):
        self.known("6.1.0", kernel=["WARNING: made up"])
        self.fails(r"^not ok 1 upstream/kvm/set_sregs_test", r"the kernel: WARNING: made up$")

    def test_known_failure_on_a_kernel_that_was_there_before(self):
        self.new("6.1.0")
        self.run_.boot.console = b"[    0.000000] no banner\n"
        self.program("upstream/kvm/set_sregs_test", "  KVM allowed invalid efer bit (0x100)\n", 254)
        self.passes(r"^ok 1 upstream/kvm/set_sregs_test # XFAIL ", release="6.1.0-56-amd64")

    def test_known_failure_on_a_machine_that_hangs_after_it(self):
        self.new("6.1.0")
        self.job("upstream/kvm/set_sregs_test").runs(
            "upstream/kvm/set_sregs_test", "  KVM allowed invalid efer bit (0x100)\n", 254).end("hang", "the host hung")
        self.fails(r"^not ok 1 upstream/kvm/set_sregs_test", r"after its end: the host hung$")


class Several(RunCase):
    def test_several_runs_make_one_stream_with_distinct_names(self):
        self.program("prog", ONE)
        first = self.run_.write()
        self.new()
        self.program("prog", "1..1\nnot ok 1 a\n", kernel=["WARNING: made up"])
        second = self.run_.write()
        self.assertEqual(self.report(first, second), 1)
        self.has(r"^1\.\.6$", rf"^ok 1 {first.name}/prog$", rf"^not ok 2 {second.name}/prog$",
                 rf"^  # {second.name}/prog: the kernel: WARNING: made up$",
                 rf"^ok 3 {first.name}/lab_complete$", rf"^ok 6 {second.name}/kernel_log$")

    def test_here(self):
        """The layout of lab/run --here: one machine, in the folder itself."""
        folder = self.tmp / "here"
        folder.mkdir()
        machine = Machine(".", ["a", "b"])
        machine.console = b"lab: the kernel log from the start of the run on\n"
        machine.runs("a", ONE).runs("b", ONE, kernel=["WARNING: made up"]).done()
        for name in ("results", "console"):
            (folder / f"{name}.log").write_bytes(getattr(machine, name))
        record.write(folder, {"planned": ["a", "b"], "end": "ok", "machines": [machine.entry]})
        self.assertEqual(self.report(folder), 1)
        self.has(r"^ok 1 a$", r"^not ok 2 b$", r"^ok 3 lab_complete$", r"^ok 4 kernel_log$")


class Verdict(RunCase):
    """What lab/verdict tells git bisect."""

    def means(self, status, line, **more):
        if not self.run_.folder.exists():
            self.run_.write(**more)
        self.assertEqual(verdict.judge(self.run_.folder), (status, line))

    def results(self, *lines, **more):
        text = f"1..{len(lines)}\n" + "".join(line + "\n" for line in lines)
        return self.program("kvm/a", text, **more)

    def test_test_that_passes(self):
        self.results("ok 1 a.one", "ok 2 a.two # SKIP no AMX", "ok 3 a.three # XFAIL known")
        self.means(0, "good: 1 passed")

    def test_test_that_fails(self):
        self.results("ok 1 a.one", "not ok 2 a.two")
        self.means(1, "bad: a.two")

    def test_nothing_but_skips(self):
        self.results("ok 1 a.one # SKIP no AMX", "ok 2 a.two # SKIP no CET")
        self.means(125, "skip: none of 2 tests could be told")

    def test_nothing_passes_and_one_fails_as_expected(self):
        self.results("ok 1 a.one # XFAIL known", "ok 2 a.two # SKIP no CET")
        self.means(1, "bad: 1 failed as expected, none passed")

    def test_program_without_tap_counts_itself(self):
        self.program("kvm/a", "[OK] fine\n")
        self.means(0, "good: 1 passed")

    def test_also_where_it_skips(self):
        self.program("kvm/a", "", 4)
        self.means(125, "skip: none of 1 tests could be told")

    def test_kernel_warning(self):
        self.results("ok 1 a.one", kernel=["WARNING: CPU: 0 at made/up.c:1"])
        self.means(1, "bad: kvm/a: the kernel: WARNING: CPU: 0 at made/up.c:1")

    def test_kernel_warning_at_boot(self):
        self.run_.boot.kernel("WARNING: CPU: 0 at made/up.c:1")
        self.results("ok 1 a.one")
        self.means(1, "bad: WARNING: CPU: 0 at made/up.c:1")

    def test_panic_while_a_program_runs(self):
        self.job("kvm/a").begins("kvm/a").kernel(*PANIC).end("panic", "the kernel panicked")
        self.means(1, "bad: kvm/a: the kernel panicked")

    def test_panic_before(self):
        self.run_.boot.kernel(*PANIC).end("panic", "the kernel panicked (at boot)")
        self.means(125, "skip: the kernel did not come up: the kernel panicked (at boot)",
                   end="boot", why="the kernel panicked (at boot)", planned=["kvm/a"])

    def test_run_that_others_have_ended(self):
        for end in ("interrupted", "disk", "died"):
            with self.subTest(end):
                self.new()
                self.program("kvm/a", "ok\n")
                self.job("kvm/b").begins("kvm/b").end("died", "the run was interrupted")
                self.means(125, "skip: it came to nothing", end=end, why="it came to nothing")

    def test_run_that_cannot_be_judged(self):
        self.program("kvm/a", "ok\n")
        self.run_.write()
        out = io.StringIO()
        with contextlib.redirect_stdout(out), \
                unittest.mock.patch("record.read_known", side_effect=KeyError("word")):
            self.assertEqual(verdict.main([str(self.run_.folder)]), 125)
        self.assertRegex(out.getvalue(), "^skip: cannot judge .*KeyError")

    def test_record_of_something_else(self):
        self.run_.folder.mkdir()
        for text in ('{"machines": [{}]}', '{"machines": ["x"]}', "[]", "{"):
            with self.subTest(text):
                (self.run_.folder / "run.json").write_text(text)
                self.assertIsNone(record.read(self.run_.folder))

    def test_no_run_at_all(self):
        self.run_.folder.mkdir()
        self.means(125, "skip: the kernel did not come up: "
                        f"{self.run_.folder}/run.json is missing: the run was interrupted")


class Documented(RunCase):
    """Documentation/results.md has every field of report.json, and no other."""

    # Of these what comes is up to the run, or the page tells it in words.
    INSIDE = ("options", "machine.features", "machine.sizes", "machine.parameters", "counts.programs",
              "counts.tests", "programs", "lab")
    HEAD = ("# Linux 7.3.4 x86_64, 64-bit program, uid 0, euid 0\n# CPU: Made up, CPUID.1:EAX 0x806f8\n"
            "# XCR0 0x602e7: x87 SSE XTILE_DATA\n# supervisor components of the CPU: PASID CET_USER\n"
            "# CPUID.0xD sizes: 3 for XCR0, 2 for XCR0 | IA32_XSS, at most 4\n# parameters: kvm.x=N kvm_intel.y=Y\n")

    def fields(self, thing, prefix=""):
        for name, value in thing.items():
            if isinstance(value, dict) and prefix + name not in self.INSIDE:
                yield from self.fields(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    def table(self, text):
        rows = re.findall(r"^\| (`.*?) \|", text, re.M)
        return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}

    def test_fields(self):
        self.program("kvm/a", self.HEAD + "TAP version 13\n1..1\nok 1 x\n")
        found = results.document(record.Run(self.run_.write(boot_seconds=1, cpu_seconds=2, kernel="newest")))
        text = (TOP / "Documentation/results.md").read_text().partition("## report.json")[2]
        whole, programs = text.partition("## report.xml")[0].split("Of each program:")
        programs, _, tests = programs.partition("Of each test:")
        # The machine itself may be missing, and is a row too.
        self.assertEqual(set(self.fields(found)) | {"machine"}, self.table(whole))
        program = found["programs"][0]
        self.assertEqual(set(self.fields(program)), self.table(programs))
        self.assertEqual(set(program["tests"][0]), set(re.findall(r"`(\w+)`", tests.partition("\n\n")[0])))
        self.assertIn(f"`{results.VERSION}`", whole)

    def test_machine(self):
        self.program("kvm/a", self.HEAD)
        self.assertEqual(results.document(record.Run(self.run_.write()))["machine"], {
            "release": "7.3.4", "uid": 0, "model": "Made up", "signature": "0x806f8", "xcr0": "0x602e7",
            "user_components": ["x87", "SSE", "XTILE_DATA"], "supervisor_components": ["PASID", "CET_USER"],
            "features": {"AMX": True, "CET": True, "PASID": True},
            "sizes": {"standard": 3, "compacted": 2, "maximum": 4},
            "parameters": {"kvm.x": "N", "kvm_intel.y": "Y"}})

    def test_machine_of_which_nobody_speaks(self):
        self.program("kvm/a", "[OK]\tfine\n")
        self.assertIsNone(results.document(record.Run(self.run_.write()))["machine"])


class Xml(unittest.TestCase):
    def test_characters_that_xml_does_not_take(self):
        for text, wanted in (("a\x00\x01\x0b\x1b[1m\x7f", "a????[1m\x7f"), ("\ud800\ufffe", "??"), ("\t\n<&>\"", "\t\n<&>\""),
                             ("\u00e9\U0001f600", "\u00e9\U0001f600")):
            self.assertEqual(results.xml_text(text), wanted)
            node = results.element(ET.Element("a"), "b", text, message=text)
            self.assertEqual(ET.fromstring(ET.tostring(node)).text, wanted)


if __name__ == "__main__":
    unittest.main()
