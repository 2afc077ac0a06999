"""The symbolizer of a file: what the file has of mappings and build ids, and what this machine knows if
it is the one of the recording.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache

from perfkeep.abi.perf_data import Feature
from perfkeep.analysis.mappings import KERNEL_PATH, Mappings
from perfkeep.analysis.symbolize import Images, Symbolizer
from perfkeep.errors import DataError
from perfkeep.formats.perf_data.build_ids import build_ids
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.symbols import boot
from perfkeep.symbols.table import from_kallsyms

_CLOCK = struct.Struct("=IIQQ")


def symbolizer(
    file: PerfData,
    records: Iterable[tuple[int, memoryview, int]],
    kallsyms: Callable[[], bytes],
    images: Images | None = None,
    untimed: bool = False,
) -> Symbolizer:
    """
    Args:
        records, untimed: see Mappings.
        kallsyms: gives what /proc/kallsyms says here; not used where the file is of another boot.
        images: see Symbolizer.
    """
    mappings = Mappings(records, untimed)
    section = file.features.get(Feature.BUILD_ID)
    ids = build_ids(section) if section is not None else {}
    text = kallsyms()
    same = boot.same_boot(_recorded(file, mappings, ids), boot.here(_texts(text)), _wall_ns(file))
    kernel = _kernel(text) if same else None
    ours = _text(file, Feature.VERSION).startswith("perfkeep ")
    return Symbolizer(mappings, kernel, ids, same, ours, images)


#: A reader that follows a recording has a data set at each look, and the same text for all.
_kernel = lru_cache(maxsize=1)(from_kallsyms)


def _recorded(file: PerfData, mappings: Mappings, ids: dict[str, str]) -> boot.Boot:
    """The boot that a file was recorded in."""
    text = mappings.kernel_text
    return boot.Boot(
        _text(file, Feature.BOOT_ID),
        mappings.kernel_build_id or ids.get(KERNEL_PATH, ""),
        _text(file, Feature.OSRELEASE),
        _text(file, Feature.HOSTNAME),
        frozenset() if text is None else frozenset((text,)),
    )


def _text(file: PerfData, feature: Feature) -> str:
    with suppress(DataError):  # behind what is needed to read the samples
        return file.text(feature) or ""
    return ""


def _wall_ns(file: PerfData) -> int | None:
    """Wall clock at the recording; None: the file does not have it."""
    section = file.features.get(Feature.CLOCK_DATA)
    if section is None or len(section) < _CLOCK.size:
        return None
    return int(_CLOCK.unpack_from(section)[2])


def _texts(kallsyms: bytes) -> frozenset[int]:
    """Addresses of _text and _stext; none where they are hidden."""
    # By words of their own: looking for a pattern takes longer than reading the file.
    words = (b" T _text\n", b" t _text\n", b" T _stext\n", b" t _stext\n")
    places = (kallsyms.find(word) for word in words)
    digits = (kallsyms[max(0, at - 16) : at] for at in places if at >= 0)
    return frozenset(int(one, 16) for one in digits if re.fullmatch(rb"[0-9a-f]+", one)) - {0}
