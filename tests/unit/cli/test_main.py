"""The command line without a broker: what is loaded, and how errors become exit codes."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from perfkeep.cli import main as cli
from perfkeep.cli.main import VERBS, main, parser
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
    assert out == "" and err.startswith("perfkeep: ") and says in err and err.count("\n") == 1


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


def test_ls_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys; from perfkeep.cli.main import parser; parser('ls');"
        "print([m for m in ('numpy', 'asyncio', 'ctypes', 'perfkeep.events',"
        " 'perfkeep.abi.perf_event', 'perfkeep.formats', 'subprocess', 'json')"
        " if m in sys.modules])"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "[]"
