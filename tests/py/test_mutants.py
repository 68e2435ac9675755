# SPDX-License-Identifier: GPL-2.0-only
"""lab/mutate tells what killed a mutant, and takes no patch that does not say what it is.
Nothing is booted here."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import batch
import detection
import host
import mutants
import record
from common import LAB, TOP, LabError, script
from machines import Machines
from madeup import Made, harness, make_run

GOOD = """\
Subject: x86/fpu: something is lost
Expect: {expect}
Needs: amx+cet
Symptom: a guest loses something,
\talways
Why: because

---
--- a/arch/x86/kernel/fpu/xstate.c
+++ b/arch/x86/kernel/fpu/xstate.c
@@ -1 +1 @@
-a
+b
"""
PERM, MORE = "kvm/perm_test", "kvm/more_test"
A, B, SKIPPED_B = "ok 1 x.a", "ok 2 x.b", "ok 2 x.b # SKIP no AMX"
KNOWN = "upstream/x86/test_shadow_stack_64"
WARNING = "WARNING: arch/x86/kernel/fpu/xstate.c:10 at foo"
PANIC = "Kernel panic - not syncing: Fatal exception"


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp)
        self.out = self.tmp / "out"
        self.out.mkdir()
        self.setup = mutants.Setup(key="1234")
        self.setup.write(self.out)

    def patch(self, name="killed", expect="killed", change=lambda text: text):
        path = self.tmp / f"{name}.patch"
        path.write_text(change(GOOD.format(expect=expect)))
        return mutants.Patch(path)

    def call(self, function, *arguments):
        """Its result, stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return function(*arguments), out.getvalue(), err.getvalue()


class Headers(Case):
    def complains(self, text, change):
        patch = self.patch("header", "equivalent", change)
        status, out, _ = self.call(mutants.check, [patch.path])
        self.assertEqual(1, status)
        self.assertIn(f"header.patch: {text}", out)

    def without(self, field):
        self.complains(f"no {field}:", lambda text: "".join(
            line for line in text.splitlines(True) if not line.startswith((field, "\talways"))))

    def test_cpu(self):
        self.assertEqual("spr", self.patch("plain").cpu)
        patch = self.patch("amd", change=lambda text: text.replace("Needs:", "Cpu: ryzen-cet\nNeeds:"))
        self.assertEqual(("ryzen-cet", []), (patch.cpu, patch.errors))
        self.complains("Cpu: lab/machines has no 'i486'",
                       lambda text: text.replace("Needs:", "Cpu: i486\nNeeds:"))

    def test_good(self):
        patch = self.patch("good", "equivalent")
        self.assertEqual((0, "", ""), self.call(mutants.main, ["check", patch.path]))

    def test_no_subject(self):
        self.without("Subject")

    def test_no_symptom(self):
        self.without("Symptom")

    def test_no_why(self):
        self.without("Why")

    def test_no_expect(self):
        self.complains("Expect: is '', not killed or equivalent",
                       lambda text: text.replace("Expect: equivalent\n", ""))

    def test_wrong_expect(self):
        self.complains("Expect: is 'dead'", lambda text: text.replace("Expect: equivalent", "Expect: dead"))

    def test_wrong_needs(self):
        self.complains("Needs: is none of any, smp", lambda text: text.replace("amx+cet", "sse"))

    def test_stray_line(self):
        self.complains("no field: 'Some words'", lambda text: text.replace("Needs:", "Some words\nNeeds:"))

    def test_no_diff(self):
        self.complains("no diff", lambda text: text.replace("+++", "++"))

    def test_no_file(self):
        with self.assertRaisesRegex(LabError, "cannot read the patch"):
            mutants.check([self.tmp / "nowhere.patch"])

    def test_all_of_lab_mutants(self):
        status, out, _ = self.call(mutants.check, sorted((LAB / "mutants").glob("*.patch")))
        self.assertEqual((0, ""), (status, out))

    def test_all_apply_without_fuzz(self):
        tree = script("kernel/fetch", "source", Machines().newest)
        bad = [path.name for path in sorted((LAB / "mutants").glob("*.patch")) if subprocess.run(
            ["patch", "-d", tree, "-p1", "-F0", "-N", "--dry-run", "-i", path], stdin=subprocess.DEVNULL,
            capture_output=True, timeout=60, check=False).returncode]
        self.assertEqual([], bad)


