"""<linux/perf_event.h>: the attribute, its bits, the ioctls and the ring's control page.

Values are those of Linux 6.18; tests compare them with the header through the C compiler.
Nothing here makes a system call.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, fields, replace
from typing import Any


class Type(enum.IntEnum):
    """enum perf_type_id"""

    HARDWARE = 0
    SOFTWARE = 1
    TRACEPOINT = 2
    HW_CACHE = 3
    RAW = 4
    BREAKPOINT = 5


#: PERF_TYPE_PERSISTENT. The 2014 series used 6, which today's kernels hand out to dynamic
#: PMUs. Dynamic ids are small and allocated upwards; this one spells "pkep" and is never met.
PERF_TYPE_PERSISTENT = 0x706B6570


class Hardware(enum.IntEnum):
    """enum perf_hw_id"""

    CPU_CYCLES = 0
    INSTRUCTIONS = 1
    CACHE_REFERENCES = 2
    CACHE_MISSES = 3
    BRANCH_INSTRUCTIONS = 4
    BRANCH_MISSES = 5
    BUS_CYCLES = 6
    STALLED_CYCLES_FRONTEND = 7
    STALLED_CYCLES_BACKEND = 8
    REF_CPU_CYCLES = 9


#: PERF_HW_EVENT_MASK: the upper half of the config of a HARDWARE or HW_CACHE event is the type of
#: the PMU that counts it, on machines whose CPUs are of several kinds.
PERF_HW_EVENT_MASK = 0xFFFFFFFF


class Software(enum.IntEnum):
    """enum perf_sw_ids"""

    CPU_CLOCK = 0
    TASK_CLOCK = 1
    PAGE_FAULTS = 2
    CONTEXT_SWITCHES = 3
    CPU_MIGRATIONS = 4
    PAGE_FAULTS_MIN = 5
    PAGE_FAULTS_MAJ = 6
    ALIGNMENT_FAULTS = 7
    EMULATION_FAULTS = 8
    DUMMY = 9
    BPF_OUTPUT = 10
    CGROUP_SWITCHES = 11


class _Bits(enum.IntFlag):
    """Bits that others choose. Python keeps an object for each combination that it has met, for
    ever; what a program makes up must not fill the memory of whoever reads it.
    """

    @classmethod
    def _missing_(cls, value: object) -> Any:
        member = super()._missing_(value)
        if len(cls._value2member_map_) > _MOST_COMBINATIONS:
            cls._value2member_map_.pop(value, None)
        return member


#: More than a machine's worth of events has; making one that is not kept takes 9 µs.
_MOST_COMBINATIONS = 4096


class Sample(_Bits):
    """enum perf_event_sample_format"""

    IP = 1 << 0
    TID = 1 << 1
    TIME = 1 << 2
    ADDR = 1 << 3
    READ = 1 << 4
    CALLCHAIN = 1 << 5
    ID = 1 << 6
    CPU = 1 << 7
    PERIOD = 1 << 8
    STREAM_ID = 1 << 9
    RAW = 1 << 10
    BRANCH_STACK = 1 << 11
    REGS_USER = 1 << 12
    STACK_USER = 1 << 13
    WEIGHT = 1 << 14
    DATA_SRC = 1 << 15
    IDENTIFIER = 1 << 16
    TRANSACTION = 1 << 17
    REGS_INTR = 1 << 18
    PHYS_ADDR = 1 << 19
    AUX = 1 << 20
    CGROUP = 1 << 21
    DATA_PAGE_SIZE = 1 << 22
    CODE_PAGE_SIZE = 1 << 23
    WEIGHT_STRUCT = 1 << 24


class Branch(_Bits):
    """branch_sample_type: PERF_SAMPLE_BRANCH_*, those that change what a record has."""

    CALL_STACK = 1 << 11
    HW_INDEX = 1 << 17
    COUNTERS = 1 << 19


#: The bits of branch_sample_type that Linux 6.18 has (PERF_SAMPLE_BRANCH_MAX_SHIFT).
BRANCH_BITS = (1 << 20) - 1


class ReadFormat(_Bits):
    """enum perf_event_read_format"""

    TOTAL_TIME_ENABLED = 1 << 0
    TOTAL_TIME_RUNNING = 1 << 1
    ID = 1 << 2
    GROUP = 1 << 3
    LOST = 1 << 4


class Flag(_Bits):
    """The bit-field word of struct perf_event_attr, in the header's order.

    precise_ip is two bits wide (15 and 16) and is kept in `Attr.precise_ip` instead.
    """

    DISABLED = 1 << 0
    INHERIT = 1 << 1
    PINNED = 1 << 2
    EXCLUSIVE = 1 << 3
    EXCLUDE_USER = 1 << 4
    EXCLUDE_KERNEL = 1 << 5
    EXCLUDE_HV = 1 << 6
    EXCLUDE_IDLE = 1 << 7
    MMAP = 1 << 8
    COMM = 1 << 9
    FREQ = 1 << 10
    INHERIT_STAT = 1 << 11
    ENABLE_ON_EXEC = 1 << 12
    TASK = 1 << 13
    WATERMARK = 1 << 14
    MMAP_DATA = 1 << 17
    SAMPLE_ID_ALL = 1 << 18
    EXCLUDE_HOST = 1 << 19
    EXCLUDE_GUEST = 1 << 20
    EXCLUDE_CALLCHAIN_KERNEL = 1 << 21
    EXCLUDE_CALLCHAIN_USER = 1 << 22
    MMAP2 = 1 << 23
    COMM_EXEC = 1 << 24
    USE_CLOCKID = 1 << 25
    CONTEXT_SWITCH = 1 << 26
    WRITE_BACKWARD = 1 << 27
    NAMESPACES = 1 << 28
    KSYMBOL = 1 << 29
    BPF_EVENT = 1 << 30
    AUX_OUTPUT = 1 << 31
    CGROUP = 1 << 32
    TEXT_POKE = 1 << 33
    BUILD_ID = 1 << 34
    INHERIT_THREAD = 1 << 35
    REMOVE_ON_EXEC = 1 << 36
    SIGTRAP = 1 << 37
    #: The `persistent` bit of the 2014 series' man page. No kernel knows it (6.18 answers
    #: EINVAL), so it never reaches one.
    PERSISTENT = 1 << 41


_PRECISE_SHIFT = 15

#: enum perf_callchain_context
PERF_CONTEXT_KERNEL = 2**64 - 128
PERF_CONTEXT_USER = 2**64 - 512
PERF_CONTEXT_USER_DEFERRED = 2**64 - 640
PERF_CONTEXT_MAX = 2**64 - 4095


class OpenFlag(_Bits):
    """The flags argument of perf_event_open(2)."""

    FD_NO_GROUP = 1 << 0
    FD_OUTPUT = 1 << 1
    PID_CGROUP = 1 << 2
    FD_CLOEXEC = 1 << 3


class Ioctl(enum.IntEnum):
    """PERF_EVENT_IOC_*, as the header's _IO macros expand on x86_64 and aarch64."""

    ENABLE = 0x2400
    DISABLE = 0x2401
    REFRESH = 0x2402
    RESET = 0x2403
    PERIOD = 0x40082404
    SET_OUTPUT = 0x2405
    SET_FILTER = 0x40082406
    ID = 0x80082407
    SET_BPF = 0x40042408
    PAUSE_OUTPUT = 0x40042409
    QUERY_BPF = 0xC008240A
    MODIFY_ATTRIBUTES = 0x4008240B


