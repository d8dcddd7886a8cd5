from __future__ import annotations

from pathlib import Path

import pytest
from fake_pool import FakePool


@pytest.fixture
def pool(tmp_path: Path) -> FakePool:
    return FakePool(tmp_path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's cache of intersections stays as it is."""
    monkeypatch.setenv("HETERO_SPEC_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