class Refusals(Case):
    """Bad input ends lab/mutate in one line, before it writes anything."""

    def refuses(self, text, *arguments, **variables):
        done = subprocess.run([LAB / "mutate", *arguments], cwd=TOP, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=60, check=False, text=True,
                              env={**os.environ, "O": str(self.tmp / "O"), **variables})
        self.assertEqual(1, done.returncode)
        self.assertEqual("", done.stdout)
        self.assertEqual(1, len(done.stderr.splitlines()), done.stderr)
        self.assertTrue(done.stderr.startswith(f"lab: {text}"), done.stderr)
        self.assertFalse((self.tmp / "O").exists())

    def test_unknown_name(self):
        self.refuses("MUTANTS='nonsense': no such folder", MUTANTS="nonsense")

    def test_empty_folder(self):
        (self.tmp / "empty").mkdir()
        self.refuses(f"MUTANTS='{self.tmp}/empty': no file", MUTANTS=str(self.tmp / "empty"))

    def test_name_twice(self):
        for name in ("patches", "again"):
            (self.tmp / name).mkdir()
            (self.tmp / name / "good.patch").write_text(GOOD.format(expect="killed"))
        self.refuses("MUTANTS: two patches have the same name: good.patch",
                     MUTANTS=f"{self.tmp}/patches {self.tmp}/again")

    def test_unknown_suite(self):
        self.refuses("SUITE='mine': there are ours, upstream, model", SUITE="mine")

    def test_kernel_without_source(self):
        self.refuses("KERNEL='/boot/vmlinuz': mutants need", KERNEL="/boot/vmlinuz")

    def test_jobs(self):
        self.refuses("JOBS='0' is no number", JOBS="0")

    def test_fast(self):
        self.refuses("FAST='2': FAST=1 stops", FAST="2")

    def test_keep(self):
        self.refuses("KEEP='yes': KEEP=1 keeps", KEEP="yes")

    def test_command(self):
        self.refuses("argument command: invalid choice: 'detect'", "detect")

    def test_option(self):
        self.refuses("unrecognized arguments: --slow; lab/mutate -h lists", "--slow")


class Names(Case):
    def test_patterns(self):
        found = [p.name for p in mutants.find_patches(["seed-v6-literal", "perm-lock-not-*"])]
        self.assertEqual(["seed-v6-literal", "perm-lock-not-taken", "perm-lock-not-tested"], found)


def base_programs():
    return [Made(PERM, harness(A, SKIPPED_B)),
            Made(MORE, harness("ok 1 y.a", "not ok 2 y.b # XFAIL known"))]


def known_failure():
    """What lab/selftests/upstream-known knows of it."""
    return Made(KNOWN, ["[FAIL]\tUserfaultfd test"], 1)


def job(name):
    return host.Job(name, 120, Path("/bin/true"))


class Order(Case):
    def order(self, programs):
        baseline = make_run(self.out / "baseline", programs)
        jobs = mutants.order(self.out, self.patch(), baseline, [job(p.name) for p in programs])
        return [(j.name, j.seconds) for j in jobs]

    def table(self):
        (self.out / "table.json").write_text(json.dumps({"mutants": [
            {"files": ["a.c"], "kills": {"assertion": ["perm_test (exit code 1)", "more_test:y.a"]}},
            {"files": ["b.c"], "kills": {"assertion": ["more_test:y.a", "more_test:y.b"]}},
            {"files": ["c.c"], "kills": {"assertion": ["more_test:y.b"]}}]}))

    def other(self, test):
        """A mutant of the same file."""
        (self.out / "other.json").write_text(json.dumps(
            {"files": self.patch().files, "kills": {"assertion": [test]}}))

    def test_limits(self):
        """Three times the time and ten seconds."""
        baseline = make_run(self.out / "baseline", base_programs())
        found = mutants.limits(baseline, [job(name) for name in (PERM, MORE, "kvm/new_test")])
        self.assertEqual([(PERM, 14), (MORE, 14)], [(j.name, j.seconds) for j, _ in found])

    def test_most_kills_first(self):
        self.table()
        self.assertEqual([(MORE, 14), (PERM, 14)], self.order(base_programs()))

    def test_same_file_first(self):
        self.table()
        self.other("perm_test:x.a")
        self.assertEqual([(PERM, 14), (MORE, 14)], self.order(base_programs()))

    def test_what_fails_anyway_last(self):
        self.other("test_shadow_stack_64 (exit code 1)")
        self.assertEqual([(MORE, 14), (KNOWN, 14)],
                         self.order([known_failure(), Made(MORE, harness("ok 1 y.a", "ok 2 y.b"))]))

    def test_what_fails_in_an_unknown_way_is_left_out(self):
        self.assertEqual([(MORE, 14)], self.order([Made(PERM, harness("not ok 1 x.a"), 1),
                                                   Made(MORE, harness("ok 1 y.a"))]))


