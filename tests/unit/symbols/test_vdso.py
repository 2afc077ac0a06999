"""perfkeep.symbols.vdso: what the kernel maps into every process has names as well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perfkeep.symbols.vdso import vdso


def test_functions_of_the_vdso_are_named() -> None:
    if "[vdso]" not in Path("/proc/self/maps").read_text():
        pytest.skip("this process has no vdso")
    image = vdso()
    assert image is not None
    names = image.symbols.names_of(image.addresses(image.symbols.starts))
    machine = os.uname().machine
    expected = {"x86_64": "clock_gettime", "aarch64": "__kernel_clock_gettime"}.get(machine)
    assert expected is None or any(name and name.endswith(expected) for name in names)
