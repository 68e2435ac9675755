# SPDX-License-Identifier: GPL-2.0-only
"""Why the selftests may skip, by their sources.

A reason is the string in

	SKIP(statement, "...")		ksft_exit_skip("...\\n")

or a macro, a variable or a function there, by what it is defined as, assigned or returns.
Scope tells which of them a test may reach.
"""

import re
from collections import namedtuple

CALL = re.compile(r"\b(SKIP|ksft_exit_skip|ksft_test_result_skip|_*TEST_REQUIRE)\s*\(")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def sources(folder):
    """{path: text}, without comments and with strings that were split joined."""
    found = {}
    for path in sorted([*folder.rglob("*.c"), *folder.rglob("*.h")]):
        text = re.sub(r'("(?:[^"\\]|\\.)*")|/\*.*?\*/|//[^\n]*', lambda m: m.group(1) or " ",
                      path.read_text(), flags=re.S)
        found[path] = re.sub(r'"\s*\n?\s*"', "", text)
    return found


def arguments(text, start):
    """The arguments of a call whose parenthesis opens before start."""
    depth, found, last = 1, [], start
    strings = {m.start(): m.end() for m in STRING.finditer(text, start, start + 2000)}
    at = start
    while at < len(text):
        at = strings.get(at, at)
        c = text[at]
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        if (c == "," and depth == 1) or depth == 0:
            found.append(text[last:at].strip())
            last = at + 1
        if depth == 0:
            return found
        at += 1
    return found


# A call that skips: its file, its place there, and what it may say.
Site = namedtuple("Site", "path start reasons")


class Reasons:
    """What all sources say."""

    def __init__(self, folder):
        self.texts = sources(folder)
        self.all = "\n".join(self.texts.values())
        self.found = {}             # reason: where
        self.sites = []             # of Site
        self.searches = {}
        self.faults = []
        for path, text in self.texts.items():
            for match in CALL.finditer(text):
                if re.search(r"(#define|\bint|\bvoid)\s+$", text[:match.start()]):
                    continue
                where = f"{path.relative_to(folder)}:{text.count(chr(10), 0, match.start()) + 1}"
                self.sites.append(Site(path, match.start(), set()))
                self.call(where, match.group(1), arguments(text, match.end()))

    def call(self, where, name, words):
        if "REQUIRE" in name:
            self.faults.append(f"{where}: {name}() has no constant reason: use SKIP()")
            return
        first = 1 if name == "SKIP" else 0
        text, *values = words[first:] or [""]
        if re.fullmatch(r'"%s(\\n)?"', text) and len(values) == 1:
            text = values[0]
        self.follow(where, text, ())

    def follow(self, where, text, seen):
        """Add what an expression may be."""
        if text in seen or text == "NULL":
            return
        seen = (*seen, text)
        if STRING.fullmatch(text):
            reason = text[1:-1].removesuffix("\\n")
            if "%" in reason:
                self.faults.append(f"{where}: '{reason}' is not constant")
            self.found.setdefault(reason, where)
            self.sites[-1].reasons.add(reason)
            return
        parts = re.split(r"\?:|\?|:", STRING.sub("", text))
        if len(parts) > 1:
            words = re.split(r'\?:|\?|:(?=(?:[^"]*"[^"]*")*[^"]*$)', text)
            for part in words if len(parts) == 2 else words[1:]:
                self.follow(where, part.strip(), seen)
            return
        values = self.values(text)
        if not values and not re.fullmatch(r"getenv\(.*\)", text):
            self.faults.append(f"{where}: cannot tell what reason '{text}' is")
        for value in values:
            self.follow(where, value, seen)

    def search(self, pattern, flags=0, path=None):
        """All matches in a file, or in all of them; most are asked for often."""
        key = (pattern, path)
        if key not in self.searches:
            self.searches[key] = re.findall(pattern, self.texts[path] if path else self.all, flags)
        return self.searches[key]

    def values(self, text):
        """The expressions that a macro, a function or a variable stands for."""
        called = re.fullmatch(r"(\w+)\(.*\)", text, re.S)
        if called:
            # From the name at the start of a definition to the brace that ends it.
            head = rf"^[\w *]*\b{called.group(1)}\([^;{{]*\)\n"
            bodies = self.search(head + r"\{\n(.*?)^\}", re.M | re.S)
            return [v for body in bodies for v in re.findall(r"\breturn\s+([^;]+);", body)]
        if not re.fullmatch(r"\w+(->\w+|\.\w+)?", text):
            return []
        values = self.search(rf"^#define[ \t]+{text}[ \t]+(.+)$", re.M)
        name = re.sub(r"->|\.", r"(?:->|\\.)", text)
        # A variable of the same file, if there is one.
        assigned = rf"\b{name}\s*=\s*([^=;][^;]*);"
        found = self.search(assigned, path=self.sites[-1].path) or self.search(assigned)
        return values + [value.strip() for value in found]


