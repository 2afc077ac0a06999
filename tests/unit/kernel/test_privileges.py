"""perfkeep.kernel.privileges: commands that work for this user, on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.kernel import privileges

WORDS = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1)


def there(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """Only these programs are installed, and the user is none of privilege."""
    known = {program: f"/usr/bin/{program}" for program in programs}
    monkeypatch.setattr(shutil, "which", lambda name, path=None: known.get(name))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@given(WORDS)
def test_each_way_to_become_root_gets_the_words_unchanged(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert shlex.split(privileges.as_root(*words)) == words
        there(patch, "sudo", "doas")
        assert shlex.split(privileges.as_root(*words)) == ["sudo", *words]
        there(patch, "doas")
        assert shlex.split(privileges.as_root(*words)) == ["doas", *words]
        there(patch)
        su, option, script = shlex.split(privileges.as_root(*words))
        assert (su, option, shlex.split(script)) == ("su", "-c", words)


@given(st.lists(st.text(st.sampled_from("a'\"$ \\;&")), min_size=1, max_size=4))
def test_several_commands_run_in_order_until_one_fails(texts: list[str]) -> None:
    steps = [["printf", "%s|", text] for text in texts]
    command = privileges.script_as_root(*steps, ["false"], ["printf", "never"])
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "".join(f"{text}|" for text in texts))
    with pytest.MonkeyPatch.context() as patch:
        there(patch)
        assert shlex.split(privileges.script_as_root(*steps, ["false"]))[:2] == ["su", "-c"]


def test_a_container_without_the_capability_is_offered_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(privileges, "status", lambda field: f"{1 << 14:x}")
    assert privileges.again_with("CAP_PERFMON") == ""


def test_the_groups_launcher_is_offered_where_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launcher = tmp_path / "with-perfmon"
    launcher.write_text("")
    monkeypatch.setattr(privileges, "LAUNCHER", str(launcher))
    assert not privileges.again_with("CAP_PERFMON").startswith(str(launcher))
    launcher.chmod(0o755)
    assert privileges.again_with("CAP_PERFMON").startswith(f"{launcher} --inh-caps=+perfmon ")
