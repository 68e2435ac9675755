# SPDX-License-Identifier: GPL-2.0-only
"""make matrix: each cell has to reach the assertions that its kernel, CPU and parameter
make possible; nothing that did not run passes.  Results that are made up; nothing is
booted here."""

import contextlib
import io
import lzma
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import host
import matrix
import record
from common import TOP, LAB, LabError
from machines import Machines
from madeup import Made, harness, make_run

PROGRAM = "kvm/x86_64/cet_fpstate_test"
# Of a program with two tests; the second one needs AMX.
ONE = "ok 1 cet_fpstate.none_noamx_cet.reset"
TWO = "ok 2 cet_fpstate.guest_amx_cet.reset"
OTHER = "x86/xcomp_perm_64"
PROGRAMS = {name: "hash" for name in (PROGRAM, OTHER, "x86/a", f"{PROGRAM}:guest_amx_cet.reset")}
NO_AMX = " # SKIP no AMX on this machine"


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp)
        self.out = self.tmp / "matrix"
        self.out.mkdir()
        self.cells = []

    def call(self, function, *arguments):
        """Its result, stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return function(*arguments), out.getvalue(), err.getvalue()

    def add(self, kernel, cpu, parameter="none", key="key"):
        cell = matrix.new_cell(key, kernel, cpu, parameter)
        self.cells.append(cell)
        programs = {kernel: PROGRAMS for kernel in {c.kernel for c in self.cells}}
        matrix.Setup(["kvm"], self.cells, 1, programs).write(self.out)
        return cell

    def cell(self, kernel, cpu, parameter, lines, code=0, program=PROGRAM, **more):
        """A cell whose program prints these lines; returns its row."""
        cell = self.add(kernel, cpu, parameter)
        run = make_run(self.out / cell.name, [Made(program, lines, code)], **more)
        return self.call(matrix.judge, self.out, cell, run, PROGRAMS)[1]

    def table(self, status, *texts):
        """The exit status, and what table or report must say."""
        got, out, err = self.call(matrix.main, ["table", self.out])
        for text in texts:
            self.assertIn(text, out + err)
        self.assertEqual(status, got, out + err)
        return out + err


class Cells(Case):
    def test_row(self):
        self.assertEqual("7.3+spr: 2 pass, 0 skip, 0 xfail [5 s]\n",
                         self.cell("7.3", "spr", "none", harness(ONE, TWO)))

    def test_all_asserted(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO))
        self.table(0, "| 7.3+spr | 2 | 0 | 0 | 0 | 2 | 2 | 5 |\n",
                   "lab: 1 of 1 cells, 2 tests, all is well\n")
        self.assertIn("| 7.3+spr | 2 |", (self.out / "table.md").read_text())
        self.assertEqual("", (self.out / "problems").read_text())

    def test_done_is_not_run_again(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO))
        self.assertEqual([], matrix.Setup.read(self.out).todo())

    def test_run_again_if_something_has_changed(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO))
        self.cells.clear()
        self.add("7.3", "spr", key="other")
        self.assertEqual(["7.3+spr"], matrix.Setup.read(self.out).todo())
        self.table(1, "7.3+spr: not done")

    def test_run_again_after_a_failure(self):
        self.cell("7.3", "spr", "none", harness(ONE, f"not {TWO}"), 1)
        self.assertEqual(["7.3+spr"], matrix.Setup.read(self.out).todo())

    def test_failure(self):
        self.cell("7.3", "spr", "none", harness(ONE, f"not {TWO}"), 1)
        self.table(1, f"lab: 7.3+spr: not ok: {PROGRAM}:cet_fpstate.guest_amx_cet.reset\n",
                   "| 1 | 0 | 0 | 1 | 1 | 2 (!) |")

    def test_expected_failure_is_an_assertion(self):
        self.cell("7.3", "spr", "none", harness(ONE, f"{TWO} # XFAIL known"))
        self.table(0, "| 7.3+spr | 1 | 1 | 0 | 0 | 2 | 2 |")

    def test_warning_of_the_kernel(self):
        cell = self.add("7.3", "spr")
        run = make_run(self.out / cell.name, [Made(PROGRAM, harness(ONE, TWO), kernel=["WARNING: x at y"])])
        self.call(matrix.judge, self.out, cell, run, PROGRAMS)
        self.table(1, f"7.3+spr: not ok: {PROGRAM}: the kernel: WARNING: x at y")

    def test_warning_at_boot(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO), boot=["WARNING: x at y"])
        self.table(1, "7.3+spr: kernel: WARNING: x at y")

    def test_run_that_did_not_end(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO), end="limit", why="the limit of 9 s")
        self.table(1, "7.3+spr: the run: the limit of 9 s")

    def test_missing_test(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO))
        self.cell("7.2", "spr", "none", harness(ONE))
        self.table(1, f"7.2+spr: no result: {PROGRAM}:cet_fpstate.guest_amx_cet.reset")

    def test_nothing_ran(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO))
        cell = self.add("7.2", "spr")
        (self.out / cell.name).mkdir()
        self.call(matrix.judge, self.out, cell, record.Run(self.out / cell.name), PROGRAMS)
        self.table(1, "7.2+spr: ", "run.json is missing")

    def test_no_cell(self):
        matrix.Setup(["kvm"], []).write(self.out)
        self.table(1)

    def test_no_folder_of_results(self):
        with self.assertRaisesRegex(LabError, "setup.json is missing .*: run 'make matrix' first"):
            matrix.table(self.out)

    def test_many_problems(self):
        names = [f"ok {n} x.t{n} # SKIP no AVX" for n in range(1, 8)]
        self.cell("7.3", "spr", "none", harness(*names, "ok 8 x.t8"))
        text = self.table(1, "lab: 7.3+spr: ... and 2 more, see ")
        self.assertEqual(6, text.count("lab: 7.3+spr: "))
        self.assertEqual(7, len((self.out / "problems").read_text().splitlines()))


class Skips(Case):
    def test_where_the_cpu_lacks_it(self):
        self.cell("7.3", "skylake-x", "none", harness(ONE, TWO + NO_AMX))
        self.table(0, "| 7.3+skylake-x | 1 | 0 | 1 | 0 | 1 | 1 |")

    def test_where_the_cpu_has_it(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO + NO_AMX))
        self.table(1, f"7.3+spr: skipped although all is there: {PROGRAM}:cet_fpstate.guest_amx_cet.reset "
                   "(no AMX on this machine)", "| 1 | 0 | 1 | 1 | 1 | 2 (!) |")

    def test_where_a_parameter_takes_it_away(self):
        self.cell("7.3", "spr", "noxsaves", harness(ONE, TWO + NO_AMX))
        self.table(0, "| 7.3+spr+noxsaves | 1 | 0 | 1 | 0 |")

    def test_without_a_reason(self):
        self.cell("6.1", "spr", "none", harness(f"{ONE} # SKIP", TWO))
        self.table(1, f"skipped without a reason: {PROGRAM}:cet_fpstate.none_noamx_cet.reset\n")

    def test_for_an_unknown_reason(self):
        self.cell("7.3", "skylake-x", "none", harness(ONE, f"{TWO} # SKIP not in the mood"))
        self.table(1, "skipped for a reason that lab/machines does not know: "
                   f"{PROGRAM}:cet_fpstate.guest_amx_cet.reset (not in the mood)")

    def test_for_more_than_a_known_reason(self):
        self.cell("7.3", "skylake-x", "none", harness(ONE, f"{TWO}{NO_AMX} today"))
        self.table(1, "skipped for a reason that lab/machines does not know: ")

    def test_what_no_machine_of_the_lab_lacks(self):
        self.cell("7.3", "skylake-x", "none", harness(ONE, f"{TWO} # SKIP no AVX"))
        self.table(1, "skipped although all is there: ")

    def test_one_of_several_features(self):
        both = f"{TWO} # SKIP cannot tell: no EPT or no unrestricted guest"
        self.cell("7.3", "spr", "kvm_intel.ept=0", harness(ONE, both))
        self.cell("7.3", "spr", "kvm_intel.unrestricted_guest=0", harness(ONE, both))
        self.table(0)

    def test_several_features_that_are_all_there(self):
        self.cell("7.3", "spr", "none", harness(ONE, f"{TWO} # SKIP cannot tell: no EPT or no unrestricted guest"))
        self.table(1, "skipped although all is there: ")

    def test_program_as_a_whole(self):
        self.cell("7.3", "spr", "none", harness(ONE, TWO))
        self.cell("7.2", "spr", "none", ["1..0 # SKIP no /dev/kvm"], 4)
        self.table(1, f"7.2+spr: skipped although all is there: {PROGRAM}:cet_fpstate.guest_amx_cet.reset "
                   "(no /dev/kvm)")

    def test_program_as_a_whole_that_may(self):
        """Its tests are those that other cells know."""
        self.cell("7.3", "spr", "none", harness(ONE, TWO))
        cell = self.add("6.1", "spr")
        run = make_run(self.out / cell.name, [
            Made(PROGRAM, ["1..0 # SKIP libkvm needs KVM_SET_USER_MEMORY_REGION2"], 4),
            Made("x86/xcomp_perm_64", harness("ok 1 masks"))])
        self.call(matrix.judge, self.out, cell, run, PROGRAMS)
        # The other program is new to the first cell.
        self.table(1, "7.3+spr: no result: x86/xcomp_perm_64:masks", "| 6.1+spr | 1 | 0 | 2 | 0 | 1 | 1 |")

    def test_one_test_of_a_program(self):
        """The name of the program has a colon then."""
        program = f"{PROGRAM}:guest_amx_cet.reset"
        self.cell("7.3", "spr", "none", harness("ok 1 cet_fpstate.guest_amx_cet.reset"), program=program)
        cell = self.add("6.1", "spr")
        lines = ["1..0 # SKIP libkvm needs KVM_SET_USER_MEMORY_REGION2"]
        run = make_run(self.out / cell.name, [Made(program, lines, 4), Made("x86/a", harness("ok 1 a"))])
        self.call(matrix.judge, self.out, cell, run, PROGRAMS)
        self.table(1, "| 6.1+spr | 1 | 0 | 1 | 0 | 1 | 1 |")

    def test_program_whose_tests_nobody_knows(self):
        cell = self.add("7.3", "spr")
        run = make_run(self.out / cell.name, [Made(PROGRAM, ["1..0 # SKIP no /dev/kvm"], 4),
                                              Made("x86/xcomp_perm_64", harness("ok 1 masks"))])
        self.call(matrix.judge, self.out, cell, run, PROGRAMS)
        self.table(1, f"7.3+spr: skipped although all is there: {PROGRAM} (no /dev/kvm)",
                   "| 7.3+spr | 1 | 0 | 0 | 1 | 1 | 1 (!) |")

    def test_libkvm_without_sysfs(self):
        """In the words of two versions of libkvm."""
        file = "/sys/module/kvm/parameters/force_emulation_prefix"
        none = "No such file or directory"
        known = Machines()
        for text in (f"Cannot open '{file}': {none}.", f"Cannot open {file}: {none}"):
            self.assertEqual({"sysfs"}, known.reason(text).features)
        self.assertIsNone(known.reason("Cannot open '/dev/sev': No such file or directory."))


class Reasons(Case):
    """What the rules by names of tests used to say, by the reasons of the tests."""

    def excused(self, reason, kernel, cpu, parameter="none"):
        known = Machines()
        return not known.reason(reason).features <= known.features(kernel, cpu, parameter)

    def check(self, reason, *cells):
        """Excused in each of cells, and not where all is there."""
        self.assertFalse(self.excused(reason, "7.3", "spr-smp"))
        for cell in cells:
            self.assertTrue(self.excused(reason, *cell), cell)

    def test_libkvm(self):
        self.check("libkvm needs KVM_SET_USER_MEMORY_REGION2", ("6.1", "spr"))
        self.assertFalse(self.excused("libkvm needs KVM_SET_USER_MEMORY_REGION2", "6.12", "spr"))

    def test_amx(self):
        self.check("no AMX on this machine", ("7.3", "spr-noamx"), ("7.3", "ryzen"), ("7.3", "spr-noxsaves"),
                   ("7.3", "spr", "noxsaves"))

    def test_guest_cet(self):
        self.check("KVM offers no guest CET", ("6.12", "spr"), ("7.3", "spr-nocet"), ("7.3", "spr-noshstk"),
                   ("7.3", "skylake-x"), ("7.3", "spr", "kvm_intel.cet=0"), ("7.3", "spr", "kvm_intel.ept=0"),
                   ("7.3", "spr", "kvm_intel.unrestricted_guest=0"),
                   ("7.3", "spr", "kvm_intel.allow_smaller_maxphyaddr=1"), ("7.3", "spr", "noxsaves"))
        self.assertFalse(self.excused("KVM offers no guest CET", "7.3", "spr-noibt"))

    def test_guest_ibt(self):
        self.check("KVM offers no guest IBT", ("7.3", "spr-noibt"), ("6.12", "spr"), ("7.3", "spr-noshstk"))

    def test_user_shstk(self):
        for reason in ("no user shadow stacks", "no shadow stacks for user space"):
            self.check(reason, ("6.1", "spr"), ("7.3", "spr-noshstk"), ("7.3", "spr", "noxsaves"))

    def test_nested(self):
        self.check("KVM offers no VMX to guests", ("7.3", "ryzen"))
        self.assertTrue(self.excused("KVM offers no SVM to guests", "7.3", "spr"))
        self.assertFalse(self.excused("KVM offers no SVM to guests", "7.3", "ryzen-cet"))

    def test_root(self):
        for reason in ("needs root", "no /dev/cpu/N/msr", "cannot read MSRs of the host", "no userfaultfd"):
            self.check(reason, ("7.3", "spr", "lab.user=1000"))

    def test_tracefs(self):
        self.check("no tracefs, or no permission to use it", ("7.3", "spr", "lab.user=1000"),
                   ("7.3", "spr", "lab.without=tracefs"), ("7.3", "spr", "lab.without=sys"))

    def test_parameters_of_kvm(self):
        self.check("ignore_msrs hides what is refused", ("7.3", "spr", "kvm.ignore_msrs=1"))

    def test_cet_offered(self):
        self.check("KVM is older than guest CET", ("6.12", "spr"))
        self.check("cannot tell: no EPT or no unrestricted guest", ("7.3", "spr", "kvm_intel.ept=0"),
                   ("7.3", "spr", "kvm_intel.unrestricted_guest=0"), ("7.3", "spr", "lab.without=sys"))

    def test_one_reg(self):
        self.check("no KVM_CAP_ONE_REG", ("6.12", "spr"))

    def test_ptrace_and_core_dumps(self):
        self.check("ptrace is forbidden", ("7.3", "spr", "sysctl.kernel.yama.ptrace_scope=3"))
        self.check("core dumps are limited", ("7.3", "spr", "lab.without=core"))

    def test_one_cpu(self):
        self.check("one CPU only", ("7.3", "spr"))

    def test_pasid_and_keys(self):
        self.check("no PASID state on this CPU", ("7.3", "spr-nopasid"), ("7.3", "tigerlake"))
        self.check("no protection keys", ("7.3", "spr-nopku"), ("7.3", "spr", "nopku"))

    def test_misspelt_feature(self):
        path = self.tmp / "machines"
        path.write_text((LAB / "machines").read_text() + "reason amxx: no AMXX\n")
        with self.assertRaisesRegex(LabError, "reason 'no AMXX': no machine has a feature 'amxx'"):
            Machines(path)

    def test_added_features(self):
        path = self.tmp / "machines"
        path.write_text("kernels 7.3\nmodel old svm\nmodel new svm a b\ntakes b b\ngives x a b c\n"
                        "cpu plain 1 old\ncpu more 2 old +x,+y quiet\ncpu both 1 new b,+y\n")
        cpus = Machines(path).cpus
        self.assertEqual({"svm"}, cpus["plain"].has)
        self.assertEqual({"svm", "smp", "a", "b", "c"}, cpus["more"].has)
        self.assertEqual((["x", "y"], [], "quiet"), (cpus["more"].added, cpus["more"].without, cpus["more"].options))
        self.assertEqual({"svm", "a"}, cpus["both"].has)
        self.assertEqual((["y"], ["b"]), (cpus["both"].added, cpus["both"].without))

    def test_amd(self):
        machines = Machines()
        has = machines.features("7.3", "ryzen-cet")
        self.assertLessEqual({"svm", "xsaves", "avx512", "pku", "shstk", "user_shstk", "guest_cet", "guest_shstk"}, has)
        self.assertFalse({"vmx", "ibt", "guest_ibt", "amx", "pasid"} & has)
        self.assertNotIn("guest_cet", machines.features("6.12", "ryzen-cet"))
        self.assertNotIn("xsaves", machines.features("7.3", "ryzen"))

    def test_kernels_of_the_lab(self):
        """Each has its options, and what it has excuses no test on it."""
        for name, features in Machines().builds.items():
            self.assertTrue((LAB / f"kernel/{name}.config").exists(), name)
            self.assertTrue(features, name)
        self.assertTrue(self.excused("no fault injection in this kernel", "7.3", "spr"))

    def test_reason_without_features(self):
        path = self.tmp / "machines"
        for bad in ("reason : no AMXX", "reason no AMXX", "reason amx:"):
            path.write_text((LAB / "machines").read_text() + bad + "\n")
            with self.assertRaisesRegex(LabError, f"what is '{bad}'"):
                Machines(path)


class One(Case):
    """A job, with a run that is made up."""

    def one(self, runs, parameter="none", **setup):
        cell = self.add("7.3", "spr", parameter)
        if setup:
            matrix.Setup(["kvm"], self.cells, programs={"7.3": PROGRAMS}, **setup).write(self.out)
        self.left = list(runs)

        def run(options):
            self.options = options
            for name in ("boot", "jobs"):
                shutil.rmtree(options.out / name, ignore_errors=True)
            found = self.left.pop(0)
            if isinstance(found, LabError):
                raise found
            return make_run(options.out, found)

        with mock.patch.object(host, "run", run), \
                mock.patch.object(matrix.suite, "build", lambda series: Path("/built")), \
                mock.patch.object(matrix.suite, "select", lambda tests, built: []):
            status, out, _ = self.call(matrix.main, ["one", self.out, cell.name])
        self.assertEqual(0, status)
        return out

    good = [Made(PROGRAM, harness(ONE, TWO))]

    def test_good(self):
        self.assertEqual("7.3+spr: 2 pass, 0 skip, 0 xfail [5 s]\n", self.one([self.good]))
        self.assertTrue((self.out / "7.3+spr/report.ktap").exists())
        self.assertEqual(("7.3", "spr", "", 1), (self.options.kernel, self.options.cpu, self.options.params,
                                                 self.options.parallel))
        self.table(0)

    def test_parameter_of_a_module(self):
        self.one([self.good], "kvm_intel.ept=0")
        self.assertEqual("kvm_intel.ept=0", self.options.params)
        self.assertNotIn("ept", self.options.append)

    def test_parameters_of_modules_at_once(self):
        self.one([self.good], "kvm_intel.ept=0,kvm.ignore_msrs=1")
        self.assertEqual("kvm_intel.ept=0 kvm.ignore_msrs=1", self.options.params)
        self.assertNotIn("ept", self.options.append)

    def test_word_with_commas(self):
        self.one([self.good], "clearcpuid=avx,pku")
        self.assertEqual("", self.options.params)
        self.assertTrue(self.options.append.endswith(" clearcpuid=avx,pku"))
        self.assertEqual("7.3+spr+clearcpuid=avx+pku", self.options.out.name)

    def test_word_of_the_command_line(self):
        self.one([self.good], "nopku")
        self.assertEqual("", self.options.params)
        self.assertTrue(self.options.append.endswith(" nopku"))

    def test_cell_alone(self):
        self.one([self.good], parallel=0)
        self.assertEqual(0, self.options.parallel)

    def test_stall_is_tried_again(self):
        self.one([[Made(PROGRAM, [], None, end="stall", why="it stood still")], self.good])
        self.table(0)

    def test_stall_twice(self):
        stalled = [Made(PROGRAM, [], None, end="stall", why="it stood still")]
        self.assertIn("; 1 problems: ", self.one([stalled, stalled]))
        self.table(1, f"not ok: {PROGRAM}: it stood still")

    def test_nothing_could_be_started(self):
        self.assertEqual("7.3+spr: no emulator\n", self.one([LabError("no emulator")]))
        self.table(1, "7.3+spr: no emulator")

    def test_no_such_cell(self):
        self.add("7.3", "spr")
        with self.assertRaisesRegex(LabError, "there is no cell '7.4\\+spr'"):
            matrix.main(["one", self.out, "7.4+spr"])


class Again(Case):
    """What is run again of a cell, and what stays."""

    def first(self, *programs, **more):
        """A cell that has run these, of PROGRAM and OTHER; returns it as it is read later."""
        cell = self.add("7.3", "spr")
        self.programs = {PROGRAM: "one", OTHER: "two"}
        run = make_run(self.out / cell.name, programs, **more)
        self.call(matrix.judge, self.out, cell, run, self.programs)
        return self.read(self.programs)

    def read(self, programs):
        self.programs = programs
        matrix.Setup(["kvm"], self.cells, 1, {"7.3": programs}).write(self.out)
        return matrix.Setup.read(self.out).cells[0]

    def again(self, cell, *programs):
        """The row, once these have run again."""
        shutil.rmtree(self.out / cell.name)
        self.call(matrix.judge, self.out, cell, make_run(self.out / cell.name, programs), self.programs)
        return self.read(self.programs)

    good = Made(PROGRAM, harness(ONE, TWO)), Made(OTHER, harness("ok 1 masks"))

    def test_nothing(self):
        cell = self.first(*self.good)
        self.assertEqual(([], 3), (cell.todo, len(cell.row["tests"])))

    def test_a_program_that_has_changed(self):
        self.first(*self.good)
        cell = self.read({PROGRAM: "one", OTHER: "new"})
        self.assertEqual(([OTHER], None), (cell.todo, cell.row))
        cell = self.again(cell, Made(OTHER, harness("ok 1 other")))
        self.assertEqual({f"{PROGRAM}:cet_fpstate.none_noamx_cet.reset",
                          f"{PROGRAM}:cet_fpstate.guest_amx_cet.reset", f"{OTHER}:other"}, set(cell.row["tests"]))
        self.assertEqual(([], []), (cell.todo, cell.row["problems"]))

    def test_a_program_that_is_new(self):
        self.first(*self.good)
        self.assertEqual(["x86/a"], self.read({**self.programs, "x86/a": "three"}).todo)

    def test_a_program_that_has_gone(self):
        self.first(*self.good)
        cell = self.read({OTHER: "two"})
        self.assertEqual(([], [f"{OTHER}:masks"]), (cell.todo, list(cell.row["tests"])))

    def test_a_program_that_has_failed(self):
        cell = self.first(self.good[0], Made(OTHER, harness("not ok 1 masks"), 1))
        self.assertEqual([OTHER], cell.todo)
        self.assertEqual([f"not ok: {OTHER}:masks"], cell.row["problems"])
        cell = self.again(cell, self.good[1])
        self.assertEqual(([], []), (cell.todo, cell.row["problems"]))
        self.table(0, "| 7.3+spr | 3 |")

    def test_it_fails_again(self):
        bad = Made(OTHER, harness("not ok 1 masks"), 1)
        cell = self.again(self.first(self.good[0], bad), bad)
        self.assertEqual([OTHER], cell.todo)
        self.table(1, f"not ok: {OTHER}:masks", "| 7.3+spr | 2 |")

    def test_all_of_it_if_the_run_was_not_well(self):
        for more in ({"end": "limit", "why": "the limit of 9 s"}, {"boot": ["WARNING: x at y"]}):
            with self.subTest(more):
                self.assertEqual([PROGRAM, OTHER], self.first(*self.good, **more).todo)
                shutil.rmtree(self.out / "7.3+spr")
                self.cells.clear()

    def test_one_that_skips_beside_one_that_ran(self):
        skips = Made(OTHER, ["1..0 # SKIP no /dev/kvm"], 4)
        cell = self.again(self.first(self.good[0], Made(OTHER, harness("not ok 1 masks"), 1)), skips)
        self.assertEqual([], cell.row["problems"])

    def test_another_machine(self):
        self.first(*self.good)
        self.cells.clear()
        self.add("7.3", "spr", key="other")
        cell = self.read(self.programs)
        self.assertEqual(([PROGRAM, OTHER], None, None), (cell.todo, cell.row, cell.old))


class Choice(Case):
    """Which cells there are."""

    def options(self, **variables):
        with mock.patch.dict(os.environ, {"O": str(self.tmp), **variables}):
            options = matrix.parser().parse_args([])
        matrix.complete(options, Machines())
        return options

    def test_all(self):
        o, known = self.options(), Machines()
        self.assertEqual([*known.kernels, "newest"], o.kernels)
        self.assertEqual(list(known.cpus), o.cpus)
        self.assertEqual(list(known.parameters), o.params)
        self.assertEqual(["6.12", known.newest], o.params_on)
        self.assertEqual(["kvm", "x86"], o.tests)

    def test_no_parameters_if_kernels_are_given(self):
        self.assertEqual([], self.options(KERNELS="6.12").params)

    def test_parameters_on_the_kernels_that_are_given(self):
        o = self.options(KERNELS="7.2", PARAMS="nopku noxsaves")
        self.assertEqual((["nopku", "noxsaves"], ["7.2"]), (o.params, o.params_on))

    def test_none(self):
        self.assertEqual([], self.options(PARAMS="none").params)

    def test_all_can_be_given(self):
        words = list(Machines().parameters)
        self.assertEqual(words, self.options(PARAMS=" ".join(words)).params)

    def find(self, **variables):
        kernel = self.tmp / "kernel"
        module = kernel / "modules/kernel/arch/x86/kvm"
        module.mkdir(parents=True, exist_ok=True)
        (kernel / "version").write_text("7.3.4+deb13\n")
        (module / "kvm-intel.ko.xz").write_bytes(lzma.compress(b"\0parmtype=ept:bool\0"))
        with mock.patch.object(matrix, "script", lambda *words: str(kernel)), \
                mock.patch.object(matrix.suite, "build", lambda series: Path("/built")), \
                mock.patch.object(matrix.suite, "select", lambda tests, built: []), \
                mock.patch.object(matrix.host, "emulator_name", lambda cpu: f"bochs-{cpu.kind}"):
            return matrix.find_cells(self.options(**variables), Machines())

    def test_names(self):
        found, _ = self.find(KERNELS="7.3", CPUS="spr ryzen", PARAMS="nopku kvm_intel.ept=0 kvm_intel.cet=0")
        self.assertEqual(["7.3+spr", "7.3+ryzen", "7.3+spr+nopku", "7.3+spr+kvm_intel.ept=0"],
                         [cell.name for cell in found])
        self.assertEqual(4, len({cell.key for cell in found}))

    def test_one_kernel_by_two_names(self):
        self.assertEqual(["7.3+spr"], [c.name for c in self.find(KERNELS="7.3 newest", CPUS="spr")[0]])

    def test_key_has_the_cpu(self):
        """A CPU that is made up anew by the same name is another one."""
        path = self.tmp / "machines"
        text = (LAB / "machines").read_text()
        keys = set()
        for line in ("cpu new 1 tigerlake", "cpu new 1 tigerlake pku", "cpu new 2 tigerlake",
                     "cpu new 1 sapphire_rapids", "cpu new 1 tigerlake - nokaslr"):
            path.write_text(f"{text}{line}\n")
            with mock.patch.object(matrix.host, "emulator_name", lambda cpu: f"bochs-{cpu.kind}"):
                keys.add(matrix.cell_key(["base"], Machines(path).cpu("new"), "none"))
        self.assertEqual(5, len(keys))

    def test_keys_stay(self):
        first, second = ([c.key for c in self.find(KERNELS="7.3", CPUS="spr")[0]] for _ in range(2))
        self.assertEqual(first, second)


class Refusals(Case):
    """Bad input ends lab/matrix in one line, before it writes anything."""

    def refuses(self, text, **variables):
        done = subprocess.run([LAB / "matrix"], cwd=TOP, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=60, check=False, text=True,
                              env={**os.environ, "O": str(self.tmp / "O"), **variables})
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertEqual(1, len(done.stderr.splitlines()), done.stderr)
        self.assertTrue(done.stderr.startswith(f"lab: {text}"), done.stderr)
        self.assertFalse((self.tmp / "O").exists())

    def test_no_such_cpu(self):
        self.refuses("CPUS: no CPU 'z80': there are spr", CPUS="z80")

    def test_no_kernel(self):
        self.refuses("KERNELS: 'latest' is no series", KERNELS="latest")

    def test_no_parameter(self):
        self.refuses("PARAMS: 'a;b' is no parameter", PARAMS="a;b")

    def test_no_number(self):
        self.refuses("JOBS='0' is no number", JOBS="0")


if __name__ == "__main__":
    unittest.main()