class Verdicts(Case):
    def setUp(self):
        super().setUp()
        self.base = base_programs()

    def row(self, programs, expect="killed", **more):
        baseline = make_run(self.out / "baseline", self.base)
        run = make_run(self.out / "killed", programs, **more)
        row = mutants.new_row(self.setup, self.patch(expect=expect))
        mutants.judge(row, (baseline, run))
        self.call(mutants.finish, row, self.out)
        return row

    def check(self, wanted, programs, **more):
        """wanted is the row up to its time; "?" in it stands for what was expected."""
        line = mutants.line(self.row(programs, **more))
        self.assertEqual(wanted.replace("?", "killed (expected: killed)") + " [0 s]", line)

    def mutant(self, wanted, lines=None, code=0, more=None, **machine):
        """A run in which only the first program may differ."""
        first = Made(PERM, harness(A, SKIPPED_B) if lines is None else lines, code, **machine)
        self.check(wanted, [first, more or self.base[1]])

    def test_survived(self):
        self.mutant("survived ?: -")

    def test_assertion(self):
        self.mutant("killed   killed: assertion: perm_test:x.a", harness("not ok 1 x.a", SKIPPED_B), 1)
        self.assertTrue(json.loads((self.out / "killed.json").read_text())["good"])

    def test_assertion_where_there_was_a_skip(self):
        self.mutant("killed   killed: assertion: perm_test:x.b", harness(A, "not ok 2 x.b"), 1)

    def test_killed_is_not_good_for_an_equivalent_one(self):
        row = self.row([Made(PERM, harness("not ok 1 x.a", SKIPPED_B), 1), self.base[1]], "equivalent")
        self.assertFalse(row["good"])

    def test_survived_is_good_for_an_equivalent_one(self):
        self.assertTrue(self.row(self.base, "equivalent")["good"])

    def test_skip_is_no_kill(self):
        self.mutant("skipped  ?: skipped: perm_test:x.a", harness("ok 1 x.a # SKIP no CET", SKIPPED_B))

    def test_skip_of_the_program(self):
        self.mutant("skipped  ?: skipped: perm_test, perm_test:x.a (missing)", ["1..0 # SKIP no CET"], 4)

    def test_missing_result(self):
        self.mutant("skipped  ?: skipped: perm_test:x.a (missing)", ["1..1", "ok 1 x.b # SKIP no AMX"])

    def test_broken_plan(self):
        self.mutant("killed   killed: assertion: perm_test (2 results were planned, 1 arrived)", ["1..2", A])

    def test_assertion_of_libkvm(self):
        self.mutant("killed   killed: assertion: perm_test (exit code 254)",
                    ["==== Test Assertion Failure ===="], 254)

    def test_timeout_of_a_test(self):
        self.mutant("hang     ?: hang: perm_test:x.a",
                    harness("# x.a: Test terminated by timeout", "not ok 1 x.a", SKIPPED_B), 1)

    def test_timeout_of_a_program(self):
        self.mutant("hang     ?: hang: perm_test", ["1..2", A], 143)

    def test_timeout_that_the_program_tells(self):
        self.mutant("hang     ?: hang: perm_test", ["1..2", A], 124)

    def test_death_of_a_test(self):
        self.mutant("crash    ?: crash: perm_test:x.a",
                    harness("# x.a: Test terminated unexpectedly by signal 11", "not ok 1 x.a", SKIPPED_B), 1)

    def test_death_of_a_program(self):
        self.mutant("crash    ?: crash: perm_test (signal 11)", ["1..2", A], 139,
                    kernel=["perm_test[100]: segfault at 0 ip 0"])

    def test_warning(self):
        self.mutant(f"killed   killed: warning: {MORE}: {WARNING}",
                    more=dataclasses.replace(self.base[1], kernel=[WARNING]))

    def test_warning_at_boot(self):
        self.check(f"killed   killed: warning: {WARNING}", self.base, boot=[WARNING])

    def test_taint(self):
        baseline = make_run(self.out / "baseline", self.base)
        make_run(self.out / "killed", self.base)
        path = self.out / "killed/jobs/0/results.log"
        path.write_text(path.read_text().replace("@lab done 0", "@lab done 512"))
        verdict = mutants.Verdict((baseline, record.Run(self.out / "killed")))
        self.assertEqual(f"warning: {PERM}: the kernel became tainted (512)", verdict.summary())

    def test_oops_that_the_host_survives(self):
        line = "BUG: unable to handle page fault for address: 0"
        self.mutant(f"killed   killed: warning: {PERM}: {line}", kernel=[line])

    panic = {"lines": ["1..2", A], "code": None, "end": "panic", "why": "the kernel panicked"}

    def test_panic(self):
        self.mutant(f"crash    ?: crash: {PERM}: {PANIC}", kernel=[PANIC], **self.panic)

    def test_warning_beside_a_panic(self):
        self.mutant(f"killed   killed: warning: {PERM}: {WARNING}; crash: {PERM}: {PANIC}",
                    kernel=[PANIC, WARNING], **self.panic)

    def test_panic_leaves_the_others_alone(self):
        """Each program has a machine of its own: another one still tells why."""
        more = Made(MORE, harness("not ok 1 y.a", "not ok 2 y.b # XFAIL known"), 1)
        self.mutant(f"killed   killed: assertion: more_test:y.a; crash: {PERM}: {PANIC}",
                    kernel=[PANIC], more=more, **self.panic)

    def test_panic_after_the_end_of_a_program(self):
        self.mutant(f"crash    ?: crash: {PERM}: {PANIC}", kernel=[PANIC], end="panic",
                    why="the kernel panicked")

    def test_death_without_a_word(self):
        self.mutant(f"crash    ?: crash: {PERM}: the emulator ended", ["1..2", A], None,
                    end="died", why="the emulator ended")

    def test_stall_that_the_kernel_tells(self):
        line = "rcu: INFO: rcu_sched detected stalls on CPUs"
        self.mutant(f"hang     ?: hang: {PERM}: {line}", kernel=[line])

    hung = {"code": None, "end": "hang", "why": "the host hung: no end after 50 s of CPU time"}

    def test_hang(self):
        self.mutant(f"hang     ?: hang: {PERM}: {self.hung['why']}", ["1..2", A], **self.hung)

    def test_what_came_before_a_hang(self):
        self.mutant(f"killed   killed: assertion: perm_test:x.a; hang: {PERM}: {self.hung['why']}",
                    ["1..2", "not ok 1 x.a"], **self.hung)

    def test_flood(self):
        self.mutant(f"hang     ?: hang: {PERM}: too much output", ["1..2", A], None,
                    end="flood", why="too much output")

    def test_boot_that_panics(self):
        self.check("crash    ?: crash: the kernel panicked", [], boot_end="panic", end="boot",
                   boot_why="the kernel panicked", why="the kernel panicked", planned=[PERM, MORE])

    def test_limit_of_the_run(self):
        late = Made(MORE, code=None, began=False, end="limit", why="the limit of 9 s")
        self.check("hang     ?: hang: the limit of 9 s", [self.base[0], late], end="limit",
                   why="the limit of 9 s")

    def test_limit_before_the_last_program(self):
        self.check("hang     ?: hang: the limit of 9 s", [self.base[0]], end="limit",
                   why="the limit of 9 s", planned=[PERM, MORE])

    def test_stopped_is_no_survival(self):
        self.base = [known_failure(), Made(PERM, harness(A, B))]
        self.check(f"error    ?: nothing failed, but these never ran: {PERM}",
                   [known_failure(), Made(PERM, code=None, began=False, end="stopped")], end="stopped")

    def test_never_begun_is_no_survival(self):
        self.base = [known_failure(), Made(PERM, harness(A, B))]
        self.check(f"error    ?: nothing failed, but these never ran: {PERM}", [known_failure()],
                   end="stopped", planned=[KNOWN, PERM])

    def test_stopped_is_no_kill(self):
        """One that was interrupted in the middle tells nothing, whatever it has said."""
        programs = [Made(PERM, ["1..2", "not ok 1 x.a"], None, end="stopped", why="another one failed"),
                    Made(MORE, harness("not ok 1 y.a", "not ok 2 y.b # XFAIL known"), 1)]
        self.check("killed   killed: assertion: more_test:y.a", programs, end="stopped")

    def test_full_disk(self):
        self.check("error    ?: nothing failed, but the disk is full", self.base, end="disk",
                   why="the disk is full")

    def test_death_of_the_emulator_that_forks(self):
        programs = [Made(PERM, ["1..2", A], None, end="died", why="the emulator has gone"), self.base[1]]
        self.check("error    ?: nothing failed, but the emulator has died", programs, end="died",
                   why="the emulator has died")

    def two(self, line, code):
        """What the word is if only a program that takes another CPU can tell."""
        alone = [Made(MORE, harness("ok 1 y.a"))]
        return mutants.Verdict(
            (make_run(self.out / "baseline", self.base), make_run(self.out / "killed", self.base)),
            (make_run(self.out / "baseline-also-spr-smp", alone),
             make_run(self.out / "killed/also-spr-smp", [Made(MORE, harness(line), code)])))

    def test_failure_on_another_cpu(self):
        verdict = self.two("not ok 1 y.a", 1)
        self.assertEqual(("killed", "assertion: more_test:y.a"), (verdict.word(), verdict.summary()))

    def test_success_on_another_cpu(self):
        self.assertEqual("survived", self.two("ok 1 y.a", 0).word())

    def test_baselines(self):
        """Those that take another CPU have a baseline of their own, if they are to run."""
        amd = self.patch("amd", change=lambda text: text.replace("Needs:", "Cpu: ryzen-cet\nNeeds:"))
        (cpu, programs), = Machines().also.items()
        jobs = [job(PERM), job(programs[0])]
        self.assertEqual(
            [("baseline-ryzen-cet", "ryzen-cet", jobs), ("baseline", "spr", jobs),
             (f"baseline-also-{cpu}", cpu, jobs[1:])], mutants.baselines(jobs, [amd, self.patch()]))
        self.assertEqual([("baseline", "spr", jobs[:1])], mutants.baselines(jobs[:1], [self.patch()]))
        self.assertEqual(["baseline-ryzen-cet", "baseline"],
                         [name for name, _, _ in mutants.baselines(jobs, [amd])])

    def test_no_record(self):
        baseline = make_run(self.out / "baseline", self.base)
        (self.out / "killed").mkdir()
        verdict = mutants.Verdict((baseline, record.Run(self.out / "killed")))
        self.assertEqual("error", verdict.word())
        self.assertIn("run.json is missing", verdict.summary())

    def test_no_console(self):
        """What the lab has lost is no kill."""
        baseline = make_run(self.out / "baseline", self.base)
        make_run(self.out / "killed", self.base)
        (self.out / "killed/jobs/0/console.log").write_text("")
        verdict = mutants.Verdict((baseline, record.Run(self.out / "killed")))
        self.assertEqual("error", verdict.word())
        self.assertIn("console.log is missing or empty", verdict.summary())

    def test_times(self):
        """The row has the time of build and run, the table that of the CPU."""
        make_run(self.out / "baseline", self.base)
        patch = self.patch()
        row = mutants.new_row(self.setup, patch)
        row.update(verdict="killed", summary="a | b", build_seconds=8, run_seconds=17, cpu_seconds=66)
        _, out, _ = self.call(mutants.finish, row, self.out)
        self.assertTrue(out.endswith(" [25 s]\n"), out)
        status, out, err = self.call(mutants.main, ["table", self.out, patch.path])
        self.assertEqual(0, status)
        self.assertIn("| a \\| b | 25 | 66 |\n", out)
        self.assertIn("lab: 1 mutants (expected/verdict): 1 killed/killed\n", err)
        self.assertIn("lab: 66 CPU seconds for each on average\n", err)


