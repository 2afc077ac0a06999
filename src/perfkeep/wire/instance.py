"""Where an instance lives: its socket, and the lock, log and sysfs view beside it.

PERFKEEP_SOCKET names the socket; otherwise it is /run/perfkeep/perfkeep.sock for root and
$XDG_RUNTIME_DIR/perfkeep/perfkeep.sock for everyone else. Everyone may pass through a directory that
is made for a socket, so that guests reach it; what lies beside the socket has modes of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.kernel.fd import OwnedFd

#: sizeof(sun_path) less the terminator
_LONGEST = 107


class Instance:
    """The paths of one instance."""

    __slots__ = ("audit", "devices", "directory", "lock", "log", "socket", "state")

    def __init__(self, socket: str) -> None:
        self.socket = os.path.abspath(socket)
        # The broker binds under a name that is four bytes longer, and renames.
        if len(os.fsencode(self.socket)) + 4 > _LONGEST:
            raise UsageError(
                f"a socket's path may have {_LONGEST - 4} bytes, {self.socket} has {len(os.fsencode(self.socket))}",
                errno.ENAMETOOLONG,
                hint="name a shorter one with PERFKEEP_SOCKET",
            )
        self.directory = os.path.dirname(self.socket)
        self.lock = self.socket + ".lock"
        self.log = self.socket + ".log"
        self.audit = f"{LOGS}/audit.log" if self.socket == SYSTEM else f"{self.socket}.audit"
        #: Definitions of recordings, for when both daemons have died.
        self.state = _state_directory(self.socket)
        #: What /sys/bus/event_source/devices would have more on a kernel with persistent events.
        self.devices = self.socket + ".devices"


def current(system: bool = False) -> Instance:
    """The instance that this process talks to: root's where `system` is set."""
    named = SYSTEM if system else os.environ.get("PERFKEEP_SOCKET")
    return Instance(named or (SYSTEM if os.geteuid() == 0 else of_user()))


#: The socket of root's instance.
SYSTEM = "/run/perfkeep/perfkeep.sock"
#: Where its audit log is, which must outlast the machine's next start.
LOGS = "/var/log/perfkeep"


def of_user() -> str:
    """The socket of this user's own instance, unless PERFKEEP_SOCKET names another."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = f"{runtime}/perfkeep" if runtime else f"/tmp/perfkeep-{os.geteuid()}"
    return f"{base}/perfkeep.sock"


def is_foreign(where: Instance) -> bool:
    """True if the instance is another user's, who alone may start its daemons and write beside its
    socket; the caller is a guest there."""
    try:
        return os.lstat(where.socket).st_uid != os.geteuid()
    except FileNotFoundError:
        return where.socket == SYSTEM and os.geteuid() != 0
    except PermissionError:
        return True


def of_caller(where: Instance) -> Instance:
    """The instance beside whose socket the caller's own files belong, such as logs and links for a
    program that uses the events of `where`: that one, or the caller's own where it is foreign."""
    if not is_foreign(where):
        return where
    return Instance(SYSTEM if os.geteuid() == 0 else of_user())


def _state_directory(socket: str) -> str:
    named = os.environ.get("PERFKEEP_STATE")
    if named:
        return os.path.abspath(named)
    if socket == SYSTEM:
        return "/var/lib/perfkeep"
    home = os.environ.get("HOME", "")
    if os.geteuid() and home and socket == of_user():
        return f"{os.environ.get('XDG_STATE_HOME') or f'{home}/.local/state'}/perfkeep"
    return f"{socket}.state"


def daemons(instance: Instance) -> frozenset[int]:
    """The pids of broker and keeper, as the lock's text has them; none where no instance was, and
    none for a guest, who started neither."""
    try:
        with open(instance.lock) as file:
            return frozenset(int(word) for word in file.read().split() if word.isdecimal())
    except (FileNotFoundError, PermissionError):
        return frozenset()


def prepare_directory(instance: Instance) -> None:
    """Make the directory, which others may pass through and not list, or check that nobody else can
    put things into it.

    Raises:
        PerfkeepError: EEXIST what is there is no socket; EPERM: it belongs to someone else, or others may write to it.
    """
    check_is_socket(instance.socket)
    try:
        os.mkdir(instance.directory, 0o700)
        _open_to_passage(instance.directory)
    except FileExistsError:
        pass
    found = os.lstat(instance.directory)
    sticky_or_own = found.st_mode & stat.S_ISVTX or not found.st_mode & 0o022
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid not in (0, os.geteuid())
        or not sticky_or_own
    ):
        raise PerfkeepError(
            errno.EPERM,
            f"{instance.directory} is not a directory that only you or root can change",
            hint="remove it, or name another socket with PERFKEEP_SOCKET",
        )


def _open_to_passage(directory: str) -> None:
    """Mode 0711, whatever the umask."""
    with OwnedFd(
        os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    ) as fd:
        os.fchmod(fd.fileno(), 0o711)


def closed_directory(path: str) -> tuple[str, int] | None:
    """The first directory on the way to `path` that none but its owner may pass through, and its
    mode; None: there is none, as far as modes tell."""
    directory = "/"
    for name in ["", *os.path.dirname(path).strip("/").split("/")]:
        directory = os.path.join(directory, name)
        try:
            mode = stat.S_IMODE(os.stat(directory).st_mode)
        except OSError:
            return None
        if not mode & 0o011:
            return directory, mode
    return None


def check_is_socket(path: str) -> None:
    """What lies where a socket shall be must be nothing, or an old socket.

    Raises:
        PerfkeepError: EEXIST: it is something else, which must not be replaced.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise PerfkeepError(
            errno.EEXIST,
            f"{path} exists and is no socket, so it is left alone",
            hint="name another socket with PERFKEEP_SOCKET",
        )


def take_lock(instance: Instance) -> OwnedFd | None:
    """The instance's lock, or None: a broker or a keeper of it is alive.

    flock(2) belongs to the open file, so broker and keeper share it, and the kernel lets go of
    it when the last of the two has died.
    """
    fd = OwnedFd(
        os.open(instance.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    )
    try:
        fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fd.close()
        return None
    except BaseException:
        fd.close()
        raise
    return fd
