# SPDX-License-Identifier: GPL-2.0-only
"""What goes into the machine beside the suite's own programs, and what comes out again.

In: programs, with the libraries that they need, and folders and tars that are unpacked
into / there.  All of it is looked at out here first, so that what the machine cannot run
or has no room for gets one clear line.

Out: files and folders of the machine, as a tar between marker lines of its second serial
port (get() in lab/guest/init):

    @lab get
    @lab missing PATH           of those that were asked for
    @lab files BYTES SHA256     of the tar, compressed by gzip; lines of base64 follow
    @lab files end
    @lab too-large BYTES        in place of the last two
"""

import base64
import binascii
import gzip
import hashlib
import io
import os
import re
import stat
import struct
import subprocess
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common import die

MIB = 1 << 20
# Of the tar that comes out of a machine; a serial port is no network.
GET_LIMIT = 16 * MIB
# What it may be once unpacked: a disk out here is no place for a tar that explodes.
UNPACKED_LIMIT = 512 * MIB
GET_SECONDS = 120

# What is there before anything is unpacked: a file of that name would be in its way.
FOLDERS = frozenset(("bin", "dev", "etc", "lab", "proc", "root", "run", "sys", "tmp"))
EM_386, EM_X86_64 = 3, 62
PT_INTERP = 3


@dataclass
class Entry:
    """A file, folder or link for the machine."""
    path: str                   # without the first slash
    mode: int                   # with its kind, as of stat(2)
    data: bytes = b""           # of a link, where it leads
    uid: int = 0
    gid: int = 0


# --- programs ---

def elf(head):
    """(machine, whether it names an interpreter) of a program that begins like that; None if it is no ELF."""
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[5] != 1:
        return None
    machine = struct.unpack_from("<H", head, 18)[0]
    if head[4] == 2 and len(head) >= 64:
        at, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
    else:
        at, = struct.unpack_from("<I", head, 28)
        size, count = struct.unpack_from("<HH", head, 42)
    kinds = [struct.unpack_from("<I", head, at + n * size)[0]
             for n in range(count) if at + n * size + 4 <= len(head)]
    return machine, PT_INTERP in kinds


