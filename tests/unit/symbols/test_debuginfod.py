"""perfkeep.symbols.debuginfod: files come from the servers that the environment names, and no others."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("numpy")

from perfkeep.symbols import debuginfod
from perfkeep.symbols.build_id import of_file
from perfkeep.symbols.elf import image
from perfkeep.symbols.identity import Identity

SOURCE = (
    "static __attribute__((noinline)) int hidden(int x) { return x * 7; }\n"
    "int main(int count, char **words) { return hidden(count); }\n"
)


class Served(NamedTuple):
    """A stripped program, and a server that has what was stripped.

    Attributes:
        files: what it has, by the path in the URL.
        asked: these paths.
    """

    program: Path
    build_id: str
    files: dict[str, bytes]
    asked: list[str]
    cache: Path


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    if not all(map(shutil.which, ("cc", "objcopy", "strip"))):
        pytest.skip("no compiler, or no binutils")
    (tmp_path / "x.c").write_text(SOURCE)
    program, debug = tmp_path / "x", tmp_path / "debug"
    for command in (
        ["cc", "-O1", "-g", f"-Wl,--build-id=0x{'5a' * 20}", "-o", program, tmp_path / "x.c"],
        ["objcopy", "--only-keep-debug", program, debug],
        ["strip", program],
    ):
        subprocess.run([str(word) for word in command], check=True)
    build_id = of_file(str(program).encode())
    assert build_id is not None
    files = {f"/buildid/{build_id.hex()}/debuginfo": debug.read_bytes()}
    debug.unlink()
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = files.get(self.path)
            if body == b"no HTTP":
                self.wfile.write(b"this is no HTTP at all\r\n\r\n")
                return
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("DEBUGINFOD_URLS", f"nonsense http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
        debuginfod._fetched.cache_clear()
        try:
            yield Served(program, build_id.hex(), files, asked, tmp_path / "cache")
        finally:
            server.shutdown()
            thread.join()


def names(path: Path, build_id: str = "") -> list[str | None]:
    symbols = image(str(path), Identity(build_id)).symbols
    return symbols.names_of(symbols.starts)


def test_what_was_stripped_comes_from_a_server_once(served: Served) -> None:
    for _ in range(2):
        assert "hidden" in names(served.program)
    assert served.asked == [f"/buildid/{served.build_id}/debuginfo"]
    assert (served.cache / served.build_id / "debuginfo").is_file()


def test_who_watches_is_told_how_far_it_is_and_when_it_is_done(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(debuginfod, "watch", told.append)
    names(served.program)
    assert told[0].startswith(f"getting what names functions of {served.build_id[:12]}, 0.0 MiB")
    assert told[-1] == "" and told.count("") == 1


def test_a_program_that_is_gone_comes_from_a_server(served: Served) -> None:
    served.files[f"/buildid/{served.build_id}/executable"] = served.program.read_bytes()
    served.program.unlink()
    assert "hidden" in names(served.program, served.build_id)


@pytest.mark.parametrize("wrong", ["404", "another build", "too much", "rubbish", "no HTTP"])
def test_what_is_not_the_file_that_was_asked_for_is_not_taken(
    served: Served, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/buildid/{served.build_id}/debuginfo"
    if wrong == "404":
        del served.files[path]
    elif wrong == "too much":
        monkeypatch.setenv("DEBUGINFOD_MAXSIZE", "1000")
    else:
        other = served.files[path].replace(b"\x5a" * 20, b"\x5b" * 20)
        served.files[path] = other if wrong == "another build" else wrong.encode()
    for _ in range(2):
        assert "hidden" not in names(served.program)
    assert served.asked == [path]
    assert not [one for one in served.cache.rglob("*") if one.is_file()]


def test_nobody_is_asked_unless_the_environment_says_so(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEBUGINFOD_URLS")
    assert "hidden" not in names(served.program)
    served.program.unlink()
    with pytest.raises(FileNotFoundError):
        image(str(served.program), Identity(served.build_id))
    assert not served.asked


def test_a_server_that_is_not_there_is_no_error(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEBUGINFOD_URLS", "http://127.0.0.1:9")
    assert "hidden" not in names(served.program)


def test_a_build_id_that_is_none_goes_to_nobody(served: Served) -> None:
    for bad in ("", "../../etc", "ab", "5A" * 20, "5a" * 20 + "/.."):
        assert debuginfod.fetch("debuginfo", bad) == ""
    assert not served.asked
