from __future__ import annotations

from pathlib import Path

import pytest
from fake_pool import FakePool


@pytest.fixture
def pool(tmp_path: Path) -> FakePool:
    return FakePool(tmp_path)
