"""perfkeep.broker.audit: changes and refusals, a line each; looks are not."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from perfkeep.broker import audit
from perfkeep.broker.audit import Audit
from perfkeep.wire.messages import METHODS
from perfkeep.wire.socket import Peer

PEER = Peer(17, 1000, 100)


def lines(path: Path) -> list[str]:
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


def test_a_change_and_a_refusal_are_a_line_each_with_who_it_was(tmp_path: Path) -> None:
    log = Audit(str(tmp_path / "audit"))
    log.note(PEER, "Claim", "flight")
    log.note(PEER, "Stat", "flight", errno.EACCES)
    log.happened("expire", "flight", "its time was over")
    first, second, third = lines(tmp_path / "audit")
    assert first == "pid=17 uid=1000 gid=100 method=Claim name=flight result=ok"
    assert second == "pid=17 uid=1000 gid=100 method=Stat name=flight result=EACCES"
    assert third.endswith("did=expire name=flight why='its time was over'")
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o600


def test_looks_and_mistakes_are_not_logged(tmp_path: Path) -> None:
    log = Audit(str(tmp_path / "audit"))
    log.note(PEER, "Stat", "flight")
    log.note(PEER, "Claim", "flight", errno.ENOENT)
    assert not (tmp_path / "audit").exists()


def test_every_method_that_only_looks_exists() -> None:
    varlink = {"GetInfo", "GetInterfaceDescription"}
    assert set(METHODS) | varlink > audit._LOOKS


def test_a_full_log_is_put_aside_and_only_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_MOST_BYTES", 1000)
    log = Audit(str(tmp_path / "audit"))
    for _ in range(200):
        log.note(PEER, "Claim", "flight", errno.EACCES)
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["audit", "audit.1"],
        ["audit.1"],
    )
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2500


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    log = Audit(str(tmp_path / "audit"))
    log.note(PEER, "Claim", "x\n2026 pid=1 uid=0 method=Claim name=y result=ok", errno.EACCES)
    assert len(lines(tmp_path / "audit")) == 1


def test_the_directory_of_the_log_is_made_for_nobody_else(tmp_path: Path) -> None:
    Audit(str(tmp_path / "perfkeep" / "audit")).note(PEER, "Claim", "flight")
    assert len(lines(tmp_path / "perfkeep" / "audit")) == 1
    assert (tmp_path / "perfkeep").stat().st_mode & 0o777 == 0o700


def test_a_log_that_cannot_be_written_stops_nothing_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no").write_text("no directory")
    log = Audit(str(tmp_path / "no" / "audit"))
    for _ in range(3):
        log.note(PEER, "Claim", "flight")
    assert capsys.readouterr().out.count("cannot be written") == 1
