# SPDX-License-Identifier: GPL-2.0-only
"""Write Documentation/options.md: every target, variable and option, from where the code has them.

use: lab/py/options.py >Documentation/options.md

Targets and variables come from lab/help, which is what "make help" prints, and options from
the parsers of the commands themselves, as -h prints them: so each is described once.
tests/py/test_options.py compares the page with them, and them with what the code reads.
"""

import argparse
import importlib
import os
import re
import sys
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import LAB, TOP

HEAD = """\
# All targets, variables and options

This page is made from `lab/help` and from the commands' own `-h`, by `lab/py/options.py`;
[own.md](own.md) shows what one does with them.

`VARIABLE=` is given to make, or stands in the environment; an empty one counts as not
given.  A command of `lab/` called by itself takes the variables as make does, and where it
has an option of the same meaning, the option wins.
"""

# A line of lab/help begins an entry: of a target, of one or more variables.
TARGET = re.compile(r"make((?: [a-z][a-z-]*)?)((?: [A-Z]+=\S+)*) {2,}(\S.*)")
VARIABLE = re.compile(r"  ((?:[A-Z_]+=(?:\"\.\.\.\"|\S+) ?)+?) +(\S.*)")
DEFAULT = re.compile(r" ?\(default: ([^()]*(?:\([^()]*\)[^()]*)*)\)")
# A value that no option has by itself.
PROBE = "7"


def read_help(text):
    """Targets [(words, text)] and variables [(words, text)] of lab/help."""
    targets, variables, last = [], [], None
    for line in text.splitlines():
        target, variable = TARGET.fullmatch(line), VARIABLE.fullmatch(line)
        if target:
            last = targets
            last.append([f"make{target.group(1)}{target.group(2)}", target.group(3)])
        elif variable:
            last = variables
            last.append([variable.group(1).strip(), variable.group(2)])
        elif re.fullmatch(r"make .*=\S+", line):
            last = targets          # too long for its text, which follows
            last.append([line, ""])
        elif line.startswith("     ") and last:
            last[-1][1] = f"{last[-1][1]} {line.strip()}".strip()
        else:
            last = None
    return targets, variables


def names(words):
    """KERNELS and CPUS of 'KERNELS="..." CPUS="..."'."""
    return re.findall(r"([A-Z_]+)=", words)


def modules():
    """{command: name of its module} of those in lab/ that are written in Python."""
    found = {}
    for path in sorted(LAB.iterdir()):
        if path.is_file():
            match = re.search(r"^run_command\((\w+)\.main", path.read_text(errors="replace"), re.M)
            if match:
                found[f"lab/{path.name}"] = match.group(1)
    return found


def parsers():
    """{command: function that makes its parser}"""
    found = {}
    for command, name in modules().items():
        make = getattr(importlib.import_module(name), "parser", None)
        if make:
            found[command] = make
    return found


def read_parser(make, variables):
    """[(option with its value, default, text)] of a parser.

    Where an option takes its default from a variable, that variable says the rest.
    """
    clean = {name: value for name, value in os.environ.items() if name not in variables}

    def made(processors=1, **more):
        with mock.patch.dict(os.environ, clean | more, clear=True), \
                mock.patch("os.sched_getaffinity", return_value=set(range(processors))):
            return make()

    def changed(other):
        return {old.dest for old, new in zip(parser._actions, other._actions) if old.default != new.default}

    parser, by_variable = made(), {}
    for name in variables:
        by_variable.update({dest: name for dest in changed(made(**{name: PROBE}))})
    by_processors = changed(made(processors=2))
    found = []
    for action in parser._actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            continue
        value = "" if action.nargs == 0 else " " + (action.metavar or action.dest.upper())
        default = action.default
        text = DEFAULT.sub("", action.help or "")
        if action.dest in by_variable:
            text = text or f"as `{by_variable[action.dest]}=`"
        if default in (None, False, "", 0) or default == []:
            told = DEFAULT.search(action.help or "")
            default = told.group(1) if told else ""
        if action.dest in by_processors:
            default = "by processors"
        found.append((f"{', '.join(action.option_strings)}{value}", str(default).replace(f"{TOP}/", ""), text))
    return found


def row(*cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(head, rows):
    return "\n".join([row(*head), "|" + " --- |" * len(head), *(row(*cells) for cells in rows)]) + "\n"


def linked(text):
    """With a link to each page that is named; the page is in the same folder."""
    return re.sub(r"Documentation/([a-z]+\.md)", r"[\1](\1)", text)


def page():
    """The text of Documentation/options.md."""
    targets, variables = read_help((LAB / "help").read_text())
    parts = [HEAD]
    parts.append("## Targets of make\n\n" + table(
        ["target", "what it does"], [(f"`{words}`", linked(text)) for words, text in targets]))
    rows = []
    for words, text in variables:
        default = DEFAULT.search(text)
        rows.append((f"`{words}`", default.group(1) if default else "", linked(DEFAULT.sub("", text))))
    parts.append("## Variables\n\n" + table(["variable", "default", "what it says"], rows))
    known = sorted({name for words, _ in variables for name in names(words)})
    for command, make in parsers().items():
        parts.append(f"## {command}\n\n" + table(
            ["option", "default", "what it says"],
            [(f"`{option}`", default and f"`{default}`", text)
             for option, default, text in read_parser(make, known)]))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
