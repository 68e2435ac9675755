# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's software emulation as a machine of the lab: what bots run on who own no such CPU.

QEMU does not fork as the emulator does.  The machine boots, says that it is ready, and
its state goes to a file; each program then gets a QEMU of its own that begins with that
state.  To lab/py/host.py this looks as the emulator's fork server does.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from common import call, die, need
from machines import START_TIME

PROGRAM = "qemu-system-x86_64"
# isa-debug-exit makes an exit status of 2 * value + 1 of what the guest writes.
ENDED = 1
START = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START_TIME))
MIGRATION = 120                 # seconds that the state may take to get into its file


def name():
    """Program and version, for what depends on it."""
    need(PROGRAM, "qemu-system-x86")
    return call([PROGRAM, "--version"], 30, output=True).splitlines()[0]


def command(parts, options, initrd, logs, job):
    """The words that all machines of a run share."""
    # With a thread for each CPU, one may go on executing the INT3 with which Linux
    # patches its code after the other has taken it away, for ever.
    # Time is that out here: where others have the processors, no tick may come while
    # Linux looks for some, and it panics.
    return [
        PROGRAM, "-machine", "pc", "-accel", "tcg,thread=single",
        "-cpu", ",".join([parts.cpu.model, *parts.cpu.changes]), "-smp", str(parts.cpu.count),
        "-m", str(options.memory), "-display", "none", "-nodefaults", "-no-reboot",
        "-rtc", f"base={START}", "-kernel", str(parts.image), "-initrd", str(initrd),
        "-append", f"{parts.words} no_timer_check", "-serial", f"file:{logs}/console.log", "-serial", f"file:{logs}/results.log",
        "-D", f"{logs}/emulator.log", "-fw_cfg", f"name=opt/lab/job,file={job}",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]


def spawn(words, logs):
    """A QEMU that ends with this process."""
    words = ["setpriv", "--pdeathsig", "KILL", "--", *words]
    with open(logs / "emulator.log", "ab") as out:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)


class Monitor:
    """QEMU's machine protocol, as far as it takes to save a machine."""

    def __init__(self, path, seconds):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(seconds)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()

    def ask(self, what, **arguments):
        self.socket.sendall(json.dumps({"execute": what, "arguments": arguments}).encode() + b"\n")
        while line := self.lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                die(f"QEMU refuses {what}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]
        return die(f"QEMU ended at {what}")

    def save(self, path):
        self.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.ask("migrate", uri=f"exec:cat >{path}")
        end = time.monotonic() + MIGRATION
        while time.monotonic() < end:
            status = self.ask("query-migrate").get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                break
            time.sleep(0.05)
        die(f"QEMU cannot save the machine: {status}")


class Server:
    """A booted machine and the copies of it; the interface is that of host.Server."""

    def __init__(self, logs):
        self.logs = logs
        self.child, self.pid = None, 0
        self.copies, self.lines = {}, []
        self.words = self.work = self.state = None

    def boot(self, parts, options, initrd, work):
        for log in ("console.log", "results.log"):
            (self.logs / log).write_bytes(b"")
        (work / "initrd").write_bytes(initrd)
        (work / "nothing").write_bytes(b"-")
        (work / "ready").write_bytes(b"")
        self.work, self.state = work, work / "state"
        self.words = lambda logs, job: command(parts, options, work / "initrd", logs, job) + [
            "-chardev", f"file,id=ready,path={work}/ready", "-device", "isa-debugcon,iobase=0xe9,chardev=ready"]
        self.child = spawn(self.words(self.logs, work / "nothing") +
                           ["-qmp", f"unix:{work}/qmp,server=on,wait=off"], self.logs)
        self.pid = self.child.pid

    def is_ready(self, seconds):
        """Whether the machine has booted, after a wait of so many seconds; None if it has gone."""
        end = time.monotonic() + seconds
        while self.child.poll() is None:
            if (self.work / "ready").stat().st_size > 0:
                return True
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return None

    def save(self):
        """Put the state aside, and end the machine that booted."""
        try:
            with Monitor(self.work / "qmp", MIGRATION) as monitor:
                monitor.save(self.state)
        except (OSError, ValueError) as error:
            die(f"QEMU cannot save the machine: {error}")
        end_process(self.child)

    def receive(self, seconds):
        end = time.monotonic() + seconds
        while True:
            for pid in list(self.copies):
                self.reap(pid)
            if self.lines or time.monotonic() >= end:
                lines, self.lines = self.lines, []
                return lines
            time.sleep(0.02)

    def reap(self, pid):
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if not ended:
            return
        child = self.copies.pop(pid)
        child.returncode = os.waitstatus_to_exitcode(status)
        # A machine that is reset leaves QEMU with status 0, one that ends as it should with 1.
        status = {ENDED << 8: 0, 0: ENDED << 8}.get(status, status)
        self.lines.append(f"end {pid} {status} {usage.ru_utime + usage.ru_stime:.2f} {usage.ru_maxrss}")

    def send(self, line):
        word, *rest = line.split(" ")
        if word == "run":
            logs = Path(rest[0])
            child = spawn(self.words(logs, rest[1]) + ["-incoming", f"exec:cat {self.state}"], logs)
            self.copies[child.pid] = child
            self.lines.append(f"begin {child.pid} {logs}")
        elif word == "kill" and int(rest[0]) in self.copies:
            with contextlib.suppress(OSError):
                os.kill(int(rest[0]), signal.SIGKILL)

    def close(self):
        for child in [self.child, *self.copies.values()]:
            if child:
                end_process(child)


def end_process(child):
    with contextlib.suppress(OSError):
        child.kill()
    child.wait()


def check():
    """What it takes, before anything else is done."""
    need(PROGRAM, "qemu-system-x86")
    need("setpriv", "util-linux")
