from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pool"))

from fake_pool import FakePool

from sglang_hetero_spec.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def pool(tmp_path: Path) -> FakePool:
    """A pool without a router: a router of its own would have to be fitted first."""
    fake = FakePool(tmp_path)
    del fake.manifest["router"]
    fake.write()
    return fake


@pytest.fixture
def hetero_spec(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `hetero-spec` in this process."""

    def run(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run
