"""The suite's own look at processes: those of others, whatever they are called, fail no test."""

from __future__ import annotations

import os
import subprocess
import sys

from support.processes import describe, parent_of

_RENAMED = "open('/proc/self/comm', 'wb').write(b'\\xff)\\xfe'); print(flush=True); input()"


def test_a_process_whose_name_is_no_text_is_described() -> None:
    command: list[str | bytes] = [sys.executable, "-c", _RENAMED, b"\xff"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        assert parent_of(child.pid) == os.getpid()
        assert describe(child.pid).startswith(f"{child.pid} (")
        child.communicate()
