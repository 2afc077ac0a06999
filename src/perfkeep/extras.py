"""Extras of this installation: which one a missing module belongs to, and the command that adds it."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from perfkeep.errors import PerfkeepError

#: Extra → modules that it installs.
MODULES = {
    "analysis": ("numpy", "nanoarrow", "duckdb", "rust_demangler", "backports"),
    "lines": ("symbolic",),
}

#: Modules of no extra that methods of the library return objects of.
FRAMES = ("pandas", "polars")


def extra_of(module: str) -> str | None:
    """The extra that installs a module; None: none does."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in MODULES.items() if top in modules), None)


def missing(module: str, extra: str) -> PerfkeepError:
    """The error to raise for a module that is not installed."""
    message = f"this needs {module}, of the extra {extra!r}, which is not installed"
    return PerfkeepError(errno.ENOPKG, message, hint=install_command(extra))


@contextmanager
def needed() -> Iterator[None]:
    """Raise a PerfkeepError for a module of an extra, or of FRAMES, that is missing inside."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = error.name or ""
        if module in FRAMES:
            message = f"this needs {module}, which is not installed"
            raise PerfkeepError(errno.ENOPKG, message, hint=package_command(module)) from error
        extra = extra_of(module)
        if extra is None:
            raise
        raise missing(module, extra) from error


def install_command(extra: str) -> str:
    """The command that adds an extra, by the program that installed perfkeep."""
    source, editable = _source()
    if not source:
        requirement = f"perfkeep[{extra}]"
    elif source.startswith("/"):
        requirement = f"{source}[{extra}]"
    else:
        requirement = f"perfkeep[{extra}] @ {source}"
    words = ["--editable", requirement] if editable else [requirement]
    if _by_uv_tool():
        return shlex.join(["uv", "tool", "install", *words])
    if _by_pipx():
        return shlex.join(["pipx", "install", "--force", *words])
    return shlex.join([*_installer(), *words])


def package_command(package: str) -> str:
    """The command that adds another package to the environment that perfkeep is in."""
    if _by_pipx():
        return shlex.join(["pipx", "inject", "perfkeep", package])
    if _by_uv_tool():
        return shlex.join(["uv", "pip", "install", "--python", sys.executable, package])
    return shlex.join([*_installer(), package])


def _by_uv_tool() -> bool:
    return os.path.exists(f"{sys.prefix}/uv-receipt.toml")


def _by_pipx() -> bool:
    return os.path.exists(f"{sys.prefix}/pipx_metadata.json")


def _installer() -> list[str]:
    """The command that installs into this environment, without what it is to install."""
    if _metadata("INSTALLER").strip() == "uv" and shutil.which("uv"):
        return ["uv", "pip", "install", "--python", sys.executable]
    if not _has_pip() and shutil.which("pip"):  # as uv makes environments
        return ["pip", "--python", sys.executable, "install"]
    return [sys.executable, "-m", "pip", "install"]


def _has_pip() -> bool:
    from importlib.util import find_spec

    return find_spec("pip") is not None


def _metadata(name: str) -> str:
    """A file of the installed distribution; "" where there is none."""
    from importlib import metadata

    try:
        return metadata.distribution("perfkeep").read_text(name) or ""
    except metadata.PackageNotFoundError:
        return ""


def _source() -> tuple[str, bool]:
    """The source perfkeep was installed from, a directory or a URL of PEP 610, and whether its code
    runs there; "" for a package index.
    """
    import json
    from urllib.parse import unquote, urlsplit

    text = _metadata("direct_url.json")
    if not text:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        checkout = os.path.exists(f"{root}/pyproject.toml")
        return (root, True) if checkout else ("", False)
    direct = json.loads(text)
    url, directory = direct["url"], direct.get("dir_info")
    if directory is not None:
        return unquote(urlsplit(url).path), bool(directory.get("editable"))
    vcs = direct.get("vcs_info")
    return (f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else url), False
