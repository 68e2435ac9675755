# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel on the emulated host and run programs on copies of the machine.

The emulator boots once.  When the guest's init is ready it asks for a job
(lab/guest/job.c), and the emulator becomes a server: for each job it forks, and the
copy gets the answer (the patch "fork-server" of lab/emulator/bochs).  So every program
finds the machine as it was when it had just booted, and takes nothing down but itself.
"""

import contextlib
import gzip
import lzma
import os
import re
import select
import shlex
import shutil
import socket
import stat
import struct
import subprocess
import time
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import guestfiles
import qemu
import record
from common import (LAB, cache, cache_put, call, die, folder, hash_bytes, hash_file, locked,
                    need, say, script, undisturbed, warn, work_folder, write_text)
from machines import START_TIME, Machines
from observer import Observer

# How long the emulator may use no CPU time at all.
STALL = 30
# More is an error of bochsrc; what of that is the program's stays with it.
BOCHS_MEMORY = 2048
LOG_LEVELS = ("error", "info", "debug")
# CPU time for the boot; for a job, from what its program may take inside.
BOOT_BUDGET = 120
# What a machine may write: a console of a gigabyte helps nobody.
MAX_OUTPUT = 64 << 20
# What gdb, if it is there, shall say of a machine that stands still.
BACKTRACE = ["-batch", "-ex", "thread apply all bt"]
MIB = 1 << 20


@dataclass
class Job:
    """A program to run."""
    name: str                   # kvm/x86_64/xfd_test, or with a test: ...:xfd.amx.nm
    seconds: int                # its limit, in time inside the machine
    program: Path
    arguments: list = field(default_factory=list)
    files: list = field(default_factory=list)   # go to /lab/files of its machine
    variables: dict = field(default_factory=dict)   # of its environment


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
    stall: int = STALL          # the two constants above: tests have no patience
    flood: int = MAX_OUTPUT
    pvh: bool = True            # False: as if the kernel had no PVH entry
    emulator: str = ""          # a folder with the emulator; default: lab/emulator/build
    debug: bool = False         # an emulator with symbols, which gdb(1) understands
    log: str = ""               # what the emulator logs: "error", "info" or "debug"
    unpack: list = field(default_factory=list)  # of guestfiles.Entry, unpacked into / of each copy
    get: list = field(default_factory=list)     # paths there, to come back when its programs have ended
    expect: int = None          # the exit status of each program that is no failure; None: the suite's
    observer: Observer = field(default_factory=Observer)    # who is told what goes on
    note: dict = field(default_factory=dict)    # what else run.json shall say


# --- what a machine is made of ---

@dataclass
class Parts:
    """Files of a machine, and the words for its kernel."""
    cpu: object
    image: Path                 # of the kernel, as QEMU takes it
    modules: Path               # folder with modules and their list
    job: Path                   # folder with guest/job.c, compiled
    words: str
    # Not for QEMU:
    boot: Path = None           # folder of guest/bootimage
    bios: Path = None
    emulator: Path = None


def find_kernel(options):
    """Image and folder of modules."""
    kernel, modules = options.kernel, options.modules
    if re.fullmatch(r"newest|\d+\.\d+(\.\d+(-\d+)?)?", kernel) and not Path(kernel).exists():
        kernel = script("kernel/fetch", "kernel", kernel)
    elif kernel in Machines().builds:
        kernel = script("kernel/build", "-c", kernel, Machines().newest)
    path = Path(kernel)
    if path.is_dir():
        modules = modules or str(path / "modules")
        for name in ("vmlinuz", "vmlinux"):
            if (path / name).exists():
                path = path / name
                break
    if not path.is_file() or not os.access(path, os.R_OK):
        die(f"cannot read the kernel {kernel}: give a Debian series (7.3), {' or '.join(Machines().builds)}, "
            "a folder or an image")
    if not modules:
        die(f"-k {kernel} also needs the folder of its modules: add -m (MODULES=)")
    if not Path(modules).is_dir():
        die(f"no folder of modules: {modules}")
    return path.resolve(), Path(modules).resolve()


class Kitchen:
    """Makes parts: in the cache, or with once=True where they go with the run."""

    def __init__(self, once, work):
        self.once, self.work = once, work

    def part(self, name, make):
        path = cache() / name
        if not self.once or path.exists():
            return cache_put(name, make)
        path = self.work / name
        path.mkdir()
        make(path)
        return path


def make_boot(image, pvh):
    def make(path):
        say("preparing the kernel image")
        log = path / "log"
        if call([LAB / "guest/bootimage", image, path, "1" if pvh else "0"], 300, log):
            die((log.read_text().splitlines() or ["lab/guest/bootimage failed"])[-1].removeprefix("lab: "))
    return make


MODULES = ("irqbypass", "kvm", "kvm-intel", "kvm-amd", "msr", "cpuid")
# Checking the signature, parsing BTF and sorting the ftrace locations would cost some
# two of seven seconds of a boot; the code stays as it was built, its functions just
# cannot be traced.
STRIP = ["--strip-debug", "-R", ".BTF", "-R", ".BTF.base", "-R", "__mcount_loc"]


def module_files(modules):
    """{module: file} of those that the lab loads, in the order of loading."""
    found = {}
    for path in sorted(modules.rglob("*.ko*")):
        name = re.sub(r"\.ko(\.(xz|zst|gz))?$", "", path.name).replace("_", "-")
        if name in MODULES:
            found.setdefault(name, path)
    return {name: found[name] for name in MODULES if name in found}


def unpack(path):
    """The contents of a module, compressed in whatever way."""
    data = path.read_bytes()
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return gzip.decompress(data)
        if path.suffix == ".zst":
            need("zstd", "zstd")
            return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, check=True, timeout=60).stdout
    except (lzma.LZMAError, OSError, EOFError, zlib.error, subprocess.SubprocessError) as error:
        die(f"cannot unpack the module {path}: {error}")
    return data


def make_modules(files):
    def make(path):
        # One that is built in, or not there: the tests will tell.
        for name, file in files.items():
            (path / f"{name}.ko").write_bytes(unpack(file))
            if call(["objcopy", *STRIP, path / f"{name}.ko"], 60, path / "log"):
                die(f"objcopy cannot strip {file}, see {path}/log")
    return make


JOB_FLAGS = ["-static", "-nostdlib", "-Os", "-Wall", "-Wextra", "-Werror", "-fno-stack-protector",
             "-fcf-protection=none"]


def make_job(path):
    if call(["gcc", *JOB_FLAGS, "-o", path / "job", LAB / "guest/job.c"], 60, path / "log"):
        die("cannot compile lab/guest/job.c:\n" + (path / "log").read_text())


def emulator_name(cpu):
    """What tells one build of an emulator from another."""
    return qemu.name() if cpu.is_qemu else Path(script("emulator/build", cpu.kind)).name


def find_parts(options, work):
    for command, package in (("objcopy", "binutils"), ("as", "binutils"), ("gcc", "gcc"),
                             ("busybox", "busybox-static")):
        need(command, package)
    cpu = Machines().cpu(options.cpu)
    if cpu.is_qemu:
        qemu.check()
    if options.emulator and not os.access(Path(options.emulator) / "bochs", os.X_OK):
        die(f"--emulator {options.emulator}: no program bochs there")
    image, modules = find_kernel(options)
    kitchen = Kitchen(options.once, work)
    files = module_files(modules)
    modules_key = hash_bytes(*STRIP, *(n + hash_file(f) for n, f in files.items()))
    job_key = hash_bytes(*JOB_FLAGS, (LAB / "guest/job.c").read_bytes())
    parts = Parts(
        cpu=cpu, image=image,
        modules=kitchen.part(f"modules-{modules_key}", make_modules(files)),
        job=cache_put(f"job-{job_key}", make_job),
        words=" ".join(["console=ttyS0,115200 panic=0 cryptomgr.notests=1", cpu.options,
                        options.append]).strip())
    if not cpu.is_qemu:
        boot_key = hash_bytes(hash_file(image), hash_file(LAB / "guest/bootimage"), options.pvh)
        parts.boot = kitchen.part(f"boot-{boot_key}", make_boot(image, options.pvh))
        parts.bios = Path(script("kernel/fetch", "bios"))
        parts.emulator = Path(options.emulator or script(
            "emulator/build", cpu.kind, *(["debug"] if options.debug else [])))
    return parts


# --- cpio archives, of the format "newc" (Documentation/driver-api/early-userspace/buffer-format.rst) ---

class Archive:
    def __init__(self):
        self.parts, self.folders, self.count = [], set(), 0

    def entry(self, name, mode, data=b"", uid=0, gid=0):
        self.count += 1
        name = os.fsencode(name) + b"\0"
        head = b"070701" + b"".join(b"%08X" % n for n in (
            self.count, mode, uid, gid, 1, 0, len(data), 0, 0, 0, 0, len(name), 0))
        for blob in (head + name, data):
            self.parts += [blob, b"\0" * (-len(blob) % 4)]

    def add_folder(self, path):
        if path and path not in self.folders:
            self.add_folder(path.rpartition("/")[0])
            self.folders.add(path)
            self.entry(path, stat.S_IFDIR | 0o755)

    def add(self, path, data, mode=0o644):
        self.add_folder(path.rpartition("/")[0])
        self.entry(path, stat.S_IFREG | mode, data)

    def add_entry(self, entry):
        """A guestfiles.Entry, as it is."""
        self.add_folder(entry.path.rpartition("/")[0])
        self.folders.add(entry.path)
        self.entry(entry.path, entry.mode, entry.data, entry.uid, entry.gid)

    def bytes(self):
        self.entry("TRAILER!!!", 0)
        return b"".join(self.parts)


def initramfs(parts, params):
    """What the machine boots with.  params: "MODULE.NAME=VALUE ..."."""
    archive = Archive()
    archive.add("init", (LAB / "guest/init").read_bytes(), 0o755)
    archive.add("bin/busybox", Path(shutil.which("busybox")).read_bytes(), 0o755)
    archive.add("lab/job", (parts.job / "job").read_bytes(), 0o755)
    lines, there = [], set()
    for name in MODULES:
        ko = parts.modules / f"{name}.ko"
        if not ko.exists() or name in ("kvm-intel", "kvm-amd") and name != parts.cpu.kvm:
            continue
        archive.add(f"lab/modules/{name}.ko", ko.read_bytes())
        words = [p.partition(".")[2] for p in params.split()
                 # The kernel takes a dash and an underscore in module names for the same.
                 if p.partition(".")[0].replace("_", "-") == name]
        lines.append(" ".join([f"{name}.ko", *words]))
        there.add(name)
    for word in params.split():
        if not re.fullmatch(r"[\w-]+\.\w+=.*", word) or word.partition(".")[0].replace("_", "-") not in there:
            die(f"PARAMS='{word}' is no MODULE.NAME=VALUE of a module that is loaded here "
                f"({' '.join(sorted(there))}): give APPEND= what is built into the kernel")
    archive.add("lab/modules/list", "".join(line + "\n" for line in lines).encode())
    return archive.bytes()


def payload(jobs, unpack=(), get=()):
    """What a copy of the machine gets: programs, files, and the list of what to run.

    unpack holds guestfiles.Entry, get the paths of what has to come back.  The list is a
    script for the shell of guest/init, with every word quoted.
    """
    archive, lines, files, libs = Archive(), [], {}, set()
    for entry in unpack:
        archive.add_entry(entry)
    brought = frozenset(entry.path for entry in unpack)
    has_variables = any(job.variables for job in jobs)
    for number, job in enumerate(jobs):
        path = f"lab/bin/{number}/{job.program.name}"
        archive.add(path, job.program.read_bytes(), 0o755)
        libs.update(guestfiles.needs(job.program, brought))
        if has_variables:
            words = ["env", *(f"{n}={v}" for n, v in job.variables.items())]
            lines.append("given=" + shlex.quote(shlex.join(words)))
        lines.append(shlex.join(["job", job.name, str(job.seconds), f"/{path}", *job.arguments]))
        files.update({Path(f).name: Path(f) for f in job.files})
    for lib in sorted(libs):
        if lib.lstrip("/") not in brought:
            archive.add(lib.lstrip("/"), Path(lib).read_bytes(), 0o755)
    for name, path in files.items():
        archive.add(f"lab/files/{name}", path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    if get:
        lines.append(shlex.join(["get", str(guestfiles.GET_LIMIT), str(guestfiles.GET_SECONDS), *get]))
    archive.add("lab/list", os.fsencode("".join(line + "\n" for line in lines)))
    return archive.bytes()


# --- the machine ---

def read_vars(path):
    """Shell assignments of numbers, as guest/bootimage writes them."""
    return {name: int(value, 0) for name, _, value in
            (line.partition("=") for line in (path / "vars").read_text().split())}


def hertz(words):
    """Instructions in a second of the machine: what the kernel takes for the clock of its TSC."""
    slow = re.search(r"\btsc_early_khz=(\d+)", words)
    return int(slow.group(1)) * 1000 if slow else 200000000


def configure(parts, options, initrd, work, logs):
    """Lay out the machine's memory; returns the path of the emulator's configuration."""
    v = read_vars(parts.boot)
    at = (v["TOP_ADDR"] + 16 * MIB) // MIB * MIB
    if at + len(initrd) + 64 * MIB >= options.memory * MIB:
        die(f"kernel and modules need more memory than {options.memory} MiB: raise -M")
    # Above the place that the kernel unpacks itself to.
    cmdline, zeropage = at - 2 * MIB, at - MIB
    (work / "initrd").write_bytes(initrd)
    (work / "cmdline").write_bytes(parts.words.encode() + b"\0")
    images = [(parts.boot / "kernel.bin", v["LOAD"]), (work / "initrd", at), (work / "cmdline", cmdline)]
    symbols = {"PVH": v["PVH"], "ENTRY": v["ENTRY"], "CMDLINE": cmdline, "INITRD": at,
               "INITRD_SIZE": len(initrd), "PARAMS": zeropage}
    log = work / "log"
    if call(["as", "--32", *(f"--defsym={n}={v}" for n, v in symbols.items()), "-o", work / "start.o",
             LAB / "guest/start.S"], 60, log) or \
       call(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", work / "floppy",
             work / "start.o"], 60, log):
        die("cannot assemble the boot sector: " + log.read_text())
    os.truncate(work / "floppy", 1474560)
    if not v["PVH"]:
        # The 32-bit boot protocol passes these in struct boot_params.
        params = bytearray((parts.boot / "params.bin").read_bytes())
        struct.pack_into("<II", params, 0x218, at, len(initrd))
        struct.pack_into("<I", params, 0x228, cmdline)
        (work / "params.bin").write_bytes(params)
        images.append((work / "params.bin", zeropage))
    wanted = LOG_LEVELS[:LOG_LEVELS.index(options.log) + 1] if options.log else ()
    lines = [
        "config_interface: textconfig",
        "display_library: nogui",
        f"romimage: file={parts.bios}/BIOS-bochs-latest",
        f"vgaromimage: file={parts.bios}/vgabios.bin",
        f"megs: {options.memory}",
        f"cpu: model={parts.cpu.model}, count={parts.cpu.count}, ips={hertz(parts.words)}, "
        f'reset_on_triple_fault=0, add_features="{" ".join(parts.cpu.added)}", '
        f'exclude_features="{" ".join(parts.cpu.without)}"',
        f"clock: sync=none, time0={START_TIME}",
        *(f"optramimage{n}: file={file}, address={address:#x}"
          for n, (file, address) in enumerate(images, 1)),
        f"floppya: 1_44={work}/floppy, status=inserted",
        "boot: floppy",
        f"com1: enabled=1, mode=file, dev={logs}/console.log",
        f"com2: enabled=1, mode=file, dev={logs}/results.log",
        f"log: {logs}/emulator.log",
        "panic: action=fatal",
        *(f"{level}: action={'report' if level in wanted else 'ignore'}" for level in LOG_LEVELS),
    ]
    (work / "bochsrc").write_text("\n".join(lines) + "\n")
    return work / "bochsrc"


class Watch:
    """What can be seen of a machine from outside while it runs."""

    def __init__(self, pid, logs, cpus, limits, stall=STALL, flood=MAX_OUTPUT):
        self.pid, self.logs, self.cpus = pid, logs, cpus
        self.limits = limits        # {program: seconds}; empty: a boot
        self.stall, self.flood = stall, flood
        self.cpu, self.changed = None, time.monotonic()
        self.program, self.program_since = "", 0.0
        self.offset = {"console.log": 0, "results.log": 0}
        self.tail = dict.fromkeys(self.offset, b"")
        self.sends_files = False
        self.panicked = 0.0

    def cpu_seconds(self):
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        if fields[0] == "Z":
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def news(self, name):
        """What has come to a log since the last look, with the end of what was there."""
        try:
            with open(self.logs / name, "rb") as file:
                file.seek(self.offset[name])
                data = file.read(MAX_OUTPUT)
        except OSError:
            return b""
        if not data:
            return b""
        text = self.tail[name] + data
        self.offset[name] += len(data)
        self.tail[name] = text[-200:]
        return text

    def budget(self):
        """CPU time for what is running: a second in there costs one to two out here."""
        if not self.limits:
            return BOOT_BUDGET * self.cpus
        if self.sends_files:
            return (3 * guestfiles.GET_SECONDS + 30) * self.cpus
        return (3 * self.limits.get(self.program, 60) + 30) * self.cpus

    def look(self):
        """Why the machine has to be stopped: kind and reason, or None."""
        now = time.monotonic()
        if record.PANIC.encode() in self.news("console.log") and not self.panicked:
            self.panicked = now
        # It may have more to say.
        if self.panicked:
            return ("panic", "the kernel panicked") if now - self.panicked >= 1 else None
        cpu = self.cpu_seconds()
        if cpu is None:
            return None             # it has ended: the server will say so
        news = self.news("results.log")
        begun = re.findall(rb"@lab begin (\S+)", news)
        if begun and begun[-1].decode("utf-8", "replace") != self.program:
            self.program, self.program_since = begun[-1].decode("utf-8", "replace"), cpu
        if not self.sends_files and re.search(rb"^@lab get$", news, re.M):
            self.sends_files, self.program_since = True, cpu
        if cpu - self.program_since >= self.budget():
            return "hang", f"the host hung: no end after {self.budget():.0f} s of CPU time"
        if sum(self.offset.values()) + self.logged() > self.flood:
            return "flood", f"it wrote more than {self.flood >> 20} MiB"
        if cpu != self.cpu:
            self.cpu, self.changed = cpu, now
        elif now - self.changed >= self.stall:
            self.backtrace()
            return "stall", f"the emulator stood still for {self.stall:.0f} s (see emulator.log)"
        return None

    def logged(self):
        """Bytes of what the emulator itself has to say, which is nothing unless it was asked to."""
        try:
            return (self.logs / "emulator.log").stat().st_size
        except OSError:
            return 0

    def backtrace(self):
        """For the people who have to find out."""
        with contextlib.suppress(OSError), open(self.logs / "emulator.log", "a") as log:
            for name in ("status", "wchan"):
                log.write(Path(f"/proc/{self.pid}/{name}").read_text())
        if shutil.which("gdb"):
            call(["gdb", "-p", self.pid, *BACKTRACE], 60, self.logs / "emulator.log")


class Server:
    """An emulator that has booted, or is about to."""

    def __init__(self, logs):
        self.logs = logs            # folder of the boot's logs
        self.child = None           # the process, if it is ours
        self.pid = 0
        self.socket = None
        self.buffer = b""

    def boot(self, parts, options, initrd, place):
        """Begin with what the machine is made of in place, and its socket there."""
        config = configure(parts, options, initrd, place, self.logs)
        self.start(parts.emulator, parts.bios, config, place / "socket", options)
        write_text(place / "pid", f"{self.pid}\n")

    def start(self, emulator, bios, config, address, options):
        """Start the emulator with its socket at address, and connect."""
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            # The path of a socket has no more than 107 characters.
            with in_folder(address.parent):
                listener.bind(address.name)
            listener.listen(4)
            environment = dict(os.environ, BXSHARE=str(bios), LAB_SERVER=str(listener.fileno()),
                               LAB_SEED=str(options.seed))
            for name in ("console.log", "results.log"):
                (self.logs / name).write_bytes(b"")
            with open(self.logs / "stdout", "wb") as out, undisturbed():
                # A session of its own: terminal job control cannot stop the emulator.
                self.child = subprocess.Popen(
                    [emulator / "bochs", "-q", "-f", config], stdin=subprocess.DEVNULL, stdout=out,
                    stderr=out, env=environment, pass_fds=[listener.fileno()], start_new_session=True)
            self.pid = self.child.pid
            # While the socket is there: the emulator may end as soon as it has begun.
            self.connect(address)

    def connect(self, address):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        with in_folder(address.parent):
            self.socket.connect(address.name)

    def send(self, line):
        with contextlib.suppress(OSError):
            self.socket.sendall(line.encode() + b"\n")

    def receive(self, seconds):
        """Lines from the server, after a wait of so many seconds; None if it has gone."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return []
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            return None
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def is_ready(self, seconds):
        """Whether the machine has booted, after a wait of so many seconds; None if it has gone."""
        lines = self.receive(seconds)
        if lines is None or self.child and self.child.poll() is not None:
            return None
        return "ready" in lines

    def keep(self, seconds):
        """Let it wait so long for the next run, when it has said that it will."""
        self.send(f"keep {seconds}")
        end = time.monotonic() + 10
        while time.monotonic() < end:
            lines = self.receive(0.5)
            if lines is None:
                break
            if "kept" in lines:
                self.child = None
                break

    def close(self):
        """End it, or leave it waiting as it was told."""
        if self.socket:
            self.socket.close()
        if self.child:
            with contextlib.suppress(OSError):
                self.child.send_signal(18)      # SIGCONT: it may have been stopped
            self.child.kill()
            self.child.wait()


