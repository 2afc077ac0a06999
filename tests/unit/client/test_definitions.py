"""Recordings that files define: what a file may say, and what is said of its mistakes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.cli.main import main
from perfkeep.client import definitions, opening, recording
from perfkeep.client.definition_keys import KEYS
from perfkeep.client.definitions import Definition, DefinitionError, parse
from perfkeep.client.recording import Recording
from perfkeep.errors import KernelRefused, UsageError
from perfkeep.kernel import tracefs

TRACEPOINTS = {"sched:sched_switch": 372, "sched:sched_wakeup": 374}


@pytest.fixture(autouse=True)
def _tracing(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two tracepoints."""
    folder = tmp_path_factory.mktemp("tracing")
    for name, number in TRACEPOINTS.items():
        event = folder / "events" / name.replace(":", "/")
        event.mkdir(parents=True)
        (event / "id").write_text(f"{number}\n")
        (event / "format").write_text(f"name: {name}\nID: {number}\nformat:\n")
    monkeypatch.setattr(tracefs, "PLACES", (str(folder),))


def one(body: str, events: str = 'events = ["cpu-clock"]') -> Definition:
    """A recording of one event, and what else its table says."""
    (found,) = parse(f"[recording.r]\n{events}\n{body}\n".encode(), "f")
    return found


def problems(text: str | bytes) -> list[str]:
    """The problems of a file, each as "LINE: words; hint"."""
    with pytest.raises(DefinitionError) as error:
        parse(text.encode() if isinstance(text, str) else text, "f")
    return [
        f"{problem.line}: {problem.text}{problem.hint and '; '}{problem.hint}"
        for problem in error.value.problems
    ]


# --- what a file may say --------------------------------------------------------------------------


def test_a_recording_needs_its_events_and_nothing_else() -> None:
    assert parse(b'[recording.r]\nevents = ["cpu-clock"]', "f") == [
        Definition("r", "f", 1, ("cpu-clock",))
    ]
    assert parse(b"", "f") == []


def test_every_key_is_read() -> None:
    assert one(
        'cpus = "0-1,3"\ncgroup = "/a"\nring = "64K"\ncall_graph = true\nowner = "root"\ngroup = 7\n'
        'mode = "0640"\nttl = "1h"\nspill = "/s"\nspill_every = "2s"\n'
        "sideband = false\nenable = false\noptional = true"
    ) == Definition(
        "r", "f", 1, ("cpu-clock",), (0, 1, 3), "/a", "64K", True, "root", 7, 0o640, "1h", "/s",
        "2s", False, False, True,
    )  # fmt: skip


def test_an_event_may_have_a_filter() -> None:
    events = 'events = ["cpu-clock", {event = "sched:sched_switch", filter = "prev_pid == 1"}]'
    assert one("", events).events == ("cpu-clock", ("sched:sched_switch", "prev_pid == 1"))


def test_a_file_may_define_several_in_any_way_that_toml_has() -> None:
    text = 'recording = {a = {events = ["cpu-clock"]}}\n'
    assert [found.name for found in parse(text.encode())] == ["a"]
    text = 'recording.a.events = ["cpu-clock"]\n[recording."b.c"]\nevents = ["cpu-clock"]\n'
    assert [(found.name, found.line) for found in parse(text.encode())] == [("a", 1), ("b.c", 2)]


def test_the_docstring_shows_every_key() -> None:
    shown = {line.split()[0] for line in (definitions.__doc__ or "").splitlines() if " = " in line}
    assert shown == {"events", *KEYS}


# --- what is wrong with a file --------------------------------------------------------------------


