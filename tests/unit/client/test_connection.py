"""perfkeep.client.connection: what it makes of a broker of another version."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from perfkeep.client.connection import Connection
from perfkeep.errors import PerfkeepError
from perfkeep.wire import messages
from perfkeep.wire.instance import Instance


def test_an_answer_of_another_version_is_told_in_one_sentence_and_keeps_no_fd(
    tmp_path: Path,
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    before = len(os.listdir("/proc/self/fd"))
    with theirs, Connection(Instance(str(tmp_path / "socket")), ours) as connection:
        with open("/dev/null") as file:
            reply = b'{"parameters": {"recording": 7}, "fds": 1}\0'
            socket.send_fds(theirs, [reply], [file.fileno()])
        with pytest.raises(PerfkeepError, match="another version") as caught:
            connection.call("BeginSnapshot", messages.Named("x"), messages.Snapshot)
        assert (caught.value.errno, caught.value.hint) == (errno.EPROTO, "perfkeep upgrade")
        assert len(os.listdir("/proc/self/fd")) == before
