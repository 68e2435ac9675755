# SPDX-License-Identifier: GPL-2.0-only
"""README.md and Documentation/: links land, files that are named are there, and README.md is
what a reader takes in at a glance."""

import re
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runs                         # finds lab/py
from common import TOP

assert runs.TOP == TOP

LINK = re.compile(r"\[[^][]*\]\(([^()\s]+)\)|^\[[^][]+\]: (\S+)", re.M)
# A file or folder of this repository, in code; capitals and dots stand for something.
NAMED = re.compile(r"`((?:lab|tests|tools|Documentation)/[a-z0-9_./-]+)(?: [^`]*)?`")


def pages():
    return [TOP / "README.md", *sorted((TOP / "Documentation").rglob("*.md"))]


def links(text):
    """Targets of links that stay here, without what they point at there."""
    found = [a or b for a, b in LINK.findall(re.sub(r"(?m)^\t.*", "", text))]
    return [target.partition("#")[0] for target in found if not re.match(r"[a-z]+:|#", target)]


def broken(page, text):
    return [target for target in links(text) if not (page.parent / target).exists()]


def missing(text):
    return [name for name in NAMED.findall(text)
            if not (TOP / name).exists() and not name.startswith("tools/testing/kunit") and ".." not in name]


class Documents(unittest.TestCase):
    def test_links_land(self):
        for page in pages():
            with self.subTest(page.name):
                self.assertEqual(broken(page, page.read_text()), [])

    def test_files_that_are_named_are_there(self):
        for name in ("README.md", "Documentation/lab.md", "Documentation/howto.md", "Documentation/own.md",
                     "Documentation/suite.md", "Documentation/ci.md", "Documentation/mutants.md"):
            with self.subTest(name):
                self.assertEqual(missing((TOP / name).read_text()), [])

    def test_every_page_is_reached_from_the_first(self):
        todo, seen = [TOP / "README.md"], set()
        while todo:
            page = todo.pop()
            if page in seen or page.suffix != ".md" or not page.exists():
                continue
            seen.add(page)
            todo += [(page.parent / target).resolve() for target in links(page.read_text())]
        self.assertEqual(sorted(p.name for p in set(pages()) - seen), [])

    def test_first_page_is_short(self):
        lines = subprocess.run(["expand", TOP / "README.md"], stdout=subprocess.PIPE, text=True, check=True,
                               timeout=60).stdout.splitlines()
        self.assertLessEqual(len(lines), 75)
        self.assertEqual([line for line in lines if len(line) > 80], [])

    def test_each_thing_to_add_takes_two_files(self):
        text = (TOP / "Documentation/howto.md").read_text()
        parts = re.split(r"(?m)^## ", text)[1:]
        self.assertEqual(len(parts), 8)
        for part in parts:
            with self.subTest(part.split("\n")[0]):
                steps = re.findall(r"(?m)^(\d)\. ", part)
                self.assertIn(steps, (["1"], ["1", "2"]))

    def test_faults_are_found(self):
        self.assertEqual(broken(TOP / "README.md", "[a](COPYING) [b](none.md#x) [c](https://x) [d](#e)\n\t[f](g)\n"
                                "[1]: lab/none\n"), ["none.md", "lab/none"])
        self.assertEqual(missing("`lab/run -h` `lab/none` `tests/NAME.t` lab/other"), ["lab/none"])


if __name__ == "__main__":
    unittest.main()