class Table(Case):
    def test_what_is_not_as_expected(self):
        make_run(self.out / "baseline", base_programs())
        patches = [self.patch("a"), self.patch("b")]
        row = mutants.new_row(self.setup, patches[0])
        row.update(verdict="survived", summary="")
        self.call(mutants.finish, row, self.out)
        status, out, err = self.call(mutants.table, self.out, patches)
        self.assertEqual(1, status)
        self.assertIn("| survived (!) |", out)
        self.assertIn("lab: 2 not as expected: a b\n", err)
        table = json.loads((self.out / "table.json").read_text())
        self.assertEqual(("7.3.4-lab", 1), (table["kernel"], len(table["mutants"])))

    def test_no_folder_of_results(self):
        with self.assertRaisesRegex(LabError, "setup.json is missing .*: run 'make mutants' first"):
            mutants.table(self.tmp, [])


class One(Case):
    """A job, with kernel and run that are made up."""

    stalled = [Made(PERM, ["1..2", A], None, end="stall", why="it stood still"), base_programs()[1]]

    def one(self, runs=(), status=0, said="", change=lambda text: text, **setup):
        """Its stdout and stderr; runs are the programs of each, and what run.json says."""
        dataclasses.replace(self.setup, limit=9, **setup).write(self.out)
        make_run(self.out / "baseline", base_programs())
        patch = self.patch("killed", change=change)
        self.left = list(runs)

        def build(arguments, _seconds, log=None):
            kernel = Path(arguments[2])
            kernel.mkdir()
            (kernel / "build.log").write_text("gcc: no\n")
            log.write_text(said)
            return status

        def run(options):
            self.options = options
            self.assertTrue(Path(options.kernel).is_dir())
            for name in ("boot", "jobs"):
                shutil.rmtree(options.out / name, ignore_errors=True)
            programs, more = self.left.pop(0)
            return make_run(options.out, programs, **more)

        with mock.patch.object(mutants, "call", build), mock.patch.object(host, "run", run), \
                mock.patch.object(mutants.suite, "build", lambda series: Path("/built")), \
                mock.patch.object(mutants.suite, "select", lambda tests, built: [job(PERM), job(MORE)]):
            result, out, err = self.call(mutants.main, ["one", self.out, patch.path])
        self.assertEqual(0, result)
        return out, err

    def test_killed(self):
        failing = [Made(PERM, harness("not ok 1 x.a", SKIPPED_B), 1), base_programs()[1]]
        out, _ = self.one([(failing, {})])
        self.assertTrue(out.startswith("killed   killed: assertion: perm_test:x.a ["), out)
        self.assertIn("not ok 1 x.a", (self.out / "killed/report.ktap").read_text())
        self.assertFalse((self.out / "killed/kernel").exists())
        self.assertGreaterEqual(json.loads((self.out / "killed.json").read_text())["cpu_seconds"], 7)
        o = self.options
        self.assertEqual((True, True, True, 1, 9, "spr"),
                         (o.ordered, o.fast, o.once, o.parallel, o.limit, o.cpu))
        self.assertEqual([14, 14], [j.seconds for j in o.jobs])

    def test_cpu(self):
        """It runs on the CPU of the patch, and is compared with what the suite found there."""
        amd = [Made(PERM, harness("not ok 1 x.a", SKIPPED_B), 1), base_programs()[1]]
        make_run(self.out / "baseline-ryzen-cet", amd)
        out, _ = self.one([(amd, {})], change=lambda text: text.replace("Needs:", "Cpu: ryzen-cet\nNeeds:"))
        self.assertTrue(out.startswith("survived killed"), out)
        self.assertEqual("ryzen-cet", self.options.cpu)

    def test_all_programs(self):
        self.one([(base_programs(), {})], fast=False)
        self.assertEqual((False, [PERM, MORE]), (self.options.fast, [j.name for j in self.options.jobs]))

    def test_keep(self):
        self.one([(base_programs(), {})], keep=True, plain="labkernel")
        self.assertEqual(["labkernel"], [p.name[:9] for p in (self.tmp / "kernels").iterdir()])

    def test_stall_is_tried_again(self):
        out, err = self.one([(self.stalled, {}), (base_programs(), {})])
        self.assertTrue(out.startswith("survived killed"), out)
        self.assertIn(f"lab: killed: it stood still (in {PERM}); try 1 of 2\n", err)
        self.assertGreaterEqual(json.loads((self.out / "killed.json").read_text())["cpu_seconds"], 14)

    def test_stall_twice(self):
        out, _ = self.one([(self.stalled, {}), (self.stalled, {}), (self.stalled, {})])
        self.assertIn(f"hang     killed (expected: killed): hang: {PERM}: it stood still [", out)
        self.assertEqual(1, len(self.left))

    def test_limit_is_tried_again(self):
        out, err = self.one([(base_programs(), {"end": "limit", "why": "the limit"}), (base_programs(), {})])
        self.assertTrue(out.startswith("survived killed"), out)
        self.assertIn("try 1 of 2", err)

    def test_death_of_the_emulator_is_tried_again(self):
        out, _ = self.one([(base_programs(), {"end": "died", "why": "it died"}), (base_programs(), {})])
        self.assertTrue(out.startswith("survived killed"), out)

    def test_no_build(self):
        out, _ = self.one(status=1, said="make: no\nlab: compiling: failed, see /x/kernel/build.log\n")
        self.assertIn("error    killed (expected: killed): compiling: failed, see /x/build.log [", out)
        self.assertTrue((self.out / "killed/build.log").exists())
        self.assertFalse((self.out / "killed/kernel").exists())

    def test_no_header(self):
        out, _ = self.one(change=lambda text: text.replace("Needs: amx+cet\n", ""))
        self.assertIn("error    killed (expected: killed): ", out)
        self.assertIn("killed.patch: Needs: is none of", out)


