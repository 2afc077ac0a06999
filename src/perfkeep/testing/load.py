"""A steady load on one CPU, so that events have something to record.

The load is a process of its own; it ends with the `with` block, and with the test that forgot.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Timer slack is 50 µs unless told otherwise, as long as the shortest pause asked for. The getppid
# is a tenth of a microsecond, and ends the load when whoever wanted it has died.
_HEART = """
import os, sys, time
cpu, pause = int(sys.argv[1]), float(sys.argv[2])
with open("/proc/self/timerslack_ns", "w") as slack:
    slack.write("1")
os.sched_setaffinity(0, [cpu])
parent = os.getppid()
os.write(1, b"!")
while os.getppid() == parent:
    time.sleep(pause)
"""


@contextmanager
def heartbeat(cpu: int = 0, every_us: float = 50) -> Iterator[int]:
    """A process that wakes up on `cpu` every `every_us` microseconds; gives its pid.

    It is beating when the block begins, and has been waited for when the block is left.

    Raises:
        RuntimeError: it died at its start: no such CPU, or not one for this process.
    """
    command = [sys.executable, "-I", "-S", "-c", _HEART, str(cpu), str(every_us / 1e6)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            if not child.stdout.read(1):
                raise RuntimeError(f"the load on CPU {cpu} did not start; its error is above")
            yield child.pid
        finally:
            child.kill()
