# SPDX-License-Identifier: GPL-2.0-only
"""The results of a run for programs to read: report.json and report.xml.

Documentation/results.md tells what is in them.
"""

import json
import re
import xml.etree.ElementTree as ET

from common import write_text
from ktap import TIMEOUT

SCHEMA = "xcomp-report"
VERSION = 1
STATUSES = ("pass", "fail", "skip", "xfail")

# What each of our programs says of the machine before its first test, see
# xf_print_machine() of tools/testing/selftests/x86/xfeature.c.
HEAD = {
    "kernel": re.compile(r"# Linux (?P<release>\S+) (?P<arch>\S+), (?P<bits>\d+)-bit program, "
                         r"uid (?P<uid>\d+), euid \d+$"),
    "cpu": re.compile(r"# CPU: (?P<model>.*), CPUID\.1:EAX (?P<signature>0x[0-9a-f]+)$"),
    "user": re.compile(r"# XCR0 (?P<xcr0>0x[0-9a-f]+):(?P<names>.*)$"),
    "supervisor": re.compile(r"# supervisor components of the CPU:(?P<names>.*)$"),
    "sizes": re.compile(r"# CPUID\.0xD sizes: (\d+) for XCR0, (\d+) for XCR0 \| IA32_XSS, at most (\d+)$"),
    "parameters": re.compile(r"# parameters:(?P<words>.*)$"),
}
HEAD_LINES = 20                 # within which it comes
# What is there if the component is: Linux enables it in XCR0, or the CPU has it for IA32_XSS.
FEATURES = {"AMX": "XTILE_DATA", "CET": "CET_USER", "PASID": "PASID"}


def is_head(line):
    return any(pattern.match(line) for pattern in HEAD.values())


def machine(programs):
    """What the first program that says so says of the machine, or None."""
    for program in programs:
        found = {}
        for line in program.lines[:HEAD_LINES]:
            for name, pattern in HEAD.items():
                match = pattern.match(line)
                if match:
                    found.setdefault(name, match)
        if "cpu" in found and "user" in found:
            return describe(found)
    return None


def describe(found):
    kernel, sizes = found.get("kernel"), found.get("sizes")
    user = found["user"]["names"].split()
    supervisor = found["supervisor"]["names"].split() if "supervisor" in found else []
    words = found["parameters"]["words"].split() if "parameters" in found else []
    return {
        "release": kernel["release"] if kernel else "",
        "uid": int(kernel["uid"]) if kernel else None,
        "model": found["cpu"]["model"].strip(),
        "signature": found["cpu"]["signature"],
        "xcr0": found["user"]["xcr0"],
        "user_components": user,
        "supervisor_components": supervisor,
        "features": {name: component in user + supervisor for name, component in FEATURES.items()},
        "sizes": dict(zip(("standard", "compacted", "maximum"), map(int, sizes.groups()))) if sizes else {},
        "parameters": dict(word.partition("=")[::2] for word in words),
    }


def count(statuses):
    statuses = list(statuses)
    return {status: statuses.count(status) for status in STATUSES}


def path(*names):
    """A name as KCIDB takes it: words with dots between them."""
    words = re.split(r"[/:.]", "/".join(names))
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", word) for word in words if word)


def base(name):
    """The program alone, where only some of its rows have run: a row has one name."""
    return name.partition(":")[0]


def kcidb_status(status, ran=True):
    """As KCIDB calls it; it has no word for a failure that is known."""
    return {"pass": "PASS", "skip": "SKIP"}.get(status, "FAIL" if ran else "MISS")


def of_test(program, result):
    return {"name": result.name, "status": result.status, "reason": result.reason,
            "path": path(base(program.name), result.name), "kcidb_status": kcidb_status(result.status),
            "diagnostics": result.diagnostics}


def entries(run):
    """{name: entry of run.json} of the machine that each program had."""
    return {program.name: entry for machine_, entry in zip(run.machines, run.record.get("machines", []))
            for program in machine_.programs}


def of_program(run, program, entry):
    end, why = program.machine_end
    return {
        "name": program.name, "status": program.status, "reason": program.reason,
        "path": path(program.name), "kcidb_status": kcidb_status(program.status, program.began),
        "exit_code": program.exit_code, "errors": program.errors, "kernel": program.kernel,
        "machine": {"end": end, "why": why, "folder": entry.get("folder", "")},
        "seconds": entry.get("seconds") if len(entry.get("programs", ())) == 1 else None,
        "host_seconds": rounded(run.seconds.get(program.name)),
        "tests": [of_test(program, result) for result in program.results],
        "diagnostics": program.trailer,
    }


