"""The package as others get it: built from a copy of the tree, installed into a fresh Python.

Needs uv, which `make setup` puts into .tools.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from perfkeep.testing.requirements import Need, compiler, requires

ROOT = Path(__file__).parents[2]
UV = ROOT / ".tools/bin/uv"
LIMIT_BYTES = 15_000_000

uv_tool = Need("uv", lambda: None if UV.exists() else f"there is no {UV}: run make setup")
pytestmark = requires(uv_tool)

#: What the rooms hold is shipped whole.
PACKAGED = sorted(
    str(path.relative_to(ROOT / "src"))
    for path in (ROOT / "src/perfkeep").rglob("*.py")
    if "__pycache__" not in path.parts
)


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def run(*command: str | Path, **environment: str) -> str:
    """The command's output. Its Python is the one that runs the tests."""
    settings = {"UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": sys.executable, **environment}
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"} | settings
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


def build(to: Path, **environment: str) -> Path:
    """The wheel of a source distribution of a copy of the tree: nothing lands in the tree, and
    what the source distribution lacks, the wheel lacks too."""
    tree = to / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", ".mypy_cache")
    shutil.copytree(ROOT / "src", tree / "src", ignore=unwanted)
    run(UV, "build", "--quiet", tree, "--out-dir", to / "dist", **environment)
    (wheel,) = (to / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, to: Path) -> Path:
    """A plain install with the dependencies' locked versions; gives the new Python."""
    locked = run(UV, "export", "--frozen", "--no-dev", "--no-emit-project", "--project", ROOT)
    (to / "locked.txt").write_text(locked)
    run(UV, "venv", "--quiet", to / "venv")
    python = to / "venv/bin/python"
    run(UV, "pip", "install", "--quiet", "--python", python, "-r", to / "locked.txt")
    run(UV, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    return python


def site_packages(python: Path) -> str:
    return run(python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("plain"))


def test_the_wheel_has_every_module_its_types_and_its_licence(wheel: Path) -> None:
    names = contents(wheel)
    assert not set(PACKAGED) - set(names)
    assert "perfkeep/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/", "chaos/"))]


@requires(compiler)
def test_one_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    assert "-cp311-abi3-linux" in wheel.name
    assert "perfkeep/records/_walk.abi3.so" in contents(wheel)


def test_the_metadata_says_what_is_needed(python: Path) -> None:
    (metadata,) = Path(site_packages(python)).glob("perfkeep-*.dist-info/METADATA")
    text = metadata.read_text()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.11" in text
    assert "Provides-Extra: analysis" in text and "Provides-Extra: web" in text


def test_a_plain_install_has_under_15_megabytes(python: Path) -> None:
    site = Path(site_packages(python))
    sizes: dict[str, int] = {}
    for path in site.rglob("*"):
        if path.is_file():
            part = path.relative_to(site).parts[0]
            sizes[part] = sizes.get(part, 0) + path.stat().st_size
    assert sum(sizes.values()) < LIMIT_BYTES, sizes


def test_a_plain_install_imports_and_has_its_command(python: Path) -> None:
    names = run(python, "-I", "-c", "import perfkeep; print(perfkeep.__file__)")
    assert Path(names.strip()).is_relative_to(python.parents[1])
    assert "usage: perfkeep" in run(python.with_name("perfkeep"), "--help")


#: What the extra `analysis` is for.
ANALYSIS = (
    "analysis/", "client/data_set.py", "client/following.py", "client/look.py", "formats/arrow.py",
    "formats/arrow_array.py", "formats/arrow_stream.py", "records/cells.py", "records/columns.py",
    "records/names.py", "records/parts.py", "records/raw.py", "records/tasks.py", "records/timeline.py",
    "symbols/elf.py", "symbols/jitdump.py", "symbols/perf_map.py", "symbols/table.py", "symbols/vdso.py",
)  # fmt: skip


def test_a_plain_install_asks_for_the_extra_of_nothing_it_does(python: Path) -> None:
    # Every module of the core can be loaded with the plain dependencies. `testing` may want more,
    # and what makes columns wants the extra.
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in PACKAGED
        if not name.endswith("__main__.py") and "/testing/" not in name
        if not name.removeprefix("perfkeep/").startswith(ANALYSIS)
    ]
    run(python, "-I", "-c", "".join(f"import {name}\n" for name in modules))


def test_without_a_compiler_the_install_succeeds_and_the_pure_walk_passes_the_same_tests(
    tmp_path: Path,
) -> None:
    wheel = build(tmp_path, CC="/bin/false")
    assert not [name for name in contents(wheel) if name.endswith(".so")]
    site = site_packages(install(wheel, tmp_path))
    # This Python has pytest, and PYTHONPATH comes before what is installed in it.
    where = run(sys.executable, "-c", "import perfkeep as p; print(p.__file__)", PYTHONPATH=site)
    assert Path(where.strip()).is_relative_to(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    run(*command, f"--rootdir={ROOT}", str(ROOT / "tests/unit/records"), PYTHONPATH=site)