class Todo(Case):
    """Results are taken up again."""

    def setUp(self):
        super().setUp()
        self.patches = [self.patch("killed"), self.patch("new")]
        self.verdict("killed")

    def verdict(self, word):
        row = mutants.new_row(self.setup, self.patches[0])
        row.update(verdict=word, summary="")
        self.call(mutants.finish, row, self.out)

    def check(self, *names):
        found = mutants.todo(self.out, mutants.Setup.read(self.out), self.patches)
        self.assertEqual(list(names), [p.name for p in found])

    def test_verdict_is_not_sought_again(self):
        self.check("new")

    def test_error_is_tried_again(self):
        self.verdict("error")
        self.check("killed", "new")

    def test_kernel_changes(self):
        mutants.Setup(key="1235").write(self.out)
        self.check("killed", "new")

    def test_kernel_changes_back(self):
        mutants.Setup(key="1235").write(self.out)
        mutants.Setup(key="1234").write(self.out)
        self.check("new")

    def test_programs_change(self):
        """A verdict stays if those that noticed have not changed; a survivor has met all."""
        old = {"a": "1", "b": "2"}
        for word, killers, programs, again in (
                ("killed", ["a"], {"a": "1", "b": "3"}, False),
                ("killed", ["a"], {"a": "1", "b": "2", "c": "4"}, False),
                ("killed", ["a"], {"a": "5", "b": "2"}, True),
                ("killed", ["a"], {"b": "2"}, True),
                ("killed", ["a", "b"], {"a": "1", "b": "3"}, True),
                ("killed", [], {"a": "1", "b": "3"}, True),
                ("survived", [], {"a": "1", "b": "3"}, True),
                ("survived", [], old, False),
                ("hang", ["a"], {"a": "1", "b": "3"}, True)):
            with self.subTest((word, killers, programs)):
                self.setup = mutants.Setup(key="1234", programs=old)
                row = mutants.new_row(self.setup, self.patches[0])
                row.update(verdict=word, summary="", killers=killers)
                self.call(mutants.finish, row, self.out)
                mutants.Setup(key="1234", programs=programs).write(self.out)
                self.check(*(["killed", "new"] if again else ["new"]))

    def test_patch_changes(self):
        self.patches[0] = self.patch("killed", change=lambda text: text.replace("+b\n", "+c\n"))
        self.check("killed", "new")


