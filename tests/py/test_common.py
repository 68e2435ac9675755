# SPDX-License-Identifier: GPL-2.0-only
"""What the commands share: the cache in Python, bounded processes, one line for errors.

tests/cache.t has the same of lab/lib.sh, with which it shares folders and locks.
"""

import contextlib
import io
import os
import shutil
import signal
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
from common import LabError

# A process of its own, with SOURCE as its command.
COMMAND = """\
import os, sys, time
from pathlib import Path
sys.path.insert(0, {lab!r})
import common
from common import *
def main():
    {source}
run_command(main)
"""


# What processes sleep is their name: another run of this test has others.
NAP = f"97.{os.getpid()}"


def sleepers():
    return subprocess.run(["pgrep", "-f", f"^sleep {NAP}"], stdout=subprocess.PIPE, check=False).stdout


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)
        changed = mock.patch.dict(os.environ, CACHE=str(self.tmp / "cache"), VERBOSE="0")
        changed.start()
        self.addCleanup(changed.stop)

    def command(self, source, stdin=subprocess.DEVNULL):
        text = COMMAND.format(lab=str(runs.TOP / "lab/py"), source=source)
        return subprocess.Popen([sys.executable, "-B", "-c", text], stdin=stdin,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.tmp)

    def ends(self, source, status, stderr=None, stdout=""):
        child = self.command(source)
        out, err = child.communicate(timeout=60)
        self.assertEqual((child.returncode, out), (status, stdout), err)
        if stderr is not None:
            self.assertRegex(err, stderr)
            self.assertEqual(err.count("\n"), 1 if err else 0)

    def wait_for(self, path):
        end = time.monotonic() + 60
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertTrue(path.exists())


class Commands(Case):
    def test_status(self):
        self.ends("return 3", 3, "^$")

    def test_an_error_is_one_line(self):
        self.ends('die("do this")', 1, "^lab: do this$")

    def test_full_disk_is_one_line(self):
        self.ends('open("/dev/full", "w").write("x" * 100000)', 1, r"No space left on device: mend that")

    def test_folder_that_cannot_be_written(self):
        self.ends("cache()", 0)
        with mock.patch.dict(os.environ, CACHE="/proc/nowhere"):
            self.ends("cache()", 1, "^lab: cannot write to the cache folder /proc/nowhere: choose another")

    def test_output_that_nobody_takes(self):
        """Quiet, and no success: half of a report is none."""
        for source in ("print('x' * 10)", "print('x' * 100000, flush=True)"):
            with self.subTest(source):
                child = self.command(f"sys.stdin.read(); {source}; return 0", stdin=subprocess.PIPE)
                child.stdout.close()
                child.stdin.close()
                self.assertEqual((child.stderr.read(), child.wait(60)), ("", 1))
                child.stderr.close()
        self.ends("os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('x'); return 0", 1,
                  "^lab: .*No space left on device")

    def test_hangup_that_is_ignored(self):
        """As by nohup(1)."""
        source = "os.kill(os.getpid(), 1); return 7"
        self.ends(source, 129)
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.ends(source, 7)

    def test_other_errors_have_a_traceback(self):
        child = self.command("1 / 0")
        self.assertIn("ZeroDivisionError", child.communicate(timeout=60)[1])

    def test_signal_while_a_child_begins(self):
        """It is as if it had come once the child is known."""
        source = ("import subprocess\n"
                  "    begin, sleep = subprocess.Popen, time.sleep\n"
                  "    def slow(*args, **more):\n"
                  "        child = begin(*args, **more); Path('at').touch(); sleep(1); return child\n"
                  "    subprocess.Popen = slow\n"
                  f"    call(['sleep', '{NAP}'], 60)")
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(sig):
                child = self.command(source)
                self.wait_for(self.tmp / "at")
                child.send_signal(sig)
                self.assertEqual((child.communicate(timeout=60)[1], child.returncode), ("", 128 + sig))
                self.assertEqual(sleepers(), b"")
                (self.tmp / "at").unlink()

    def test_signals_end_it_with_all_that_it_started(self):
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(sig):
                source = ('with work_folder("x"): Path("at").touch(); '
                          'call(["sh", "-c", "touch at; sleep %s & sleep %s"], 60)' % (NAP, NAP))
                child = self.command(source)
                self.wait_for(self.tmp / "at")
                time.sleep(0.3)
                child.send_signal(sig)
                self.assertEqual(child.communicate(timeout=60)[1], "")
                self.assertEqual(child.returncode, 128 + sig)
                self.assertEqual(list((self.tmp / "cache/tmp").iterdir()), [])
                self.assertEqual(sleepers(), b"")
                (self.tmp / "at").unlink()


class Processes(Case):
    def test_statuses_and_log(self):
        log = self.tmp / "log"
        self.assertEqual(common.call(["sh", "-c", "echo out; echo err >&2; exit 7"], 60, log), 7)
        self.assertEqual(common.call(["sh", "-c", "kill -SEGV $$"], 60, log), -signal.SIGSEGV)
        self.assertEqual(log.read_text(), "out\nerr\n")

    def test_bound(self):
        began = time.monotonic()
        self.assertEqual(common.call(["sh", "-c", f"sleep {NAP} & sleep {NAP}"], 0.5), 124)
        self.assertLess(time.monotonic() - began, 30)
        self.assertEqual(sleepers(), b"")

    def test_what_it_leaves_behind_ends_too(self):
        self.assertEqual(common.call(["sh", "-c", f"sleep {NAP} & exit 0"], 60), 0)
        time.sleep(0.2)
        self.assertEqual(sleepers(), b"")

    def test_output(self):
        self.assertEqual(common.call(["echo", "a"], 60, output=True), "a")
        with self.assertRaises(SystemExit) as caught:
            common.call(["sh", "-c", "exit 9"], 60, output=True)
        self.assertEqual(caught.exception.code, 9)

    def test_missing_command(self):
        with self.assertRaisesRegex(LabError, "^no-such-command is missing: install the Debian package x "):
            common.need("no-such-command", "x")


