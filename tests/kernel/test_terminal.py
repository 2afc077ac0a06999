"""Ctrl-C, and locales that cannot show what is to be shown."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from perfkeep.testing.requirements import perf_events, requires
from support.commands import PERFKEEP, ours
from support.waiting import Eventually

pytestmark = requires(perf_events)

#: Bytes that are not UTF-8, and a letter that is not ASCII.
NAME = b"n\xff\xc3\xa9"
LOCALES = [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}]


@pytest.mark.parametrize("recording", [False, True])
def test_ctrl_c_ends_a_daemon_in_the_foreground_in_good_order(
    instance: Path, recording: bool, eventually: Eventually
) -> None:
    with subprocess.Popen(
        [*PERFKEEP, "daemon", "--foreground"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as daemon:  # fmt: skip
        eventually(instance.exists)
        if recording:
            ours("start", "flight", "-e", "cpu-clock", "-C", "0", "--ring", "64K")
        os.killpg(daemon.pid, signal.SIGINT)  # as a terminal does
        out, err = daemon.communicate(timeout=30)
    assert daemon.returncode == 0
    assert "Traceback" not in out + err
    assert not instance.exists()


@pytest.mark.parametrize("locale", LOCALES, ids=" ".join)
def test_a_name_that_the_locale_cannot_show_is_read_written_and_printed(
    instance: Path, tmp_path: Path, locale: dict[str, str]
) -> None:
    folder = os.fsencode(tmp_path)
    program, file = folder + b"/" + NAME, folder + b"/" + NAME + b".data"
    shutil.copy(b"/bin/sleep", program)
    environment = os.environ | locale
    with subprocess.Popen([program, "60"]) as process:
        try:
            verbs: list[list[bytes | str]] = [
                ["start", "flight", "-e", "cpu-clock/freq=999/", "-C", "0", "--ring", "64K"],
                ["snapshot", "flight", "-o", file],
                ["report", file],
                ["report", "--by", "comm", file],
                ["script", "-n", "3", file],
                ["export", "--to", "folded", "-o", file + b".folded", file],
                ["show", "flight"],
                ["status"],
                ["rm", "flight"],
            ]
            for words in verbs:
                done = subprocess.run(
                    [*PERFKEEP, *words],
                    env=environment,
                    capture_output=True,
                    timeout=60,
                    check=False,
                )
                assert (done.returncode, done.stderr) == (0, b""), words
            missing = subprocess.run(
                [*PERFKEEP, "report", b"./" + NAME + b".none"],
                env=environment, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            assert missing.returncode == 1
            assert b"No such file or directory" in missing.stderr
            assert b"Traceback" not in missing.stderr
        finally:
            process.kill()
    assert os.path.getsize(file)


def test_a_letter_that_the_locale_lacks_does_not_end_the_output(tmp_path: Path) -> None:
    """A file whose thread is called so; "?" stands for it."""
    code = (
        "import sys; from perfkeep.cli.main import main; import perfkeep.cli.status as status\n"
        "status.run = lambda options: print('caf\\u00e9') or 0\n"
        "sys.exit(main(['status']))\n"
    )
    done = subprocess.run(
        [PERFKEEP[0], "-c", code],
        env=os.environ | LOCALES[0],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"caf?\n", b"")
