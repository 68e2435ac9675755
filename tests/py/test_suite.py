# SPDX-License-Identifier: GPL-2.0-only
"""When a program counts as changed."""

import subprocess
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import suite
from common import LabError

PLAIN = "int main(void)\n{\n\treturn 1;\n}\n"


class Programs(unittest.TestCase):

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.tmp = Path(tmp.name)

    def make(self, folder, text):
        (self.tmp / folder).mkdir(exist_ok=True)
        source = self.tmp / folder / "p.c"
        source.write_text(text)
        subprocess.run(["gcc", "-g", "-Wl,--build-id", "-o", source.with_suffix(""), source],
                       check=True, timeout=60)
        return source.with_suffix("")

    def hash(self, folder, text=PLAIN, arguments=()):
        job = SimpleNamespace(name="p", program=self.make(folder, text), arguments=arguments)
        return suite.hash_programs([job])["p"]

    def test_lines_and_folders_do_not_count(self):
        self.assertEqual(self.hash("a"), self.hash("b", f"/* why */\n\n{PLAIN}"))

    def test_code_counts(self):
        self.assertNotEqual(self.hash("a"), self.hash("b", PLAIN.replace("1", "2")))

    def test_text_counts(self):
        text = "#include <stdio.h>\n" + PLAIN.replace("return", 'puts("%s");\n\treturn')
        self.assertNotEqual(self.hash("a", text % "one"), self.hash("b", text % "two"))

    def test_arguments_count(self):
        self.assertNotEqual(self.hash("a"), self.hash("a", arguments=("x",)))

    def test_what_is_no_program(self):
        job = SimpleNamespace(name="p", program=self.tmp / "p", arguments=())
        job.program.write_text("#!/bin/sh\n")
        with self.assertRaisesRegex(LabError, "objcopy cannot strip"):
            suite.hash_programs([job])


if __name__ == "__main__":
    unittest.main()
