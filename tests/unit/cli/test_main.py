"""The command line without a broker: what is loaded, and how errors become exit codes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.cli import main as cli
from perfkeep.cli.main import VERBS, _joined, main, parser
from perfkeep.errors import BrokerError, UsageError


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(arguments: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", run)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (BrokerError(errno.ENOENT, "there is no recording named 'x'"), 1, "no recording named 'x'"),
        (UsageError("'9Q' is not a size"), 2, "'9Q' is not a size"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), 1, "/x: No such file"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    code: int,
    says: str,
) -> None:
    fail_with(monkeypatch, error)
    assert main(["ls"]) == code
    out, err = capsys.readouterr()
    *usage, sentence = err.splitlines()
    assert out == "" and sentence.startswith("perfkeep: ") and says in sentence
    assert bool(usage) is (code == 2)


def test_a_hint_is_a_line_of_its_own_below_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, BrokerError(errno.ENOENT, "no recording 'x'", hint="perfkeep ls"))
    assert main(["ls"]) == 1
    assert capsys.readouterr().err == "perfkeep: no recording 'x'\nhint: perfkeep ls\n"


def test_an_interrupt_ends_as_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["ls"]) == 130


@pytest.mark.parametrize("words", [[], ["nonsense"], ["ls", "--nonsense"], ["show"]])
def test_what_is_not_understood_exits_with_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: perfkeep" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser(verb).parse_args([verb, "--help"])
    assert ended.value.code == 0
    assert VERBS[verb][1][1:] in " ".join(capsys.readouterr().out.split())


def test_a_filter_belongs_to_the_event_before_it() -> None:
    options = parser("start").parse_args(
        ["start", "n", "-e", "a:b", "--filter", "x > 1", "-e", "c:d"]
    )
    assert options.events == [("a:b", "x > 1"), ("c:d", None)]


def test_a_filter_without_an_event_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("start").parse_args(["start", "n", "--filter", "x > 1"])
    assert "behind the -e" in capsys.readouterr().err


def test_a_process_and_a_cgroup_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("start").parse_args(["start", "n", "-e", "a", "-p", "1", "--cgroup", "/x"])
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["-10s", "-0.5s", "-5"])
def test_a_moment_may_begin_with_a_minus(moment: str) -> None:
    options = parser("snapshot").parse_args(["snapshot", "n", "--since", moment, "-o", "-"])
    assert (options.since, options.output) == (moment, "-")


@given(st.lists(st.text("-=019s", max_size=4)))
def test_nothing_but_negative_values_is_joined(words: list[str]) -> None:
    joined = _joined(words)
    assert len(joined) <= len(words)
    if not any(word[:1] == "-" and word[1:2].isdecimal() for word in words):
        assert joined == words


@pytest.mark.parametrize("name", ["", "x" * 65])
@pytest.mark.parametrize("verb", ["show", "stat", "claim", "snapshot", "enable"])
def test_no_recording_can_have_that_name(
    verb: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, name]) == 2
    assert f"this one has {len(name)}" in capsys.readouterr().err


def test_what_is_not_utf8_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"))
    assert main(["show", "a\udcff"]) == 2
    assert capsys.readouterr().err.endswith("\nperfkeep: 'a?' is not UTF-8\n")


def run_ls(setup: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """`perfkeep ls` in a process of its own, with one recording and no broker."""
    code = (
        "import os, sys\n"
        "from perfkeep.cli.main import main\n"
        "from perfkeep.client import recording\n"
        "from perfkeep.wire.messages import EventInfo, Owner, RecordingInfo, Ring, Target\n"
        "info = RecordingInfo('n', 1, 'running', 0, Owner(0, 0, 1, 'c'), 0o600, 0,\n"
        "    Ring('backward', 4096), Target(), [EventInfo(1, 'cpu-clock', [0])])\n"
        "recording.infos = lambda: [info] * 9999\n"
    )
    return subprocess.run([sys.executable, "-c", code + setup], stderr=subprocess.PIPE, **options)


def test_a_closed_stdout_is_no_reason_to_fail() -> None:
    got = run_ls("sys.exit(main(['ls']))", preexec_fn=lambda: os.close(1))
    assert (got.returncode, got.stderr) == (0, b"")


def test_the_number_of_a_closed_stream_is_not_given_to_another_file() -> None:
    setup = "main(['ls']); sys.exit(os.open('/dev/null', 0) > 2)"
    got = run_ls(setup, preexec_fn=lambda: os.closerange(0, 2))
    assert (got.returncode, got.stderr) == (1, b"")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        got = run_ls("sys.exit(main(['ls']))", stdout=write_end)
    finally:
        os.close(write_end)
    assert (got.returncode, got.stderr) == (0, b"")


def test_a_full_stdout_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        got = run_ls("sys.exit(main(['ls']))", stdout=full)
    assert got.returncode != 0 and got.stderr.startswith(b"perfkeep: No space left on device\n")


def test_listing_loads_nothing_heavy_from_beginning_to_end() -> None:
    heavy = ["numpy", "asyncio", "dataclasses", "ctypes", "json", "subprocess", "perfkeep.events",
             "perfkeep.abi.perf_event", "perfkeep.formats", "perfkeep.records"]  # fmt: skip
    setup = f"main(['ls']); sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or 0)"
    got = run_ls(setup, stdout=subprocess.PIPE)
    assert (got.returncode, got.stderr) == (0, b"") and b"cpu-clock" in got.stdout
