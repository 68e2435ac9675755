# SPDX-License-Identifier: GPL-2.0-only
"""The only parser of KTAP: what a program printed, and the verdict on it.

Exit codes of programs are not taken at their word: a program fails if its plan,
its numbers or its names are wrong, if one of its results is "not ok", if it never
ended, or if it says so by its exit code.
"""

import re

KSFT_PASS, KSFT_XFAIL, KSFT_SKIP, TIMEOUT = 0, 2, 4, 124

RESULT = re.compile(r"(ok|not ok)\b\s*(\d+)?\s*(?:- )?([^#]*)(?:#\s*(.*))?$")
PLAN = re.compile(r"1\.\.(\d+)\s*(?:#\s*(.*))?$")
VERSION = re.compile(r"(K?TAP) version \d+$")
DIRECTIVE = re.compile(r"(SKIP|XFAIL|XPASS|TIMEOUT|ERROR|TODO)\b:?\s*(.*)", re.I)


def clean(text):
    """One line of plain ASCII."""
    text = text.rstrip("\r\n").replace("\t", "    ")
    if text.isascii() and text.isprintable():
        return text             # most are
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    return "".join(c if " " <= c <= "~" else "?" for c in text)


class Result:
    """One result line of a program."""

    def __init__(self, status, name, reason="", diagnostics=()):
        self.status = status        # "pass", "fail", "skip" or "xfail"
        self.name = name
        self.reason = reason
        self.diagnostics = list(diagnostics)

    def line(self, number):
        word = "not ok" if self.status == "fail" else "ok"
        text = f"{word} {number} {self.name}"
        if self.status in ("skip", "xfail"):
            text += f" # {self.status.upper()} {self.reason}".rstrip()
        elif self.reason:
            text += f" # {self.reason}"
        return text


def judge_directive(ok, comment):
    """Status and reason of a result line: directives outweigh "not ok"."""
    match = DIRECTIVE.match(comment)
    if not match:
        return ("pass" if ok else "fail"), ""
    word, reason = match.group(1).upper(), match.group(2).strip()
    if word == "SKIP":
        return "skip", reason
    if word in ("XFAIL", "TODO"):
        return "xfail", reason
    return "fail", f"{word} {reason}".strip()


