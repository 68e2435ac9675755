# SPDX-License-Identifier: GPL-2.0-only
"""make report: the page says what the results say, of whatever there is of them.  Results that
are made up; a browser looks at such a page in tests/slow/webpage.t."""

import contextlib
import html.parser
import io
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import answer
import gather
import grid
import markup
import pages
import webpage
from common import LabError, TOP
from madeup import Made, harness, make_run
from pages import HOSTILE, dump, make_history, make_kselftest, make_matrix, make_mutants, mutant, rows, skipped

VOID = {"meta", "input", "br"}
LOST = f"{grid.PROGRAM}:xstate_perm.guest_amx_cet.xcomp_bv"


class Reader(html.parser.HTMLParser):
    """What a browser would make of a page, as far as a test asks."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.ids, self.hrefs, self.tags, self.open, self.errors, self.words = [], [], [], [], [], []
        self.handlers = []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())
        self.errors += [f"<{name}> is open at the end" for name in self.open]

    def handle_starttag(self, name, attributes):
        found = dict(attributes)
        self.tags.append((name, found))
        self.handlers += [key for key in found if key.startswith("on")]
        if "id" in found:
            self.ids.append(found["id"])
        if name == "a":
            self.hrefs.append(found.get("href"))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.tags.append((name, dict(attributes)))

    def handle_endtag(self, name):
        if not self.open or self.open.pop() != name:
            self.errors.append(f"</{name}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


class Case(unittest.TestCase):
    longMessage = False

    def setUp(self):
        self.out = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.out)

    def page(self, *folders):
        """The page of these folders, as text and as Reader; every page has to be in order."""
        with contextlib.redirect_stderr(io.StringIO()):
            webpage.write([str(f) for f in folders or [self.out]], self.out)
        text = (self.out / "report.html").read_text()
        reader = Reader(text)
        self.assertEqual(reader.errors, [])
        self.assertEqual(len(reader.ids), len(set(reader.ids)))
        self.assertLessEqual({h[1:] for h in reader.hrefs}, set(reader.ids))
        self.assertTrue(all(h.startswith("#") for h in reader.hrefs))
        self.assertEqual([n for n, _ in reader.tags if n in ("img", "iframe", "link", "object", "base")], [])
        self.assertEqual([n for n, _ in reader.tags].count("script"), 1)
        self.assertEqual(reader.handlers, [])
        return text, reader

    def assertIn(self, wanted, where, message=None):
        # Nobody reads a page in a message.
        self.assertTrue(wanted in where, message or f"'{wanted}' is not there")

    def answers(self, *folders):
        found = gather.gather([str(f) for f in folders or [self.out]])
        return {s.question.key: (s.word, " ".join(text for _, text, _ in s.lines))
                for s, _ in answer.answers(found.results)}


class Markup(unittest.TestCase):
    def test_text_is_escaped(self):
        self.assertEqual(markup.tag("b", "<i>", title='"&'), '<b title="&quot;&amp;">&lt;i&gt;</b>')

    def test_markup_is_not(self):
        self.assertEqual(markup.tag("b", markup.tag("i", "x"), None, ["y", [markup.tag("br")]]), "<b><i>x</i>y<br></b>")

    def test_pieces_of_markup_are_text_once_they_are_joined_by_hand(self):
        self.assertEqual(markup.tag("b", "a" + markup.tag("i", "x")), "<b>a&lt;i&gt;x&lt;/i&gt;</b>")

    def test_what_turns_text_round_is_shown_as_such(self):
        self.assertEqual(markup.text("a\u202eb\x1b[31m\0\ud800\n\tc"), "a?b?[31m??\n\tc")

    def test_names_of_places(self):
        ids = markup.Ids()
        self.assertEqual(ids.link("row", "a.b"), "#row-a-b")
        self.assertEqual(ids.lost(), ["row-a-b"])
        self.assertEqual(ids.place("row", "a:b"), "row-a-b-2")
        self.assertEqual(ids.place("row", "a.b"), "row-a-b")
        self.assertEqual(ids.lost(), [])
        self.assertEqual(ids.place("<>"), "x")


class Assertions(unittest.TestCase):
    def test_rows_of_the_grid_are_those_of_the_source(self):
        self.assertEqual(len(grid.cells()), 63)
        for fixture, tests in grid.TESTS.items():
            self.assertEqual(grid.tests(fixture), tests)
        source = (grid.SELFTESTS / f"{grid.PROGRAM}.c").read_text()
        for cell in grid.cells():
            self.assertRegex(source, rf"FIXTURE_VARIANT_ADD\(\w+, {grid.variant(cell)}\)")

    def test_comment_before_the_test(self):
        self.assertRegex(grid.asserts(LOST), "^Verify, on the tracepoint, which components .* for comparison.$")
        self.assertRegex(grid.asserts("x86/xcomp_perm_32:xcomp_perm.options"), "^Verify ")
        self.assertTrue(all(grid.asserts(row) for cell in grid.cells() for row in grid.rows(cell)))

    def test_rows_that_nobody_has(self):
        for row in ("", "a", "a:b", "x86/../../../etc/passwd:a.b", "kvm/x86_64/xstate_perm_test:xstate_perm.x.nothing"):
            self.assertEqual(grid.asserts(row), "")


class Answer(Case):
    def test_all_is_well(self):
        make_history(self.out / "history", {"6.18.9": rows(), "7.2.6": rows(), "7.3.4": rows()})
        said = self.answers()
        self.assertEqual({key: word for key, (word, _) in said.items()}, {"cet": "good", "pasid": "good", "rest": "good"})
        self.assertEqual(said["cet"][1], (
            "On Linux 6.18.9 to 7.3.4 (3 kernels), a guest for which user space requested AMX has CET_USER and "
            "CET_KERNEL in its fpstate and keeps them: 29 rows are ok on each.  But 1 fails in a known way: first "
            "KVM_SET_CPUID2 with AMX drops the fpstate.").replace(".  ", ". "))

    def test_a_row_that_fails(self):
        make_history(self.out / "history", {"7.2.6": rows(), "7.3.4": rows({LOST: ["fail", ""]})})
        for key in ("cet", "pasid", "rest"):
            word, text = self.answers()[key]
            self.assertEqual(word, "bad")
            self.assertRegex(text, r"^On Linux 7\.3\.4 there is 1 result not ok\. On Linux 7\.2\.6, ")
        _, page = self.page()
        self.assertNotIn("all is well", page.text)
        self.assertIn("✗ 1 row not ok somewhere", page.text)
        self.assertIn("✗ Not ok Will CET_USER or CET_KERNEL be dropped", page.text)

    def test_all_fail(self):
        make_history(self.out / "history", {"7.3.4": {row: ["fail", ""] for row in rows()}})
        for word, text in self.answers().values():
            self.assertEqual(word, "bad")
            self.assertRegex(text, "^On Linux 7.3.4 there are [0-9]+ results not ok[.]$")

    def test_nothing_but_skips_answers_nothing(self):
        make_history(self.out / "history", {"7.3.4": {row: ["skip", "no /dev/kvm"] for row in rows()}})
        for word, text in self.answers().values():
            self.assertEqual(word, "untold")
            self.assertRegex(text, "^Nothing can be told on 7.3.4: no /dev/kvm[.]$")
        _, page = self.page()
        self.assertNotIn("✓ No", page.text)
        self.assertEqual(page.text.count("? Not told"), 3)

    def test_old_kernels_cannot_tell_of_guest_cet(self):
        old = rows(skipped("cet_offered", "KVM is older than guest CET"))
        make_history(self.out / "history", {"6.12.90": old, "7.3.4": rows()})
        word, text = self.answers()["cet"]
        self.assertEqual(word, "good")
        self.assertRegex(text, r"^On Linux 7\.3\.4, .* Nothing can be told on 6\.12\.90: KVM is older than guest CET\.$")

    def test_a_cpu_without_pasid(self):
        make_matrix(self.out / "matrix", {("7.3", "spr-nopasid", "none"): (
            rows(skipped("x86/xstate_pasid", "no PASID state on this CPU") |
                 skipped("kvm/x86_64/xstate_pasid_test", "no PASID state on this CPU")), [])})
        self.assertEqual(self.answers()["pasid"][0], "untold")
        self.assertEqual(self.answers()["cet"][0], "good")

    def test_a_program_that_died_has_lost_its_rows(self):
        some = {row: v for row, v in rows().items() if ".both" not in row and ".exec" not in row}
        make_history(self.out / "history", {"7.3.4": some | {grid.PROGRAM + ":kernel": ["fail", "the kernel panicked"]}})
        word, text = self.answers()["cet"]
        self.assertEqual(word, "bad")
        self.assertIn("there are 9 results missing", text)
        _, page = self.page()
        self.assertIn("the kernel panicked", page.text)
        self.assertIn("?7", page.text)

    def test_a_planned_program_without_any_result(self):
        some = {row: v for row, v in rows().items() if not row.startswith(grid.PROGRAM)}
        make_history(self.out / "history", {"7.3.4": some})
        self.assertEqual(self.answers()["cet"][0], "bad")
        self.assertEqual(self.answers()["rest"][0], "bad")

    def test_a_row_that_was_the_only_one_asked_for(self):
        make_kselftest(self.out, {LOST: ["pass", ""]})
        run = json.loads((self.out / "run.json").read_text())
        self.assertEqual(run["planned"], [grid.PROGRAM])
        # Whether that is CET or not: nothing says that the guest had any.
        self.assertEqual(self.answers()["cet"], (
            "untold", "Nothing can be told on 7.3.4-lab: its rows did not run there."))

    def test_an_interrupted_run(self):
        make_kselftest(self.out, rows(), end="interrupted", why="interrupted by a signal")
        _, page = self.page()
        self.assertIn("came to no end: interrupted by a signal", page.text)
        self.assertIn("✗ the run as a whole", page.text)
        self.assertIn("✗ something is not ok", page.text)

    def test_rows_of_a_program_that_ran_again(self):
        row = f"{grid.PROGRAM}:xstate_perm.guest_amx_cet.xss"
        made = Made(f"{grid.PROGRAM}:{LOST.partition(':')[2]},+1", harness(
            f"ok 1 {LOST.partition(':')[2]}", f"not ok 2 {row.partition(':')[2]}"), code=1)
        make_run(self.out, [made], host=True)
        found = gather.gather([self.out]).results[0]
        self.assertEqual((found.verdict(LOST), found.verdict(row)), (["pass", ""], ["fail", ""]))
        self.assertIsNone(found.verdict(f"{grid.PROGRAM}:xstate_perm.none_amx_cet.xss"))

    def test_what_a_signal_cut_short_has_no_result(self):
        why = "the run was interrupted"
        make_run(self.out, [Made("x86/a", harness("ok 1 a.b", "ok 2 a.c")[:-1], code=None, end="died", why=why)],
                 end="interrupted", why=why)
        self.assertEqual(gather.gather([self.out]).results[0].bad(), [("x86/a:kernel", "the run was interrupted")])
        _, page = self.page()
        self.assertIn("? no result: 1 row", page.text)

    def test_spans(self):
        every = [gather.Results("history", k, "spr") for k in ("6.1.0-9", "6.1.0-10", "6.12.9", "6.12.10", "7.3.4")]
        for some, wanted in (([0], "6.1.0-9"), ([1, 0], "6.1.0-9 and 6.1.0-10"), ([0, 1, 2, 3], "6.1.0-9 to 6.12.10 (4 kernels)"),
                             ([0, 2, 4], "6.1.0-9, 6.12.9 and 7.3.4")):
            self.assertEqual(answer.span([every[n] for n in some], every), wanted)
        more = [gather.Results("matrix", "7.3.4", c) for c in ("spr", "ryzen")]
        self.assertEqual(answer.span(more, every + more), "7.3.4, 2 machines")
        self.assertEqual(answer.span(more[1:], every + more), "7.3.4, ryzen")


class Page(Case):
    def test_everything(self):
        pages.everything(self.out)
        text, page = self.page()
        self.assertIn(markup.text(HOSTILE), text)
        self.assertNotIn(HOSTILE, text)
        for wanted in ("XCOMP_BV: wanted 0x1800 got 0x0; lost: CET_USER", "7.2.6: half-written",
                       "1 cell without a result: 7.3+ryzen", "? not run", "Verify, on the tracepoint",
                       "KVM_SET_XSAVE keeps tile data", "loses-pasid", "it hung", "Not explained in lab/history-notes",
                       "ours: 2 of 4 killed", "2 verdicts not as expected"):
            self.assertIn(wanted, page.text)

    def test_the_same_again(self):
        pages.everything(self.out)
        self.assertEqual(self.page()[0], self.page()[0])
        self.assertIn("the newest of 2026-01-01 00:00 UTC", self.page()[0])

    def test_nothing_comes_from_elsewhere(self):
        text, page = self.page(pages.everything(self.out))
        found = {key for _, attributes in page.tags for key in attributes}
        self.assertEqual(found & {"src", "srcset", "action", "poster", "data", "background", "xlink:href"}, set())
        for name in ("style.css", "script.js"):
            code = (TOP / "lab/web" / name).read_text()
            self.assertNotRegex(code, "(?i)https?:|@import|url[(]|fetch|XMLHttp|WebSocket|</")
            self.assertTrue(code in text)
        self.assertTrue("default-src &#x27;none&#x27;" in text)

    def test_a_cell_has_one_drawer_for_all_kernels(self):
        make_history(self.out / "history", {"6.12.90": rows(skipped("cet_offered", "KVM is older than guest CET")),
                                            "7.3.4": rows()})
        text, page = self.page()
        # Beside those of the cells one of a line of the history.
        self.assertEqual(text.count('class="drawer'), 63 + 1)
        self.assertIn("in its way. – skipped 6.12.90 KVM is older than guest CET", page.text)

    def test_verdicts_are_told_by_words_and_signs(self):
        _, page = self.page(pages.everything(self.out))
        for cls in ("pass", "fail", "skip", "xfail", "missing"):
            sign = webpage.SYMBOL[cls]
            self.assertIn(f"{sign} {webpage.WORD[cls]}", page.text)
        labels = [a.get("aria-label") for n, a in page.tags if n == "a" and "aria-label" in a]
        self.assertIn("guest_amx_cet: 1 not ok, 6 ok", labels)

    def test_filters_have_what_they_filter(self):
        _, page = self.page(pages.everything(self.out))
        lines = [a for n, a in page.tags if n == "tr" and "data-verdict" in a]
        self.assertEqual(len(lines), 5)
        for name in ("verdict", "file", "kind", "needs"):
            self.assertTrue(all(f"data-{name}" in line for line in lines))

    def test_time_by_program(self):
        make_kselftest(self.out)
        text, page = self.page()
        self.assertIn("program results seconds", page.text)
        self.assertIn('>1.2<span class="bar"><i class="b-pass" style="width:100.0%">', text)

    def test_a_row_that_two_notes_explain(self):
        row = "x86/xstate_shstk_map_64:xstate_shstk_map.userfaultfd"
        make_history(self.out / "history", {v: rows({row: [verdict, ""]}) for v, verdict in (
            ("6.12.90", "fail"), ("6.12.105", "pass"), ("6.18.5", "fail"), ("7.3.4", "pass"))})
        _, page = self.page()
        self.assertIn("✗ 1 row not ok somewhere, all explained", page.text)
        self.assertNotIn("ot explained", page.text.replace("all explained", ""))

    def test_skips_of_a_cell_are_told_by_row(self):
        whole = {row: v for row, v in rows().items() if not row.startswith(grid.PROGRAM)} | {
            grid.PROGRAM + ":": ["skip", "no AMX on this machine"]}
        make_matrix(self.out / "matrix", {("7.3", "spr", "none"): (rows(), []), ("7.3", "spr-noamx", "none"): (whole, [])})
        _, page = self.page()
        self.assertIn("– 455 skipped 455 × no AMX on this machine", page.text)

    def test_the_reason_of_a_merged_window_is_that_of_the_worst(self):
        found = webpage.Page.merged(["1.1", "1.2"], [[("1.1", "1.1", "skip", "no AMX"), ("1.2", "1.2", "pass", "")],
                                                     [("1.1", "1.2", "fail", "boom")]])
        self.assertEqual(found, [("1.1", "1.2", "fail", "boom")])

    def test_many_lines_are_cut(self):
        lines = webpage.cut([f"{n} " + "x" * 1000 for n in range(1000)])
        self.assertLess(sum(map(len, lines)), 12000)
        self.assertIn("... 960 lines left out ...", lines)

    def test_large_results_make_no_large_page(self):
        many = {f"kvm/x86_64/cet_cp_test:a{n}.b": ["pass", ""] for n in range(1000)}
        make_matrix(self.out / "matrix", {("7.3", "spr", f"p{n}"): (
            rows() | many | {f"{grid.PROGRAM}:xstate_perm.guest_amx_cet.xss": ["fail", str(n)]}, []) for n in range(60)})
        text, page = self.page()
        self.assertLess(len(text), 1500000)
        self.assertIn("54 more tables, of other machines", page.text)


class Leftovers(Case):
    """What is missing, half-written or nothing at all is told, and the rest is shown."""

    def test_no_results(self):
        with self.assertRaisesRegex(LabError, "^no results in .*: run 'make kselftest' first"):
            self.page()
        self.assertFalse((self.out / "report.html").exists())

    def test_no_folder(self):
        with self.assertRaisesRegex(LabError, "^/nowhere is no folder"):
            webpage.write(["/nowhere"], self.out)

    def test_a_folder_within(self):
        pages.everything(self.out / "r")
        for name in ("matrix", "history", "mutants", "mutants/ours"):
            self.page(self.out / "r" / name)

    def test_run_without_its_record(self):
        make_kselftest(self.out)
        make_mutants(self.out / "mutants/ours", [mutant("one")])
        for content in (None, "{", "[]", '{"machines": 7}', '{"machines": [1]}', '{"planned": [1], "machines": [], "cpu": 7}'):
            with self.subTest(content=content):
                (self.out / "run.json").unlink(missing_ok=True)
                if content:
                    (self.out / "run.json").write_text(content)
                _, page = self.page()
                self.assertIn("What is missing", page.text)

    def test_run_without_its_logs(self):
        pages.everything(self.out)
        shutil.rmtree(self.out / "jobs")
        _, page = self.page()
        self.assertIn("is missing", page.text)

    def test_cells_that_are_none(self):
        names = make_matrix(self.out / "matrix", {("7.3", "spr", "none"): (rows(), []), ("7.3", "ryzen", "none"): (rows(), []),
                                                  ("7.3", "nobody", "none"): (rows(), []), ("x", "spr", "none"): (rows(), [])})
        for content in ("", "{", "[]", "null", "\xff\xfe", '{"key": "other"}', '{"key": "key"}',
                        '{"key": "key", "tests": [], "problems": 3, "seconds": "x"}',
                        '{"key": "key", "tests": {"a": 1, "b": ["pass"], "c": ["none", ""], "d:e": ["fail", 7]}, "problems": [1]}',
                        "[" * 100000):
            with self.subTest(content=content[:40]):
                (self.out / "matrix" / f"{names[0]}.json").write_text(content)
                self.page()
        _, page = self.page()
        self.assertIn("half-written", page.text)
        self.assertIn("lab/machines does not know it", page.text)

    def test_programs_that_have_changed(self):
        name, = make_matrix(self.out / "matrix", {("7.3", "spr", "none"): (rows(), [])})
        file = self.out / "matrix" / f"{name}.json"
        row = json.loads(file.read_text())
        file.write_text(json.dumps(row | {"programs": row["programs"] | {grid.PROGRAM: "old"}}))
        make_kselftest(self.out)
        _, page = self.page()
        self.assertIn("or of another kernel, suite or emulator than setup.json: 7.3+spr", page.text)
        self.assertIn("0 of 1 cell have a result", page.text)

    def test_cells_of_an_earlier_matrix(self):
        make_matrix(self.out / "matrix", {("7.3", "spr", "none"): (rows(), [])})
        dump(self.out / "matrix/6.1+spr.json", {"name": "6.1+spr"})
        _, page = self.page()
        self.assertIn('left out, for they are no cells of the last "make matrix": 6.1+spr', page.text)

    def test_setups_that_are_none(self):
        pages.everything(self.out)
        for kind in ("matrix", "history", "mutants/ours"):
            for content in (None, "", "{", "[]", "{}", '{"cells": 3}', '{"keys": {"../x": "key", "nothing": 1}}',
                            '{"cells": [{"name": "../../etc/passwd", "key": "", "kernel": "7.3", "cpu": "spr"}, 3, {"x": 1}]}'):
                with self.subTest(kind=kind, content=content):
                    (self.out / kind / "setup.json").unlink(missing_ok=True)
                    if content is not None:
                        (self.out / kind / "setup.json").write_text(content)
                    _, page = self.page()
                    self.assertIn("What is missing", page.text)

    def test_mutants_without_a_table(self):
        make_mutants(self.out / "mutants/ours", [])
        for name in ("one", "two"):
            dump(self.out / f"mutants/ours/{name}.json", mutant(name))
        (self.out / "mutants/ours/three.json").write_text('{"name": "three"')
        for content in (None, "{", "[]", '{"mutants": 3}', '{"mutants": [1, {"name": "x"}, {"name": "../x", "verdict": "killed"}]}'):
            with self.subTest(content=content):
                (self.out / "mutants/ours/table.json").unlink(missing_ok=True)
                if content:
                    (self.out / "mutants/ours/table.json").write_text(content)
                _, page = self.page()
                self.assertIn("2 of 2 killed", page.text)
                self.assertIn("left out, for they are half-written, or of another kernel, suite or patch: three", page.text)

    def test_mutants_of_another_setup_are_left_out(self):
        make_mutants(self.out / "mutants/ours", [mutant("one")])
        dump(self.out / "mutants/ours/exec-keeps-pkru.json", mutant("exec-keeps-pkru", key="old"))
        _, page = self.page()
        self.assertIn("half-written, or of another kernel, suite or patch: exec-keeps-pkru", page.text)
        self.assertNotIn("exec-keeps-pkru is broken", page.text)


class Command(Case):
    def command(self, *arguments, **variables):
        done = subprocess.run([TOP / "lab/webpage", *arguments], capture_output=True, text=True, timeout=60,
                              env={"PATH": os.environ["PATH"], **variables})
        return done.returncode, done.stdout, done.stderr

    def test_make_report(self):
        pages.everything(self.out)
        done = subprocess.run(["make", "-s", "-C", TOP, "report", f"O={self.out}"], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertRegex(done.stderr, r"^lab: .*/report.html: 0\.\d MB, .* rows not ok somewhere, .*\n$")

    def test_other_folders(self):
        pages.everything(self.out / "a")
        make_history(self.out / "b", {"7.3.4": rows()})
        status, _, said = self.command(O=str(self.out / "new"), REPORT_FROM=f"{self.out}/a {self.out}/b")
        self.assertEqual(status, 0, said)
        self.assertIn("Linux 7.3.4", (self.out / "new/report.html").read_text())

    def test_bad_input(self):
        for arguments, wanted in (((), "lab: out-of-nowhere is no folder: name one"), (("x y",), "lab: x y is no folder")):
            status, _, said = self.command(*arguments, O="out-of-nowhere")
            self.assertEqual(status, 1)
            self.assertRegex(said, f"^{wanted}.*\n$")
        self.assertFalse((TOP / "out-of-nowhere").exists())


if __name__ == "__main__":
    unittest.main()
