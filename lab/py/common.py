# SPDX-License-Identifier: GPL-2.0-only
"""What the lab's commands share: messages, bounded processes and the cache.

The cache is that of lab/lib.sh: a folder appears in it only when it is whole, and
its name ends in a hash of what it was made from.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LAB = TOP / "lab"


class LabError(Exception):
    """Something the user has to know, in one line that says how to mend it."""


def die(text):
    raise LabError(text)


def env(name, default=""):
    """A variable of make, for the default of an option."""
    return os.environ.get(name) or default


def is_chatty():
    return sys.stderr.isatty() or os.environ.get("VERBOSE", "0") == "1"


# Called before a message, by who has a line on the terminal that is not finished.
before_message = []


def say(text):
    """Progress, for a terminal only."""
    if is_chatty():
        for clear in before_message:
            clear()
        print(f"lab: {text}", file=sys.stderr, flush=True)


def warn(text):
    for clear in before_message:
        clear()
    print(f"lab: {text}", file=sys.stderr, flush=True)


END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed():
    """Signals that end the process wait until the end of this, so that a child which has begun is
    known by then to who ends it."""
    came, old = [], {}
    # Python calls no handler in another thread.
    if threading.current_thread() is threading.main_thread():
        old = {sig: handler for sig in END_SIGNALS if callable(handler := signal.getsignal(sig))}
    for sig in old:
        signal.signal(sig, lambda *args: came.append(args))
    try:
        yield
    finally:
        for sig, handler in old.items():
            signal.signal(sig, handler)
        if came:
            old[came[0][0]](*came[0])


def run_command(main, *arguments):
    """Call main and turn what goes wrong into one line and an exit status.

    Signals end the process by an exception, so that every "finally" on the way
    out has its turn.
    """
    def on_signal(number, _):
        for sig in END_SIGNALS:
            signal.signal(sig, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for sig in END_SIGNALS:
        # As in a shell, what nohup(1) has the process ignore stays ignored.
        if sig != signal.SIGHUP or signal.getsignal(sig) != signal.SIG_IGN:
            signal.signal(sig, on_signal)
    # Scripts look for messages, and hashes depend on sorting.
    os.environ["LC_ALL"] = "C"
    # The options of the make that runs a command are not meant for those it runs.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):
        os.environ.pop(name, None)
    try:
        status = main(*arguments)
    except LabError as error:
        warn(error)
        status = 1
    except BrokenPipeError:
        status = 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE):
            raise
        warn(f"{error.filename or 'a file'}: {error.strerror}: mend that, or choose another folder "
             "with O= or CACHE=")
        status = 1
    try:
        sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:
            warn(f"cannot write to stdout: {error.strerror}")
        status = status or 1
        # What is left in the buffer would fail once more on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(status)


# --- the cache ---

def cache():
    """The folder of the cache, as lab/lib.sh has it."""
    folder = os.environ.get("CACHE", "")
    if not folder:
        home = os.environ.get("XDG_CACHE_HOME") or \
            (os.environ.get("HOME") and os.environ["HOME"] + "/.cache")
        if not home:
            die("HOME is not set: name a folder for the cache with CACHE=/some/folder")
        folder = home + "/xcomp-lab"
    if re.search(r"[^A-Za-z0-9/._+,@~-]", folder):
        die(f"CACHE='{folder}': kernel Makefiles take no blanks or special characters in paths, "
            "choose another folder")
    path = Path(folder).absolute()
    os.environ["CACHE"] = str(path)
    try:
        for part in ("lock", "log", "tmp"):
            (path / part).mkdir(parents=True, exist_ok=True)
    except OSError:
        pass
    if not os.access(path / "tmp", os.W_OK):
        die(f"cannot write to the cache folder {path}: choose another one with CACHE=/some/folder")
    return path


def hash_bytes(*parts):
    """The first 16 digits of the SHA256 of strings and bytes."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def hash_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path, wait=3600):
    """Hold the lock file path; with wait=0 yields False if another one has it."""
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            say(f"another run holds {path.name}, waiting for it")
            wait_for_lock(file, path, wait)
        yield True


def wait_for_lock(file, path, seconds):
    def on_alarm(*_):
        raise LabError(f"{path.name}: another run has held its lock for {seconds} s")

    old = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


SEAL = ".seal"


