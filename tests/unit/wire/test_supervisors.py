"""perfkeep.wire.supervisors: what a supervisor that was killed leaves is taken away by the next."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from perfkeep.wire import supervisors
from perfkeep.wire.instance import Instance


def test_the_socket_of_a_supervisor_that_was_killed_is_taken_away_and_others_stay(
    tmp_path: Path,
) -> None:
    where = Instance(str(tmp_path / "s"))
    folder = tmp_path / "s.exec"
    folder.mkdir()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as killed,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as alive,
    ):
        killed.bind(str(folder / "11"))
        alive.bind(str(folder / "12"))
        alive.listen()
        killed.close()
        listener = supervisors.listen(where)
        assert sorted(os.listdir(folder)) == sorted(["12", str(os.getpid())])
        supervisors.close(listener)
    assert os.listdir(folder) == ["12"]
