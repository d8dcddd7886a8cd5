"""SGLang in this process, for what runs our worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cpu_engine import sglang_in_this_process


@pytest.fixture(scope="package")
def sglang() -> Iterator[None]:
    with sglang_in_this_process():
        yield
