"""What a program inherits through `perfkeep exec`: arguments, environment, signals, byte by byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import perfkeep
from perfkeep.testing.requirements import (
    compiler,
    perf_events,
    requires,
    root,
    seccomp_notification,
)
from support.commands import PERFKEEP
from support.program import EXEC, compile_c

pytestmark = requires(perf_events, compiler, seccomp_notification)

HERE = Path(__file__).parent


def output(command: list[str | bytes], **options: object) -> bytes:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, **options).stdout  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--x", "-5"],
        ["-5", "--since", "-1s"],
        ["--", "--", "-h", "--system", "--no-mount"],
        ["", b"\xff\xfe", "\n", "", "ä"],
    ],
)
@pytest.mark.parametrize("dashes", [["--"], []])
def test_arguments_reach_the_program_as_they_were_typed(
    instance: Path, arguments: list[str | bytes], dashes: list[str]
) -> None:
    plain = ["printf", "<%s>\n", *arguments]
    assert output([*PERFKEEP, "exec", *dashes, *plain]) == output(plain)


@requires(root)
def test_the_environment_reaches_the_program_entry_by_entry(instance: Path, tmp_path: Path) -> None:
    execute = str(compile_c(HERE / "execute.c", tmp_path / "execute"))
    look = ["/bin/cat", "/proc/self/environ"]
    plain = output([execute, *look])
    assert plain.startswith(b"A=1\0NOEQUALS\0A=2\0=odd\0")
    assert output([execute, *EXEC, *look]) == plain
    added = output([execute, *PERFKEEP, "exec", "--no-mount", "--", *look])
    assert added.startswith(plain) and added[len(plain) :].startswith(b"SYSFS_PATH=")


def test_a_script_without_an_interpreter_line_runs_in_a_shell(
    instance: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text('echo "shell $1"\n')
    script.chmod(0o755)
    assert output([*EXEC, str(script), "argument"]) == b"shell argument\n"


def test_modules_of_the_user_s_PYTHONPATH_do_not_replace_those_of_perfkeep(
    instance: Path, tmp_path: Path
) -> None:
    for name in ("argparse", "socket", "queue", "signal", "threading", "struct", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the user')")
    variable = {"PYTHONPATH": str(tmp_path)}
    done = output([*EXEC, "printenv", "PYTHONPATH"], env=os.environ | variable)
    assert done.decode().strip() == str(tmp_path)


@pytest.mark.parametrize("broker", ["running", "started by exec"])
def test_an_ignored_SIGCHLD_is_inherited_and_hinders_nothing(instance: Path, broker: str) -> None:
    if broker == "running":
        perfkeep.recordings()

    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    look = ["grep", "SigIgn", "/proc/self/status"]
    seen = [output([*before, *look], preexec_fn=ignore) for before in ([], EXEC)]
    assert seen[0] == seen[1] and int(seen[0].split()[1], 16) & 1 << signal.SIGCHLD - 1


def test_the_library_starts_a_broker_where_SIGCHLD_is_ignored(instance: Path) -> None:
    code = (
        "import signal, perfkeep; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "print(perfkeep.recordings())"
    )
    assert output([sys.executable, "-c", code]) == b"[]\n"


@pytest.mark.parametrize("name", ["PIPE", "XFSZ"])
def test_a_program_has_SIGPIPE_and_SIGXFSZ_at_their_defaults_unless_env_ignores_them(
    instance: Path, name: str
) -> None:
    """Documented: Python ignores both when it starts, and nothing remembers what was so before."""
    number = signal.Signals[f"SIG{name}"]
    look = ["grep", "SigIgn", "/proc/self/status"]
    again = ["env", f"--ignore-signal={name}"]

    def ignored(*command: str) -> bool:
        words = output([*again, *EXEC, *command])
        return bool(int(words.split()[1], 16) & 1 << number - 1)

    assert not ignored(*look)
    assert ignored(*again, *look)
