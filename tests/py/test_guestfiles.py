# SPDX-License-Identifier: GPL-2.0-only
"""lab/py/guestfiles.py: what goes into a machine, and what comes out of it."""

import base64
import gzip
import hashlib
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runs                         # finds lab/py
import guestfiles
from common import LabError

assert runs.TOP in Path(guestfiles.__file__).parents


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)

    def file(self, name, data=b"", mode=0o644):
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def dies(self, regex):
        return self.assertRaisesRegex(LabError, regex)


class Programs(Case):
    def compile(self, name, *flags):
        source = self.file(f"{name}.c", b"int main(void) { return 0; }\n")
        subprocess.run(["gcc", *flags, "-o", self.tmp / name, source], check=True, timeout=60)
        return self.tmp / name

    def test_static_ones_need_nothing(self):
        for flags in (["-static"], ["-static-pie"]):
            with self.subTest(flags):
                self.assertEqual(guestfiles.needs(self.compile("a", *flags)), [])

    def test_others_need_their_libraries(self):
        found = guestfiles.needs(self.compile("a"))
        self.assertTrue(any(lib.endswith("/libc.so.6") for lib in found), found)
        self.assertTrue(any("/ld-linux-x86-64.so" in lib for lib in found), found)

    def test_library_that_is_not_here(self):
        lib = self.file("b.c", b"int b(void) { return 0; }\n")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", self.tmp / "libnothere.so", lib], check=True, timeout=60)
        program = self.compile("a", "-Wl,--no-as-needed", f"-L{self.tmp}", "-lnothere")
        (self.tmp / "libnothere.so").unlink()
        with self.dies(r"/a needs libnothere\.so, which this machine lacks too: install that, or link with -static$"):
            guestfiles.needs(program)

    def test_of_another_machine(self):
        head = bytearray(self.compile("a", "-static").read_bytes()[:4096])
        struct.pack_into("<H", head, 18, 183)
        with self.dies(r"/arm is no program for x86 \(ELF machine 183\): compile it"):
            guestfiles.needs(self.file("arm", bytes(head)))

    def test_dynamic_one_that_ldd_does_not_take(self):
        program = self.compile("a")
        with mock.patch.object(guestfiles, "ldd", return_value=""), \
                self.dies("is not static, and ldd.1. cannot tell .* link it with -static, or bring it"):
            guestfiles.needs(program)

    def test_damaged_and_odd_ones(self):
        whole = self.compile("a").read_bytes()
        for data in (b"", b"\x7fELF", whole[:40], b"\x7fELF" + b"\xff" * 100, b"no program", b"#!", b"#!\n"):
            with self.subTest(data[:20]):
                try:
                    self.assertEqual(guestfiles.needs(self.file("odd", data)), [])
                except LabError as error:
                    self.assertNotIn("\n", str(error))
        self.assertEqual(guestfiles.elf(b"\x7fELF" + b"\xff" * 100), None)   # big-endian, if anything

    def test_scripts(self):
        for first, regex in (
                (b"#!/bin/sh", None), (b"#! /bin/sh -e", None), (b"#!/bin/busybox sh", None), (b"#!/bin/awk -f", None),
                (b"#!/bin/bash", "wants /bin/bash, which is not in the machine: write it for /bin/sh"),
                (b"#!/usr/bin/env sh", "wants /usr/bin/env, .*: write '#!/bin/sh'$"),
                (b"#!/usr/bin/awk -f", "wants /usr/bin/awk, .*: write '#!/bin/awk'$"),
                (b"#!/usr/bin/env python3", "wants /usr/bin/env, .*: bring /usr/bin/env and python3 by -u$"),
                (b"#!/usr/bin/python3", "wants /usr/bin/python3, which is not in the machine: write it for")):
            with self.subTest(first):
                path = self.file("script", first + b"\necho\n")
                if not regex:
                    self.assertEqual(guestfiles.needs(path), [])
                    continue
                with self.dies(regex):
                    guestfiles.needs(path)

    def test_interpreter_that_is_brought(self):
        path = self.file("script", b"#!/opt/bin/lua -x\n")
        self.assertEqual(guestfiles.needs(path, frozenset(["opt/bin/lua"])), [])
        with self.dies("wants /opt/bin/lua"):
            guestfiles.needs(path, frozenset(["opt/bin"]))