#: The two ioctls of the 2014 series; a stock kernel answers them with ENOTTY.
PERF_EVENT_IOC_UNCLAIM = 0x2408
PERF_EVENT_IOC_CLAIM = 0x2409

PERF_IOC_FLAG_GROUP = 1

#: The ring of an event made persistent by ioctl: CPU_BUFFER_NR_PAGES of the series, which is
#: also the default of `perf record`.
UNCLAIM_RING_BYTES = 512 << 10

#: Offsets in struct perf_event_mmap_page (its data_* fields begin at 1024 by design).
DATA_HEAD_OFFSET = 1024
DATA_TAIL_OFFSET = 1032
DATA_OFFSET_OFFSET = 1040
DATA_SIZE_OFFSET = 1048


class ClockId(enum.IntEnum):
    """<linux/time.h>; the clocks that `use_clockid` may name."""

    REALTIME = 0
    MONOTONIC = 1
    MONOTONIC_RAW = 4
    BOOTTIME = 7
    TAI = 11


# struct perf_event_attr, PERF_ATTR_SIZE_VER8 (136 bytes), field for field.
_LAYOUT = struct.Struct("=IIQQQQQIIQQQQIiQIHHIIQQ")
ATTR_SIZE = 136
assert _LAYOUT.size == ATTR_SIZE
#: The first published size; whatever is smaller is not an attr.
ATTR_SIZE_VER0 = 64
_CLOCKS = ((Type.SOFTWARE, Software.CPU_CLOCK), (Type.SOFTWARE, Software.TASK_CLOCK))