def test_all_problems_of_a_file_are_told_each_with_its_line() -> None:
    text = """\
[recording.flight]
events = [
  "sched:sched_switch",
  {event = "sched:sched_switch", filtr = "x"},
  "sched:sched_swich", "cpu-clock/freq=x/",
]
rign = "8M"
[recording.empty]
[recording."-x"]
events = []
"""
    assert problems(text) == [
        "4: unknown key 'filtr'; did you mean filter?",
        "5: 'freq=x' needs a number of up to 64 bits; write it like freq=100 or freq=0x64",
        "5: unknown event 'sched:sched_swich': no such tracepoint in 'sched'; did you mean "
        "sched:sched_switch?",
        "7: unknown key 'rign'; did you mean ring?",
        '8: empty has no events; add some: events = ["sched:sched_switch"]',
        "9: '-x' cannot be a recording's name: up to 64 letters, digits, _ . and - (not first), "
        "and not a number alone",
        '10: events is no list of at least one; write it like ["sched:sched_switch"]',
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cpus = 3", "cpus: 3 is not a string"),
        ('cpus = "3-1"', "runs backwards"),
        ('cgroup = ""', "cgroup: '' is not a string"),
        ('ring = "7M"', "power of two"),
        ('ring = "lots"', "'lots' is not a size"),
        ("ring = 8388608", "is not a string"),
        ('call_graph = "yes"', "neither true nor false"),
        ('owner = "nobody-of-that-name"', "no user"),
        ("owner = true", "owner: True is neither"),
        ("group = -1", "group: -1 is neither"),
        ("group = 4294967295", "neither"),
        (f"group = 0x{'f' * 5000}", "a very long number is neither"),
        ('mode = "0778"', "octal digits"),
        ('mode = "0700"', "has more"),
        ("mode = 0o640", 'mode: 416 is not a string; write it like "0640"'),
        ('ttl = "0s"', "ttl: '0s' is not"),
        ('ttl = "soon"', "not a time span"),
        (f'ttl = "{9**50}h"', "is not"),
        ('spill = "here"', "from / on"),
        ('spill = "/s\\u0000"', "not a string"),
        ('spill = "/s"\nspill_every = "1ms"', "between 100ms and 24h"),
        ('spill_every = "1s"', "spill must say where"),
        ("enable = 1", "neither true nor false"),
        ("name = 'x'", "did you mean"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_line(line: str, words: str) -> None:
    last = 3 + line.count("\n")
    (said,) = problems(f'[recording.r]\nevents = ["cpu-clock"]\n{line}\n')
    if words != "did you mean":
        assert said.startswith(f"{last}: ") and words in said
    else:
        assert said.startswith("3: unknown key 'name'")


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ('"cpu-clock"', "events is no list"),
        ("[3]", "an event is neither a string nor a table"),
        ('[{filter = "x"}]', "an event is neither a string nor a table"),
        ('[""]', "event: '' is not a string"),
        ('[{event = "sched:sched_switch", filter = 3}]', "filter: 3 is not a string"),
        ('[{event = "cpu-clock", filter = "x"}]', "needs a tracepoint"),
        ('["{cpu-clock"]', "no group of events"),
    ],
)
def test_events_that_make_no_sense_are_refused(events: str, words: str) -> None:
    (said,) = problems(f"[recording.r]\nevents = {events}")
    assert said.startswith("2: ") and words in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\n[recordings.x]", ["1: unknown key 'a'; there are recording",
                                   "2: unknown key 'recordings'; did you mean recording?"]),
        ("recording = 3", ["1: recording is no table; write [recording.NAME]"]),
        ("\n[recording]\nevents = []",
         ["3: recording.events is no table; write [recording.events]"]),
        ("a = 1\na = 2", ["2: Cannot overwrite a value"]),
        ("\n\na = [", ["3: Invalid value"]),
        (b"a = 1\n# \xff", ["2: this is not UTF-8"]),
        ("a = " + "[" * 5000 + "]" * 5000, ["0: this is nested too deeply"]),
    ],
)  # fmt: skip
def test_what_is_no_file_of_recordings_is_told_where(text: str | bytes, said: list[str]) -> None:
    assert problems(text) == said


def test_what_this_machine_lacks_is_no_mistake_of_the_file() -> None:
    found = one("", 'events = ["sched:sched_switch",\n "sched:nothing", "mce:*"]')
    assert [(m.spec, m.problem.line, m.certain) for m in found.missing] == [
        ("sched:nothing", 3, True),
        ("mce:*", 3, True),
    ]


def test_what_may_not_be_looked_up_is_not_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise KernelRefused(13, "not for you")

    monkeypatch.setattr(opening, "wanted", refuse)
    (missing,) = one("").missing
    assert not missing.certain and definitions.absent([one("")]) == []


KEY = st.sampled_from(["events", *KEYS, "event", "filter", "rign"])
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\'"), max_size=9)
WORD = st.sampled_from(["8M", "0640", "1h", "0-3", "root", "cpu-clock", "sched:*", "/x"]) | TEXT
ATOM = WORD.map("'{}'".format) | st.sampled_from(["true", "-1", "1.5", "07:32:00", "[]", "{}"])
VALUE = (
    ATOM
    | st.lists(ATOM, max_size=3).map(lambda them: f"[{', '.join(them)}]")
    | st.tuples(KEY, ATOM).map(lambda pair: f"[{{{pair[0]} = {pair[1]}}}]")
)
LINE = st.tuples(KEY, VALUE).map(" = ".join) | WORD.map("[recording.'{}']".format)


# With nothing wrong about it, unless it stands there twice.
TABLE = st.builds(
    "[recording.{}]\nevents = ['cpu-clock', {{event = 'sched:*'}}]\n{}".format,
    st.sampled_from("abcd"),
    st.sampled_from(["optional = true", "ring = '8M'", "owner = 0", "cpus = '0'"]),
)
FILE = st.lists(TABLE, max_size=3) | st.lists(TABLE | LINE, max_size=6)


@given(st.binary(max_size=60) | FILE.map("\n".join).map(str.encode))
def test_any_bytes_are_definitions_or_problems_with_lines_of_the_file(data: bytes) -> None:
    last = data.count(b"\n") + 1
    try:
        found = parse(data, "f")
    except DefinitionError as error:
        assert error.problems
        assert all(0 <= problem.line <= last and problem.text for problem in error.problems)
    else:
        assert all(1 <= one.line <= last and one.events for one in found)


