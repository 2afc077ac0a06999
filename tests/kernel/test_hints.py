"""Hints are commands that work for the user who reads them, and the failure is gone afterwards."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perfkeep.cli.common import say_note
from perfkeep.client import sideband
from perfkeep.errors import KernelRefused
from perfkeep.kernel import privileges, sysctl
from perfkeep.testing.requirements import Need, perf_events, requires, root
from perfkeep.wire import messages
from support.user import PERFKEEP, User

paranoid = Need(
    "paranoid",
    lambda: (
        None
        if int(sysctl.read("kernel.perf_event_paranoid")) > 0
        else "kernel.perf_event_paranoid lets every user record the whole machine"
    ),
)
pytestmark = requires(perf_events, root, paranoid)

#: A target of the user's own that lives as long as it has to.
OWN = ["sh", "-c", 'sleep 60 & perfkeep "$@" -p $!; code=$?; kill $!; exit $code', "sh"]


@contextmanager
def preserved(path: Path) -> Iterator[None]:
    """The file's mode and group are put back."""
    found = path.stat()
    try:
        yield
    finally:
        os.chown(path, found.st_uid, found.st_gid)
        path.chmod(found.st_mode & 0o7777)


def refused(done: subprocess.CompletedProcess[str], reason: str) -> str:
    """The error of a command that failed for this reason, and with a hint."""
    assert done.returncode == 1 and reason in done.stderr, (done.stdout, done.stderr)
    return done.stderr


def test_the_whole_machine_is_recorded_with_one_capability_for_one_command(guest: User) -> None:
    """The setting that everybody has stays as it is."""
    failed = guest.run(PERFKEEP, "start", "all", "-e", "cpu-clock/freq=10/")
    hint = guest.hinted(refused(failed, "not permitted with kernel.perf_event_paranoid"))
    assert "sysctl" not in hint
    done = guest.obey(hint)
    assert done.returncode == 0, done.stderr
    assert "all tasks" in guest.run(PERFKEEP, "ls").stdout


def test_a_process_of_another_user_is_recorded_with_one_capability(guest: User) -> None:
    failed = guest.run(PERFKEEP, "start", "other", "-e", "cpu-clock/freq=10/", "-p", os.getpid())
    error = refused(failed, "belongs to uid 0, and this user lacks CAP_PERFMON")
    done = guest.obey(guest.hinted(error))
    assert done.returncode == 0, done.stderr


def test_a_group_that_needs_the_whole_machine_gets_the_capability_from_doctor(
    guest: User,
) -> None:
    assert not Path(privileges.LAUNCHER).exists()
    finding = doctor(guest, "the whole machine")
    install = finding["cure"]
    share, setting = finding["others"]
    assert re.search(r"start NAME -e EVENT --group \S+ --mode 0640", share)
    assert "sysctl kernel.perf_event_paranoid=0" in setting
    try:
        assert guest.obey(install).returncode == 0
        hint = doctor(guest, "the whole machine")["cure"]
        assert hint.startswith(privileges.LAUNCHER)
        findings = {f["what"]: f for f in json.loads(guest.obey(hint).stdout)}
        assert findings["the whole machine"]["verdict"] == "ok"
        failed = guest.run(PERFKEEP, "start", "all", "-e", "cpu-clock/freq=10/")
        assert guest.obey(guest.hinted(failed.stderr)).returncode == 0
        stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        assert subprocess.run([*stranger, privileges.LAUNCHER], capture_output=True).returncode
    finally:
        Path(privileges.LAUNCHER).unlink(missing_ok=True)


@contextmanager
def restored(name: str) -> Iterator[None]:
    """The setting is put back."""
    value = sysctl.read(name)
    try:
        yield
    finally:
        Path(f"/proc/sys/{name.replace('.', '/')}").write_text(value)


def test_the_setting_that_doctor_names_last_lets_every_user_record_the_whole_machine(
    guest: User,
) -> None:
    setting = doctor(guest, "the whole machine")["others"][-1]
    with restored("kernel.perf_event_paranoid"):
        assert guest.obey(setting).returncode == 0
        done = guest.run(PERFKEEP, "start", "all", "-e", "cpu-clock/freq=10/")
    assert done.returncode == 0, (setting, done.stderr)


def test_an_event_that_this_machine_has_is_offered_where_no_pmu_counts(guest: User) -> None:
    failed = guest.run(*OWN, "start", "cycles", "-e", "cycles:u")
    if failed.returncode == 0:
        pytest.skip("this machine's PMU counts cycles")
    hint = guest.hinted(refused(failed, "no such event"))
    words = hint.rpartition(": ")[2].split()
    done = guest.run(*OWN, "start", "clock", *words)
    assert done.returncode == 0, (hint, done.stderr)


def doctor(guest: User, what: str) -> dict[str, Any]:
    findings = json.loads(guest.run(PERFKEEP, "doctor", "--json").stdout)
    return next(finding for finding in findings if finding["what"] == what)


