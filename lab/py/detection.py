# SPDX-License-Identifier: GPL-2.0-only
"""Documentation/detection.md: what two suites notice of the same mutants."""

from common import die, read_json

# What it takes to see a mutant, in the order of the table.
NEEDS = ("any", "smp", "kvm", "amx", "cet", "amx+cet", "svm+cet", "pasid", "root")

HEAD = ["| | mutants | this suite | upstream |", "| --- | --- | --- | --- |"]


def cell(text):
    return text.replace("|", "\\|")


def read_table(folder):
    path = folder / "table.json"
    return read_json(path) or \
        die(f"{path} is missing: run 'make mutants' first, with SUITE=ours and SUITE=upstream")


def short(row):
    """A verdict in one cell: how, and by how many results."""
    if row is None:
        return "-"
    kinds = [f"{len(items)} {kind}{'s' if len(items) > 1 else ''}"
             for kind, items in row["kills"].items() if items]
    if row["verdict"] == "killed":
        return ", ".join(kinds)
    return f"**{row['verdict']}**" + (f" ({', '.join(kinds)})" if kinds else "")


def score(mutants, ours, theirs):
    """The cells of one line of a score: how many, and how many each suite notices."""
    def killed(rows):
        return sum(rows.get(m["name"], {}).get("verdict") == "killed" for m in mutants)
    return f"{len(mutants)} | {killed(ours)} | {killed(theirs)} |"


def not_counted(mutants, rows):
    """What there is instead of a kill, such as '3 crash, 141 survived'"""
    verdicts = [rows[m["name"]]["verdict"] for m in mutants if m["name"] in rows]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts)) if v != "killed") or "none"


def scores(breaking, a, b):
    out = ["", "By what it takes to see it:", "", *HEAD]
    for needs in NEEDS:
        some = [m for m in breaking if m["needs"] == needs]
        if some:
            out.append(f"| {needs} | {score(some, a, b)}")
    files = sorted({f for m in breaking for f in m["files"]})
    out += ["", "By file (a mutant may change more than one):", "", *HEAD]
    return out + [f"| {f} | {score([m for m in breaking if f in m['files']], a, b)}" for f in files]


def unnoticeable(equivalent, a, b):
    out = ["", "## What cannot be noticed, and why", "",
           "These changes have no effect that a program, a guest or a tracepoint could see; both",
           "suites have to pass.", ""]
    if equivalent:
        out += [
            "Three things hide such changes.  Masks that are cut down wherever they are used or shown",
            "may have any other bit.  XTILE_CFG is aligned to 64 bytes, and the hole before it takes up",
            "what is added or lost there, such as the 24 bytes of CET_KERNEL.  And fpstates are rounded",
            "up to whole pages, so that a few bytes beyond their end belong to nobody else.", ""]
    for m in equivalent:
        out.append(f"* **{m['name']}** (this suite: {short(a[m['name']])}, "
                   f"upstream: {short(b.get(m['name']))}): {m['subject']}.  {m['why']}")
    return out


def text(ours_folder, theirs_folder, fast):
    """The document; fast: whether runs of the first folder ended with the first failure."""
    ours, theirs = read_table(ours_folder), read_table(theirs_folder)
    if ours["kernel"] != theirs["kernel"]:
        die(f"the tables are of two kernels, {ours['kernel']} and {theirs['kernel']}: run both suites anew")
    mutants = ours["mutants"]
    a, b = ({row["name"]: row for row in t["mutants"]} for t in (ours, theirs))
    breaking = [m for m in mutants if m["expect"] == "killed"]
    equivalent = [m for m in mutants if m["expect"] == "equivalent"]
    dates = " and ".join(sorted({ours["date"], theirs["date"]}))
    out = [
        "# Which regressions the suite notices", "",
        "Written by `make detection` from the results of `make mutants` and",
        "`make mutants SUITE=upstream`; see [mutants.md](mutants.md).", "",
        f"Linux {ours['kernel']}, CPU spr, {dates}.  Each mutant is that kernel with one change of",
        "lab/mutants.  It counts as noticed if a result that was ok becomes \"not ok\", or if",
        "the kernel warns.  A hang, a crash or a test that is skipped instead is told, and does not",
        "count.", "", "## Score", "", *HEAD, f"| all | {score(breaking, a, b)}", "",
        f"Not counted: this suite: {not_counted(breaking, a)}; upstream: {not_counted(breaking, b)}."]
    if fast:
        out += ["", "Each run ended with the first program that failed (FAST=1): there may be more that",
                "notice, beyond the numbers below."]
    out += scores(breaking, a, b)
    out += ["", "## Regressions", "", "| mutant | what is broken | needs | this suite | upstream |",
            "| --- | --- | --- | --- | --- |"]
    out += [f"| {m['name']} | {cell(m['subject'])} | {m['needs']} | {short(m)} | {short(b.get(m['name']))} |"
            for m in breaking]
    out += unnoticeable(equivalent, a, b)
    return "\n".join(out) + "\n"
