"""A guest's whole path in root's default instance: as a member of the recording's group, as a stranger,
and as a user who has an instance of their own. Nothing names a socket or makes a directory.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from perfkeep.testing.requirements import (
    overlay,
    perf_events,
    perf_tool,
    requires,
    root,
    seccomp_notification,
)
from support.commands import PERFKEEP
from support.machine import GROUP, SYSTEM, USER, Machine, machine
from support.waiting import Eventually

pytestmark = requires(perf_events, perf_tool, root, seccomp_notification)

PERF_STAT = ("perf", "stat", "-x,", "-a", "-C", "0", "-e", "persistent/flight/", "true")
REOPEN = "import perfkeep; perfkeep.reopen({id}, 0, system=True).read(); print('ok')"


@pytest.fixture(scope="module")
def shared_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("stage")) as inside:
        yield inside


@pytest.fixture
def here(shared_machine: Machine) -> Iterator[Machine]:
    """The machine, with no recording of root's before or after."""
    yield shared_machine
    shared_machine.perfkeep("rm", "--all")


def start(here: Machine, mode: str, *options: str) -> None:
    """A recording on CPU 0 that keeps some samples, of group 50."""
    done = here.perfkeep(
        "start", "flight", "-e", "cpu-clock/freq=200/", "-C", "0", "--ring", "64K",
        "--group", GROUP, "--mode", mode, *options,
    )  # fmt: skip
    assert done.code == 0, done.err


def count(here: Machine) -> int:
    (event,) = here.perfkeep("stat", "flight", "--json").json["events"]
    return int(event["value"])


LOOKS: dict[str, tuple[str, ...]] = {
    "ls": ("ls", "--system"),
    "show": ("show", "--system", "flight"),
    "stat": ("stat", "--system", "flight"),
    "snapshot": ("snapshot", "--system", "flight", "-o", "/tmp/guest.data"),
    "script": ("script", "--system", "flight", "-n", "1"),
    "report": ("report", "--system", "flight"),
    "tail": ("tail", "--system", "flight", "-n", "1", "--for", "10ms"),
}


@pytest.mark.parametrize(
    ("mode", "groups"), [("0640", [GROUP]), ("0660", [GROUP]), ("0604", []), ("0606", [])]
)
def test_a_guest_with_r_sees_and_takes_snapshots(
    here: Machine, mode: str, groups: list[int]
) -> None:
    start(here, mode)
    for verb, words in LOOKS.items():
        done = here.perfkeep(*words, uid=USER, groups=groups)
        assert (done.code, done.err) == (0, ""), verb
        assert verb != "ls" or "flight" in done.out


def test_a_stranger_is_refused_with_the_mode(here: Machine) -> None:
    start(here, "0640")
    for verb, words in LOOKS.items():
        done = here.perfkeep(*words, uid=USER)
        assert "flight" not in done.out
        assert verb == "ls" or (done.code == 1 and "mode 0640" in done.err), verb


@pytest.mark.parametrize(
    ("mode", "groups", "reopens"),
    [("0660", [GROUP], True), ("0606", [], True), ("0640", [GROUP], False), ("0660", [], False)],
)
def test_a_guest_with_w_reopens(here: Machine, mode: str, groups: list[int], reopens: bool) -> None:
    start(here, mode)
    id = here.perfkeep("show", "flight", "--json").json["id"]
    done = here.python(REOPEN.format(id=id), uid=USER, groups=groups)
    assert (done.out == "ok\n") is reopens
    assert reopens or "mode 06" in done.err


@pytest.mark.parametrize(("mode", "groups"), [("0660", [GROUP]), ("0606", [])])
def test_stock_perf_counts_for_a_guest_with_w_and_stops_nothing(
    here: Machine, mode: str, groups: list[int]
) -> None:
    start(here, mode)
    before = count(here)
    done = here.perfkeep("exec", "--system", "--", *PERF_STAT, uid=USER, groups=groups)
    assert done.code == 0, done.err
    counted = float(done.err.split(",")[0])  # perf prints cpu-clock in ns, as it is
    assert before < counted <= count(here)
    after = count(here)
    assert count(here) > after