# --- which test may reach which of them ---

# A function of the kernel's style, a test, or a macro that goes on over lines.
FUNCTION = re.compile(r"^(?P<head>[A-Za-z_][^;{}#]*\))\n\{\n(?P<body>.*?)^\}", re.M | re.S)
MACRO = re.compile(r"^#define[ \t]+(?P<name>\w+)(?:\([^)]*\))?(?P<body>(?:[^\n]*\\\n)*[^\n]*)", re.M)
TEST = re.compile(r"(TEST_F|FIXTURE_SETUP|FIXTURE_TEARDOWN)\(\s*(\w+)\s*(?:,\s*(\w+)\s*)?\)")
SUITE = re.compile(r"^(\w+_SUITE)\((\w+)\)", re.M)
MAIN = re.compile(r"^(\w*HARNESS_MAIN)\b", re.M)
# Calls, macros, and functions that are passed on.
WORD = re.compile(r"[A-Za-z_]\w*(?=\()|\b[A-Z_]{4,}\b|(?<=[,(] )[a-z]\w*(?=[,)])|(?<=\()[a-z]\w*(?=[,)])")


class Node:
    """A function, a test or a macro: the names in it, and the reasons that it gives itself."""

    def __init__(self, body, reasons):
        self.words, self.reasons = set(WORD.findall(body)), reasons


def nodes(text, sites):
    """{name: Node} of a file; a test is called "FIXTURE.TEST", its fixture "FIXTURE."."""
    found = {}
    for match in [*FUNCTION.finditer(text), *MACRO.finditer(text)]:
        reasons = {r for s in sites if match.start() <= s.start < match.end() for r in s.reasons}
        if match.re is MACRO:
            name = match["name"]
        elif test := TEST.search(match["head"]):
            name = f"{test[2]}.{test[3] or ''}"
        else:
            name = (re.findall(r"(\w+)\s*\(", match["head"]) or [""])[0]
        node = Node(match["body"], reasons)
        if name in found:           # setup and teardown, or one for each kind of machine
            node.words |= found[name].words
            node.reasons |= found[name].reasons
        found[name] = node
    for match in SUITE.finditer(text):
        node = found.setdefault(f"{match[2]}.", Node("", set()))
        node.words.add(match[1])
    if "main" not in found and (match := MAIN.search(text)):
        found["main"] = Node(match[1], set())
    return found


# What the programs of the other folder do not see.
APART = re.compile(r"x86/(?!xfeature\.|kselftest_harness_ext\.)")


class Scope:
    """All sources, to ask what a test of a program may skip for."""

    def __init__(self, folder):
        self.reasons = Reasons(folder)
        self.files, self.shared = {}, {"kvm": {}, "x86": {}}
        for path, text in self.reasons.texts.items():
            found = nodes(text, [s for s in self.reasons.sites if s.path == path])
            name = str(path.relative_to(folder))
            if "main" in found and path.suffix == ".c":
                self.files[name[:-2]] = found
                continue
            if not APART.match(name):
                self.shared["kvm"].update(found)
            if not name.startswith("kvm/"):
                self.shared["x86"].update(found)

    def reach(self, program, *starts):
        """The reasons that can be met from these nodes of a program."""
        own, shared = self.files.get(program, {}), self.shared.get(program.partition("/")[0], {})
        todo, seen, found = list(starts), set(), set()
        while todo:
            name = todo.pop()
            node = own.get(name) or shared.get(name)
            if name in seen or not node:
                continue
            seen.add(name)
            found |= node.reasons
            todo += node.words
        return found

    def of_program(self, program):
        """Those for which all of a program skips."""
        return self.reach(program, "main")

    def of_test(self, program, test):
        """Those for which "FIXTURE.TEST" may skip beside, in one of its variants at least."""
        fixture = test.partition(".")[0]
        return self.reach(program, test, f"{fixture}.")
