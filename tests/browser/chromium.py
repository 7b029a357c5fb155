"""A headless Chromium, told over the DevTools protocol what to show."""

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from websockets.sync.client import ClientConnection, connect

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
)
_ANSWER_S = 20.0
_LISTENING = re.compile(r"DevTools listening on (ws://\S+)")


class BrowserFailed(Exception):
    """Chromium did not do as it was told."""


def chromium_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@dataclass
class Tab:
    """One page of a browser."""

    socket: ClientConnection
    session: str
    numbers: Iterator[int] = field(default_factory=itertools.count)
    complaints: list[str] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; what the page complains of meanwhile is kept."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params, "sessionId": self.session}
        self.socket.send(json.dumps(message))
        return self._until(lambda answer: answer.get("id") == number, method)

    def show(self, url: str, *, width: int, scheme: Literal["light", "dark"]) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme_wanted = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[scheme_wanted])
        self.call("Page.navigate", url=url)
        self._until(lambda event: event.get("method") == "Page.loadEventFired", url)

    def evaluate(self, expression: str) -> Any:
        """Return the value, waited for, of an expression of the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise BrowserFailed(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(shot["data"]))

    def _until(self, is_wanted: Any, what: str) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(self.socket.recv(timeout=_ANSWER_S))
            if message.get("method") == "Log.entryAdded":
                self.complaints.append(message["params"]["entry"]["text"])
            if is_wanted(message):
                if "error" in message:
                    raise BrowserFailed(f"{what}: {message['error']}")
                return dict(message.get("result", {}))


@contextlib.contextmanager
def open_tab(chromium: str) -> Iterator[Tab]:
    """Start a browser with a profile of its own, and end it afterwards."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [chromium, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            with connect(_address(process), max_size=None) as socket:
                yield _attached(socket)
        finally:
            process.terminate()
            process.communicate(timeout=10)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := _LISTENING.search(line):
            return found[1]
    raise BrowserFailed(said)


def _attached(socket: ClientConnection) -> Tab:
    browser = Tab(socket, "")
    target = _browser_call(socket, "Target.createTarget", url="about:blank")["targetId"]
    attached = _browser_call(socket, "Target.attachToTarget", targetId=target, flatten=True)
    browser.session = attached["sessionId"]
    for domain in ("Page", "Log"):
        browser.call(f"{domain}.enable")
    return browser


def _browser_call(socket: ClientConnection, method: str, **params: Any) -> dict[str, Any]:
    socket.send(json.dumps({"id": -1, "method": method, "params": params}))
    while True:
        message: dict[str, Any] = json.loads(socket.recv(timeout=_ANSWER_S))
        if message.get("id") == -1:
            return dict(message["result"])