class Unpack(Case):
    def tree(self):
        self.file("tree/opt/data", b"data", 0o640)
        self.file("tree/opt/tool", b"tool", 0o755)
        (self.tmp / "tree/empty").mkdir()
        (self.tmp / "tree/opt/link").symlink_to("../nowhere")
        return self.tmp / "tree"

    def tar(self, *members, mode="w"):
        """members: (name, type, data)"""
        path = self.tmp / "a.tar"
        with tarfile.open(path, mode) as tar:
            for name, kind, data in members:
                info = tarfile.TarInfo(name)
                info.type, info.mode, info.uid, info.gid = kind, 0o600, 7, 8
                if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                    info.linkname = data
                    tar.addfile(info)
                else:
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return path

    def test_folder(self):
        found = {e.path: e for e in guestfiles.unpack(self.tree())}
        self.assertEqual(set(found), {"opt", "opt/data", "opt/tool", "opt/link", "empty"})
        self.assertEqual((found["opt/data"].mode, found["opt/data"].data), (stat.S_IFREG | 0o640, b"data"))
        self.assertEqual((stat.S_IFMT(found["opt/link"].mode), found["opt/link"].data), (stat.S_IFLNK, b"../nowhere"))
        self.assertTrue(stat.S_ISDIR(found["empty"].mode))
        self.assertLess(list(found).index("opt"), list(found).index("opt/data"))
        self.assertEqual({(e.uid, e.gid) for e in found.values()}, {(0, 0)})

    def test_tar_of_all_kinds(self):
        for mode in ("w", "w:gz", "w:xz"):
            path = self.tar(("./", tarfile.DIRTYPE, b""), ("./a", tarfile.DIRTYPE, b""), ("a/f", tarfile.REGTYPE, b"f"),
                            ("/a/h", tarfile.LNKTYPE, "a/f"), ("a/s", tarfile.SYMTYPE, "f"), mode=mode)
            with self.subTest(mode):
                found = {e.path: e for e in guestfiles.unpack(path)}
                self.assertEqual(set(found), {"a", "a/f", "a/h", "a/s"})
                self.assertEqual((found["a/h"].data, found["a/f"].mode), (b"f", stat.S_IFREG | 0o600))
                self.assertEqual((found["a/f"].uid, found["a/f"].gid), (7, 8))
                self.assertEqual(found["a/s"].data, b"f")

    def test_what_is_refused(self):
        kinds = tarfile.REGTYPE, tarfile.SYMTYPE
        for member, regex in (
                (("../x", kinds[0], b""), r"\.\./x leads out of the folder$"),
                (("dev/null", tarfile.CHRTYPE, b""), "dev/null is neither a file, a folder nor a link: leave it out$"),
                (("bin", kinds[1], "usr/bin"), "the machine has a folder /bin, where this has none: leave /bin out$"),
                (("lab/list", kinds[0], b""), "/lab/list is the lab's own: choose another place$"),
                (("./init", kinds[0], b""), "/init is the lab's own"),
                (("lost", tarfile.LNKTYPE, "nowhere"), "neither a folder nor a tar that can be read")):
            with self.subTest(regex), self.dies(regex):
                guestfiles.unpack(self.tar(member))
        with self.dies("^-u .*/none: no such folder or tar$"):
            guestfiles.unpack(self.tmp / "none")
        with self.dies("^-u .*/text: neither a folder nor a tar that can be read: "):
            guestfiles.unpack(self.file("text", b"text"))
        os.mkfifo(self.tree() / "opt/fifo")
        with self.dies("opt/fifo is neither a file"):
            guestfiles.unpack(self.tmp / "tree")

    def test_tar_that_ends_too_soon(self):
        path = self.tar(("a", tarfile.REGTYPE, os.urandom(100000)), mode="w:gz")
        path.write_bytes(path.read_bytes()[:50000])
        with self.dies("neither a folder nor a tar that can be read: "):
            guestfiles.unpack(path)