@pytest.mark.parametrize(("mode", "groups"), [("0640", [GROUP]), ("0660", [])])
def test_stock_perf_is_refused_by_itself_for_a_guest_without_w(
    here: Machine, mode: str, groups: list[int]
) -> None:
    start(here, mode)
    done = here.perfkeep("exec", "--system", "--", *PERF_STAT, uid=USER, groups=groups)
    assert done.code not in (0, 1, 126, 127)  # perf's own
    assert "perfkeep:" not in done.err


def test_what_a_program_under_exec_starts_talks_to_the_same_instance(here: Machine) -> None:
    start(here, "0604")
    done = here.perfkeep("exec", "--system", "--", "sh", "-c", "echo $PERFKEEP_SOCKET", uid=USER)
    assert done.out.strip() == SYSTEM


# --- what lies beside the socket -----------------------------------------------------------------


@pytest.mark.parametrize("umask", ["0022", "0077", "0000"])
def test_others_can_pass_through_the_directory_and_open_nothing_private(
    here: Machine, tmp_path_factory: pytest.TempPathFactory, umask: str
) -> None:
    with machine(tmp_path_factory.mktemp("stage")) as fresh:
        script = f'umask {umask}; exec "$@"'
        command = ["sh", "-c", script, "sh"]
        fresh.run(
            *command, *PERFKEEP, "start", "flight", "-e", "cpu-clock", "-C", "0", "--ring", "64K",
            "--mode", "0604",
        )  # fmt: skip
        modes = fresh.run("stat", "-c", "%a", "/run/perfkeep", SYSTEM, f"{SYSTEM}.devices").out
        assert modes.split() == ["711", "666", "755"]
        for path in ("/run/perfkeep", f"{SYSTEM}.lock", f"{SYSTEM}.log", "/var/lib/perfkeep",
                     "/var/log/perfkeep/audit.log"):  # fmt: skip
            read = fresh.run("sh", "-c", f"ls {path}/ || cat {path}", uid=USER)
            assert (read.code, read.out) == (1, ""), path
        written = fresh.run("sh", "-c", "echo > /run/perfkeep/x", uid=USER)
        assert written.code != 0


def test_the_view_is_open_while_something_is_shared_and_a_file_in_it_by_the_recording_s_mode(
    here: Machine,
) -> None:
    events = f"{SYSTEM}.devices/persistent/events"
    start(here, "0600")
    assert here.run("ls", events, uid=USER).code != 0
    here.perfkeep("chmod", "0640", "flight")
    assert here.run("ls", events, uid=USER).out == "flight\nflight.cpu_clock\n"
    assert here.run("cat", f"{events}/flight", uid=USER).code != 0
    assert here.run("cat", f"{events}/flight", uid=USER, groups=[GROUP]).code == 0


@requires(overlay)
def test_a_mounted_view_leaves_the_other_pmus_readable_for_everyone(here: Machine) -> None:
    devices = "/sys/bus/event_source/devices"
    start(here, "0600")
    before = here.run("ls", devices, uid=USER).out.split()
    assert here.perfkeep("mount").code == 0
    try:
        mounted = here.run("ls", devices, uid=USER).out.split()
        assert mounted == sorted([*before, "persistent"])
        software = here.run("cat", f"{devices}/software/type", uid=USER)
        assert software.out == "1\n"
    finally:
        here.perfkeep("umount")


# --- one's own instance and root's ---------------------------------------------------------------


def test_a_name_that_only_root_s_instance_has_is_pointed_out_and_the_hint_works(
    here: Machine,
) -> None:
    start(here, "0604")
    for words in (("show", "flight"), ("stat", "flight"), ("snapshot", "flight"), ("tail", "flight"),
                  ("report", "flight"), ("script", "flight"), ("rm", "flight")):  # fmt: skip
        done = here.perfkeep(*words, uid=USER)
        assert done.code == 1, words
        assert re.search(r"^hint: .*--system", done.err, re.MULTILINE), words
    assert "perfkeep ls --system" in here.perfkeep("ls", uid=USER).err
    assert "flight" in here.perfkeep("ls", "--system", uid=USER).out


