# SPDX-License-Identifier: GPL-2.0-only
"""What a run says about the kernel, for "git bisect run".

use: lab/verdict OUT		OUT as lab/kselftest left it

One line on stdout, and the exit status that git understands:

	0	good		nothing is "not ok", and at least one test passed
	1	bad REASON	a test failed, or the kernel warned, died or hung after
				the first program had started
	125	skip REASON	it cannot be told: no boot, nothing but skipped tests, or a run
				that came to no end for a reason that is not the kernel's

A test that is expected to fail on known kernels (XFAIL) decides only where nothing
passed, which is where it was the only one asked for: then it is bad.
"""

import sys
from pathlib import Path

import record


# Ends of a run for which its programs fail, whatever the kernel.
NOT_THE_KERNEL = ("interrupted", "disk", "died")


def judge(folder):
    """Exit status and line for the run in folder."""
    run = record.Run(folder)
    if not any(p.began for p in run.programs):
        return 125, f"skip: the kernel did not come up: {(run.problems or ['no run'])[0]}"
    if run.record.get("end") in NOT_THE_KERNEL:
        return 125, f"skip: {run.problems[0]}"
    bad = first_failure(run)
    if bad:
        return 1, f"bad: {bad}"
    # Tests are nested; a program without any counts itself.
    counts = {"pass": 0, "skip": 0, "xfail": 0}
    for program in run.programs:
        for status in [r.status for r in program.results] or [program.status]:
            counts[status] += 1
    if counts["pass"]:
        return 0, f"good: {counts['pass']} passed"
    if counts["xfail"]:
        return 1, f"bad: {counts['xfail']} failed as expected, none passed"
    return 125, f"skip: none of {counts['skip']} tests could be told"


def first_failure(run):
    for program in run.programs:
        for result in program.results:
            if result.status == "fail":
                return result.name
        if program.status == "fail":
            return f"{program.name}: {program.errors[0]}" if program.errors else program.name
    for result in run.extra_results():
        # Nothing but skips is no failure here.
        problems = [d for d in result.diagnostics if "nothing was tested" not in d]
        if result.status == "fail" and problems:
            return problems[0].removeprefix("# ")
    return ""


def main(arguments):
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("lab: use: lab/verdict OUT, a folder that lab/kselftest has written", file=sys.stderr)
        return 125
    try:
        status, line = judge(Path(arguments[0]))
    except Exception as error:      # of whatever kind: 1 would tell git of a bad kernel
        status, line = 125, f"skip: cannot judge {arguments[0]}: {error!r}"
    print(line)
    return status
