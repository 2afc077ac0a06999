"""The native core, where it was built."""

from __future__ import annotations

from types import ModuleType

import pytest


def native() -> ModuleType:
    try:
        from perfkeep.records import _walk
    except ImportError:
        pytest.skip("the native walk was not built: no C compiler")
    return _walk
