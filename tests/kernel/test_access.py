"""Who may: levels, sharing, giving away, and what is written down of it. With real users."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import perfkeep
from perfkeep.client.connection import call, disconnect
from perfkeep.errors import BrokerError, PerfkeepError, Unreachable
from perfkeep.testing.requirements import perf_events, requires, root
from perfkeep.wire import messages
from support.commands import Cli
from support.instance import Running
from support.nobody import NOBODY, AsNobody

pytestmark = requires(perf_events, root)

STAFF = 50

Attempts = dict[str, Callable[[], object]]

#: What each level needs, as a name and something to do.
READ: Attempts = {
    "see": lambda: perfkeep.Recording("flight").info,
    "count": lambda: perfkeep.Recording("flight").stat(),
    "snapshot": lambda: perfkeep.Recording("flight").snapshot().close(),
}
CONTROL: Attempts = {
    "reopen": lambda: perfkeep.reopen(1, 0).close(),
    "disable": lambda: perfkeep.Recording("flight").disable(),
    "enable": lambda: perfkeep.Recording("flight").enable(),
}
OWN: Attempts = {
    "chmod": lambda: perfkeep.Recording("flight").chmod(0o600),
    "chown": lambda: perfkeep.Recording("flight").chown(group=NOBODY),
    "remove": lambda: perfkeep.Recording("flight").remove([1]),
    "expire": lambda: perfkeep.Recording("flight").expire("1h"),
    "claim": lambda: perfkeep.Recording("flight").claim(),
}


def outcomes(attempts: Mapping[str, Callable[[], object]]) -> dict[str, int]:
    """The errno of each, 0 when it worked."""
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = 0
        except OSError as error:
            found[name] = error.errno or -1
    return found


def start(mode: int | None = None, **options: Any) -> perfkeep.Recording:
    return perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K", mode=mode, **options)


@pytest.mark.parametrize(
    ("mode", "group", "read", "control"),
    [
        (0o604, None, True, False),
        (0o606, None, True, True),
        (0o640, STAFF, True, False),
        (0o660, STAFF, True, True),
    ],
)
def test_the_mode_lets_others_read_or_control_and_never_own(
    reachable: Running, mode: int, group: int | None, read: bool, control: bool, as_nobody: AsNobody
) -> None:
    start(mode, group=group)
    disconnect()

    def attempt() -> object:
        return outcomes(READ), outcomes(CONTROL), outcomes(OWN)

    reads, controls, owns = as_nobody(attempt, [STAFF])
    assert set(reads.values()) == {0 if read else errno.EACCES}
    assert set(controls.values()) == {0 if control else errno.EACCES}
    assert set(owns.values()) == {errno.EACCES}
    assert perfkeep.Recording("flight").info.mode == mode


def test_who_may_not_see_a_recording_does_not_find_it_in_the_list(
    reachable: Running, as_nobody: AsNobody
) -> None:
    start(0o640, group=STAFF)
    perfkeep.start("open", ["cpu-clock"], cpus=[0], ring="64K", mode=0o604)
    disconnect()

    def names() -> list[str]:
        return [one.name for one in perfkeep.recordings()]

    assert as_nobody(names) == ["open"]
    assert as_nobody(names, [STAFF]) == ["flight", "open"]


def test_nobody_can_even_connect_while_nothing_is_shared(
    reachable: Running, as_nobody: AsNobody
) -> None:
    recording = start()
    assert os.stat(reachable.socket).st_mode & 0o777 == 0o600
    recording.chmod(0o604)
    assert os.stat(reachable.socket).st_mode & 0o777 == 0o666
    recording.chmod(0o600)
    assert os.stat(reachable.socket).st_mode & 0o777 == 0o600
    disconnect()
    assert as_nobody(lambda: outcomes(READ)) == dict.fromkeys(READ, errno.EACCES)


def test_what_root_gives_away_belongs_to_the_user_wholly(
    reachable: Running, as_nobody: AsNobody
) -> None:
    start(owner=NOBODY)
    disconnect()
    found = as_nobody(lambda: outcomes(READ | CONTROL | OWN))
    assert found == dict.fromkeys(READ | CONTROL | OWN, 0) | {
        "expire": errno.ENOENT,
        "claim": errno.ENOENT,
    }


def test_a_user_shares_and_gives_away_nothing_without_an_administrator(
    reachable: Running, as_nobody: AsNobody
) -> None:
    start(owner=NOBODY)
    disconnect()
    attempts: dict[str, Callable[[], object]] = {
        "share": lambda: perfkeep.Recording("flight").chmod(0o644),
        "give away": lambda: perfkeep.Recording("flight").chown(owner=0),
        "foreign group": lambda: perfkeep.Recording("flight").chown(group=STAFF),
        "own group": lambda: perfkeep.Recording("flight").chown(group=NOBODY),
    }
    found = as_nobody(lambda: outcomes(attempts))
    assert found.pop("own group") == 0
    assert set(found.values()) == {errno.EPERM}


def test_nobody_starts_in_roots_instance_unless_policy_says_so(
    reachable: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_nobody: AsNobody
) -> None:
    (tmp_path / "policy.toml").write_text(f"start = [{NOBODY}]\n[each_user]\nrings = '64K'\n")
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    start(0o604)
    disconnect()

    def begin(name: str, ring: str) -> Callable[[], object]:
        return lambda: perfkeep.start(name, ["page-faults:u"], pid=os.getpid(), cpus=[0], ring=ring)

    attempts = {"mine": begin("mine", "64K"), "more": begin("more", "4K")}
    found = as_nobody(lambda: outcomes(attempts))
    assert found == {"mine": 0, "more": errno.EDQUOT}
    broker, _ = reachable.pids()
    (tmp_path / "policy.toml").unlink()
    os.kill(broker, 1)
    found = as_nobody(lambda: outcomes({"other": begin("other", "4K")}))
    assert found == {"other": errno.EACCES}


def test_a_policy_with_a_mistake_is_told_of_and_the_one_before_it_holds(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "policy.toml").write_text("shares = true\n")
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    start()
    status, _ = call("GetStatus", messages.Nothing())
    assert isinstance(status, messages.Status)
    assert "unknown key 'shares'" in status.problems[0]


def test_every_change_and_every_refusal_is_one_line_in_the_audit_log(
    reachable: Running, as_nobody: AsNobody
) -> None:
    recording = start(0o604)
    recording.stat()
    disconnect()
    as_nobody(lambda: outcomes(OWN))
    recording.claim()
    log = Path(f"{reachable.socket}.audit")
    lines = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    mine = [line for line in lines if f"pid={os.getpid()} uid=0 gid=0" in line]
    assert [line.split("method=")[1] for line in mine] == [
        "Start name=flight result=ok",
        "Claim name=flight result=ok",
    ]
    refused = [line for line in lines if f"uid={NOBODY}" in line]
    assert len(refused) == len(OWN)
    assert all(line.endswith("result=EACCES") for line in refused)
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_request_that_only_an_opener_may_make_is_refused(running: Running) -> None:
    start()
    for name, parameters in (
        ("GetMissing", messages.Nothing()),
        ("Rejoin", messages.Rejoin("flight", [])),
    ):
        with pytest.raises(BrokerError) as caught:
            call(name, parameters)
        assert caught.value.errno == errno.EACCES


def test_a_mode_with_more_than_r_and_w_is_refused(running: Running) -> None:
    with pytest.raises(PerfkeepError, match="r and w only") as caught:
        start(0o755)
    assert caught.value.errno == errno.EINVAL
    assert not isinstance(caught.value, Unreachable)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o604])
@pytest.mark.parametrize("name", [*READ, *CONTROL])
def test_the_hint_to_a_refused_user_works_and_lets_few_others_in(
    reachable: Running, as_nobody: AsNobody, mode: int, name: str, cli: Cli
) -> None:
    start(mode)
    perfkeep.start("open", ["cpu-clock"], cpus=[0], ring="64K", mode=0o604)
    attempt = {**READ, **CONTROL}[name]

    def hint() -> str:
        try:
            attempt()
        except BrokerError as error:
            return error.hint
        return ""

    for _ in ("to see it", "to control it"):
        disconnect()
        commands = as_nobody(hint).removeprefix("have its owner or root run: ").split(" && ")
        for command in filter(None, commands):
            assert cli(*command.split()[1:]).code == 0
    disconnect()
    assert as_nobody(lambda: outcomes({name: attempt})) == {name: 0}
    # All others are let in only where another group has a right already.
    assert not perfkeep.Recording("flight").info.mode & ~mode & 0o007 or mode & 0o074