def wait_ready(server, cpus, limit, stall=STALL, observer=Observer()):
    """Until the machine has booted; returns kind and reason if it does not."""
    watch = Watch(server.pid, server.logs, cpus, {}, stall)
    end = time.monotonic() + limit
    while True:
        ready = server.is_ready(0.2)
        if ready is None:
            return "died", "the host stopped before it was ready to run programs"
        if ready:
            return "ok", ""
        observer.tick()
        trouble = watch.look()
        if not trouble and time.monotonic() > end:
            watch.backtrace()
            trouble = "limit", f"it ran longer than the limit of {limit} s"
        if trouble:
            return trouble[0], trouble[1] + " (at boot)"


@contextlib.contextmanager
def in_folder(path):
    old = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(old)


# --- servers that wait for the next run ---

def warm_folder():
    return cache() / "warm"


def stop_warm(dead=False):
    """End all servers that wait, but not those that have a client; used by lab/clean.

    With dead=True only remove what those left that have ended by themselves.
    """
    for path in warm_folder().glob("*"):
        with locked(cache() / "lock" / f"warm-{path.name}", wait=0) as mine:
            if mine and not (dead and waiting(path)):
                end_warm(path)


def waiting(path):
    """The process of the server in path, or 0."""
    try:
        pid = int((path / "pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0
    # The number may be another process's by now.
    return pid if str(path / "bochsrc").encode() in words else 0


def end_warm(path):
    pid = waiting(path)
    if pid:
        with contextlib.suppress(OSError):
            os.kill(pid, 9)
        end = time.monotonic() + 10
        while waiting(path) and time.monotonic() < end:
            time.sleep(0.01)
    shutil.rmtree(path, ignore_errors=True)


def find_warm(options, parts, initrd, stack):
    """The server that waits for such a run, or a new one that will; None if another run has it."""
    # All that the machine is made of, and nothing that is read in another order next time.
    key = hash_bytes(hash_file(parts.emulator / "bochs"), hash_bytes(initrd), parts.boot.name,
                     parts.bios.name, parts.cpu.count, parts.cpu.model, *parts.cpu.changes, parts.words,
                     options.memory, options.seed, options.log, (LAB / "guest/start.S").read_bytes(),
                     Path(__file__).read_bytes())
    stop_warm(dead=True)
    warm = folder(warm_folder()) / key
    if not stack.enter_context(locked(cache() / "lock" / f"warm-{key}", wait=0)):
        return None
    server = connect_warm(warm)
    if server:
        return server
    end_warm(warm)
    warm.mkdir()
    return Server(warm)


def connect_warm(path):
    """A server that waits in path, or None."""
    server = Server(path)
    try:
        server.pid = int((path / "pid").read_text())
        server.connect(path / "socket")
    except (OSError, ValueError):
        return None
    end = time.monotonic() + 10
    while time.monotonic() < end:
        lines = server.receive(0.5)
        if lines is None:
            return None
        if "ready" in lines:
            return server
    return None


# --- times that programs took, to begin with the longest ---

def known_times():
    try:
        lines = (cache() / "times").read_text().splitlines()
        return {name: float(seconds) for name, seconds in (line.split() for line in lines)}
    except (OSError, ValueError):
        return {}


def note_times(new):
    times = known_times() | new
    write_text(cache() / "times", "".join(f"{n} {s:.2f}\n" for n, s in sorted(times.items())))


# --- a run ---

@dataclass
class Copy:
    """A copy of the machine and the jobs that it has."""
    folder: Path
    jobs: list
    payload: Path
    watch: Watch = None
    pid: int = 0
    began: float = 0.0
    end: str = ""
    why: str = ""
    cpu: float = 0.0
    memory: int = 0
    wall: float = 0.0
    lost: str = ""              # what is wrong with the files that should have come back


def job_folder(number, name):
    """Of the machine for the job of that number and name, in that of the run."""
    return "jobs/" + (f"{number:03}-" + re.sub(r"[^A-Za-z0-9_.+-]", "_", name))[:100]


class Runner:
    def __init__(self, options, out, work, server, cpus):
        self.options, self.out, self.work = options, out, work
        self.server, self.cpus = server, cpus
        self.observer = options.observer
        self.end, self.why = "ok", ""
        self.copies, self.waiting, self.running = [], [], {}
        self.plan()

    def plan(self):
        jobs = self.options.jobs
        groups = [jobs] if self.options.together else [[job] for job in jobs]
        for number, group in enumerate(groups):
            name = group[0].name if len(group) == 1 else "all"
            self.copies.append(Copy(self.out / job_folder(number, name), group,
                                    self.work / f"payload-{number}"))
        self.waiting = list(self.copies)
        if not self.options.ordered:
            times = known_times()
            # The longest first, and before them those of which nothing is known.
            self.waiting.sort(key=lambda c: -sum(times.get(j.name, 1000) for j in c.jobs))

    def go(self, end):
        """Until all jobs have ended, something stops them all, or it is end o'clock."""
        parallel = self.options.parallel or len(os.sched_getaffinity(0))
        next_look = 0.0
        while self.waiting or self.running:
            while self.waiting and len(self.running) < parallel:
                self.begin(self.waiting.pop(0))
            lines = self.server.receive(0.2)
            if lines is None:
                self.stop_all("died", "the emulator has gone, see emulator.log in the folder boot")
                self.end, self.why = "died", "the emulator that forks for each program has died"
                return
            for line in lines:
                self.hear(line)
            self.observer.tick()
            now = time.monotonic()
            if now >= next_look:
                next_look = now + 0.4
                self.look()
            if now > end:
                why = f"it ran longer than the limit of {self.options.limit} s"
                for copy in self.running.values():
                    if copy.watch:
                        copy.watch.backtrace()
                self.stop_all("limit", why)
                self.end, self.why = "limit", why
                return
            if self.end != "ok":
                self.stop_all("stopped" if self.end == "stopped" else "died", self.why)
                return

    def begin(self, copy):
        copy.folder.mkdir(parents=True)
        for name in ("console.log", "results.log"):
            (copy.folder / name).write_bytes(b"")
        copy.payload.write_bytes(payload(copy.jobs, self.options.unpack, self.options.get))
        self.server.send(f"run {copy.folder} {copy.payload} {self.options.seed}")
        copy.began = time.monotonic()
        # Until the server says "begin", with the process.
        self.running[str(copy.folder)] = copy
        self.observer.begins(self.machine(copy))

    def hear(self, line):
        try:
            self.obey(*line.split(" "))
        except (ValueError, IndexError, KeyError):
            # What waits for it ends with the limit.
            warn(f"the emulator's server said what it should not: {line[:200]!r}")

    def obey(self, word, *rest):
        if word == "begin":
            pid, copy = int(rest[0]), self.running.pop(rest[1])
            copy.pid = pid
            limits = {job.name: job.seconds for job in copy.jobs}
            copy.watch = Watch(copy.pid, copy.folder, self.cpus, limits, self.options.stall,
                               self.options.flood)
            self.running[copy.pid] = copy
        elif word == "failed":
            copy = self.running.pop(rest[0])
            copy.end, copy.why = "died", "the emulator cannot fork: " + " ".join(rest[1:])
            copy.payload.unlink(missing_ok=True)
            self.observer.ended(self.machine(copy))
        elif word == "end" and int(rest[0]) in self.running:
            status, cpu, memory = int(rest[1]), float(rest[2]), int(rest[3])
            self.ended(self.running.pop(int(rest[0])), status, cpu, memory)

    def ended(self, copy, status, cpu, memory):
        copy.cpu, copy.memory, copy.wall = cpu, memory, time.monotonic() - copy.began
        copy.payload.unlink(missing_ok=True)
        if copy.watch.panicked:
            copy.end, copy.why = "panic", "the kernel panicked"
        elif not copy.end:
            copy.end = "ok"
            # A machine that powers off, which init does when told to, leaves the emulator
            # with status 1, and so does one that is reset.
            if status and not ("lab.leave=" in self.options.append and has_done(copy)):
                copy.end, copy.why = "died", f"the emulator ended by itself ({how(status)}), see emulator.log"
            check_space(copy)
        if self.options.get:
            copy.lost = guestfiles.fetch(copy.folder)
        self.observer.ended(self.machine(copy))
        if self.options.fast and is_failure(copy, self.options.expect):
            self.end = "stopped"

    def look(self):
        for copy in list(self.running.values()):
            trouble = copy.watch and not copy.end and copy.watch.look()
            if trouble:
                copy.end, copy.why = trouble
                self.server.send(f"kill {copy.pid}")
        if shutil.disk_usage(self.out).free < MIB:
            self.end = "disk"
            self.why = f"no space left in {self.out.resolve()}: make some, or choose another folder with O="

    def stop_all(self, kind, why):
        for copy in self.running.values():
            copy.end, copy.why = copy.end or kind, copy.why or why
            copy.wall = time.monotonic() - copy.began
            if copy.watch:
                copy.cpu = copy.watch.cpu_seconds() or 0
                self.server.send(f"kill {copy.pid}")
        # Their ends: nobody writes to the logs when they are judged.
        end = time.monotonic() + 10
        while any(c.watch and c.watch.cpu_seconds() is not None for c in self.running.values()) and \
                time.monotonic() < end:
            if self.server.receive(0.1) is None:
                break
        self.running.clear()

    def machine(self, copy):
        """Its entry of run.json."""
        return {"folder": str(copy.folder.relative_to(self.out)), "programs": [j.name for j in copy.jobs],
                "end": copy.end, "why": copy.why, "cpu_seconds": round(copy.cpu, 2),
                "seconds": round(copy.wall, 2), "kib": copy.memory,
                **({"lost": copy.lost} if copy.lost else {})}

    def machines(self):
        return [self.machine(copy) for copy in self.copies if copy.end]


def how(status):
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}"


def has_done(copy):
    """Whether its last program has ended."""
    try:
        return b"@lab done " in (copy.folder / "results.log").read_bytes()
    except OSError:
        return False


def check_space(copy):
    """A full disk looks like a machine that stops without a word."""
    with contextlib.suppress(OSError):
        if not has_done(copy) and shutil.disk_usage(copy.folder).free < MIB:
            copy.end, copy.why = "died", "no space left for its output"


def is_failure(copy, expect=None):
    """Whether a run with fast=True may end here.

    A limit of time, a signal or a machine that died is no failure to stop at: more may
    follow from the others.  A warning is, whatever came of it.
    """
    text = (copy.folder / "results.log").read_bytes()
    codes = [int(c) for c in re.findall(rb"@lab end \S+ (\d+)", text)]
    taint = re.search(rb"@lab done (\d+)", text)
    if expect is not None:
        if any(c != expect for c in codes):
            return True
    elif any(c not in (0, 2, 4) and not 124 <= c < 254 for c in codes):
        return True
    if copy.end == "ok" and taint and taint.group(1) != b"0":
        return True
    lines = record.read_lines(copy.folder / "console.log", copy.end == "flood")
    if copy.end != "ok":
        return any("WARNING: " in line for line in lines)
    # The kernel's word on a program that died is such a signal.
    return any(record.TROUBLE.search(line) and "segfault at" not in line for line in lines)


def check(options):
    if not options.jobs:
        die("nothing to run: name a program or a list (-l); lab/run -h tells more")
    cpu = Machines().cpu(options.cpu)
    if options.memory < 256:
        die(f"-M {options.memory}: the host needs at least 256 MiB")
    if options.memory > BOCHS_MEMORY and not cpu.is_qemu:
        die(f"-M {options.memory}: the emulator gives a machine at most {BOCHS_MEMORY} MiB, for Bochs takes no more "
            "of this one's: a CPU of QEMU's may have more (-c qemu-max)")
    if cpu.is_qemu and (options.debug or options.log or options.emulator):
        die(f"-c {options.cpu} is QEMU's: --debug, --log and --emulator are for the other CPUs")
    if options.log and options.log not in LOG_LEVELS:
        die(f"--log {options.log}: what the emulator logs is one of {', '.join(LOG_LEVELS)}")
    for job in options.jobs:
        if not job.program.is_file():
            die(f"no program {job.program}: build it first ('make')")
        if not os.access(job.program, os.X_OK):
            die(f"{job.program} is not executable")
        for file in job.files:
            if not Path(file).is_file():
                die(f"no file {file} to copy into the host")
        if re.search(r"\s", job.name):
            die(f"'{job.name}': the name of a program is one word")
    brought = frozenset(entry.path for entry in options.unpack)
    for program in {job.program for job in options.jobs}:
        guestfiles.needs(program, brought)
    size = sum(len(entry.data) for entry in options.unpack)
    # Files there are memory, of which they may take half.
    if size > (options.memory // 2 - 32) * MIB:
        die(f"what is to be unpacked has {size / MIB:.0f} MiB, the machine room for {options.memory // 2 - 32}: raise -M")


LEFT_FROM_BEFORE = ("boot", "jobs", "run.json", "console.log", "results.log", "status",
                    "report.ktap", "report.json", "report.xml")


def clear(out):
    for name in LEFT_FROM_BEFORE:
        path = out / name
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.unlink()


def check_folder(out):
    """That nothing in it is of others, which a run would remove."""
    # The lock is there before the folders are, and stays.
    for name in ("boot", "jobs"):
        if (out / name).exists() and not (out / ".lock").exists():
            die(f"{out / name} is there, and not of the lab: choose another folder with -o (O=)")


def now():
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def run(options):
    """Do it; returns the record.Run.  LabError only where nothing could be started."""
    check(options)
    out = folder(options.out, "folder")
    check_folder(out)
    with locked(out / ".lock", wait=0) as mine:
        if not mine:
            die(f"another lab is running in {out}: choose another folder with -o")
        clear(out)
        with work_folder("run") as work:
            write_text(work / "out", f"{out}\n")
            # A blank would end a name in the protocol of the fork server, a comma in bochsrc.
            (work / "o").symlink_to(out)
            parts = find_parts(options, work)
            start = time.monotonic()
            rec = {"planned": [job.name for job in options.jobs], "kernel": str(options.kernel),
                   "cpu": options.cpu, "append": options.append, "params": options.params,
                   "seed": options.seed, "machines": [], "end": "interrupted",
                   "why": "the run was interrupted", "started": now(), **options.note}
            try:
                run_machines(options, parts, work / "o", work, rec)
            finally:
                rec["seconds"] = round(time.monotonic() - start, 2)
                rec["cpu_seconds"] = round(sum(m.get("cpu_seconds", 0) for m in rec["machines"]), 2)
                # First what matters, should the disk be full.
                record.write(out, rec)
                for name in ("console.log", "results.log"):
                    with contextlib.suppress(OSError):
                        join(out, [m["folder"] for m in rec["machines"]], name)
    result = record.Run(out)
    if rec["end"] == "ok" and not options.once:
        note_times({m["programs"][0]: m["cpu_seconds"] for m in rec["machines"]
                    if len(m.get("programs", [])) == 1 and m["end"] == "ok"})
    return result


def join(out, folders, name):
    """One file of all machines, for people to read."""
    with open(out / name, "wb") as whole:
        for part in folders:
            with contextlib.suppress(OSError):
                whole.write((out / part / name).read_bytes())


def run_machines(options, parts, out, work, rec):
    initrd = initramfs(parts, options.params)
    boot = out / "boot"
    boot.mkdir()
    end = time.monotonic() + options.limit
    with contextlib.ExitStack() as stack:
        # A kernel that does not come back needs no machine that waits for it.
        keep = 0 if options.once or parts.cpu.is_qemu else options.keep
        server = find_warm(options, parts, initrd, stack) if keep else None
        is_new = server is None or not server.pid
        server = server or (qemu.Server if parts.cpu.is_qemu else Server)(boot)
        stack.callback(server.close)
        kind, why = "ok", ""
        if is_new:
            options.observer.booting(parts.cpu.name, options.limit)
            server.boot(parts, options, initrd, server.logs if server.logs != boot else work)
            kind, why = wait_ready(server, parts.cpu.count, options.limit, options.stall, options.observer)
        cpu = Watch(server.pid, boot, 1, {}).cpu_seconds() or 0
        if server.logs != boot:
            for name in ("console.log", "results.log", "emulator.log"):
                with contextlib.suppress(OSError):
                    shutil.copy(server.logs / name, boot / name)
        rec["machines"].append({"folder": "boot", "boot": True, "end": kind, "why": why, "warm": not is_new,
                                "cpu_seconds": round(cpu, 2) if is_new else 0})
        options.observer.booted(rec["machines"][0])
        if kind != "ok":
            with contextlib.suppress(OSError):
                (boot / "emulator.log").open("ab").write((server.logs / "stdout").read_bytes())
            rec["end"], rec["why"] = "boot", why
            return
        if parts.cpu.is_qemu:
            server.save()
        if server.logs == boot:
            (boot / "stdout").unlink(missing_ok=True)
        rec["boot_seconds"] = round(options.limit - (end - time.monotonic()), 2)
        runner = Runner(options, out, work, server, parts.cpu.count)
        try:
            runner.go(end)
            rec["end"], rec["why"] = runner.end, runner.why
        except BaseException:       # a signal, or no space for the next payload
            runner.stop_all("died", "the run was interrupted")
            raise
        finally:
            rec["machines"] += runner.machines()
        if keep and server.logs != boot and runner.end in ("ok", "stopped"):
            server.keep(keep)
