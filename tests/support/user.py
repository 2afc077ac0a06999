"""Commands of a user without privilege, and of root, who becomes that user by su.

The checkout and its Python may lie in a directory that only root enters. A mount namespace makes the
way to them passable, for the commands run here and their daemons alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from .instance import daemons_of
from .processes import end, wait_until_gone

PERFKEEP = Path(sys.executable).with_name("perfkeep")

# $1 is where to put the mounts meanwhile, $2 the closed directory, the rest below it is to be reached.
_OPEN_WAY = r"""
set -e
stage=$1 closed=$2; shift 2
number=0
while [ "$1" != -- ]; do
    mkdir "$stage/$number"; mount --bind "$1" "$stage/$number"
    paths="$paths $1"; number=$((number + 1)); shift
done
shift
mount -t tmpfs -o mode=755 tmpfs "$closed"
number=0
for path in $paths; do
    mkdir -p "$path"; mount --move "$stage/$number" "$path"; number=$((number + 1))
done
exec "$@"
"""


#: User ids of no account; another process of the tests has others.
_uids = count(1_000_000 + os.getpid() % 100_000 * 1000)


def closed_directory(path: Path) -> Path | None:
    """The outermost directory on the way to `path` that other users may not enter."""
    return next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)


class User:
    """A user without privilege who has a home and a runtime directory.

    Args:
        home: an empty directory, which becomes the user's.
        uid: one that no account has, so that nothing of the machine is theirs.
    """

    def __init__(self, home: Path, uid: int) -> None:
        self.home, self.uid = home, uid
        for path in (home, home / "run"):
            path.mkdir(mode=0o700, exist_ok=True)
            os.chown(path, uid, uid)
        self.stage = home / "mounts"
        self.stage.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a login, and this perfkeep."""
        return {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "PATH": f"{PERFKEEP.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        }

    def run(self, *words: object, limits: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as the user.

        Args:
            limits: of prlimit(1), for the command only.
        """
        return self._run(self._as_user(words, limits))

    def _as_user(self, words: Sequence[object], limits: str) -> list[str]:
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        prlimit = ["prlimit", *limits.split()] if limits else []
        return [*become, *prlimit, *map(str, words)]

    def hinted(self, error: str) -> str:
        """The hint below an error."""
        _, mark, hint = error.partition("\nhint: ")
        assert mark, error
        return hint.strip()

    def obey(self, hint: str) -> subprocess.CompletedProcess[str]:
        """Run the command that a hint names; where it asks for root's password, as root."""
        words = shlex.split(hint)
        if words[:2] == ["su", "-c"]:
            return self._run(["sh", "-c", words[2]])
        if words[0] in ("sudo", "doas"):
            return self._run(words[1:])
        return self.run(*words)

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._reaching(words),
            env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def _reaching(self, words: list[str]) -> list[str]:
        """The command, in a mount namespace in which checkout and Python can be reached."""
        needed = sorted({Path(__file__).parents[2], Path(sys.base_prefix), Path(sys.prefix)})
        outermost = [path for path in needed if not any(other in path.parents for other in needed)]
        closed = {directory for path in outermost if (directory := closed_directory(path))}
        assert len(closed) <= 1, closed
        for directory in closed:
            below = [str(path) for path in outermost if directory in path.parents]
            stage = self.stage / str(len(list(self.stage.iterdir())))
            stage.mkdir()
            way = ["sh", "-c", _OPEN_WAY, "sh", str(stage), str(directory), *below, "--"]
            words = ["unshare", "-m", "--propagation", "private", *way, *words]
        return words


@contextmanager
def user() -> Iterator[User]:
    """A user whose instance ends with the test."""
    folder = Path(tempfile.mkdtemp(prefix="pk-user-"))
    folder.chmod(0o755)
    # Another one for each test: the kernel's account of a user's rings lasts while it has a process.
    user = User(folder / "home", next(_uids))
    try:
        yield user
    finally:
        user.run(PERFKEEP, "claim", "--all")
        daemons = daemons_of(str(folder))
        end(daemons, signal.SIGTERM)
        wait_until_gone(daemons, 10)
        shutil.rmtree(folder, ignore_errors=True)