def test_a_user_without_the_capability_sees_what_doctor_has_root_share(here: Machine) -> None:
    findings = here.perfkeep("doctor", "--json", uid=USER).json
    finding = next(finding for finding in findings if finding["what"] == "the whole machine")
    if finding["verdict"] == "ok":
        pytest.skip("every user records the whole machine")
    share = next(cure for cure in finding["others"] if " --group " in cure)
    command = shlex.split(share)
    words = shlex.split(command[2]) if command[:2] == ["su", "-c"] else command[1:]
    concrete = {"NAME": "flight", "EVENT": "cpu-clock/freq=200/"}
    done = here.run(*(concrete.get(word, word) for word in words))
    assert done.code == 0, (share, done.err)
    assert "flight" in here.perfkeep("ls", "--system", uid=USER).out
    looked = here.perfkeep("stat", "--system", "flight", uid=USER)
    assert looked.code == 0, looked.err


def test_a_name_that_a_user_may_not_see_is_not_pointed_out(here: Machine) -> None:
    start(here, "0640")
    assert "--system" not in here.perfkeep("show", "flight", uid=USER).err
    assert "--system" not in here.perfkeep("ls", uid=USER).err


def test_without_an_instance_of_root_s_or_anything_shared_a_guest_is_told_so(
    here: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with machine(tmp_path_factory.mktemp("stage")) as fresh:
        done = fresh.perfkeep("ls", "--system", uid=USER)
        assert (done.code, done.out) == (1, "")
        assert "no broker answers at /run/perfkeep/perfkeep.sock" in done.err
        assert not fresh.daemons()
    start(here, "0600")
    done = here.perfkeep("ls", "--system", uid=USER)
    assert (done.code, done.out) == (1, "")
    assert "which shares no recording" in done.err


def test_a_mode_that_cannot_hold_is_refused_with_the_directory_that_is_closed(
    here: Machine,
) -> None:
    words = [*PERFKEEP, "start", "mine", "-e", "task-clock/freq=99/u", "--ring", "16K", "-p"]
    own = ["sh", "-c", f"{shlex.join(words)} $$ $0"]
    refused = here.run(*own, "--mode=0640", uid=USER)
    assert refused.code == 1
    assert "no other user can reach this instance" in refused.err
    assert "/run/user/65534, which has mode 0700" in refused.err
    started = here.run(*own, "--mode=0600", uid=USER)
    assert started.code == 0, started.err
    try:
        refused = here.perfkeep("chmod", "0604", "mine", uid=USER)
        assert refused.code == 1
        assert "no other user can reach this instance" in refused.err
    finally:
        assert here.perfkeep("rm", "mine", uid=USER).code == 0


def test_root_is_told_how_to_let_others_reach_a_socket_elsewhere_and_it_helps(
    here: Machine,
) -> None:
    here.run("mkdir", "-m", "700", "/run/elsewhere")
    words = ("start", "flight", "-e", "cpu-clock", "-C", "0", "--ring", "64K", "--mode", "0604")
    socket = "/run/elsewhere/s"
    refused = here.perfkeep(*words, PERFKEEP_SOCKET=socket)
    assert refused.code == 1
    hint = refused.err.splitlines()[-1].removeprefix("hint: ")
    assert here.run("sh", "-c", hint).code == 0
    try:
        assert here.perfkeep(*words, PERFKEEP_SOCKET=socket).code == 0
        assert "flight" in here.perfkeep("ls", uid=USER, PERFKEEP_SOCKET=socket).out
    finally:
        here.perfkeep("rm", "--all", PERFKEEP_SOCKET=socket)


def test_a_stranger_s_socket_at_the_place_of_one_s_own_is_not_talked_to(
    here: Machine, eventually: Eventually
) -> None:
    squatter = (
        "import os, socket\n"
        "os.mkdir('/tmp/perfkeep-4242', 0o755)\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind('/tmp/perfkeep-4242/perfkeep.sock')\n"
        "os.chmod('/tmp/perfkeep-4242/perfkeep.sock', 0o777)\n"
        "listener.listen()\n"
        "if not os.fork():\n"
        "    os.close(1), os.close(2)\n"
        "    listener.settimeout(30)\n"
        "    got = listener.accept()[0].recv(100)\n"
        "    open('/tmp/got', 'wb').write(got)\n"
    )
    assert here.python(squatter, uid=USER).code == 0
    done = here.perfkeep("ls", uid=4242, XDG_RUNTIME_DIR="")
    assert done.code == 1
    assert "is served by uid 65534, and not by you or root" in done.err
    eventually(lambda: here.run("test", "-e", "/tmp/got").code == 0)
    assert here.run("cat", "/tmp/got").out == ""