# --- where they are -------------------------------------------------------------------------------


def test_a_directory_means_its_toml_files_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.toml", "a.toml", ".hidden.toml", "c.toml~", "d.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "masked.toml").symlink_to("/dev/null")
    expected = [str(tmp_path / "a.toml"), str(tmp_path / "b.toml")]
    assert definitions.find([str(tmp_path)]) == expected
    assert definitions.find(["other", str(tmp_path)]) == ["other", *expected]
    (tmp_path / "recordings.d").symlink_to(".")
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    assert [os.path.basename(path) for path in definitions.find()] == ["a.toml", "b.toml"]


def test_no_directory_defines_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    assert definitions.find() == []
    monkeypatch.delenv("PERFKEEP_CONFIG")
    assert definitions.directory() == "/etc/perfkeep/recordings.d"


def test_a_file_that_others_can_change_is_read_and_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.touch()
    path.chmod(0o666)
    assert definitions.read(str(path)) == []
    with pytest.raises(DefinitionError, match=r"(?s)a.toml: others than root and you .* chmod 644"):
        definitions.read(str(path), obeyed=True)


def test_a_file_that_cannot_be_read_is_a_problem_of_that_file(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as error:
        definitions.read(f"{tmp_path}/absent.toml")
    assert str(error.value) == f"{tmp_path}/absent.toml: No such file or directory"


# --- starting -------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `recording.start` is asked for."""
    asked: list[tuple[Any, ...]] = []

    def start(*arguments: Any, **options: Any) -> Recording:
        asked.append((*arguments, options))
        return Recording(arguments[0], ["a note"])

    monkeypatch.setattr(recording, "start", start)
    return asked


def test_what_a_file_leaves_open_is_left_to_start(started: list[tuple[Any, ...]]) -> None:
    made, notes = one('ring = "64K"\nmode = "0640"\nenable = false').start()
    assert made is not None and notes == ("a note",)
    options = {
        "call_chains": False, "enable": False, "sideband": True, "ring": "64K", "mode": 0o640,
    }  # fmt: skip
    assert started == [("r", ("cpu-clock",), options)]


def lacking(*absent: str) -> Any:
    """open_events of a machine that lacks some events."""

    class Nothing:
        def close(self) -> None:
            pass

    def open_events(wanted: list[opening.Wanted], *_: object) -> Nothing:
        for each in wanted:
            if each.event.name in absent:
                raise KernelRefused(2, f"no {each.event.name} here")
        return Nothing()

    return open_events


def test_an_optional_recording_goes_without_what_is_missing(
    started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "open_events", lacking("cycles"))
    text = 'events = ["cycles", {event = "sched:*", filter = "x"}, "mce:*"]'
    _, notes = one("optional = true", text).start()
    assert started[0][1] == (("sched:*", "x"),)
    assert notes == (
        "r goes without cycles: no cycles here",
        "r goes without mce:*: no tracepoint matches mce:*",
        "a note",
    )


def test_an_optional_recording_without_any_event_is_not_started(
    started: list[tuple[Any, ...]],
) -> None:
    made, notes = one("optional = true", 'events = ["mce:*"]').start()
    assert made is None and not started
    assert notes[-1] == "r has no event left and is not started"


def test_what_is_refused_for_another_reason_is_not_left_out(
    started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise KernelRefused(13, "not for you")

    monkeypatch.setattr(opening, "open_events", refuse)
    with pytest.raises(KernelRefused, match="not for you"):
        one("optional = true").start()
    assert not started


# --- perfkeep check -------------------------------------------------------------------------------


def test_check_says_ok_of_each_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.toml").write_text(
        '[recording.a]\nevents = ["cpu-clock"]\n'
        '[recording.b]\nevents = ["cpu-clock", "mce:*"]\noptional = true\n'
    )
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}/a.toml:4: warning: no tracepoint matches mce:*\na: ok\nb: ok\n"
    )


def test_check_prints_the_problems_of_all_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.toml").write_text("[recording.a]\n")
    (tmp_path / "b.toml").write_text('[recording.b]\nevents = ["mce:*"]\n')
    (tmp_path / "c.toml").write_text('\n[recording.b]\nevents = ["cpu-clock"]\n')
    assert main(["check", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{tmp_path}/a.toml:1: a has no events",
        'hint: add some: events = ["sched:sched_switch"]',
        f"{tmp_path}/b.toml:2: no tracepoint matches mce:*",
        f"{tmp_path}/c.toml:2: b is defined at {tmp_path}/b.toml:1 already",
    ]
    assert not err


def test_check_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no recordings are defined in {tmp_path}\n"


def test_a_definition_error_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^f:1: unknown key 'x'; there are recording$"):
        parse(b"x = 1", "f")
