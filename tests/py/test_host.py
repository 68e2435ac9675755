# SPDX-License-Identifier: GPL-2.0-only
"""lab/py/host.py without a boot: what a machine is made of, and a run with a server
that only looks like the emulator."""

import contextlib
import gzip
import io
import lzma
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runs                         # finds lab/py
import common
import host
import observer
import record
from common import LabError
from machines import Machines

assert runs.TOP in Path(host.__file__).parents
BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox")

# Speaks the protocol of lab/emulator/bochs/29-fork-server.patch; a copy does what the
# first word of its program's list line says.
FAKE_BOCHS = r'''#!/usr/bin/env python3
import ctypes, os, re, signal, socket, sys, time

prctl = ctypes.CDLL(None).prctl
server = os.getpid()
mode = os.environ.get("FAKE", "")
config = sys.argv[-1]
if os.path.exists(config):
    with open(re.search(r"com1:.*dev=(\S+)", open(config).read())[1], "wb") as log:
        log.write(b"[    0.000000] Linux version 7.3.4-fake (builder)\n")
if mode == "no-boot":
    sys.exit("it cannot boot")
listener = socket.socket(fileno=int(os.environ["LAB_SERVER"]))
listener.settimeout(10)
if mode == "slow-boot":
    time.sleep(100)
client = listener.accept()[0]
say = lambda text: client.sendall(text.encode("utf-8", "surrogateescape") + b"\n")
if mode == "garbage":
    client.sendall(b"\xff\xfe\x80\nbegin\nbegin x /nowhere\nend 1\nend x y z\nfailed\nfailed /nowhere\n\n")
say("ready")
copies = {}

def become(folder, payload):
    def to(name, text):
        with open(f"{folder}/{name}.log", "ab") as log:
            log.write(text)
    data = open(payload, "rb").read()
    name = re.search(rb"\njob (\S+) \d+ /lab/bin", data[data.rindex(b"lab/list\0"):]
                     .replace(b"\0", b"\n")).group(1)
    to("console", b"[    1.000000] lab: begin " + name + b"\n")
    to("results", b"@lab begin " + name + b"\n")
    what = name.decode().partition("-")[0]
    if what == "panic":
        to("console", b"[    1.1] Kernel panic - not sync")
        time.sleep(0.7)
        to("console", b"ing: made up\n")
        time.sleep(100)
    if what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "sleep":
        time.sleep(100)
    if what == "flood":
        while True:
            to("results", b"x" * 100000 + b"\n")
            time.sleep(0.001)
    if what == "warn":
        to("console", b"[    1.2] WARNING: made up\n")
    code = {"fail": 1, "skip": 4}.get(what, 0)
    taint = 512 if what == "taint" else 0
    to("results", b"1..1\nok 1 fine\n\n@lab end %s %d\n@lab done %d\n" % (name, code, taint))
    to("console", b"[    1.5] lab: end " + name + b"\n")
    os._exit(1 if what == "poweroff" else 0)

text = b""
import select
while True:
    if select.select([client], [], [], 0.02)[0]:
        got = client.recv(4096)
        if not got:
            break
        text += got
    *lines, text = text.split(b"\n")
    for line in lines:
        word, *rest = line.decode().split()
        if word == "run":
            if "refuse" in rest[0]:
                say(f"failed {rest[0]} Cannot allocate memory")
                continue
            if "silent" in rest[0]:
                continue
            pid = os.fork()
            if pid == 0:
                prctl(1, signal.SIGKILL)        # PR_SET_PDEATHSIG
                if os.getppid() != server:
                    os._exit(1)
                become(rest[0], rest[1])
            copies[pid] = rest[0]
            say(f"begin {pid} {rest[0]}")
            if "leave" in rest[0]:
                os.kill(pid, signal.SIGKILL)
                sys.exit(3)
        elif word == "kill" and int(rest[0]) in copies:
            os.kill(int(rest[0]), signal.SIGKILL)
        elif word == "keep":
            say("kept")
    while copies:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if not pid:
            break
        del copies[pid]
        say(f"end {pid} {status} {usage.ru_utime:.2f} {usage.ru_maxrss}")
for pid in copies:
    os.kill(pid, signal.SIGKILL)
'''


