"""The shelf: keys, opaque values, fds and ring mappings. Knows nothing of sockets.

A mapping is made before anyone else maps the ring and dropped after everyone else: the first
mapper fixes the ring's mode (read-only: the newest data is kept) and is charged for its memory,
and the kernel credits the last process that unmaps it. A dropped key's mapping therefore stays until
`unmap`.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator


class Slot:
    """What lies under one key."""

    __slots__ = ("fd", "mapping", "ring_bytes", "value")

    def __init__(self, value: bytes, fd: int, ring_bytes: int, mapping: mmap.mmap | None) -> None:
        self.value = value
        self.fd = fd
        self.ring_bytes = ring_bytes
        self.mapping = mapping

    def close(self) -> None:
        """Close the fd; the mapping stays."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class Shelf:
    """Holds what it is given until it is told to drop it."""

    def __init__(self) -> None:
        self._slots: dict[bytes, Slot] = {}
        #: Mappings of dropped keys.
        self._leaving: list[tuple[bytes, mmap.mmap]] = []

    def put(self, key: bytes, value: bytes, fd: int = -1, ring_bytes: int = 0) -> None:
        """Hold `fd` (ownership passes here, also on failure) and `value` under `key`.

        Without an fd the value of a key that exists is replaced.

        Raises:
            OSError: EEXIST a second fd for one key; from mmap(2) EPERM over the locked-memory
                limit, EINVAL a size that this event cannot have, ENOMEM.
        """
        slot = self._slots.get(key)
        if fd < 0:
            if slot is None:
                self._slots[key] = Slot(value, -1, 0, None)
            else:
                slot.value = value
            return
        try:
            if slot is not None:
                raise OSError(errno.EEXIST, "this key has an fd already")
            mapping = None
            if ring_bytes:
                size = ring_bytes + mmap.PAGESIZE
                mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._slots[key] = Slot(value, fd, ring_bytes, mapping)
        except BaseException:
            os.close(fd)
            raise

    def drop(self, prefix: bytes) -> None:
        """Let go of every key that begins with `prefix`, but not of mappings."""
        for key in [key for key in self._slots if key.startswith(prefix)]:
            slot = self._slots.pop(key)
            slot.close()
            if slot.mapping is not None:
                self._leaving.append((key, slot.mapping))

    def unmap(self, prefix: bytes) -> None:
        """Drop the mappings of dropped keys that begin with `prefix`."""
        for key, mapping in self._leaving:
            if key.startswith(prefix):
                mapping.close()
        self._leaving = [item for item in self._leaving if not item[0].startswith(prefix)]

    def items(self) -> Iterator[tuple[bytes, Slot]]:
        yield from self._slots.items()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether anything would be lost: keys that begin with # are about the instance itself."""
        return any(not key.startswith(b"#") for key in self._slots)
