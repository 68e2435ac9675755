# SPDX-License-Identifier: GPL-2.0-only
"""QEMU as a machine of the lab: boot, save, and a copy for each program; with a QEMU that
is made up."""

import os
import shutil
import tempfile
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import qemu
from common import LabError
from machines import Machines

FAKE = '''#!/usr/bin/env python3
import json, os, re, socket, sys, time
words = sys.argv[1:]
text = " ".join(words)
mode = os.environ["FAKE_QEMU"]
if "--version" in words:
    print("QEMU emulator version 7.2.1")
    sys.exit(0)
ready = re.search(r"path=(\\S+/ready)", text).group(1)
serial = re.findall(r"file:(\\S+\\.log)", text)
if "-incoming" in words:
    job = re.search(r"opt/lab/job,file=(\\S+)", text).group(1)
    open(serial[1], "w").write(open(job).read())
    if mode == "hang":
        time.sleep(60)
    sys.exit({"reset": 0, "error": 3}.get(mode, 1))
if mode == "no-boot":
    sys.exit(1)
listener = socket.socket(socket.AF_UNIX)
listener.bind(re.search(r"unix:(\\S+?),", text).group(1))
listener.listen(1)
if mode != "slow":
    open(ready, "w").write("!")
peer = listener.accept()[0]
file = peer.makefile("rw")
def answer(what):
    file.write(json.dumps(what) + "\\n")
    file.flush()
answer({"QMP": {}})
for line in file:
    word = json.loads(line)
    if word["execute"] == "migrate":
        if mode == "refuses":
            answer({"error": {"desc": "not now"}})
            continue
        open(word["arguments"]["uri"].split(">")[1], "w").write("state")
    answer({"event": "SOMETHING"})
    answer({"return": {"status": "failed" if mode == "fails" else "completed"}})
time.sleep(60)
'''


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp)
        (self.tmp / "bin").mkdir()
        fake = self.tmp / "bin" / qemu.PROGRAM
        fake.write_text(FAKE)
        fake.chmod(0o755)
        for name in ("boot", "work", "copy"):
            (self.tmp / name).mkdir()
        (self.tmp / "job").write_text("the job")
        self.server = qemu.Server(self.tmp / "boot")
        self.addCleanup(self.server.close)

    def boot(self, mode):
        new = {"PATH": f"{self.tmp}/bin:{os.environ['PATH']}", "FAKE_QEMU": mode}
        patch = mock.patch.dict(os.environ, new)
        patch.start()
        self.addCleanup(patch.stop)
        parts = SimpleNamespace(cpu=Machines().cpu("qemu-max"), image=self.tmp / "vmlinuz", words="quiet")
        self.server.boot(parts, SimpleNamespace(memory=512), b"initrd", self.tmp / "work")

    def wait(self, wanted=True):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            ready = self.server.is_ready(0.1)
            if ready is wanted:
                return
            self.assertIs(ready, False)
        self.fail(f"never {wanted}")

    def lines(self, word):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for line in self.server.receive(0.1):
                if line.startswith(word):
                    return line.split(" ")
        return self.fail(f"no {word}")

    def copy(self):
        """Start a copy; returns its process."""
        self.server.send(f"run {self.tmp}/copy {self.tmp}/job 1")
        _, pid, folder = self.lines("begin")
        self.assertEqual(folder, f"{self.tmp}/copy")
        return int(pid)


class Boot(Case):
    def test_ready_and_saved(self):
        self.boot("ok")
        self.wait()
        self.server.save()
        self.assertEqual((self.tmp / "work/state").read_text(), "state")
        self.assertIsNotNone(self.server.child.poll())

    def test_slow(self):
        self.boot("slow")
        self.assertIs(self.server.is_ready(0.5), False)

    def test_dies(self):
        self.boot("no-boot")
        self.wait(None)

    def test_cannot_be_saved(self):
        for mode, why in (("refuses", "QEMU refuses migrate: not now"), ("fails", "cannot save the machine: failed")):
            with self.subTest(mode):
                self.boot(mode)
                self.wait()
                with self.assertRaisesRegex(LabError, why):
                    self.server.save()
                self.server.close()
                (self.tmp / "work/qmp").unlink()

    def test_name(self):
        self.boot("slow")
        self.assertEqual(qemu.name(), "QEMU emulator version 7.2.1")


class Copies(Case):
    def ends(self, mode, status):
        self.boot(mode)
        self.wait()
        self.server.save()
        pid = self.copy()
        word, ended, got, cpu, kib = self.lines("end")
        self.assertEqual((int(ended), int(got)), (pid, status))
        self.assertGreater(float(cpu), 0)
        self.assertGreater(int(kib), 0)

    def test_end(self):
        self.ends("ok", 0)
        self.assertEqual((self.tmp / "copy/results.log").read_text(), "the job")

    def test_reset(self):
        self.ends("reset", 1 << 8)

    def test_fault_of_qemu(self):
        self.ends("error", 3 << 8)

    def test_kill(self):
        self.boot("hang")
        self.wait()
        self.server.save()
        pid = self.copy()
        self.server.send(f"kill {pid}")
        self.assertEqual(self.lines("end")[1:3], [str(pid), "9"])
        self.server.send(f"kill {pid}")

    def test_close_leaves_nothing(self):
        self.boot("hang")
        self.wait()
        self.server.save()
        pid = self.copy()
        self.server.close()
        self.assertFalse(Path(f"/proc/{pid}").exists())


if __name__ == "__main__":
    unittest.main()