def ldd(program):
    """What ldd(1) says of a program, or "" if it takes it for none of this machine's."""
    try:
        done = subprocess.run(["ldd", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def libraries(program):
    """Of a program that is not static, with its loader."""
    found = set(re.findall(r"/[^\s)]+", ldd(program)))
    # pthread_exit() loads one that no program names.
    found |= {str(Path(lib).parent / "libgcc_s.so.1") for lib in found if lib.endswith("/libc.so.6")}
    return sorted(lib for lib in found if Path(lib).exists())


def needs(program, brought=frozenset()):
    """Check that the machine can run a program; returns the libraries to bring along.

    brought holds the paths, without the first slash, of what is unpacked there.
    """
    with open(program, "rb") as file:
        head = file.read(1 << 16)
    if head.startswith(b"#!"):
        check_script(program, head, brought)
        return []
    found = elf(head)
    if found is None:
        return []               # a shell may know what it is
    machine, is_dynamic = found
    if machine not in (EM_386, EM_X86_64):
        die(f"{program} is no program for x86 (ELF machine {machine}): compile it for x86-64")
    if not is_dynamic:
        return []
    said = ldd(program)
    lost = re.findall(r"^\s*(\S+) => not found", said, re.M)
    if lost:
        die(f"{program} needs {' '.join(lost)}, which this machine lacks too: install that, or link with -static")
    found = libraries(program)
    if not found:
        die(f"{program} is not static, and ldd(1) cannot tell what it needs here: link it with -static, "
            "or bring it with its libraries by -u, and run it by a script")
    return found


def applets():
    """What busybox has in /bin of the machine."""
    done = subprocess.run(["busybox", "--list"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          timeout=60, check=True)
    return set(done.stdout.split()) | {"busybox"}


def check_script(program, head, brought):
    """A script's first line names something that is there."""
    words = head[2:].split(b"\n", 1)[0].decode("utf-8", "replace").split()
    if not words or words[0].lstrip("/") in brought:
        return                  # one without a name is the shell's
    folder, _, name = words[0].rpartition("/")
    if folder == "/bin" and name in applets():
        return
    if folder in ("/usr/bin", "/usr/local/bin") and name in ("env", *applets()):
        name = words[1] if name == "env" and len(words) > 1 else name
        hint = f"write '#!/bin/{name}'" if name in applets() else f"bring {words[0]} and {name} by -u"
    else:
        hint = "write it for /bin/sh, which is busybox's, or bring that by -u"
    die(f"{program} wants {words[0]}, which is not in the machine: {hint}")


# --- what is unpacked there ---

def unpack(source):
    """The entries of a folder or tar."""
    path = Path(source)
    if path.is_dir():
        entries = list(of_folder(path))
    elif path.is_file():
        entries = list(of_tar(path))
    else:
        die(f"-u {source}: no such folder or tar")
    for entry in entries:
        check_entry(source, entry)
    return entries


def of_folder(top):
    """All there, folders before what is in them; it belongs to root in the machine."""
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        name = str(path.relative_to(top))
        if stat.S_ISLNK(info.st_mode):
            yield Entry(name, info.st_mode, os.fsencode(os.readlink(path)))
        elif stat.S_ISREG(info.st_mode):
            yield Entry(name, info.st_mode, path.read_bytes())
        else:
            yield Entry(name, info.st_mode)


def of_tar(path):
    """All of a tar, compressed or not, with its owners."""
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO,
             tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = str(PurePosixPath(member.name.lstrip("/")))
                if name == ".":
                    continue
                kind, data = kinds.get(member.type, stat.S_IFREG), b""
                if member.issym():
                    data = os.fsencode(member.linkname)
                elif kind == stat.S_IFREG:
                    # Of a hard link that is the file which it leads to.
                    data = tar.extractfile(member).read()
                yield Entry(name, kind | (member.mode & 0o7777), data, member.uid, member.gid)
    except (tarfile.TarError, OSError, EOFError, KeyError, AttributeError, zlib.error) as error:
        die(f"-u {path}: neither a folder nor a tar that can be read: {error}")


def check_entry(source, entry):
    parts = entry.path.split("/")
    if ".." in parts:
        die(f"-u {source}: {entry.path} leads out of the folder")
    if not (stat.S_ISREG(entry.mode) or stat.S_ISDIR(entry.mode) or stat.S_ISLNK(entry.mode)):
        die(f"-u {source}: {entry.path} is neither a file, a folder nor a link: leave it out")
    if entry.path in FOLDERS and not stat.S_ISDIR(entry.mode):
        die(f"-u {source}: the machine has a folder /{entry.path}, where this has none: leave /{entry.path} out")
    if parts[0] == "lab" or entry.path in ("init", "bin/busybox"):
        die(f"-u {source}: /{entry.path} is the lab's own: choose another place")


# --- what comes out ---

BEGIN = re.compile(rb"^@lab get$", re.M)
HEAD = re.compile(rb"^@lab files (\d+) ([0-9a-f]{64})\n", re.M)
END = b"\n@lab files end\n"
MISSING = re.compile(rb"^@lab missing (.*)$", re.M)
TOO_LARGE = re.compile(rb"^@lab too-large$", re.M)


def fetch(folder):
    """Unpack to folder/files what a machine has sent, and take it out of its results.log.

    Returns what is wrong, in a line, or "".
    """
    log = folder / "results.log"
    data = log.read_bytes()
    begin = BEGIN.search(data)
    if not begin:
        return "the machine ended before it sent its files"
    head = HEAD.search(data, begin.end())
    said = data[begin.end():head.start() if head else len(data)]
    missing = [m.decode("utf-8", "replace") for m in MISSING.findall(said)]
    if TOO_LARGE.search(said):
        return f"its files are larger than {GET_LIMIT >> 20} MiB, as a tar.gz: name fewer by -g"
    end = data.find(END, head.end() - 1) if head else -1
    if end < 0:
        return "the machine ended while it sent its files"
    why, count = unframe(int(head.group(1)), head.group(2).decode(), data[head.end():end], folder / "files")
    log.write_bytes(data[:head.start()] + f"@lab files: {why or count}\n".encode() + data[end + len(END):])
    if why:
        return why
    return f"not in the machine: {' '.join(missing)}" if missing else ""


def unframe(size, digest, text, to):
    """Decode, check and unpack base64 text; returns what is wrong, and how many files there are."""
    try:
        packed = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        packed = None
    if packed is None or len(packed) != size or hashlib.sha256(packed).hexdigest() != digest:
        return "its files were damaged on the way: something else wrote to the serial port", 0
    try:
        with gzip.open(io.BytesIO(packed)) as whole:
            data = whole.read(UNPACKED_LIMIT + 1)
        if len(data) > UNPACKED_LIMIT:
            return f"its files are larger than {UNPACKED_LIMIT >> 20} MiB once unpacked", 0
        if not data:
            return "", 0
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return "", take(tar, to)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        return f"its files cannot be unpacked: {error}", 0


def take(tar, to):
    """Write all files, folders and links of a tar below the folder to; returns how many files."""
    count, links = 0, []
    for member in tar:
        name = PurePosixPath(member.name.lstrip("/"))
        path = to / name
        if ".." in name.parts:
            raise tarfile.TarError(f"{member.name} leads out of the folder")
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            links.append((path, member.linkname))
        elif member.isreg() or member.islnk():
            path.write_bytes(tar.extractfile(member).read())
            path.chmod(0o644 | (member.mode & 0o111))
            count += 1
    # Last: nothing is written through one.
    for path, target in links:
        if not path.exists():
            path.symlink_to(target)
    return count