def rounded(seconds):
    return None if seconds is None else round(seconds, 3)


OPTIONS = ("kernel", "modules", "cpu", "append", "params", "seed", "tests", "host")


def document(run):
    """What report.json holds, of a record.Run."""
    extras, entry, record = run.extra_results(), entries(run), run.record
    programs = [of_program(run, p, entry.get(p.name, {})) for p in run.programs]
    is_bad = any(r.status == "fail" for r in [*run.programs, *extras])
    return {
        "schema": SCHEMA, "version": VERSION, "status": "fail" if is_bad else "pass",
        "run": {"end": record.get("end", "interrupted"), "why": record.get("why", ""),
                "started": record.get("started"), "seconds": record.get("seconds"),
                "boot_seconds": record.get("boot_seconds"), "cpu_seconds": record.get("cpu_seconds")},
        "kernel": run.kernel,
        "options": {name: record[name] for name in OPTIONS if name in record},
        "machine": machine(run.programs),
        "counts": {"programs": count(p.status for p in run.programs),
                   "tests": count(r.status for p in run.programs for r in p.results)},
        "programs": programs,
        "lab": [{"name": r.name, "status": r.status, "reason": r.reason, "path": path(r.name),
                 "kcidb_status": kcidb_status(r.status), "diagnostics": r.diagnostics} for r in extras],
    }


# --- JUnit ---

def xml_text(text):
    """Without the characters that XML 1.0 does not take, not even escaped."""
    return re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def element(parent, tag, text="", **attributes):
    attributes = {name: xml_text(str(value)) for name, value in attributes.items() if value is not None}
    found = ET.SubElement(parent, tag, attributes)
    found.text = xml_text(text) or None
    return found


def case(suite, name, result, text, kind="failure"):
    """A testcase; kind is the element for one that fails: its assertions did, or it broke."""
    found = element(suite, "testcase", name=name, classname=base(suite.get("name")).replace("/", "."))
    if result["status"] == "fail":
        element(found, kind, text, message=result["reason"] or next(iter(text.splitlines()), "not ok"),
                type=kind)
    elif result["status"] == "skip":
        element(found, "skipped", message=result["reason"])
    elif result["status"] == "xfail":
        # A CI that knows no such thing must not count it as a pass.
        element(found, "skipped", message=f"XFAIL {result['reason']}".strip())
    return found


def broke(program):
    """Whether it came to no end of its own: its machine or the clock ended it, or a signal."""
    code = program["exit_code"]
    return code is None or TIMEOUT <= code < 254 or program["machine"]["end"] != "ok"


def suite_of(root, program, started):
    suite = element(root, "testsuite", name=program["name"], time=program["seconds"], timestamp=started)
    for test in program["tests"]:
        case(suite, test["name"], test, "\n".join(test["diagnostics"]))
    if not program["tests"] or program["errors"]:
        text = "\n".join(program["errors"] + program["diagnostics"])
        case(suite, program["name"], program, text, "error" if broke(program) else "failure")
    return suite


def total(node):
    """Set the numbers of a testsuite or of all."""
    cases = list(node.iter("testcase"))
    node.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        if node.tag == "testsuite" or tag != "skipped":
            node.set(name, str(sum(c.find(tag) is not None for c in cases)))


def junit(found):
    """document() as JUnit XML."""
    root = ET.Element("testsuites", name="kselftest")
    if found["run"]["seconds"] is not None:
        root.set("time", str(found["run"]["seconds"]))
    # xs:dateTime of the formats that are around has no zone: UTC.
    started = (found["run"]["started"] or "").partition("+")[0] or None
    for program in found["programs"]:
        suite_of(root, program, started)
    lab = element(root, "testsuite", name="lab", timestamp=started)
    for result in found["lab"]:
        case(lab, result["name"], result, "\n".join(result["diagnostics"]))
    for suite in root:
        total(suite)
    total(root)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write(folder, run):
    """report.json and report.xml, for a record.Run."""
    found = document(run)
    write_text(folder / "report.json", json.dumps(found, indent=1) + "\n")
    write_text(folder / "report.xml", junit(found))