def tar_of(*members):
    """A tar.gz; members: (name, type, data)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind == tarfile.SYMTYPE:
                info.linkname = data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


class Fetch(Case):
    FILES = (("tmp", tarfile.DIRTYPE, b""), ("tmp/a", tarfile.REGTYPE, b"a" * 100000), ("tmp/l", tarfile.SYMTYPE, "a"))
    BEFORE = b"@lab begin x\nhello\n\n@lab end x 0\n"

    def log(self, packed, said=b"", size=None, end=b"@lab files end\n", damage=None):
        lines = base64.encodebytes(packed)
        if damage:
            lines = damage(lines)
        head = b"@lab files %d %s\n" % (len(packed) if size is None else size,
                                        hashlib.sha256(packed).hexdigest().encode())
        return self.file("results.log", self.BEFORE + b"@lab get\n" + said + head + lines + end + b"@lab done 0\n")

    def fetch(self):
        return guestfiles.fetch(self.tmp)

    def test_files_folders_and_links(self):
        self.log(tar_of(*self.FILES))
        self.assertEqual(self.fetch(), "")
        self.assertEqual((self.tmp / "files/tmp/a").read_bytes(), b"a" * 100000)
        self.assertEqual(os.readlink(self.tmp / "files/tmp/l"), "a")
        self.assertEqual((self.tmp / "results.log").read_bytes(),
                         self.BEFORE + b"@lab get\n@lab files: 1\n@lab done 0\n")

    def test_what_is_missing_is_named_and_the_rest_is_there(self):
        self.log(tar_of(*self.FILES), b"@lab missing /a\n@lab missing /b c\n")
        self.assertEqual(self.fetch(), "not in the machine: /a /b c")
        self.assertTrue((self.tmp / "files/tmp/a").exists())

    def test_nothing_at_all(self):
        self.log(b"", b"@lab missing /a\n")
        self.assertEqual(self.fetch(), "not in the machine: /a")

    def test_damage_is_noticed(self):
        packed = tar_of(*self.FILES)
        for name, damage in (("a line", lambda text: text[:77] + b"noise\n" + text[77:]),
                             ("a letter", lambda text: (b"B" if text[:1] != b"B" else b"C") + text[1:]),
                             ("an end", lambda text: text[:-10] + b"\n"),
                             ("no base64", lambda text: b"****\n" + text)):
            with self.subTest(name):
                self.log(packed, damage=damage)
                self.assertRegex(self.fetch(), "^its files were damaged on the way")
                self.assertFalse((self.tmp / "files").exists())
        self.log(packed, size=len(packed) + 1)
        self.assertRegex(self.fetch(), "^its files were damaged on the way")
        self.log(b"no tar")
        self.assertRegex(self.fetch(), "^its files cannot be unpacked: ")
        self.log(gzip.compress(b"no tar" * 1000))
        self.assertRegex(self.fetch(), "^its files cannot be unpacked: ")

    def test_end_that_comes_too_soon(self):
        self.log(tar_of(*self.FILES), end=b"")
        self.assertEqual(self.fetch(), "the machine ended while it sent its files")
        self.file("results.log", b"@lab begin x\nhello\n")
        self.assertEqual(self.fetch(), "the machine ended before it sent its files")
        self.file("results.log", b"@lab get\n@lab too-large\n@lab done 0\n")
        self.assertRegex(self.fetch(), "^its files are larger than 16 MiB, as a tar.gz: name fewer by -g$")

    def test_program_that_prints_a_frame_of_its_own(self):
        self.log(tar_of(*self.FILES))
        fake = b"@lab begin x\n@lab files 3 " + b"0" * 64 + b"\nxxx\n@lab files end\n"
        self.file("results.log", fake + (self.tmp / "results.log").read_bytes())
        self.assertEqual(self.fetch(), "")
        self.assertTrue((self.tmp / "results.log").read_bytes().startswith(fake))

    def test_nothing_leaves_the_folder(self):
        for member in (("../x", tarfile.REGTYPE, b""), ("a/../../x", tarfile.REGTYPE, b"")):
            with self.subTest(member):
                self.log(tar_of(member))
                self.assertRegex(self.fetch(), "^its files cannot be unpacked: .* leads out of the folder$")
        out = self.tmp / "out"
        out.mkdir()
        self.log(tar_of(("l", tarfile.SYMTYPE, str(out)), ("l/x", tarfile.REGTYPE, b"x"), ("/abs", tarfile.REGTYPE, b"")))
        self.assertEqual(self.fetch(), "")
        self.assertEqual(list(out.iterdir()), [])
        self.assertTrue((self.tmp / "files/abs").exists())

    def test_more_than_a_disk_holds(self):
        self.log(tar_of(("a", tarfile.REGTYPE, bytes(100000))))
        with mock.patch.object(guestfiles, "UNPACKED_LIMIT", 10000):
            self.assertRegex(self.fetch(), "^its files are larger than 0 MiB once unpacked$")


if __name__ == "__main__":
    unittest.main()