class Cache(Case):
    def test_made_once(self):
        made = []

        def make(folder):
            made.append(folder)
            (folder / "file").write_text("whole")
        for _ in range(2):
            path = common.cache_put("thing-1", make)
            self.assertEqual((path / "file").read_text(), "whole")
        self.assertEqual(len(made), 1)
        self.assertEqual(list((self.tmp / "cache/tmp").iterdir()), [])

    def test_four_at_once_make_it_once(self):
        source = ('cache_put("thing-1", lambda f: (time.sleep(0.5), '
                  'open("count", "a").write("made\\n"))); print("got it")')
        children = [self.command(source) for _ in range(4)]
        self.assertEqual([c.communicate(timeout=60)[0] for c in children], 4 * ["got it\n"])
        self.assertEqual((self.tmp / "count").read_text(), "made\n")

    def test_failure_leaves_nothing(self):
        def make(folder):
            (folder / "half").touch()
            common.die("no")
        with self.assertRaises(LabError):
            common.cache_put("thing-1", make)
        self.assertFalse((self.tmp / "cache/thing-1").exists())
        self.assertEqual(list((self.tmp / "cache/tmp").iterdir()), [])

    def test_rests_of_one_that_was_killed_do_no_harm(self):
        child = self.command('cache_put("thing-1", lambda f: ((f / "half").touch(), time.sleep(100)))')
        self.wait_for(self.tmp / "cache/tmp/thing-1/half")
        child.kill()
        child.communicate()
        path = common.cache_put("thing-1", lambda folder: (folder / "whole").touch())
        self.assertEqual(sorted(p.name for p in path.iterdir()), [".seal", "whole"])

    def test_damaged_thing_is_made_anew(self):
        def make(folder):
            (folder / "a/b").mkdir(parents=True)
            (folder / "a/b/file").write_text("whole")
            (folder / "link").symlink_to("nowhere")

        def check(said):
            with contextlib.redirect_stderr(io.StringIO()) as err:
                path = common.cache_put("thing-1", make)
            self.assertEqual(err.getvalue(), said and f"lab: the cache's thing-1 is damaged ({said}): making it anew\n")
            self.assertEqual((path / "a/b/file").read_text(), "whole")
            self.assertEqual(list((self.tmp / "cache/tmp").iterdir()), [])
            return path
        path = check("")
        for spoil, said in ((lambda: (path / "a/b/file").write_text("whol"), "a/b/file"),
                            (lambda: (path / "a/b/file").unlink(), "a/b/file"),
                            (lambda: shutil.rmtree(path / "a"), "a/b/file"),
                            (lambda: (path / "a/more").touch(), "a/more"),
                            (lambda: (path / ".seal").write_bytes(b""), "a/b/file"),
                            # As older ones were.
                            (lambda: (path / ".seal").unlink(), "")):
            spoil()
            check(said)

    def test_temporary_folder_of_one_that_was_killed(self):
        def left():
            return sorted(p.name.partition(".")[0] for p in (self.tmp / "cache/tmp").iterdir())
        source = 'w = common.work_folder("{}"); p = w.__enter__(); (p / "there").touch(); time.sleep(100)'
        children = [self.command(source.format(name)) for name in ("run", "run", "other")]
        while len(list((self.tmp / "cache/tmp").glob("*/there"))) < 3:
            time.sleep(0.02)
        for child in children[1:]:
            child.kill()
            child.communicate()
        (self.tmp / "cache/tmp/run.older").mkdir()
        with common.work_folder("run"):
            self.assertEqual(left(), ["other", "run", "run", "run"])
        self.assertEqual(left(), ["other", "run", "run"])
        children[0].kill()
        children[0].communicate()

    def test_lock_that_another_one_has(self):
        common.cache()
        path = self.tmp / "cache/lock/x"
        with common.locked(path) as first, common.locked(path, wait=0) as second:
            self.assertEqual((first, second), (True, False))
        with common.locked(path, wait=0) as third:
            self.assertTrue(third)
        with common.locked(path), self.assertRaisesRegex(LabError, "^x: another run has held its lock"):
            with common.locked(path, wait=1):
                pass

    def test_paths(self):
        for name in ("/with blank", "/a:b", "/a$b"):
            with mock.patch.dict(os.environ, CACHE=name), self.assertRaisesRegex(LabError, "choose another"):
                common.cache()
        with mock.patch.dict(os.environ, clear=True), self.assertRaisesRegex(LabError, "^HOME is not set"):
            common.cache()
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.tmp / "xdg")}, clear=True):
            self.assertEqual(common.cache(), self.tmp / "xdg/xcomp-lab")

    def test_hashes_tell_parts_apart(self):
        hashes = {common.hash_bytes(*parts)
                  for parts in (("ab", "c"), ("a", "bc"), ("abc",), (b"ab", "c", ""))}
        self.assertEqual(len(hashes), 4)
        self.assertEqual(common.hash_bytes("a"), common.hash_bytes(b"a"))

    def test_files_are_whole_or_not_there(self):
        path = self.tmp / "file"
        common.write_text(path, "one")
        with self.assertRaises(UnicodeEncodeError):
            common.write_text(path, "\udcff" * 10)
        self.assertEqual([p.name for p in self.tmp.iterdir() if p.is_file()], ["file"])
        self.assertEqual(path.read_text(), "one")


if __name__ == "__main__":
    unittest.main()
