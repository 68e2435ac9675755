#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Every report, good or bad, is one that prove and the kernel's own parser can
# read.  What is in them is for tests/py/test_record.py to check, whose made-up
# runs these are.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 15
scratch
tree=$(lab/kernel/fetch source "$newest") || tree=

# report OUT...: $rc, $tmp/ktap and $tmp/summary
report()
{
	rc=0
	lab/report "$@" >"$tmp/ktap" 2>"$tmp/summary" || rc=$?
}

kunit()
{
	python3 -B "$tree/tools/testing/kunit/kunit.py" parse "$1"
}

mkdir "$tmp/runs"
KEEP_RUNS=$tmp/runs python3 -B tests/py/test_record.py >"$tmp/log" 2>&1
is "the runs are there" "$? $([ "$(find "$tmp/runs" -name results.log | wc -l)" -ge 200 ] && echo many)" "0 many"
tap_diag "$tmp/log"
good=$(echo "$tmp"/runs/*/test_good_run_is_ok-1)
bad=$(echo "$tmp"/runs/*/test_not_ok_with_exit_code_0-1)

report "$good"
is "a good run is ok" "$rc" 0
ok "prove takes its KTAP" prove -e cat "$tmp/ktap"
ok "kunit.py takes it" kunit "$tmp/ktap"
kunit "$tmp/ktap" >"$tmp/kunit" 2>&1
nok "without complaint" grep -E 'ERROR|CRASHED|missing' "$tmp/kunit"
ok "and counts the same" like "$tmp/kunit" 'passed: 5, skipped: 3'
report "$bad"
is "a bad run is not" "$rc" 1
nok "prove sees the failure" prove -e cat "$tmp/ktap"

# One process for all streams: each by itself would take a second.
cat >"$tmp/all.py" <<'END'
import io
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

tree, tmp = sys.argv[1], Path(sys.argv[2])
sys.path[:0] = ["lab/py", f"{tree}/tools/testing/kunit"]
import kunit_junit
import kunit_parser
import kunit_printer
import record
import report
import results


def counts(found):
    """Passed and skipped of report.json, where a program without tests counts itself."""
    statuses = [t["status"] for p in found["programs"] for t in p["tests"] or [p]]
    statuses += [r["status"] for r in found["lab"]]
    return len(statuses) - statuses.count("skip"), statuses.count("skip")


total = 0

for folder in sorted((tmp / "runs").glob("*/*")):
    ktap, said = io.StringIO(), io.StringIO()
    status = report.write([folder], ktap, io.StringIO())
    lines = ktap.getvalue().splitlines()
    test = kunit_parser.parse_run_tests(lines, kunit_printer.Printer(output=said))
    is_good = test.status in (kunit_parser.TestStatus.SUCCESS, kunit_parser.TestStatus.SKIPPED)
    if re.search("ERROR|CRASHED", said.getvalue()) or is_good == bool(status):
        print(f"{folder.name}: status {status}, kunit's {test.status}\n{said.getvalue()}")
    (tmp / ("bad" if status else "good") / folder.name).write_text(ktap.getvalue())
    if status:
        continue
    found = results.document(record.Run(folder))
    theirs = ET.fromstring(kunit_junit.get_junit_result(test))
    ours = ET.fromstring(results.junit(found).encode())
    said = {"report.json": counts(found), "kunit.py": (test.counts.passed, test.counts.skipped),
            "report.xml": len(list(ours.iter("testcase"))), "kunit.py's JUnit": len(list(theirs.iter("testcase")))}
    if said["report.json"] != said["kunit.py"] or \
            not said["report.xml"] == said["kunit.py's JUnit"] == sum(said["report.json"]):
        print(f"{folder.name}: {said}")
    total += len(found["programs"]) + len(found["lab"])
(tmp / "total").write_text(f"{total}\n")
END
mkdir "$tmp/good" "$tmp/bad"
python3 -B "$tmp/all.py" "$tree" "$tmp" >"$tmp/wrong" 2>&1
is "kunit.py reads every report and judges it in the same way, and counts as we do" "$(cat "$tmp/wrong")" ""
prove -e cat "$tmp"/good/* >"$tmp/prove" 2>&1
is "prove passes every good one" $? 0
ok "and counts as report.json does" like "$tmp/prove" "Tests=$(cat "$tmp/total"),"
prove -e cat "$tmp"/bad/* >"$tmp/prove" 2>&1
is "and fails every bad one" "$(grep -c 'Wstat:' "$tmp/prove")" "$(find "$tmp/bad" -type f | wc -l)"
nok "without complaint" grep 'Parse errors' "$tmp/prove"

# --- report.xml ---

# Another parser, and the lists of what the formats of Jenkins and of Ant have in common.
cat >"$tmp/junit.py" <<'END'
import sys
from xml.dom import minidom

sys.path.insert(0, "lab/py")
from pathlib import Path
import record
import results

TAKES = {"testsuites": {"name", "time", "tests", "failures", "errors"},
         "testsuite": {"name", "time", "timestamp", "tests", "failures", "errors", "skipped"},
         "testcase": {"name", "classname", "time"}, "failure": {"message", "type"},
         "error": {"message", "type"}, "skipped": {"message"}}
NEEDS = {"testsuite": {"name", "tests"}, "testcase": {"name", "classname"}}
INSIDE = {"testsuites": {"testsuite"}, "testsuite": {"testcase"}, "testcase": {"failure", "error", "skipped"}}


def walk(node):
    names = set(node.attributes.keys())
    children = [c for c in node.childNodes if c.nodeType == c.ELEMENT_NODE]
    if names - TAKES[node.tagName] or NEEDS.get(node.tagName, set()) - names:
        print(node.toxml()[:200])
    if any(c.tagName not in INSIDE.get(node.tagName, ()) for c in children):
        print(f"{node.tagName}: {[c.tagName for c in children]}")
    for child in children:
        walk(child)


for folder in sorted(Path(sys.argv[1]).glob("*/*")):
    walk(minidom.parseString(results.junit(results.document(record.Run(folder))).encode()).documentElement)
END
python3 -B "$tmp/junit.py" "$tmp/runs" >"$tmp/wrong" 2>&1
is "report.xml is JUnit" "$(cat "$tmp/wrong")" ""

# --- bad input ---

report "$tmp/nowhere"
is "a folder that is not there: one line" "$rc $(cat "$tmp/summary")" \
	"1 lab: $tmp/nowhere is no folder: give one that lab/run has written"
