"""perfkeep.wire.instance: where an instance lives, and who may have made that place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.wire import instance
from perfkeep.wire.instance import Instance, prepare_directory, take_lock


def test_the_environment_names_another_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFKEEP_SOCKET", "/some/where/s")
    where = instance.current()
    assert where.socket == "/some/where/s"
    assert where.directory == "/some/where"
    assert (where.lock, where.log) == ("/some/where/s.lock", "/some/where/s.log")


@pytest.mark.parametrize(
    ("uid", "runtime", "socket"),
    [
        (0, "/run/user/0", "/run/perfkeep/perfkeep.sock"),
        (1000, "/run/user/1000", "/run/user/1000/perfkeep/perfkeep.sock"),
        (1000, None, "/tmp/perfkeep-1000/perfkeep.sock"),
    ],
)
def test_each_user_has_a_place_of_their_own(
    uid: int, runtime: str | None, socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERFKEEP_SOCKET")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if runtime is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert instance.current().socket == socket


def test_a_path_that_no_socket_can_have_is_refused_with_its_length() -> None:
    with pytest.raises(UsageError, match=r"may have 103 bytes.* has 104") as caught:
        Instance("/" + "x" * 103)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert Instance("/" + "x" * 102).socket


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_missing_directory_is_made_for_others_to_pass_through_only(
    tmp_path: Path, umask: int
) -> None:
    where = Instance(f"{tmp_path}/new/s")
    before = os.umask(umask)
    try:
        prepare_directory(where)
        prepare_directory(where)
    finally:
        os.umask(before)
    assert os.stat(where.directory).st_mode & 0o777 == 0o711


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(0o700)
    prepare_directory(Instance(f"{tmp_path}/d/s"))
    assert os.stat(tmp_path / "d").st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("mode", "taken"), [(0o700, True), (0o755, True), (0o1777, True),
                                             (0o777, False), (0o770, False)])  # fmt: skip
def test_a_directory_that_others_can_change_is_refused(
    tmp_path: Path, mode: int, taken: bool
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    folder.chmod(mode)
    where = Instance(f"{folder}/s")
    if taken:
        prepare_directory(where)
        return
    with pytest.raises(PerfkeepError, match="that only you or root can change") as caught:
        prepare_directory(where)
    assert caught.value.errno == errno.EPERM
    assert "PERFKEEP_SOCKET" in caught.value.hint


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(PerfkeepError):
        prepare_directory(Instance(f"{tmp_path}/link/s"))


def test_the_lock_is_taken_once_and_free_when_its_last_holder_has_gone(tmp_path: Path) -> None:
    where = Instance(f"{tmp_path}/s")
    lock = take_lock(where)
    assert lock is not None
    with lock.dup():
        lock.close()
        assert take_lock(where) is None
    again = take_lock(where)
    assert again is not None
    again.close()
    assert os.stat(where.lock).st_mode & 0o777 == 0o600


def test_the_lock_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "s.lock").symlink_to("elsewhere")
    with pytest.raises(OSError) as caught:
        take_lock(Instance(f"{tmp_path}/s"))
    assert caught.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()
