"""The broker's log: its standard output, a line each."""

from __future__ import annotations

import os
import time
from contextlib import suppress

#: As long as the log may be; what was in it before is kept once more, as LOG.1.
MOST_BYTES = 8 << 20
#: Seconds between two looks at its length.
_EVERY_S = 60.0


def say(text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    print(f"{stamp} perfkeep-broker[{os.getpid()}]: {text}", flush=True)


class Trimmer:
    """Keeps a log from filling the disk. Broker, keeper, openers and redactors all append to it and
    hold it open: so it is copied and emptied, and not renamed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._due = 0.0

    def look(self) -> None:
        """Called often; looks now and then."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_S
        with suppress(OSError):  # no such log: systemd has another, or a person's terminal
            if os.stat(self.path, follow_symlinks=False).st_size > MOST_BYTES:
                self._put_aside()

    def _put_aside(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with (
            open(self.path, "rb") as log,
            open(os.open(f"{self.path}.1", flags, 0o600), "wb") as aside,
        ):
            while os.sendfile(aside.fileno(), log.fileno(), None, MOST_BYTES):
                pass
        os.truncate(self.path, 0)
