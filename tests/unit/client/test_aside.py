"""perfkeep.client.aside: a file appears whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from perfkeep.client.aside import AsideFile
from perfkeep.errors import PerfkeepError


def test_the_file_is_not_there_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with AsideFile(str(path)) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_file_of_that_name_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with path.open("rb") as reader, AsideFile(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        before = os.fstat(reader.fileno()).st_ino
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half-way"), AsideFile(str(path)) as file:
        file.write(b"new")
        raise RuntimeError("half-way")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_without_clobber_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(PerfkeepError, match="exists already") as caught:
        AsideFile(str(path), clobber=False)
    assert caught.value.errno == errno.EEXIST
    assert path.read_bytes() == b"old"


def test_without_clobber_a_file_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with (
        pytest.raises(PerfkeepError, match="exists already"),
        AsideFile(str(path), clobber=False) as file,
    ):
        file.write(b"new")
        path.write_bytes(b"quicker")
    assert path.read_bytes() == b"quicker"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_without_clobber_a_new_file_appears(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with AsideFile(str(path), clobber=False) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_link_that_leads_nowhere_counts_as_existing(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.symlink_to("nowhere")
    with pytest.raises(PerfkeepError) as caught:
        AsideFile(str(path), clobber=False)
    assert caught.value.errno == errno.EEXIST


@pytest.mark.parametrize(
    ("path", "number"), [("missing/out", errno.ENOENT), ("inner", errno.EISDIR)]
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, path: str, number: int) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(PerfkeepError, match=path) as caught:
        AsideFile(f"{tmp_path}/{path}")
    assert caught.value.errno == number


def test_a_full_disk_is_told_in_words_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(PerfkeepError, match=r"disk is full.*nothing was written") as caught,
        AsideFile(f"{tmp_path}/out"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_behind_a_link_the_file_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to("there/file")
    with AsideFile(str(tmp_path / "link")) as out:
        out.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"


def test_a_device_is_not_replaced_by_a_file() -> None:
    with pytest.raises(PerfkeepError, match="is no file"):
        AsideFile("/dev/null")
    assert not Path("/dev/null").is_file()
