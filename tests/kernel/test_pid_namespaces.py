"""A pid of another PID namespace: the right process is followed, or the recording is refused."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

import perfkeep
from perfkeep.cli.main import main
from perfkeep.client.adopt import adopt
from perfkeep.errors import BrokerError, PerfkeepError, UsageError
from perfkeep.kernel.pids import pid_namespace
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root, tracefs
from perfkeep.wire import messages
from support.caller import CALLS, Callers
from support.commands import PERFKEEP
from support.instance import names
from support.waiting import Eventually

pytestmark = [requires(perf_events, tracefs, root), pytest.mark.usefixtures("running")]

INSIDE = ["unshare", "--pid", "--fork", "--kill-child"]


def in_namespace(
    script: str, *, own_proc: bool = True, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a shell script as pid 1 of a PID namespace; $PERFKEEP is the command line."""
    command = [
        *INSIDE,
        *(["--mount-proc"] if own_proc else []),
        "sh",
        "-c",
        textwrap.dedent(script),
    ]
    environment = {**os.environ, "PERFKEEP": " ".join(PERFKEEP), **variables}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_pid_of_a_container_is_refused_by_a_broker_outside() -> None:
    names()  # the broker is outside
    done = in_namespace("sleep 60 & $PERFKEEP start x -e page-faults --ring 64K -p $!")
    assert done.returncode == 1 and "another PID namespace" in done.stderr
    assert "hint: " in done.stderr and "NSpid" in done.stderr
    assert names() == []


def test_a_pid_of_outside_is_refused_by_a_broker_in_a_container(
    tmp_path: Path, caller: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "inside" / "s"
    script = "$PERFKEEP start held -e dummy -C 0 --ring 64K && echo ready && read line"
    environment = {**os.environ, "PERFKEEP": " ".join(PERFKEEP), "PERFKEEP_SOCKET": str(socket)}
    command = [*INSIDE, "--mount-proc", "sh", "-c", script]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as container:
        assert container.stdout is not None
        while (line := container.stdout.readline().strip()) != "ready":
            assert line, "the container did not start its recording"
        monkeypatch.setenv("PERFKEEP_SOCKET", str(socket))
        with pytest.raises(BrokerError, match="another PID namespace"):
            perfkeep.start("x", ["page-faults"], pid=caller().pid, ring="64K")
        assert names() == ["held"]
        container.communicate("\n")


def test_a_container_with_an_instance_of_its_own_follows_its_own_process(tmp_path: Path) -> None:
    done = in_namespace(
        f"""
        $PERFKEEP start own -e {CALLS} --ring 64K -p $$ >&2 || exit 1
        for i in 1 2 3; do nice >&2; done
        $PERFKEEP stat own --json
        """,
        PERFKEEP_SOCKET=str(tmp_path / "own"),
    )
    assert done.returncode == 0, done.stderr
    # nice(1) asks for its priority, and nothing else here does.
    assert json.loads(done.stdout)["events"][0]["value"] == 3


def test_a_pid_is_refused_where_proc_shows_those_of_another_namespace(caller: Callers) -> None:
    one = caller()
    script = f"$PERFKEEP start x -e page-faults --ring 64K -p {one.pid}"
    done = in_namespace(script, own_proc=False)
    assert done.returncode != 0
    assert "/proc shows the processes of another PID namespace" in done.stderr
    assert "unshare --mount-proc perfkeep" in done.stderr
    assert names() == []


def test_the_hint_about_proc_makes_the_recording_possible(tmp_path: Path) -> None:
    done = in_namespace(
        """
        sleep 60 &
        unshare --mount-proc $PERFKEEP start own -e page-faults --ring 64K -p $! >&2 || exit 1
        $PERFKEEP show own --json
        """,
        own_proc=False,
        PERFKEEP_SOCKET=str(tmp_path / "own"),
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["target"]["pids"]) == 1


def test_events_of_another_namespace_do_not_join(caller: Callers) -> None:
    one = caller()
    perfkeep.start("x", ["page-faults"], pid=one.pid, ring="64K")
    done = in_namespace(f"$PERFKEEP add x -e {CALLS}")
    assert done.returncode != 0 and "another PID namespace" in done.stderr
    assert [event.event for event in perfkeep.Recording("x").info.events] == ["page-faults"]


def test_what_would_be_opened_again_is_checked_as_well() -> None:
    from perfkeep.client import opening

    other = messages.Target(pids=[os.getpid()], pid_namespace=pid_namespace() + 1)
    with pytest.raises(UsageError, match="another PID namespace"), opening.tasks(other):
        pass


def test_what_a_container_does_not_see_has_no_name_of_another_task(
    tmp_path: Path, caller: Callers, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel gives tasks outside of the namespace the pid of the idle task."""
    outside = caller()
    path = tmp_path / "copy.data"
    with outside.calling(every_us=1000):
        done = in_namespace(
            f"""
            $PERFKEEP start own -e {CALLS} --ring 1M || exit 1
            nice >&2; sh -c nice >&2
            $PERFKEEP snapshot own -o {path} || exit 1
            """,
            PERFKEEP_SOCKET=str(tmp_path / "own"),
        )
    assert done.returncode == 0, done.stderr
    assert "samples of tasks outside of it have the pid 0" in done.stderr
    data = perfkeep.read(str(path))
    assert {sample.comm for sample in data.samples() if sample.pid == 0} == {":0"}
    inside = {sample.comm for sample in data.samples() if sample.pid != 0}
    assert inside <= {"nice", ":-1"}, inside
    assert any("recorded in a PID namespace of its own" in text for text in data.complaints())
    assert main(["report", str(path)]) == 0
    printed = capsys.readouterr()
    assert "recorded in a PID namespace of its own" in printed.err
    (row,) = [
        line for line in printed.out.splitlines() if f" {outside.pid} " in line or " 0 " in line
    ]
    assert row.split()[:2] == [":0", "0"]


@requires(perf_tool)
def test_events_that_a_container_opened_get_no_names_of_tasks_outside(
    tmp_path: Path, caller: Callers, eventually: Eventually
) -> None:
    """Adopted outside, where /proc and a sideband have other pids."""
    task = caller()
    script = f"exec perf record -q -a -e {CALLS} -o {tmp_path / 'perf.data'}"
    with subprocess.Popen([*INSIDE, "--mount-proc", "sh", "-c", script]) as unshare:
        try:
            recordings: list[perfkeep.Recording] = []

            def adopted() -> bool:
                children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text()
                for pid in map(int, children.split()):
                    with suppress(PerfkeepError):
                        recordings.append(adopt(pid, "inner"))
                return bool(recordings)

            eventually(adopted)
            assert any("pids of another PID namespace" in note for note in recordings[0].notes)

            def names_of_tasks_outside() -> set[str | None]:
                task.ask("call", 1)
                with recordings[0].snapshot() as snapshot:
                    return {sample.comm for sample in snapshot.tables().samples() if not sample.pid}

            eventually(lambda: bool(names_of_tasks_outside()))
            assert names_of_tasks_outside() == {":0"}
            with pytest.raises(UsageError, match="pids of another PID namespace"):
                recordings[0].add("page-faults")
        finally:
            unshare.kill()
