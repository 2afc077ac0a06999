"""The broker's sysfs view, put where programs look for it.

Either at the literal path, beneath the real PMUs, by three mounts: an overlay that only adds the
folder `persistent`, on that folder the broker's tree, and elsewhere a sysfs with nothing on it. Or as a second sysfs of links, for
programs that honour SYSFS_PATH, as perf does.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

from perfkeep.client.connection import Shared
from perfkeep.errors import KernelRefused, PerfkeepError
from perfkeep.kernel.syscalls import mount, umount
from perfkeep.wire.instance import Instance, of_caller, prepare_directory

SYSFS = Path("/sys")
_DEVICES = Path("bus/event_source/devices")
DEVICES = SYSFS / _DEVICES
LITERAL = DEVICES / "persistent"

#: The overlay's source in /proc/mounts, by which `umount` knows it.
_SOURCE = "perfkeep"
#: Ends the name of the folder on which sysfs is mounted once more. A user namespace may mount sysfs
#: only where the mount namespace has one that nothing covers (mnt_already_visible, fs/namespace.c),
#: and rootless containers do.
_UNCOVERED = ".uncovered-sysfs"

# <linux/mount.h>
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_PLAIN = _RDONLY | _NOSUID | _NODEV | _NOEXEC


def is_mounted(where: Instance) -> bool:
    """Whether the literal path shows this instance's events.

    Raises:
        PerfkeepError: EEXIST: it shows another's.
    """
    if not LITERAL.is_dir():
        return False
    with suppress(FileNotFoundError):
        if os.path.samefile(LITERAL, f"{where.devices}/persistent"):
            return True
    raise PerfkeepError(
        errno.EEXIST,
        f"{LITERAL} is there already, and shows the events of another instance",
        hint="perfkeep umount",
    )


def names(where: Instance) -> dict[int, list[str]]:
    """Id of each kind of event that the caller may read → its names for perf, NAME.KIND first."""
    found: dict[int, list[str]] = {}
    folder = Path(where.devices) / "persistent/events"
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError, ValueError):
                id = int(path.read_text().partition(",")[0].partition("=")[2], 16)
                found.setdefault(id, []).append(path.name)
    return {
        id: sorted(texts, key=lambda text: ("." not in text, text)) for id, texts in found.items()
    }


def mount_at_literal_path(where: Instance) -> bool:
    """Show the view in /sys, in this mount namespace and those that follow it.

    Returns:
        False: it was there before.

    Raises:
        KernelRefused: EPERM, ENODEV: no right to mount, no overlayfs.
        PerfkeepError: EEXIST: another instance is shown there.
    """
    with Shared():  # a broker, who makes the tree
        pass
    if is_mounted(where):
        return False
    uncovered = _uncovered(where)
    uncovered.mkdir(0o700, exist_ok=True)
    try:
        mount(str(SYSFS), str(uncovered), "none", _BIND)
        lower = f"lowerdir={_escaped(where.devices)}:{DEVICES}"
        mount(_SOURCE, str(DEVICES), "overlay", _PLAIN, lower)
        mount(f"{where.devices}/persistent", str(LITERAL), "none", _BIND)
        mount("none", str(LITERAL), "none", _REMOUNT | _BIND | _PLAIN)
    except OSError as error:
        umount_from_literal_path()
        raise _refused(error) from error
    return True


def _escaped(path: str) -> str:
    """A path among the options of an overlay, where commas and colons separate."""
    return "".join("\\" + letter if letter in "\\,:" else letter for letter in path)


def _refused(error: OSError) -> KernelRefused:
    number = error.errno or errno.EIO
    return KernelRefused(
        number,
        f"the view cannot be put into {DEVICES} ({error.strerror}): it takes CAP_SYS_ADMIN and overlayfs",
        hint="perfkeep exec shows it to perf through SYSFS_PATH, without them",
    )


def umount_from_literal_path() -> bool:
    """Take away what `mount_at_literal_path` did. False: there was nothing.

    Raises:
        OSError: EPERM · EBUSY a process works in there.
    """
    paths = _mounted()
    for path in paths:
        umount(str(path))
        if path.name.endswith(_UNCOVERED):
            path.rmdir()
    return bool(paths)


def _uncovered(where: Instance) -> Path:
    """A folder that only the caller can change: it becomes a mount point."""
    home = of_caller(where)
    prepare_directory(home)
    return Path(home.socket + _UNCOVERED)


def _mounted() -> list[Path]:
    """Our mounts, the last first: the overlay by its source, what lies on it, and the other sysfs."""
    with open("/proc/self/mountinfo") as file:
        lines = [line.split() for line in file]
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
    sources = {_plain_path(fields[4]): fields[fields.index("-") + 2] for fields in lines}
    paths = [path for path in sources if path.name.endswith(_UNCOVERED)]
    if sources.get(DEVICES) == _SOURCE:
        paths += [path for path in (DEVICES, LITERAL) if path in sources]
    return paths[::-1]


def _plain_path(text: str) -> Path:
    """A path of mountinfo, which has blanks and such in octal."""
    return Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text))


def second_sysfs(where: Instance) -> str:
    """A folder that has all that /sys has, and the view: what SYSFS_PATH may name.

    Links to what is there now; made anew each time, beside the socket of the caller's instance.
    """
    with Shared():
        pass
    root = _second_root(where)
    _link_all(SYSFS, root, _DEVICES.parts)
    _link(root / _DEVICES / "persistent", f"{where.devices}/persistent")
    return str(root)


def _second_root(where: Instance) -> Path:
    home = of_caller(where)
    if home is where:
        return Path(f"{where.socket}.sysfs")
    prepare_directory(home)
    return Path(f"{home.directory}/{where.socket.strip('/').replace('/', '-')}.sysfs")


def _link_all(source: Path, target: Path, real: tuple[str, ...]) -> None:
    """Links to everything in `source`; along the path `real`, folders."""
    target.mkdir(0o755, exist_ok=True)
    for name in os.listdir(source):
        if real and name == real[0]:
            _link_all(source / name, target / name, real[1:])
        elif name != "persistent":
            _link(target / name, str(source / name))


def _link(path: Path, to: str) -> None:
    with suppress(FileNotFoundError):
        if os.readlink(path) == to:
            return
        path.unlink()
    with suppress(FileExistsError):  # another exec is just as far
        path.symlink_to(to)
