# SPDX-License-Identifier: GPL-2.0-only
"""Headless Chromium for tests, by its DevTools protocol over a pair of pipes."""

import base64
import contextlib
import json
import os
import select
import signal
import shutil
import subprocess
import tempfile
import time

LIMIT = 120                     # seconds for one answer


def find():
    """The browser's command, None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page in a browser; what went wrong in it is in .errors, what it fetched in .requests."""

    def __init__(self, command):
        self.folder = tempfile.mkdtemp(prefix="browser.")
        self.errors, self.requests, self.events, self.number, self.rest = [], [], [], 0, b""
        to_read, self.to_write = os.pipe()
        self.to_read, to_write = os.pipe()
        words = [command, "--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-sync",
                 "--disable-extensions", "--disable-background-networking", "--disable-component-update",
                 "--hide-scrollbars", f"--user-data-dir={self.folder}/profile"]
        if os.geteuid() == 0:
            words.append("--no-sandbox")        # as root there is none
        # The browser has its ends of the pipes as 3 and 4.
        script = f'r={to_read}; w={to_write}; exec "$@" 3<&{to_read} 4>&{to_write}'
        self.log = open(f"{self.folder}/log", "w+")
        self.child = subprocess.Popen(["/bin/bash", "-c", script, "browser", *words], stdin=subprocess.DEVNULL,
                                      stdout=self.log, stderr=self.log, pass_fds=(to_read, to_write),
                                      start_new_session=True)
        os.close(to_read)
        os.close(to_write)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(10)
        for fd in (self.to_read, self.to_write):
            os.close(fd)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def message(self, end):
        """The next message of the browser, before the time end."""
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.to_read], [], [], max(0, end - time.monotonic()))
            data = os.read(self.to_read, 1 << 20) if ready else b""
            if not data:
                self.log.seek(0)
                raise RuntimeError(f"the browser {'is gone' if ready else 'does not answer'}: {self.log.read()[-500:]}")
            self.rest += data
        data, _, self.rest = self.rest.partition(b"\0")
        return json.loads(data)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to_write, data):]
        end = time.monotonic() + LIMIT
        while True:
            answer = self.message(end)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.note(answer)

    def note(self, event):
        method, said = event.get("method"), event.get("params", {})
        self.events.append(method)
        if method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.errors.append(f"console: {[a.get('value', a.get('description')) for a in said['args']]}")
        elif method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.errors.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"log: {said['entry']['text']}")
        elif method == "Page.javascriptDialogOpening":
            self.errors.append(f"dialog: {said['message']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])

    def open(self, path):
        """Load a file, and wait for it."""
        # An address that differs in its last part alone would load nothing.
        self.go("about:blank")
        self.errors.clear()
        self.requests.clear()
        self.go(f"file://{path}")

    def go(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        end = time.monotonic() + LIMIT
        while "Page.loadEventFired" not in self.events:
            self.note(self.message(end))

    def run(self, script):
        """What a function's body returns in the page."""
        found = self.call("Runtime.evaluate", expression=f"(function () {{ {script} }}())", returnByValue=True,
                          awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", "exception"))
        return found["result"].get("value")

    def window(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)

    def media(self, scheme="light", kind="screen"):
        self.call("Emulation.setEmulatedMedia", media=kind,
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def scripts(self, are_on):
        self.call("Emulation.setScriptExecutionDisabled", value=not are_on)

    def screenshot(self, path, whole=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self):
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])