class Program:
    """What one program printed, and the verdict on it."""

    def __init__(self, prefix, name):
        self.prefix = prefix
        self.name = prefix + name
        self.marker = name          # as the machine calls it
        self.lines = []
        self.exit_code = None
        self.began = False
        self.ended = False
        self.stopped = False        # not run to its end, for another had failed
        self.machine_end = ("ok", "")   # how the machine ended under it
        self.kernel = []            # what the kernel had to say of it
        self.results = []
        self.errors = []            # why it fails apart from "not ok" lines
        self.status = "fail"
        self.reason = ""
        self.is_tap = False
        self.trailer = []

    def count(self, status):
        return sum(r.status == status for r in self.results)

    def judge(self, kernel, known):
        """Set status and reason; kernel is the release that it ran on."""
        self.parse()
        self.check_end()
        self.errors += [f"the kernel: {line}" for line in self.kernel]
        is_quiet = not self.kernel and self.machine_end[0] == "ok"
        reason = self.known_reason(kernel, known) if is_quiet else ""
        if reason:
            self.status, self.reason, self.errors = "xfail", reason, []
        elif self.errors or self.count("fail"):
            self.status = "fail"
            if self.exit_code == TIMEOUT:
                self.reason = "TIMEOUT"
            elif self.exit_code:
                self.reason = f"exit={self.exit_code}"
        elif self.exit_code == KSFT_SKIP or self.plan_skip is not None:
            self.status = "skip"
            self.reason = self.plan_skip or self.only_reason() or "skipped by the program"
        elif self.results and self.count("skip") == len(self.results):
            self.status = "skip"
            self.reason = self.only_reason() or "all of its tests were skipped"
        elif self.exit_code == KSFT_XFAIL:
            self.status = "xfail"
        elif not self.is_tap:
            self.judge_plain()
        else:
            self.status = "pass"

    def known_reason(self, kernel, known):
        """Why upstream's program had to fail here, if all of its failure is known."""
        if not self.ended or self.exit_code not in (1, 254) or self.is_tap:
            return ""
        for program, kernels, output, reason in known:
            if program == self.name.removeprefix(self.prefix) and kernels.match(kernel):
                found = [line for line in self.lines if output.search(line)]
                failed = [line for line in self.lines if "[FAIL]" in line]
                if found and all(line in found for line in failed):
                    return reason
        return ""

    def only_reason(self):
        reasons = {r.reason for r in self.results if r.status == "skip"}
        return reasons.pop() if len(reasons) == 1 else ""

    def parse(self):
        plan = None
        self.plan_skip = None
        names = set()
        pending, skip_reason = [], ""
        for line in self.lines:
            if VERSION.match(line):
                self.is_tap = True
                continue
            match = PLAN.match(line)
            if match:
                self.is_tap = True
                comment = DIRECTIVE.match(match.group(2) or "")
                if plan and match.group(1) == "0" and comment:
                    # libkvm's TEST_REQUIRE() in the child of a harness.
                    skip_reason = comment.group(2).strip(" -")
                    pending.append(line)
                    continue
                if plan is not None:
                    self.errors.append("a second plan: " + line)
                elif self.results:
                    self.errors.append("the plan comes after results")
                plan = int(match.group(1)) if plan is None else plan
                if plan == 0 and comment and comment.group(1).upper() == "SKIP":
                    self.plan_skip = comment.group(2).strip(" -")
                continue
            match = RESULT.match(line) if self.is_tap else None
            if not match:
                if line.startswith("Bail out!"):
                    self.errors.append(line)
                if line:
                    pending.append(line)
                continue
            self.add_result(match, names, pending)
            if skip_reason:
                result = self.results[-1]
                if result.status == "skip":
                    result.reason = skip_reason
                else:
                    self.errors.append(f"{result.name}: a result in spite of the skip: {skip_reason}")
            pending, skip_reason = [], ""
        self.trailer = pending
        if not self.is_tap:
            return
        if plan is None:
            self.errors.append("no plan")
        elif plan != len(self.results):
            self.errors.append(f"{plan} results were planned, {len(self.results)} arrived")
        elif plan == 0 and self.plan_skip is None:
            self.errors.append("the plan is empty without a reason")

    def add_result(self, match, names, diagnostics):
        word, number, name, comment = match.groups()
        name, comment = name.strip(), (comment or "").strip()
        status, reason = judge_directive(word == "ok", comment)
        if not name and reason:
            # kselftest.h prints the name of a skipped test after the directive.
            name, reason = reason, ""
        if not name:
            self.errors.append(f"result {number} has no name")
            name = f"unnamed {len(self.results) + 1}"
        if name in names:
            self.errors.append(f"the name {name} comes twice")
        names.add(name)
        if number is None or int(number) != len(self.results) + 1:
            self.errors.append(f"result {len(self.results) + 1} is numbered {number}")
        self.results.append(Result(status, name, reason, diagnostics))

    def check_end(self):
        kind, text = self.machine_end
        if self.stopped:
            self.errors.append("it was stopped, for another program had failed")
        elif not self.began:
            self.errors.append("it was planned and never ran" + (f": {text}" if text else ""))
        elif not self.ended:
            self.errors.append(text or "it began and never ended")
        else:
            if kind != "ok":
                self.errors.append(f"after its end: {text}")
            self.check_exit_code()

    def check_exit_code(self):
        if self.exit_code == TIMEOUT:
            self.errors.append("it ran into its time limit")
        elif 128 < self.exit_code < 254:
            signal = self.exit_code - 128
            hint = ", its time limit in the lab" if signal == 15 else ""
            self.errors.append(f"it was killed by signal {signal}{hint}")
        elif self.exit_code not in (KSFT_PASS, KSFT_XFAIL, KSFT_SKIP):
            # Some of upstream's plain programs exit with 1 when they skip.
            if self.is_tap or self.exit_code != 1 or not self.says("SKIP") or self.says("FAIL"):
                if not self.count("fail"):
                    self.errors.append(f"exit code {self.exit_code}")
        elif self.is_tap and self.exit_code == KSFT_SKIP and self.count("pass"):
            self.errors.append("exit code 4 (skip) although tests ran")

    def says(self, word):
        return any(f"[{word}]" in line for line in self.lines)

    def judge_plain(self):
        """A program without TAP: its exit code, and the words upstream's use."""
        if self.says("FAIL"):
            self.status = "fail"
            self.errors.append("it printed [FAIL]")
            if self.exit_code == 0:
                self.reason = "exit=0"
        elif self.says("SKIP") and not self.says("OK"):
            self.status = "skip"
            line = next(line for line in self.lines if "[SKIP]" in line)
            self.reason = line.split("[SKIP]", 1)[1].strip()
        else:
            self.status = "pass"

    def ktap(self):
        """The program's output as a nested stream that every parser takes."""
        out = []
        if self.results:
            out += ["KTAP version 1", f"# Subtest: {self.name}", f"1..{len(self.results)}"]
        for number, result in enumerate(self.results, 1):
            out += map(comment, result.diagnostics)
            out.append(result.line(number))
        out += map(comment, self.trailer)
        out += [f"# {self.name}: {error}" for error in self.errors]
        return ["  " + line for line in out]


def comment(line):
    if line.startswith("# ") and not line.startswith("# Subtest"):
        return line
    return "# " + line
