"""`perfkeep upgrade`: other code takes over, and nobody misses a sample."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import sys
from pathlib import Path

import pytest

import perfkeep
from perfkeep.client import upgrade
from perfkeep.client.connection import call, disconnect
from perfkeep.errors import BrokerError, PerfkeepError
from perfkeep.testing.requirements import perf_events, requires, tracefs
from perfkeep.wire import messages
from support.caller import Callers
from support.instance import Running, status
from support.waiting import Eventually

pytestmark = requires(perf_events, tracefs)

PACKAGE = Path(perfkeep.__file__).parent


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A copy of the package that says it is of another version."""
    package = tmp_path / "perfkeep"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    main = package / "__init__.py"
    main.write_text(main.read_text().replace(f'"{perfkeep.__version__}"', '"99.0"'))
    return package


def take_over(package: Path) -> None:
    call("Upgrade", messages.Upgrade(sys.executable, str(package)))
    disconnect()


def test_the_new_code_goes_on_with_everything(
    running: Running, caller: Callers, newer: Path, eventually: Eventually
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring="1M", mode=0o600, ttl="1h")
    before = recording.info
    with one.calling(every_us=100):
        take_over(newer)
        eventually(lambda: status().version == "99.0")
    broker, keeper = running.pids()
    for pid in (broker, keeper):
        assert str(newer).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert recording.info.id == before.id and not recording.info.gaps
    with recording.snapshot() as snapshot:
        numbers = one.numbers_in(snapshot)
    assert numbers == list(range(1, numbers[-1] + 1)) and len(numbers) > 100
    # The new code survives what the old one did.
    os.kill(broker, signal.SIGKILL)
    disconnect()
    assert status().version == "99.0"


def test_the_command_line_says_from_what_to_what(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    from perfkeep.cli.main import main

    perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    old = running.pids()
    assert main(["upgrade"]) == 0
    assert f"went on as perfkeep {perfkeep.__version__};" in capsys.readouterr().out
    assert not set(old) & set(running.pids())


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("after_ms", [0, 20, 40, 60, 80, 100, 150])
def test_a_crash_in_the_middle_loses_nothing(
    running: Running,
    caller: Callers,
    newer: Path,
    victim: int,
    after_ms: int,
) -> None:
    """Whichever of the two dies, at whatever moment; who is in charge goes on."""
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring="1M")
    pids = running.pids()
    with one.calling(every_us=100):
        take_over(newer)
        select.select([], [], [], after_ms / 1000)
        try:
            os.kill(pids[victim], signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has done its part
        with recording.snapshot() as snapshot:
            numbers = one.numbers_in(snapshot)
    assert not [gap for gap in recording.info.gaps if gap.cpus is None]
    assert numbers == list(range(1, numbers[-1] + 1))


def test_code_that_does_not_start_changes_nothing(
    running: Running, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    pids = running.pids()
    (newer / "broker" / "service.py").write_text("import nothing_of_this_name\n")
    monkeypatch.setattr(perfkeep, "__file__", str(newer / "__init__.py"))
    with pytest.raises(PerfkeepError, match="nothing was changed"):
        upgrade.upgrade()
    assert running.pids() == pids and recording.info.state == "running"


def test_where_there_is_no_code_nothing_changes(running: Running, tmp_path: Path) -> None:
    recording = perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    pids = running.pids()
    with pytest.raises(BrokerError, match="there is no") as caught:
        take_over(tmp_path)
    assert caught.value.errno == errno.EINVAL
    assert running.pids() == pids and recording.info.state == "running"