class Case(unittest.TestCase):
    """With a scratch folder, and a cache of its own."""

    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)
        changed = mock.patch.dict(os.environ, CACHE=str(self.tmp / "cache"), VERBOSE="0")
        changed.start()
        self.addCleanup(changed.stop)

    def file(self, name, data=b"", mode=0o644):
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        path.chmod(mode)
        return path

    def job(self, name, seconds=60, arguments=(), files=()):
        return host.Job(name, seconds, self.file(f"bin/{name.replace('/', '_')}", b"#!", 0o755),
                        list(arguments), list(files))

    def options(self, *jobs, **more):
        return host.Options(out=self.tmp / "out", jobs=list(jobs), **more)

    @contextlib.contextmanager
    def dies(self, regex):
        with self.assertRaisesRegex(LabError, regex) as caught:
            yield
        self.assertEqual(str(caught.exception).count("\n"), 0)

    def unpacked(self, data):
        """{path: (type and mode, contents)} of an archive, as cpio(1) sees it."""
        folder = Path(tempfile.mkdtemp(dir=self.tmp))
        done = subprocess.run(["cpio", "-idm", "--quiet"], input=data, cwd=folder, stderr=subprocess.PIPE,
                              check=True, timeout=60)
        self.assertEqual(done.stderr, b"")
        found = {}
        for path in folder.rglob("*"):
            found[str(path.relative_to(folder))] = (
                path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        return found


class Archive(Case):
    def test_files_of_every_length_modes_and_folders(self):
        archive, wanted = host.Archive(), {}
        for size in (*range(9), 511, 512, 513, 100000):
            for mode in (0o644, 0o755, 0o400):
                path = f"a/{'n' * (size % 7 + 1)}/{size}-{mode:o}"
                data = os.urandom(size)
                archive.add(path, data, mode)
                wanted[path] = (stat.S_IFREG | mode, data)
        for path in list(wanted):
            for parent in list(Path(path).parents)[:-1]:
                wanted[str(parent)] = (stat.S_IFDIR | 0o755, b"")
        self.assertEqual(self.unpacked(archive.bytes()), wanted)

    def test_folder_comes_once_and_before_its_files(self):
        archive = host.Archive()
        for name in ("x/y/a", "x/y/b", "x/c", "d"):
            archive.add(name, b"")
        listed = subprocess.run(["cpio", "-it", "--quiet"], input=archive.bytes(), stdout=subprocess.PIPE,
                                check=True, timeout=60).stdout.decode().split()
        self.assertEqual(listed, ["x", "x/y", "x/y/a", "x/y/b", "x/c", "d"])

    def test_empty(self):
        self.assertEqual(self.unpacked(host.Archive().bytes()), {})

    def test_same_contents_are_the_same_bytes(self):
        def make():
            archive = host.Archive()
            archive.add("a/b", b"c")
            return archive.bytes()
        self.assertEqual(make(), make())


class Payload(Case):
    def test_programs_arguments_and_files(self):
        secret = self.file("data/secret", b"s", 0o600)
        tool = self.file("data/tool", b"t", 0o755)
        jobs = [self.job("kvm/a", 10, ["-r", "x.y"], [secret]), self.job("b", 20, files=[secret, tool])]
        found = self.unpacked(host.payload(jobs))
        self.assertEqual(found["lab/list"][1],
                         b"job kvm/a 10 /lab/bin/0/kvm_a -r x.y\njob b 20 /lab/bin/1/b\n")
        self.assertEqual(found["lab/bin/0/kvm_a"], (stat.S_IFREG | 0o755, b"#!"))
        self.assertEqual(found["lab/files/secret"], (stat.S_IFREG | 0o600, b"s"))
        self.assertEqual(found["lab/files/tool"], (stat.S_IFREG | 0o755, b"t"))

    def test_two_programs_of_one_name_have_their_folders(self):
        one, other = self.job("a"), self.job("a")
        other.program = self.file("other/a", b"#!/bin/sh other", 0o755)
        found = self.unpacked(host.payload([one, other]))
        self.assertEqual(found["lab/bin/0/a"][1], b"#!")
        self.assertEqual(found["lab/bin/1/a"][1], b"#!/bin/sh other")


class Initramfs(Case):
    def parts(self, cpu="spr", names=host.MODULES):
        for name in names:
            self.file(f"modules/{name}.ko", name)
        self.file("job/job", b"job", 0o755)
        return host.Parts(Machines().cpu(cpu), self.tmp, self.tmp / "modules", self.tmp / "job", "",
                          boot=self.tmp / "boot", bios=self.tmp, emulator=self.tmp)

    def list(self, params="", **more):
        found = self.unpacked(host.initramfs(self.parts(**more), params))
        return found["lab/modules/list"][1].decode().splitlines()

    def test_contents(self):
        found = self.unpacked(host.initramfs(self.parts(), ""))
        self.assertEqual(found["init"], (stat.S_IFREG | 0o755, (host.LAB / "guest/init").read_bytes()))
        self.assertEqual(found["bin/busybox"], (stat.S_IFREG | 0o755, BUSYBOX.read_bytes()))
        self.assertEqual(found["lab/job"], (stat.S_IFREG | 0o755, b"job"))
        self.assertEqual(found["lab/modules/kvm.ko"][1], b"kvm")

    def test_modules_are_in_the_order_of_loading(self):
        self.assertEqual(self.list(), ["irqbypass.ko", "kvm.ko", "kvm-intel.ko", "msr.ko", "cpuid.ko"])

    def test_amd_takes_its_module(self):
        self.assertEqual(self.list(cpu="ryzen"),
                         ["irqbypass.ko", "kvm.ko", "kvm-amd.ko", "msr.ko", "cpuid.ko"])

    def test_modules_that_are_built_in(self):
        self.assertEqual(self.list(names=("kvm", "kvm-intel")), ["kvm.ko", "kvm-intel.ko"])

    def test_parameters_with_dash_and_underscore(self):
        lines = self.list("kvm.ignore_msrs=1 kvm_intel.ept=0 kvm-intel.nested=1 kvm.x=a.b")
        self.assertEqual(lines[1:3], ["kvm.ko ignore_msrs=1 x=a.b", "kvm-intel.ko ept=0 nested=1"])

    def test_parameters_that_nobody_takes(self):
        for word in ("typo", "kvm", "kvm.x", "kvm_amd.avic=1", "nokvm.x=1"):
            with self.subTest(word), self.dies(f"^PARAMS='{word}' is no MODULE.NAME=VALUE"):
                self.list(f"kvm.ignore_msrs=1 {word}")

    def test_same_parts_are_the_same_bytes(self):
        self.assertEqual(host.initramfs(self.parts(), ""), host.initramfs(self.parts(), ""))


class Modules(Case):
    def test_files_of_all_kinds(self):
        text = b"module" * 100
        zstd = subprocess.run(["zstd", "-q"], input=text, stdout=subprocess.PIPE, check=True,
                              timeout=60).stdout
        for name, data in (("x86/kvm/kvm.ko.xz", lzma.compress(text)), ("x86/kvm/kvm-intel.ko.zst", zstd),
                           ("x86/kvm/kvm-amd.ko.gz", gzip.compress(text)), ("virt/irqbypass.ko", text),
                           ("net/other.ko", b""), ("x86/kvm/kvm.ko.sig", b""), ("x86/kvmgt.ko", b"")):
            self.file("modules/" + name, data)
        found = host.module_files(self.tmp / "modules")
        self.assertEqual(list(found), ["irqbypass", "kvm", "kvm-intel", "kvm-amd"])
        for path in found.values():
            self.assertEqual(host.unpack(path), text, path)

    def test_underscore_in_the_name_of_a_file(self):
        self.file("modules/kvm_intel.ko")
        self.assertEqual(list(host.module_files(self.tmp / "modules")), ["kvm-intel"])

    def test_no_modules(self):
        (self.tmp / "modules").mkdir()
        self.assertEqual(host.module_files(self.tmp / "modules"), {})

    def test_damaged_ones(self):
        for suffix in ("xz", "zst", "gz"):
            with self.subTest(suffix), self.dies(rf"^cannot unpack the module .*kvm\.ko\.{suffix}"):
                host.unpack(self.file(f"kvm.ko.{suffix}", b"\xffno archive"))
        half = gzip.compress(os.urandom(1000))[:500]
        with self.dies("^cannot unpack the module"):
            host.unpack(self.file("half.ko.gz", half))


class Check(Case):
    def test_what_is_missing(self):
        job = self.job("a")
        for options, regex in (
                (self.options(), "^nothing to run: name a program or a list"),
                (self.options(job, memory=255), "^-M 255: the host needs at least 256 MiB"),
                (self.options(host.Job("a", 1, self.tmp / "none")), "^no program .*/none: build it first"),
                (self.options(host.Job("a", 1, self.tmp)), "^no program "),
                (self.options(host.Job("a", 1, self.file("plain"))), "/plain is not executable$"),
                (self.options(self.job("a", files=[self.tmp / "none"])), "^no file .*/none to copy"),
                (self.options(job, cpu="z80"), r"^no CPU 'z80': there are spr, ")):
            with self.subTest(regex), self.dies(regex):
                host.check(options)
        host.check(self.options(job))

    def test_kernels(self):
        image, folder = self.file("vmlinuz"), self.file("kernel/vmlinuz").parent
        for kernel, modules, regex in (
                (self.tmp / "none", "", "^cannot read the kernel .*/none: give a Debian series"),
                (image, "", "^-k .*/vmlinuz also needs the folder of its modules"),
                (image, self.tmp / "none", "^no folder of modules: .*/none"),
                (folder, "", "^no folder of modules: .*/kernel/modules"),
                (self.tmp, "", "^-k .* also needs|^no folder of modules")):
            with self.subTest(regex), self.dies(regex):
                host.find_kernel(self.options(kernel=str(kernel), modules=str(modules or "")))
        (folder / "modules").mkdir()
        found = folder / "vmlinuz", folder / "modules"
        self.assertEqual(host.find_kernel(self.options(kernel=str(folder))), found)
        with mock.patch("host.script", return_value=str(folder)) as script:
            self.assertEqual(host.find_kernel(self.options(kernel="faults")), found)
        script.assert_called_once_with("kernel/build", "-c", "faults", Machines().newest)

    def test_folder_with_things_of_others(self):
        """O=/ has a folder boot."""
        for name in ("boot", "jobs"):
            with self.subTest(name):
                kept = self.file(f"{name}-out/{name}/kept")
                with self.dies(f"/{name} is there, and not of the lab: choose another folder"):
                    host.run(host.Options(out=kept.parents[1], jobs=[self.job("a")]))
                self.assertTrue(kept.exists())
                self.assertFalse((kept.parents[1] / ".lock").exists())

    def test_folder_that_another_run_has(self):
        (self.tmp / "out").mkdir()
        with common.locked(self.tmp / "out/.lock"), self.dies("^another lab is running in .*: choose"):
            host.run(self.options(self.job("a")))


class Configure(Case):
    def make(self, cpu="spr-noamx", **more):
        vars_ = {"PVH": 0x1000000, "ENTRY": 0x1000000, "LOAD": 0x1000000, "TOP_ADDR": 0x4000000} | more
        self.file("boot/vars", "".join(f"{n}={v:#x}\n" for n, v in vars_.items()))
        self.file("boot/params.bin", bytes(4096))
        work = self.tmp / "parts"
        work.mkdir(exist_ok=True)
        parts = host.Parts(Machines().cpu(cpu), self.tmp, self.tmp, self.tmp, "console=ttyS0 words",
                           boot=self.tmp / "boot", bios=self.tmp / "bios", emulator=self.tmp)
        path = host.configure(parts, self.options(memory=512), b"initrd", work, self.tmp / "out/boot")
        return path.read_text()

    def test_lines(self):
        text = self.make()
        for line in ("megs: 512", f"com1: enabled=1, mode=file, dev={self.tmp}/out/boot/console.log",
                     f"com2: enabled=1, mode=file, dev={self.tmp}/out/boot/results.log",
                     f"optramimage1: file={self.tmp}/boot/kernel.bin, address=0x1000000",
                     f"optramimage2: file={self.tmp}/parts/initrd, address=0x5000000",
                     f"optramimage3: file={self.tmp}/parts/cmdline, address=0x4e00000"):
            self.assertIn(line + "\n", text)
        self.assertIn('add_features="", exclude_features="xfd amx amx_int8 amx_bf16"\n', text)
        self.assertNotIn("optramimage4", text)
        self.assertEqual((self.tmp / "parts/cmdline").read_bytes(), b"console=ttyS0 words\0")
        self.assertEqual((self.tmp / "parts/floppy").stat().st_size, 1474560)
        self.assertEqual((self.tmp / "parts/floppy").read_bytes()[510:512], b"\x55\xaa")

    def test_added_features(self):
        self.assertRegex(self.make("ryzen-cet"), 'model=ryzen, .*add_features="cet cet_ss pku .*", exclude_features=""\n')

    def test_without_pvh_the_parameters_are_poked(self):
        self.assertIn(f"optramimage4: file={self.tmp}/parts/params.bin, address=0x4f00000\n", self.make(PVH=0))
        params = (self.tmp / "parts/params.bin").read_bytes()
        self.assertEqual(params[0x218:0x220], (0x5000000).to_bytes(4, "little") + (6).to_bytes(4, "little"))
        self.assertEqual(params[0x228:0x22c], (0x4e00000).to_bytes(4, "little"))

    def test_speed(self):
        for words, speed in ("console=ttyS0", 200000000), ("quiet tsc_early_khz=25000", 25000000):
            self.assertEqual(speed, host.hertz(words))
        self.assertIn("count=1, ips=200000000, ", self.make())

    def test_too_little_memory(self):
        with self.dies("^kernel and modules need more memory than 512 MiB: raise -M"):
            self.make(TOP_ADDR=480 << 20)


class Plan(Case):
    def order(self, *names, times="", **more):
        self.file("cache/times", times)
        options = self.options(*map(self.job, names), **more)
        self.runner = host.Runner(options, self.tmp / "out", self.tmp, None, 1)
        return [job.name for copy in self.runner.waiting for job in copy.jobs]

    def test_unknown_ones_first_then_the_longest(self):
        self.assertEqual(self.order("a", "b", "c", "d", times="a 1\nb 3.5\nd 2\n"), ["c", "b", "d", "a"])

    def test_ordered(self):
        self.assertEqual(self.order("a", "b", "c", times="c 9\n", ordered=True), ["a", "b", "c"])

    def test_as_they_come_if_nothing_is_known(self):
        self.assertEqual(self.order("c", "a", "b"), ["c", "a", "b"])

    def test_a_list_of_times_that_is_garbage(self):
        for times in ("a\n", "a x\n", "\xff\n", "a 1 2\n"):
            self.assertEqual(self.order("b", "a", times=times), ["b", "a"])

    def test_folders(self):
        self.order("kvm/x", "x86/y", "z:a.b")
        self.assertEqual([str(c.folder.relative_to(self.tmp / "out")) for c in self.runner.copies],
                         ["jobs/000-kvm_x", "jobs/001-x86_y", "jobs/002-z_a.b"])

    def test_together(self):
        self.assertEqual(self.order("a", "b", times="b 9\n", together=True), ["a", "b"])
        self.assertEqual([c.folder.name for c in self.runner.copies], ["000-all"])

    def test_times_are_noted(self):
        common.cache()
        host.note_times({"a": 1.0, "b": 2.0})
        host.note_times({"b": 3.25})
        self.assertEqual(host.known_times(), {"a": 1.0, "b": 3.25})


class Watch(Case):
    def watch(self, limits=None, pid=0, cpus=1):
        for name in ("console.log", "results.log", "emulator.log"):
            self.file(f"logs/{name}")
        limits = {"a": 10, "b": 20} if limits is None else limits
        return host.Watch(pid or os.getpid(), self.tmp / "logs", cpus, limits)

    def add(self, name, data):
        with open(self.tmp / f"logs/{name}.log", "ab") as log:
            log.write(data)

    def cpu(self, watch, seconds):
        watch.cpu_seconds = lambda: seconds

    def test_quiet(self):
        self.assertIsNone(self.watch().look())

    def test_panic_is_given_a_second_for_more(self):
        watch = self.watch()
        self.add("console", b"[ 1.0] Kernel panic - not syncing: x\n")
        self.assertIsNone(watch.look())
        self.assertTrue(watch.panicked)
        watch.panicked -= 1
        self.assertEqual(watch.look(), ("panic", "the kernel panicked"))

    def test_panic_split_over_two_looks(self):
        text = b"[ 1.0] Kernel panic - not syncing: x\n"
        for cut in range(1, len(text)):
            watch = self.watch()
            (self.tmp / "logs/console.log").write_bytes(b"y" * 1000)
            watch.look()
            self.add("console", text[:cut])
            watch.look()
            self.add("console", text[cut:])
            watch.look()
            self.assertTrue(watch.panicked, cut)

    def test_panic_that_a_program_prints_is_none(self):
        watch = self.watch()
        self.add("results", b"Kernel panic - not syncing: x\n")
        watch.look()
        self.assertFalse(watch.panicked)

    def test_budget_is_that_of_the_running_program(self):
        watch = self.watch()
        self.add("results", b"@lab begin a\n")
        self.cpu(watch, 5)
        self.assertIsNone(watch.look())
        self.cpu(watch, 5 + 59.9)
        self.assertIsNone(watch.look())
        self.add("results", b"\n@lab end a 0\n@lab begin b\n")
        self.assertIsNone(watch.look())
        self.cpu(watch, 64.9 + 89)
        self.assertIsNone(watch.look())
        self.cpu(watch, 64.9 + 90)
        self.assertEqual(watch.look(), ("hang", "the host hung: no end after 90 s of CPU time"))

    def test_begin_marker_split_over_two_looks(self):
        watch = self.watch()
        self.add("results", b"@lab be")
        watch.look()
        self.add("results", b"gin b\n")
        watch.look()
        self.assertEqual(watch.program, "b")

    def test_budget_of_a_boot_and_of_two_processors(self):
        self.assertEqual(self.watch({}).budget(), host.BOOT_BUDGET)
        self.assertEqual(self.watch({}, cpus=2).budget(), 2 * host.BOOT_BUDGET)
        watch = self.watch(cpus=2)
        watch.program = "a"
        self.assertEqual(watch.budget(), 120)

    def test_flood(self):
        watch = self.watch()
        os.truncate(self.tmp / "logs/results.log", host.MAX_OUTPUT - 1)
        self.assertIsNone(watch.look())
        self.add("console", b"xx")
        self.assertEqual(watch.look(), ("flood", "it wrote more than 64 MiB"))

    def test_flood_of_more_than_one_look(self):
        watch = self.watch()
        os.truncate(self.tmp / "logs/results.log", 3 * host.MAX_OUTPUT)
        self.assertIsNone(watch.look())
        self.assertEqual(watch.look()[0], "flood")

    def test_stall_of_a_process_that_sleeps(self):
        child = subprocess.Popen(["sleep", "100"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        with mock.patch("shutil.which", return_value=None):
            watch = self.watch(pid=child.pid)
            watch.stall = 20
            self.assertIsNone(watch.look())
            watch.changed -= 10
            self.assertIsNone(watch.look())
            watch.changed -= 10
            self.assertEqual(watch.look(), ("stall", "the emulator stood still for 20 s (see emulator.log)"))
        self.assertIn("State:", (self.tmp / "logs/emulator.log").read_text())

    def test_process_that_has_ended(self):
        child = subprocess.Popen(["true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        watch = self.watch(pid=child.pid)
        self.assertIsNone(watch.cpu_seconds())      # a zombie
        self.assertIsNone(watch.look())
        child.wait()
        self.assertIsNone(watch.cpu_seconds())
        self.assertIsNone(watch.look())

    def test_cpu_time_is_that_of_the_process(self):
        child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        watch = self.watch(pid=child.pid)
        end = time.monotonic() + 60
        while watch.cpu_seconds() < 0.3 and time.monotonic() < end:
            time.sleep(0.1)
        self.assertGreaterEqual(watch.cpu_seconds(), 0.3)

    def test_logs_that_are_not_there(self):
        watch = host.Watch(os.getpid(), self.tmp / "nowhere", 1, {"a": 1})
        self.assertIsNone(watch.look())
        self.assertEqual(watch.news("console.log"), b"")


class Failures(Case):
    """What ends a run with fast=True."""

    def is_failure(self, results="", console="", end="ok"):
        self.file("copy/results.log", results)
        self.file("copy/console.log", console)
        return host.is_failure(host.Copy(self.tmp / "copy", [], None, end=end))

    def test_table(self):
        for code, wanted in ((0, False), (1, True), (2, False), (3, True), (4, False), (5, True), (123, True),
                             (124, False), (128, False), (137, False), (139, False), (143, False),
                             (253, False), (254, True), (255, True)):
            with self.subTest(code):
                self.assertIs(self.is_failure(f"@lab begin a\n\n@lab end a {code}\n@lab done 0\n"), wanted)

    def test_second_program_of_a_machine(self):
        self.assertTrue(self.is_failure("@lab end a 0\n@lab end b 1\n"))

    def test_taint(self):
        self.assertTrue(self.is_failure("@lab end a 0\n@lab done 512\n"))
        self.assertFalse(self.is_failure("@lab end a 0\n@lab done 0\n"))

    def test_kernel_warning(self):
        self.assertTrue(self.is_failure("@lab end a 0\n@lab done 0\n", "[ 1.0] WARNING: x\n"))
        self.assertTrue(self.is_failure("@lab end a 0\n@lab done 0\n", "[ 1.0] BUG: x\n"))
        self.assertFalse(self.is_failure("@lab end a 0\n@lab done 0\n", "[ 1.0] all is well\n"))

    def test_machine_that_died_is_none_to_stop_at(self):
        for end in ("panic", "hang", "stall", "died", "flood"):
            with self.subTest(end):
                self.assertFalse(self.is_failure("@lab begin a\n", "[ 1.0] Oops: x\nKernel panic\n", end))
                self.assertTrue(self.is_failure("@lab begin a\n", "[ 1.0] WARNING: x\nKernel panic\n", end))

    def test_garbage(self):
        self.assertFalse(self.is_failure(b"\xff\0@lab end\n", b"\xff\xfe"))


class Warm(Case):
    def waiting(self, key, pid):
        return self.file(f"cache/warm/{key}/pid", f"{pid}\n").parent

    def process(self, *words):
        child = subprocess.Popen(["sh", "-c", "while :; do sleep 0.1; done", *map(str, words)])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        # exec() has closed the pipe that Popen() waits for before it sets the words.
        while not Path(f"/proc/{child.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        return child

    def test_number_of_another_process(self):
        child = self.process("bochs", self.tmp / "cache/warm/other/bochsrc")
        host.end_warm(self.waiting("key", child.pid))
        self.assertIsNone(child.poll())
        self.assertFalse((self.tmp / "cache/warm/key").exists())

    def test_its_own_process(self):
        child = self.process("bochs", "-f", self.tmp / "cache/warm/key/bochsrc")
        host.end_warm(self.waiting("key", child.pid))
        self.assertEqual(child.wait(10), -signal.SIGKILL)
        self.assertFalse((self.tmp / "cache/warm/key").exists())

    def test_numbers_that_are_none(self):
        for text in ("", "x", "0", "-1", "999999999"):
            host.end_warm(self.waiting("key", text))
            self.assertFalse((self.tmp / "cache/warm/key").exists(), text)
        host.end_warm(self.tmp / "cache/warm/key")

    def test_stop_ends_all_but_those_in_use(self):
        common.cache()
        children = {}
        for key in ("one", "two", "used"):
            children[key] = self.process(self.tmp / f"cache/warm/{key}/bochsrc")
            self.waiting(key, children[key].pid)
        (self.tmp / "cache/warm/empty").mkdir()
        with common.locked(self.tmp / "cache/lock/warm-used"):
            host.stop_warm()
        self.assertEqual([p.name for p in (self.tmp / "cache/warm").iterdir()], ["used"])
        self.assertIsNone(children["used"].poll())
        for key in ("one", "two"):
            self.assertEqual(children[key].wait(10), -signal.SIGKILL)

    def test_what_is_left_of_those_that_ended(self):
        common.cache()
        child = self.process(self.tmp / "cache/warm/one/bochsrc")
        self.waiting("one", child.pid)
        self.waiting("dead", "999999999")
        host.stop_warm(dead=True)
        self.assertEqual([p.name for p in (self.tmp / "cache/warm").iterdir()], ["one"])
        self.assertIsNone(child.poll())

    def test_connecting_to_nobody(self):
        self.assertIsNone(host.connect_warm(self.tmp / "cache/warm/none"))
        path = self.waiting("key", os.getpid())
        self.assertIsNone(host.connect_warm(path))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path / "socket"))
        self.assertIsNone(host.connect_warm(path))

    def test_connecting_to_one_that_ends(self):
        path = self.waiting("key", os.getpid())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path / "socket"))
            listener.listen()
            pid = os.fork()
            if pid == 0:
                listener.accept()[0].close()
                os._exit(0)
        self.assertIsNone(host.connect_warm(path))
        os.waitpid(pid, 0)


def run_with(tmp, options):
    """host.run() with parts that are in tmp."""
    parts = host.Parts(Machines().cpu("spr"), tmp, tmp, tmp / "job", "words", boot=tmp / "boot", bios=tmp,
                       emulator=tmp / "emulator")
    with mock.patch.object(host, "find_parts", return_value=parts):
        return host.run(options)


class Fake(Case):
    """Runs with a server that only looks like the emulator."""

    def setUp(self):
        super().setUp()
        self.file("emulator/bochs", FAKE_BOCHS, 0o755)
        self.boot, self.work = self.tmp / "out/boot", self.tmp / "work"
        self.boot.mkdir(parents=True)
        self.file("out/.lock")
        self.work.mkdir()
        common.cache()

    def start(self, mode=""):
        server = host.Server(self.boot)
        self.addCleanup(server.close)
        with mock.patch.dict(os.environ, FAKE=mode):
            server.start(self.tmp / "emulator", self.tmp, "none", self.work / "socket", self.options())
        return server

    def go(self, *names, mode="", limit=60, seconds=60, **more):
        """A run of programs with these names; the record.Run."""
        jobs = [self.job(name, seconds) for name in names]
        server = self.start(mode)
        self.assertEqual(host.wait_ready(server, 1, 60), ("ok", ""))
        options = self.options(*jobs, limit=limit, **more)
        self.runner = host.Runner(options, self.tmp / "out", self.work, server, 1)
        began = time.monotonic()
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.runner.go(time.monotonic() + limit)
        self.took, self.said = time.monotonic() - began, said.getvalue()
        server.close()
        self.file("out/boot/console.log", "[    0.1] Linux version 7.3.4 (x)\n")
        record.write(self.tmp / "out", {
            "planned": list(names), "end": self.runner.end, "why": self.runner.why,
            "machines": [{"folder": "boot", "boot": True, "end": "ok", "why": ""}, *self.runner.machines()]})
        self.assertEqual(list(self.work.glob("payload-*")) if self.runner.end == "ok" else [], [])
        return record.Run(self.tmp / "out")

    def ends(self):
        return {copy.jobs[0].name: copy.end for copy in self.runner.copies}

    def statuses(self, run):
        return {p.name: p.status for p in run.programs}

    def test_good_ones(self):
        run = self.go("a", "b", "c")
        self.assertEqual((run.record["end"], run.trouble()), ("ok", ""))
        self.assertEqual(self.statuses(run), dict.fromkeys("abc", "pass"))

    def test_more_than_run_at_a_time(self):
        names = [f"a-{n}" for n in range(20)]
        self.assertEqual(self.statuses(self.go(*names, parallel=3)), dict.fromkeys(names, "pass"))

    def test_each_end_is_of_one_program(self):
        with mock.patch.object(host, "MAX_OUTPUT", 3 << 20):
            run = self.go("good", "panic", "die", "flood", "warn", "taint", "skip", "refuse", "last",
                          parallel=4)
        self.assertEqual(self.ends(), {
            "good": "ok", "panic": "panic", "die": "died", "flood": "flood", "warn": "ok", "taint": "ok",
            "skip": "ok", "refuse": "died", "last": "ok"})
        self.assertEqual(self.runner.end, "ok")
        self.assertEqual(self.statuses(run), {
            "good": "pass", "panic": "fail", "die": "fail", "flood": "fail", "warn": "fail", "taint": "fail",
            "skip": "fail", "refuse": "fail", "last": "pass"})
        why = {copy.jobs[0].name: copy.why for copy in self.runner.copies}
        self.assertEqual(why["die"], "the emulator ended by itself (signal 11), see emulator.log")
        self.assertEqual(why["refuse"], "the emulator cannot fork: Cannot allocate memory")

    def test_observer(self):
        """It is told of each machine when that has ended, and what it makes of it is the verdict."""
        told, out = [], self.tmp / "out"
        boot = {"folder": "boot", "boot": True, "end": "ok", "why": ""}

        class Watcher(observer.Observer):
            def begins(self, entry):
                told.append(("begins", entry["programs"], entry["end"]))

            def ended(self, entry):
                program, = record.judge_machine(out, entry, boot)
                told.append((program.name, program.status, program.ktap(), entry))

        run = self.go("good", "panic", "refuse", "warn", parallel=2, ordered=True, observer=Watcher())
        begun = [names for word, names, *_ in told if word == "begins"]
        self.assertEqual(begun, [["good"], ["panic"], ["refuse"], ["warn"]])
        ended = {name: rest for name, *rest in told if name != "begins"}
        self.assertEqual(ended, {p.name: [p.status, p.ktap(), entry] for p, entry in
                                 zip(run.programs, run.record["machines"][1:])})

    def test_machine_that_powers_off(self):
        run = self.go("poweroff", append="lab.leave=poweroff")
        self.assertEqual((self.ends(), self.statuses(run)), ({"poweroff": "ok"}, {"poweroff": "pass"}))

    def test_machine_that_is_reset_after_its_last_program(self):
        run = self.go("poweroff")
        self.assertEqual((self.ends(), self.statuses(run)), ({"poweroff": "died"}, {"poweroff": "fail"}))

    def test_stall(self):
        with mock.patch("shutil.which", return_value=None):
            run = self.go("sleep", "good", stall=4)
        self.assertEqual(self.ends(), {"sleep": "stall", "good": "ok"})
        self.assertEqual(run.trouble(), "the emulator stood still for 4 s (see emulator.log) (in sleep)")

    def test_limit(self):
        with mock.patch("shutil.which", return_value=None):
            run = self.go("sleep", "good", limit=5, parallel=2)
        self.assertEqual(self.ends(), {"sleep": "limit", "good": "ok"})
        self.assertEqual(run.problems, ["it ran longer than the limit of 5 s"])

    def test_limit_while_the_server_says_nothing(self):
        """No watch yet for such a one."""
        run = self.go("silent", "good", limit=5, parallel=2)
        self.assertEqual(self.ends(), {"silent": "limit", "good": "ok"})
        self.assertEqual(run.record["end"], "limit")

    def test_fast(self):
        run = self.go("fail", "sleep", "good", fast=True, parallel=2, ordered=True)
        self.assertEqual(self.ends(), {"fail": "ok", "sleep": "stopped", "good": ""})
        self.assertEqual((self.runner.end, run.trouble()), ("stopped", ""))
        self.assertTrue(all(p.stopped for p in run.programs if p.name != "fail"))
        self.assertLess(self.took, 30)

    def test_fast_does_not_stop_at_a_panic(self):
        self.go("panic", "good", fast=True, parallel=1, ordered=True)
        self.assertEqual(self.ends(), {"panic": "panic", "good": "ok"})

    def test_server_that_dies(self):
        run = self.go("leave", "sleep", "good", parallel=1, ordered=True)
        self.assertEqual(self.ends(), {"leave": "died", "sleep": "", "good": ""})
        self.assertEqual(run.problems, ["the emulator that forks for each program has died"])
        self.assertIn("the emulator has gone", run.trouble())
        self.assertLess(self.took, 30)

    def test_garbage_of_the_server(self):
        run = self.go("a", "b", mode="garbage")
        self.assertEqual(self.statuses(run), dict.fromkeys("ab", "pass"))

    def test_garbage_during_a_run(self):
        runner = host.Runner(self.options(self.job("a")), self.tmp / "out", self.work, None, 1)
        copy = runner.running["/x"] = runner.waiting.pop()
        for line in ("", "begin", "begin x /x", "begin 1", "begin 1 /nowhere", "end", "end x", "end 1",
                     "failed", "failed /nowhere", "what is 'x'?", "\ufffd \ufffd"):
            with self.subTest(line), contextlib.redirect_stderr(io.StringIO()) as said:
                runner.hear(line)
                self.assertLessEqual(said.getvalue().count("\n"), 1)
            self.assertEqual(runner.running, {"/x": copy})

    def test_full_disk(self):
        usage = shutil.disk_usage("/")._replace(free=host.MIB - 1)
        with mock.patch("shutil.disk_usage", return_value=usage):
            run = self.go("sleep", "good", parallel=1, ordered=True)
        self.assertEqual((self.runner.end, self.ends()), ("disk", {"sleep": "died", "good": ""}))
        self.assertRegex(run.trouble(), "^no space left in .*: make some, or choose another folder")
        self.assertLess(self.took, 30)

    def test_boot_that_ends_early(self):
        kind, why = host.wait_ready(self.start("no-boot"), 1, 60)
        self.assertEqual((kind, why), ("died", "the host stopped before it was ready to run programs"))

    def test_boot_over_the_limit(self):
        with mock.patch("shutil.which", return_value=None):
            self.assertEqual(host.wait_ready(self.start("slow-boot"), 1, 0.5),
                             ("limit", "it ran longer than the limit of 0.5 s (at boot)"))

    def test_boot_that_stalls(self):
        with mock.patch("shutil.which", return_value=None):
            self.assertEqual(host.wait_ready(self.start("slow-boot"), 1, 60, stall=1)[0], "stall")

    def test_boot_that_panics(self):
        server = self.start("slow-boot")
        self.file("out/boot/console.log", "[ 1.0] Kernel panic - not syncing: VFS\n")
        self.assertEqual(host.wait_ready(server, 1, 60), ("panic", "the kernel panicked (at boot)"))

    def whole(self, *names, mode="", **more):
        """host.run() as a whole, but for the parts."""
        for name in ("vars", "kernel.bin", "params.bin"):
            self.file(f"boot/{name}", "PVH=1 ENTRY=1 LOAD=1 TOP_ADDR=0x1000000")
        self.file("job/job", b"job", 0o755)
        with mock.patch.dict(os.environ, FAKE=mode):
            return run_with(self.tmp, self.options(*map(self.job, names), **more))

    def test_whole_run(self):
        self.file("out/jobs/000-old/results.log", "old")
        run = self.whole("a", "b", seed=7, append="x=y")
        self.assertEqual(run.trouble(), "")
        self.assertEqual(self.statuses(run), {"a": "pass", "b": "pass"})
        self.assertEqual(run.kernel, "7.3.4-fake")
        for key, wanted in (("planned", ["a", "b"]), ("end", "ok"), ("seed", 7), ("append", "x=y"),
                            ("cpu", "spr")):
            self.assertEqual(run.record[key], wanted)
        self.assertEqual([(m["folder"], m["end"]) for m in run.record["machines"]],
                         [("boot", "ok"), ("jobs/000-a", "ok"), ("jobs/001-b", "ok")])
        self.assertEqual((self.tmp / "out/results.log").read_text().count("@lab done 0"), 2)
        self.assertEqual((self.tmp / "out/console.log").read_text().count("Linux version"), 1)
        self.assertFalse((self.tmp / "out/jobs/000-old").exists())
        self.assertEqual(sorted(host.known_times()), ["a", "b"])
        self.assertEqual(list((self.tmp / "cache/tmp").iterdir()), [])

    def test_whole_run_that_does_not_boot(self):
        run = self.whole("a", mode="no-boot")
        self.assertEqual((run.record["end"], run.record["machines"][0]["end"]), ("boot", "died"))
        self.assertEqual(run.trouble(), "the host stopped before it was ready to run programs")
        self.assertIn("it cannot boot", (self.tmp / "out/boot/emulator.log").read_text())
        self.assertEqual(host.known_times(), {})

    def test_whole_run_that_nothing_is_learnt_from(self):
        self.whole("a", "die", once=True)
        self.assertEqual(host.known_times(), {})
        self.whole("a", "die")
        self.assertEqual(sorted(host.known_times()), ["a"])

    def test_interrupted_run_is_recorded(self):
        with mock.patch.object(host.Runner, "look", side_effect=SystemExit(130)), \
                self.assertRaises(SystemExit):
            self.whole("sleep", "good", parallel=1, ordered=True)
        run = record.Run(self.tmp / "out")
        self.assertEqual((run.record["end"], run.trouble()),
                         ("interrupted", "the run was interrupted (in sleep)"))
        self.assertEqual(list((self.tmp / "cache/tmp").iterdir()), [])

    # A process of its own that runs one program for ever, and a good one before.
    # While Python imports, it may lose a KeyboardInterrupt.
    RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, sys.argv[1])
import test_host as t
tmp = t.Path(sys.argv[2])
jobs = [t.host.Job(n, 60, tmp / "bin" / n) for n in ("good", "sleep")]
t.common.run_command(lambda: t.run_with(tmp, t.host.Options(tmp / "out", jobs, parallel=1, ordered=True)) and 0)
"""

    def left(self):
        return subprocess.run(["pgrep", "-f", f"{self.tmp}/emulator/bochs"], stdout=subprocess.PIPE,
                              check=False).stdout.decode().split()

    def test_run_that_is_killed_at_any_moment(self):
        self.whole("good")
        self.job("sleep")
        draw, took = random.Random(1), None
        for sig in [signal.SIGTERM, *3 * [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGKILL]]:
            child = subprocess.Popen([sys.executable, "-B", "-c", self.RUN, Path(__file__).parent, self.tmp],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                     env={**os.environ, "FAKE": ""})
            began = time.monotonic()
            if took is None:        # the first one, until it has come to what has no end
                while not list((self.tmp / "out/jobs").glob("001-*/results.log")):
                    time.sleep(0.02)
                took = time.monotonic() - began
            else:
                time.sleep(draw.uniform(0, 1.2 * took))
            child.send_signal(sig)
            said = child.communicate(timeout=60)[1]
            with self.subTest(sig=sig, after=time.monotonic() - began, took=took):
                # Before it has a handler for it, Python says where it was.
                self.assertIn(child.returncode, (-sig, 128 + sig, 1))
                self.assertLess(said.count(b"\n"), 40)
                if sig == signal.SIGKILL:
                    self.assertEqual(said, b"")
                end = time.monotonic() + 20
                while self.left() and time.monotonic() < end:
                    time.sleep(0.05)
                self.assertEqual(self.left(), [])
        run = self.whole("a", "b")
        self.assertEqual((run.trouble(), self.statuses(run)), ("", {"a": "pass", "b": "pass"}))
        self.assertEqual(list((self.tmp / "cache/tmp").iterdir()), [])

    def test_close_ends_it_even_if_it_was_stopped(self):
        server = self.start()
        child = server.child
        child.send_signal(signal.SIGSTOP)
        server.close()
        self.assertEqual(child.returncode, -signal.SIGKILL)

    def test_kept_one_stays_until_it_is_ended(self):
        server = self.start()
        host.wait_ready(server, 1, 60)
        child = server.child
        server.keep(60)
        self.assertIsNone(server.child)
        self.assertIsNone(child.poll())
        server.close()
        child.kill()
        child.wait()

    def test_one_that_does_not_answer_is_not_kept(self):
        server = self.start()
        host.wait_ready(server, 1, 60)
        server.child.kill()
        server.keep(60)
        self.assertIsNotNone(server.child)


if __name__ == "__main__":
    unittest.main()