def test_kernel_symbols_are_shown_to_a_user_with_the_capability(guest: User) -> None:
    """kernel.kptr_restrict 0 hides them from users who may not profile the kernel."""
    restrict = sysctl.read("kernel.kptr_restrict")
    if restrict not in ("0", "1"):
        pytest.skip(f"kernel.kptr_restrict = {restrict} hides them from every user")
    finding = doctor(guest, "kernel symbols")
    assert f"kptr_restrict={restrict}" not in finding["cure"]
    done = guest.obey(finding["cure"])
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["kernel symbols"]["verdict"] == "ok"


def test_tracepoints_are_read_by_the_users_group(guest: User) -> None:
    place = Path("/sys/kernel/tracing")
    assert place.stat().st_mode & 0o7 == 0
    failed = guest.run(PERFKEEP, "start", "switches", "-e", "sched:sched_switch")
    hint = guest.hinted(refused(failed, "this user may not read"))
    try:
        with preserved(place):
            assert guest.obey(hint).returncode == 0
            done = guest.run(PERFKEEP, "start", "switches", "-e", "sched:sched_switch")
            # With the formats read it is the kernel's permission that is missing.
            assert "not permitted with kernel.perf_event_paranoid" in done.stderr, done.stderr
    finally:
        subprocess.run(["mount", "-o", "remount,gid=0,mode=700", str(place)], check=True)


def test_a_ring_beside_the_users_own_recordings_names_them_and_one_that_fits(guest: User) -> None:
    limits = "--memlock=4194304:4194304"
    assert (
        guest.run(*OWN, "start", "first", "-e", "cpu-clock/freq=10/", limits=limits).returncode == 0
    )
    failed = guest.run(*OWN, "start", "second", "-e", "dummy", "--ring", "2M", limits=limits)
    error = refused(failed, "in use by the rings of: first ")
    assert "sysctl" not in error
    hint = guest.hinted(error)
    words = hint.removeprefix("start it with ").split()
    done = guest.run(*OWN, "start", "second", "-e", "dummy", *words, limits=limits)
    assert done.returncode == 0 and "are not named" not in done.stderr, (hint, done.stderr)


def test_where_no_ring_fits_the_hint_ends_the_largest_recording(guest: User) -> None:
    limits = "--memlock=65536:65536"
    cpus = os.cpu_count() or 1

    def start(name: str) -> subprocess.CompletedProcess[str]:
        words = ["-e", "dummy", "--ring", "4K", "--no-sideband"]
        return guest.run(*OWN, "start", name, *words, limits=limits)

    first = guest.run(
        *OWN, "start", "first", "-e", "dummy", "--ring", "64K", "--no-sideband", limits=limits
    )
    assert first.returncode == 0, first.stderr
    for number in range(64 * cpus):
        done = start(f"n{number}")
        if done.returncode:
            break
    hint = guest.hinted(refused(done, "over the locked-memory limit"))
    assert hint == "perfkeep claim first"
    assert guest.obey(hint).returncode == 0
    assert start("second").returncode == 0


def test_a_note_on_what_is_not_named_has_its_cure_below_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> KernelRefused:
        return KernelRefused(errno.EPERM, "not permitted", hint="perfkeep claim first")

    monkeypatch.setattr(sideband, "_add", refuse)
    monkeypatch.setattr(sideband, "kind_for", lambda kinds: kinds)
    (note,) = sideband.add("x", [], messages.Target(), [])
    say_note(note)
    assert capsys.readouterr().err == (
        "perfkeep: processes that end are not named in snapshots: not permitted\n"
        "hint: perfkeep claim first\n"
    )


def test_the_default_ring_fits_again_after_a_recording_has_ended(guest: User) -> None:
    for name in ("first", "second", "third"):
        done = guest.run(*OWN, "start", name, "-e", "cpu-clock/freq=10/,page-faults")
        assert done.returncode == 0, done.stderr
        assert guest.run(PERFKEEP, "claim", name).returncode == 0


@pytest.mark.parametrize("ring", ["100G", "1G", "3M", "1"])
def test_a_ring_that_cannot_be_is_refused_with_one_that_can(guest: User, ring: str) -> None:
    failed = guest.run(*OWN, "start", "big", "-e", "dummy", "--ring", ring)
    word = guest.hinted(failed.stderr).split()[4]
    done = guest.run(*OWN, "start", "big", "-e", "dummy", "--ring", word)
    assert done.returncode == 0, (failed.stderr, done.stderr)


SEVERAL = ",".join(f"cpu-clock/freq={hz}/" for hz in range(1, 40))


def test_the_open_files_limit_is_raised_by_the_hint_below_the_hard_limit(guest: User) -> None:
    """perfkeep start takes the hard limit itself; a library does not."""
    code = f"import perfkeep; perfkeep.start('many', ['{SEVERAL}'], pid=__import__('os').getpid())"
    script = guest.home / "many.py"
    script.write_text(
        "import sys\nfrom perfkeep.cli.main import main\nfrom perfkeep import PerfkeepError\n"
        f"try:\n    {code}\nexcept PerfkeepError as error:\n    print(error, error.hint, sep='\\nhint: ')\n"
    )
    python = PERFKEEP.with_name("python")
    done = guest.run(python, script, limits="--nofile=40:4096")
    hint = guest.hinted(done.stdout)
    assert hint == "ulimit -n 4096"
    again = guest.run("bash", "-c", f"{hint}; {python} {script}", limits="--nofile=40:4096")
    assert again.stdout == "", again.stdout