def files_of(path):
    """What the seal of a thing in the cache says: its files, with their sizes."""
    files = (p for p in path.rglob("*") if p.is_file() and not p.is_symlink() and p != path / SEAL)
    return sorted(f"{p.stat().st_size} {p.relative_to(path)}" for p in files)


def damage(path):
    """A file of a sealed thing in the cache that is not as it was made, or ""."""
    try:
        sealed = (path / SEAL).read_text().splitlines()
    except OSError:
        return ""               # of an older lab
    other = set(sealed) ^ set(files_of(path))
    return min(line.partition(" ")[2] for line in other) if other else ""


def cache_put(name, make):
    """The folder NAME of the cache; make(folder) fills it if it is not there, or is damaged."""
    base = cache()
    path = base / name
    if path.exists() and not damage(path):
        return path
    with locked(base / "lock" / name):
        new = base / "tmp" / name
        shutil.rmtree(new, ignore_errors=True)
        if path.exists():
            if not (what := damage(path)):
                return path
            warn(f"the cache's {name} is damaged ({what}): making it anew")
            path.rename(new)
            shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            make(new)
            (new / SEAL).write_text("".join(f"{line}\n" for line in files_of(new)))
            # What has its name is on the disk, should the power go.
            call(["sync", "-f", new], 600)
            new.rename(path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return path


# Who uses a temporary folder holds the lock of this file in it.
IN_USE = ".in-use"


@contextlib.contextmanager
def work_folder(prefix):
    """A temporary folder of the cache, gone at the end; or the next time, if this is killed."""
    base = cache()
    with contextlib.ExitStack() as stack:
        with locked(base / "lock" / "work"):
            for left in (base / "tmp").glob(f"{prefix}.*/{IN_USE}"):
                with contextlib.suppress(OSError), locked(left, wait=0) as free:
                    if free:
                        shutil.rmtree(left.parent, ignore_errors=True)
            path = Path(tempfile.mkdtemp(prefix=prefix + ".", dir=base / "tmp"))
            stack.enter_context(locked(path / IN_USE, wait=0))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def folder(path, what="folder"):
    """Make it, and return it in full."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        die(f"cannot make the {what} {path}: {error.strerror}: choose another one")
    if not os.access(path, os.W_OK):
        die(f"cannot write to the {what} {path}: choose another one")
    return Path(path).resolve()


def read_json(path):
    """What a JSON file holds; None if there is none that is whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def write_text(path, text):
    """Write a file that is whole or not there."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text)
        os.replace(new, path)
    finally:
        with contextlib.suppress(OSError):
            new.unlink()


# --- processes ---

def need(command, package):
    if not shutil.which(command):
        die(f"{command} is missing: install the Debian package {package} "
            "(lab/kernel/packages installs all that is needed)")


def call(arguments, seconds, log=None, env=None, output=False, cwd=None, tick=None):
    """Run a command, in a process group of its own that ends with it.

    Its output goes to the end of the file log.  Returns its exit status, 124 if
    it ran into the bound; with output=True its standard output as text, and a
    status other than 0 ends this process in the same way, for the command has
    said why.  tick() is called several times in a second meanwhile.
    """
    with contextlib.ExitStack() as stack:
        err = stack.enter_context(open(log, "a")) if log else None
        child = None
        try:
            with undisturbed():
                child = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE if output else err, stderr=err,
                                         env=env, cwd=cwd, start_new_session=not output, text=True)
            wait_ticking(child, seconds, tick)
            text, _ = child.communicate(timeout=None if tick else seconds)
            status = child.returncode
        except subprocess.TimeoutExpired:
            text, status = "", 124
        finally:
            if child:
                stop(child, group=not output)
    if not output:
        return status
    if status:
        raise SystemExit(1 if status < 0 else status)
    return text.strip()


def wait_ticking(child, seconds, tick):
    """Wait for the end of a process without pipes, if there is a tick() to call."""
    end = time.monotonic() + seconds
    while tick and child.poll() is None:
        if time.monotonic() >= end:
            raise subprocess.TimeoutExpired(child.args, seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(min(0.2, max(end - time.monotonic(), 0)))
        tick()


def stop(child, group=False):
    """End a process (and its group), kindly at first."""
    if child.poll() is None:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(child.pid, sig) if group else child.send_signal(sig)
            try:
                child.wait(10)
                break
            except subprocess.TimeoutExpired:
                continue
    if group:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)


def script(path, *arguments):
    """What a script of the lab prints: the folder that it has made."""
    return call([LAB / path, *arguments], 4 * 3600, output=True)
