"""A headless Chromium, told what to do over a pipe (its DevTools protocol): for pages that we make."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from types import TracebackType
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_PATIENCE = 60.0


def program() -> str | None:
    """The one in PATH."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class BrowserError(Exception):
    """The browser died, does not answer, or a page's script failed."""


class Browser:
    """One page in a browser of its own.

    Attributes:
        said: what pages wrote to the console, and what they failed with.
    """

    def __init__(self) -> None:
        found = program()
        if found is None:
            raise BrowserError(f"there is none of {', '.join(NAMES)} in PATH")
        self.said: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="perfkeep-browser-")
        self._number = 0
        self._rest = b""
        # The browser reads from 3 and writes to 4.
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 16) for one in (theirs_in, theirs_out)]
        os.close(theirs_in)
        os.close(theirs_out)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        command = [
            found, "--headless", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run",
            "--disable-dev-shm-usage", "--allow-file-access-from-files", "--use-gl=angle",
            "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            f"--user-data-dir={self._folder.name}", "about:blank",
        ]  # fmt: skip
        actions = [
            (os.POSIX_SPAWN_DUP2, high[0], 3),
            (os.POSIX_SPAWN_DUP2, high[1], 4),
            *((os.POSIX_SPAWN_DUP2, null, number) for number in range(3)),
        ]
        self._pid = os.posix_spawn(
            found, command, dict(os.environ), file_actions=actions, setpgroup=0
        )
        for one in (*high, null):
            os.close(one)
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _PATIENCE
        while True:
            answer = self._next(until)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._heard(answer)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0, until - time.monotonic()))
            some = os.read(self._in, 1 << 16) if ready else b""
            if not some:
                raise BrowserError("it does not answer" if not ready else "it ended")
            self._rest += some
        one, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message

    def _heard(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event.get("method") == "Log.entryAdded":
            self.said.append(about["entry"]["text"])
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(one.get("value")) for one in about["args"]))
        elif event.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(about["exceptionDetails"]))

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:
        """What JavaScript makes of it, by value.

        Raises:
            BrowserError: it throws.
        """
        said = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in said:
            raise BrowserError(str(said["exceptionDetails"]))
        return said["result"].get("value")

    def until(self, expression: str, seconds: float = 30) -> None:
        """Wait until it holds.

        Raises:
            BrowserError: it does not in that time.
        """
        poll = (
            "new Promise(done => { const look = () => { let holds = false;"
            f" try {{ holds = !!({expression}); }} catch {{}}"
            " holds ? done(true) : setTimeout(look, 20); }; look();"
            f" setTimeout(() => done(false), {int(seconds * 1000)}); }})"
        )
        if not self.ask(poll):
            raise BrowserError(f"this never held: {expression}; the page said {self.said}")

    def key(self, key: str) -> None:
        """Press and release, like "Enter" or "ArrowUp"."""
        for kind in ("rawKeyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key)

    def write(self, text: str) -> None:
        self._call("Input.insertText", text=text)

    def mouse(self, x: float, y: float, click: bool = False) -> None:
        """Move there, and click."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def dark(self, dark: bool) -> None:
        """What prefers-color-scheme says."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self) -> str:
        """What is seen, as PNG in base64."""
        return str(self._call("Page.captureScreenshot")["data"])

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself
        os.waitpid(self._pid, 0)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder.name, ignore_errors=True)
        self._folder.cleanup()
