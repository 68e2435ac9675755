# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel on the emulated host and run programs on copies of the machine.

(under construction; the interface below stands)
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Job:
    """A program to run."""
    name: str                   # kvm/x86_64/xfd_test, or with a test: ...:xfd.amx.nm
    seconds: int                # its limit, in time inside the machine
    program: Path
    arguments: list = field(default_factory=list)
    files: list = field(default_factory=list)   # go to /lab/files of its machine


@dataclass
class Options:
    out: Path                   # folder of the run; see record.py
    jobs: list                  # of Job
    kernel: str = "newest"      # a series, an exact version, a folder, or an image
    modules: str = ""           # folder of the modules of an image
    cpu: str = "spr"            # of lab/machines
    append: str = ""            # more kernel command line
    params: str = ""            # "MODULE.NAME=VALUE ..."
    memory: int = 1024          # MiB
    limit: int = 1800           # seconds of wall time for all of it
    parallel: int = 0           # jobs at a time; 0: one for each processor
    ordered: bool = False       # jobs in their order, not the longest first
    fast: bool = False          # stop at the first program that fails
    together: bool = False      # all programs one after the other in one machine
    once: bool = False          # this kernel does not come back: keep nothing of it
    seed: int = 1               # what the machine draws at random follows from it
    keep: int = 0               # seconds that the booted machine waits for the next run


def run(options):
    """Do it; returns the record.Run.  LabError only where nothing could be started."""
    raise NotImplementedError(options)
