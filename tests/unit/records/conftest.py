"""The native core and its twin keep the same promises."""

from __future__ import annotations

from types import ModuleType

import pytest

from perfkeep.records import pure
from perfkeep.testing.twins import native


@pytest.fixture(params=["pure", "native"])
def core(request: pytest.FixtureRequest) -> ModuleType:
    return pure if request.param == "pure" else native()
