"""`python -m chaos.files [-max_total_time=600] [CORPUS]`: files that atheris makes up, read by all that
reads files here: header and features, the walk, samples as columns, formats of tracepoints, call
stacks, text. Ends at the first exception that nobody expected. The arguments are libFuzzer's.
`make fuzz-files` brings atheris along.
"""

from __future__ import annotations

import os
import sys
import tempfile

import atheris
import nanoarrow as na

with atheris.instrument_imports(
    include=["perfkeep.analysis", "perfkeep.formats", "perfkeep.records"]
):
    from perfkeep.abi.perf_event import Sample
    from perfkeep.analysis.data import Data
    from perfkeep.analysis.script import Wanted, lines, objects
    from perfkeep.analysis.stacks import default_event, shares, stacks
    from perfkeep.errors import PerfkeepError
    from perfkeep.formats.perf_data import EventDesc, RingCopy, Window, write_snapshot
    from perfkeep.formats.perf_data.reader import parse
    from perfkeep.kernel.procfs import Host, Mapping, Process
    from perfkeep.testing.assembler import PLAIN, Assembler, Ring

FORMAT = """name: traced
ID: 7
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:long state;\toffset:8;\tsize:8;\tsigned:1;
\tfield:__data_loc char[] name;\toffset:16;\tsize:4;\tsigned:0;
\tfield:int list[3];\toffset:20;\tsize:12;\tsigned:1;

print fmt: "state=%s name=%s %d", __print_flags(REC->state, "|", {1, "S"}, {2, "D"}), \
__get_str(name), REC->list[1]
"""


def seeds(directory: str) -> None:
    """A file with samples, call chains and a tracepoint, to begin with."""
    here = Mapping(0x1000, 0x1000, 0, 8, 1, 7, 5, False, b"/bin/true")
    host = Host(
        "here", "6.18.0", "x86_64", 2, 4, "a CPU", "X,1", 1024, 0xFFFFFFFF81000000, b"", [], 5, 6,
        [Process(1, {1: b"init"}, [here])],
    )  # fmt: skip
    plain, ring = Assembler(sample_type=PLAIN | Sample.IP | Sample.CALLCHAIN), Ring(4096)
    traced = Assembler(sample_type=PLAIN | Sample.RAW, id=8)
    for time in (10, 20):
        ring.write(plain.sample(time, ip=0x1010, callchain=(2**64 - 512, 0x1010, 0x1020)))
        ring.write(traced.sample(time, raw=bytes(8) + b"\1" + bytes(7) + bytes(20)))
    copy = RingCopy(
        0, memoryview(ring.linear()), ring.data_head, ring.data_head, "backward", 4096, 99
    )
    events = [
        EventDesc("cpu-clock", plain.attr, {0: [7]}, None),
        EventDesc("x:traced", traced.attr, {0: [8]}, ("x", "traced", 7, FORMAT)),
    ]
    with open(f"{directory}/seed", "wb") as out:
        write_snapshot(out, events, [copy], host, Window(), [])


def read(data: bytes) -> None:
    """All that can be done to a file; each refusal is one of ours."""
    try:
        found = Data(parse(memoryview(data)), lambda: b"ffffffff81000000 T _text\n")
    except PerfkeepError:
        return
    for name in found.tables:
        for _ in na.c_array_stream(found.with_names(name)):
            pass
    for make in (lines, objects):
        for number, _ in enumerate(make(found, Wanted())):
            if number > 100:
                break
    try:
        some = stacks(found, default_event(found))
        shares(some, ["sym", "dso"])
    except PerfkeepError:
        pass


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="perfkeep-files-") as corpus:
        seeds(corpus)
        given = [one for one in sys.argv[1:] if not one.startswith("-")]
        atheris.Setup([*sys.argv, *([] if given else [corpus])], read)
        # libFuzzer ends the process; what it found is beside us.
        atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
