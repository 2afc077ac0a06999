"""The sandbox, for its tests."""

from __future__ import annotations

import pytest

from support import sandbox
from support.sandbox import Inside


@pytest.fixture
def inside() -> Inside:
    """Calls a function in a child that has entered the sandbox."""
    return sandbox.inside