@dataclass(frozen=True, slots=True)
class Attr:
    """struct perf_event_attr, immutable, under the header's own names.

    `sample_period` is also sample_freq (when FREQ is set), `wakeup_events` is also
    wakeup_watermark, `config1` is bp_addr/kprobe_func/uprobe_path and `config2` is
    bp_len/kprobe_addr/probe_offset, as in the header's unions.
    """

    type: int = 0
    config: int = 0
    sample_period: int = 0
    sample_type: Sample = Sample(0)
    read_format: ReadFormat = ReadFormat(0)
    flags: Flag = Flag(0)
    precise_ip: int = 0
    wakeup_events: int = 0
    bp_type: int = 0
    config1: int = 0
    config2: int = 0
    branch_sample_type: int = 0
    sample_regs_user: int = 0
    sample_stack_user: int = 0
    clockid: int = 0
    sample_regs_intr: int = 0
    aux_watermark: int = 0
    sample_max_stack: int = 0
    aux_sample_size: int = 0
    aux_action: int = 0
    sig_data: int = 0
    config3: int = 0

    def pack(self) -> bytes:
        """The attr as the kernel of this machine's byte order reads it (136 bytes)."""
        word = int(self.flags) | self.precise_ip << _PRECISE_SHIFT
        return _LAYOUT.pack(
            self.type, ATTR_SIZE, self.config, self.sample_period, int(self.sample_type),
            int(self.read_format), word, self.wakeup_events, self.bp_type, self.config1,
            self.config2, self.branch_sample_type, self.sample_regs_user, self.sample_stack_user,
            self.clockid, self.sample_regs_intr, self.aux_watermark, self.sample_max_stack, 0,
            self.aux_sample_size, self.aux_action, self.sig_data, self.config3,
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes) -> Attr:
        """Read an attr of any published size; fields beyond its own size are zero.

        Raises:
            ValueError: fewer bytes than the first published size.
        """
        if len(data) < ATTR_SIZE_VER0:
            raise ValueError(f"an attr has at least {ATTR_SIZE_VER0} bytes, these are {len(data)}")
        size = struct.unpack_from("=I", data, 4)[0] or ATTR_SIZE_VER0
        f = _LAYOUT.unpack(bytes(data[: min(size, ATTR_SIZE)]).ljust(ATTR_SIZE, b"\0"))
        precise = f[6] >> _PRECISE_SHIFT & 3
        return cls(
            f[0], f[2], f[3], Sample(f[4]), ReadFormat(f[5]), Flag(f[6] & ~(3 << _PRECISE_SHIFT)),
            precise, *f[7:18], *f[19:],
        )  # fmt: skip

    @property
    def generic(self) -> tuple[int, int]:
        """Type and config, whichever PMU of a hybrid machine counts the event."""
        if self.type in (Type.HARDWARE, Type.HW_CACHE):
            return self.type, self.config & PERF_HW_EVENT_MASK
        return self.type, self.config

    @property
    def is_clock(self) -> bool:
        """True for cpu-clock and task-clock, which count nanoseconds."""
        return self.generic in _CLOCKS

    @property
    def shows_cpu_time(self) -> bool:
        """True if its samples show where CPUs spent their time: a clock, or CPU cycles."""
        return self.is_clock or self.generic == (Type.HARDWARE, Hardware.CPU_CYCLES)

    @property
    def counted_in_software(self) -> bool:
        """True if it counts what the kernel itself reports, page faults for example; False for the
        clocks, which are timers, and for events that count nothing.
        """
        return self.type == Type.SOFTWARE and not (
            self.is_clock or self.config in (Software.DUMMY, Software.BPF_OUTPUT)
        )

    @property
    def dummy(self) -> bool:
        """True if it is there only for task records, and has no samples."""
        return self.generic == (Type.SOFTWARE, Software.DUMMY)

    def with_flags(self, on: Flag = Flag(0), off: Flag = Flag(0)) -> Attr:
        """A copy with some bits set and others cleared."""
        # As plain numbers: ~ of a flag would take away bits of a later kernel, which have no name.
        return replace(self, flags=Flag((int(self.flags) | int(on)) & ~int(off)))


ATTR_FIELDS = tuple(field.name for field in fields(Attr))
