# SPDX-License-Identifier: GPL-2.0-only
"""make history and make bisect over releases: windows of verdicts, explanations, and the
search.  Results that are made up; nothing is booted here."""

import contextlib
import io
import json
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import history
import releases
from common import LabError
from history import Note

VERSIONS = ["6.1.0-56", "6.12.90", "6.12.118", "6.16.3", "6.18.5", "6.18.15", "7.3.4"]
OOPS = "kvm/x86_64/xfd_test:kernel"


def row(tests, end=""):
    return {"key": "key", "tests": tests, "end": end, "seconds": 1, "cpu": 2}


class Versions(unittest.TestCase):
    def test_order(self):
        self.assertEqual(sorted(reversed(VERSIONS), key=history.order), VERSIONS)

    def test_all_without_a_word(self):
        self.assertEqual(history.choose([], VERSIONS), VERSIONS)

    def test_odd_words(self):
        for word, why in (("6.12..", "is neither a version"), ("..6.12", "is neither a version"),
                          ("6.18..6.12", "the older one comes first"), ("v6.12", "is neither a version"),
                          ("5.10", "the archive has no kernel '5.10'")):
            with self.assertRaisesRegex(LabError, why, msg=word):
                history.choose([word], VERSIONS)

    def test_words(self):
        for words, wanted in ((["6.18.5"], ["6.18.5"]), (["6.18"], ["6.18.5", "6.18.15"]),
                              (["6.1"], ["6.1.0-56"]), (["7.3", "6.16"], ["6.16.3", "7.3.4"]),
                              (["6.12.118..6.18.5"], ["6.12.118", "6.16.3", "6.18.5"]),
                              (["6.12..6.16"], ["6.12.90", "6.12.118", "6.16.3"])):
            self.assertEqual(history.choose(words, VERSIONS), wanted)

    def test_unknown(self):
        for word in ("6.19", "6.1.0", "newest", "7.3..", "..", "6.18.5x"):
            with self.assertRaises(LabError, msg=word):
                history.choose([word], VERSIONS)


class Windows(unittest.TestCase):
    def history(self, *rows, notes=()):
        return history.History(dict(zip(VERSIONS, rows)), list(notes))

    def test_the_same_everywhere_is_no_change(self):
        found = self.history(*[row({"a:one": ["pass", ""]})] * 3)
        self.assertEqual(found.changes(), {})

    def test_a_skip_that_ends(self):
        skip = row({"a:one": ["skip", "no AMX"]})
        found = self.history(skip, skip, row({"a:one": ["pass", ""]}))
        self.assertEqual(found.changes(), {(("6.1.0-56", "6.12.90", "skip", "no AMX"),
                                            ("6.12.118", "6.12.118", "pass", "")): ["a:one"]})
        self.assertEqual(found.bad(), [])

    def test_a_skip_tells_all_its_reasons(self):
        rows = [row({"a:one": found}) for found in (["skip", "no CET"], ["skip", "no AVX"], ["pass", ""])]
        (windows, _), = self.history(*rows).changes().items()
        self.assertEqual(windows[0], ("6.1.0-56", "6.12.90", "skip", "no CET; later no AVX"))

    def test_a_program_that_skips_as_a_whole_stands_for_its_rows(self):
        found = self.history(row({"a:": ["skip", "too old"]}), row({"a:one": ["pass", ""], "a:two": ["pass", ""]}))
        (windows, names), = found.changes().items()
        self.assertEqual((windows[0][2:], names), (("skip", "too old"), ["a:one", "a:two"]))

    def test_the_same_failure_everywhere_is_not_well(self):
        found = self.history(*[row({"a:one": ["fail", ""]})] * 2)
        self.assertEqual([window[:3] for _, window, _ in found.bad()], [("6.1.0-56", "6.12.90", "fail")])

    def test_a_row_that_was_not_come_to(self):
        found = self.history(row({"a:one": ["pass", ""]}), row({"a:kernel": ["fail", "panic"]}))
        self.assertEqual({(name, window[2]) for name, window, _ in found.bad()},
                         {("a:one", "missing"), ("a:kernel", "fail")})

    def test_notes(self):
        note = Note("regression", "b:one a:*", "6.12.118", "6.16", "why")
        bad, good = row({"a:one": ["fail", ""]}), row({"a:one": ["pass", ""]})
        for rows, wanted in (((good, good, bad, bad, good), note), ((good, bad, bad, good), None),
                             ((good, good, bad, bad, bad), None)):
            (_, _, found), = self.history(*rows, notes=[note]).bad()
            self.assertEqual(found, wanted)

    def test_notes_file(self):
        with tempfile.TemporaryDirectory() as tmp:
            path = Path(tmp) / "notes"
            path.write_text("# why\n\nregression\ta:*\t6.16.3\t\t6.18\tan oops\n")
            self.assertEqual(history.read_notes(path), [Note("regression", "a:*", "6.16.3", "6.18", "an oops")])
            for text in ("regression\ta:*\t6.16.3\tan oops\n", "bug\ta\tb\tc\td\n"):
                path.write_text(text)
                with self.assertRaisesRegex(LabError, ":1: not KIND"):
                    history.read_notes(path)

    def test_the_notes_of_the_lab_can_be_read(self):
        history.read_notes()


