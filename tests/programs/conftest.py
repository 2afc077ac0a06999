"""C programs that know nothing of perfkeep, compiled once and run under `perfkeep exec`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.program import EXEC, Launch, Program, compile_c

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the client, linked "dynamic" or "static"; compiled when it is first asked for."""
    folder = tmp_path_factory.mktemp("programs")

    def build(linked: str) -> Path:
        target = folder / linked
        if not target.exists():
            compile_c(HERE / "client.c", target, *(["-static"] if linked == "static" else []))
        return target

    return build


@pytest.fixture
def launch(instance: Path, built: Callable[[str], Path]) -> Iterator[Launch]:
    """Starts clients, under `perfkeep exec` unless told otherwise, and ends them."""
    running: list[Program] = []

    def start(linked: str = "dynamic", under: list[str] = EXEC) -> Program:
        running.append(Program([*under, str(built(linked))]))
        return running[-1]

    yield start
    for program in running:
        program.end()


@pytest.fixture
def client(launch: Launch) -> Program:
    return launch()
