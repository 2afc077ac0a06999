"""The PMU `persistent` as sysfs would describe it: a small tree that follows the recordings.

    type          the number for attr.type
    format/       id, lenient: where their values go in an attr
    cpumask       the CPUs that are online
    events/NAME.KIND
                  the terms of each kind of event, with owner and mode of its recording
    events/NAME   the same for the first kind, unless perf knows the word otherwise

`perfkeep mount` shows it in /sys. A view that cannot be written disturbs no recording. Guests see the
names of all recordings in it while one is shared, as in any sysfs; what a file says is for those
whom the recording's mode lets read it.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress

from perfkeep.abi.perf_event import PERF_TYPE_PERSISTENT
from perfkeep.broker.registry import KindOfEvent, Recording, Registry
from perfkeep.kernel import cpus
from perfkeep.kernel.perf_words import is_word

#: What perf's parser takes for the name of an event (tools/perf/util/parse-events.l).
_FIRST = re.compile(r"[A-Za-z_]")
_OTHER = re.compile(r"[^A-Za-z0-9_.]")  # until 6.4, perf makes two words of one with "-"

# Words that mean something between the slashes of persistent/…/ already, and endings of files
# that tell perf how to print an event.
_TAKEN = frozenset(
    [
        "id",
        "lenient",
        "event",
        "config",
        "config1",
        "config2",
        "config3",
        "name",
        "period",
        "freq",
        "branch_type",
        "time",
        "call-graph",
        "stack-size",
        "max-stack",
        "nr",
        "inherit",
        "no-inherit",
        "overwrite",
        "no-overwrite",
        "percore",
        "aux-output",
        "aux-sample-size",
        "metric-id",
        "raw",
    ]
)
_ENDINGS = (".scale", ".unit", ".per-pkg", ".snapshot")

#: mode, uid, gid
_Access = tuple[int, int, int]

_FORMATS = {"id": "config:0-63", "lenient": "config1:0"}


def entry_name(text: str) -> str:
    """The text in letters that every perf takes for one word, the name of an event."""
    name = _OTHER.sub("_", text)
    if not _FIRST.match(name) or name.lower() in _TAKEN:
        name = "_" + name
    return name + "_" if name.endswith(_ENDINGS) else name


def entries(recording: Recording, kind: KindOfEvent) -> list[str]:
    """Names for a kind of event: NAME.KIND, and NAME for the first of its recording.

    They depend on nothing that joins or leaves. What an ioctl made persistent is listed under its
    number, as in the 2014 series, and once more as perf takes it: "5" and "_5".
    """
    if recording.name.isdecimal():
        return [recording.name, entry_name(recording.name)]
    word = kind.kind.name.replace(".", "_")
    names = [entry_name(f"{recording.name}.{word}")]
    first = entry_name(recording.name)
    if kind.id == recording.id and not is_word(first):
        names.append(first)
    return names


class SysfsView:
    """The tree, kept beside the instance's socket.

    Args:
        devices: the folder in which the PMU's folder is; it is made when something changes.
    """

    def __init__(self, devices: str) -> None:
        self.devices = devices
        self.root = os.path.join(devices, "persistent")
        self._mode = 0o700
        #: The entries of each recording, and the access that their files have.
        self._shown: dict[int, tuple[dict[str, int], _Access]] = {}
        self._taken: dict[str, int] = {}
        self._cpumask = ""

    def show_all(self, registry: Registry) -> None:
        """Make the tree say what there is, whatever it said before.

        Raises:
            OSError: it cannot be written.
        """
        self._shown.clear()
        self._taken.clear()
        before = self._on_disk()
        # An overlay shows the mode of the topmost layer's folder as that of the real one.
        modes = {
            self.devices: _mode_of_devices(),
            self.root: self._mode,
            f"{self.root}/format": 0o755,
            f"{self.root}/events": 0o755,
        }
        for folder, mode in modes.items():
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, mode)
        self._write("type", str(PERF_TYPE_PERSISTENT))
        for name, bits in _FORMATS.items():
            self._write(f"format/{name}", bits)
        for recording in registry:
            mine = {name: id for name, id in before.items() if id in recording.kinds}
            self._shown[recording.id] = mine, (0, 0, 0)
            self.update(recording)
        for name in os.listdir(f"{self.root}/events"):
            if name.lower() not in self._taken:
                os.unlink(f"{self.root}/events/{name}")
        self._cpumask = ""
        self._show_cpus()

    def _on_disk(self) -> dict[str, int]:
        """Name → id, as the last broker named them."""
        names: dict[str, int] = {}
        with suppress(OSError):
            for entry in os.scandir(f"{self.root}/events"):
                with suppress(OSError, ValueError), open(entry.path, "rb") as file:
                    names[entry.name] = int(file.read(64).split(b",")[0].partition(b"=")[2], 16)
        return names

    def let_in(self, others: bool) -> None:
        """Set whether other users may look into it."""
        self._mode = 0o755 if others else 0o700
        with suppress(OSError):  # there is none yet: it is made with this mode
            os.chmod(self.root, self._mode)

    def update(self, recording: Recording) -> None:
        """Show a recording as it is now; one without events not at all.

        Raises:
            OSError: it cannot be written.
        """
        access = (recording.mode, recording.owner.uid, recording.gid)
        before, access_before = self._shown.pop(recording.id, ({}, access))
        names = self._named(recording, before)
        for name in before.keys() - names.keys():
            self._taken.pop(name.lower(), None)
            with suppress(FileNotFoundError):
                os.unlink(f"{self.root}/events/{name}")
        for name, id in names.items():
            if before.get(name) != id or access != access_before:
                self._write(f"events/{name}", f"id={id:#x},lenient=1", recording)
            self._taken[name.lower()] = recording.id
        if names:
            self._shown[recording.id] = names, access
        self._show_cpus()

    def _show_cpus(self) -> None:
        """CPUs come and go; whoever changes a recording finds those that there are."""
        online = cpus.format_list(cpus.online())
        if online != self._cpumask:
            self._write("cpumask", online)
            self._cpumask = online

    def _named(self, recording: Recording, before: dict[str, int]) -> dict[str, int]:
        """Name → id of each kind. One whose name is taken, by an equal kind or another recording
        ("a b" and "a_b"), has its id behind it, also when the other has gone."""
        named: dict[str, int] = {}
        for kind in recording.kinds.values():
            for name in entries(recording, kind):
                longer = f"{name}.{kind.id}"
                in_use = (
                    name.lower() in map(str.lower, named)
                    or before.get(name, kind.id) != kind.id
                    or self._taken.get(name.lower(), recording.id) != recording.id
                )
                named[longer if in_use or longer in before else name] = kind.id
        return named

    def _write(self, name: str, text: str, of: Recording | None = None) -> None:
        """Whole or not at all: it is written aside, and gets its owner before its name."""
        path, aside = f"{self.root}/{name}", f"{self.root}/.new"
        with open(aside, "wb", opener=_create) as file:
            file.write(text.encode() + b"\n")
            if of is None:
                os.fchmod(file.fileno(), 0o444)
            else:
                # While it is still ours: we may not change the mode of another's file.
                os.fchmod(file.fileno(), of.mode)
                with suppress(PermissionError):  # who is not root has only recordings of their own
                    os.fchown(file.fileno(), of.owner.uid, of.gid)
        os.rename(aside, path)


def _mode_of_devices() -> int:
    try:
        return stat.S_IMODE(os.stat("/sys/bus/event_source/devices").st_mode)
    except OSError:
        return 0o755  # no sysfs here: then nothing is laid over it either


def _create(path: str, flags: int) -> int:
    with suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