class Documents(unittest.TestCase):
    def setUp(self):
        self.out = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.out)
        self.notes = [Note("regression", "a:*", "6.12.90", "6.12.90", "It loses a tile.")]

    def write(self, *rows):
        """Status, what is written to stderr, and the two documents."""
        setup = history.Setup(["a"], "spr", {v: "key" for v in VERSIONS[:len(rows)]})
        setup.write(self.out)
        for version, one in zip(VERSIONS, rows):
            history.write_row(self.out, version, one)
        err = io.StringIO()
        with contextlib.redirect_stderr(err), mock.patch("history.read_notes", lambda: self.notes):
            status = history.write_documents(self.out, history.Setup.read(self.out))
        return (status, err.getvalue(), (self.out / "history.md").read_text(),
                json.loads((self.out / "history.json").read_text()))

    def test_explained(self):
        status, err, text, data = self.write(row({"a:one": ["pass", ""], "upstream/b:two": ["pass", ""]}),
                                             row({"a:one": ["fail", ""], "upstream/b:two": ["pass", ""]}))
        self.assertEqual(status, 0, err)
        for words in ("## Regressions", "### 6.12.90\n\nIt loses a tile.", "this suite: `a:one`",
                      "upstream's selftests: do not notice it"):
            self.assertIn(words, text)
        self.assertNotIn("Not explained", text)
        self.assertEqual(data["changes"][0]["windows"][1]["verdict"], "fail")

    def test_explained_and_well(self):
        self.notes.append(Note("regression", "a:one upstream/b:*", "6.12.90", "6.12.90", "It loses another."))
        status, err, _, _ = self.write(row({"a:one": ["pass", ""], "upstream/b:two": ["pass", ""]}),
                                       row({"a:one": ["fail", ""], "upstream/b:two": ["pass", ""]}))
        self.assertEqual(status, 1)
        self.assertIn("explains upstream/b:* from 6.12.90 on, which is well there", err)

    def test_not_explained(self):
        status, err, text, _ = self.write(row({"c:one": ["fail", ""]}))
        self.assertEqual(status, 1)
        self.assertIn("not explained: c:one: 6.1.0-56: not ok", err)
        self.assertIn("## Not explained\n\n* `c:one`: 6.1.0-56: not ok", text)

    def test_a_kernel_that_was_not_run_to_its_end(self):
        status, err, _, _ = self.write(row({}, "the host did not come up"))
        self.assertEqual(status, 1)
        self.assertIn("6.1.0-56: the host did not come up", err)

    def test_results_of_other_kernels_are_not_taken(self):
        self.write(row({"a:one": ["pass", ""]}))
        history.write_row(self.out, VERSIONS[0], {**row({}), "key": "another"})
        self.assertEqual(history.Setup.read(self.out).todo(), [VERSIONS[0]])


class Bisection(unittest.TestCase):
    def search(self, verdicts):
        tried = []

        def step(version):
            tried.append(version)
            return verdicts[version]
        return releases.search(list(verdicts), step), tried

    def test_first_bad(self):
        for first in range(1, 7):
            verdicts = {v: releases.BAD if n >= first else releases.GOOD for n, v in enumerate(VERSIONS)}
            found, tried = self.search(verdicts)
            self.assertEqual(found, (VERSIONS[first - 1], VERSIONS[first], []))
            self.assertLessEqual(len(tried), 3)

    def test_what_cannot_be_told(self):
        verdicts = dict(zip(VERSIONS, [0, 0, 125, 125, 1, 1, 1]))
        found, _ = self.search(verdicts)
        self.assertEqual(found, ("6.12.90", "6.18.5", ["6.12.118", "6.16.3"]))

    def test_neighbours(self):
        self.assertEqual(self.search({"a": 0, "b": 1}), (("a", "b", []), []))

    def test_pick(self):
        for word, wanted in (("6.12", "6.12.118"), ("6.18.5", "6.18.5"), ("6.1.0", "6.1.0-56")):
            self.assertEqual(releases.pick("GOOD", word, VERSIONS), wanted)
        for word, why in (("", "must name a release, or KSRC="), ("v6.12", "is no release"), ("HEAD", "is no release"),
                          ("6.19", "the archive has no such kernel"), ("6.12..", "is no release|no such")):
            with self.assertRaisesRegex(LabError, why, msg=word):
                releases.pick("GOOD", word, VERSIONS)

    def test_folder_of_others_stays(self):
        with tempfile.TemporaryDirectory() as tmp:
            out = Path(tmp) / "bisect"
            releases.clear(out)
            (out / "steps").rename(out / "notes")
            with self.assertRaisesRegex(LabError, "is not of a bisection"):
                releases.clear(out)
            (out / "steps").touch()
            releases.clear(out)
            self.assertEqual([out / "steps"], list(out.iterdir()))

    def test_tags(self):
        packages = {"6.1.0-56": "linux-image-6.1.0-56-cloud-amd64=6.1.192-2",
                    "6.18.5": "linux-image-6.18.5+deb13-cloud-amd64=6.18.5-1~bpo13+1"}
        self.assertEqual([releases.git_tag(v, packages) for v in packages], ["v6.1.192", "v6.18.5"])


if __name__ == "__main__":
    unittest.main()
