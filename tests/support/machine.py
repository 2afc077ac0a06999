"""A machine of a test's own, as far as files go: /run, /var and /tmp are empty and nobody else's, so
that a default instance can be started, and used by several users, beside the real one.

It is a mount namespace with tmpfs on what an instance writes to. What the tests run from may lie
below a directory that only root may enter, such as /root; there it is put into view of all users.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import perfkeep

from .commands import PERFKEEP, Ran
from .processes import end, wait_until_gone

SYSTEM = "/run/perfkeep/perfkeep.sock"
USER, GROUP = 65534, 50

#: Its arguments: a directory to stage mounts in; directories to cover, "--", those to keep in view.
_PREPARE = r"""
set -e
mount --make-rprivate /
stage=$1; shift
mount -t tmpfs tmpfs "$stage"
covered=
while [ "$1" != -- ]; do covered="$covered $1"; shift; done
shift
number=0
for path in "$@"; do
    number=$((number + 1)); mkdir "$stage/$number"; mount --bind "$path" "$stage/$number"
done
for path in $covered; do mount -t tmpfs -o mode=755 tmpfs "$path"; done
number=0
for path in "$@"; do
    number=$((number + 1)); mkdir -p "$path"; mount --move "$stage/$number" "$path"
done
umount "$stage"
for path in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs "$path"; done
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /run/user/65534
chown 65534:65534 /run/user/65534
chmod 700 /run/user/65534
echo ready
exec cat
"""


def _first_closed(path: str) -> str | None:
    """The outermost directory above `path` that other users may not pass through."""
    for parent in reversed(Path(path).parents):
        if not parent.stat().st_mode & 0o001:
            return str(parent)
    return None


class Machine:
    """Runs commands inside, as any user."""

    def __init__(self, holder: subprocess.Popen[str]) -> None:
        self._holder = holder

    def run(self, *words: object, uid: int = 0, groups: Sequence[int] = (), **env: str) -> Ran:
        """Run a command.

        Args:
            groups: supplementary ones.
            env: environment variables beside the usual ones.
        """
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--wd=/tmp"]
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}"]
        become += [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment = {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"} | kept | env
        if uid:
            environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{uid}")
        done = subprocess.run(
            [*enter, *(become if uid else ()), *map(str, words)],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def perfkeep(self, *words: object, uid: int = 0, groups: Sequence[int] = (), **env: str) -> Ran:
        """Run a verb."""
        return self.run(*PERFKEEP, *words, uid=uid, groups=groups, **env)

    def python(self, code: str, uid: int = 0, groups: Sequence[int] = ()) -> Ran:
        """Run a Python program."""
        return self.run(sys.executable, "-c", code, uid=uid, groups=groups)

    def daemons(self) -> list[int]:
        """Brokers and keepers of all instances inside."""
        locks = self.run("sh", "-c", "cat /run/perfkeep/*.lock /run/user/*/perfkeep/*.lock")
        return [int(word) for word in locks.out.split() if word.isdecimal()]


@contextmanager
def machine(stage: Path) -> Iterator[Machine]:
    """A machine, whose instances are ended with it.

    Args:
        stage: an empty directory.
    """
    view = [sys.base_prefix, sys.prefix, str(Path(perfkeep.__file__).parents[2])]
    view = [path for path in dict.fromkeys(view) if _first_closed(path)]
    # A directory inside of another one comes with it.
    view = [
        path for path in view if not any(p != path and Path(path).is_relative_to(p) for p in view)
    ]
    covered = dict.fromkeys(closed for path in view if (closed := _first_closed(path)))
    command = ["unshare", "--mount", "sh", "-c", _PREPARE, "sh", str(stage), *covered, "--", *view]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        inside = Machine(holder)
        try:
            yield inside
        finally:
            daemons = inside.daemons()
            # A broker that is told to end takes its keeper along.
            end(daemons[::2], 15)
            assert not wait_until_gone(daemons, 15)
