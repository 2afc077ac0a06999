"""The perf.data file: magic, header, feature numbers. No I/O.

Source: tools/perf/Documentation/perf.data-file-format.txt and tools/perf/util/header.h.
"""

from __future__ import annotations

import enum
import struct

MAGIC = b"PERFILE2"
#: The same, written by a machine of the other byte order.
MAGIC_SWAPPED = b"2ELIFREP"

#: struct perf_file_header: magic, size, attr_size, then (offset, size) of attrs, data and
#: event_types, then a bitmap of 256 features.
HEADER = struct.Struct("=8sQQQQQQQQ32s")

#: struct perf_file_section: offset, size
SECTION = struct.Struct("=QQ")

#: Strings of features are padded to multiples of this.
NAME_ALIGN = 64


class Feature(enum.IntEnum):
    """enum HEADER_*, in which order the features lie behind the data."""

    TRACING_DATA = 1
    BUILD_ID = 2
    HOSTNAME = 3
    OSRELEASE = 4
    VERSION = 5
    ARCH = 6
    NRCPUS = 7
    CPUDESC = 8
    CPUID = 9
    TOTAL_MEM = 10
    CMDLINE = 11
    EVENT_DESC = 12
    CPU_TOPOLOGY = 13
    NUMA_TOPOLOGY = 14
    BRANCH_STACK = 15
    PMU_MAPPINGS = 16
    GROUP_DESC = 17
    AUXTRACE = 18
    STAT = 19
    CACHE = 20
    SAMPLE_TIME = 21
    MEM_TOPOLOGY = 22
    CLOCKID = 23
    DIR_FORMAT = 24
    BPF_PROG_INFO = 25
    BPF_BTF = 26
    COMPRESSED = 27
    CPU_PMU_CAPS = 28
    CLOCK_DATA = 29
    HYBRID_TOPOLOGY = 30
    HYBRID_CPU_PMU_CAPS = 31
    #: Ours: /proc/sys/kernel/random/boot_id, a string. perf passes over what it does not know.
    BOOT_ID = 255
