# SPDX-License-Identifier: GPL-2.0-only
"""Documentation/detection.md: what suites notice of the same mutants.

Those are this one, upstream's and, where it was run, xstate_model_test alone.
"""

from common import die, read_json

# What it takes to see a mutant, in the order of the table.
NEEDS = ("any", "smp", "kvm", "amx", "cet", "amx+cet", "svm+cet", "pasid", "root")

TITLES = ("this suite", "upstream", "the model test alone")


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


def head(*cells):
    """The first two lines of a table."""
    return ["|" + "|".join(f" {c} " if c else " " for c in cells) + "|",
            "|" + "|".join(" --- " for _ in cells) + "|"]


def score_head(tables):
    return head("", "mutants", *TITLES[:len(tables)])


def score(mutants, tables):
    """The cells of one line of a score: how many, and how many each suite notices."""
    def killed(rows):
        return sum(rows.get(m["name"], {}).get("verdict") == "killed" for m in mutants)
    return " | ".join(str(n) for n in [len(mutants), *map(killed, tables)]) + " |"


def not_counted(mutants, rows):
    """What there is instead of a kill, such as '3 crash, 141 survived'"""
    verdicts = [rows[m["name"]]["verdict"] for m in mutants if m["name"] in rows]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts)) if v != "killed") or "none"


def scores(breaking, tables):
    out = ["", "By what it takes to see it:", "", *score_head(tables)]
    for needs in NEEDS:
        some = [m for m in breaking if m["needs"] == needs]
        if some:
            out.append(f"| {needs} | {score(some, tables)}")
    files = sorted({f for m in breaking for f in m["files"]})
    out += ["", "By file (a mutant may change more than one):", "", *score_head(tables)]
    return out + [f"| {f} | {score([m for m in breaking if f in m['files']], tables)}" for f in files]


def unnoticeable(equivalent, tables):
    out = ["", "## What cannot be noticed, and why", "",
           "These changes have no effect that a program, a guest or a tracepoint could see; all",
           "suites have to pass.", ""]
    if equivalent:
        out += [
            "Three things hide such changes.  Masks that are cut down wherever they are used or shown",
            "may have any other bit.  XTILE_CFG is aligned to 64 bytes, and the hole before it takes up",
            "what is added or lost there, such as the 24 bytes of CET_KERNEL.  And fpstates are rounded",
            "up to whole pages, so that a few bytes beyond their end belong to nobody else.", ""]
    for m in equivalent:
        each = ", ".join(f"{title}: {short(rows.get(m['name']))}" for title, rows in zip(TITLES, tables))
        out.append(f"* **{m['name']}** ({each}): {m['subject']}.  {m['why']}")
    return out


def text(folders, fast):
    """The document of the results in two folders or three, in the order of TITLES; fast: whether
    runs of the first ended with the first failure."""
    read = [read_table(folder) for folder in folders]
    kernels = list(dict.fromkeys(t["kernel"] for t in read))
    if len(kernels) > 1:
        die(f"the tables are of {'two' if len(kernels) == 2 else 'three'} kernels, "
            f"{', '.join(kernels[:-1])} and {kernels[-1]}: run all suites anew")
    mutants = read[0]["mutants"]
    tables = [{row["name"]: row for row in t["mutants"]} for t in read]
    breaking = [m for m in mutants if m["expect"] == "killed"]
    equivalent = [m for m in mutants if m["expect"] == "equivalent"]
    dates = " and ".join(sorted({t["date"] for t in read}))
    others = "; ".join(f"{title}: {not_counted(breaking, rows)}" for title, rows in zip(TITLES, tables))
    out = [
        "# Which regressions the suite notices", "",
        "Written by `make detection` from the results of `make mutants` and",
        "`make mutants SUITE=upstream`, and of `SUITE=model` where there are any; see",
        "[mutants.md](mutants.md).", "",
        f"Linux {kernels[0]}, CPU spr, {dates}.  Each mutant is that kernel with one change of",
        "lab/mutants.  It counts as noticed if a result that was ok becomes \"not ok\", or if",
        "the kernel warns.  A hang, a crash or a test that is skipped instead is told, and does not",
        "count.", "", "## Score", "", *score_head(tables), f"| all | {score(breaking, tables)}", "",
        f"Not counted: {others}."]
    if fast:
        out += ["", "Each run ended with the first program that failed (FAST=1): there may be more that",
                "notice, beyond the numbers below."]
    out += scores(breaking, tables)
    out += ["", "## Regressions", "",
            *head("mutant", "what is broken", "needs", *TITLES[:len(tables)])]
    for m in breaking:
        each = " | ".join(short(rows.get(m["name"])) for rows in tables)
        out.append(f"| {m['name']} | {cell(m['subject'])} | {m['needs']} | {each} |")
    out += unnoticeable(equivalent, tables)
    return "\n".join(out) + "\n"
