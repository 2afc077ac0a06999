"""What doctor makes of what the machine says; the machine is played here."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from perfkeep.abi.perf_event import Attr
from perfkeep.cli import doctor, doctor_instance
from perfkeep.cli.finding import Finding, Verdict
from perfkeep.cli.main import main
from perfkeep.kernel import privileges, syscalls, tracefs
from perfkeep.wire import instance


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, seccomp: str) -> None:
    def perf_event_open(attr: Attr, pid: int, cpu: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(syscalls, "perf_event_open", perf_event_open)
    status = {"Seccomp": seccomp, "CapEff": "0", "CapBnd": f"{1 << 38:x}"}
    monkeypatch.setattr(privileges, "status", status.__getitem__)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_filter_that_refuses_events_is_told_from_a_setting(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse(monkeypatch, number, "2")
    got = doctor._own_processes()
    assert got.verdict == "fail" and "seccomp filter" in got.found
    assert "--cap-add PERFMON --security-opt seccomp=" in got.cure


@pytest.mark.parametrize("seccomp", ["0", "2"])
def test_a_setting_that_refuses_events_comes_with_the_command_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, seccomp: str
) -> None:
    refuse(monkeypatch, errno.EACCES, seccomp)
    got = doctor._whole_machine()
    assert got.verdict == "warn" and "kernel.perf_event_paranoid = " in got.found
    assert f"cap_perfmon=ep {privileges.LAUNCHER}" in got.cure
    share, everybody = got.others
    assert "start NAME -e EVENT --group" in share
    assert everybody == "sysctl kernel.perf_event_paranoid=0"


@pytest.mark.parametrize(
    ("value", "capabilities", "verdict", "says"),
    [
        ("2", 0, "warn", "not the kernel's part"),
        ("1", 0, "warn", "only your own processes"),
        ("0", 0, "warn", "no tracepoints"),
        ("4", 0, "warn", "nothing at all"),
        ("-1", 0, "ok", "no limit"),
        ("2", 1 << 38, "ok", "no limit"),
        ("2", 1 << 21, "ok", "no limit"),
        ("2", 1 << 14, "warn", "only your own"),
    ],
)
def test_paranoid_is_explained_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, value: str, capabilities: int, verdict: str, says: str
) -> None:
    monkeypatch.setattr(doctor, "read", lambda path: value)
    monkeypatch.setattr(
        privileges, "status", lambda field: f"{capabilities if field == 'CapEff' else 1 << 38:x}"
    )
    got = doctor._paranoid()
    assert got.verdict == verdict and says in got.found
    assert bool(got.cure) == (verdict == "warn")


def test_tracefs_that_may_not_be_read_has_a_cure_that_opens_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def root() -> Path:
        raise tracefs._unreadable("/sys/kernel/tracing")

    monkeypatch.setattr(tracefs, "root", root)
    assert doctor._tracefs().cure.startswith("mount -o remount,gid=")


def test_a_file_where_the_socket_should_be_is_found_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text("mine")
    monkeypatch.setenv("PERFKEEP_SOCKET", str(tmp_path / "s"))
    got = doctor_instance.running()
    assert got.verdict == "fail" and "no socket" in got.found
    assert (tmp_path / "s").read_text() == "mine"


def test_looking_for_an_instance_starts_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PERFKEEP_SOCKET", str(tmp_path / "new" / "s"))
    assert doctor_instance.running() == Finding(
        "ok", "instance", f"none at {tmp_path}/new/s; the first command starts it"
    )
    assert list(tmp_path.iterdir()) == []
    assert instance.current().directory == f"{tmp_path}/new"


def test_a_check_that_cannot_be_made_stops_no_other() -> None:
    def broken() -> Finding:
        raise FileNotFoundError(2, "No such file", "/proc/x")

    fine = Finding("ok", "fine", "yes")
    first, second = doctor.examine([broken, lambda: fine])
    assert first.verdict == "warn" and "/proc/x" in first.found and second == fine


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_only_what_blocks_recording_makes_doctor_fail(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: Verdict,
    code: int,
) -> None:
    found = [Finding("ok", "one", "1"), Finding(verdict, "another", "2", "do this")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(found))
    assert main(["doctor"]) == code
    assert capsys.readouterr().out.splitlines() == [
        "ok    one      1", f"{verdict:4}  another  2", "               → do this",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "yama", "uid", "verdict", "says"),
    [
        ("kill_process user_notif allow", "0", 1000, "ok", "SYSFS_PATH"),
        ("kill_process allow", "0", 0, "warn", "no seccomp user notification"),
        ("user_notif", "1", 1000, "warn", "ptrace_scope is 1"),
        ("user_notif", "1", 0, "ok", "SYSFS_PATH"),
    ],
)
def test_what_exec_can_do_here_is_said(
    monkeypatch: pytest.MonkeyPatch, actions: str, yama: str, uid: int, verdict: str, says: str
) -> None:
    texts = {"actions_avail": actions, "ptrace_scope": yama, "filesystems": "nodev overlay"}
    monkeypatch.setattr(doctor, "read", lambda path: texts[path.rpartition("/")[2]])
    monkeypatch.setattr(privileges, "held", frozenset)
    monkeypatch.setattr("os.geteuid", lambda: uid)
    got = doctor._programs()
    assert got.verdict == verdict and says in got.found


def test_lockdown_that_forbids_events_is_told_and_cured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = {"/sys/kernel/security/lsm": "lockdown,capability",
             "/sys/kernel/security/lockdown": "none integrity [confidentiality]"}  # fmt: skip
    monkeypatch.setattr(os.path, "exists", lambda path: path in texts)
    monkeypatch.setattr(doctor, "read", texts.__getitem__)
    got = doctor._lsm()
    assert got.verdict == "fail" and "confidentiality" in got.found
    texts["/sys/kernel/security/lockdown"] = "none [integrity] confidentiality"
    assert doctor._lsm() == Finding("ok", "security modules", "lockdown,capability")


def test_a_policy_that_is_not_obeyed_is_told_with_the_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    assert doctor_instance.policy().verdict == "ok"
    (tmp_path / "policy.toml").write_text("shar = true\n")
    got = doctor_instance.policy()
    assert got.verdict == "fail" and "unknown key 'shar'" in got.found
    (tmp_path / "policy.toml").write_text("share = true\n")
    assert "owners may share" in doctor_instance.policy().found


def test_a_state_directory_that_cannot_be_is_told_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PERFKEEP_STATE", str(tmp_path / "not" / "there"))
    assert doctor_instance.state() == Finding(
        "ok", "state directory", str(tmp_path / "not" / "there")
    )
    monkeypatch.setattr(os, "access", lambda *_: False)
    got = doctor_instance.state()
    assert got.verdict == "fail" and "PERFKEEP_STATE" in got.cure


def test_a_definition_with_a_mistake_is_told_with_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    assert doctor_instance.definitions().found == f"none in {tmp_path}/recordings.d"
    (tmp_path / "recordings.d").mkdir()
    file = tmp_path / "recordings.d" / "one.toml"
    file.write_text('[recording.flight]\nevents = ["cpu-clock"]\n')
    assert doctor_instance.definitions() == Finding("ok", "definitions", "flight")
    file.write_text('[recording.flight]\nevents = ["cpu-clock"]\nrink = "1M"\n')
    got = doctor_instance.definitions()
    assert got.verdict == "fail" and "one.toml:3" in got.found and "perfkeep check" in got.cure


@pytest.mark.parametrize(
    ("there", "defined", "verdict", "says"),
    [
        ((), True, "ok", "systemd does not run here"),
        (("run",), False, "ok", "nothing is defined"),
        (("run",), True, "warn", "is not installed"),
        (("run", "unit"), True, "warn", "is not enabled"),
        (("run", "unit", "wants"), True, "ok", "starts what is defined"),
    ],
)
def test_definitions_that_will_not_start_at_boot_are_told_with_the_cure(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    there: tuple[str, ...],
    defined: bool,
    verdict: str,
    says: str,
) -> None:
    unit = "perfkeep-recordings.service"
    paths = {
        "run": "/run/systemd/system",
        "unit": f"/usr/local/lib/systemd/system/{unit}",
        "wants": f"/etc/systemd/system/sysinit.target.wants/{unit}",
    }
    present = {paths[one] for one in there}
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    monkeypatch.setattr("perfkeep.client.definitions.find", lambda: ["x.toml"] * defined)
    monkeypatch.setattr(os.path, "isdir", present.__contains__)
    monkeypatch.setattr(os.path, "exists", present.__contains__)
    got = doctor_instance.boot()
    assert got.verdict == verdict and says in got.found
    assert bool(got.cure) == (verdict == "warn")
