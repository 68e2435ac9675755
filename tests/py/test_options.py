# SPDX-License-Identifier: GPL-2.0-only
"""Documentation/options.md against the code: every target, variable and option is there, and no
other; and lab/help, from which it is made, against what the commands read."""

import argparse
import ast
import re
import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runs                         # finds lab/py
import options
from common import LAB, TOP

assert runs.TOP in Path(options.__file__).parents

# Of the system (NF is a word of awk, OPTARG one of getopts), or passed from one command of the
# lab to another: nothing to give to make.
SYSTEM = {"NF", "OPTARG", "HOME", "XDG_CACHE_HOME", "PATH", "PWD", "LC_ALL", "TERM", "COLUMNS", "NO_COLOR"}
INSIDE = {
    "OBJ",              # of lab/bisect for lab/bisect-step
    "RELEASE",          # the same
    "AT_EXIT", "TOP",   # of lab/lib.sh, for the script that sources it
}


def read_by_python(text):
    """Names of variables that a module reads from the environment."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if ast.unparse(node.func) in ("env", "count", "os.environ.get", "os.getenv", "environ.get"):
                found.add(node.args[0].value)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ" and \
                isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Constant):
            found.add(node.slice.value)
    return found


def read_by_shell(text, shared=""):
    """The same of a script; shared is what it sources."""
    code = re.sub(r"(?m)^\s*#.*$|'[^']*'", "", text)
    with_default = set(re.findall(r"\$\{([A-Z][A-Z_]*):?[-+=?]", code))
    used = set(re.findall(r"\$\{?([A-Z][A-Z_]*)\b", code))
    assigned = set(re.findall(r"(?m)(?:^|[\s;(])([A-Z][A-Z_]*)=", code + shared))
    return with_default | (used - assigned)


def sources():
    """Texts of all modules and all scripts in lab/."""
    python, shell = [], []
    for path in sorted(LAB.rglob("*")):
        if not path.is_file() or path.suffix in (".patch", ".txt", ".md") or path.parts[len(LAB.parts)] == "guest":
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".py" or text.startswith("#!/usr/bin/env python3"):
            python.append(text)
        elif re.match(r"#!/bin/sh|(#.*\n)*# shellcheck shell=sh", text):
            shell.append(text)
    return python, shell


def all_read():
    python, shell = sources()
    shared = (LAB / "lib.sh").read_text()
    return set().union(*map(read_by_python, python), *(read_by_shell(text, shared) for text in shell))


def all_told(text):
    """Variables that lab/help names: of targets, and those with an entry of their own."""
    targets, variables = options.read_help(text)
    return {name for words, _ in targets + variables for name in options.names(words)}


class Page(unittest.TestCase):
    maxDiff = None

    def test_it_is_what_the_code_says(self):
        self.assertEqual((TOP / "Documentation/options.md").read_text(), options.page(),
                         "write it anew: lab/py/options.py >Documentation/options.md")

    def test_it_does_not_depend_on_the_machine_or_the_environment(self):
        page = options.page()
        with mock.patch.dict("os.environ", KERNEL="6.12", JOBS="9", O="/somewhere"), \
                mock.patch("os.sched_getaffinity", return_value=set(range(64))):
            self.assertEqual(options.page(), page)
        self.assertNotIn(str(TOP), page)

    def test_every_option_says_what_it_does(self):
        for command, make in options.parsers().items():
            _, variables = options.read_help((LAB / "help").read_text())
            known = [name for words, _ in variables for name in options.names(words)]
            for option, _, text in options.read_parser(make, known):
                with self.subTest(command=command, option=option):
                    self.assertRegex(text, r"\w", "give it a help= or a default of env()")

    def test_an_option_more_is_another_page(self):
        page, make = options.page(), options.parsers()["lab/run"]

        def more():
            parser = make()
            parser.add_argument("--made-up", help="made up")
            return parser

        with mock.patch.object(options, "parsers", return_value={**options.parsers(), "lab/run": more}):
            self.assertIn("| `--made-up MADE_UP` |  | made up |", options.page())
            self.assertNotEqual(options.page(), page)


class Help(unittest.TestCase):
    def test_no_line_is_lost(self):
        """Every line is part of an entry, or of the few words around them."""
        text = (LAB / "help").read_text()
        targets, variables = options.read_help(text)
        told = " ".join(" ".join(entry) for entry in targets + variables)
        rest = [line for line in text.splitlines()
                if line.strip() and re.sub(r"\s+", " ", line.strip()) not in re.sub(r"\s+", " ", told)]
        self.assertEqual([line for line in rest if not re.match(
            r"Variables, for kselftest|As root, kselftest and check|which ones, and the command", line)], [])

    def test_variables_are_those_that_are_read(self):
        read, told = all_read(), all_told((LAB / "help").read_text())
        # make itself hands it on.
        told -= {"DESTDIR"}
        self.assertEqual(sorted(read - told - SYSTEM - INSIDE), [], "read by lab/, and not in lab/help")
        self.assertEqual(sorted(told - read), [], "in lab/help, and read by nothing in lab/")

    def test_targets_are_those_of_the_makefile(self):
        targets, _ = options.read_help((LAB / "help").read_text())
        told = {(words.split() + ["all"])[1] for words, _ in targets}
        made = set(re.findall(r"(?m)^([a-z][a-z-]*):", (TOP / "Makefile").read_text()))
        self.assertEqual(told, made)

    def test_targets_in_python_see_to_it_that_there_is_one(self):
        text = (TOP / "Makefile").read_text()
        there = set(re.search(r"(?m)^([a-z ]+): \.python$", text).group(1).split())
        needed = set()
        for target, command in re.findall(r"(?m)^([a-z][a-z-]*):\n\t@(lab/\w+)(?![\w/])", text):
            if "python3" in (TOP / command).read_text():
                needed.add(target)
        self.assertEqual(there, needed)

    def test_a_variable_less_is_noticed(self):
        text = "".join(line for line in (LAB / "help").read_text().splitlines(True) if not line.startswith("  SEED="))
        self.assertIn("SEED", all_read() - all_told(text))


class Scan(unittest.TestCase):
    def test_python(self):
        self.assertEqual(read_by_python(
            'a = env("A")\nb = count("B", 1)\nc = os.environ.get("C") or os.environ["D"]\n'
            'os.environ["E"] = "x"\nos.environ.pop("F")\nenv(name)\n'), {"A", "B", "C", "D"})

    def test_shell(self):
        self.assertEqual(read_by_shell(
            'A=${A:-x}\n# $B\necho "$C" \'$D\' "${E}" ${F:+y}\nG=1\necho $G $H\n', "H=2\n"), {"A", "C", "E", "F"})

    def test_parser_of_the_help(self):
        targets, variables = options.read_help(
            "make                     all\nmake a-b X=Y             one\n                         two (default: no)\n"
            "make long X=Y Z=ABCDEFGHIJKLMNOP\n                         three\n\nVariables:\n"
            '  A=X         four\n  B="..." C=Y  five\n              six\nThe end\n')
        self.assertEqual(targets, [["make", "all"], ["make a-b X=Y", "one two (default: no)"],
                                   ["make long X=Y Z=ABCDEFGHIJKLMNOP", "three"]])
        self.assertEqual(variables, [["A=X", "four"], ['B="..." C=Y', "five six"]])

    def test_options_with_defaults(self):
        def make():
            p = argparse.ArgumentParser()
            p.add_argument("-a", metavar="X|Y", default=1, help="one (default: 1)")
            p.add_argument("--bb", default=options.os.environ.get("BB") or "b")
            p.add_argument("--cc", action="store_true", help="three")
            p.add_argument("--dd", default="", help="four (default: of the machine (all))")
            p.add_argument("--ee", default=len(options.os.sched_getaffinity(0)), help="five")
            p.add_argument("rest", nargs="*")
            return p
        self.assertEqual(options.read_parser(make, ["BB"]), [
            ("-a X|Y", "1", "one"), ("--bb BB", "b", "as `BB=`"), ("--cc", "", "three"),
            ("--dd DD", "of the machine (all)", "four"), ("--ee EE", "by processors", "five")])


if __name__ == "__main__":
    unittest.main()
