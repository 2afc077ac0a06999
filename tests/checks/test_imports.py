"""Which room may import which: the contracts in pyproject.toml, and what really gets loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"

#: All that a keeper may ever have in memory of perfkeep: `errors` to raise, an owner for fds, a
#: way to start a broker, and the packets between the two.
KEEPER_MAY = {
    "perfkeep",
    "perfkeep.errors",
    "perfkeep.keeper",
    "perfkeep.keeper.service",
    "perfkeep.keeper.shelf",
    "perfkeep.kernel",
    "perfkeep.kernel.fd",
    "perfkeep.kernel.spawn",
    "perfkeep.wire",
    "perfkeep.wire.packets",
}


def loaded_by(statement: str, *options: str) -> set[str]:
    """The modules in memory of a fresh Python once it has run `statement`."""
    program = f"import sys; sys.path.insert(0, {str(SRC)!r}); {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{statement}:\n{done.stderr}", pytrace=False)
    return set(done.stdout.split())


def test_the_import_contracts_are_kept() -> None:
    program = "from importlinter.cli import lint_imports_command as main; main(['--no-cache'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"lint-imports:\n{done.stdout}{done.stderr}", pytrace=False)


def test_the_keeper_loads_the_standard_library_and_its_own_few_modules_only() -> None:
    # -S: there are no site-packages, so whatever loads is the standard library or ours.
    loaded = loaded_by("import perfkeep.keeper.service", "-I", "-S")
    ours = {name for name in loaded if name.partition(".")[0] == "perfkeep"}
    assert ours <= KEEPER_MAY, f"the keeper loads {sorted(ours - KEEPER_MAY)} as well"


def test_the_broker_loads_neither_numpy_nor_asyncio() -> None:
    loaded = loaded_by("import perfkeep.broker.daemon")
    heavy = loaded & {"numpy", "asyncio", "elftools", "argparse"}
    assert not heavy, f"the broker loads {sorted(heavy)}, and keeps them for as long as it lives"


def test_import_perfkeep_loads_nothing_else() -> None:
    loaded = loaded_by("import perfkeep", "-I", "-S")
    assert {name for name in loaded if name.startswith("perfkeep")} == {"perfkeep"}


def test_the_command_line_is_loaded_without_numpy_and_asyncio() -> None:
    loaded = loaded_by("import perfkeep.cli.main")
    assert not loaded & {"numpy", "asyncio", "elftools", "nanoarrow", "duckdb"}
