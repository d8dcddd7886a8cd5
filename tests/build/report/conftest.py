"""One example folder for all tests of the report, and the page made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.build.report import write_report
from tests.build.report.example import make_example


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_example(tmp_path_factory.mktemp("report") / "build", size=0.3)


@pytest.fixture(scope="session")
def page(example: Path) -> Path:
    return write_report(example).path
