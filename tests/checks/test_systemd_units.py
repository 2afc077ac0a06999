"""The systemd units: systemd itself takes them, they fit into a boot, and they keep out no more and
no less than the daemons can do without.

systemd-analyze reads files; systemd need not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from perfkeep.client import definitions
from perfkeep.kernel import sandbox
from perfkeep.testing.requirements import requires, systemd_analyze
from perfkeep.wire import instance

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/perfkeep/systemd"
UNITS = sorted(FOLDER.glob("perfkeep*.*"))
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]

#: systemd counts from 0 (nothing is left to take away) to 100 (all is open).
MOST_EXPOSED = "30"

needs_systemd = requires(systemd_analyze)


def named(path: Path) -> str:
    return path.name


def settings(unit: str) -> dict[str, str]:
    """What a unit sets; what stands several times is put together."""
    found: dict[str, str] = {}
    for line in (FOLDER / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key] = f"{found[key]} {value}" if key in found else value
    return found


def analyze(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def enabled(folder: Path) -> None:
    """What `systemctl enable` of all units would make of an empty folder."""
    for unit in UNITS:
        (folder / unit.name).symlink_to(unit)
        for target in settings(unit.name)["WantedBy"].split():
            wants = folder / f"{target}.wants"
            wants.mkdir(exist_ok=True)
            (wants / unit.name).symlink_to(unit)


def boot(folder: Path) -> str:
    """What systemd has to say about a boot with all units enabled."""
    # The empty part at the end: before the folders of this machine.
    done = analyze("verify", "--man=no", "default.target", SYSTEMD_UNIT_PATH=f"{folder}:")
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_has_nothing_to_say_against_the_units() -> None:
    # Their man pages are looked for below.
    done = analyze("verify", "--man=no", *UNITS)
    said = [line for line in done.stderr.splitlines() if "perfkeep" in line]
    assert (done.returncode, said) == (0, [])


@needs_systemd
@pytest.mark.parametrize("service", SERVICES, ids=named)
def test_a_service_is_locked_in(service: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", service)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_systemd
def test_the_units_start_at_boot_without_waiting_for_each_other_in_a_circle(tmp_path: Path) -> None:
    enabled(tmp_path)
    assert "cycle" not in boot(tmp_path)
    # And would be seen if they did: basic.target waits for sysinit.target, which waits for us.
    (tmp_path / "perfkeep.service.d").mkdir()
    (tmp_path / "perfkeep.service.d/late.conf").write_text("[Unit]\nAfter=basic.target\n")
    assert "ordering cycle" in boot(tmp_path)


def calls_of(name: str) -> set[str]:
    """The system calls of one of systemd's sets, "@file-system"."""
    lines = [line.strip() for line in analyze("syscall-filter", name).stdout.splitlines()[1:]]
    calls = {line for line in lines if line and not line.startswith(("#", "@"))}
    return calls.union(*(calls_of(line) for line in lines if line.startswith("@")))


@needs_systemd
def test_the_filter_of_the_service_lets_through_what_the_daemons_themselves_allow() -> None:
    given = settings("perfkeep.service")["SystemCallFilter"].split()
    allowed = set[str]().union(*(calls_of(one) if one[0] == "@" else {one} for one in given))
    needed = {*" ".join(sandbox.ALLOWED).split(), *sandbox.CHECKED}
    # Calls that this systemd does not know yet are refused as a kernel without them would do it.
    known = calls_of("@known")
    # These are of no set. They are so new that every libc goes on without them.
    dispensable = {"futex_requeue", "futex_wait", "futex_wake", "map_shadow_stack"}
    assert sorted((needed & known) - allowed - dispensable) == []


def test_the_service_leaves_the_daemons_the_capabilities_that_they_keep() -> None:
    given = set(settings("perfkeep.service")["CapabilityBoundingSet"].split())
    assert given == {f"CAP_{one.name}" for one in sandbox.PERMITTED}


def test_the_socket_is_where_clients_look_for_it() -> None:
    assert settings("perfkeep.socket")["ListenStream"] == instance.SYSTEM


def test_the_pages_that_the_units_name_exist() -> None:
    for unit in UNITS:
        pages = re.findall(r"man:([\w-]+)\((\d)\)", settings(unit.name)["Documentation"])
        assert pages, f"{unit.name} names none"
        for page, section in pages:
            assert (ROOT / f"src/perfkeep/man/{page}.{section}").exists()


def test_the_units_and_the_example_are_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = project["tool"]["setuptools"]["data-files"]
    installed = [path for pattern in files["lib/systemd/system"] for path in ROOT.glob(pattern)]
    assert sorted(installed) == UNITS
    examples = {path for one in files["share/perfkeep/recordings.d"] for path in ROOT.glob(one)}
    assert examples == set((FOLDER / "recordings.d").iterdir())


def test_the_example_is_a_recording_that_any_machine_takes() -> None:
    (definition,) = definitions.read(str(FOLDER / "recordings.d/hardware-errors.toml"))
    assert definition.name == "hardware-errors" and definition.optional


def test_the_example_explains_each_of_its_keys() -> None:
    blocks = (FOLDER / "recordings.d/hardware-errors.toml").read_text().split("\n\n")
    for block in blocks:
        if " = " in block:
            assert block.startswith("# "), f"this is not explained:\n{block}"