class Jobs(Case):
    """GNU parallel is called as it should be."""

    def parallel(self, sshlogin="", status=0):
        options = mock.Mock(jobs=3, sshlogin=sshlogin)
        with mock.patch.object(batch, "call", return_value=status) as call:
            batch.run_jobs(options, self.out, "mutate", ["/a.patch", "/b.patch"], 10, ["--basefile", "x"])
        self.assertFalse((self.out / "todo").exists())
        words, self.seconds = call.call_args.args
        return [str(word) for word in words]

    def test_here(self):
        words = self.parallel()
        self.assertEqual(["parallel", "--will-cite", "-j", "3"], words[:4])
        self.assertEqual([str(LAB / "mutate"), "one", str(self.out), "{}"], words[-4:])
        self.assertNotIn("--basefile", words)
        self.assertEqual(20, self.seconds)

    def test_elsewhere(self):
        words = self.parallel(sshlogin=":,box")
        at = words.index("--sshlogin")
        self.assertEqual(["--sshlogin", ":,box", "--workdir", str(TOP), "--basefile", "x"], words[at:at + 6])

    def test_for_real(self):
        """Two patches without a header are two jobs that end soon."""
        bad = [self.patch(name, change=lambda text: text.replace("Needs: amx+cet\n", "")) for name in "ab"]
        make_run(self.out / "baseline", base_programs())
        options = mock.Mock(jobs=2, sshlogin="")
        batch.run_jobs(options, self.out, "mutate", [patch.path for patch in bad], 60, [])
        rows = [mutants.read_row(self.out, self.setup, patch) for patch in bad]
        self.assertEqual(["error", "error"], [row["verdict"] for row in rows])
        status, _, err = self.call(mutants.table, self.out, bad)
        self.assertEqual(1, status)
        self.assertIn("lab: 2 not as expected: a b\n", err)

    def test_failure_of_jobs_is_theirs(self):
        self.parallel(status=2)

    def test_failure_of_parallel(self):
        with self.assertRaisesRegex(LabError, "parallel ended with status 255"):
            self.parallel(status=255)


