"""What recordings are, on disk: read only when broker and keeper have died at the same moment.

One file a recording, NAME.json below DIRECTORY/recordings:

    {"format": 1, "crc32": N, "definition": {"boot_id": …, "next_id": …, "recording": …, "kinds": …}}

A file is written aside and renamed, so it is whole or not there. It is not synced: processes die
without the machine far more often than the machine does, and after a boot definitions count no
more; what shall start then lies in recordings.d.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from perfkeep.broker.registry import KindOfEvent, Recording, Registry
from perfkeep.broker.remembered import RecordingValue, value_of
from perfkeep.errors import BrokerError, PerfkeepError
from perfkeep.kernel.sysctl import boot_id
from perfkeep.wire import older
from perfkeep.wire.messages import Kind

FORMAT = 1


class _Definition(msgspec.Struct):
    boot_id: str
    next_id: int
    recording: RecordingValue
    kinds: dict[int, Kind]


class _File(msgspec.Struct):
    """What can be read of a file of any version."""

    format: int
    crc32: int = -1
    definition: msgspec.Raw = msgspec.Raw(b"{}")


class Unusable(PerfkeepError):
    """A definition that must not be loaded; its file is left as it is."""


def encode(recording: Recording, next_id: int) -> bytes:
    """The text of a recording's file."""
    kinds = {kind.id: kind.kind for kind in recording.kinds.values()}
    definition = msgspec.json.encode(_Definition(boot_id(), next_id, value_of(recording), kinds))
    return msgspec.json.encode(_File(FORMAT, zlib.crc32(definition), msgspec.Raw(definition)))


def decode(data: bytes) -> tuple[str, int, Recording]:
    """Boot id, next id, and the recording, without events and rings.

    Raises:
        Unusable: it is of another version, damaged, or makes no sense.
    """
    try:
        found = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(errno.EBADMSG, f"it is damaged ({error})") from error
    if found.format != FORMAT:
        age = "a newer" if found.format > FORMAT else "an older"
        raise Unusable(
            errno.EPROTO,
            f"{age} perfkeep wrote it (format {found.format}, this one reads {FORMAT})",
        )
    if zlib.crc32(found.definition) != found.crc32:
        raise Unusable(errno.EBADMSG, "it is damaged (its checksum is wrong)")
    try:
        definition = older.decode(found.definition, _Definition)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unusable(errno.EBADMSG, f"it makes no sense ({error})") from error
    value = definition.recording
    if sorted(definition.kinds) != sorted(value.kinds) or not value.kinds:
        raise Unusable(errno.EBADMSG, "it makes no sense (its events do not match)")
    recording = value.recording()
    recording.kinds = {id: KindOfEvent(id, definition.kinds[id]) for id in value.kinds}
    return definition.boot_id, definition.next_id, recording


class State:
    """The directory.

    Args:
        directory: made, with mode 0700, when the first recording is.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.folder = os.path.join(directory, "recordings")
        #: What could not be read or written, a sentence each, by file.
        self.problems: dict[str, str] = {}

    def save(self, recording: Recording, registry: Registry) -> None:
        """Write a recording as it is now.

        Raises:
            BrokerError: ENOSPC, EROFS, … in words. What was there is still there.
        """
        path = self._path(recording.name)
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            _write(path, encode(recording, registry.next_id))
        except OSError as error:
            number = error.errno or errno.EIO
            raise BrokerError(
                number,
                f"the state directory {self.directory} cannot be written ({os.strerror(number)}), so nothing was changed",
                hint=f"make {self.directory} writable and free space there, or start the instance with another PERFKEEP_STATE",
            ) from error
        self.problems.pop(path, None)

    def forget(self, name: str) -> None:
        """A recording has ended. That its file cannot be removed must not keep it alive."""
        path = self._path(name)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if not os.path.lexists(path):
                return
            self.problems[path] = (
                f"{path} cannot be removed ({error.strerror}): if both daemons die, "
                f"{name!r} comes back though it was ended"
            )

    def follow(self, registry: Registry) -> None:
        """Have the disk say what the keeper said: the last broker died, perhaps in the middle."""
        for _, recording in self.load():
            if registry.named(recording.name) is None:
                self.forget(recording.name)
        for recording in registry:
            try:
                self.save(recording, registry)
            except BrokerError as error:
                self.problems[self._path(recording.name)] = f"{recording.name}: {error}"

    def load(self) -> list[tuple[int, Recording]]:
        """Next id and recording of each file of this boot, oldest first; those that are damaged
        are told of in `problems`, and stay; those of an earlier boot are removed."""
        return sorted(self._load(), key=lambda found: found[1].id)

    def _load(self) -> Iterator[tuple[int, Recording]]:
        now = boot_id()
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return
        except OSError as error:
            self.problems[self.folder] = f"{self.folder} cannot be read: {error.strerror}"
            return
        for name in names:
            path = os.path.join(self.folder, name)
            if not name.endswith(".json"):
                with suppress(OSError):
                    os.unlink(path)  # half-written, when everything died
                continue
            try:
                boot, next_id, recording = self._read(path)
            except OSError as error:
                self.problems[path] = f"{path} was not loaded: {error}; it is left as it is"
                continue
            if boot == now:
                yield next_id, recording
            else:
                self.forget(recording.name)

    def _read(self, path: str) -> tuple[str, int, Recording]:
        with open(path, "rb", opener=_no_links) as file:
            boot, next_id, recording = decode(file.read())
        if os.path.basename(path) != f"{recording.name}.json":
            raise Unusable(errno.EBADMSG, f"it is called otherwise than {recording.name!r}")
        return boot, next_id, recording

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, f"{name}.json")

    @property
    def bytes(self) -> int:
        """Of all its files."""
        with suppress(OSError), os.scandir(self.folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
        return 0


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _write(path: str, data: bytes) -> None:
    aside = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(aside)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(aside, flags, 0o600)
    try:
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