class Detection(Case):
    """Both suites beside each other."""

    def suite(self, name, verdicts, kernel="7.3", equivalent=False):
        path = self.out / "mutants" / name
        path.mkdir(parents=True)
        rows = [{"name": f"m{n}", "verdict": verdict, "expect": "killed", "files": ["a.c"], "needs": "any",
                 "subject": "s", "why": "", "kills": {"assertion": ["x"]}}
                for n, verdict in enumerate(verdicts.split(), 1)]
        if equivalent:
            rows.append({"name": "e", "verdict": "survived", "expect": "equivalent", "files": ["a.c"],
                         "needs": "any", "subject": "nothing", "why": "It adds a comment.", "kills": {}})
        table = {"kernel": kernel, "date": "2026-01-01", "mutants": rows}
        (path / "table.json").write_text(json.dumps(table))
        return path

    def text(self, fast=False, **more):
        return detection.text([self.suite("ours", "killed killed killed", equivalent=True),
                               self.suite("upstream", "killed crash survived", **more)], fast)

    def test_score(self):
        self.assertIn("\n| all | 3 | 3 | 1 |\n", self.text())

    def test_what_does_not_count(self):
        self.assertIn("this suite: none; upstream: 1 crash, 1 survived", self.text())

    def test_all_runs_were_complete(self):
        self.assertNotIn("FAST=1", self.text())

    def test_runs_were_not_complete(self):
        self.assertIn("FAST=1", self.text(fast=True))

    def test_equivalent(self):
        self.assertIn("\n* **e** (this suite: **survived**, upstream: -): nothing.  It adds a comment.\n",
                      self.text())

    def test_two_kernels(self):
        with self.assertRaisesRegex(LabError, "two kernels, 7.3 and 7.4"):
            self.text(kernel="7.4")

    def test_no_table(self):
        with self.assertRaisesRegex(LabError, "table.json is missing: run 'make mutants' first"):
            detection.text([self.out / "ours", self.out / "upstream"], True)

    def document(self, fast, suites=("ours", "upstream")):
        suffix = "" if fast else "-all"
        for name in suites:
            self.suite(name + suffix, "killed")
        (self.out / "Documentation").mkdir()
        with mock.patch.object(mutants, "TOP", self.out):
            self.assertEqual(0, mutants.main(["detection", "--out", str(self.out), "--fast", str(int(fast))]))
        return (self.out / "Documentation/detection.md").read_text()

    def test_document(self):
        self.assertIn("FAST=1", self.document(True))

    def test_document_with_the_model_test(self):
        text = self.document(True, ("ours", "upstream", "model"))
        self.assertIn("\n| | mutants | this suite | upstream | the model test alone |\n", text)
        self.assertIn("\n| all | 1 | 1 | 1 | 1 |\n", text)

    def test_document_without_the_model_test(self):
        self.assertIn("\n| | mutants | this suite | upstream |\n", self.document(True))

    def test_document_of_complete_runs(self):
        self.assertNotIn("FAST=1", self.document(False))


if __name__ == "__main__":
    unittest.main()
